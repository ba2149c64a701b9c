/* flight.c: claim, wait, take over; what the dead leave. See flight.h. How a flight ends is in publish.c.
 *
 * What if a process dies here.
 *   In claim: the record is filled before the slot points to it; a record to which no slot points is free.
 *   In take-over: the new owner's word is the commit; before it the flight still has a dead owner, or one that lets go of it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "flight.h"

#include "arena.h"
#include "digest.h"
#include "hash.h"
#include "index.h"
#include "lease.h"
#include "lock.h"
#include "outcome.h"
#include "process.h"
#include "stats.h"
#include "wait.h"

/* A flight's first waiter looks after the owner this often: the contract promises a takeover within 20 ms. */
static const uint64_t SENTINEL_SLICE_NS = 10000000;
static const uint64_t WAITER_SLICE_NS = 50000000;

/* ---- what a flight is ---- */

bool csm_flight_is_live(csm *h, uint64_t generation, uint32_t f, uint64_t serial) {
    struct csm_flight *flight = &h->flights[f];
    if (serial == 0) return false;
    if (csm_load_acquire(&flight->serial) != serial || csm_load(&flight->generation) != generation) return false;
    uint64_t slot = csm_load(&flight->slot);
    if (slot >= h->geo.slots) return false;
    return csm_load_acquire(&h->slots[slot].ctl) == csm_ctl(generation, f, CSM_SLOT_COMPUTING); /* SYNC occupy */
}

static bool has_owner(csm *h, uint32_t f) {
    struct csm_flight *flight = &h->flights[f];
    if (csm_load_acquire(&flight->given_up) == csm_load(&flight->serial)) return false;
    return csm_process_alive(h, csm_load(&flight->owner));
}

bool csm_flight_is_attended(csm *h, uint32_t f) { return !csm_lease_is_open(h, f) && has_owner(h, f); }

/* One that was offered, or waits for too long, is not lost: its waiters are about to take it over. */
bool csm_flight_is_lost(csm *h, uint32_t f) { return csm_lease_is_hung(h, f) || !has_owner(h, f); }

void csm_flight_free_locked(csm *h, uint32_t f) {
    csm_store(&h->flights[f].reserved, 0);
    csm_store_release(&h->flights[f].serial, 0);
    if (f < csm_load(&h->header->flight_hint)) csm_store(&h->header->flight_hint, f);
}

/* Does an owner live that may still write to what it has reserved, or store it? One that did not give the flight up is a sidecar that was
 * not seen to run for lease_timeout: it goes on with its copy before it asks for the lock and learns that its ticket is stale. Also
 * past its copy the room must stay its own: should the caller be killed before it is the owner, that ticket is still good.
 * One that did give it up is past its copy if it said so itself, and its ticket is void; but it may be another thread of its process, or
 * a sidecar that is late, that said so of a flight that was its own before (publish.c). So the pins decide: who copies has them from
 * under the lock until the last byte. They are of chunks, so another copy of that process may have them; what is lost by that is
 * counted, and rare. */
static bool may_write_locked(csm *h, struct csm_flight *flight) {
    uint64_t owner = csm_load(&flight->owner), extent = csm_load(&flight->reserved);
    if (extent == 0 || !csm_process_alive(h, owner)) return false;
    bool gave_up = csm_load_acquire(&flight->given_up) == csm_load(&flight->serial);
    return !gave_up || csm_arena_is_written(h, owner, extent);
}

/* The flight ends, or gets another owner: the room that was reserved for it is free. But where somebody may write nobody else does:
 * that room is lost until the reset. */
static void free_room_locked(csm *h, uint64_t generation, struct csm_flight *flight) {
    if (may_write_locked(h, flight))
        csm_arena_strand_locked(h, flight);
    else
        csm_arena_return_locked(h, generation, flight);
}

