/* test_index.c holds index.c to:
 *   - a stored key is found, with its value, wherever it was put: behind others of the same home, over the table's end,
 *     behind tombs; no other key is ever taken for it;
 *   - from a key's home to its slot no slot is empty, after any sequence of transitions, and tombs do not pile up;
 *   - probes are bounded: a littered or damaged index is a miss, or "no slot", never a crash;
 *   - a slot of another generation is empty, so a reset clears everything and touches nothing.
 *
 * Most tests make up hashes, so that they decide where a key's home is, and fill slots by themselves under the lock. */
#include "check.h"

#include "arena.h"
#include "index.h"
#include "lock.h"

#define GENERATION(h) csm_generation(h)

/* A key of this test. Item i uses flight i and, when stored, granules 2 i and 2 i + 1. */
struct item {
    char key[16];
    struct csm_hash hash;
    uint64_t slot;
    enum csm_slot_state state;
};

/* The n-th hash whose home is `slot`. */
static struct csm_hash hash_at(csm *h, uint64_t slot, uint64_t n) {
    uint64_t first = (uint64_t)((((unsigned __int128)slot << 64) + h->geo.slots - 1) / h->geo.slots);
    return (struct csm_hash){.lo = n * 2654435761u + 1, .hi = first + n};
}

static struct item item_at(csm *h, uint64_t home, uint32_t n) {
    struct item item = {.hash = hash_at(h, home, n), .slot = UINT64_MAX, .state = CSM_SLOT_EMPTY};
    snprintf(item.key, sizeof item.key, "item %u", n);
    return item;
}

static enum csm_place place_of(csm *h, const struct item *item, uint64_t *slot, uint32_t *flight) {
    return csm_index_place_locked(h, GENERATION(h), item->hash, item->key, strlen(item->key), slot, flight);
}

static void occupy(csm *h, struct item *item, uint32_t flight) {
    uint32_t none;
    CHECK_EQ(place_of(h, item, &item->slot, &none), CSM_PLACE_FREE);
    csm_store(&h->flights[flight].hash_hi, item->hash.hi);
    csm_index_occupy_locked(h, GENERATION(h), item->slot, item->hash, flight);
    item->state = CSM_SLOT_COMPUTING;
}

static void vacate(csm *h, struct item *item) {
    csm_index_vacate_locked(h, GENERATION(h), item->slot);
    item->state = CSM_SLOT_EMPTY;
}

static void commit(csm *h, struct item *item, uint64_t place) {
    struct csm_entry head = {.hash_hi = item->hash.hi, .key_bytes = (uint32_t)strlen(item->key), .slot = (uint32_t)item->slot};
    unsigned char *entry = h->arena + place * CSM_GRANULE;
    CHECK_EQ(csm_arena_back(h, csm_extent(place, 2)), CSM_OK);
    memcpy(entry, &head, sizeof head);
    memcpy(entry + sizeof head, item->key, head.key_bytes);
    csm_index_commit_locked(h, GENERATION(h), false, check_info(h).entries, item->slot, place, csm_meta(0, 3, head.key_bytes));
    item->state = CSM_SLOT_FULL;
}

static enum csm_slot_state state_of(csm *h, uint64_t slot) {
    uint64_t ctl = csm_load(&h->slots[slot].ctl);
    return csm_ctl_is_of(ctl, GENERATION(h)) ? csm_ctl_state(ctl) : CSM_SLOT_EMPTY;
}

