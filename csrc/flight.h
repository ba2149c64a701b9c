/* flight.h: computations in flight.
 *
 * A flight is live while a computing slot of the current generation points to it; that one word decides, everything in the
 * flight's record only describes. It is owned by the process named in `owner`; `serial` never repeats, `term` counts
 * takeovers, and the owner proves itself with a ticket of all of them.
 *
 *     claim      slot becomes computing, caller owner         publish   slot becomes full, or is vacated with an outcome
 *     take over  a dead owner's flight gets a new owner       abandon   slot is vacated, the next caller computes
 *
 * A reset ends all flights at once, by the generation; their owners find out when they publish. */
#ifndef CSM_FLIGHT_H
#define CSM_FLIGHT_H

#include "core.h"

/* Is flight `f` with `serial` still the one that the slot points to? Lock-free. */
bool csm_flight_is_live(csm *h, uint64_t generation, uint32_t f, uint64_t serial);

/* Must the flight be left to its owner? False when that one died, gave up, or is a sidecar that lets go of it. */
bool csm_flight_is_attended(csm *h, uint32_t f);

/* Will nobody end the flight but by accident? Its owner died, gave up, or is a sidecar that does not run. */
bool csm_flight_is_lost(csm *h, uint32_t f);

/* Marks the record free. The slot must not point to it any more. */
void csm_flight_free_locked(csm *h, uint32_t f);

/* Ends a live flight without any outcome: vacates its slot and returns its space. The waiters are for the caller to wake. */
void csm_flight_vacate_locked(csm *h, uint64_t generation, uint32_t f);

/* The same for all flights that are lost; wakes their waiters. Returns how many. */
uint32_t csm_flight_reap_locked(csm *h, uint64_t generation);

/* Frees records whose flight is over or never began (after a steal). */
void csm_flight_repair_locked(csm *h, uint64_t generation);

/* A computation, of whatever cache, that asks for another one. Target 0: nobody does. */
struct csm_asker {
    uint64_t id;     /* its cache */
    uint64_t target; /* csm_target() there */
};

/* Puts a flight into the free place `slot`, with the owner `owner` and the lease `state`. CSM_OK and *f; CSM_NO_FLIGHT; CSM_AGAIN: look
 * for a place once more. `digest` may be NULL, if no sidecar is to see the flight. */
struct csm_beginning {
    uint64_t generation, slot;
    struct csm_hash hash;
    const void *key;
    size_t key_bytes;
    const uint64_t *digest;
    struct csm_asker asker;
    uint64_t owner;
    int state;
};
int csm_flight_begin_locked(csm *h, const struct csm_beginning *b, uint32_t *f);

/* The caller's ticket for a flight that is its own. */
csm_ticket csm_flight_ticket_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial);

/* A flight that is not attended becomes the caller's. */
void csm_flight_take_over_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, struct csm_asker asker,
                                 csm_ticket *ticket);

/* Queues behind flight `f`. CSM_JOINED or CSM_NO_NODE. */
int csm_flight_join_locked(csm *h, uint64_t generation, uint32_t f, uint64_t serial, struct csm_asker asker, csm_waiter *waiter);

/* Gives the place in the queue up, having read the outcome or not. */
void csm_flight_leave(csm *h, csm_waiter *waiter);

/* The same for one who will not read the outcome, should there be one. It may wait for the lock, as `call`; NULL: it does not. */
void csm_flight_withdraw(csm *h, csm_waiter *waiter, csm_call *call);

/* Does `asker`, which has just begun to wait for `target`, wait for itself? Leaves the keys for csm_chain_*. */
bool csm_cycle_found(csm *h, struct csm_asker asker, uint64_t target);

#endif
