/* publish.c: how a flight's owner ends it: publish, abandon. See flight.h.
 *
 * The value is copied without the lock, into room that was reserved and pinned under it; then the lock is taken again, and
 * only if the ticket is still good the slot is made full. What is not stored becomes an outcome for those who wait.
 *
 * What if a process dies here.
 *   Before the commit: the flight is live with a dead owner; a waiter takes it over, or somebody who needs the room reaps
 *     it; either returns its reservation. Nothing of the value was visible.
 *   After the commit: the entry (or outcome) is there; repair frees the record. Waiters that were not woken look for
 *     themselves when their slice ends.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"
#include "flight.h"
#include "index.h"
#include "lease.h"
#include "lock.h"
#include "outcome.h"
#include "stats.h"
#include "wait.h"

/* ---- the ticket ---- */

/* Says, without the lock, that nobody works on this flight any more. Serials only grow, and so does the word: when this comes so
 * late that the record serves another flight, it changes nothing. */
static void give_up(csm *h, const csm_ticket *t) {
    struct csm_flight *flight = &h->flights[t->flight];
    /* A sidecar that is late may find that a worker has it by now. One that takes it over between this look and the next line is disowned
     * while it computes: another one does so as well, and neither writes where the other does (flight.c). */
    if (csm_load_acquire(&flight->owner) != t->owner) return;
    CSM_CRASH_POINT("give up: looked");
    csm_raise(&flight->given_up, t->serial);
}

/* CSM_OK: the flight is the caller's, and *slot is its slot. */
static int check_ticket_locked(csm *h, const csm_ticket *t, uint64_t *slot) {
    if (t->owner != csm_self(h)) return CSM_FORKED;
    if (t->flight >= h->geo.flights) return CSM_INVALID;
    struct csm_flight *flight = &h->flights[t->flight];
    *slot = csm_load(&flight->slot);
    if (csm_load(&h->header->generation) != t->generation || csm_load(&flight->owner) != t->owner ||
        csm_load(&flight->term) != t->term || !csm_flight_is_live(h, t->generation, t->flight, t->serial) || *slot >= h->geo.slots ||
        csm_load(&flight->given_up) == t->serial) { /* by another thread: who was to take it over may have freed its room, and died */
        csm_stat_add(h, CSM_STAT_STALE, 1);
        /* In the same generation: it was taken over after this process gave it up, or from a sidecar that was late; or the record is
         * damaged. If it still names this process, nobody may be working on it, and all would wait for ever: so it is given up, whatever
         * serial it bears. Another thread that does work on it (it took it over) is told that it is stale. But a later flight of this
         * process that has the record by now, which both words say, is none of the caller's business. */
        uint64_t serial = csm_load(&flight->serial);
        bool later = serial != t->serial && serial == csm_lease_serial(csm_load(&flight->lease));
        if (csm_load(&h->header->generation) == t->generation && csm_load(&flight->owner) == t->owner && !later)
            csm_store_release(&flight->given_up, serial);
        return CSM_STALE;
    }
    return CSM_OK;
}

static int lock_for(csm *h, csm_call *call, uint64_t *slot) {
    const csm_ticket *t = &call->ticket;
    if (t->serial == 0) return CSM_STALE;
    if (t->owner != csm_self(h)) return CSM_FORKED;
    if (t->flight >= h->geo.flights) return CSM_INVALID;
    int code = csm_lock_within(h, call);
    if (code != CSM_OK) {
        give_up(h, t);
        return code;
    }
    code = check_ticket_locked(h, t, slot);
    if (code != CSM_OK) csm_unlock(h);
    return code;
}

static void finish_locked(csm *h, const csm_ticket *t, bool wake) {
    csm_flight_free_locked(h, t->flight);
    csm_unlock(h);
    CSM_CRASH_POINT("finish: before wake-ups");
    if (wake) csm_wait_wake(h, csm_target(t->serial, t->flight));
    csm_lease_ring(h); /* an entry to send, or the end of what was granted */
}

/* The ticket is copied and spent first: whatever happens next, it is not used twice. And the computation has taken its time, whatever
 * becomes of the ticket. */
static csm_call spend(csm *h, csm_call *call, const void *key, size_t key_bytes) {
    csm_call copy = *call;
    call->ticket.serial = 0;
    bool computed = copy.ticket.serial && copy.ticket.owner == csm_self(h) && h->role != CSM_SIDECAR;
    if (computed) csm_stats_computed(h, &copy.ticket, key, key_bytes);
    return copy;
}

