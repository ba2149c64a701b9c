/* test_lock.c holds lock.c and repair.c to:
 *   - the lock of a dead holder is stolen, at once, by exactly one; what it left half-done is repaired, or was complete;
 *   - a live holder that does not run costs a caller half a second, not more, and afterwards all is as before; it costs a process
 *     that once, and a call that meets several as much as one;
 *   - a holder that runs keeps others waiting, and nobody is turned away however many they are;
 *   - a lock word that names nobody, or nonsense, is a free lock;
 *   - resetters have a lock of the same kind. */
#include "check.h"

#include "arena.h"
#include "lock.h"
#include "repair.h"

static const uint64_t LONG_NS = UINT64_C(100000000000);

static void lock_and_hang(struct check_child *me, csm *h) {
    CHECK_EQ(csm_lock(h), CSM_OK);
    check_say(me, 'l');
    check_hear(me, 'u');
    csm_unlock(h);
    check_say(me, 'u');
    check_hear(me, 'e');
}

static struct check_child holder_of(csm *h) {
    struct check_child child = check_fork(lock_and_hang, h);
    check_hear(&child, 'l');
    return child;
}

static void end_holder(struct check_child *child) {
    check_say(child, 'u');
    check_hear(child, 'u');
    check_say(child, 'e');
    check_end(child);
}

/* ---- dead */

static void the_lock_of_a_dead_holder_is_stolen(void) {
    csm *h = check_segment(&CHECK_SMALL);
    for (uint64_t round = 1; round <= 10; round++) {
        struct check_child child = holder_of(h);
        CHECK_EQ(csm_lock_once(h), CSM_BUSY);
        check_kill(&child);
        CHECK_EQ(csm_lock(h), CSM_OK);
        CHECK_EQ(csm_load(&h->header->write_lock), h->self);
        csm_unlock(h);
        CHECK_EQ(csm_load(&h->header->write_lock), 0);
        CHECK_EQ(check_stat(h, CSM_STAT_STEALS), round);
        check_sound(h);
    }
}

static void lock_and_unlock(struct check_child *me, csm *h) {
    check_say(me, 'r');
    CHECK_EQ(csm_lock(h), CSM_OK);
    csm_unlock(h);
    check_say(me, 'd');
    check_hear(me, 'e');
}

static void one_of_many_waiters_steals(void) {
    enum { N = 6 };
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child holder = holder_of(h), waiters[N];
    for (int i = 0; i < N; i++) {
        waiters[i] = check_fork(lock_and_unlock, h);
        check_hear(&waiters[i], 'r');
    }
    check_kill(&holder);
    for (int i = 0; i < N; i++) check_hear(&waiters[i], 'd');
    CHECK_EQ(check_stat(h, CSM_STAT_STEALS), 1);
    for (int i = 0; i < N; i++) {
        check_say(&waiters[i], 'e');
        check_end(&waiters[i]);
    }
    check_sound(h);
}

/* The holder is killed between the two stores that move room from the run to its flight, and another time between those that
 * move it back. Two of the states that test_killed.c goes through one by one. */
static void die_reserving(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    CHECK_EQ(csm_lock(h), CSM_OK);
    uint64_t run = csm_load(&h->header->epoch[1].run);
    csm_store(&h->flights[call.ticket.flight].reserved, csm_extent(csm_run_first(run), 10));
    check_say(me, 'r');
    check_hear(me, '-');
}

static void die_returning(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    CHECK_EQ(csm_lock(h), CSM_OK);
    uint64_t extent, run = csm_load(&h->header->epoch[1].run);
    struct csm_flight *flight = &h->flights[call.ticket.flight];
    CHECK_EQ(csm_arena_reserve_locked(h, 1, flight, 10, &extent), CSM_OK);
    csm_store(&h->header->epoch[1].run, run);
    CHECK_EQ(csm_load(&flight->reserved), extent);
    check_say(me, 'r');
    check_hear(me, '-');
}

static void what_a_dead_holder_left_half_done_is_repaired(void) {
    void (*const deaths[])(struct check_child *, csm *) = {die_reserving, die_returning};
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(h, "before", 3000, 1), CSM_OK);
    for (int i = 0; i < 2; i++) {
        struct check_child child = check_fork(deaths[i], h);
        check_hear(&child, 'r');
        check_kill(&child);
        check_sound(h); /* takes the lock, and so repairs */
        CHECK_EQ(csm_lock(h), CSM_OK);
        csm_repair_locked(h); /* twice is once */
        csm_unlock(h);
        check_sound(h);
        csm_call call;
        CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
        CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    }
    CHECK(check_has(h, "before", 3000, 1));
}

