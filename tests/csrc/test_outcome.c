/* test_outcome.c holds outcome.c, and what publish.c makes of it, to:
 *   - what a flight ended with and is not stored (a failure, an uncached value, one without room) reaches each of its
 *     waiters whole, with its kind and format, and nobody else;
 *   - an outcome may be lost, but is never wrong: who reads too late is told so, and starts over;
 *   - its memory goes back: a payload takes no pages once it was read, and what the dead did not read is overwritten. */
#include "check.h"

#include "step.h"

/* Makes `waiter` join `owner`'s flight of `key`. */
static void claim_both(csm *a, csm *b, const char *key, csm_call *owner, csm_call *waiter) {
    CHECK_EQ(check_claim(a, key, owner), CSM_OWNER);
    CHECK_EQ(check_claim(b, key, waiter), CSM_JOINED);
}

/* The waiter finds an outcome, and it is this one. */
static void check_outcome(csm *h, csm_call *waiter, uint32_t kind, size_t bytes, uint64_t seed) {
    CHECK_EQ(csm_wait(h, waiter, 0), CSM_OUTCOME);
    CHECK_EQ(waiter->waiter.serial, 0); /* not queued any more */
    CHECK_EQ(waiter->waiter.outcome_kind, kind);
    CHECK_EQ(waiter->waiter.outcome_format, 7);
    CHECK_EQ(waiter->waiter.outcome_bytes, bytes);
    unsigned char *data = malloc(bytes + 1);
    CHECK(data);
    CHECK_EQ(csm_outcome_read(h, waiter, data), CSM_OK);
    CHECK(check_filled(data, bytes, seed));
    free(data);
}

static int publish_filled(csm *h, csm_call *call, const char *key, int kind, size_t bytes, uint64_t seed) {
    unsigned char *data = malloc(bytes + 1);
    CHECK(data);
    check_fill(data, bytes, seed);
    int code = check_publish_as(h, call, key, kind, data, bytes);
    free(data);
    return code;
}

/* ---- to the waiters, and nobody else */

static void every_kind_reaches_every_waiter(void) {
    static const int KINDS[] = {CSM_FAILURE, CSM_UNCACHED, CSM_UNSHAREABLE};
    static const size_t SIZES[] = {0, 1, 5000, 3 << 20}; /* the last is larger than the arena */
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    for (size_t k = 0; k < 3; k++)
        for (size_t s = 0; s < 4; s++) {
            csm_call owner, waiters[3], later;
            claim_both(a, b, "k", &owner, &waiters[0]);
            CHECK_EQ(check_claim(a, "k", &waiters[1]), CSM_JOINED);
            CHECK_EQ(check_claim(b, "k", &waiters[2]), CSM_JOINED);
            CHECK_EQ(publish_filled(a, &owner, "k", KINDS[k], SIZES[s], k + s), CSM_NOT_STORED);
            CHECK_EQ(check_claim(b, "k", &later), CSM_OWNER); /* nothing is stored, nobody else ever gets it */
            check_outcome(b, &waiters[0], (uint32_t)KINDS[k], SIZES[s], k + s);
            check_outcome(a, &waiters[1], (uint32_t)KINDS[k], SIZES[s], k + s);
            check_outcome(b, &waiters[2], (uint32_t)KINDS[k], SIZES[s], k + s);
            CHECK_EQ(csm_abandon(b, &later), CSM_OK);
        }
    csm_info info = check_info(a);
    CHECK_EQ(info.stats[CSM_STAT_FAILURES], 4);
    CHECK_EQ(info.stats[CSM_STAT_UNCACHED], 8);
    CHECK_EQ(info.stats[CSM_STAT_LOST_OUTCOMES], 0);
    check_sound(a);
}