/* What is left of the caller's patience, and what it is to be told. */
static void report(csm_call *call, const csm_call *spent) {
    call->stalled_ns = spent->stalled_ns;
    call->steals = spent->steals;
}

/* ---- abandon ---- */

int csm_abandon(csm *h, csm_call *call) {
    csm_call spent = spend(h, call, NULL, 0);
    const csm_ticket *t = &spent.ticket;
    uint64_t slot;
    int code = lock_for(h, &spent, &slot);
    report(call, &spent);
    if (code != CSM_OK) return code;
    bool wake = csm_load(&h->flights[t->flight].waiters);
    csm_arena_return_locked(h, t->generation, &h->flights[t->flight]);
    csm_index_vacate_locked(h, t->generation, slot); /* the commit */
    finish_locked(h, t, wake);
    return CSM_OK;
}

/* ---- publish ---- */

/* Ends the flight with an outcome for its waiters. Enters with the lock and a good ticket; `reason` is what to return. */
static int publish_outcome_locked(csm *h, csm_call *call, uint64_t slot, int kind, int format, const csm_piece *pieces,
                                  size_t n, uint64_t bytes, int reason) {
    const csm_ticket *t = &call->ticket;
    struct csm_flight *flight = &h->flights[t->flight];
    uint64_t target = csm_target(t->serial, t->flight);
    csm_arena_return_locked(h, t->generation, flight);
    if (csm_load(&flight->waiters) && csm_outcome_begin_locked(h, t->flight)) {
        csm_unlock(h); /* the payload is copied without the lock */
        CSM_CRASH_POINT("outcome: begun");
        int written = csm_outcome_write(h, t->flight, pieces, n);
        csm_outcome_end(h, t->flight);
        int code = lock_for(h, call, &slot);
        if (code != CSM_OK) return code;
        if (written != CSM_OK) { /* no pages for it: let the waiters compute at the same time, not one after the other */
            kind = CSM_UNSHAREABLE;
            bytes = 0;
        }
        csm_outcome_commit_locked(h, t->flight, t->generation, t->serial, bytes, kind, format, csm_wait_count(h, target));
        CSM_CRASH_POINT("outcome: committed");
    }
    /* Somebody may have joined while there was no record: it starts over and computes. */
    bool wake = csm_load(&flight->waiters);
    csm_index_vacate_locked(h, t->generation, slot); /* the commit */
    finish_locked(h, t, wake);
    return reason;
}

static void copy_entry(csm *h, const struct csm_flight *flight, uint64_t slot, uint64_t place, const void *key,
                       size_t key_bytes, const csm_piece *pieces, size_t n, uint64_t bytes) {
    unsigned char *entry = h->arena + place * CSM_GRANULE;
    struct csm_entry head = {.hash_hi = csm_load(&flight->hash_hi), .key_bytes = (uint32_t)key_bytes,
                             .slot = (uint32_t)slot};
    csm_fill_racy(entry, &head, sizeof head);
    csm_fill_racy(entry + sizeof head, key, key_bytes);
    unsigned char *to = h->arena + csm_value_at(place, key_bytes, bytes);
    for (size_t i = 0; i < n; i++) {
        if (pieces[i].bytes) csm_fill_racy(to, pieces[i].data, pieces[i].bytes);
        to += pieces[i].bytes;
    }
}

