/* arena.c: see arena.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"

#include "process.h"

#include <errno.h>
#include <fcntl.h>

/* After a refusal the search (every chunk against every row) is not repeated for this long, unless space was
 * returned: a full cache must stay cheap. */
static const uint64_t RETRY_NS = 100000000;
/* posix_fallocate zeroes pages and cannot be interrupted half-way without undoing its work: small steps. */
static const uint64_t BACK_STEP = 1 << 20;

bool csm_arena_is_pinned(csm *h, uint64_t chunk) {
    uint32_t rows = csm_process_rows(h);
    for (uint32_t row = 0; row < rows; row++) {
        struct csm_row *r = &h->rows[row];
        /* SYNC pin: pairs with csm_arena_pin. The pinner stores its pin and then loads the generation; the resetter
         * stored the generation and then loads the pins. In the one total order of the four, at least one sees the
         * other: the pin is respected, or the pinner notices the reset. */
        if (csm_load_seq(&r->view_pins[chunk]) == 0 && csm_load_seq(&r->write_pins[chunk]) == 0) continue;
        if (csm_process_row_held(h, row)) return true; /* a dead row's pins bind nobody */
    }
    return false;
}

void csm_arena_pin(csm *h, uint32_t *pins, uint64_t first, uint64_t granules) {
    uint64_t last = csm_chunk_of(h, first + (granules ? granules - 1 : 0));
    for (uint64_t chunk = csm_chunk_of(h, first); chunk <= last; chunk++) csm_add_seq(&pins[chunk], 1);
    csm_fence_seq();
}

void csm_arena_unpin(csm *h, uint32_t *pins, uint32_t first_chunk, uint32_t last_chunk) {
    (void)h;
    /* SYNC unpin: release, so that all reads of (or writes to) the chunk are done before somebody reuses it. */
    for (uint32_t chunk = first_chunk; chunk <= last_chunk; chunk++) csm_sub_release(&pins[chunk], 1);
}

bool csm_arena_is_written(csm *h, uint64_t owner, uint64_t extent) {
    uint32_t row = csm_owner_row(owner);
    if (row >= csm_process_rows(h) || csm_extent_end(extent) > h->granules) return false;
    uint64_t last = csm_chunk_of(h, csm_extent_end(extent) - 1);
    for (uint64_t chunk = csm_chunk_of(h, csm_extent_first(extent)); chunk <= last; chunk++)
        if (csm_load_acquire(&h->rows[row].write_pins[chunk])) return true; /* SYNC unpin: what it has written it wrote before */
    return false;
}

/* ---- pages ---- */

static int back_range(csm *h, uint64_t first, uint64_t end) {
    struct stat st;
    if (!csm_process_stat(h, &st)) return CSM_NO_SPACE;
    for (uint64_t at = first; at < end;) {
        uint64_t n = csm_min(end - at, BACK_STEP);
        int rc = posix_fallocate(h->fd, (off_t)(h->geo.arena_off + at), (off_t)n);
        if (rc == EINTR) continue;
        if (rc != 0) return CSM_NO_SPACE; /* ENOSPC, or no descriptor: without pages a store would be a SIGBUS */
        at += n;
    }
    return CSM_OK;
}

/* What `backed` says when every page of the chunk is there. Not just 1: what said so wrongly would cost a SIGBUS, so a damaged word
 * must not be able to look like it. */
static uint64_t backed_mark(csm *h, uint64_t chunk) { return (h->secret[0] + chunk * UINT64_C(0x9e3779b97f4a7c15)) | 1; }
bool csm_arena_is_backed(csm *h, uint64_t chunk) { return csm_load_acquire(&h->chunks[chunk].backed) == backed_mark(h, chunk); }

int csm_arena_back(csm *h, uint64_t extent) {
    uint64_t first = csm_extent_first(extent), end = csm_extent_end(extent);
    for (uint64_t chunk = csm_chunk_of(h, first); chunk <= csm_chunk_of(h, end - 1); chunk++) {
        struct csm_chunk *c = &h->chunks[chunk];
        if (csm_arena_is_backed(h, chunk)) continue;
        uint64_t from = chunk * h->chunk_granules, to = csm_min(from + h->chunk_granules, h->granules);
        /* The whole chunk, so that the next entries need no system call. Idempotent and it changes no byte that
         * somebody has written: two processes may do it at once, one may die half-way. */
        if (back_range(h, from * CSM_GRANULE, to * CSM_GRANULE) == CSM_OK) {
            csm_store_release(&c->backed, backed_mark(h, chunk));
            continue;
        }
        /* Not enough for the chunk: perhaps for the pages of this extent. */
        uint64_t a = (from > first ? from : first) * CSM_GRANULE / CSM_PAGE * CSM_PAGE;
        uint64_t b = csm_round(csm_min(to, end) * CSM_GRANULE, CSM_PAGE);
        if (back_range(h, a, b) != CSM_OK) return CSM_NO_SPACE;
    }
    return CSM_OK;
}

/* ---- holes ---- */

