/* cache.c: the rest of api.h: reading, resetting, looking on. The only file that combines the parts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"
#include "flight.h"
#include "hash.h"
#include "index.h"
#include "lock.h"
#include "outcome.h"
#include "process.h"
#include "segment.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* ---- reading ---- */

uint64_t csm_generation(csm *h) {
    /* The fence makes this the second half of a read: copies made before it are of this generation or an older one. */
    csm_fence_acquire();
    return csm_load_acquire(&h->header->generation);
}

unsigned char *csm_base(csm *h) { return h->base; }
uint64_t csm_mapped_bytes(csm *h) { return h->geo.mapped_bytes; }
uint64_t csm_generation_offset(csm *h) {
    (void)h;
    return offsetof(struct csm_header, generation);
}
int csm_destroyed(csm *h) { return csm_load_acquire(&h->header->state) != CSM_USABLE; }

/* One look in so many hits whether the object still has its name: a process that only ever hits must find out too. */
enum { LOOK_EVERY = 1024 };

static void destroy_locked(csm *h) {
    /* The flip comes first. Killed in between, this was a reset; the other way round, processes that only hit would never
     * hear of it. */
    csm_segment_flip_locked(h, "1", 1, "", 0);
    csm_store_release(&h->header->state, CSM_DESTROYED);
}

int csm_linked(csm *h) {
    struct stat st;
    if (csm_load(&h->fd) == -1) return 1; /* a forked child that could not open the object: it goes on with what it has */
    if (!csm_process_stat(h, &st)) return 0; /* somebody closed our descriptor: with it went the row */
    if (st.st_nlink > 0) return 1;
    if (!csm_destroyed(h) && csm_lock_once(h) == CSM_OK) { /* busy: others find out by themselves */
        destroy_locked(h);
        csm_unlock(h);
        csm_wait_wake(h, 0);
    }
    return 0;
}

int64_t csm_find(csm *h, const char *key, size_t key_bytes) {
    struct csm_hash hash = csm_hash(h->secret, key, key_bytes);
    struct csm_found found;
    /* SYNC flip: pairs with csm_segment_flip_locked. */
    uint64_t now = csm_load_acquire(&h->header->generation);
    if (!csm_index_find(h, now, hash, key, key_bytes, &found)) return 0;
    if (csm_stat_add(h, CSM_STAT_HITS, 1) % LOOK_EVERY == 0) csm_linked(h);
    uint64_t at = (h->geo.arena_off + found.value_at) / CSM_GRANULE;
    if (found.value_bytes >> 22 || at >> 36 || found.format > CSM_MAX_FORMAT) return -1;
    return (int64_t)(at << 27 | found.value_bytes << 5 | found.format);
}

int csm_view_acquire(csm *h, const char *key, size_t key_bytes, csm_view **out) {
    *out = NULL;
    int code = csm_process_enter(h);
    if (code != CSM_OK) return code;
    csm_view *view = malloc(sizeof *view);
    if (!view) return CSM_SYSTEM;
    struct csm_hash hash = csm_hash(h->secret, key, key_bytes);
    csm_add_seq(&h->views, 1); /* before the pin: a fork from here on copies this row's pins */
    for (;;) {
        struct csm_found found;
        uint64_t now = csm_load_acquire(&h->header->generation);
        if (!csm_index_find(h, now, hash, key, key_bytes, &found)) {
            if (csm_generation(h) != now) continue;
            csm_add_seq(&h->views, (uint64_t)-1);
            free(view);
            return CSM_MISS;
        }
        uint64_t granules = csm_footprint(key_bytes, found.value_bytes);
        csm_arena_pin(h, h->mine->view_pins, found.place, granules);
        CSM_CRASH_POINT("view: pinned");
        *view = (csm_view){.cache = h,
                           .data = h->arena + found.value_at,
                           .bytes = found.value_bytes,
                           .generation = now,
                           .forks = h->forks,
                           .format = found.format,
                           .first_chunk = (uint32_t)csm_chunk_of(h, found.place),
                           .last_chunk = (uint32_t)csm_chunk_of(h, found.place + granules - 1)};
        /* SYNC pin: unchanged, so every later reset sees the pin, and the bytes are those of the entry for good. */
        if (csm_load_seq(&h->header->generation) == now) {
            csm_stat_add(h, CSM_STAT_HITS, 1);
            *out = view;
            return CSM_OK;
        }
        csm_arena_unpin(h, h->mine->view_pins, view->first_chunk, view->last_chunk);
    }
}

void csm_view_release(csm_view *view) {
    if (!view) return;
    csm *h = view->cache;
    if (view->forks >= h->pins_lost_before)
        csm_arena_unpin(h, h->mine->view_pins, view->first_chunk, view->last_chunk);
    free(view);
    csm_add_seq(&h->views, (uint64_t)-1);
}