/* Is the item where the test believes it to be, for readers and for writers? `n` is its number. */
static void check_item(csm *h, const struct item *item, uint32_t n) {
    struct csm_found found;
    bool stored = csm_index_find(h, GENERATION(h), item->hash, item->key, strlen(item->key), &found);
    CHECK_EQ(stored, item->state == CSM_SLOT_FULL);
    if (stored) {
        CHECK_EQ(found.slot, item->slot);
        CHECK_EQ(found.place, 2 * n);
        CHECK_EQ(found.value_bytes, 0);
        CHECK_EQ(found.format, 3);
    }
    uint64_t slot;
    uint32_t flight = UINT32_MAX;
    enum csm_place place = place_of(h, item, &slot, &flight);
    switch (item->state) {
    case CSM_SLOT_FULL:
        CHECK_EQ(place, CSM_PLACE_FULL);
        CHECK_EQ(slot, item->slot);
        break;
    case CSM_SLOT_COMPUTING:
        CHECK_EQ(place, CSM_PLACE_COMPUTING);
        CHECK_EQ(slot, item->slot);
        CHECK_EQ(flight, n);
        break;
    default:
        CHECK_EQ(place, CSM_PLACE_FREE);
        CHECK(state_of(h, slot) == CSM_SLOT_EMPTY || state_of(h, slot) == CSM_SLOT_TOMB);
    }
}

static csm *locked_segment(const csm_settings *settings) {
    csm *h = check_segment(settings);
    CHECK_EQ(csm_lock(h), CSM_OK);
    return h;
}

/* ---- probing */

static void keys_of_one_home_lie_one_behind_the_other(void) {
    csm *h = locked_segment(&CHECK_SMALL);
    struct item items[20];
    for (uint32_t i = 0; i < 20; i++) {
        items[i] = item_at(h, 100, i);
        occupy(h, &items[i], i);
        CHECK_EQ(items[i].slot, 100 + i);
        if (i % 2) commit(h, &items[i], 2 * i);
    }
    for (uint32_t i = 0; i < 20; i++) check_item(h, &items[i], i);
}

static void probing_goes_on_over_the_end_of_the_table(void) {
    csm *h = locked_segment(&CHECK_SMALL);
    struct item items[4];
    for (uint32_t i = 0; i < 4; i++) {
        items[i] = item_at(h, h->geo.slots - 2, i);
        occupy(h, &items[i], i);
        CHECK_EQ(items[i].slot, (h->geo.slots - 2 + i) % h->geo.slots);
    }
    commit(h, &items[3], 6);
    vacate(h, &items[1]); /* the last slot of the table is a tomb, and the key at slot 1 lies behind it */
    CHECK_EQ(state_of(h, h->geo.slots - 1), CSM_SLOT_TOMB);
    for (uint32_t i = 0; i < 4; i++) check_item(h, &items[i], i);
    vacate(h, &items[2]);
    vacate(h, &items[0]);
    for (uint32_t i = 0; i < 4; i++) check_item(h, &items[i], i);
}

/* Half of the hash is the same, or all of it, but it is another key. */
static void another_key_is_not_taken_for_it(void) {
    csm *h = locked_segment(&CHECK_SMALL);
    struct item item = item_at(h, 7, 0), other = item;
    occupy(h, &item, 0);
    other.hash.hi++; /* same home, same tag */
    uint64_t slot;
    uint32_t flight;
    CHECK_EQ(place_of(h, &other, &slot, &flight), CSM_PLACE_FREE);
    CHECK_EQ(slot, 8);
    commit(h, &item, 0);
    CHECK_EQ(place_of(h, &other, &slot, &flight), CSM_PLACE_FREE);
    struct csm_found found;
    CHECK(!csm_index_find(h, GENERATION(h), other.hash, other.key, strlen(other.key), &found));
    CHECK(csm_index_find(h, GENERATION(h), item.hash, "item 0", 6, &found));
    CHECK(!csm_index_find(h, GENERATION(h), item.hash, "item 1", 6, &found));
    CHECK(!csm_index_find(h, GENERATION(h), item.hash, "item ", 5, &found));
    CHECK(!csm_index_find(h, GENERATION(h), item.hash, "item 0\0", 7, &found));
}

/* ---- tombs */

