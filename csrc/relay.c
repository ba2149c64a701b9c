/* relay.c: the host's sidecar, on the segment's side: the csm_relay_* of api.h. What flights have to do with it is in lease.h; the log and
 * the peers are in relay_log.c.
 *
 * The sidecar keeps, in private memory, what it was told of each flight record, and compares: so it is told of each event once, however
 * often it looks and whatever happened in between. It looks without the lock, since nobody may be in its way; what needs the lock (to end
 * a flight that nobody waits for, to queue for an outcome) is tried, and tried again at the next look.
 *
 * What if the sidecar dies here: all that is shared is its owner word, here and in flights, which then names a dead process. Who opens
 * next takes the word over, and finds the flights of its predecessor with their waiters, who take them over: those are not its own. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"
#include "flight.h"
#include "hash.h"
#include "index.h"
#include "lease.h"
#include "lock.h"
#include "outcome.h"
#include "process.h"
#include "wait.h"

#include <stdlib.h>

/* How often it is asked whether anybody still waits, and whether the owners of what was granted live: of all at once. */
static const uint64_t SWEEP_NS = 100000000;
static const uint64_t SHORTEST_TIMEOUT_NS = 10000000, LONGEST_TIMEOUT_NS = UINT64_C(10000000000);

struct told {
    uint64_t serial;     /* 0: of no flight */
    uint64_t generation;
    uint64_t slot;
    struct csm_hash hash;
    bool nested, granted, wanted;
    csm_call want;       /* the sidecar's place in the queue, for the outcome */
};

struct csm_relay {
    pthread_mutex_t mutex; /* of what follows: it may be looked and taken from several threads */
    uint64_t swept_ns;
    uint32_t used;       /* no record from here on was told of */
    struct told told[];  /* per flight record */
};

static bool is_sidecar(csm *h) {
    uint64_t self = csm_self(h);
    return h->relay && self && csm_load(&h->header->sidecar) == self;
}

/* ---- open and close */

int csm_relay_open(csm *h, const char *name, size_t bytes, uint64_t lease_timeout_ns) {
    struct csm_header *header = h->header;
    if (bytes == 0 || bytes >= CSM_NODE_NAME || memchr(name, 0, bytes) || lease_timeout_ns < SHORTEST_TIMEOUT_NS ||
        lease_timeout_ns > LONGEST_TIMEOUT_NS || h->role != CSM_SIDECAR)
        return CSM_INVALID;
    if (!h->relay) {
        size_t size = sizeof *h->relay + h->geo.flights * sizeof h->relay->told[0];
        if (!(h->relay = calloc(1, size))) return CSM_SYSTEM;
        pthread_mutex_init(&h->relay->mutex, NULL);
    }
    int code = csm_lock(h);
    if (code != CSM_OK) return code;
    bool stolen;
    if (csm_destroyed(h)) {
        code = CSM_GONE;
    } else if (csm_load(&header->sidecar) != csm_self(h) && !csm_lock_try(h, &header->sidecar, &stolen)) {
        code = CSM_BUSY;
    } else {
        /* As long as it has not been seen to look, nobody asks. The predecessor's last look is older than its death. */
        CSM_CRASH_POINT("relay: named");
        char padded[CSM_NODE_NAME] = {0};
        memcpy(padded, name, bytes);
        csm_fill_racy(header->node_name, padded, sizeof padded);
        csm_store(&header->lease_timeout_ns, lease_timeout_ns);
        for (uint32_t i = 0; i < CSM_PEERS; i++) /* the predecessor's, half-written ones as well */
            if (csm_load(&header->peers[i].turn)) csm_peer_write(h, i, "", 0, 0, 0);
        sem_init(&header->doorbell.semaphore, 1, 0); /* a late ring by who believes in the predecessor is one look too many */
        csm_store(&header->bell, 0);
        csm_store_release(&header->sidecar_seen_ns, csm_now_ns());
    }
    csm_unlock(h);
    return code;
}

static uint32_t flights_used(csm *h) { return (uint32_t)csm_min(csm_load(&h->header->flights_used), h->geo.flights); }

