/* test_damage.c holds each defence against damaged bytes to what it is for. tests/hostile tries everything; here are the cases that
 * were found, one by one, in a way that does not depend on luck. */
#include "check.h"
#include "step.h"

#include "arena.h"
#include "flight.h"
#include "lock.h"

/* ---- a word that is another one when it is looked at again */

/* What the child does, and what its parent changes meanwhile. */
struct scene {
    void (*prepare)(csm *h);
    void (*act)(csm *h);
    uint64_t *(*word)(csm *h);
    uint64_t bad;
};

static const struct scene *scene;

static void act_again_and_again(struct check_child *me, csm *parents) {
    (void)me;
    /* The parent's handle, and its row: its words are then those of one process. It does nothing meanwhile. */
    for (;;) {
        step_begin();
        scene->act(parents);
        step_end();
    }
}

/* Once for each instruction of `act`: the word changes right before it, and stays so. The child would crash. */
static void a_second_look_does_no_harm(const struct scene *which) {
    if (!step_possible()) return;
    scene = which;
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child c = check_fork(act_again_and_again, h);
    uint64_t at = 0, n = 0;
    step_attach(&c);
    for (bool over = false; !over; at++) {
        scene->prepare(h);
        for (n = 0; n < at && !over; n++) over = !step_once(&c);
        csm_store(scene->word(h), scene->bad);
        if (!over) step_over(&c); /* to its end */
        step_over(&c);            /* to the next beginning */
    }
    CHECK(at > 20);
    check_kill(&c);
}

/* Far outside of the mapping, wherever that lies. */
static const uint64_t FAR = UINT64_C(1) << 35;

static struct csm_epoch *epoch_of(csm *h) { return csm_epoch_of(h, csm_load(&h->header->generation)); }

/* An extent that is handed out is written to. */
static void reserve_and_write(csm *h) {
    uint64_t extent;
    if (csm_arena_reserve_locked(h, 1, &h->flights[0], 100, &extent) != CSM_OK) return;
    unsigned char *at = h->arena + csm_extent_first(extent) * CSM_GRANULE;
    *(volatile unsigned char *)at = 1;
}

static void prepare_hole(csm *h) {
    csm_store(&epoch_of(h)->run, csm_run(1024, 4));
    csm_store(&epoch_of(h)->holes[0], csm_extent(16, 200));
    csm_store(&epoch_of(h)->holes_used, 1);
}

static uint64_t *word_of_hole(csm *h) { return &epoch_of(h)->holes[0]; }

static void a_hole_is_looked_at_once(void) {
    a_second_look_does_no_harm(&(struct scene){prepare_hole, reserve_and_write, word_of_hole, csm_extent(FAR, 200)});
}

static void prepare_run(csm *h) {
    csm_store(&epoch_of(h)->run, 0);
    csm_store(&epoch_of(h)->holes_used, 0);
    csm_store(&epoch_of(h)->refused, 0);
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++) csm_store(&h->chunks[chunk].entered, 0);
}

static uint64_t *word_of_run(csm *h) { return &epoch_of(h)->run; }

static void a_run_that_grew_is_not_looked_at_again(void) {
    a_second_look_does_no_harm(&(struct scene){prepare_run, reserve_and_write, word_of_run, csm_run(FAR, 16)});
}

/* A live flight of an owner that never was. */
static void prepare_flight(csm *h) {
    struct csm_flight *f = &h->flights[0];
    csm_store(&f->serial, 5);
    csm_store(&f->generation, 1);
    csm_store(&f->slot, 7);
    csm_store(&f->owner, csm_owner(5, 1));
    csm_store(&f->reserved, 0);
    csm_store(&h->slots[7].ctl, csm_ctl(1, 0, CSM_SLOT_COMPUTING));
    csm_store(&h->header->flights_used, 1);
}

static void reap(csm *h) { csm_flight_reap_locked(h, 1); }
static uint64_t *word_of_slot(csm *h) { return &h->flights[0].slot; }

static void the_slot_of_a_flight_is_checked_whenever_it_is_looked_at(void) {
    a_second_look_does_no_harm(&(struct scene){prepare_flight, reap, word_of_slot, FAR});
}

/* ---- one bit */

static bool is_found(csm *h) {
    csm_view *view;
    int64_t found = csm_find(h, "key", 3);
    int code = csm_view_acquire(h, "key", 3, &view);
    CHECK((found != 0) == (code == CSM_OK));
    if (code != CSM_OK) return false;
    CHECK_EQ(view->bytes, 3000);
    CHECK_EQ(view->format, 7);
    CHECK(check_filled(view->data, view->bytes, 1));
    csm_view_release(view);
    return true;
}

/* Flips each bit of the words in turn, and tells how often the entry was found nevertheless. */
static int found_despite(csm *h, void *what, size_t bytes) {
    uint64_t *words = what;
    int found = 0;
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        words[bit / 64] ^= UINT64_C(1) << bit % 64;
        found += is_found(h);
        words[bit / 64] ^= UINT64_C(1) << bit % 64;
    }
    CHECK(is_found(h));
    return found;
}

static struct csm_slot *slot_of_the_entry(csm *h) { return &h->slots[csm_load(&h->log[0]) & UINT32_MAX]; }

static void a_slot_of_which_one_bit_is_wrong_names_no_entry(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(h, "key", 3000, 1), CSM_OK);
    struct csm_slot *slot = slot_of_the_entry(h);
    CHECK_EQ(found_despite(h, &slot->tag, sizeof *slot - sizeof slot->ctl), 0);
    CHECK_EQ(found_despite(h, &slot->ctl, sizeof slot->ctl), 16); /* which flight it was does not matter any more */
}

