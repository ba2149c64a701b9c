/* flight.c: claim, publish, abandon, take over. See flight.h.
 *
 * What if a process dies here.
 *   In claim: the record is filled before the slot points to it; a record to which no slot points is free.
 *   In publish, before the commit: the flight is live with a dead owner; a waiter takes it over, or somebody who
 *     needs the room reaps it; either returns its reservation. Nothing of the value was visible.
 *   In publish, after the commit: the entry (or outcome) is there; repair frees the record. Waiters that were not woken
 *     look for themselves when their slice ends.
 *   In take-over: the new owner's word is the commit; before it the flight still has a dead owner.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "flight.h"

#include "arena.h"
#include "hash.h"
#include "index.h"
#include "lock.h"
#include "outcome.h"
#include "process.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>

/* A flight's first waiter looks after the owner this often: the contract promises a takeover within 20 ms. */
static const uint64_t SENTINEL_SLICE_NS = 10000000;
static const uint64_t WAITER_SLICE_NS = 50000000;
/* One claim in so many looks whether the object still has its name. */
enum { LOOK_MASK = 15 };

/* ---- what a flight is ---- */

bool csm_flight_is_live(csm *h, uint64_t generation, uint32_t f, uint64_t serial) {
    struct csm_flight *flight = &h->flights[f];
    if (serial == 0) return false;
    if (csm_load_acquire(&flight->serial) != serial || csm_load(&flight->generation) != generation) return false;
    uint64_t slot = csm_load(&flight->slot);
    if (slot >= h->geo.slots) return false;
    return csm_load_acquire(&h->slots[slot].ctl) == csm_ctl(generation, f, CSM_SLOT_COMPUTING); /* SYNC occupy */
}

bool csm_flight_is_attended(csm *h, uint32_t f) {
    struct csm_flight *flight = &h->flights[f];
    if (csm_load_acquire(&flight->given_up) == csm_load(&flight->serial)) return false;
    return csm_process_alive(h, csm_load(&flight->owner));
}

void csm_flight_free_locked(csm *h, uint32_t f) {
    csm_store(&h->flights[f].reserved, 0);
    csm_store_release(&h->flights[f].serial, 0);
    if (f < csm_load(&h->header->flight_hint)) csm_store(&h->header->flight_hint, f);
}

static void vacate_locked(csm *h, uint64_t generation, uint32_t f) {
    struct csm_flight *flight = &h->flights[f];
    uint64_t slot = csm_load(&flight->slot); /* it was in range when the flight was found live; that was another look */
    csm_arena_return_locked(h, generation, flight);
    if (slot < h->geo.slots) csm_index_vacate_locked(h, generation, slot); /* the commit */
    csm_flight_free_locked(h, f);
}

static uint32_t flights_used(csm *h) {
    return (uint32_t)csm_min(csm_load(&h->header->flights_used), h->geo.flights);
}

uint32_t csm_flight_reap_locked(csm *h, uint64_t generation) {
    uint32_t reaped = 0, used = flights_used(h);
    for (uint32_t f = 0; f < used; f++) {
        uint64_t serial = csm_load(&h->flights[f].serial);
        if (serial == 0 || !csm_flight_is_live(h, generation, f, serial) || csm_flight_is_attended(h, f)) continue;
        uint64_t target = csm_target(serial, f);
        vacate_locked(h, generation, f);
        csm_wait_wake(h, target);
        reaped++;
    }
    return reaped;
}

void csm_flight_repair_locked(csm *h, uint64_t generation) {
    uint32_t used = flights_used(h);
    for (uint32_t f = 0; f < used; f++) {
        uint64_t serial = csm_load(&h->flights[f].serial);
        if (serial && !csm_flight_is_live(h, generation, f, serial)) csm_flight_free_locked(h, f);
    }
    /* Killed between freeing a record and lowering the hint, the record would not be looked for until the next reset. */
    csm_store(&h->header->flight_hint, 0);
}

static bool is_free(csm *h, uint64_t generation, uint32_t f) {
    /* Those of an older generation are over, whatever they say. */
    return csm_load(&h->flights[f].serial) == 0 || csm_load(&h->flights[f].generation) != generation;
}

/* A record that no live flight uses, the lowest one, so that scans over the used ones stay short. Only if there is no other: one
 * whose outcome has not been read by all. */