void csm_flight_vacate_locked(csm *h, uint64_t generation, uint32_t f) {
    struct csm_flight *flight = &h->flights[f];
    uint64_t slot = csm_load(&flight->slot); /* it was in range when the flight was found live; that was another look */
    free_room_locked(h, generation, flight);
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
        if (serial == 0 || !csm_flight_is_live(h, generation, f, serial) || !csm_flight_is_lost(h, f)) continue;
        uint64_t target = csm_target(serial, f);
        csm_flight_vacate_locked(h, generation, f);
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

int csm_flight_join_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, struct csm_asker asker, csm_waiter *waiter) {
    struct csm_flight *flight = &h->flights[f];
    uint32_t node = csm_wait_node_take(h);
    if (node == CSM_NO_INDEX) return CSM_NO_NODE;
    csm_store(&flight->waiters, 1);
    set_asker(&h->nodes[node].parent_id, &h->nodes[node].parent, asker);
    /* SYNC join: who ends the flight does so under the lock, hence after this, and finds the node. SYNC edge: see cycle.c. */
    csm_store_seq(&h->nodes[node].target, csm_target(serial, f));
    *waiter = (csm_waiter){.generation = generation, .serial = serial, .owner = csm_self(h), .parent = asker.target,
                           .parent_id = asker.id, .joined_ns = csm_now_ns(), .flight = f, .node = node};
    if (asker.target) csm_lease_nest(h, f, serial);
    return CSM_JOINED;
}

csm_ticket csm_flight_ticket_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial) {
    return (csm_ticket){.generation = generation, .serial = serial, .owner = csm_self(h), .id = h->id, .pid = h->pid,
                        .began_ns = csm_load(&h->flights[f].started_ns), .term = (uint32_t)csm_load(&h->flights[f].term), .flight = f};
}

/* A worker computes. */
static void own_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, csm_ticket *ticket) {
    *ticket = csm_flight_ticket_locked(h, generation, f, serial);
    if (h->role != CSM_SIDECAR) csm_stat_add(h, CSM_STAT_COMPUTATIONS, 1);
}

void csm_flight_take_over_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, struct csm_asker asker,
                                 csm_ticket *ticket) {
    struct csm_flight *flight = &h->flights[f];
    free_room_locked(h, generation, flight);
    csm_outcome_void_locked(h, f, serial);
    uint64_t now = csm_now_ns(), former_pid = csm_load(&flight->pid);
    csm_store(&flight->term, csm_load(&flight->term) + 1); /* voids the former owner's ticket, should it have given up */
    csm_store(&flight->started_ns, now);
    csm_store(&flight->pid, h->pid);
    csm_store(&flight->sentinel, 0);
    set_asker(&flight->parent_id, &flight->parent, asker);
    CSM_CRASH_POINT("take over: prepared");
    csm_store_release(&flight->owner, csm_self(h));
    csm_store_release(&flight->given_up, 0);
    CSM_CRASH_POINT("take over: owned");
    bool consented = csm_lease_take_over_locked(h, f, serial); /* after the owner: see lease.h */
    if (!consented) csm_stat_add(h, CSM_STAT_TAKEOVERS, 1);
    own_locked(h, generation, f, serial, ticket);
    if (!consented) ticket->former_pid = former_pid;
}

int csm_flight_begin_locked(csm *h, const struct csm_beginning *b, uint32_t *out) {
    uint32_t f = find_free_locked(h, b->generation);
    if (f == CSM_NO_INDEX) {
        if (csm_flight_reap_locked(h, b->generation) == 0) return CSM_NO_FLIGHT;
        return CSM_AGAIN; /* slots were vacated: the place found before may not be the right one any more */
    }
    struct csm_flight *flight = &h->flights[f];
    uint64_t serial = csm_load(&h->header->next_serial), now = csm_now_ns();
    if (serial == 0 || serial >> 48) serial = 1; /* 48 bits: at a million a second, nine years without a restart */
    csm_store(&h->header->next_serial, serial + 1);
    csm_store(&flight->serial, 0); /* until it is complete */
    csm_store(&flight->owner, b->owner);
    csm_store(&flight->term, 0);
    csm_store(&flight->slot, b->slot);
    csm_store(&flight->generation, b->generation);
    csm_store(&flight->hash_lo, b->hash.lo);
    csm_store(&flight->hash_hi, b->hash.hi);
    csm_store(&flight->reserved, 0);
    csm_store(&flight->waiters, 0);
    csm_store(&flight->sentinel, 0);
    csm_store(&flight->started_ns, now);
    csm_store(&flight->pid, b->owner == csm_self(h) ? h->pid : csm_process_pid(h, b->owner));
    csm_store(&flight->key_bytes, b->key_bytes);
    set_asker(&flight->parent_id, &flight->parent, b->asker);
    csm_fill_racy(flight->key, b->key, csm_min(b->key_bytes, CSM_KEY_PREVIEW));
    if (b->digest) csm_fill_racy(flight->digest, b->digest, CSM_DIGEST_BYTES);
    csm_store(&flight->lease, csm_lease_word(serial, false, (enum csm_lease_state)b->state));
    csm_store_release(&flight->serial, serial);
    CSM_CRASH_POINT("claim: recorded");
    csm_index_occupy_locked(h, b->generation, b->slot, b->hash, f); /* the commit */
    *out = f;
    return CSM_OK;
}

