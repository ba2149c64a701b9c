/* relay_log.c: what the sidecar reads to send it on, and what it writes down of the other nodes. See relay.c.
 *
 * What if it dies here: its pins die with its row. A peer's record that it was writing stays odd, and is no record. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "arena.h"
#include "hash.h"
#include "index.h"
#include "process.h"

#include <stdlib.h>

/* ---- entries */

/* Pins the entry. Nothing of it is believed before the generation was found unchanged after that. */
static int pin(csm *h, uint64_t generation, const struct csm_found *found, uint32_t key_bytes, csm_relay_entry_view *out) {
    int code = csm_process_enter(h);
    if (code != CSM_OK) return code;
    csm_view *view = malloc(sizeof *view);
    if (!view) return CSM_SYSTEM;
    uint64_t granules = csm_footprint(key_bytes, found->value_bytes);
    csm_add_seq(&h->views, 1); /* as in csm_view_acquire */
    csm_arena_pin(h, h->mine->view_pins, found->place, granules);
    *view = (csm_view){.cache = h,
                       .data = h->arena + found->value_at,
                       .bytes = found->value_bytes,
                       .generation = generation,
                       .forks = h->forks,
                       .format = found->format,
                       .first_chunk = (uint32_t)csm_chunk_of(h, found->place),
                       .last_chunk = (uint32_t)csm_chunk_of(h, found->place + granules - 1)};
    if (csm_load_seq(&h->header->generation) != generation) { /* SYNC pin */
        csm_view_release(view);
        return CSM_STALE;
    }
    out->view = view;
    out->key = h->arena + found->place * CSM_GRANULE + sizeof(struct csm_entry);
    out->key_bytes = key_bytes;
    return CSM_OK;
}

int csm_relay_find(csm *h, uint64_t generation, const char *key, size_t key_bytes, csm_relay_entry_view *out) {
    *out = (csm_relay_entry_view){0};
    struct csm_found found;
    if (key_bytes > CSM_MAX_KEY) return CSM_INVALID;
    bool there = csm_index_find(h, generation, csm_hash(h->secret, key, key_bytes), key, key_bytes, &found);
    if (csm_generation(h) != generation) return CSM_STALE;
    return there ? pin(h, generation, &found, (uint32_t)key_bytes, out) : CSM_MISS;
}

int csm_relay_entry(csm *h, uint64_t generation, int local, uint64_t *position, csm_relay_entry_view *out) {
    *out = (csm_relay_entry_view){0};
    uint64_t end = csm_load_acquire(&csm_epoch_of(h, generation)->entries);
    end = csm_min(csm_min(end, csm_index_log_room(h)), h->geo.max_items);
    if (csm_generation(h) != generation) return CSM_STALE;
    for (; *position < end; ++*position) {
        struct csm_found found, again;
        uint32_t key_bytes;
        uint64_t record = csm_load(&h->log[*position]), slot = record & UINT32_MAX;
        if (local && csm_log_is_remote(record)) continue;
        if (!csm_log_is_of(record, generation) || !csm_index_entry(h, generation, slot, &found, &key_bytes)) continue; /* damage */
        int code = pin(h, generation, &found, key_bytes, out);
        if (code != CSM_OK) return code;
        /* A key that was damaged is another one. */
        struct csm_hash hash = csm_hash(h->secret, out->key, key_bytes);
        if (csm_index_find(h, generation, hash, out->key, key_bytes, &again) && again.slot == slot) {
            out->remote = csm_log_is_remote(record);
            return CSM_OK;
        }
        csm_view_release(out->view);
        out->view = NULL;
    }
    return csm_generation(h) == generation ? CSM_MISS : CSM_STALE;
}

/* ---- peers */

int csm_peer_write(csm *h, uint32_t i, const char *name, size_t bytes, uint64_t covers, uint64_t state) {
    uint64_t self = csm_self(h);
    if (i >= CSM_PEERS || bytes >= CSM_NODE_NAME) return CSM_INVALID;
    if (self == 0 || csm_load(&h->header->sidecar) != self) return CSM_GONE;
    struct csm_peer *peer = &h->header->peers[i];
    char padded[CSM_NODE_NAME] = {0};
    if (bytes) memcpy(padded, name, bytes);
    bool changed = csm_load(&peer->state) != state || memcmp(peer->name, padded, sizeof padded) != 0;
    uint64_t turn = csm_load(&peer->turn) | 1; /* odd also if a predecessor died in the middle */
    csm_store(&peer->turn, turn);
    csm_fence_release(); /* SYNC peer: pairs with csm_peers */
    csm_store(&peer->covers, covers);
    csm_store(&peer->state, state);
    if (changed) csm_store(&peer->since_ns, csm_wall_ns());
    csm_fill_racy(peer->name, padded, sizeof padded);
    csm_store_release(&peer->turn, turn + 1);
    return CSM_OK;
}

uint32_t csm_peers(csm *h, csm_peer_info *out, uint32_t capacity) {
    uint64_t pid;
    uint32_t n = 0;
    if (!csm_has_sidecar(h, &pid)) return 0; /* what a dead one left says nothing */
    for (uint32_t i = 0; i < CSM_PEERS && n < capacity; i++) {
        struct csm_peer *peer = &h->header->peers[i];
        for (int tries = 0; tries < 100; tries++) { /* a stopped writer is not waited for */
            uint64_t turn = csm_load_acquire(&peer->turn);
            out[n] = (csm_peer_info){.covers = csm_load(&peer->covers), .state = csm_load(&peer->state), .since_ns = csm_load(&peer->since_ns)};
            csm_copy_racy(out[n].name, peer->name, sizeof out[n].name);
            out[n].name[sizeof out[n].name - 1] = 0;
            csm_fence_acquire(); /* SYNC peer */
            if (turn & 1 || csm_load(&peer->turn) != turn) continue;
            n += out[n].name[0] != 0;
            break;
        }
    }
    return n;
}