static uint32_t find_free_locked(csm *h, uint64_t generation) {
    struct csm_header *header = h->header;
    uint32_t n = (uint32_t)h->geo.flights, from = (uint32_t)csm_min(csm_load(&header->flight_hint), n), found = CSM_NO_INDEX;
    for (uint32_t f = from; f < n; f++) {
        if (!is_free(h, generation, f)) {
            if (f == csm_load(&header->flight_hint)) csm_store(&header->flight_hint, f + 1);
            continue;
        }
        if (csm_outcome_is_idle(h, f)) {
            found = f;
            break;
        }
        if (found == CSM_NO_INDEX) found = f;
    }
    if (found == CSM_NO_INDEX && from > 0) {
        /* Either all are in use, or the hint is damaged: then this is the only place that would ever find out. */
        csm_store(&header->flight_hint, 0);
        return find_free_locked(h, generation);
    }
    if (found != CSM_NO_INDEX) csm_raise(&header->flights_used, found + 1);
    return found;
}

/* ---- claim ---- */

/* The computation that a call is made from, if there is one that anybody could wait for. */
static struct csm_asker asker_of(csm *h, const csm_call *parent) {
    const csm_ticket *t = parent ? &parent->ticket : NULL;
    /* A ticket from before a fork is the parent process's computation, not this one's. */
    if (!t || t->serial == 0 || t->pid != h->pid) return (struct csm_asker){0};
    return (struct csm_asker){.id = t->id, .target = csm_target(t->serial, t->flight)};
}

/* SYNC term, SYNC node: each word is stored after what says that the record has a new use. */
static void set_asker(uint64_t *id, uint64_t *target, struct csm_asker asker) {
    csm_store_release(id, asker.id);
    csm_store_release(target, asker.target);
}

static int join_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, struct csm_asker asker,
                       csm_waiter *waiter) {
    struct csm_flight *flight = &h->flights[f];
    uint32_t node = csm_wait_node_take(h);
    if (node == CSM_NO_INDEX) return CSM_NO_NODE;
    csm_store(&flight->waiters, 1);
    set_asker(&h->nodes[node].parent_id, &h->nodes[node].parent, asker);
    /* SYNC join: who ends the flight does so under the lock, hence after this, and finds the node. SYNC edge: see cycle.c. */
    csm_store_seq(&h->nodes[node].target, csm_target(serial, f));
    *waiter = (csm_waiter){.generation = generation, .serial = serial, .owner = csm_self(h), .parent = asker.target,
                           .parent_id = asker.id, .flight = f, .node = node};
    csm_stat_add(h, CSM_STAT_WAITS, 1);
    return CSM_JOINED;
}

static void own_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, csm_ticket *ticket) {
    struct csm_flight *flight = &h->flights[f];
    *ticket = (csm_ticket){.generation = generation, .serial = serial, .owner = csm_self(h),
                           .id = h->id, .pid = h->pid, .term = (uint32_t)csm_load(&flight->term), .flight = f};
    csm_stat_add(h, CSM_STAT_COMPUTATIONS, 1);
}

/* Unattended flight `f`, which must be live: becomes the caller's. */
static void take_over_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, struct csm_asker asker,
                             csm_ticket *ticket) {
    struct csm_flight *flight = &h->flights[f];
    csm_arena_return_locked(h, generation, flight);
    csm_outcome_void_locked(h, f, serial);
    csm_store(&flight->term, csm_load(&flight->term) + 1); /* voids the former owner's ticket, should it have given up */
    csm_store(&flight->pid, h->pid);
    csm_store(&flight->sentinel, 0);
    set_asker(&flight->parent_id, &flight->parent, asker);
    CSM_CRASH_POINT("take over: prepared");
    csm_store_release(&flight->owner, csm_self(h));
    csm_store_release(&flight->given_up, 0);
    csm_stat_add(h, CSM_STAT_TAKEOVERS, 1);
    own_locked(h, generation, f, serial, ticket);
}

