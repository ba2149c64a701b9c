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

/* Can the flight's owner still finish it? False when it died or gave up. */
bool csm_flight_is_attended(csm *h, uint32_t f);

/* Marks the record free. The slot must not point to it any more. */
void csm_flight_free_locked(csm *h, uint32_t f);

/* Vacates the slots of flights whose owners died and returns their space. Returns how many. */
uint32_t csm_flight_reap_locked(csm *h, uint64_t generation);

/* Frees records whose flight is over or never began (after a steal). */
void csm_flight_repair_locked(csm *h, uint64_t generation);

/* A computation, of whatever cache, that asks for another one. Target 0: nobody does. */
struct csm_asker {
    uint64_t id;     /* its cache */
    uint64_t target; /* csm_target() there */
};

/* Does `asker`, which has just begun to wait for `target`, wait for itself? Leaves the keys for csm_chain_*. */
bool csm_cycle_found(csm *h, struct csm_asker asker, uint64_t target);

#endif