static uint64_t holes_used(struct csm_epoch *epoch) { return csm_min(csm_load(&epoch->holes_used), CSM_HOLES); }

/* Counted before it is lost: verify takes no more for lost than was counted. */
static void strand(csm *h, uint64_t granules) {
    if (granules) csm_stat_add(h, CSM_STAT_STRANDED_BYTES, granules * CSM_GRANULE);
}

static void add_hole_locked(csm *h, struct csm_epoch *epoch, uint64_t first, uint64_t granules) {
    uint64_t n = holes_used(epoch), vacant = n, smallest = 0, most = csm_extent_granules(UINT64_MAX);
    csm_store(&epoch->refused, 0);
    if (granules > most) { /* a hole's length has 28 bits; the rest of a larger remainder is lost until the reset */
        strand(h, granules - most);
        granules = most;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t hole = csm_load(&epoch->holes[i]);
        if (csm_extent_granules(hole) == 0) {
            vacant = i;
            continue;
        }
        if (csm_extent_granules(hole) + granules <= most) {
            if (csm_extent_end(hole) == first) {
                csm_store(&epoch->holes[i], csm_extent(csm_extent_first(hole), csm_extent_granules(hole) + granules));
                return;
            }
            if (first + granules == csm_extent_first(hole)) {
                csm_store(&epoch->holes[i], csm_extent(first, csm_extent_granules(hole) + granules));
                return;
            }
        }
        if (csm_extent_granules(hole) < csm_extent_granules(csm_load(&epoch->holes[smallest]))) smallest = i;
    }
    if (vacant < CSM_HOLES) {
        csm_store(&epoch->holes[vacant], csm_extent(first, granules));
        if (vacant == n) csm_store(&epoch->holes_used, n + 1);
        return;
    }
    uint64_t lost = csm_extent_granules(csm_load(&epoch->holes[smallest]));
    strand(h, csm_min(lost, granules)); /* counted first: killed right after, it is counted and perhaps not lost */
    if (lost < granules) csm_store(&epoch->holes[smallest], csm_extent(first, granules));
}

static bool reserve_hole_locked(csm *h, struct csm_epoch *epoch, struct csm_flight *flight, uint64_t granules,
                                uint64_t *extent) {
    uint64_t n = holes_used(epoch), best = n, best_size = UINT64_MAX, first = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t hole = csm_load(&epoch->holes[i]), size = csm_extent_granules(hole);
        if (size >= granules && size < best_size && csm_extent_end(hole) <= h->granules) {
            best = i;
            best_size = size;
            first = csm_extent_first(hole); /* what was checked, not what a second look might find */
        }
    }
    if (best == n) return false;
    *extent = csm_extent(first, granules);
    csm_store(&flight->reserved, *extent);
    csm_store_release(&epoch->holes[best],
                      best_size == granules ? 0 : csm_extent(first + granules, best_size - granules));
    return true;
}

/* ---- the run ---- */

static bool can_enter_locked(csm *h, uint64_t generation, uint64_t chunk) {
    return csm_load(&h->chunks[chunk].entered) != generation && !csm_arena_is_pinned(h, chunk);
}

/* The run is [first, end of chunk `end_chunk`). Stored before the chunks are marked: a crash in between is repaired
 * by marking all chunks of the run. */
static uint64_t set_run_locked(csm *h, uint64_t generation, struct csm_epoch *epoch, uint64_t first, uint64_t end_chunk) {
    csm_store_release(&epoch->run, csm_run(first, end_chunk));
    for (uint64_t chunk = csm_chunk_of(h, first); chunk < end_chunk; chunk++)
        csm_store(&h->chunks[chunk].entered, generation);
    return csm_run(first, end_chunk);
}

/* Makes the run hold `granules`, and says where it then begins; false when no stretch of chunks can. `run` is what the caller
 * found: nothing here is looked at twice. */
static bool grow_run_locked(csm *h, uint64_t generation, struct csm_epoch *epoch, uint64_t granules, uint64_t *run_io) {
    uint64_t run = *run_io, first = csm_run_first(run), end = csm_arena_run_end(h, run);
    uint64_t chunk = csm_min(csm_run_chunk(run), h->geo.chunks);
    while (end < first + granules && chunk < h->geo.chunks && can_enter_locked(h, generation, chunk)) {
        chunk++;
        end = csm_min(chunk * h->chunk_granules, h->granules);
    }
    if (end >= first + granules) {
        *run_io = set_run_locked(h, generation, epoch, first, chunk);
        return true;
    }
    /* Elsewhere: first fit. Chunks that were pinned when the run passed them may be free by now. */
    uint64_t from = 0, size = 0;
    for (uint64_t c = 0; c < h->geo.chunks; c++) {
        if (!can_enter_locked(h, generation, c)) {
            from = c + 1;
            size = 0;
            continue;
        }
        size = csm_min((c + 1) * h->chunk_granules, h->granules) - from * h->chunk_granules;
        if (size < granules) continue;
        uint64_t rest = csm_arena_run_end(h, run);
        if (rest > first) add_hole_locked(h, epoch, first, rest - first);
        *run_io = set_run_locked(h, generation, epoch, from * h->chunk_granules, c + 1);
        return true;
    }
    return false;
}