/* The caller computes, or asks for leave to: then the flight is the sidecar's, and the caller waits for it. */
static int begin_or_ask_locked(csm *h, struct csm_beginning *b, csm_call *call) {
    struct csm_asker asker = b->asker;
    uint64_t sidecar = b->digest || b->key_bytes <= CSM_KEY_PREVIEW ? csm_lease_sidecar(h) : 0;
    if (sidecar) {
        b->owner = sidecar;
        b->state = CSM_LEASE_ASKED;
        b->asker = (struct csm_asker){0}; /* it is the caller who waits, by its node */
    }
    uint32_t f;
    int code = csm_flight_begin_locked(h, b, &f);
    if (code != CSM_OK) return code;
    uint64_t serial = csm_load(&h->flights[f].serial);
    if (!sidecar) {
        own_locked(h, b->generation, f, serial, &call->ticket);
        return CSM_OWNER;
    }
    CSM_CRASH_POINT("claim: asked");
    if (csm_flight_join_locked(h, b->generation, f, serial, asker, &call->waiter) == CSM_JOINED) return CSM_JOINED;
    /* No node to wait in: without the lease, then. */
    csm_flight_take_over_locked(h, b->generation, f, serial, asker, &call->ticket);
    return CSM_OWNER;
}

static int claim_locked(csm *h, struct csm_hash hash, const char *key, size_t key_bytes, const uint64_t *digest,
                        struct csm_asker asker, csm_call *call) {
    if (csm_destroyed(h)) return CSM_GONE; /* under the lock: a flight here would be published for nobody */
    uint64_t generation = csm_load(&h->header->generation), slot, serial;
    uint32_t f;
    int code;
    switch (csm_index_place_locked(h, generation, hash, key, key_bytes, &slot, &f)) {
    case CSM_PLACE_FULL:
        return CSM_READY;
    case CSM_PLACE_COMPUTING:
        serial = csm_load(&h->flights[f].serial); /* once: what was found live is what is joined or owned */
        if (csm_flight_is_live(h, generation, f, serial)) {
            if (!csm_flight_is_attended(h, f)) {
                csm_flight_take_over_locked(h, generation, f, serial, asker, &call->ticket);
                return CSM_OWNER;
            }
            code = csm_flight_join_locked(h, generation, f, serial, asker, &call->waiter);
            if (code == CSM_JOINED) csm_stat_add(h, CSM_STAT_WAITS, 1);
            return code;
        }
        /* A computing slot whose flight does not point back: damage. Vacating it is safe, nobody owns it. */
        csm_index_vacate_locked(h, generation, slot);
        return CSM_AGAIN;
    case CSM_PLACE_FREE:
        return begin_or_ask_locked(h, &(struct csm_beginning){.generation = generation, .slot = slot, .hash = hash, .key = key,
                                                              .key_bytes = key_bytes, .digest = digest, .asker = asker,
                                                              .owner = csm_self(h), .state = CSM_LEASE_NONE}, call);
    case CSM_PLACE_NONE:
        break;
    }
    return csm_flight_reap_locked(h, generation) ? CSM_AGAIN : CSM_NO_SLOT;
}

