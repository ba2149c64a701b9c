/* repair.c: the previous holder of the write lock died in its critical section.
 *
 * Each critical section has one committing store, and every part knows how to derive the rest from what was committed:
 * the counters from the log and the slots, the flight records from the slots, the free space from the order of authority
 * in arena.h. So nothing has to be known about where the holder died. All of it is idempotent: who repairs may be killed
 * too, and the next one starts over. The order matters: which flights are live must be known before their reservations
 * count.
 *
 * A reset that died needs no repair: it prepared the epoch that is not in force, and the next reset prepares it anew. */
#include "repair.h"

#include "arena.h"
#include "flight.h"
#include "index.h"

void csm_repair_locked(csm *h) {
    uint64_t generation = csm_load(&h->header->generation);
    csm_index_repair_locked(h, generation);
    CSM_CRASH_POINT("repair: half-way");
    csm_flight_repair_locked(h, generation);
    csm_arena_repair_locked(h, generation);
}
