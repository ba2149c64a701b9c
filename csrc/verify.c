/* verify.c: fsck. Checks every structure of the current generation, changes nothing.
 *
 * Entries do not change within a generation, so most of the work, looking each of them up, is done without the lock. Under it the
 * rest is collected: what was committed meanwhile, the states of all slots, flights and free space. What was collected is then
 * judged without it.
 *
 * csm_verify_entries leaves out what needs the lock: then entries are all that is judged, and neither free space nor flights.
 *
 * What a killed process may leave behind and is no fault: a live flight with a dead owner (the next asker takes over), a
 * node or a row of the dead (taken over by who needs one), an outcome nobody will read. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"
#include "flight.h"
#include "hash.h"
#include "index.h"
#include "lock.h"
#include "process.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct span {
    uint64_t first, end;
    const char *what;
    uint64_t id;
};

struct check {
    csm *h;
    uint64_t generation;
    struct csm_epoch *epoch;
    char *report;
    size_t capacity, used;
    int faults;
    struct span *spans;
    size_t n_spans;
    uint64_t bytes;    /* of all entries */
    uint64_t stranded; /* granules, in all generations: no more than that may be missing in this one */
    bool entered[CSM_MAX_CHUNKS];
};

__attribute__((format(printf, 2, 3))) static void fault(struct check *c, const char *format, ...) {
    c->faults++;
    if (c->used + 2 >= c->capacity) return;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(c->report + c->used, c->capacity - c->used - 1, format, args);
    va_end(args);
    if (n < 0) return;
    c->used += csm_min((uint64_t)n, c->capacity - c->used - 2);
    c->report[c->used++] = '\n';
    c->report[c->used] = 0;
}

static void add_span(struct check *c, uint64_t first, uint64_t granules, const char *what, uint64_t id) {
    if (granules == 0) return;
    if (first > c->h->granules || granules > c->h->granules - first) {
        fault(c, "%s %" PRIu64 " lies outside the arena", what, id);
        return;
    }
    c->spans[c->n_spans++] = (struct span){first, first + granules, what, id};
}

static void check_header(struct check *c) {
    csm *h = c->h;
    if (csm_load(&h->header->magic) != CSM_MAGIC) fault(c, "header: magic damaged");
    if (memcmp(&h->header->geometry, &h->geo, sizeof h->geo) != 0) fault(c, "header: geometry damaged");
    if (h->header->secret[0] != h->secret[0] || h->header->secret[1] != h->secret[1]) fault(c, "header: secret damaged");
    if (csm_load(&c->epoch->generation) != c->generation)
        fault(c, "epoch: prepared for generation %" PRIu64 ", in force is %" PRIu64, csm_load(&c->epoch->generation),
              c->generation);
    if (csm_load(&c->epoch->version_bytes) > CSM_VERSION_BYTES) fault(c, "epoch: version too long");
    if (csm_load(&c->epoch->entries) > h->geo.max_items) fault(c, "epoch: more entries than max_items");
}

/* The entry that log record `i` names. */
static void check_entry(struct check *c, uint64_t i) {
    csm *h = c->h;
    uint64_t record = csm_load(&h->log[i]), slot = record & UINT32_MAX;
    struct csm_found found, again;
    uint32_t key_bytes;
    if (!csm_log_is_of(record, c->generation) || !csm_index_entry(h, c->generation, slot, &found, &key_bytes)) {
        fault(c, "log %" PRIu64 ": names slot %" PRIu64 ", which is not full or names no entry", i, slot);
        return;
    }
    const unsigned char *key = h->arena + found.place * CSM_GRANULE + sizeof(struct csm_entry);
    struct csm_hash hash = csm_hash(h->secret, key, key_bytes);
    if (!csm_index_find(h, c->generation, hash, key, key_bytes, &again) || again.slot != slot)
        fault(c, "slot %" PRIu64 ": a look-up of its key does not lead there", slot);
    uint64_t granules = csm_footprint(key_bytes, found.value_bytes);
    c->bytes += granules * CSM_GRANULE;
    add_span(c, found.place, granules, "entry in slot", slot);
}

