/* lease.c: see lease.h. The other side is relay.c. */
#include "lease.h"

#include "process.h"

/* Whatever the header says, a waiter's patience ends. */
static const uint64_t LONGEST_TIMEOUT_NS = UINT64_C(10000000000);

static uint64_t timeout_ns(csm *h) { return csm_min(csm_load(&h->header->lease_timeout_ns), LONGEST_TIMEOUT_NS); }

/* Has it passed since? A moment in the future, which is damage, counts as long ago. */
static bool is_over(csm *h, uint64_t since_ns) { return csm_now_ns() - since_ns > timeout_ns(h); }

static bool hangs(csm *h) {
    uint64_t seen = csm_load_acquire(&h->header->sidecar_seen_ns); /* before the clock */
    return is_over(h, seen);
}

uint64_t csm_lease_sidecar(csm *h) {
    uint64_t sidecar = csm_load_acquire(&h->header->sidecar);
    if (sidecar == 0 || sidecar == csm_self(h) || hangs(h)) return 0;
    return csm_process_alive(h, sidecar) ? sidecar : 0;
}

static enum csm_lease_state state_of(csm *h, uint32_t f) {
    struct csm_flight *flight = &h->flights[f];
    return csm_lease_state_of(csm_load_acquire(&flight->lease), csm_load(&flight->serial));
}

bool csm_lease_is_open(csm *h, uint32_t f) {
    switch (state_of(h, f)) {
    case CSM_LEASE_OFFERED:
        return true;
    case CSM_LEASE_ASKED:
    case CSM_LEASE_SEEN:
        return is_over(h, csm_load(&h->flights[f].started_ns)) || hangs(h);
    case CSM_LEASE_HELD:
    case CSM_LEASE_TAKEN:
        return hangs(h);
    case CSM_LEASE_NONE:
    case CSM_LEASE_GRANTED:
        break;
    }
    return false;
}

bool csm_lease_is_unanswered(csm *h, uint32_t f) {
    enum csm_lease_state state = state_of(h, f);
    return state == CSM_LEASE_ASKED || state == CSM_LEASE_SEEN;
}

bool csm_lease_was_let_go(csm *h, uint32_t f) {
    uint64_t word = csm_load_acquire(&h->flights[f].lease);
    return csm_lease_serial(word) == csm_load(&h->flights[f].serial) && (word & CSM_LEASE_LET_GO);
}

bool csm_lease_is_hung(csm *h, uint32_t f) {
    enum csm_lease_state state = state_of(h, f);
    return state != CSM_LEASE_NONE && state != CSM_LEASE_GRANTED && csm_load(&h->flights[f].owner) != csm_self(h) && hangs(h);
}

bool csm_lease_take_over_locked(csm *h, uint32_t f, uint64_t serial) {
    uint64_t *at = &h->flights[f].lease, word = csm_load_acquire(at);
    for (;;) {
        enum csm_lease_state state = csm_lease_state_of(word, serial);
        bool granted = state == CSM_LEASE_OFFERED || state == CSM_LEASE_GRANTED;
        bool is_its = state != CSM_LEASE_NONE && state != CSM_LEASE_GRANTED;
        bool was_its = csm_lease_serial(word) == serial && (word & CSM_LEASE_LET_GO);
        uint64_t next = csm_lease_word(serial, false, granted ? CSM_LEASE_GRANTED : CSM_LEASE_NONE);
        if (is_its || was_its) next |= CSM_LEASE_LET_GO;
        if (word == next || csm_swap_if(at, word, next)) return is_its;
        word = csm_load_acquire(at);
    }
}

void csm_lease_nest(csm *h, uint32_t f, uint64_t serial) {
    uint64_t *at = &h->flights[f].lease, word = csm_load_acquire(at);
    for (;;) {
        enum csm_lease_state state = csm_lease_state_of(word, serial);
        bool waits = state == CSM_LEASE_ASKED || state == CSM_LEASE_SEEN || state == CSM_LEASE_HELD;
        if (!waits || csm_lease_nested(word) || csm_swap_if(at, word, csm_lease_word(serial, true, state))) return;
        word = csm_load_acquire(at);
    }
}

void csm_lease_joined(csm *h, const csm_waiter *w) {
    enum csm_lease_state state = csm_lease_state_of(csm_load(&h->flights[w->flight].lease), w->serial);
    bool nested = w->parent && (state == CSM_LEASE_SEEN || state == CSM_LEASE_HELD);
    if (state == CSM_LEASE_ASKED || nested) csm_lease_ring(h);
}

void csm_lease_ring(csm *h) {
    struct csm_header *header = h->header;
    uint64_t sidecar = csm_load(&header->sidecar);
    if (sidecar == 0 || sidecar == csm_self(h)) return;
    /* SYNC bell: pairs with csm_relay_wait. What is to be seen was stored before, and the unlock or compare-and-swap after it keeps
     * this load behind it: either the sidecar's look, which comes after it has cleared the word, sees it, or the word is clear. */
    csm_fence_seq();
    if (csm_load(&header->bell) == 0 && csm_swap_if(&header->bell, 0, 1)) {
        CSM_CRASH_POINT("bell: not rung"); /* killed here, nobody rings until the sidecar looks for itself */
        sem_post(&header->doorbell.semaphore);
    }
}
