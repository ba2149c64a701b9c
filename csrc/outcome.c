/* outcome.c: see outcome.h. The functions of api.h's csm_outcome_read live here too.
 *
 * What if a process dies here: a writer's record stays "writing" with a dead owner, a cleaner's stays "cleaning": both
 * are free for the next writer. A reader that dies never counts itself down: its record is taken when it is the oldest. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "outcome.h"

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum what { FREE = 0, WRITING = 1, READABLE = 2, CLEANING = 3 };

/* Windows up to this size keep their pages for the next outcome: 64 of them are 4 MiB at most. */
static const uint64_t KEEP_BYTES = 64 * 1024;

static inline uint64_t state_of(csm *h, enum what what) { return (uint64_t)what << CSM_OWNER_BITS | h->self; }
static inline enum what what_of(uint64_t state) { return (enum what)(state >> CSM_OWNER_BITS); }
static inline off_t window(csm *h, uint32_t outcome) {
    return (off_t)(h->geo.windows_off + outcome * CSM_WINDOW_BYTES);
}

/* After this long, who has not read a record yet is dead or stopped, and may as well start over. */
static const uint64_t EXPIRY_NS = UINT64_C(10000000000);

static bool is_idle(csm *h, struct csm_outcome *o) {
    uint64_t state = csm_load_acquire(&o->state);
    if (what_of(state) == FREE) return true;
    if (what_of(state) == READABLE)
        return csm_load(&o->remaining) == 0 || csm_now_ns() - csm_load(&o->at_ns) > EXPIRY_NS;
    return !csm_process_alive(h, state);
}

uint32_t csm_outcome_begin_locked(csm *h) {
    uint32_t oldest = CSM_NO_INDEX;
    for (uint32_t i = 0; i < CSM_OUTCOMES; i++) {
        struct csm_outcome *o = &h->outcomes[i];
        uint64_t state = csm_load_acquire(&o->state);
        if (is_idle(h, o)) {
            if (csm_swap_if(&o->state, state, state_of(h, WRITING))) {
                csm_store_release(&o->serial, 0);
                return i;
            }
        } else if (what_of(state) == READABLE &&
                   (oldest == CSM_NO_INDEX || csm_load(&o->at_ns) < csm_load(&h->outcomes[oldest].at_ns))) {
            oldest = i;
        }
    }
    if (oldest == CSM_NO_INDEX) return CSM_NO_INDEX;
    uint64_t state = csm_load(&h->outcomes[oldest].state);
    if (what_of(state) != READABLE || !csm_swap_if(&h->outcomes[oldest].state, state, state_of(h, WRITING)))
        return CSM_NO_INDEX; /* its last reader came first and cleans it: lossy is allowed */
    csm_stat_add(h, CSM_STAT_LOST_OUTCOMES, 1);
    /* SYNC overwrite: pairs with csm_outcome_read. The serial goes before the first byte of the next payload comes. */
    csm_store_seq(&h->outcomes[oldest].serial, 0);
    return oldest;
}

static void shrink(csm *h, uint32_t outcome, uint64_t keep) {
    struct csm_outcome *o = &h->outcomes[outcome];
    uint64_t taken = csm_min(csm_load(&o->taken), CSM_WINDOW_BYTES);
    keep = csm_round(keep, CSM_PAGE);
    if (taken <= keep || h->fd < 0) return;
    if (fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, window(h, outcome) + (off_t)keep,
                  (off_t)(taken - keep)) == 0)
        csm_store(&o->taken, keep);
}

int csm_outcome_write(csm *h, uint32_t outcome, const csm_piece *pieces, size_t n) {
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) total += pieces[i].bytes;
    if (total > CSM_WINDOW_BYTES) return CSM_TOO_LARGE;
    shrink(h, outcome, total > KEEP_BYTES ? total : KEEP_BYTES); /* what a predecessor left */
    struct csm_outcome *o = &h->outcomes[outcome];
    if (csm_load(&o->taken) < total) csm_store(&o->taken, csm_round(total, CSM_PAGE));
    off_t at = window(h, outcome);
    for (size_t i = 0; i < n; i++) {
        const char *data = pieces[i].data;
        for (uint64_t left = pieces[i].bytes; left;) {
            ssize_t done = pwrite(h->fd, data, left, at);
            if (done < 0 && errno == EINTR) continue;
            if (done <= 0) return CSM_NO_SPACE;
            data += done;
            at += done;
            left -= (uint64_t)done;
        }
    }
    return CSM_OK;
}