static int begin_locked(csm *h, uint64_t generation, uint64_t slot, struct csm_hash hash, const void *key,
                        size_t key_bytes, struct csm_asker asker, csm_ticket *ticket) {
    uint32_t f = find_free_locked(h, generation);
    if (f == CSM_NO_INDEX) {
        if (csm_flight_reap_locked(h, generation) == 0) return CSM_NO_FLIGHT;
        return CSM_AGAIN; /* slots were vacated: the place found before may not be the right one any more */
    }
    struct csm_flight *flight = &h->flights[f];
    uint64_t serial = csm_load(&h->header->next_serial);
    if (serial == 0 || serial >> 48) serial = 1; /* 48 bits: at a million a second, nine years without a restart */
    csm_store(&h->header->next_serial, serial + 1);
    csm_store(&flight->serial, 0); /* until it is complete */
    csm_store(&flight->owner, csm_self(h));
    csm_store(&flight->term, 0);
    csm_store(&flight->slot, slot);
    csm_store(&flight->generation, generation);
    csm_store(&flight->hash_lo, hash.lo);
    csm_store(&flight->hash_hi, hash.hi);
    csm_store(&flight->reserved, 0);
    csm_store(&flight->waiters, 0);
    csm_store(&flight->sentinel, 0);
    csm_store(&flight->started_ns, csm_now_ns());
    csm_store(&flight->pid, h->pid);
    csm_store(&flight->key_bytes, key_bytes);
    set_asker(&flight->parent_id, &flight->parent, asker);
    csm_fill_racy(flight->key, key, csm_min(key_bytes, CSM_KEY_PREVIEW));
    csm_store_release(&flight->serial, serial);
    CSM_CRASH_POINT("claim: recorded");
    csm_index_occupy_locked(h, generation, slot, hash, f); /* the commit */
    own_locked(h, generation, f, serial, ticket);
    return CSM_OWNER;
}

static int claim_locked(csm *h, struct csm_hash hash, const char *key, size_t key_bytes, struct csm_asker asker,
                        csm_call *call) {
    if (csm_destroyed(h)) return CSM_GONE; /* under the lock: a flight here would be published for nobody */
    uint64_t generation = csm_load(&h->header->generation), slot, serial;
    uint32_t f;
    switch (csm_index_place_locked(h, generation, hash, key, key_bytes, &slot, &f)) {
    case CSM_PLACE_FULL:
        return CSM_READY;
    case CSM_PLACE_COMPUTING:
        serial = csm_load(&h->flights[f].serial); /* once: what was found live is what is joined or owned */
        if (csm_flight_is_live(h, generation, f, serial)) {
            if (csm_flight_is_attended(h, f)) return join_locked(h, generation, f, serial, asker, &call->waiter);
            take_over_locked(h, generation, f, serial, asker, &call->ticket);
            return CSM_OWNER;
        }
        /* A computing slot whose flight does not point back: damage. Vacating it is safe, nobody owns it. */
        csm_index_vacate_locked(h, generation, slot);
        return CSM_AGAIN;
    case CSM_PLACE_FREE:
        return begin_locked(h, generation, slot, hash, key, key_bytes, asker, &call->ticket);
    case CSM_PLACE_NONE:
        break;
    }
    return csm_flight_reap_locked(h, generation) ? CSM_AGAIN : CSM_NO_SLOT;
}

int csm_claim(csm *h, const char *key, size_t key_bytes, const csm_call *parent, csm_call *call) {
    if (key_bytes > CSM_MAX_KEY) return CSM_INVALID;
    struct csm_hash hash = csm_hash(h->secret, key, key_bytes);
    /* A system call, so not each time; the first claims of a process always look. */
    bool look = (csm_add(&h->claims, 1) & LOOK_MASK) == 0 || csm_load(&h->fd) == CSM_FD_LOST;
    if (look && !csm_linked(h)) return CSM_GONE;
    for (;;) {
        int code = csm_lock_within(h, &call->stalled_ns);
        if (code != CSM_OK) return code;
        code = claim_locked(h, hash, key, key_bytes, asker_of(h, parent), call);
        csm_unlock(h);
        if (code == CSM_JOINED) return csm_cycle_check(h, call);
        if (code != CSM_AGAIN) return code;
    }
}

/* ---- wait ---- */