int csm_arena_reserve_locked(csm *h, uint64_t generation, struct csm_flight *flight, uint64_t granules,
                             uint64_t *extent) {
    struct csm_epoch *epoch = csm_epoch_of(h, generation);
    if (granules > h->granules || granules > csm_extent_granules(UINT64_MAX)) return CSM_TOO_LARGE;
    if (reserve_hole_locked(h, epoch, flight, granules, extent)) return CSM_OK;
    uint64_t run = csm_load(&epoch->run), end = csm_arena_run_end(h, run);
    if (csm_run_first(run) + granules > end) {
        uint64_t refused = csm_load(&epoch->refused), now = csm_now_ns();
        if (refused && granules >= refused && now - csm_load(&epoch->refused_ns) < RETRY_NS) return CSM_FULL_ARENA;
        if (!grow_run_locked(h, generation, epoch, granules, &run)) {
            if (!refused || granules < refused) csm_store(&epoch->refused, granules);
            csm_store(&epoch->refused_ns, now);
            return CSM_FULL_ARENA;
        }
    }
    *extent = csm_extent(csm_run_first(run), granules);
    csm_store(&flight->reserved, *extent);
    /* Killed before this store: the reservation overlaps the run, and repair voids it. */
    csm_store_release(&epoch->run, csm_run(csm_run_first(run) + granules, csm_run_chunk(run)));
    return CSM_OK;
}

void csm_arena_return_locked(csm *h, uint64_t generation, struct csm_flight *flight) {
    uint64_t extent = csm_load(&flight->reserved);
    if (csm_extent_granules(extent) == 0 || csm_extent_end(extent) > h->granules) {
        csm_store(&flight->reserved, 0);
        return;
    }
    struct csm_epoch *epoch = csm_epoch_of(h, generation);
    uint64_t run = csm_load(&epoch->run);
    if (csm_extent_end(extent) == csm_run_first(run)) {
        csm_store(&epoch->refused, 0);
        csm_store_release(&epoch->run, csm_run(csm_extent_first(extent), csm_run_chunk(run)));
    } else {
        add_hole_locked(h, epoch, csm_extent_first(extent), csm_extent_granules(extent));
    }
    csm_store_release(&flight->reserved, 0);
}

void csm_arena_strand_locked(csm *h, struct csm_flight *flight) {
    uint64_t extent = csm_load(&flight->reserved);
    if (csm_extent_end(extent) <= h->granules) strand(h, csm_extent_granules(extent));
    CSM_CRASH_POINT("strand: counted");
    csm_store(&flight->reserved, 0);
}

void csm_arena_prepare_locked(struct csm_epoch *epoch) {
    csm_store(&epoch->run, 0);
    csm_store(&epoch->holes_used, 0);
    csm_store(&epoch->refused, 0);
    csm_store(&epoch->refused_ns, 0);
}

void csm_arena_repair_locked(csm *h, uint64_t generation) {
    struct csm_epoch *epoch = csm_epoch_of(h, generation);
    uint64_t run = csm_load(&epoch->run), first = csm_run_first(run);
    uint64_t end_chunk = csm_min(csm_run_chunk(run), h->geo.chunks);
    if (first > h->granules) first = h->granules; /* damaged: better no space than somebody else's */
    csm_store(&epoch->run, csm_run(first, end_chunk));
    uint64_t end = csm_arena_run_end(h, csm_load(&epoch->run));
    for (uint64_t chunk = csm_chunk_of(h, first); chunk < end_chunk; chunk++)
        csm_store(&h->chunks[chunk].entered, generation);
    for (uint64_t i = 0; i < holes_used(epoch); i++) {
        uint64_t hole = csm_load(&epoch->holes[i]);
        uint64_t from = csm_extent_first(hole), to = csm_extent_end(hole);
        if (csm_extent_overlaps(hole, first, end)) { /* it may have been merged with a sound one: keep that part */
            if (from < first)
                to = first;
            else
                from = end;
        }
        csm_store(&epoch->holes[i], from < to && to <= h->granules ? csm_extent(from, to - from) : 0);
    }
    uint64_t flights = csm_min(csm_load(&h->header->flights_used), h->geo.flights);
    for (uint64_t f = 0; f < flights; f++) {
        struct csm_flight *flight = &h->flights[f];
        uint64_t extent = csm_load(&flight->reserved);
        if (csm_load(&flight->serial) == 0 || csm_extent_granules(extent) == 0) continue;
        bool taken_back = csm_extent_overlaps(extent, first, end);
        for (uint64_t i = 0; i < holes_used(epoch) && !taken_back; i++) {
            uint64_t hole = csm_load(&epoch->holes[i]);
            taken_back = csm_extent_overlaps(extent, csm_extent_first(hole), csm_extent_end(hole));
        }
        if (taken_back) csm_store(&flight->reserved, 0);
    }
    csm_store(&epoch->refused, 0);
}