int csm_claim(csm *h, const char *key, size_t key_bytes, const csm_call *parent, csm_call *call) {
    if (key_bytes > CSM_MAX_KEY) return CSM_INVALID;
    struct csm_hash hash = csm_hash(h->secret, key, key_bytes);
    uint64_t digest[CSM_DIGEST_WORDS];
    bool digested = key_bytes > CSM_KEY_PREVIEW && csm_load(&h->header->sidecar);
    if (digested) csm_digest(key, key_bytes, digest);
    if (!csm_linked(h)) return CSM_GONE;
    for (;;) {
        int code = csm_lock_within(h, call);
        if (code != CSM_OK) return code;
        code = claim_locked(h, hash, key, key_bytes, digested ? digest : NULL, asker_of(h, parent), call);
        csm_unlock(h);
        if (code == CSM_JOINED) {
            csm_lease_joined(h, &call->waiter);
            return csm_cycle_check(h, call);
        }
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

void csm_flight_leave(csm *h, csm_waiter *w) {
    if (w->serial == 0) return;
    w->serial = 0;
    if (w->owner != csm_self(h) || w->node >= h->geo.nodes || w->flight >= h->geo.flights) return; /* a parent's, before a fork */
    csm_swap_if(&h->flights[w->flight].sentinel, w->node + 1, 0);
    csm_wait_node_drop(h, w->node);
    if (h->role != CSM_SIDECAR) csm_stats_waited(h, w);
}

static int finish_wait(csm *h, csm_waiter *w) {
    csm_fence_acquire(); /* what ended the flight comes after its outcome */
    bool found = csm_outcome_find(h, w);
    csm_flight_leave(h, w);
    return found ? CSM_OUTCOME : CSM_AGAIN;
}

/* The owner died or gave up. CSM_OWNER, CSM_AGAIN (the flight is over), CSM_OK: keep waiting; or the code of csm_lock: whoever
 * cannot have the lock must not wait for a flight that nobody attends to. */
static int try_take_over(csm *h, csm_call *call, bool impatient) {
    const csm_waiter *w = &call->waiter;
    int code = csm_lock_within(h, call);
    if (code != CSM_OK) return code;
    code = CSM_AGAIN;
    if (csm_load(&h->header->generation) == w->generation &&
        csm_flight_is_live(h, w->generation, w->flight, w->serial)) {
        code = CSM_OK;
        if (!csm_flight_is_attended(h, w->flight) || (impatient && csm_lease_is_unanswered(h, w->flight))) {
            csm_flight_take_over_locked(h, w->generation, w->flight, w->serial, (struct csm_asker){w->parent_id, w->parent}, &call->ticket);
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
            csm_flight_leave(h, w);
            return CSM_AGAIN;
        }
        if (!csm_flight_is_live(h, w->generation, w->flight, w->serial)) return finish_wait(h, w);
        if (!csm_flight_is_attended(h, w->flight)) {
            int code = try_take_over(h, call, false);
            if (code != CSM_OK) {
                csm_flight_leave(h, w);
                return code;
            }
        }
        uint64_t waited = csm_now_ns() - start;
        if (waited >= limit_ns) return CSM_TIMEOUT;
        uint64_t slice = is_sentinel(h, w) ? SENTINEL_SLICE_NS : WAITER_SLICE_NS;
        if (csm_wait_sleep(h, w->node, csm_min(slice, limit_ns - waited)) == CSM_INTERRUPTED) return CSM_INTERRUPTED;
    }
}

int csm_wait_no_longer(csm *h, csm_call *call) {
    int code = csm_wait(h, call, 0);
    if (code != CSM_TIMEOUT || !csm_lease_is_unanswered(h, call->waiter.flight)) return code;
    code = try_take_over(h, call, true);
    if (code == CSM_OK) return CSM_TIMEOUT; /* answered meanwhile */
    csm_flight_leave(h, &call->waiter);
    return code;
}

void csm_flight_withdraw(csm *h, csm_waiter *w, csm_call *call) {
    /* It may have been counted among the readers of an outcome that it will not read. Counted off before the node goes: while it
     * is there, who ends the flight counts it, so an outcome found here did. One found afterwards may not have, and another
     * reader's place would be taken. If the flight ends in between, one reader too many is expected, and the record expires. */
    if (w->serial && w->flight < h->geo.flights && w->owner == csm_self(h)) csm_outcome_done(h, call, w->flight, w->serial);
    csm_flight_leave(h, w);
}

void csm_wait_leave(csm *h, csm_call *call) { csm_flight_withdraw(h, &call->waiter, call); }

int csm_cycle_check(csm *h, csm_call *call) {
    csm_waiter *w = &call->waiter;
    struct csm_asker asker = {.id = w->parent_id, .target = w->parent};
    if (w->serial == 0 || asker.target == 0) return CSM_JOINED;
    if (!csm_cycle_found(h, asker, csm_target(w->serial, w->flight))) return CSM_JOINED;
    csm_wait_leave(h, call);
    return CSM_CYCLE;
}
