/* cycle.c: does a computation wait for itself?
 *
 * The wait-for graph has two kinds of edges. A node says "the computation `parent` waits for the flight `target`"; a flight says
 * "the computation `parent` is computing me itself". A computation may have several at once (threads, tasks), so this is a
 * search, not a walk. It runs under the write lock, before the edge that might close the cycle is added: of the calls that form a
 * cycle, the last one to join sees it. It runs only for nested waits, and costs a scan of nodes and flights per flight reached.
 *
 * An edge counts only while its waiter lives, its parent is still that waiter's flight, and its target is live: what a
 * killed process left behind raises no false alarm. */
#include "flight.h"
#include "process.h"
#include "wait.h"

enum { REACHED_MAX = 1024, CHAIN_MAX = 32 };

/* Handed to the caller by csm_chain_* on the same thread, right after CSM_CYCLE. */
static __thread struct {
    size_t n;
    struct {
        uint32_t bytes, key_bytes;
        unsigned char key[CSM_KEY_PREVIEW];
    } keys[CHAIN_MAX];
} chain;

static void add_to_chain(csm *h, uint64_t target) {
    uint32_t f = csm_target_flight(target);
    if (chain.n == CHAIN_MAX || f >= h->geo.flights) return;
    uint32_t bytes = (uint32_t)csm_min(csm_load(&h->flights[f].key_bytes), CSM_KEY_PREVIEW);
    chain.keys[chain.n].bytes = bytes;
    chain.keys[chain.n].key_bytes = (uint32_t)csm_load(&h->flights[f].key_bytes);
    csm_copy_racy(chain.keys[chain.n].key, h->flights[f].key, bytes);
    chain.n++;
}

static bool is_live_target(csm *h, uint64_t generation, uint64_t target) {
    uint32_t f = csm_target_flight(target);
    return f < h->geo.flights && csm_flight_is_live(h, generation, f, target >> 16);
}

/* Is `parent`, by `owner`, a computation in which `target` is needed? */
static bool is_edge(csm *h, uint64_t generation, uint64_t parent, uint64_t owner, uint64_t target) {
    return owner != 0 && is_live_target(h, generation, parent) && is_live_target(h, generation, target) &&
           csm_load(&h->flights[csm_target_flight(parent)].owner) == owner && csm_process_alive(h, owner);
}

static __thread struct {
    struct {
        uint64_t target;
        uint32_t from;
    } item[REACHED_MAX];
    uint32_t n;
} reached;

static void reach(uint64_t target, uint32_t from) {
    for (uint32_t i = 0; i < reached.n; i++)
        if (reached.item[i].target == target) return;
    if (reached.n == REACHED_MAX) return; /* absurdly wide: Ctrl-C remains */
    reached.item[reached.n].target = target;
    reached.item[reached.n++].from = from;
}

static void reach_next(csm *h, uint64_t generation, uint32_t i) {
    uint64_t at = reached.item[i].target;
    uint32_t nodes = csm_wait_nodes(h), flights = (uint32_t)csm_min(csm_load(&h->header->flights_used), h->geo.flights);
    for (uint32_t n = 0; n < nodes; n++) {
        struct csm_node *node = &h->nodes[n];
        uint64_t target = csm_load(&node->target);
        if (csm_load(&node->parent) == at && is_edge(h, generation, at, csm_load(&node->owner), target)) reach(target, i);
    }
    for (uint32_t f = 0; f < flights; f++) {
        struct csm_flight *flight = &h->flights[f];
        uint64_t target = csm_target(csm_load(&flight->serial), f);
        if (csm_load(&flight->parent) == at && is_edge(h, generation, at, csm_load(&flight->owner), target)) reach(target, i);
    }
}

/* From what was asked for to item `i`. */
static void tell(csm *h, uint32_t i) {
    static __thread uint64_t path[REACHED_MAX];
    size_t length = 0;
    for (;; i = reached.item[i].from) {
        path[length++] = reached.item[i].target;
        if (i == 0) break; /* `from` is always smaller, so this ends */
    }
    chain.n = 0;
    while (length) add_to_chain(h, path[--length]);
}

bool csm_cycle_found_locked(csm *h, uint64_t generation, uint64_t parent, uint64_t target) {
    reached.n = 0;
    reach(target, 0);
    for (uint32_t i = 0; i < reached.n; i++) {
        if (reached.item[i].target == parent) {
            tell(h, i);
            return true;
        }
        reach_next(h, generation, i);
    }
    return false;
}

size_t csm_chain_length(void) { return chain.n; }

size_t csm_chain_key_bytes(size_t i) { return i < chain.n ? chain.keys[i].key_bytes : 0; }

size_t csm_chain_key(size_t i, unsigned char *buffer, size_t capacity) {
    if (i >= chain.n) return 0;
    size_t bytes = chain.keys[i].bytes < capacity ? chain.keys[i].bytes : capacity;
    memcpy(buffer, chain.keys[i].key, bytes);
    return bytes;
}