void csm_relay_close(csm *h) {
    if (!is_sidecar(h)) return;
    uint64_t self = csm_self(h);
    bool locked = csm_lock(h) == CSM_OK;
    csm_swap_if(&h->header->sidecar, self, 0); /* nobody asks any more: that is done under the lock */
    /* Without the lock, which a stopped process has, somebody may be about to ask. It waits until this process is gone. */
    for (uint32_t f = 0, used = flights_used(h); f < used; f++) {
        struct csm_flight *flight = &h->flights[f];
        uint64_t serial = csm_load_acquire(&flight->serial);
        if (serial && csm_load(&flight->owner) == self && csm_load(&flight->serial) == serial) csm_raise(&flight->given_up, serial);
    }
    if (locked) csm_unlock(h);
    csm_wait_wake(h, 0);
    for (uint32_t f = 0; f < h->geo.flights; f++) csm_wait_leave(h, &h->relay->told[f].want);
    struct csm_relay *relay = h->relay;
    h->relay = NULL;
    pthread_mutex_destroy(&relay->mutex);
    free(relay);
}

int csm_has_sidecar(csm *h, uint64_t *pid) {
    uint64_t sidecar = csm_load_acquire(&h->header->sidecar);
    bool lives = sidecar && csm_process_alive(h, sidecar);
    *pid = lives ? csm_process_pid(h, sidecar) : 0;
    return lives && (sidecar == csm_self(h) || csm_lease_sidecar(h));
}

/* ---- the doorbell */

int csm_relay_wait(csm *h, uint64_t ns) {
    const uint64_t longest = 50000000;
    int code = csm_wait_on(&h->header->doorbell.semaphore, csm_min(ns, longest));
    /* SYNC bell: pairs with csm_lease_ring. The word goes before the look that comes next. */
    csm_store_seq(&h->header->bell, 0);
    csm_fence_seq();
    return code;
}

/* ---- answers */

/* One of the states `from`, a set of bits, becomes `to`. */
static bool change(csm *h, uint32_t f, uint64_t serial, unsigned from, enum csm_lease_state to) {
    uint64_t *at = &h->flights[f].lease, word = csm_load_acquire(at);
    for (;;) {
        enum csm_lease_state state = csm_lease_state_of(word, serial);
        if (state == CSM_LEASE_NONE || !(from >> state & 1)) return false;
        if (csm_swap_if(at, word, csm_lease_word(serial, csm_lease_nested(word), to))) return true;
        word = csm_load_acquire(at); /* a nested computation has joined, or somebody took it over */
    }
}

enum {
    SEEN = 1u << CSM_LEASE_SEEN,
    HELD = 1u << CSM_LEASE_HELD,
    OFFERED = 1u << CSM_LEASE_OFFERED,
    ASKED = 1u << CSM_LEASE_ASKED
};

int csm_relay_hold(csm *h, uint32_t f, uint64_t serial) {
    if (!is_sidecar(h)) return CSM_GONE;
    if (f >= h->geo.flights) return CSM_INVALID;
    return change(h, f, serial, SEEN | HELD, CSM_LEASE_HELD) ? CSM_OK : CSM_STALE;
}

int csm_relay_grant(csm *h, uint32_t f, uint64_t serial) {
    if (!is_sidecar(h)) return CSM_GONE;
    if (f >= h->geo.flights) return CSM_INVALID;
    pthread_mutex_lock(&h->relay->mutex);
    struct told *t = &h->relay->told[f];
    bool done = t->serial == serial && change(h, f, serial, SEEN | HELD, CSM_LEASE_OFFERED); /* the commit */
    if (done) t->granted = true;
    pthread_mutex_unlock(&h->relay->mutex);
    if (!done) return CSM_STALE;
    CSM_CRASH_POINT("grant: not woken");
    csm_wait_wake_one(h, csm_target(serial, f)); /* should that one die, the others look for themselves */
    return CSM_OK;
}

void csm_relay_want(csm *h, uint32_t f, uint64_t serial) {
    if (!is_sidecar(h) || f >= h->geo.flights) return;
    pthread_mutex_lock(&h->relay->mutex);
    if (h->relay->told[f].serial == serial) h->relay->told[f].wanted = true; /* the next look queues */
    pthread_mutex_unlock(&h->relay->mutex);
}

/* ---- look */

/* Not with csm_wait_leave, which may wait for the lock: the caller looks, and has the mutex. */
static void forget(csm *h, struct told *t) {
    csm_flight_withdraw(h, &t->want.waiter, NULL);
    *t = (struct told){0};
}

