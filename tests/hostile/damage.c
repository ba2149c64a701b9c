/* damage.c: see damage.h.
 *
 * Blind damage changes some word of some part. Damage that knows the structures writes what looks right: a slot that names another's
 * entry, a flight that waits for itself, an extent handed out twice. */
#include "damage.h"

#include "flight.h"
#include "index.h"
#include "lease.h"

uint64_t feed_next(struct feed *feed) {
    if (feed->bytes >= 4) {
        uint32_t word;
        memcpy(&word, feed->data, sizeof word);
        feed->data += 4;
        feed->bytes -= 4;
        return word;
    }
    return check_random(&feed->random);
}

uint64_t feed_below(struct feed *feed, uint64_t n) { return feed_next(feed) % n; }

/* ---- where */

static bool within(uint64_t at, uint64_t off, uint64_t n, uint64_t bytes, uint64_t *inside) {
    if (at < off || at >= off + n * bytes) return false;
    *inside = (at - off) % bytes;
    return true;
}

static bool is_semaphore(const struct csm_geometry *geo, uint64_t at) {
    uint64_t inside, bell = offsetof(struct csm_header, doorbell);
    return within(at, bell, 1, sizeof(sem_t), &inside) ||
           (within(at, geo->nodes_off, geo->nodes, sizeof(struct csm_node), &inside) && inside >= offsetof(struct csm_node, u));
}

/* Is it part of the header or the key of an entry in force? */
static bool is_entry_head(const struct life *l, uint64_t at) {
    const csm *h = &l->of_a;
    for (uint64_t s = 0; s < h->geo.slots; s++) {
        struct csm_slot slot;
        memcpy(&slot, l->bytes + h->geo.slots_off + s * sizeof slot, sizeof slot);
        if (slot.ctl != csm_ctl(l->calls[0].ticket.generation, 0, CSM_SLOT_FULL)) continue;
        uint64_t entry = h->geo.arena_off + csm_place_of(slot.place) * CSM_GRANULE;
        if (at >= entry && at < entry + sizeof(struct csm_entry) + csm_meta_key(slot.meta)) return true;
    }
    return false;
}

/* May this word be damaged so that no wrong value can come of it? */
static bool is_noticeable(const struct life *l, uint64_t at) {
    const struct csm_geometry *geo = &l->of_a.geo;
    uint64_t inside;
    if (at < sizeof(struct csm_header)) {
        if (at >= 256 && at < 264) return false; /* the generation: an older one is as good as this one */
        if (!within(at, offsetof(struct csm_header, epoch), 2, sizeof(struct csm_epoch), &inside)) return true;
        return inside != offsetof(struct csm_epoch, run) && inside != offsetof(struct csm_epoch, holes_used) &&
               inside < offsetof(struct csm_epoch, holes);
    }
    if (within(at, geo->chunks_off, geo->chunks, sizeof(struct csm_chunk), &inside))
        return inside != offsetof(struct csm_chunk, entered);
    if (within(at, geo->flights_off, geo->flights, sizeof(struct csm_flight), &inside))
        return inside != offsetof(struct csm_flight, reserved);
    if (within(at, geo->rows_off, geo->rows, sizeof(struct csm_row), &inside))
        return inside < offsetof(struct csm_row, view_pins) || inside >= offsetof(struct csm_row, rest);
    return at < geo->arena_off || is_entry_head(l, at);
}

static bool may_damage(const struct life *l, uint64_t at, enum damage_scope scope) {
    return !is_semaphore(&l->of_a.geo, at) && life_is_backed(l, at) && (scope == DAMAGE_ANYTHING || is_noticeable(l, at));
}

/* A part of the segment: its offset, how many things it consists of, and how large those are. */
struct part {
    uint64_t at, things, bytes;
};