static void a_tomb_is_passed_and_used_again(void) {
    csm *h = locked_segment(&CHECK_SMALL);
    struct item items[4];
    for (uint32_t i = 0; i < 3; i++) {
        items[i] = item_at(h, 50, i);
        occupy(h, &items[i], i);
    }
    vacate(h, &items[1]);
    CHECK_EQ(state_of(h, 51), CSM_SLOT_TOMB);
    check_item(h, &items[2], 2);
    items[3] = item_at(h, 50, 3);
    occupy(h, &items[3], 3);
    CHECK_EQ(items[3].slot, 51);
    for (uint32_t i = 0; i < 4; i++) check_item(h, &items[i], i);
}

/* In whatever order the keys of a run give up, no tomb is left behind the last of them. */
static void vacating_the_last_of_a_run_clears_its_tombs(void) {
    csm *h = locked_segment(&CHECK_SMALL);
    uint64_t random = 3;
    for (int round = 0; round < 200; round++) {
        uint64_t home = round % 2 ? h->geo.slots - 4 : 1000; /* over the end of the table, too */
        struct item items[10];
        for (uint32_t i = 0; i < 10; i++) {
            items[i] = item_at(h, home, i);
            occupy(h, &items[i], i);
        }
        for (uint32_t left = 10; left; left--) {
            uint32_t i = (uint32_t)(check_random(&random) % left);
            vacate(h, &items[i]);
            items[i] = items[left - 1];
        }
        for (uint64_t i = 0; i < 10; i++) CHECK_EQ(state_of(h, (home + i) % h->geo.slots), CSM_SLOT_EMPTY);
    }
}

static void any_sequence_keeps_the_invariants(void) {
    enum { KEYS = 64 };
    csm_settings settings = CHECK_SMALL;
    settings.max_items = 60;
    settings.flights = KEYS;
    uint64_t random = 5;
    for (int round = 0; round < 20; round++) {
        csm *h = locked_segment(&settings); /* 140 slots: every probe may see the whole table */
        struct item items[KEYS];
        uint32_t stored = 0;
        for (uint32_t i = 0; i < KEYS; i++)
            items[i] = item_at(h, (h->geo.slots - 8 + check_random(&random) % 24) % h->geo.slots, i);
        for (int step = 0; step < 400; step++) {
            uint32_t i = (uint32_t)(check_random(&random) % KEYS);
            if (items[i].state == CSM_SLOT_EMPTY) {
                occupy(h, &items[i], i);
            } else if (items[i].state == CSM_SLOT_COMPUTING) {
                if (check_random(&random) % 8 == 0 && stored < 40) {
                    commit(h, &items[i], 2 * i);
                    stored++;
                } else {
                    vacate(h, &items[i]);
                }
            }
            for (uint32_t j = 0; j < KEYS; j++) check_item(h, &items[j], j);
            for (uint64_t slot = 0; slot < h->geo.slots; slot++)
                CHECK(state_of(h, slot) != CSM_SLOT_TOMB ||
                      state_of(h, (slot + 1) % h->geo.slots) != CSM_SLOT_EMPTY);
        }
        CHECK_EQ(check_info(h).entries, stored);
        CHECK_EQ(check_info(h).bytes_used, stored * 2 * CSM_GRANULE);
        csm_unlock(h);
    }
}

/* A million failures, or kills, of keys that will never be stored: the index is as empty as before. */
static void failures_do_not_fill_the_index(void) {
    csm_settings settings = CHECK_SMALL;
    settings.max_items = 100;
    csm *h = check_segment(&settings);
    for (uint32_t i = 0; i < 20000; i++) {
        csm_call call;
        const char *key = check_key("failing", i);
        CHECK_EQ(check_claim(h, key, &call), CSM_OWNER);
        CHECK_EQ(check_publish_as(h, &call, key, CSM_FAILURE, "no", 2), CSM_NOT_STORED);
    }
    for (uint64_t slot = 0; slot < h->geo.slots; slot++) CHECK_EQ(state_of(h, slot), CSM_SLOT_EMPTY);
    check_sound(h);
}

/* ---- bounds */

