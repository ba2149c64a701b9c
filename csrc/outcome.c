/* outcome.c: see outcome.h. csm_outcome_read of api.h lives here too.
 *
 * One word says whose outcome a record holds and how many waiters have yet to read it, so that a late reader can never take
 * a later outcome for its own, nor count itself off one.
 *
 * Who writes a window, or cleans it, is entered in `writer` under the lock, and until it is done (or dead) nobody else may: a
 * flight's owner may be stopped in the middle of its writing, and its flight record meanwhile serve another one, after a reset.
 *
 * What if a process dies here: an owner before the commit leaves a record without an outcome; a reader that dies never counts
 * itself off, and its record expires; a writer's word names a dead process, which binds nobody. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "outcome.h"

#include "hash.h"
#include "lock.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Windows up to this size keep their pages for the next outcome: at most 1,024 flights of them, 16 MiB, and in practice those few
 * that are in flight at the same time. */
static const uint64_t KEEP_BYTES = 16 * 1024;

/* After this long, who has not read an outcome yet is dead or stopped, and may as well start over. */
static const uint64_t EXPIRY_NS = UINT64_C(10000000000);

static const uint64_t WAITERS_MASK = 0xffff;

static inline uint64_t serial_of(uint64_t word) { return word >> 16; }
static inline off_t window(csm *h, uint32_t f) { return (off_t)(h->geo.windows_off + f * CSM_WINDOW_BYTES); }

static bool is_being_written(csm *h, struct csm_outcome *o) {
    uint64_t writer = csm_load_acquire(&o->writer);
    return writer && csm_process_alive(h, writer);
}

bool csm_outcome_is_idle(csm *h, uint32_t f) {
    struct csm_outcome *o = &h->outcomes[f];
    uint64_t word = csm_load(&o->word);
    if ((word & WAITERS_MASK) && csm_now_ns() - csm_load(&o->at_ns) < EXPIRY_NS) return false;
    return !is_being_written(h, o);
}

bool csm_outcome_begin_locked(csm *h, uint32_t f) {
    struct csm_outcome *o = &h->outcomes[f];
    if (is_being_written(h, o)) return false;
    if (csm_load(&o->word) & WAITERS_MASK) csm_stat_add(h, CSM_STAT_LOST_OUTCOMES, 1);
    csm_store(&o->writer, csm_self(h));
    /* SYNC overwrite: pairs with csm_outcome_read. The word goes before the first byte of the payload comes. A fence, since a
     * release store lets later stores pass. */
    csm_store_seq(&o->word, 0);
    csm_fence_seq();
    return true;
}

void csm_outcome_end(csm *h, uint32_t f) { csm_store_release(&h->outcomes[f].writer, 0); }

/* Gives back the pages of the window behind `keep` bytes. By the writer. */
static void shrink(csm *h, uint32_t f, uint64_t keep) {
    struct csm_outcome *o = &h->outcomes[f];
    uint64_t taken = csm_min(csm_load(&o->taken), CSM_WINDOW_BYTES);
    keep = csm_round(keep, CSM_PAGE);
    struct stat st;
    if (taken <= keep || !csm_process_stat(h, &st)) return;
    if (fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, window(h, f) + (off_t)keep, (off_t)(taken - keep)) == 0)
        csm_store(&o->taken, keep);
}

int csm_outcome_write(csm *h, uint32_t f, const csm_piece *pieces, size_t n) {
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) total += pieces[i].bytes;
    struct stat st;
    if (total > CSM_WINDOW_BYTES) return CSM_TOO_LARGE;
    if (!csm_process_stat(h, &st)) return CSM_NO_SPACE;
    shrink(h, f, total > KEEP_BYTES ? total : KEEP_BYTES); /* what a predecessor left */
    struct csm_outcome *o = &h->outcomes[f];
    if (csm_load(&o->taken) < total) csm_store(&o->taken, csm_round(total, CSM_PAGE));
    off_t at = window(h, f);
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

static uint64_t check_of(csm *h, uint64_t serial, uint64_t generation, uint64_t bytes, uint64_t kind) {
    const uint64_t words[] = {serial, generation, bytes, kind};
    return csm_hash(h->secret, words, sizeof words).lo;
}

void csm_outcome_commit_locked(csm *h, uint32_t f, uint64_t generation, uint64_t serial, uint64_t bytes, int kind, int format,
                               uint64_t waiters) {
    struct csm_outcome *o = &h->outcomes[f];
    csm_store(&o->generation, generation);
    csm_store(&o->bytes, bytes);
    csm_store(&o->kind, (uint64_t)kind << 8 | (uint64_t)format);
    csm_store(&o->check, check_of(h, serial, generation, bytes, (uint64_t)kind << 8 | (uint64_t)format));
    csm_store(&o->at_ns, csm_now_ns());
    /* SYNC outcome: pairs with csm_outcome_find. */
    csm_store_release(&o->word, serial << 16 | csm_min(waiters, WAITERS_MASK));
}