/* ---- reset ---- */

int csm_reset_lock(csm *h, uint64_t limit_ns) {
    int code = csm_process_enter(h);
    if (code != CSM_OK) return code;
    uint64_t start = csm_now_ns(), nap = 50000;
    for (;;) {
        bool stolen;
        if (csm_lock_try(h, &h->header->reset_lock, &stolen)) return CSM_OK; /* stolen or not: nothing to repair */
        if (csm_destroyed(h)) return CSM_GONE;
        if (csm_now_ns() - start >= limit_ns) return CSM_TIMEOUT;
        struct timespec t = {0, (long)nap};
        if (nanosleep(&t, NULL) != 0 && errno == EINTR) return CSM_INTERRUPTED;
        nap = csm_min(nap * 2, 5000000);
    }
}

void csm_reset_unlock(csm *h) { csm_swap_if(&h->header->reset_lock, csm_self(h), 0); }

int csm_reset_commit(csm *h, const char *version, size_t version_bytes) {
    if (version_bytes > CSM_VERSION_BYTES) return CSM_INVALID;
    if (csm_self(h) == 0 || csm_load(&h->header->reset_lock) != csm_self(h)) return CSM_INVALID;
    int code = csm_lock(h);
    if (code != CSM_OK) return code;
    csm_segment_flip_locked(h, version, version_bytes, NULL, 0);
    uint64_t generation = csm_load(&h->header->generation);
    csm_unlock(h);
    csm_stat_add(h, CSM_STAT_RESETS, 1);
    CSM_CRASH_POINT("reset: before wake-ups");
    csm_wait_wake(h, 0);
    csm_outcome_sweep(h, generation);
    return CSM_OK;
}

int csm_destroy(csm *h) {
    int code = csm_lock(h);
    if (code != CSM_OK) return code;
    destroy_locked(h);
    uint64_t generation = csm_load(&h->header->generation);
    csm_unlock(h);
    csm_wait_wake(h, 0);
    csm_outcome_sweep(h, generation);
    return CSM_OK;
}

int csm_version(csm *h, char *buffer, size_t capacity, size_t *bytes, uint64_t *generation) {
    for (;;) {
        uint64_t now = csm_load_acquire(&h->header->generation);
        struct csm_epoch *epoch = csm_epoch_of(h, now);
        *bytes = csm_min(csm_min(csm_load(&epoch->version_bytes), CSM_VERSION_BYTES), capacity);
        csm_copy_racy(buffer, epoch->version, *bytes);
        if (csm_generation(h) != now) continue; /* SYNC flip: the epoch may have been prepared for another one */
        *generation = now;
        return CSM_OK;
    }
}

int csm_warn_once(csm *h, uint64_t generation) {
    struct csm_epoch *epoch = csm_epoch_of(h, generation);
    return csm_load(&epoch->generation) == generation && csm_swap_if(&epoch->warned, 0, 1);
}

/* ---- looking on: no lock, and nobody is in anybody's way ---- */

void csm_count(csm *h, int stat, uint64_t n) {
    csm_process_enter(h); /* what is counted without a row is lost with the process; no row to be had: so be it */
    if (stat >= 0 && stat < (int)CSM_STATS) csm_stat_add(h, (enum csm_stat)stat, n);
}

static void describe_rows(csm *h, csm_info *out) {
    out->rows_used = csm_process_rows(h);
    for (uint32_t row = 0; row < out->rows_used; row++) {
        struct csm_row *r = &h->rows[row];
        for (uint32_t i = 0; i < CSM_STAT_WORDS; i++) out->stats[i] += csm_load(&r->stats[i]);
        if (!csm_process_row_held(h, row)) continue;
        uint64_t role = csm_load(&r->role);
        out->processes += role == CSM_APP;
        out->observers += role == CSM_OBSERVER;
    }
    for (uint32_t i = 0; i < CSM_STAT_WORDS; i++) out->stats[i] += csm_load(&h->spare.stats[i]);
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
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++) {
        out->pinned_chunks += csm_arena_is_pinned(h, chunk);
        out->chunks_entered += csm_load(&h->chunks[chunk].entered) == now;
    }
    describe_rows(h, out);
}

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
                               .alive = csm_flight_is_attended(h, f),
                               .key_bytes = (uint32_t)csm_load(&flight->key_bytes)};
        csm_copy_racy(i->key, flight->key, csm_min(i->key_bytes, CSM_KEY_PREVIEW));
        csm_fence_acquire();
        n += csm_load(&flight->serial) == serial; /* else it was reused while we copied */
    }
    return n;
}