/* Exactly one waiter of a flight watches its owner closely; the others look now and then whether that one is there. */
static bool is_sentinel(csm *h, const csm_waiter *w) {
    uint64_t *word = &h->flights[w->flight].sentinel, me = w->node + 1, seen = csm_load(word);
    if (seen == me) return true;
    if (seen != 0 && seen <= h->geo.nodes) {
        uint32_t node = (uint32_t)seen - 1;
        if (csm_wait_target(h, node) == csm_target(w->serial, w->flight) &&
            csm_process_alive(h, csm_load(&h->nodes[node].owner)))
            return false;
    }
    return csm_swap_if(word, seen, me);
}

static void leave(csm *h, csm_waiter *w) {
    if (w->serial == 0) return;
    w->serial = 0;
    if (w->owner != csm_self(h) || w->node >= h->geo.nodes || w->flight >= h->geo.flights) return; /* a parent's, before a fork */
    csm_swap_if(&h->flights[w->flight].sentinel, w->node + 1, 0);
    csm_wait_node_drop(h, w->node);
}

static int finish_wait(csm *h, csm_waiter *w) {
    csm_fence_acquire(); /* what ended the flight comes after its outcome */
    bool found = csm_outcome_find(h, w);
    leave(h, w);
    return found ? CSM_OUTCOME : CSM_AGAIN;
}

/* The owner died or gave up. CSM_OWNER, CSM_AGAIN (the flight is over), CSM_OK: keep waiting; or the code of csm_lock: whoever
 * cannot have the lock must not wait for a flight that nobody attends to. */
static int try_take_over(csm *h, csm_call *call) {
    const csm_waiter *w = &call->waiter;
    int code = csm_lock_within(h, &call->stalled_ns);
    if (code != CSM_OK) return code;
    code = CSM_AGAIN;
    if (csm_load(&h->header->generation) == w->generation &&
        csm_flight_is_live(h, w->generation, w->flight, w->serial)) {
        code = CSM_OK;
        if (!csm_flight_is_attended(h, w->flight)) {
            take_over_locked(h, w->generation, w->flight, w->serial, (struct csm_asker){w->parent_id, w->parent}, &call->ticket);
            code = CSM_OWNER;
        }
    }
    csm_unlock(h);
    return code;
}

int csm_wait(csm *h, csm_call *call, uint64_t limit_ns) {
    csm_waiter *w = &call->waiter;
    if (w->serial == 0 || w->owner != csm_self(h) || w->node >= h->geo.nodes || w->flight >= h->geo.flights)
        return CSM_FORKED;
    uint64_t start = csm_now_ns();
    for (;;) {
        if (csm_load_acquire(&h->header->generation) != w->generation) {
            leave(h, w);
            return CSM_AGAIN;
        }
        if (!csm_flight_is_live(h, w->generation, w->flight, w->serial)) return finish_wait(h, w);
        if (!csm_flight_is_attended(h, w->flight)) {
            int code = try_take_over(h, call);
            if (code != CSM_OK) {
                leave(h, w);
                return code;
            }
        }
        uint64_t waited = csm_now_ns() - start;
        if (waited >= limit_ns) return CSM_TIMEOUT;
        uint64_t slice = is_sentinel(h, w) ? SENTINEL_SLICE_NS : WAITER_SLICE_NS;
        if (csm_wait_sleep(h, w->node, csm_min(slice, limit_ns - waited)) == CSM_INTERRUPTED) return CSM_INTERRUPTED;
    }
}

void csm_wait_leave(csm *h, csm_call *call) {
    csm_waiter *w = &call->waiter;
    /* It may have been counted among the readers of an outcome that it will not read. Counted off before the node goes: while it
     * is there, who ends the flight counts it, so an outcome found here did. One found afterwards may not have, and another
     * reader's place would be taken. If the flight ends in between, one reader too many is expected, and the record expires. */
    if (w->serial && w->flight < h->geo.flights && w->owner == csm_self(h)) csm_outcome_done(h, call, w->flight, w->serial);
    leave(h, w);
}

int csm_cycle_check(csm *h, csm_call *call) {
    csm_waiter *w = &call->waiter;
    struct csm_asker asker = {.id = w->parent_id, .target = w->parent};
    if (w->serial == 0 || asker.target == 0) return CSM_JOINED;
    if (!csm_cycle_found(h, asker, csm_target(w->serial, w->flight))) return CSM_JOINED;
    csm_wait_leave(h, call);
    return CSM_CYCLE;
}