static void a_search_ends_after_the_probe_bound(void) {
    csm *h = locked_segment(&CHECK_SMALL);
    CHECK(h->geo.slots > CSM_PROBES + 10);
    struct item item = item_at(h, 2000, 1), near, far;
    for (uint32_t i = 0; i <= CSM_PROBES; i++)
        csm_index_occupy_locked(h, GENERATION(h), 2000 + i, hash_at(h, 2000 + i, 5000 + i), 0);
    uint64_t slot;
    uint32_t flight;
    CHECK_EQ(place_of(h, &item, &slot, &flight), CSM_PLACE_NONE);
    check_item(h, &(struct item){.hash = hash_at(h, 100, 9), .key = "elsewhere"}, 9);
    /* The last slot that a search reaches, and the first that it does not. */
    near = item;
    near.slot = 2000 + CSM_PROBES - 1;
    csm_store(&h->flights[1].hash_hi, near.hash.hi);
    csm_index_occupy_locked(h, GENERATION(h), near.slot, near.hash, 1);
    near.state = CSM_SLOT_COMPUTING;
    check_item(h, &near, 1);
    commit(h, &near, 2);
    check_item(h, &near, 1);
    far = item_at(h, 2000, 2);
    csm_index_occupy_locked(h, GENERATION(h), 2000 + CSM_PROBES, far.hash, 2);
    far.slot = 2000 + CSM_PROBES;
    commit(h, &far, 4);
    struct csm_found found;
    CHECK(!csm_index_find(h, GENERATION(h), far.hash, far.key, strlen(far.key), &found));
    struct item third = item_at(h, 2000, 3); /* a tomb on the way is a place */
    csm_index_vacate_locked(h, GENERATION(h), 2500);
    CHECK_EQ(place_of(h, &third, &slot, &flight), CSM_PLACE_FREE);
    CHECK_EQ(slot, 2500);
}

static void a_littered_index_has_no_slot(void) {
    csm_settings settings = CHECK_SMALL;
    settings.max_items = 10;
    csm *h = check_segment(&settings);
    CHECK_EQ(check_store(h, "before", 10, 1), CSM_OK);
    for (uint64_t slot = 0; slot < h->geo.slots; slot++)
        if (state_of(h, slot) == CSM_SLOT_EMPTY)
            csm_store(&h->slots[slot].ctl, csm_ctl(GENERATION(h), 0, CSM_SLOT_FULL));
    csm_call call;
    CHECK_EQ(check_claim(h, "after", &call), CSM_NO_SLOT);
    CHECK_EQ(csm_find(h, "after", 5), 0);
    CHECK(check_has(h, "before", 10, 1));
    check_reset(h);
    CHECK_EQ(check_store(h, "after", 10, 2), CSM_OK);
    check_sound(h);
}

static void damage_is_a_miss(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(h, "k", 100, 1), CSM_OK);
    uint64_t slot = csm_load(&h->log[0]) & UINT32_MAX;
    struct csm_slot *s = &h->slots[slot], sound = *s;
    static const uint64_t PLACES[] = {UINT64_MAX, UINT64_C(1) << 40, CSM_MIN_LIMIT / CSM_GRANULE};
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
        csm_store(&s->place, PLACES[i]);
        CHECK_EQ(csm_find(h, "k", 1), 0);
    }
    csm_store(&s->place, CSM_MIN_LIMIT / CSM_GRANULE - 1);
    CHECK_EQ(csm_find(h, "k", 1), 0);
    *s = sound;
    csm_store(&s->meta, csm_meta((UINT64_C(1) << 40) - 1, 7, 1));
    CHECK_EQ(csm_find(h, "k", 1), 0);
    *s = sound;
    CHECK(check_has(h, "k", 100, 1));
    uint64_t random = 11;
    for (int round = 0; round < 300; round++) {
        unsigned char *bytes = (unsigned char *)h->slots;
        for (uint64_t i = 0; i < h->geo.slots * sizeof *s; i++) bytes[i] = (unsigned char)check_random(&random);
        for (uint64_t i = 0; i < h->geo.slots; i++)
            csm_store(&h->slots[i].ctl, csm_ctl(GENERATION(h), i % 100, (enum csm_slot_state)(check_random(&random) & 15)));
        for (uint32_t i = 0; i < 10; i++) {
            const char *key = check_key("key", i);
            CHECK_EQ(csm_find(h, key, strlen(key)), 0);
            csm_call call;
            int code = check_claim(h, key, &call);
            CHECK(code == CSM_OWNER || code == CSM_NO_SLOT || code == CSM_NO_FLIGHT);
            if (code == CSM_OWNER) CHECK_EQ(csm_abandon(h, &call), CSM_OK);
        }
    }
}

