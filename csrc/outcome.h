/* outcome.h: what a flight ended with when it is not in the cache: an exception, a NoCache value, a value that found no
 * room. The waiters of that flight must have it all the same; nobody else ever will.
 *
 * Each flight record has one outcome record, written only by the flight's owner. The payload lies in a *window*, a range of the
 * shm object behind everything that is mapped: written with pwrite and read with pread, so a full /dev/shm is an error code and
 * not a SIGBUS, a payload may be larger than the arena, and its pages go back to the system once the last waiter has it.
 *
 * A flight record whose outcome is still being read is reused only when all others are in use as well. Then the outcome is
 * lost: a reader checks by the flight's serial that the record is still the one it waited for, and if not, starts over. */
#ifndef CSM_OUTCOME_H
#define CSM_OUTCOME_H

#include "core.h"

/* May the flight record `f` be reused without taking an outcome from somebody? */
bool csm_outcome_is_idle(csm *h, uint32_t f);

/* The owner of flight `f` begins: an earlier outcome is void from here on. False: not now, go without. */
bool csm_outcome_begin_locked(csm *h, uint32_t f);

/* The writing that began is over, whatever became of it. */
void csm_outcome_end(csm *h, uint32_t f);

/* Writes the payload into the window. Not under the lock. CSM_OK, CSM_NO_SPACE, CSM_TOO_LARGE. */
int csm_outcome_write(csm *h, uint32_t f, const csm_piece *pieces, size_t n);

/* Makes it the outcome of `serial`, for `waiters` readers. */
void csm_outcome_commit_locked(csm *h, uint32_t f, uint64_t generation, uint64_t serial, uint64_t bytes, int kind, int format,
                               uint64_t waiters);

/* The flight `serial` in record `f` has a new owner. What the former one committed, just before its death, is void: the flight had not
 * ended, so nobody has seen it, and the new owner may end it with something else. */
void csm_outcome_void_locked(csm *h, uint32_t f, uint64_t serial);

/* Lock-free: fills waiter->outcome_* with the outcome of the flight that it waited for; false when there is none. */
bool csm_outcome_find(csm *h, csm_waiter *waiter);

/* `call`, one reader of (f, serial), is done, having read it or not. The last one gives the pages back. NULL: one that does not wait for
 * the lock, and leaves that to others if it is busy. */
void csm_outcome_done(csm *h, csm_call *call, uint32_t f, uint64_t serial);

/* Gives back the pages of outcomes that nobody may use any more, `generation` being the current one. */
void csm_outcome_sweep(csm *h, uint64_t generation);

#endif