static uint64_t log_end(struct check *c) {
    uint64_t end = csm_min(csm_load_acquire(&c->epoch->entries), c->h->geo.max_items);
    return csm_min(end, csm_index_log_room(c->h));
}

static void check_slots_locked(struct check *c) {
    csm *h = c->h;
    uint64_t full = 0, computing = 0, live = 0;
    for (uint64_t slot = 0; slot < h->geo.slots; slot++) {
        uint64_t ctl = csm_load(&h->slots[slot].ctl);
        if (!csm_ctl_is_of(ctl, c->generation)) continue;
        enum csm_slot_state state = csm_ctl_state(ctl);
        if (state > CSM_SLOT_FULL) fault(c, "slot %" PRIu64 ": unknown state", slot);
        full += state == CSM_SLOT_FULL;
        if (state != CSM_SLOT_COMPUTING) continue;
        uint32_t f = csm_ctl_flight(ctl);
        computing++;
        if (f >= h->geo.flights || !csm_flight_is_live(h, c->generation, f, csm_load(&h->flights[f].serial)) ||
            csm_load(&h->flights[f].slot) != slot)
            fault(c, "slot %" PRIu64 ": computing, but flight %u does not point back", slot, f);
    }
    uint64_t entries = csm_load(&c->epoch->entries), used = csm_load(&c->epoch->bytes_used);
    if (full != entries) fault(c, "index: %" PRIu64 " full slots, %" PRIu64 " in the log", full, entries);
    if (c->bytes != used) fault(c, "index: entries take %" PRIu64 " bytes, %" PRIu64 " accounted", c->bytes, used);
    if (used > h->geo.memory_limit) fault(c, "arena: more than memory_limit in use");
    uint64_t hint = csm_load(&h->header->flight_hint);
    for (uint32_t f = 0; f < h->geo.flights; f++) {
        struct csm_flight *flight = &h->flights[f];
        uint64_t serial = csm_load(&flight->serial);
        if (serial == 0 || csm_load(&flight->generation) != c->generation) {
            if (f < hint) fault(c, "flight %u: free, but nobody looks for it there", f);
            continue;
        }
        if (!csm_flight_is_live(h, c->generation, f, serial)) {
            fault(c, "flight %u: no slot points to it", f);
            continue;
        }
        live++;
        if (f >= csm_load(&h->header->flights_used)) fault(c, "flight %u: beyond the high-water mark", f);
        uint64_t extent = csm_load(&flight->reserved);
        add_span(c, csm_extent_first(extent), csm_extent_granules(extent), "reservation of flight", f);
    }
    if (live != computing) fault(c, "flights: %" PRIu64 " live, %" PRIu64 " computing slots", live, computing);
}

static void collect_chunks(struct check *c) {
    for (uint64_t chunk = 0; chunk < c->h->geo.chunks; chunk++)
        c->entered[chunk] = csm_load(&c->h->chunks[chunk].entered) == c->generation;
}

static void collect_space_locked(struct check *c) {
    csm *h = c->h;
    uint64_t run = csm_load(&c->epoch->run), first = csm_run_first(run), end = csm_arena_run_end(h, run);
    if (csm_run_chunk(run) > h->geo.chunks || first > end)
        fault(c, "arena: the run is damaged");
    else
        add_span(c, first, end - first, "run", 0);
    for (uint64_t i = 0; i < csm_min(csm_load(&c->epoch->holes_used), CSM_HOLES); i++) {
        uint64_t hole = csm_load(&c->epoch->holes[i]);
        add_span(c, csm_extent_first(hole), csm_extent_granules(hole), "hole", i);
    }
    collect_chunks(c);
    for (uint32_t row = 0; row < csm_process_rows(h); row++)
        c->stranded += csm_load(&h->rows[row].stats[CSM_STAT_STRANDED_BYTES]) / CSM_GRANULE;
}

