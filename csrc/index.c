/* index.c: see index.h.
 *
 * What if a process dies here: every transition is one store of the control word. What it needs is stored before and
 * means nothing without it; what follows from it (counters) is redone by csm_index_repair_locked. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "index.h"

#include "process.h"

#include <errno.h>
#include <fcntl.h>

static inline uint64_t home_of(csm *h, struct csm_hash hash) {
    return (uint64_t)(((unsigned __int128)hash.hi * h->geo.slots) >> 64);
}

static inline uint64_t after(csm *h, uint64_t slot) { return slot + 1 == h->geo.slots ? 0 : slot + 1; }
static inline uint64_t before(csm *h, uint64_t slot) { return slot == 0 ? h->geo.slots - 1 : slot - 1; }

static inline uint64_t probes(csm *h) { return csm_min(CSM_PROBES, h->geo.slots); }

/* The entry of a slot with these words, if they belong together and it lies within the arena. A damaged slot names no entry: its
 * place may be in a page that is not there, and on a full /dev/shm even a look would be a SIGBUS; its length or format may be
 * another's. */
static inline bool locate(csm *h, uint64_t generation, uint64_t sealed, uint64_t meta, struct csm_found *out) {
    uint64_t place = csm_place_of(sealed), key = csm_meta_key(meta), value = csm_meta_value(meta);
    if (!csm_place_opens(sealed, meta, generation)) return false;
    if (place >= h->granules || csm_footprint(key, value) > h->granules - place) return false;
    out->place = place;
    out->value_at = csm_value_at(place, key, value);
    out->value_bytes = value;
    out->format = csm_meta_format(meta);
    return true;
}

static inline bool is_entry_of(csm *h, const struct csm_found *f, struct csm_hash hash, const void *key,
                               size_t key_bytes) {
    const unsigned char *entry = h->arena + f->place * CSM_GRANULE;
    return csm_equal_racy(entry, &hash.hi, sizeof hash.hi) &&
           csm_equal_racy(entry + sizeof(struct csm_entry), key, key_bytes);
}

/* SYNC reuse: pairs with csm_index_commit_locked. Place and meta were loaded between two loads of the same control word, so
 * they belong together. A mixture of two generations' could name pages that were never reserved. */
static inline bool is_same(const struct csm_slot *s, uint64_t ctl) {
    csm_fence_acquire();
    return csm_load_acquire(&s->ctl) == ctl;
}

bool csm_index_find(csm *h, uint64_t generation, struct csm_hash hash, const void *key, size_t key_bytes,
                    struct csm_found *out) {
    uint64_t slot = home_of(h, hash);
    for (uint64_t i = probes(h); i; i--, slot = after(h, slot)) {
        const struct csm_slot *s = &h->slots[slot];
        /* SYNC commit: pairs with csm_index_commit_locked; place, meta, entry and value become visible. */
        uint64_t ctl = csm_load_acquire(&s->ctl);
        if (!csm_ctl_is_of(ctl, generation)) return false;
        enum csm_slot_state state = csm_ctl_state(ctl);
        if (state == CSM_SLOT_EMPTY) return false;
        if (state != CSM_SLOT_FULL || csm_load(&s->tag) != hash.lo) continue;
        uint64_t place = csm_load(&s->place), meta = csm_load(&s->meta);
        if (csm_meta_key(meta) != key_bytes || !locate(h, generation, place, meta, out)) continue;
        if (!is_same(s, ctl)) return false;
        if (!is_entry_of(h, out, hash, key, key_bytes)) continue;
        out->slot = slot;
        return true;
    }
    return false;
}

bool csm_index_entry(csm *h, uint64_t generation, uint64_t slot, struct csm_found *out, uint32_t *key_bytes) {
    if (slot >= h->geo.slots) return false;
    const struct csm_slot *s = &h->slots[slot];
    uint64_t ctl = csm_load_acquire(&s->ctl); /* SYNC commit */
    if (!csm_ctl_is_of(ctl, generation) || csm_ctl_state(ctl) != CSM_SLOT_FULL) return false;
    out->slot = slot;
    uint64_t meta = csm_load(&s->meta);
    *key_bytes = csm_meta_key(meta);
    return locate(h, generation, csm_load(&s->place), meta, out) && is_same(s, ctl);
}

