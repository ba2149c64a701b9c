/* describe.c: looking on: what there is, for people. See api.h. No lock is taken, and nobody is in anybody's way.
 *
 * What is read may change meanwhile, and may be damaged: all of it is numbers and bytes to show, except for the few that lead
 * to others, and those are checked. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"
#include "flight.h"
#include "hash.h"
#include "index.h"
#include "lease.h"
#include "process.h"
#include "stats.h"
#include "wait.h"

#include <stdlib.h>
#include <sys/stat.h>

/* ---- all of it ---- */

static uint64_t chunk_bytes(csm *h, uint64_t chunk) {
    return csm_min(h->geo.chunk_bytes, h->geo.memory_limit - chunk * h->geo.chunk_bytes);
}

/* How often live processes pin each chunk. */
struct pins {
    uint64_t view[CSM_MAX_CHUNKS], write[CSM_MAX_CHUNKS];
};

static void add_pins(csm *h, const struct csm_row *row, struct pins *pins) {
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++) {
        pins->view[chunk] += csm_load(&row->view_pins[chunk]);
        pins->write[chunk] += csm_load(&row->write_pins[chunk]);
    }
}

static void sum_pins(csm *h, const struct pins *pins, uint64_t *chunks, uint64_t *bytes) {
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++) {
        if (!pins->view[chunk] && !pins->write[chunk]) continue;
        ++*chunks;
        *bytes += chunk_bytes(h, chunk);
    }
}

static void add_counts(const struct csm_row *row, uint64_t *stats, csm_durations *compute, csm_durations *wait) {
    for (uint32_t i = 0; i < CSM_STAT_WORDS; i++) stats[i] += csm_load(&row->stats[i]);
    csm_stats_sum(&row->compute, compute);
    csm_stats_sum(&row->wait, wait);
}

static void describe_rows(csm *h, csm_info *out) {
    struct pins pins = {0};
    out->rows_used = csm_process_rows(h);
    for (uint32_t row = 0; row < out->rows_used; row++) {
        struct csm_row *r = &h->rows[row];
        add_counts(r, out->stats, &out->compute, &out->wait);
        if (!csm_process_row_held(h, row)) continue;
        uint64_t role = csm_load(&r->role);
        out->processes += role == CSM_APP;
        out->observers += role == CSM_OBSERVER;
        add_pins(h, r, &pins);
    }
    add_counts(&h->spare, out->stats, &out->compute, &out->wait);
    out->stats[CSM_STAT_HOT_HITS] += csm_load(&h->early_hot) - CSM_EARLY_HOT;
    sum_pins(h, &pins, &out->pinned_chunks, &out->pinned_bytes);
}

static uint64_t holder_pid(csm *h, const uint64_t *word) {
    uint64_t owner = csm_load(word);
    return owner && csm_process_alive(h, owner) ? csm_process_pid(h, owner) : 0;
}

void csm_describe(csm *h, csm_info *out) {
    memset(out, 0, sizeof *out);
    struct csm_header *header = h->header;
    uint64_t now = csm_load_acquire(&header->generation);
    struct csm_epoch *epoch = csm_epoch_of(h, now);
    out->generation = now;
    out->memory_limit = h->geo.memory_limit;
    out->max_items = h->geo.max_items;
    out->segment_bytes = h->geo.mapped_bytes;
    out->chunk_bytes = h->geo.chunk_bytes;
    out->bytes_used = csm_load(&epoch->bytes_used);
    out->entries = csm_load_acquire(&epoch->entries);
    out->slots = h->geo.slots;
    out->full = csm_load(&epoch->refused) != 0 || out->entries >= h->geo.max_items;
    out->reset_at_ns = csm_load(&epoch->reset_at_ns);
    out->created_at_ns = header->created_ns;
    out->destroyed = (uint64_t)csm_destroyed(h);
    out->my_row = csm_row(h);
    struct stat st;
    if (csm_process_stat(h, &st)) out->reserved_bytes = (uint64_t)st.st_blocks * 512;
    out->flights_used = csm_min(csm_load(&header->flights_used), h->geo.flights);
    for (uint32_t f = 0; f < out->flights_used; f++) {
        uint64_t serial = csm_load_acquire(&h->flights[f].serial);
        out->flights += serial && csm_flight_is_live(h, now, f, serial);
    }
    uint32_t nodes = csm_wait_nodes(h);
    for (uint32_t node = 0; node < nodes; node++) {
        uint64_t owner = csm_load(&h->nodes[node].owner);
        out->waiters += owner && csm_wait_target(h, node) && csm_process_alive(h, owner);
    }
    out->chunks = h->geo.chunks;
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++)
        out->chunks_entered += csm_load(&h->chunks[chunk].entered) == now;
    out->lock_pid = holder_pid(h, &header->write_lock);
    out->reset_lock_pid = holder_pid(h, &header->reset_lock);
    describe_rows(h, out);
}