static int by_first(const void *a, const void *b) {
    const struct span *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* No overlaps, nothing outside entered chunks; and, where all was `collected`, every granule of those accounted for. */
static void judge_space(struct check *c, bool collected) {
    csm *h = c->h;
    qsort(c->spans, c->n_spans, sizeof *c->spans, by_first);
    uint64_t covered = 0, entered = 0, last = 0;
    for (size_t i = 0; i < c->n_spans; i++) {
        const struct span *s = &c->spans[i];
        if (s->first < last)
            fault(c, "arena: %s %" PRIu64 " overlaps %s %" PRIu64, s->what, s->id, c->spans[i - 1].what, c->spans[i - 1].id);
        last = s->end > last ? s->end : last;
        covered += s->end - s->first;
        for (uint64_t chunk = csm_chunk_of(h, s->first); chunk <= csm_chunk_of(h, s->end - 1); chunk++)
            if (!c->entered[chunk]) {
                fault(c, "arena: %s %" PRIu64 " lies in chunk %" PRIu64 ", which was not entered", s->what, s->id, chunk);
                break;
            }
    }
    if (!collected) return;
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++)
        if (c->entered[chunk]) entered += csm_min((chunk + 1) * h->chunk_granules, h->granules) - chunk * h->chunk_granules;
    if (covered > entered || entered - covered > c->stranded)
        fault(c, "arena: %" PRIu64 " granules in entered chunks, %" PRIu64 " accounted for, %" PRIu64 " stranded", entered, covered,
              c->stranded);
}

/* CSM_STALE: a reset came; again. `patient`: do the entries before taking the lock. */
static int verify_once(struct check *c, bool patient) {
    csm *h = c->h;
    c->generation = csm_load_acquire(&h->header->generation);
    c->epoch = csm_epoch_of(h, c->generation);
    uint64_t i = 0;
    if (patient)
        for (uint64_t end = log_end(c); i < end; i++) {
            check_entry(c, i);
            if (c->faults && csm_generation(h) != c->generation) return CSM_STALE;
        }
    int code = csm_lock(h);
    if (code != CSM_OK) return code;
    if (csm_load(&h->header->generation) != c->generation) {
        code = CSM_STALE;
    } else {
        for (uint64_t end = log_end(c); i < end; i++) check_entry(c, i);
        check_header(c);
        check_slots_locked(c);
        collect_space_locked(c);
    }
    csm_unlock(h);
    if (code == CSM_OK) judge_space(c, true);
    return code;
}

/* An epoch is prepared anew only for the generation after next, so what is looked at here is this generation's as long as
 * this is in force. */
static int verify_entries_once(struct check *c) {
    csm *h = c->h;
    c->generation = csm_load_acquire(&h->header->generation);
    c->epoch = csm_epoch_of(h, c->generation);
    check_header(c);
    for (uint64_t i = 0, end = log_end(c); i < end; i++) {
        check_entry(c, i);
        if (c->faults && csm_generation(h) != c->generation) return CSM_STALE;
    }
    collect_chunks(c);
    judge_space(c, false);
    return csm_generation(h) == c->generation ? CSM_OK : CSM_STALE;
}

static int verify(csm *h, char *report, size_t capacity, bool locking) {
    enum { PATIENT_TRIES = 3 };
    size_t most = h->geo.max_items + h->geo.flights + CSM_HOLES + 1;
    struct span *spans = malloc(most * sizeof *spans);
    if (!spans) return CSM_SYSTEM;
    int code;
    for (int i = 0;; i++) {
        if (capacity) report[0] = 0;
        struct check c = {.h = h, .report = report, .capacity = capacity, .spans = spans};
        code = locking ? verify_once(&c, i < PATIENT_TRIES) : verify_entries_once(&c);
        if (code == CSM_OK) code = c.faults;
        if (code != CSM_STALE) break;
    }
    free(spans);
    return code;
}

int csm_verify(csm *h, char *report, size_t capacity) { return verify(h, report, capacity, true); }

int csm_verify_entries(csm *h, char *report, size_t capacity) { return verify(h, report, capacity, false); }