bool csm_index_holds(csm *h, uint64_t generation, uint64_t slot, struct csm_hash hash) {
    struct csm_found found;
    uint32_t key_bytes;
    if (!csm_index_entry(h, generation, slot, &found, &key_bytes) || csm_load(&h->slots[slot].tag) != hash.lo) return false;
    return csm_equal_racy(h->arena + found.place * CSM_GRANULE, &hash.hi, sizeof hash.hi);
}

enum csm_place csm_index_place_locked(csm *h, uint64_t generation, struct csm_hash hash, const void *key,
                                      size_t key_bytes, uint64_t *slot_out, uint32_t *flight) {
    uint64_t slot = home_of(h, hash), tomb = UINT64_MAX;
    for (uint64_t i = probes(h); i; i--, slot = after(h, slot)) {
        const struct csm_slot *s = &h->slots[slot];
        uint64_t ctl = csm_load(&s->ctl);
        enum csm_slot_state state = csm_ctl_is_of(ctl, generation) ? csm_ctl_state(ctl) : CSM_SLOT_EMPTY;
        if (state == CSM_SLOT_EMPTY) {
            *slot_out = tomb != UINT64_MAX ? tomb : slot;
            return CSM_PLACE_FREE;
        }
        if (state == CSM_SLOT_TOMB) {
            if (tomb == UINT64_MAX) tomb = slot;
            continue;
        }
        if (csm_load(&s->tag) != hash.lo) continue;
        *slot_out = slot;
        if (state == CSM_SLOT_COMPUTING) {
            *flight = csm_ctl_flight(ctl);
            if (*flight < h->geo.flights && csm_load(&h->flights[*flight].hash_hi) == hash.hi)
                return CSM_PLACE_COMPUTING;
            continue;
        }
        if (state != CSM_SLOT_FULL) continue; /* damage */
        struct csm_found found;
        uint64_t meta = csm_load(&s->meta);
        if (csm_meta_key(meta) == key_bytes && locate(h, generation, csm_load(&s->place), meta, &found) &&
            is_entry_of(h, &found, hash, key, key_bytes))
            return CSM_PLACE_FULL;
    }
    *slot_out = tomb;
    return tomb != UINT64_MAX ? CSM_PLACE_FREE : CSM_PLACE_NONE;
}

void csm_index_occupy_locked(csm *h, uint64_t generation, uint64_t slot, struct csm_hash hash, uint32_t flight) {
    struct csm_slot *s = &h->slots[slot];
    csm_store(&s->tag, hash.lo); /* readers do not look at the tag of an empty slot or a tomb */
    /* SYNC occupy: pairs with csm_flight_is_live; the flight's fields become visible. */
    csm_store_release(&s->ctl, csm_ctl(generation, flight, CSM_SLOT_COMPUTING));
}

void csm_index_vacate_locked(csm *h, uint64_t generation, uint64_t slot) {
    uint64_t next = csm_load(&h->slots[after(h, slot)].ctl);
    bool last = !csm_ctl_is_of(next, generation) || csm_ctl_state(next) == CSM_SLOT_EMPTY;
    if (!last) {
        csm_store_release(&h->slots[slot].ctl, csm_ctl(generation, 0, CSM_SLOT_TOMB));
        return;
    }
    /* Nothing can lie behind it: it may be empty, and so may the tombs right before it. From the back to the front,
     * so that the invariant holds after every single store. Without this, a million failures would leave nothing
     * but tombs. */
    for (uint64_t i = probes(h); i; i--) {
        csm_store_release(&h->slots[slot].ctl, csm_ctl(generation, 0, CSM_SLOT_EMPTY));
        slot = before(h, slot);
        uint64_t ctl = csm_load(&h->slots[slot].ctl);
        if (!csm_ctl_is_of(ctl, generation) || csm_ctl_state(ctl) != CSM_SLOT_TOMB) return;
    }
}