/* ---- rows ---- */

/* False: it changed hands meanwhile. */
static bool describe_row(csm *h, uint32_t row, csm_row_info *out) {
    const struct csm_row *r = &h->rows[row];
    uint64_t incarnation = csm_load_acquire(&r->incarnation);
    *out = (csm_row_info){.row = row, .alive = csm_process_row_held(h, row), .pid = csm_load(&r->pid), .role = csm_load(&r->role)};
    out->since_ns = csm_load(&r->since_ns);
    add_counts(r, out->stats, &out->compute, &out->wait);
    struct pins pins = {0};
    if (out->alive) add_pins(h, r, &pins);
    sum_pins(h, &pins, &out->pinned_chunks, &out->pinned_bytes);
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++) {
        out->view_pins += pins.view[chunk];
        out->write_pins += pins.write[chunk];
    }
    csm_fence_acquire();
    return csm_load(&r->incarnation) == incarnation;
}

uint32_t csm_describe_rows(csm *h, csm_row_info *out, uint32_t capacity) {
    enum { TRIES = 4 }; /* damage may look like change without end */
    uint32_t n = (uint32_t)csm_min(csm_process_rows(h), capacity);
    for (uint32_t row = 0; row < n; row++)
        for (int i = 0; i < TRIES && !describe_row(h, row, &out[row]); i++) {
        }
    return n;
}

static int slower_first(const void *a, const void *b) {
    const csm_slow_info *x = a, *y = b;
    return x->ns > y->ns ? -1 : x->ns < y->ns;
}

uint32_t csm_slowest(csm *h, csm_slow_info *out, uint32_t capacity) {
    uint32_t n = 0, rows = csm_process_rows(h);
    for (uint32_t at = 0; at < rows * CSM_SLOWEST; at++) {
        struct csm_slow found;
        if (!csm_stats_slow(h, &h->rows[at / CSM_SLOWEST], at % CSM_SLOWEST, &found)) continue;
        csm_slow_info info = {.ns = found.ns, .at_ns = found.ended_ns, .generation = found.generation, .pid = found.pid,
                              .key_bytes = (uint32_t)found.key_bytes};
        memcpy(info.key, found.key, CSM_SLOW_KEY);
        if (n < capacity) {
            out[n++] = info;
            continue;
        }
        uint32_t least = 0;
        for (uint32_t i = 1; i < n; i++)
            if (out[i].ns < out[least].ns) least = i;
        if (n && out[least].ns < info.ns) out[least] = info;
    }
    qsort(out, n, sizeof *out, slower_first);
    return n;
}

/* ---- chunks ---- */

static uint64_t overlap(uint64_t first, uint64_t end, uint64_t from, uint64_t to) {
    from = from > first ? from : first;
    to = csm_min(to, end);
    return to > from ? to - from : 0;
}

uint32_t csm_describe_chunks(csm *h, csm_chunk_info *out, uint32_t capacity) {
    uint64_t now = csm_load_acquire(&h->header->generation);
    struct csm_epoch *epoch = csm_epoch_of(h, now);
    uint64_t run = csm_load(&epoch->run), holes_used = csm_min(csm_load(&epoch->holes_used), CSM_HOLES);
    struct pins pins = {0};
    for (uint32_t row = 0; row < csm_process_rows(h); row++)
        if (csm_process_row_held(h, row)) add_pins(h, &h->rows[row], &pins);
    uint32_t n = (uint32_t)csm_min(h->geo.chunks, capacity);
    for (uint64_t chunk = 0; chunk < n; chunk++) {
        uint64_t first = chunk * h->chunk_granules, end = csm_min(first + h->chunk_granules, h->granules), free = 0;
        out[chunk] = (csm_chunk_info){.bytes = chunk_bytes(h, chunk),
                                      .entered = csm_load(&h->chunks[chunk].entered) == now,
                                      .backed = csm_arena_is_backed(h, chunk),
                                      .view_pins = pins.view[chunk],
                                      .write_pins = pins.write[chunk]};
        if (!out[chunk].entered) continue;
        /* What is neither in the run nor in a hole. */
        free += overlap(first, end, csm_run_first(run), csm_arena_run_end(h, run));
        for (uint64_t i = 0; i < holes_used; i++) {
            uint64_t hole = csm_load(&epoch->holes[i]);
            free += overlap(first, end, csm_extent_first(hole), csm_extent_end(hole));
        }
        out[chunk].allocated_bytes = (end - first - csm_min(free, end - first)) * CSM_GRANULE;
    }
    return n;
}

/* ---- the last reset ---- */

static uint64_t copy_version(const struct csm_epoch *epoch, char *out) {
    uint64_t bytes = csm_min(csm_load(&epoch->version_bytes), CSM_VERSION_BYTES);
    csm_copy_racy(out, epoch->version, bytes);
    return bytes;
}