void csm_outcome_commit_locked(csm *h, uint32_t outcome, uint64_t generation, uint64_t serial, uint64_t bytes, int kind,
                               int format, uint64_t waiters) {
    struct csm_outcome *o = &h->outcomes[outcome];
    csm_store(&o->generation, generation);
    csm_store(&o->bytes, bytes);
    csm_store(&o->kind, (uint64_t)kind << 8 | (uint64_t)format);
    csm_store(&o->remaining, waiters);
    csm_store(&o->at_ns, csm_now_ns());
    csm_store(&o->serial, serial);
    /* SYNC outcome: pairs with csm_outcome_find. Killed before it: the record has a dead writer and is free. */
    csm_store_release(&o->state, state_of(h, READABLE));
}

static void clean(csm *h, uint32_t outcome) {
    shrink(h, outcome, KEEP_BYTES);
    csm_store_release(&h->outcomes[outcome].state, (uint64_t)FREE << CSM_OWNER_BITS);
}

void csm_outcome_cancel(csm *h, uint32_t outcome) { clean(h, outcome); }

void csm_outcome_sweep(csm *h, uint64_t generation) {
    for (uint32_t i = 0; i < CSM_OUTCOMES; i++) {
        struct csm_outcome *o = &h->outcomes[i];
        uint64_t state = csm_load_acquire(&o->state);
        if (what_of(state) == READABLE && csm_load(&o->generation) != generation &&
            csm_swap_if(&o->state, state, state_of(h, CLEANING)))
            clean(h, i);
    }
}

uint32_t csm_outcome_find(csm *h, uint64_t generation, uint64_t serial) {
    for (uint32_t i = 0; i < CSM_OUTCOMES; i++) {
        struct csm_outcome *o = &h->outcomes[i];
        if (csm_load(&o->serial) != serial) continue;
        if (what_of(csm_load_acquire(&o->state)) != READABLE) continue; /* SYNC outcome */
        if (csm_load(&o->serial) == serial && csm_load(&o->generation) == generation) return i;
    }
    return CSM_NO_INDEX;
}

void csm_outcome_done(csm *h, uint32_t outcome, uint64_t serial) {
    struct csm_outcome *o = &h->outcomes[outcome];
    uint64_t state = csm_load_acquire(&o->state);
    if (what_of(state) != READABLE || csm_load(&o->serial) != serial) return;
    uint64_t remaining = csm_load(&o->remaining);
    do {
        if (remaining == 0) return;
    } while (!__atomic_compare_exchange_n(&o->remaining, &remaining, remaining - 1, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    /* The last one gives the pages back. The compare-and-swap decides between it and a writer that takes the record. A
     * count that went to the wrong record (taken over between the look and the decrement) only ends that one early:
     * its readers may lose it, as with any overwriting. */
    if (remaining == 1 && csm_swap_if(&o->state, state, state_of(h, CLEANING))) clean(h, outcome);
}

int csm_outcome_read(csm *h, csm_call *call, void *buffer) {
    const csm_waiter *waiter = &call->waiter;
    uint32_t i = waiter->outcome;
    if (i >= CSM_OUTCOMES) return CSM_INVALID;
    struct csm_outcome *o = &h->outcomes[i];
    char *to = buffer;
    off_t at = window(h, i);
    int code = CSM_OK;
    for (uint64_t left = waiter->outcome_bytes; left && code == CSM_OK;) {
        ssize_t done = pread(h->fd, to, left, at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            code = CSM_STALE;
            break;
        }
        to += done;
        at += done;
        left -= (uint64_t)done;
    }
    /* SYNC overwrite: pairs with csm_outcome_begin_locked. Any byte of a later payload implies a later serial. */
    csm_fence_acquire();
    if (csm_load_acquire(&o->serial) != waiter->outcome_serial) code = CSM_STALE;
    csm_outcome_done(h, i, waiter->outcome_serial);
    return code;
}