/* ---- the log */

/* Its pages are reserved this far ahead of its end. */
static const uint64_t LOG_STEP = 64 * 1024;

/* Pages that are there already cost a look at each. */
static int back_log(csm *h, uint64_t end) {
    const uint64_t most = 1 << 20; /* a long call could not be interrupted without undoing its work */
    struct stat st;
    end = csm_min(end, h->geo.rows_off - h->geo.log_off);
    if (csm_load_acquire(&h->log_known) >= end) return CSM_OK;
    if (!csm_process_stat(h, &st)) return CSM_NO_SPACE;
    for (uint64_t at; (at = csm_load_acquire(&h->log_known)) < end;) {
        uint64_t n = csm_min(end - at, most);
        int rc = posix_fallocate(h->fd, (off_t)(h->geo.log_off + at), (off_t)n);
        if (rc == EINTR) continue;
        if (rc != 0) return CSM_NO_SPACE;
        csm_raise(&h->log_known, at + n);
        csm_raise(&h->header->log_backed, at + n);
    }
    return CSM_OK;
}

int csm_index_back_log(csm *h, uint64_t entries) { return back_log(h, csm_round(entries * sizeof *h->log, LOG_STEP)); }

uint64_t csm_index_log_room(csm *h) {
    /* What others say they reserved is made sure of, once; if it cannot be, their word is damaged. */
    back_log(h, csm_load_acquire(&h->header->log_backed));
    return csm_load_acquire(&h->log_known) / sizeof *h->log;
}

static void count_commit_locked(struct csm_epoch *epoch, uint64_t entries) {
    /* Absolute values, so that doing it twice is doing it once. Bytes first: `entries` says that both are done. */
    csm_store_release(&epoch->bytes_used, csm_load(&epoch->next_bytes_used)); /* not before the commit */
    csm_store_release(&epoch->entries, entries + 1);
}

void csm_index_commit_locked(csm *h, uint64_t generation, bool remote, uint64_t entries, uint64_t slot, uint64_t place,
                             uint64_t meta) {
    struct csm_epoch *epoch = csm_epoch_of(h, generation);
    struct csm_slot *s = &h->slots[slot];
    uint64_t bytes = csm_footprint(csm_meta_key(meta), csm_meta_value(meta)) * CSM_GRANULE;
    csm_store(&epoch->next_bytes_used, csm_load(&epoch->bytes_used) + bytes);
    csm_store(&h->log[entries], csm_log_record(generation, remote, slot));
    csm_fence_release(); /* SYNC reuse: the slot has been computing for a while; whoever sees the next two sees that */
    csm_store(&s->place, csm_place_seal(place, meta, generation));
    csm_store(&s->meta, meta);
    /* SYNC commit: pairs with csm_index_find. From this store on the entry exists. Killed before it: the log record
     * names a slot that is not full, and is ignored and overwritten. Killed after it: repair counts it. */
    csm_store_release(&s->ctl, csm_ctl(generation, 0, CSM_SLOT_FULL));
    CSM_CRASH_POINT("commit: not counted");
    count_commit_locked(epoch, entries);
}

void csm_index_repair_locked(csm *h, uint64_t generation) {
    struct csm_epoch *epoch = csm_epoch_of(h, generation);
    uint64_t at = csm_load(&epoch->entries);
    if (at >= h->geo.max_items || at >= csm_index_log_room(h)) return;
    /* A record at the end of the log is a commit under way or, if its slot is not full, one that never happened. It
     * cannot be an old one of this generation: each commit overwrites it and moves the end. */
    uint64_t record = csm_load(&h->log[at]), slot = record & UINT32_MAX;
    if (!csm_log_is_of(record, generation) || slot >= h->geo.slots) return;
    uint64_t ctl = csm_load(&h->slots[slot].ctl);
    if (csm_ctl_is_of(ctl, generation) && csm_ctl_state(ctl) == CSM_SLOT_FULL) count_commit_locked(epoch, at);
}