/* ---- generations, and many keys */

static void a_slot_of_another_generation_is_empty(void) {
    csm *h = locked_segment(&CHECK_SMALL);
    struct item items[6];
    for (uint32_t i = 0; i < 6; i++) {
        items[i] = item_at(h, 10, i);
        occupy(h, &items[i], i);
        if (i > 2) commit(h, &items[i], 2 * i);
    }
    uint64_t old = GENERATION(h);
    struct csm_slot before = h->slots[13];
    csm_unlock(h);
    check_reset(h);
    CHECK_EQ(csm_lock(h), CSM_OK);
    CHECK_EQ(GENERATION(h), old + 1);
    CHECK(memcmp(&before, &h->slots[13], sizeof before) == 0); /* nothing was cleared */
    struct csm_found found;
    for (uint32_t i = 0; i < 6; i++) {
        items[i].state = CSM_SLOT_EMPTY;
        check_item(h, &items[i], i);
        CHECK(!csm_index_entry(h, old + 1, 10 + i, &found, &(uint32_t){0}));
    }
    occupy(h, &items[5], 5); /* at the home, in front of what the old generation left */
    CHECK_EQ(items[5].slot, 10);
    commit(h, &items[5], 10);
    CHECK(!csm_index_find(h, old, items[5].hash, items[5].key, strlen(items[5].key), &found));
    for (uint32_t i = 0; i < 6; i++) check_item(h, &items[i], i);
}

static void a_hundred_thousand_keys(void) {
    enum { KEYS = 100000 };
    csm *h = check_segment(&(csm_settings){
        .memory_limit = 16 << 20, .max_items = KEYS, .rows = 4, .flights = 8, .nodes = 8});
    for (uint64_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < KEYS; i++) {
            const char *key = check_key("key", i);
            CHECK_EQ(csm_find(h, key, strlen(key)), 0);
            CHECK_EQ(check_store(h, key, i % 50, i + round * KEYS), CSM_OK);
        }
        for (uint32_t i = 0; i < KEYS; i += 7) {
            CHECK(check_has(h, check_key("key", i), i % 50, i + round * KEYS));
            CHECK(!check_has(h, check_key("no key", i), 0, 0));
        }
        CHECK_EQ(check_info(h).entries, KEYS);
        CHECK_EQ(check_store(h, "one more", 1, 1), CSM_FULL_ITEMS);
        check_sound(h);
        check_reset(h);
        CHECK_EQ(check_info(h).entries, 0);
        check_sound(h);
    }
}

CHECK_MAIN(CHECK_TEST(keys_of_one_home_lie_one_behind_the_other), CHECK_TEST(probing_goes_on_over_the_end_of_the_table),
           CHECK_TEST(another_key_is_not_taken_for_it), CHECK_TEST(a_tomb_is_passed_and_used_again),
           CHECK_TEST(vacating_the_last_of_a_run_clears_its_tombs), CHECK_TEST(any_sequence_keeps_the_invariants),
           CHECK_TEST(failures_do_not_fill_the_index), CHECK_TEST(a_search_ends_after_the_probe_bound),
           CHECK_TEST(a_littered_index_has_no_slot), CHECK_TEST(damage_is_a_miss),
           CHECK_TEST(a_slot_of_another_generation_is_empty), CHECK_TEST(a_hundred_thousand_keys))