static void a_slot_of_an_older_generation_does_not_come_back_with_its_control_word(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(h, "key", 3000, 1), CSM_OK);
    struct csm_slot *slot = slot_of_the_entry(h);
    check_reset(h);
    csm_store(&slot->ctl, csm_ctl(2, 0, CSM_SLOT_FULL));
    CHECK(!is_found(h));
}

static void a_damaged_key_is_neither_found_nor_listed(void) {
    csm *h = check_segment(&CHECK_SMALL);
    unsigned char buffer[1000];
    uint64_t cursor = 0;
    CHECK_EQ(check_store(h, "key", 3000, 1), CSM_OK);
    CHECK_EQ(check_store(h, "other", 10, 2), CSM_OK);
    h->arena[csm_place_of(slot_of_the_entry(h)->place) * CSM_GRANULE + sizeof(struct csm_entry)] ^= 1;
    CHECK(!is_found(h));
    CHECK_EQ(csm_entries(h, 1, &cursor, buffer, sizeof buffer), 16 + 5);
    CHECK(memcmp(buffer + 16, "other", 5) == 0);
}

static void an_outcome_of_which_one_bit_is_wrong_is_lost(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    struct csm_outcome *o = &a->outcomes[0];
    static const size_t words[] = {offsetof(struct csm_outcome, generation), offsetof(struct csm_outcome, bytes),
                                   offsetof(struct csm_outcome, kind), offsetof(struct csm_outcome, check)};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++)
        for (int bit = 0; bit <= 64; bit++) {
            csm_call owner, waiter;
            CHECK_EQ(check_claim(a, "key", &owner), CSM_OWNER);
            CHECK_EQ(check_claim(b, "key", &waiter), CSM_JOINED);
            CHECK_EQ(owner.ticket.flight, 0);
            CHECK_EQ(check_publish_as(a, &owner, "key", CSM_FAILURE, "1234567", 8), CSM_NOT_STORED);
            if (bit < 64) *(uint64_t *)(void *)((unsigned char *)o + words[w]) ^= UINT64_C(1) << bit;
            CHECK_EQ(csm_wait(b, &waiter, 0), bit < 64 ? CSM_AGAIN : CSM_OUTCOME);
            csm_wait_leave(b, &waiter);
            csm_store(&o->word, 0); /* no longer waited for: the next flight has the same record */
        }
}

static void nobody_waits_for_a_flight_whose_owner_cannot_finish_it(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    for (int i = 0; i < 2; i++) {
        csm_call owner, other;
        CHECK_EQ(check_claim(a, "key", &owner), CSM_OWNER);
        struct csm_flight *flight = &a->flights[owner.ticket.flight];
        csm_store(i ? &flight->term : &flight->serial, 1000);
        CHECK_EQ(check_publish(a, &owner, "key", "", 0), CSM_STALE);
        CHECK_EQ(check_claim(b, "key", &other), CSM_OWNER);
        CHECK_EQ(csm_abandon(b, &other), CSM_OK);
    }
    check_sound(a);
}

/* ---- marks */

static void pins_count_though_the_mark_of_rows_is_too_low(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_view *view;
    CHECK_EQ(check_store(a, "key", 3000, 1), CSM_OK);
    CHECK_EQ(csm_view_acquire(b, "key", 3, &view), CSM_OK);
    CHECK_EQ(check_info(a).pinned_chunks, 1);
    csm_store(&a->header->rows_used, 0);
    CHECK_EQ(check_info(a).pinned_chunks, 1);
    check_reset(a);
    for (uint32_t i = 0; i < 16; i++) check_store(a, check_key("other", i), 3900, 5);
    CHECK(check_filled(view->data, view->bytes, 1));
    csm_view_release(view);
}

static void a_mark_of_a_chunk_is_not_believed_unless_it_is_that_chunks(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct stat before, after;
    for (uint64_t chunk = 0; chunk < h->geo.chunks; chunk++) csm_store(&h->chunks[chunk].backed, chunk % 2 ? 1 : UINT64_MAX);
    CHECK(fstat(h->fd, &before) == 0);
    CHECK_EQ(csm_arena_back(h, csm_extent(0, h->granules)), CSM_OK);
    CHECK(fstat(h->fd, &after) == 0);
    CHECK_EQ(after.st_blocks - before.st_blocks, (long long)h->geo.memory_limit / 512);
}

static void a_hint_that_is_too_high_costs_no_flights(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call;
    csm_store(&h->header->flight_hint, h->geo.flights);
    CHECK_EQ(check_claim(h, "key", &call), CSM_OWNER);
    CHECK_EQ(csm_abandon(h, &call), CSM_OK);
}

CHECK_MAIN(CHECK_TEST(a_hole_is_looked_at_once), CHECK_TEST(a_run_that_grew_is_not_looked_at_again),
           CHECK_TEST(the_slot_of_a_flight_is_checked_whenever_it_is_looked_at),
           CHECK_TEST(a_slot_of_which_one_bit_is_wrong_names_no_entry),
           CHECK_TEST(a_slot_of_an_older_generation_does_not_come_back_with_its_control_word),
           CHECK_TEST(a_damaged_key_is_neither_found_nor_listed), CHECK_TEST(an_outcome_of_which_one_bit_is_wrong_is_lost),
           CHECK_TEST(nobody_waits_for_a_flight_whose_owner_cannot_finish_it),
           CHECK_TEST(pins_count_though_the_mark_of_rows_is_too_low),
           CHECK_TEST(a_mark_of_a_chunk_is_not_believed_unless_it_is_that_chunks),
           CHECK_TEST(a_hint_that_is_too_high_costs_no_flights))