void csm_outcome_void_locked(csm *h, uint32_t f, uint64_t serial) {
    uint64_t *word = &h->outcomes[f].word;
    if (serial_of(csm_load(word)) == serial) csm_store_release(word, 0); /* an earlier flight's may still be read */
}

bool csm_outcome_find(csm *h, csm_waiter *w) {
    struct csm_outcome *o = &h->outcomes[w->flight];
    if (serial_of(csm_load_acquire(&o->word)) != w->serial) return false; /* SYNC outcome */
    uint64_t generation = csm_load(&o->generation), kind = csm_load(&o->kind), bytes = csm_load(&o->bytes);
    uint64_t check = csm_load(&o->check);
    csm_fence_acquire();
    if (serial_of(csm_load_acquire(&o->word)) != w->serial || generation != w->generation) return false;
    struct stat st;
    /* A damaged length must not make the caller allocate what is not there, nor a damaged kind turn a failure into a value. */
    if (check != check_of(h, w->serial, generation, bytes, kind) || bytes > CSM_WINDOW_BYTES) return false;
    if (bytes && !csm_process_stat(h, &st)) return false;
    w->outcome_serial = w->serial;
    w->outcome = w->flight;
    w->outcome_bytes = bytes;
    w->outcome_kind = (uint32_t)(kind >> 8) & 0xff;
    w->outcome_format = (uint32_t)kind & 0xff;
    return true;
}

/* Becomes the writer of a record that nobody reads, unless its flight is in use again, and cleans. Or the code of csm_lock; without a
 * call of csm_lock_once, and what is left then goes with the record's next outcome, or with the sweep after a reset. */
static int clean(csm *h, uint32_t f, uint64_t word, csm_call *call) {
    struct csm_outcome *o = &h->outcomes[f];
    if (csm_load(&o->taken) <= KEEP_BYTES) return CSM_OK;
    int code = call ? csm_lock_within(h, call) : csm_lock_once(h);
    if (code != CSM_OK) return code;
    struct csm_flight *flight = &h->flights[f];
    bool free = csm_load(&flight->serial) == 0 || csm_load(&flight->generation) != csm_load(&h->header->generation);
    bool mine = free && csm_load(&o->word) == word && !is_being_written(h, o);
    if (mine) {
        csm_store_release(&o->writer, csm_self(h));
        csm_store_seq(&o->word, 0);
    }
    csm_unlock(h);
    if (!mine) return CSM_OK;
    shrink(h, f, KEEP_BYTES);
    csm_outcome_end(h, f);
    return CSM_OK;
}

void csm_outcome_done(csm *h, csm_call *call, uint32_t f, uint64_t serial) {
    uint64_t *at = &h->outcomes[f].word, word = csm_load_acquire(at);
    do {
        if (serial_of(word) != serial || (word & WAITERS_MASK) == 0) return;
    } while (!__atomic_compare_exchange_n(at, &word, word - 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    if (((word - 1) & WAITERS_MASK) == 0) clean(h, f, word - 1, call);
}

void csm_outcome_sweep(csm *h, uint64_t generation) {
    csm_call call = {.stalled_ns = 0};
    int code = CSM_OK;
    for (uint32_t f = 0; f < h->geo.flights && code == CSM_OK; f++) { /* no lock: a later sweep does it */
        const struct csm_outcome *o = &h->outcomes[f];
        if (csm_load(&o->taken) <= KEEP_BYTES) continue; /* as in clean: nearly all, and a reset pays for a thousand of them */
        /* No word: its writer was killed before it had finished. */
        uint64_t word = csm_load_acquire(&o->word);
        if (word == 0 || csm_load(&o->generation) != generation) code = clean(h, f, word, &call);
    }
}

int csm_outcome_read(csm *h, csm_call *call, void *buffer) {
    const csm_waiter *waiter = &call->waiter;
    uint32_t f = waiter->outcome;
    if (f >= h->geo.flights) return CSM_INVALID;
    char *to = buffer;
    off_t at = window(h, f);
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
    /* SYNC overwrite: pairs with csm_outcome_begin_locked (and clean). Any byte of a later payload implies another word. */
    csm_fence_acquire();
    if (serial_of(csm_load_acquire(&h->outcomes[f].word)) != waiter->outcome_serial) code = CSM_STALE;
    csm_outcome_done(h, call, f, waiter->outcome_serial);
    return code;
}