void csm_describe_reset(csm *h, csm_reset_info *out) {
    do {
        memset(out, 0, sizeof *out);
        out->generation = csm_load_acquire(&h->header->generation);
        struct csm_epoch *epoch = csm_epoch_of(h, out->generation), *former = csm_epoch_of(h, out->generation - 1);
        out->at_ns = csm_load(&epoch->reset_at_ns);
        out->pid = csm_load(&epoch->reset_pid);
        out->uid = csm_load(&epoch->reset_uid);
        out->version_bytes = copy_version(epoch, out->version);
        out->former_bytes = copy_version(former, out->former);
        /* A flip that is under way, or died, may have prepared it for the next generation: its own comes first then. */
        csm_fence_acquire();
        if (csm_load(&former->generation) + 1 != out->generation) out->former_bytes = 0;
    } while (csm_generation(h) != out->generation); /* SYNC flip */
}

/* ---- entries and flights ---- */

int64_t csm_entries(csm *h, uint64_t generation, uint64_t *cursor, unsigned char *buffer, uint64_t capacity) {
    uint64_t written = 0, end = csm_load_acquire(&csm_epoch_of(h, generation)->entries);
    end = csm_min(end, csm_index_log_room(h));
    if (csm_generation(h) != generation) return CSM_STALE;
    for (end = csm_min(end, h->geo.max_items); *cursor < end; ++*cursor) {
        struct csm_found found;
        uint32_t key_bytes;
        uint64_t slot = csm_load(&h->log[*cursor]) & UINT32_MAX;
        if (!csm_index_entry(h, generation, slot, &found, &key_bytes)) continue; /* a new generation, or damage */
        if (written + 16 + key_bytes > capacity) break;
        uint32_t head[4] = {key_bytes, found.format, (uint32_t)found.value_bytes, (uint32_t)(found.value_bytes >> 32)};
        memcpy(buffer + written, head, sizeof head);
        const char *key = (const char *)buffer + written + 16;
        csm_copy_racy(buffer + written + 16, h->arena + found.place * CSM_GRANULE + sizeof(struct csm_entry), key_bytes);
        struct csm_found again;
        if (!csm_index_find(h, generation, csm_hash(h->secret, key, key_bytes), key, key_bytes, &again) || again.slot != slot)
            continue; /* a key that was damaged: nobody would find it, nor could decode it */
        written += 16 + key_bytes;
    }
    return csm_generation(h) == generation ? (int64_t)written : CSM_STALE;
}

int csm_peek(csm *h, const char *key, size_t key_bytes, uint64_t *at, uint64_t *bytes, uint32_t *format) {
    struct csm_found found;
    uint64_t now = csm_load_acquire(&h->header->generation);
    if (!csm_index_find(h, now, csm_hash(h->secret, key, key_bytes), key, key_bytes, &found)) return CSM_MISS;
    *at = h->geo.arena_off + found.value_at;
    *bytes = found.value_bytes;
    *format = found.format;
    return CSM_OK;
}

uint32_t csm_flights(csm *h, csm_flight_info *out, uint32_t capacity) {
    uint64_t now = csm_load_acquire(&h->header->generation);
    uint32_t n = 0, used = (uint32_t)csm_min(csm_load(&h->header->flights_used), h->geo.flights);
    for (uint32_t f = 0; f < used && n < capacity; f++) {
        struct csm_flight *flight = &h->flights[f];
        uint64_t serial = csm_load_acquire(&flight->serial);
        if (!serial || !csm_flight_is_live(h, now, f, serial)) continue;
        csm_flight_info *i = &out[n];
        *i = (csm_flight_info){.serial = serial,
                               .started_ns = csm_load(&flight->started_ns),
                               .waiters = csm_wait_count(h, csm_target(serial, f)),
                               .pid = csm_load(&flight->pid),
                               .alive = !csm_flight_is_lost(h, f),
                               .takeovers = csm_load(&flight->term) - csm_lease_was_let_go(h, f),
                               .reserved_bytes = csm_extent_granules(csm_load(&flight->reserved)) * CSM_GRANULE,
                               .parent_id = csm_load(&flight->parent_id),
                               .parent_serial = csm_load(&flight->parent) >> 16,
                               .key_bytes = (uint32_t)csm_load(&flight->key_bytes)};
        csm_copy_racy(i->key, flight->key, csm_min(i->key_bytes, CSM_KEY_PREVIEW));
        uint64_t owner = csm_load(&flight->owner);
        uint32_t row = csm_owner_row(owner);
        i->row = row;
        if (row < csm_process_rows(h) && csm_process_alive(h, owner)) i->role = csm_load(&h->rows[row].role);
        if (i->parent_serial == 0) i->parent_id = 0;
        csm_fence_acquire();
        n += csm_load(&flight->serial) == serial; /* else it was reused while we copied */
    }
    return n;
}
