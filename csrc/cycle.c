/* cycle.c: does a computation wait for itself?
 *
 * The wait-for graph has two kinds of edges into a computation, and both lie in its own segment: a node says "I am waited for by
 * `parent`", and the flight itself "my owner makes me for `parent`, on its stack". `parent` is a computation of this cache or
 * of another one, so the graph spans all caches of the host. A computation may have several edges at once either way
 * (threads, tasks), so this is a search, not a walk. It goes against the arrows, from the one that asks to all that are
 * stuck until it ends, and costs a scan of the nodes per computation reached. Only nested waits pay for it.
 *
 * SYNC edge: whoever waits stores its edge first and searches afterwards, without a lock, since no lock covers several caches. Of
 * the calls that form a cycle, the one whose store is last in the order of all stores sees the edges of the others; several
 * may, and are all told. Nothing else is refused: an edge read here was in force, and the computations that were
 * reached cannot end meanwhile, for they wait, one for the other, for the one that is asking just now.
 *
 * An edge counts only while its waiter lives and its target is live: what a killed process left behind is no edge.
 * A cache that this process is not attached to stops the search; csm_cycle_unknown() tells which. */
#include "flight.h"
#include "process.h"
#include "wait.h"

enum { REACHED_MAX = 1024, CHAIN_MAX = 32 };

/* Handed to the caller by csm_chain_* on the same thread, right after CSM_CYCLE. */
static __thread struct {
    size_t n;
    struct {
        uint64_t id;
        uint32_t bytes, key_bytes;
        unsigned char key[CSM_KEY_PREVIEW];
    } keys[CHAIN_MAX];
} chain;

static __thread uint64_t unknown;

static __thread struct {
    struct {
        struct csm_asker who;
        uint32_t from; /* the item that waits for it */
    } item[REACHED_MAX];
    uint32_t n;
} reached;

/* `h` if it is of that cache, else this process's handle of it, or NULL. */
static csm *handle_of(csm *h, uint64_t id) { return id == h->id ? h : csm_process_find(id); }

static bool is_live(csm *h, uint64_t target) {
    uint32_t f = csm_target_flight(target);
    return f < h->geo.flights && csm_flight_is_live(h, csm_load_acquire(&h->header->generation), f, target >> 16);
}

static void add_to_chain(csm *h, struct csm_asker who) {
    uint32_t f = csm_target_flight(who.target);
    h = handle_of(h, who.id);
    if (chain.n == CHAIN_MAX || !h || f >= h->geo.flights) return;
    uint64_t bytes = csm_load(&h->flights[f].key_bytes);
    chain.keys[chain.n].id = who.id;
    chain.keys[chain.n].key_bytes = (uint32_t)bytes;
    chain.keys[chain.n].bytes = (uint32_t)csm_min(bytes, CSM_KEY_PREVIEW);
    csm_copy_racy(chain.keys[chain.n].key, h->flights[f].key, chain.keys[chain.n].bytes);
    chain.n++;
}

/* From what was asked for, which is the last item, to the one that asked. */
static void tell(csm *h, uint32_t i) {
    chain.n = 0;
    for (;; i = reached.item[i].from) {
        add_to_chain(h, reached.item[i].who);
        if (i == 0) break; /* `from` is always smaller, so this ends */
    }
}

static void reach(struct csm_asker who, uint32_t from) {
    if (who.target == 0) return;
    for (uint32_t i = 0; i < reached.n; i++)
        if (reached.item[i].who.target == who.target && reached.item[i].who.id == who.id) return;
    if (reached.n == REACHED_MAX) return; /* absurdly wide: Ctrl-C remains */
    reached.item[reached.n].who = who;
    reached.item[reached.n++].from = from;
}

/* Reaches all that wait for item `i`. */
static void reach_next(csm *h, uint32_t i) {
    uint64_t id = reached.item[i].who.id, target = reached.item[i].who.target;
    h = handle_of(h, id);
    if (!h) unknown = id;
    if (!h || !is_live(h, target)) return;
    uint32_t nodes = csm_wait_nodes(h);
    for (uint32_t n = 0; n < nodes; n++) {
        struct csm_node *node = &h->nodes[n];
        if (csm_wait_target(h, n) != target) continue;
        struct csm_asker parent = {.id = csm_load_acquire(&node->parent_id), .target = csm_load_acquire(&node->parent)};
        uint64_t owner = csm_load_acquire(&node->owner);
        /* SYNC node: pairs with join_locked, which fills a node before it stores the target. Whoever has read a parent from the
         * node's next use finds that use's target here, or none. */
        if (csm_wait_target(h, n) == target && csm_process_alive(h, owner)) reach(parent, i);
    }
    struct csm_flight *flight = &h->flights[csm_target_flight(target)];
    uint64_t term = csm_load_acquire(&flight->term), owner = csm_load_acquire(&flight->owner);
    struct csm_asker parent = {.id = csm_load_acquire(&flight->parent_id), .target = csm_load_acquire(&flight->parent)};
    /* SYNC term: pairs with set_asker. Whoever has read a later owner's parent finds that one's term here, or another serial. */
    if (csm_load_acquire(&flight->term) == term && is_live(h, target) && csm_process_alive(h, owner)) reach(parent, i);
}

bool csm_cycle_found(csm *h, struct csm_asker asker, uint64_t target) {
    unknown = 0;
    reached.n = 0;
    csm_fence_seq(); /* SYNC edge */
    reach(asker, 0);
    for (uint32_t i = 0; i < reached.n; i++) {
        if (reached.item[i].who.target == target && reached.item[i].who.id == h->id) {
            tell(h, i);
            return true;
        }
        reach_next(h, i);
    }
    return false;
}

uint64_t csm_cycle_unknown(void) { return unknown; }

size_t csm_chain_length(void) { return chain.n; }

uint64_t csm_chain_id(size_t i) { return i < chain.n ? chain.keys[i].id : 0; }

size_t csm_chain_key_bytes(size_t i) { return i < chain.n ? chain.keys[i].key_bytes : 0; }

size_t csm_chain_key(size_t i, unsigned char *buffer, size_t capacity) {
    if (i >= chain.n) return 0;
    size_t bytes = chain.keys[i].bytes < capacity ? chain.keys[i].bytes : capacity;
    memcpy(buffer, chain.keys[i].key, bytes);
    return bytes;
}