static void a_value_without_room_reaches_its_waiters(void) {
    csm_settings settings = CHECK_SMALL;
    settings.max_items = 3;
    csm *a = check_segment(&settings), *b = check_another(a);
    csm_call owner, waiter;
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_VALUE, 200000, 1), CSM_TOO_LARGE);
    check_outcome(b, &waiter, CSM_VALUE, 200000, 1);
    CHECK_EQ(check_store(a, "large", 60000, 2), CSM_OK);
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_VALUE, 6000, 3), CSM_FULL_ARENA);
    check_outcome(b, &waiter, CSM_VALUE, 6000, 3);
    for (uint32_t i = 0; i < 2; i++) CHECK_EQ(check_store(a, check_key("small", i), 10, i), CSM_OK);
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_VALUE, 10, 4), CSM_FULL_ITEMS);
    check_outcome(b, &waiter, CSM_VALUE, 10, 4);
    CHECK_EQ(check_info(a).full, 1);
    check_sound(a);
}

static void pieces_are_joined(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter;
    claim_both(a, b, "k", &owner, &waiter);
    csm_piece pieces[] = {{"one", 3}, {NULL, 0}, {"two", 3}, {"three", 5}};
    CHECK_EQ(csm_publish(a, &owner, "k", 1, CSM_FAILURE, 0, pieces, 4), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_OUTCOME);
    char data[16];
    CHECK_EQ(waiter.waiter.outcome_bytes, 11);
    CHECK_EQ(csm_outcome_read(b, &waiter, data), CSM_OK);
    CHECK(memcmp(data, "onetwothree", 11) == 0);
    CHECK_EQ(check_claim(a, "k", &owner), CSM_OWNER); /* the same, stored */
    CHECK_EQ(csm_publish(a, &owner, "k", 1, CSM_VALUE, 0, pieces, 4), CSM_OK);
    int64_t found = csm_find(b, "k", 1);
    CHECK(found > 0);
    CHECK_EQ(found >> 5 & 0x3fffff, 11);
    CHECK(memcmp(csm_base(b) + (found >> 27) * 16, "onetwothree", 11) == 0);
}

static void without_waiters_nothing_is_written(void) {
    csm *h = check_segment(&CHECK_SMALL);
    uint64_t before = check_info(h).reserved_bytes;
    for (uint32_t i = 0; i < 200; i++) {
        csm_call call;
        CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
        CHECK_EQ(publish_filled(h, &call, "k", CSM_FAILURE, 100000, i), CSM_NOT_STORED);
    }
    CHECK_EQ(check_info(h).reserved_bytes, before);
}

/* ---- lossy, never wrong */

enum { BYTES = 40000 }; /* of a large payload: its pages go back when it was read */

/* Each flight record has room for one outcome. When all records hold unread ones, and another flight needs one, the readers of
 * that one were too slow. One of them has been told already that there is an outcome. */
static void who_reads_too_late_starts_over(void) {
    enum { N = 6, FLIGHTS = 4 };
    csm_settings settings = CHECK_SMALL;
    settings.flights = FLIGHTS;
    csm *a = check_segment(&settings), *b = check_another(a);
    csm_call waiters[N];
    unsigned char data[200];
    for (uint32_t i = 0; i < N; i++) {
        csm_call owner;
        if (i == 1) CHECK_EQ(csm_wait(b, &waiters[0], 0), CSM_OUTCOME);
        claim_both(a, b, check_key("k", i), &owner, &waiters[i]);
        CHECK_EQ(publish_filled(a, &owner, check_key("k", i), CSM_FAILURE, 200, i), CSM_NOT_STORED);
    }
    uint64_t lost = check_stat(a, CSM_STAT_LOST_OUTCOMES), seen = 0;
    CHECK_EQ(lost, N - FLIGHTS);
    for (uint32_t i = 0; i < N; i++) {
        int code = i == 0 ? CSM_OUTCOME : csm_wait(b, &waiters[i], 0);
        if (code == CSM_OUTCOME) code = csm_outcome_read(b, &waiters[i], data);
        CHECK(code == CSM_OK || (code == (i == 0 ? CSM_STALE : CSM_AGAIN)));
        if (code == CSM_OK) CHECK(check_filled(data, 200, i));
        seen += code == CSM_OK;
    }
    CHECK_EQ(seen + lost, N);
    CHECK_EQ(check_info(a).waiters, 0);
    check_sound(a);
}

