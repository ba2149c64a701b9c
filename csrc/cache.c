/* cache.c: the rest of api.h: reading, resetting. With describe.c, which only looks on, the only file that combines the parts. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"
#include "flight.h"
#include "hash.h"
#include "index.h"
#include "lease.h"
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
    csm_segment_flip_locked(h, &(struct csm_flip){.what = CSM_COLD, .version = "1", .version_bytes = 1, .config = ""});
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
        csm_lease_ring(h);
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

static int commit_reset(csm *h, const struct csm_flip *flip) {
    if (flip->version_bytes > CSM_VERSION_BYTES || flip->origin_bytes > CSM_ORIGIN_BYTES) return CSM_INVALID;
    if (csm_self(h) == 0 || csm_load(&h->header->reset_lock) != csm_self(h)) return CSM_INVALID;
    int code = csm_lock(h);
    if (code != CSM_OK) return code;
    csm_segment_flip_locked(h, flip);
    uint64_t generation = csm_load(&h->header->generation);
    csm_unlock(h);
    csm_stat_add(h, CSM_STAT_RESETS, 1);
    csm_segment_flipped(h, generation);
    return CSM_OK;
}

int csm_reset_commit(csm *h, const char *version, size_t version_bytes, uint64_t counter) {
    return commit_reset(h, &(struct csm_flip){.what = CSM_OWN_RESET, .version = version, .version_bytes = version_bytes, .counter = counter});
}

int csm_reset_adopt(csm *h, const char *version, size_t version_bytes, uint64_t counter, const char *origin, size_t origin_bytes) {
    return commit_reset(h, &(struct csm_flip){.what = CSM_ADOPTED, .version = version, .version_bytes = version_bytes, .counter = counter,
                                              .origin = origin, .origin_bytes = origin_bytes});
}

int csm_destroy(csm *h) {
    int code = csm_lock(h);
    if (code != CSM_OK) return code;
    destroy_locked(h);
    uint64_t generation = csm_load(&h->header->generation);
    csm_unlock(h);
    csm_segment_flipped(h, generation);
    return CSM_OK;
}

void csm_stamp_read(csm *h, csm_stamp *out) {
    for (;;) {
        uint64_t now = csm_load_acquire(&h->header->generation);
        struct csm_epoch *epoch = csm_epoch_of(h, now);
        *out = (csm_stamp){.generation = now, .counter = csm_load(&epoch->counter), .own_counter = csm_load(&epoch->own_counter),
                           .version_bytes = (uint32_t)csm_min(csm_load(&epoch->version_bytes), CSM_VERSION_BYTES),
                           .origin_bytes = (uint32_t)csm_min(csm_load(&epoch->origin_bytes), CSM_ORIGIN_BYTES)};
        csm_copy_racy(out->version, epoch->version, out->version_bytes);
        csm_copy_racy(out->origin, epoch->origin, out->origin_bytes);
        if (csm_generation(h) == now) return; /* SYNC flip: else the epoch may have been prepared for another one */
    }
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

int csm_tell_once(csm *h, uint64_t generation) {
    struct csm_epoch *epoch = csm_epoch_of(h, generation);
    return csm_load(&epoch->generation) == generation && csm_swap_if(&epoch->told, 0, 1);
}
