/* arena.h: memory_limit bytes of entries, handed out front to back.
 *
 * The allocator keeps one *run*, a stretch of chunks it has entered in this generation, and bumps through it. When
 * the run is used up it is extended by the next chunk, or a new run is started elsewhere; what is left of the old one
 * becomes a *hole*. Space that a flight had reserved and did not use becomes a hole too.
 *
 * A chunk is entered only when no live process pins it. Readers pin what they hand out without a copy; writers pin
 * what they are about to fill: a writer that is late, of generation 7, must not scribble over generation 8.
 * Entering costs a look at each row; once entered, no look is needed for the rest of the generation.
 *
 * Space belongs, in this order of authority: to the run, to a hole, to a flight's reservation, to an entry; or is stranded, nobody's
 * until the reset. Each step below first writes the new owner and then removes the old, more authoritative one, so that a crash
 * in between leaves an overlap, which csm_arena_repair_locked resolves in favour of the more authoritative. */
#ifndef CSM_ARENA_H
#define CSM_ARENA_H

#include "core.h"

/* Reserves `granules` for `flight`: *extent, within the arena, also noted in the flight. CSM_OK, CSM_FULL_ARENA,
 * CSM_TOO_LARGE. */
int csm_arena_reserve_locked(csm *h, uint64_t generation, struct csm_flight *flight, uint64_t granules,
                             uint64_t *extent);

/* Gives the flight's reservation back. */
void csm_arena_return_locked(csm *h, uint64_t generation, struct csm_flight *flight);

/* May the process of `owner`, which lives, be writing to that extent? It may be to another one in the same chunks. Right under the
 * lock, under which the extent was reserved and pinned. */
bool csm_arena_is_written(csm *h, uint64_t owner, uint64_t extent);

/* The flight's reservation is nobody's until the next reset: somebody may still write there. */
void csm_arena_strand_locked(csm *h, struct csm_flight *flight);

void csm_arena_repair_locked(csm *h, uint64_t generation);

/* Puts an empty allocator state into `epoch`. */
void csm_arena_prepare_locked(struct csm_epoch *epoch);

/* Makes the pages of an extent writable without a fault. Not under the lock: it may take the kernel a while.
 * CSM_OK or CSM_NO_SPACE. The caller pins the extent. */
int csm_arena_back(csm *h, uint64_t extent);

/* Does the chunk's mark say that its pages are there? */
bool csm_arena_is_backed(csm *h, uint64_t chunk);

/* Pins of this process. `pins` is view_pins or write_pins of the own row. */
void csm_arena_pin(csm *h, uint32_t *pins, uint64_t first_granule, uint64_t granules);
void csm_arena_unpin(csm *h, uint32_t *pins, uint32_t first_chunk, uint32_t last_chunk);

/* Does any live process pin the chunk? */
bool csm_arena_is_pinned(csm *h, uint64_t chunk);

static inline uint64_t csm_chunk_of(csm *h, uint64_t granule) { return granule / h->chunk_granules; }

/* End of the run, in granules; the last chunk may be a partial one. */
static inline uint64_t csm_arena_run_end(csm *h, uint64_t run) {
    return csm_min(csm_run_chunk(run) * h->chunk_granules, h->granules);
}

#endif