static void a_word_that_names_nobody_is_a_free_lock(void) {
    csm *h = check_segment(&CHECK_SMALL), *other = check_another(h);
    uint64_t left = other->self;
    csm_leave(other);
    const uint64_t words[] = {left, 1, csm_owner(7, 1), csm_owner(999, 1), h->self ^ 1, UINT64_MAX, UINT64_C(1) << 63,
                              h->self | UINT64_C(1) << 60};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        csm_store(&h->header->write_lock, words[i]);
        CHECK_EQ(csm_lock(h), CSM_OK);
        csm_unlock(h);
        CHECK_EQ(csm_load(&h->header->write_lock), 0);
        csm_store(&h->header->reset_lock, words[i]);
        CHECK_EQ(csm_reset_lock(h, LONG_NS), CSM_OK);
        csm_reset_unlock(h);
        CHECK_EQ(csm_load(&h->header->reset_lock), 0);
    }
    check_sound(h);
}

/* ---- alive */

/* The one place where these tests look at a clock: the contract's bound, below which nothing must hang. */
static void a_stopped_holder_costs_less_than_a_second(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(h, "k", 100, 1), CSM_OK);
    csm_call owner, call;
    CHECK_EQ(check_claim(h, "owned", &owner), CSM_OWNER);
    struct check_child child = holder_of(h);
    check_stop(&child);
    char report[64];
    for (int i = 0; i < 6; i++) {
        uint64_t start = csm_now_ns();
        int code = CSM_OK;
        switch (i) {
        case 0: code = csm_lock(h); break;
        case 1: code = check_claim(h, "other", &call); break;
        case 2: code = check_publish(h, &owner, "owned", "v", 1); break;
        case 3: code = csm_verify(h, report, sizeof report); break;
        case 4: code = csm_destroy(h); break;
        case 5:
            CHECK_EQ(csm_reset_lock(h, 0), CSM_OK);
            code = csm_reset_commit(h, "2", 1, 0);
            csm_reset_unlock(h);
            break;
        }
        CHECK_EQ(code, CSM_BUSY);
        CHECK(csm_now_ns() - start < UINT64_C(1000000000));
    }
    CHECK(check_has(h, "k", 100, 1)); /* hits take no lock */
    CHECK(!check_has(h, "other", 0, 0));
    check_continue(&child);
    end_holder(&child);
    CHECK_EQ(check_claim(h, "owned", &call), CSM_OWNER); /* it was given up */
    CHECK_EQ(check_publish(h, &call, "owned", "v", 1), CSM_OK);
    CHECK_EQ(csm_generation(h), 1);
    CHECK_EQ(check_stat(h, CSM_STAT_STEALS), 0);
    check_sound(h);
}

static const uint64_t PATIENCE_NS = UINT64_C(500000000);

static void a_process_loses_patience_with_a_stopped_holder_once(void) {
    csm *h = check_segment(&CHECK_SMALL);
    for (int round = 0; round < 2; round++) {
        struct check_child child = holder_of(h);
        check_stop(&child);
        csm_call call = {.stalled_ns = 0};
        CHECK_EQ(csm_lock_within(h, &call), CSM_BUSY);
        CHECK(call.stalled_ns > PATIENCE_NS);
        for (int i = 0; i < 10; i++) {
            call.stalled_ns = 0;
            CHECK_EQ(csm_lock_within(h, &call), CSM_BUSY);
            CHECK_EQ(call.stalled_ns, 0); /* known by now */
        }
        check_continue(&child);
        end_holder(&child);
        CHECK_EQ(csm_lock_within(h, &call), CSM_OK);
        CHECK_EQ(call.stalled_ns, 0);
        csm_unlock(h);
    }
}

static void a_call_has_one_patience_for_all_stopped_holders_that_it_meets(void) {
    csm *h = check_segment(&CHECK_SMALL);
    uint64_t least = UINT64_MAX;
    for (int round = 0; round < 3; round++) { /* of a loaded machine, the best */
        struct check_child child = holder_of(h);
        check_stop(&child);
        csm_call call = {.stalled_ns = PATIENCE_NS}; /* has met others before */
        CHECK_EQ(csm_claim(h, "k", 1, NULL, &call), CSM_BUSY);
        CHECK(call.stalled_ns > PATIENCE_NS);
        least = csm_min(least, call.stalled_ns - PATIENCE_NS);
        check_continue(&child);
        end_holder(&child);
    }
    CHECK(least < PATIENCE_NS);
}