/* Which flights have somebody waiting for them, who lives. */
struct awaited {
    bool is[CSM_MAX_FLIGHTS];
};

static void find_awaited(csm *h, struct awaited *a) {
    memset(a, 0, sizeof *a);
    uint64_t self = csm_self(h);
    for (uint32_t node = 0, nodes = csm_wait_nodes(h); node < nodes; node++) {
        uint64_t target = csm_wait_target(h, node), owner = csm_load_acquire(&h->nodes[node].owner);
        uint32_t f = csm_target_flight(target);
        if (target == 0 || owner == self || f >= h->geo.flights || a->is[f] || !csm_process_alive(h, owner)) continue;
        a->is[f] = csm_load(&h->flights[f].serial) == target >> 16;
    }
}

/* Does anybody who lives wait for it, but the sidecar? Under the lock nobody joins. */
static bool is_awaited_locked(csm *h, uint64_t target) {
    uint64_t self = csm_self(h);
    for (uint32_t node = 0, nodes = csm_wait_nodes(h); node < nodes; node++) {
        uint64_t owner = csm_load_acquire(&h->nodes[node].owner);
        if (csm_wait_target(h, node) == target && owner != self && csm_process_alive(h, owner)) return true;
    }
    return false;
}

/* A flight that nobody waits for and nobody works on: ends it. False: not now, or not so. */
static bool end_unawaited(csm *h, uint32_t f, const struct told *t) {
    if (csm_lock_once(h) != CSM_OK) return false;
    uint64_t target = csm_target(t->serial, f);
    struct csm_flight *flight = &h->flights[f];
    bool over = csm_load(&h->header->generation) == t->generation && csm_flight_is_live(h, t->generation, f, t->serial) &&
                !is_awaited_locked(h, target);
    /* Granted and taken over: only if that one is dead. Else it is this process's, of whatever state but that it publishes it. */
    uint64_t owner = csm_load(&flight->owner);
    bool mine = owner == csm_self(h);
    if (over) over = mine ? change(h, f, t->serial, SEEN | HELD | OFFERED, CSM_LEASE_TAKEN) : !csm_process_alive(h, owner);
    if (over) csm_flight_vacate_locked(h, t->generation, f);
    csm_unlock(h);
    if (over) csm_wait_wake(h, target); /* who is stopped, and so did not count */
    return over;
}

static void queue_for_outcome(csm *h, uint32_t f, struct told *t) {
    if (csm_lock_once(h) != CSM_OK) return;
    if (csm_load(&h->header->generation) == t->generation && csm_flight_is_live(h, t->generation, f, t->serial))
        csm_flight_join_locked(h, t->generation, f, t->serial, (struct csm_asker){0}, &t->want.waiter);
    csm_unlock(h);
}

/* Fills in what the flight `f`, `serial` is about; false when it has been another's meanwhile. */
static bool describe(csm *h, uint32_t f, uint64_t serial, csm_lease *out) {
    struct csm_flight *flight = &h->flights[f];
    out->serial = serial;
    out->flight = f;
    out->key_bytes = (uint32_t)csm_min(csm_load(&flight->key_bytes), CSM_MAX_KEY);
    csm_copy_racy(out->key, flight->key, csm_min(out->key_bytes, CSM_KEY_PREVIEW));
    csm_copy_racy(out->digest, flight->digest, CSM_DIGEST_BYTES);
    csm_fence_acquire();
    return csm_load(&flight->serial) == serial;
}

static uint32_t tell(csm_lease *out, const struct told *t, uint32_t f, enum csm_lease_event event) {
    *out = (csm_lease){.serial = t->serial, .generation = t->generation, .flight = f, .event = event, .nested = t->nested};
    return 1;
}

/* The flight it was told of is over. */
static uint32_t tell_end(csm *h, uint64_t now, uint32_t f, struct told *t, csm_lease *out) {
    csm_fence_acquire(); /* what ended the flight comes after its outcome */
    enum csm_lease_event event = t->granted ? CSM_LEASE_END : CSM_LEASE_WITHDRAW;
    if (t->granted && t->generation == now) {
        if (csm_index_holds(h, now, t->slot, t->hash))
            event = CSM_LEASE_STORED;
        else if (t->want.waiter.serial && csm_outcome_find(h, &t->want.waiter))
            event = CSM_LEASE_OUTCOME;
    }
    tell(out, t, f, event);
    if (event == CSM_LEASE_OUTCOME) {
        out->call = t->want; /* who reads it counts itself off */
        csm_flight_leave(h, &t->want.waiter);
        out->call.waiter.serial = 0;
    }
    forget(h, t);
    return 1;
}