/* Enters with the lock and a good ticket; `extent` is reserved. */
static int publish_entry_locked(csm *h, csm_call *call, uint64_t slot, uint64_t extent, const void *key,
                                size_t key_bytes, int format, const csm_piece *pieces, size_t n, uint64_t bytes) {
    const csm_ticket *t = &call->ticket;
    struct csm_flight *flight = &h->flights[t->flight];
    struct csm_epoch *epoch = csm_epoch_of(h, t->generation);
    uint64_t place = csm_extent_first(extent), entries = 0;
    uint32_t *pins = h->mine->write_pins;
    csm_arena_pin(h, pins, place, csm_extent_granules(extent)); /* under the lock: before any reset */
    CSM_CRASH_POINT("publish: reserved");
    csm_unlock(h);

    int code = csm_arena_back(h, extent);
    if (code == CSM_OK) {
        /* SYNC copy: pairs with the re-check of the generation in every reader. The generation was learned (under the
         * lock) before the first byte is written, so who sees one of these bytes and then loads the generation sees at
         * least this one, and drops what it read for an older one. x86 orders stores anyway; others need the fence. */
        csm_fence_release();
        CSM_CRASH_POINT("publish: before copy");
        copy_entry(h, flight, slot, place, key, key_bytes, pieces, n, bytes);
        CSM_CRASH_POINT("publish: copied");
    }
    /* Nothing is written there any more, and nobody is to think so when the flight is given up. A reset that reuses the chunk voids the
     * ticket. Somebody closed the descriptor: the pins are those of the row's next owner. */
    if (csm_load(&h->mine)->write_pins == pins)
        csm_arena_unpin(h, pins, (uint32_t)csm_chunk_of(h, place), (uint32_t)csm_chunk_of(h, csm_extent_end(extent) - 1));
    int locked = CSM_OK;
    while (code == CSM_OK && (locked = lock_for(h, call, &slot)) == CSM_OK) {
        entries = csm_load(&epoch->entries);
        if (entries >= h->geo.max_items) {
            code = CSM_FULL_ITEMS;
        } else if ((entries + 1) * sizeof *h->log > csm_load(&h->log_known)) {
            csm_unlock(h);
            code = csm_index_back_log(h, entries + 1);
            continue;
        }
        break;
    }
    if (code == CSM_OK && locked == CSM_OK) {
        bool wake = csm_load(&flight->waiters);
        csm_index_commit_locked(h, t->generation, h->role == CSM_SIDECAR, entries, slot, place,
                                csm_meta(bytes, (uint32_t)format, (uint32_t)key_bytes)); /* the commit */
        csm_stat_add(h, CSM_STAT_STORED, 1);
        csm_stat_add(h, CSM_STAT_STORED_BYTES, csm_extent_granules(extent) * CSM_GRANULE);
        finish_locked(h, t, wake);
    }
    if (locked != CSM_OK) return locked;
    if (code == CSM_OK) return CSM_OK;
    if (code != CSM_FULL_ITEMS && (locked = lock_for(h, call, &slot)) != CSM_OK) return locked;
    return publish_outcome_locked(h, call, slot, CSM_VALUE, format, pieces, n, bytes, code);
}

/* A full cache must stay cheap: asking for each flight whether its owner lives takes a system call. */
static bool reap_now_and_then_locked(csm *h, uint64_t generation) {
    const uint64_t pause_ns = 100000000;
    uint64_t now = csm_now_ns();
    if (now - csm_load(&h->reaped_ns) < pause_ns) return false;
    csm_store(&h->reaped_ns, now);
    return csm_flight_reap_locked(h, generation) != 0;
}

static int publish(csm *h, csm_call *call, const char *key, size_t key_bytes, int kind, int format, const csm_piece *pieces, size_t n,
                   uint64_t bytes) {
    const csm_ticket *t = &call->ticket;
    uint64_t slot, extent;
    int code = lock_for(h, call, &slot);
    if (code != CSM_OK) return code;
    if (kind != CSM_VALUE) {
        if (h->role != CSM_SIDECAR) csm_stat_add(h, kind == CSM_FAILURE ? CSM_STAT_FAILURES : CSM_STAT_UNCACHED, 1);
        return publish_outcome_locked(h, call, slot, kind, format, pieces, n, bytes, CSM_NOT_STORED);
    }
    struct csm_flight *flight = &h->flights[t->flight];
    if (csm_load(&csm_epoch_of(h, t->generation)->entries) >= h->geo.max_items) {
        code = CSM_FULL_ITEMS;
    } else if (bytes > CSM_MAX_VALUE) {
        code = CSM_TOO_LARGE;
    } else {
        uint64_t granules = csm_footprint(key_bytes, bytes);
        code = csm_arena_reserve_locked(h, t->generation, flight, granules, &extent);
        if (code == CSM_FULL_ARENA && reap_now_and_then_locked(h, t->generation))
            code = csm_arena_reserve_locked(h, t->generation, flight, granules, &extent); /* the room of the dead */
    }
    if (code != CSM_OK) return publish_outcome_locked(h, call, slot, kind, format, pieces, n, bytes, code);
    return publish_entry_locked(h, call, slot, extent, key, key_bytes, format, pieces, n, bytes);
}

int csm_publish(csm *h, csm_call *call, const char *key, size_t key_bytes, int kind, int format, const csm_piece *pieces,
                size_t n) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += pieces[i].bytes;
    if (format < 0 || (uint32_t)format > CSM_MAX_FORMAT || key_bytes > CSM_MAX_KEY) return CSM_INVALID;
    csm_call spent = spend(h, call, key, key_bytes);
    int code = publish(h, &spent, key, key_bytes, kind, format, pieces, n, bytes);
    report(call, &spent);
    return code;
}