static void wait_for_owner(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    check_say(me, 'j');
    CHECK_EQ(csm_wait(h, &call, LONG_NS), CSM_BUSY);
    check_say(me, 'b');
}

static void claim_and_hang(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    check_say(me, 'c');
    check_hear(me, '-');
}

/* Its owner is dead, and the lock to take its place is not to be had: the waiter does not hang either. */
static void a_waiter_for_the_dead_is_told_that_there_is_no_lock(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child owner = check_fork(claim_and_hang, h);
    check_hear(&owner, 'c');
    struct check_child waiter = check_fork(wait_for_owner, h);
    check_hear(&waiter, 'j');
    struct check_child holder = holder_of(h);
    check_stop(&holder);
    check_kill(&owner);
    check_hear(&waiter, 'b');
    check_end(&waiter);
    check_continue(&holder);
    end_holder(&holder);
    CHECK_EQ(check_store(h, "k", 10, 1), CSM_OK);
}

static void killed_while_stopped_it_is_dead(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child child = holder_of(h);
    check_stop(&child);
    CHECK_EQ(csm_lock(h), CSM_BUSY);
    check_kill(&child);
    CHECK_EQ(csm_lock(h), CSM_OK);
    csm_unlock(h);
    check_sound(h);
}

static void store_many(struct check_child *me, csm *h) {
    check_hear(me, 'g');
    for (uint32_t i = 0; i < 2000; i++) {
        csm_call call;
        const char *key = check_key("k", (uint64_t)getpid() * 10000 + i);
        CHECK_EQ(check_claim(h, key, &call), CSM_OWNER);
        CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    }
    check_say(me, 'd');
}

static void nobody_of_a_crowd_is_turned_away(void) {
    enum { N = 7 };
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child children[N];
    for (int i = 0; i < N; i++) children[i] = check_fork(store_many, h);
    for (int i = 0; i < N; i++) check_say(&children[i], 'g');
    for (int i = 0; i < N; i++) {
        check_hear(&children[i], 'd');
        check_end(&children[i]);
    }
    CHECK_EQ(check_info(h).flights, 0);
    CHECK_EQ(check_stat(h, CSM_STAT_STEALS), 0);
    check_sound(h);
}

/* ---- the reset lock */

static void reset_lock_and_hang(struct check_child *me, csm *h) {
    CHECK_EQ(csm_reset_lock(h, LONG_NS), CSM_OK);
    check_say(me, 'l');
    check_hear(me, '-');
}

static void resetters_take_turns_and_the_dead_are_passed_over(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    CHECK_EQ(csm_reset_lock(a, 0), CSM_OK);
    CHECK_EQ(csm_reset_lock(b, 0), CSM_TIMEOUT);
    CHECK_EQ(csm_reset_lock(a, 0), CSM_TIMEOUT); /* another thread of the same process */
    CHECK_EQ(csm_reset_commit(b, "2", 1, 0), CSM_INVALID);
    CHECK_EQ(csm_reset_commit(a, "2", 1, 0), CSM_OK);
    csm_reset_unlock(b); /* not b's to release */
    CHECK_EQ(csm_reset_lock(b, 0), CSM_TIMEOUT);
    csm_reset_unlock(a);
    CHECK_EQ(csm_reset_lock(b, 0), CSM_OK);
    csm_reset_unlock(b);
    struct check_child child = check_fork(reset_lock_and_hang, a);
    check_hear(&child, 'l');
    CHECK_EQ(csm_reset_lock(a, 0), CSM_TIMEOUT);
    check_kill(&child);
    check_reset(a);
    CHECK_EQ(csm_generation(b), 3);
    CHECK_EQ(check_stat(b, CSM_STAT_RESETS), 2);
}

CHECK_MAIN(CHECK_TEST(the_lock_of_a_dead_holder_is_stolen), CHECK_TEST(one_of_many_waiters_steals),
           CHECK_TEST(what_a_dead_holder_left_half_done_is_repaired), CHECK_TEST(a_word_that_names_nobody_is_a_free_lock),
           CHECK_TEST(a_stopped_holder_costs_less_than_a_second),
           CHECK_TEST(a_process_loses_patience_with_a_stopped_holder_once),
           CHECK_TEST(a_call_has_one_patience_for_all_stopped_holders_that_it_meets),
           CHECK_TEST(a_waiter_for_the_dead_is_told_that_there_is_no_lock), CHECK_TEST(killed_while_stopped_it_is_dead),
           CHECK_TEST(nobody_of_a_crowd_is_turned_away), CHECK_TEST(resetters_take_turns_and_the_dead_are_passed_over))