/* The reset takes the payload's pages back. Who was told of it before must not read what is left and believe it. */
static void a_reset_between_finding_and_reading_is_noticed(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter;
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, BYTES, 5), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_OUTCOME);
    check_reset(a);
    unsigned char *data = malloc(BYTES);
    int code = csm_outcome_read(b, &waiter, data);
    CHECK(code == CSM_STALE || (code == CSM_OK && check_filled(data, BYTES, 5)));
    free(data);
}

static csm_call inherited; /* by a forked child: what it waits for */

static void read_and_be_watched(struct check_child *me, csm *h) {
    unsigned char *data = malloc(BYTES);
    CHECK_EQ(check_claim(h, "k", &inherited), CSM_JOINED);
    check_say(me, 'j');
    CHECK_EQ(csm_wait(h, &inherited, UINT64_C(60000000000)), CSM_OUTCOME);
    step_begin();
    CHECK_EQ(csm_outcome_read(h, &inherited, data), CSM_OK);
    step_end();
    CHECK(check_filled(data, BYTES, 1));
    free(data);
}

/* How many have not read the outcome in this record yet. */
static uint64_t unread(csm *h, uint32_t flight) { return csm_load(&h->outcomes[flight].word) & 0xffff; }

/* The last reader has counted itself down, which frees the record, and is held up before it gives the pages back. By then
 * the record, its pages and its owner are those of another outcome. */
static void a_late_last_reader_takes_nothing_away(void) {
    if (!step_possible()) return;
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter;
    CHECK_EQ(check_claim(a, "k", &owner), CSM_OWNER);
    uint32_t flight = owner.ticket.flight;
    struct check_child child = check_fork(read_and_be_watched, b);
    check_hear(&child, 'j');
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, BYTES, 1), CSM_NOT_STORED);
    step_attach(&child);
    CHECK_EQ(unread(a, flight), 1);
    while (unread(a, flight) == 1) CHECK(step_once(&child));
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, BYTES, 2), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_OUTCOME);
    step_detach(&child);
    check_stopped(&child); /* at its step_end */
    unsigned char *data = malloc(BYTES);
    int code = csm_outcome_read(b, &waiter, data);
    CHECK(code == CSM_STALE || (code == CSM_OK && check_filled(data, BYTES, 2)));
    free(data);
    check_continue(&child);
    check_end(&child);
}

static void leave_over_and_over(struct check_child *me, csm *h) {
    for (;;) {
        check_hear(me, 'g');
        CHECK_EQ(check_claim(h, "k", &inherited), CSM_JOINED);
        step_begin();
        csm_wait_leave(h, &inherited);
        step_end();
    }
}

/* Who leaves counts itself off an outcome if it was counted, and only then: else the record is free, and its pages gone, before
 * the others have read. The flight ends at each instruction of the leaving in turn. */
static void who_leaves_takes_no_other_readers_place(void) {
    if (!step_possible()) return;
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    struct check_child child = check_fork(leave_over_and_over, b);
    bool ended = false, attached = false;
    for (uint32_t n = 0; !ended; n += CHECK_SANITIZED ? 7 : 1) {
        csm_call owner, waiter;
        claim_both(a, b, "k", &owner, &waiter);
        uint32_t flight = owner.ticket.flight;
        check_say(&child, 'g');
        if (!attached)
            step_attach(&child);
        else
            step_over(&child); /* to its beginning */
        attached = true;
        for (uint32_t i = 0; i < n && !ended; i++) ended = !step_once(&child);
        CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, BYTES, n), CSM_NOT_STORED);
        if (!ended) step_over(&child); /* to its end */
        CHECK(unread(a, flight) >= 1);
        check_outcome(b, &waiter, CSM_FAILURE, BYTES, n);
        CHECK(n < 100000);
    }
    CHECK_EQ(check_stat(a, CSM_STAT_LOST_OUTCOMES), 0);
    check_kill(&child);
    check_sound(a);
}

static void overwrite_and_be_watched(struct check_child *me, csm *h) {
    (void)me;
    csm_call owner, waiter;
    unsigned char data[BYTES];
    check_fill(data, BYTES, 2);
    claim_both(h, h, "next", &owner, &waiter);
    step_begin();
    check_publish_as(h, &owner, "next", CSM_FAILURE, data, BYTES);
    step_end();
}