static struct part some_part(const struct life *l, struct feed *feed) {
    const struct csm_geometry *geo = &l->of_a.geo;
    uint64_t epoch = offsetof(struct csm_header, epoch) + (l->calls[0].ticket.generation & 1) * sizeof(struct csm_epoch);
    switch (feed_below(feed, 15)) {
    case 0: return (struct part){0, 80, 8};
    case 13: return (struct part){offsetof(struct csm_header, sidecar), (offsetof(struct csm_header, epoch) - offsetof(struct csm_header, sidecar)) / 8, 8};
    case 1: return (struct part){epoch, offsetof(struct csm_epoch, version) / 8, 8};
    case 11: return (struct part){epoch + offsetof(struct csm_epoch, holes), 4, 8};
    case 12: return (struct part){offsetof(struct csm_header, epoch), 2, sizeof(struct csm_epoch)};
    case 2: return (struct part){geo->chunks_off, geo->chunks, sizeof(struct csm_chunk)};
    case 3:
    case 4: return (struct part){geo->flights_off, geo->flights, sizeof(struct csm_flight)};
    case 5: return (struct part){geo->nodes_off, geo->nodes, sizeof(struct csm_node)};
    case 6: return (struct part){geo->outcomes_off, geo->flights, sizeof(struct csm_outcome)};
    case 7:
    case 8: return (struct part){geo->slots_off, geo->slots, sizeof(struct csm_slot)};
    case 9: return (struct part){geo->log_off, geo->max_items, sizeof(uint64_t)};
    case 10: return (struct part){geo->rows_off, 4, sizeof(struct csm_row)};
    default: return (struct part){0, geo->mapped_bytes / 8, 8};
    }
}

/* ---- what */

static const csm_call *some_call(const struct life *l, uint64_t n) { return &l->calls[n % l->n_calls]; }
static uint64_t serial_of(const csm_call *c) { return c->ticket.serial ? c->ticket.serial : c->waiter.serial; }
static uint32_t flight_of(const csm_call *c) { return c->ticket.serial ? c->ticket.flight : c->waiter.flight; }

static uint64_t some_word(const struct life *l, uint64_t old, struct feed *feed) {
    const csm *h = &l->of_a;
    uint64_t generation = l->calls[0].ticket.generation, n = feed_next(feed);
    switch (feed_below(feed, 26)) {
    case 0: return 0;
    case 1: return 1;
    case 2: return UINT64_MAX;
    case 3: return old + 1;
    case 4: return old - 1;
    case 5: return old << 32 | old >> 32;
    case 6: return ~old;
    case 7: return n % 50;
    case 8: return UINT64_C(1) << n % 64;
    case 9: return h->geo.mapped_bytes - n % 64;
    case 10: return h->granules - n % 3;
    case 11: return generation - n % 3;
    case 12: return csm_ctl(generation - n % 3, n / 3 % 10, (enum csm_slot_state)(n / 30 % 6));
    case 13: return csm_extent(n % h->granules, n / h->granules % 600);
    case 14: return csm_extent(h->granules - n % 40, n / 40 % 80);
    case 15: return csm_run(n % h->granules, n / h->granules % 20);
    case 16: return csm_run(n << 32, UINT16_MAX);
    case 17: return csm_meta(n % 10000, n / 10000 % 40, n / 400000 % 20);
    case 18: return csm_meta(UINT64_C(1) << (n % 40), 3, UINT16_MAX);
    case 19: return csm_target(serial_of(some_call(l, n)), flight_of(some_call(l, n)));
    case 20: return csm_log_record(generation, n & 1, (n >> 1) % h->geo.slots);
    case 21: return n % 8 ? csm_owner((uint32_t)n % 8, n / 8 % 4) : n % 16 ? l->of_b.self : l->of_s.self; /* a lock in live hands that do not hold it: rarely */
    case 22: return UINT64_MAX / 2 + n % 3;
    case 23: return csm_lease_word(serial_of(some_call(l, n)), n / 8 % 2, (enum csm_lease_state)(n / 16 % 8));
    case 24: return csm_now_ns() - n % 3 * 1000000;
    default: return n << 32 ^ feed_next(feed);
    }
}

static void put(const struct life *l, unsigned char *base, enum damage_scope scope, uint64_t at, uint64_t word) {
    if (may_damage(l, at, scope)) csm_store((uint64_t *)(void *)(base + at), word);
}

static uint64_t get(const struct life *l, unsigned char *base, uint64_t at) {
    return life_is_backed(l, at) ? csm_load((uint64_t *)(void *)(base + at)) : 0;
}

/* One thing becomes a copy of another of its kind, or the two change places, as a whole or in one field. */
static void confuse(const struct life *l, unsigned char *base, enum damage_scope scope, struct feed *feed) {
    struct part part = some_part(l, feed);
    uint64_t one = part.at + feed_below(feed, part.things) * part.bytes, two = part.at + feed_below(feed, part.things) * part.bytes;
    bool swap = feed_below(feed, 2), whole = feed_below(feed, 3);
    uint64_t from = whole ? 0 : feed_below(feed, part.bytes / 8) * 8, to = whole ? part.bytes : from + 8;
    for (uint64_t at = from; at < to; at += 8) {
        uint64_t x = get(l, base, one + at), y = get(l, base, two + at);
        put(l, base, scope, one + at, y);
        if (swap) put(l, base, scope, two + at, x);
    }
}