/* The flight it was told of goes on. */
static uint32_t tell_change(csm *h, uint32_t f, struct told *t, const struct awaited *awaited, csm_lease *out) {
    uint64_t word = csm_load_acquire(&h->flights[f].lease);
    enum csm_lease_state state = csm_lease_state_of(word, t->serial);
    if (state == CSM_LEASE_NONE) { /* a worker computes, who was told nothing */
        uint32_t told = tell(out, t, f, t->granted ? CSM_LEASE_END : CSM_LEASE_WITHDRAW);
        forget(h, t);
        return told;
    }
    if (t->wanted && t->granted && t->want.waiter.serial == 0) queue_for_outcome(h, f, t);
    bool idle = state != CSM_LEASE_TAKEN && awaited && !awaited->is[f];
    if (idle && state == CSM_LEASE_GRANTED) idle = !csm_process_alive(h, csm_load(&h->flights[f].owner));
    if (idle && end_unawaited(h, f, t)) return tell_end(h, t->generation, f, t, out);
    if (t->granted || t->nested || !csm_lease_nested(word)) return 0;
    t->nested = true;
    tell(out, t, f, CSM_LEASE_ASK);
    return describe(h, f, t->serial, out); /* if it has ended, the next look says so */
}

/* A flight that it was not told of. */
static uint32_t tell_new(csm *h, uint64_t now, uint32_t f, struct told *t, csm_lease *out) {
    struct csm_flight *flight = &h->flights[f];
    uint64_t serial = csm_load_acquire(&flight->serial), word = csm_load_acquire(&flight->lease);
    if (csm_lease_state_of(word, serial) != CSM_LEASE_ASKED || csm_load(&flight->owner) != csm_self(h)) return 0;
    if (!csm_flight_is_live(h, now, f, serial)) return 0;
    *t = (struct told){.serial = serial, .generation = now, .nested = csm_lease_nested(word), .slot = csm_load(&flight->slot),
                       .hash = {csm_load(&flight->hash_lo), csm_load(&flight->hash_hi)}};
    tell(out, t, f, CSM_LEASE_ASK);
    if (describe(h, f, serial, out) && change(h, f, serial, ASKED, CSM_LEASE_SEEN)) return 1;
    *t = (struct told){0};
    return 0;
}

int csm_relay_look(csm *h, csm_lease *out, uint32_t capacity) {
    struct stat st;
    struct csm_relay *relay = h->relay;
    if (!is_sidecar(h) || csm_destroyed(h) || !csm_process_stat(h, &st)) return CSM_GONE;
    uint64_t clock = csm_now_ns(), now = csm_load_acquire(&h->header->generation);
    csm_store_release(&h->header->sidecar_seen_ns, clock);
    static __thread struct awaited room;
    struct awaited *awaited = NULL;
    pthread_mutex_lock(&relay->mutex);
    if (clock - relay->swept_ns >= SWEEP_NS) {
        relay->swept_ns = clock;
        find_awaited(h, awaited = &room);
    }
    uint32_t n = 0, used = flights_used(h);
    if (used > relay->used) relay->used = used; /* a mark that was lowered is damaged */
    for (uint32_t f = 0; f < relay->used && n < capacity; f++) {
        struct told *t = &relay->told[f];
        if (t->serial && (t->generation != now || !csm_flight_is_live(h, now, f, t->serial)))
            n += tell_end(h, now, f, t, &out[n]);
        else if (t->serial)
            n += tell_change(h, f, t, awaited, &out[n]);
        if (t->serial == 0 && n < capacity) n += tell_new(h, now, f, t, &out[n]);
    }
    pthread_mutex_unlock(&relay->mutex);
    return (int)n;
}

/* ---- take: to publish what came from elsewhere */

/* It is the caller's to end from here on, so there is nothing more to tell. Not under the lock: who looks may have to wait for it. */
static void taken(csm *h, const csm_ticket *t) {
    pthread_mutex_lock(&h->relay->mutex);
    if (h->relay->told[t->flight].serial == t->serial) forget(h, &h->relay->told[t->flight]);
    pthread_mutex_unlock(&h->relay->mutex);
}