/* There is one flight record, and its next owner has just written the payload, and not yet said so. */
static void what_is_being_overwritten_is_not_read(void) {
    if (!step_possible()) return;
    csm_settings settings = CHECK_SMALL;
    settings.flights = 1;
    csm *a = check_segment(&settings), *b = check_another(a);
    csm_call owner, waiter;
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, BYTES, 1), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_OUTCOME);
    struct check_child child = check_fork(overwrite_and_be_watched, b);
    step_attach(&child);
    unsigned char data[BYTES];
    do {
        CHECK(step_once(&child));
        CHECK_EQ(pread(csm_descriptor(b), data, BYTES, (off_t)b->geo.windows_off), BYTES);
    } while (check_filled(data, BYTES, 1));
    CHECK_EQ(csm_outcome_read(b, &waiter, data), CSM_STALE);
    check_kill(&child);
    check_sound(b);
}

static void an_outcome_of_the_last_generation_is_not_found(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter;
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_UNCACHED, 100, 5), CSM_NOT_STORED);
    check_reset(a);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_AGAIN);
    CHECK_EQ(check_info(a).waiters, 0);
}

/* ---- memory */

static void pages_go_back_when_all_have_read(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    uint64_t before = check_info(a).reserved_bytes;
    for (uint64_t round = 0; round < 3; round++) {
        csm_call owner, waiters[2];
        claim_both(a, b, "k", &owner, &waiters[0]);
        CHECK_EQ(check_claim(a, "k", &waiters[1]), CSM_JOINED);
        CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, BYTES, round), CSM_NOT_STORED);
        CHECK(check_info(a).reserved_bytes >= before + BYTES);
        check_outcome(b, &waiters[0], CSM_FAILURE, BYTES, round);
        CHECK(check_info(a).reserved_bytes >= before + BYTES);
        check_outcome(a, &waiters[1], CSM_FAILURE, BYTES, round);
        CHECK(check_info(a).reserved_bytes <= before + (64 << 10)); /* of one record, for its next payload */
    }
    csm_call owner, waiter; /* or when a reset says that nobody may read it any more */
    claim_both(a, b, "k", &owner, &waiter);
    CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, BYTES, 9), CSM_NOT_STORED);
    check_reset(a);
    CHECK(check_info(a).reserved_bytes <= before + (64 << 10));
}

static void wait_and_hang(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    check_say(me, 'j');
    check_hear(me, '-');
}

/* Waiters that were killed never read. The living lose nothing by it, and neither do the tables fill. */
static void what_the_dead_did_not_read_makes_room(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter;
    for (uint64_t round = 0; round < CHECK_SMALL.flights + 20; round++) {
        CHECK_EQ(check_claim(a, "k", &owner), CSM_OWNER);
        struct check_child child = check_fork(wait_and_hang, a);
        check_hear(&child, 'j');
        check_kill(&child);
        CHECK_EQ(check_claim(b, "k", &waiter), CSM_JOINED);
        CHECK_EQ(publish_filled(a, &owner, "k", CSM_FAILURE, 70000, round), CSM_NOT_STORED);
        check_outcome(b, &waiter, CSM_FAILURE, 70000, round);
    }
    CHECK_EQ(check_info(a).waiters, 0);
    check_sound(a);
}

CHECK_MAIN(CHECK_TEST(every_kind_reaches_every_waiter), CHECK_TEST(a_value_without_room_reaches_its_waiters),
           CHECK_TEST(pieces_are_joined), CHECK_TEST(without_waiters_nothing_is_written),
           CHECK_TEST(who_reads_too_late_starts_over), CHECK_TEST(a_reset_between_finding_and_reading_is_noticed),
           CHECK_TEST(a_late_last_reader_takes_nothing_away), CHECK_TEST(who_leaves_takes_no_other_readers_place),
           CHECK_TEST(what_is_being_overwritten_is_not_read),
           CHECK_TEST(an_outcome_of_the_last_generation_is_not_found), CHECK_TEST(pages_go_back_when_all_have_read),
           CHECK_TEST(what_the_dead_did_not_read_makes_room))