/* Edges of the wait-for graph, at random: circles, long ways, and flights that compute themselves. */
static void entangle(const struct life *l, unsigned char *base, enum damage_scope scope, struct feed *feed) {
    const struct csm_geometry *geo = &l->of_a.geo;
    for (uint64_t n = 1 + feed_below(feed, 8); n; n--) {
        uint64_t f = feed_below(feed, geo->flights), g = feed_below(feed, geo->flights), node = feed_below(feed, geo->nodes);
        uint64_t at = geo->flights_off + f * sizeof(struct csm_flight), to = geo->flights_off + g * sizeof(struct csm_flight);
        uint64_t x = csm_target(get(l, base, at), (uint32_t)f), y = csm_target(get(l, base, to), (uint32_t)g);
        put(l, base, scope, at + offsetof(struct csm_flight, parent), y);
        at = geo->nodes_off + node * sizeof(struct csm_node);
        put(l, base, scope, at + offsetof(struct csm_node, owner), feed_below(feed, 2) ? l->of_a.self : l->of_b.self);
        put(l, base, scope, at + offsetof(struct csm_node, target), x);
        put(l, base, scope, at + offsetof(struct csm_node, parent), y);
    }
    put(l, base, scope, offsetof(struct csm_header, nodes_used), geo->nodes);
    put(l, base, scope, offsetof(struct csm_header, flights_used), geo->flights);
}

void damage(const struct life *l, unsigned char *base, enum damage_scope scope, struct feed *feed) {
    for (uint64_t n = 1 + feed_below(feed, 1 + feed_below(feed, 30)); n; n--) {
        uint64_t how = feed_below(feed, 10);
        if (how == 0) {
            confuse(l, base, scope, feed);
        } else if (how == 1) {
            entangle(l, base, scope, feed);
        } else {
            struct part part = some_part(l, feed);
            uint64_t at = (part.at + feed_below(feed, part.things * part.bytes)) / 8 * 8, old = get(l, base, at);
            put(l, base, scope, at, how < 5 ? old ^ UINT64_C(1) << feed_below(feed, 64) : some_word(l, old, feed));
        }
    }
}

bool damage_word(const struct life *l, unsigned char *base, uint64_t at, struct feed *feed, uint64_t *was) {
    if (!may_damage(l, at, DAMAGE_ANYTHING)) return false;
    *was = get(l, base, at);
    uint64_t word = feed_below(feed, 3) ? some_word(l, *was, feed) : *was ^ UINT64_C(1) << feed_below(feed, 64);
    put(l, base, DAMAGE_ANYTHING, at, word);
    return true;
}

void damage_flicker(const struct life *l, unsigned char *base, struct feed *feed) {
    struct part part = some_part(l, feed);
    uint64_t at = (part.at + feed_below(feed, part.things * part.bytes)) / 8 * 8, old = get(l, base, at);
    uint64_t other = some_word(l, old, feed);
    for (int n = 0; n < 1000; n++) {
        put(l, base, DAMAGE_ANYTHING, at, other);
        csm_pause();
        put(l, base, DAMAGE_ANYTHING, at, old);
        csm_pause();
    }
}

bool damage_bit(const struct life *l, unsigned char *base, uint64_t n, enum damage_scope *scope) {
    uint64_t words = l->of_a.geo.mapped_bytes / 8;
    static uint64_t *words_of[2], many_of[2]; /* the words in question, without a sidecar and with one */
    uint64_t *all = words_of[l->s != NULL], many = many_of[l->s != NULL];
    if (!all) {
        CHECK((all = malloc(words * sizeof *all)));
        for (uint64_t at = 0; at < words * 8; at += 8)
            if (may_damage(l, at, DAMAGE_ANYTHING) && (at < l->of_a.geo.arena_off || is_entry_head(l, at))) all[many++] = at;
        words_of[l->s != NULL] = all;
        many_of[l->s != NULL] = many;
    }
    const uint64_t prime = 2654435761; /* so that a few of them are a sample of all */
    if (n / 64 >= many) return false;
    n = n * prime % (many * 64);
    uint64_t at = all[n / 64];
    *scope = is_noticeable(l, at) ? DAMAGE_NOTICEABLE : DAMAGE_ANYTHING;
    csm_store((uint64_t *)(void *)(base + at), get(l, base, at) ^ UINT64_C(1) << n % 64);
    return true;
}
