/* cycle.c: does a computation wait for itself?
 *
 * The wait-for graph is in the nodes: "the computation `parent` waits for the flight `target`". A computation may wait for
 * several flights at once (threads, tasks), so this is a search, not a walk. It runs under the write lock, before the edge
 * that might close the cycle is added: of the calls that form a cycle, the last one to join sees it. It runs only for nested
 * waits, and costs a scan of the nodes per flight reached.
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

static bool is_edge(csm *h, uint64_t generation, uint32_t node, uint64_t parent) {
    struct csm_node *n = &h->nodes[node];
    uint64_t owner = csm_load(&n->owner);
    return owner != 0 && csm_load(&n->parent) == parent && is_live_target(h, generation, parent) &&
           is_live_target(h, generation, csm_load(&n->target)) &&
           csm_load(&h->flights[csm_target_flight(parent)].owner) == owner && csm_process_alive(h, owner);
}

bool csm_cycle_found_locked(csm *h, uint64_t generation, uint64_t parent, uint64_t target) {
    static __thread struct {
        uint64_t target;
        uint32_t from;
    } reached[REACHED_MAX];
    uint32_t n = 1, nodes = csm_wait_nodes(h);
    reached[0].target = target;
    reached[0].from = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = reached[i].target;
        if (at == parent) { /* from the parent back to what it asked for, then turned round */
            uint64_t path[CHAIN_MAX];
            size_t length = 0;
            for (uint32_t j = i; length < CHAIN_MAX; j = reached[j].from) {
                path[length++] = reached[j].target;
                if (j == 0) break;
            }
            chain.n = 0;
            while (length) add_to_chain(h, path[--length]);
            return true;
        }
        for (uint32_t node = 0; node < nodes; node++) {
            if (csm_load(&h->nodes[node].parent) != at || !is_edge(h, generation, node, at)) continue;
            uint64_t next = csm_load(&h->nodes[node].target);
            bool known = false;
            for (uint32_t j = 0; j < n && !known; j++) known = reached[j].target == next;
            if (known) continue;
            if (n == REACHED_MAX) return false; /* absurdly wide: `timeout` and Ctrl-C remain */
            reached[n].target = next;
            reached[n++].from = i;
        }
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