/* ---- publish ---- */

/* Says, without the lock, that nobody works on this flight any more. Serials only grow, and so does the word: when this comes so
 * late that the record serves another flight, it changes nothing. */
static void give_up(csm *h, const csm_ticket *t) { csm_raise(&h->flights[t->flight].given_up, t->serial); }

/* CSM_OK: the flight is the caller's, and *slot is its slot. */
static int check_ticket_locked(csm *h, const csm_ticket *t, uint64_t *slot) {
    if (t->owner != csm_self(h)) return CSM_FORKED;
    if (t->flight >= h->geo.flights) return CSM_INVALID;
    struct csm_flight *flight = &h->flights[t->flight];
    *slot = csm_load(&flight->slot);
    if (csm_load(&h->header->generation) != t->generation || csm_load(&flight->owner) != t->owner ||
        csm_load(&flight->term) != t->term || !csm_flight_is_live(h, t->generation, t->flight, t->serial) ||
        *slot >= h->geo.slots) {
        csm_stat_add(h, CSM_STAT_STALE, 1);
        /* In the same generation: it was taken over after this process gave it up, or the record is damaged. If it still names
         * this process, nobody may be working on it, and all would wait for ever: so it is given up, whatever serial it bears. Another
         * thread that does work on it (it took it over) is told that it is stale. */
        if (csm_load(&h->header->generation) == t->generation && csm_load(&flight->owner) == t->owner)
            csm_store_release(&flight->given_up, csm_load(&flight->serial));
        return CSM_STALE;
    }
    return CSM_OK;
}

static int lock_for(csm *h, csm_call *call, uint64_t *slot) {
    const csm_ticket *t = &call->ticket;
    if (t->serial == 0) return CSM_STALE;
    if (t->owner != csm_self(h)) return CSM_FORKED;
    if (t->flight >= h->geo.flights) return CSM_INVALID;
    int code = csm_lock_within(h, &call->stalled_ns);
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
}

/* The ticket is copied and spent first: whatever happens next, it is not used twice. */
static csm_call spend(csm_call *call) {
    csm_call copy = *call;
    call->ticket.serial = 0;
    return copy;
}

int csm_abandon(csm *h, csm_call *call) {
    csm_call spent = spend(call);
    const csm_ticket *t = &spent.ticket;
    uint64_t slot;
    int code = lock_for(h, &spent, &slot);
    if (code != CSM_OK) return code;
    bool wake = csm_load(&h->flights[t->flight].waiters);
    csm_arena_return_locked(h, t->generation, &h->flights[t->flight]);
    csm_index_vacate_locked(h, t->generation, slot); /* the commit */
    finish_locked(h, t, wake);
    return CSM_OK;
}

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
        csm_index_commit_locked(h, t->generation, entries, slot, place,
                                csm_meta(bytes, (uint32_t)format, (uint32_t)key_bytes)); /* the commit */
        finish_locked(h, t, wake);
    }
    csm_arena_unpin(h, pins, (uint32_t)csm_chunk_of(h, place), (uint32_t)csm_chunk_of(h, csm_extent_end(extent) - 1));
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

int csm_publish(csm *h, csm_call *call, const char *key, size_t key_bytes, int kind, int format, const csm_piece *pieces,
                size_t n) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += pieces[i].bytes;
    if (format < 0 || (uint32_t)format > CSM_MAX_FORMAT || key_bytes > CSM_MAX_KEY) return CSM_INVALID;
    csm_call spent = spend(call);
    const csm_ticket *t = &spent.ticket;
    uint64_t slot, extent;
    int code = lock_for(h, &spent, &slot);
    if (code != CSM_OK) return code;
    if (kind != CSM_VALUE) {
        csm_stat_add(h, kind == CSM_FAILURE ? CSM_STAT_FAILURES : CSM_STAT_UNCACHED, 1);
        return publish_outcome_locked(h, &spent, slot, kind, format, pieces, n, bytes, CSM_NOT_STORED);
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
    if (code != CSM_OK) return publish_outcome_locked(h, &spent, slot, kind, format, pieces, n, bytes, code);
    return publish_entry_locked(h, &spent, slot, extent, key, key_bytes, format, pieces, n, bytes);
}
