/* outcome.h: what a flight ended with when it is not in the cache: an exception, a NoCache value, a value that found no
 * room. The waiters of that flight must have it all the same; nobody else ever will.
 *
 * A fixed ring of records. Their payloads lie in *windows*, ranges of the shm object behind everything that is mapped:
 * written with pwrite and read with pread, so a full /dev/shm is an error code and not a SIGBUS, a payload may be larger
 * than the arena, and its pages go back to the system as soon as the last waiter has it.
 *
 * The ring is lossy. A reader checks by the flight's serial that the record was not taken by another while it copied; if
 * it was, it starts over and computes for itself. */
#ifndef CSM_OUTCOME_H
#define CSM_OUTCOME_H

#include "core.h"

/* Takes a record to write into; CSM_NO_INDEX when all are being written. */
uint32_t csm_outcome_begin_locked(csm *h);

/* Writes the payload into the record's window. Not under the lock. CSM_OK, CSM_NO_SPACE, CSM_TOO_LARGE. */
int csm_outcome_write(csm *h, uint32_t outcome, const csm_piece *pieces, size_t n);

/* Makes it the outcome of flight `serial`, for `waiters` readers. */
void csm_outcome_commit_locked(csm *h, uint32_t outcome, uint64_t generation, uint64_t serial, uint64_t bytes, int kind,
                               int format, uint64_t waiters);

/* Gives an unused record back. */
void csm_outcome_cancel(csm *h, uint32_t outcome);

/* Lock-free: the record of flight `serial`, or CSM_NO_INDEX. */
uint32_t csm_outcome_find(csm *h, uint64_t generation, uint64_t serial);

/* Frees records of other generations than `generation`: nobody may use them any more. */
void csm_outcome_sweep(csm *h, uint64_t generation);

/* One reader is done with the record, having read it or not. */
void csm_outcome_done(csm *h, uint32_t outcome, uint64_t serial);

#endif
