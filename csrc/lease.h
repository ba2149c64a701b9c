/* lease.h: what a worker has to do with the cluster's sidecar.
 *
 * With a live sidecar a flight *begins as the sidecar's*: who would have become its owner writes down the sidecar instead, and joins
 * as a waiter. So all that a death needs is there already. A dead sidecar is a dead owner, and its waiters take over. A value, an
 * exception or a NoCache from another host is published by the flight's owner, like any other. And to let the worker compute,
 * the sidecar lets go of the flight, which its waiter takes over then, by consent.
 *
 * How far that is stands in one word of the flight, with its serial, so that it can be changed without the lock and never in another
 * flight that has got the record meanwhile:
 *
 *     NONE      a worker computes without the cluster's lease: there is no sidecar, or its answer was not waited for any longer
 *     ASKED     the sidecar's, not seen by it yet        -> SEEN
 *     SEEN      it has asked the cluster                 -> HELD, OFFERED, TAKEN
 *     HELD      another host computes                    -> OFFERED, TAKEN
 *     OFFERED   the host has the lease; whoever waits may take the flight over -> GRANTED
 *     GRANTED   a worker computes under the lease; if that one dies, the next one does
 *     TAKEN     the sidecar publishes what came from elsewhere
 *
 * All but the last step of each flight are made by the sidecar, by compare-and-swap. Who takes a flight over stores itself as the
 * owner first and changes the word then, under the lock: OFFERED and GRANTED become GRANTED, all else NONE.
 *
 * What if a process dies here. A worker that has begun a flight and not joined: nobody waits for it, and the sidecar ends it. One that
 * has stored itself as the owner and not changed the word: it is dead, and the next one takes over. The sidecar, at any moment: so
 * is the owner of all that it had not yet let go of.
 * What if the sidecar is stopped: it says when it last looked, and after lease_timeout it is nobody's owner any more. When it goes on
 * its tickets are stale; but it may have been in the middle of a copy, so the room of what was TAKEN is not used again (flight.c).
 * Should it not get the lock then, it gives up nothing that a worker has by now (publish.c). Nor does anybody wait longer than
 * lease_timeout for an answer, but for a computation that is known to be under way.
 *
 * The doorbell is a hint: the sidecar looks for itself, 20 times a second. */
#ifndef CSM_LEASE_H
#define CSM_LEASE_H

#include "core.h"

enum csm_lease_state {
    CSM_LEASE_NONE,
    CSM_LEASE_ASKED,
    CSM_LEASE_SEEN,
    CSM_LEASE_HELD,
    CSM_LEASE_OFFERED,
    CSM_LEASE_GRANTED,
    CSM_LEASE_TAKEN
};

/* serial (48) | flags (8) | state (8). The flags: a nested computation waits; and, of a worker's, that it had it from a
 * sidecar, not from one that died. */
#define CSM_LEASE_LET_GO (UINT64_C(1) << 9)
static inline uint64_t csm_lease_word(uint64_t serial, bool nested, enum csm_lease_state state) {
    return serial << 16 | (uint64_t)nested << 8 | (uint64_t)state;
}
static inline uint64_t csm_lease_serial(uint64_t word) { return word >> 16; }
static inline bool csm_lease_nested(uint64_t word) { return word >> 8 & 1; }

/* The state that flight `f` is in if it is `serial`. */
static inline enum csm_lease_state csm_lease_state_of(uint64_t word, uint64_t serial) {
    uint64_t state = word & 0xff;
    return csm_lease_serial(word) == serial && state <= CSM_LEASE_TAKEN ? (enum csm_lease_state)state : CSM_LEASE_NONE;
}

/* The owner word of the sidecar, if there is one that is to be asked; else 0. One load where there is none. */
uint64_t csm_lease_sidecar(csm *h);

/* May flight `f` be taken over although its owner lives? It was offered; or its owner is a sidecar that has not answered in time. */
bool csm_lease_is_open(csm *h, uint32_t f);

/* Has a worker `f` from a sidecar? Then one of its terms began without any computation's death. */
bool csm_lease_was_let_go(csm *h, uint32_t f);

/* Was the cluster asked, and has not answered? */
bool csm_lease_is_unanswered(csm *h, uint32_t f);

/* Is `f` a sidecar's that does not run? To itself it does: another thread of it may be late with its looks. */
bool csm_lease_is_hung(csm *h, uint32_t f);

/* The flight `f`, `serial` has a worker as its owner from now on. Returns whether it was a sidecar's. */
bool csm_lease_take_over_locked(csm *h, uint32_t f, uint64_t serial);

/* A nested computation has joined the flight. */
void csm_lease_nest(csm *h, uint32_t f, uint64_t serial);

/* Rings, if there is news for the sidecar in that the caller waits. */
void csm_lease_joined(csm *h, const csm_waiter *waiter);

/* Rings the doorbell, if there is a sidecar. One load if there is none. After what is to be seen, and not under the lock. */
void csm_lease_ring(csm *h);

#endif