static int take_flight_locked(csm *h, uint64_t generation, uint32_t f, csm_call *call) {
    struct csm_flight *flight = &h->flights[f];
    uint64_t serial = csm_load(&flight->serial);
    /* Given up: this process has taken it before, and could not have the lock when it was to publish. */
    bool given_up = csm_load_acquire(&flight->given_up) == serial;
    if (csm_load(&flight->owner) == csm_self(h) && !given_up) {
        if (!change(h, f, serial, ASKED | SEEN | HELD | OFFERED, CSM_LEASE_TAKEN)) return CSM_JOINED;
        call->ticket = csm_flight_ticket_locked(h, generation, f, serial);
        return CSM_OWNER;
    }
    if (csm_flight_is_attended(h, f)) return CSM_JOINED;
    csm_flight_take_over_locked(h, generation, f, serial, (struct csm_asker){0}, &call->ticket);
    csm_store_release(&flight->lease, csm_lease_word(serial, false, CSM_LEASE_TAKEN));
    return CSM_OWNER;
}

static int take_locked(csm *h, uint64_t generation, struct csm_hash hash, const char *key, size_t key_bytes, csm_call *call) {
    uint64_t slot;
    uint32_t f;
    int code;
    if (csm_destroyed(h)) return CSM_GONE;
    if (csm_load(&h->header->generation) != generation) return CSM_STALE;
    switch (csm_index_place_locked(h, generation, hash, key, key_bytes, &slot, &f)) {
    case CSM_PLACE_FULL:
        return CSM_READY;
    case CSM_PLACE_COMPUTING:
        if (csm_flight_is_live(h, generation, f, csm_load(&h->flights[f].serial))) return take_flight_locked(h, generation, f, call);
        csm_index_vacate_locked(h, generation, slot); /* damage: as in a claim */
        return CSM_AGAIN;
    case CSM_PLACE_FREE:
        code = csm_flight_begin_locked(h, &(struct csm_beginning){.generation = generation, .slot = slot, .hash = hash, .key = key,
                                                                 .key_bytes = key_bytes, .owner = csm_self(h), .state = CSM_LEASE_TAKEN}, &f);
        if (code != CSM_OK) return code;
        call->ticket = csm_flight_ticket_locked(h, generation, f, csm_load(&h->flights[f].serial));
        return CSM_OWNER;
    case CSM_PLACE_NONE:
        break;
    }
    return csm_flight_reap_locked(h, generation) ? CSM_AGAIN : CSM_NO_SLOT;
}

int csm_relay_take(csm *h, uint64_t generation, const char *key, size_t key_bytes, csm_call *call) {
    if (key_bytes > CSM_MAX_KEY) return CSM_INVALID;
    if (!is_sidecar(h)) return CSM_GONE;
    struct csm_hash hash = csm_hash(h->secret, key, key_bytes);
    for (;;) {
        int code = csm_lock_within(h, call);
        if (code != CSM_OK) return code;
        code = take_locked(h, generation, hash, key, key_bytes, call);
        csm_unlock(h);
        if (code == CSM_OWNER) taken(h, &call->ticket);
        if (code != CSM_AGAIN) return code;
    }
}

int csm_relay_take_asked(csm *h, uint32_t f, uint64_t serial, csm_call *call) {
    if (f >= h->geo.flights) return CSM_INVALID;
    if (!is_sidecar(h)) return CSM_GONE;
    int code = csm_lock_within(h, call);
    if (code != CSM_OK) return code;
    uint64_t generation = csm_load(&h->header->generation);
    bool mine = csm_flight_is_live(h, generation, f, serial) && csm_load(&h->flights[f].owner) == csm_self(h) &&
                csm_load_acquire(&h->flights[f].given_up) != serial;
    code = mine && change(h, f, serial, SEEN | HELD | OFFERED, CSM_LEASE_TAKEN) ? CSM_OWNER : CSM_STALE;
    if (code == CSM_OWNER) call->ticket = csm_flight_ticket_locked(h, generation, f, serial);
    csm_unlock(h);
    if (code == CSM_OWNER) taken(h, &call->ticket);
    return code;
}
