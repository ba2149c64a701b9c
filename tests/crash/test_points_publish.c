/* test_points_publish.c: killed, and stopped, in the windows of claim, publish, the wake-ups and the outcomes. See points.h. */
#include "points.h"

#include "step.h"

#include <sys/syscall.h>

/* Stops once between claim and publish. */
static void compute_slowly(csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(check_join(h), TARGET, &call), CSM_OWNER);
    raise(SIGSTOP);
    CHECK_EQ(publish_value(h, &call, TARGET), published);
}

static void fail_slowly(csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(check_join(h), TARGET, &call), CSM_OWNER);
    raise(SIGSTOP);
    CHECK_EQ(check_publish_as(h, &call, TARGET, CSM_FAILURE, value_of(call.ticket.generation), BYTES), published);
}

/* ---- claim and publish */

static void in_a_claim_before_the_slot_says_so(void) {
    csm *h = segment();
    struct check_child v = halt(h, "claim: recorded", compute);
    check_locked(h, true);
    check_kill(&v);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    check_done(h, 1, 0, 1); /* there was no flight to take over */
    check_dense(h);
    check_survived(h, 1);

    h = segment();
    v = halt(h, "claim: recorded", compute);
    check_goes_on_without(h);
    go_to_end(&v);
    CHECK(is_stored(h, TARGET));
    check_done(h, 0, 0, 1);
    check_survived(h, 1);
}

static void between_reserve_and_unlock(void) {
    csm *h = segment();
    struct check_child v = halt(h, "publish: reserved", compute);
    check_locked(h, true);
    check_kill(&v);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    check_done(h, 1, 1, 2);
    check_dense(h);
    check_survived(h, 1);

    h = segment();
    v = halt(h, "publish: reserved", compute);
    check_goes_on_without(h);
    go_to_end(&v);
    CHECK(is_stored(h, TARGET));
    check_done(h, 0, 0, 1);
    check_survived(h, 1);
}

static void outside_the_lock(const char *point) {
    csm *h = segment();
    struct check_child v = halt(h, point, compute);
    check_locked(h, false);
    check_is_computing(h);
    check_kill(&v);
    CHECK(!is_stored(h, TARGET));
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    check_done(h, 0, 1, 2);
    check_dense(h);
    check_survived(h, 1);

    h = segment(); /* stopped, and nothing happens meanwhile */
    v = halt(h, point, compute);
    check_is_computing(h);
    go_to_end(&v);
    CHECK(is_stored(h, TARGET));
    check_done(h, 0, 0, 1);

    h = segment(); /* stopped, and a reset: the late writer pins two chunks, and writes into nothing else */
    published = CSM_STALE;
    v = halt(h, point, compute);
    check_reset(h);
    CHECK_EQ(fill_arena(h), FIT - 1);
    go_to_end(&v);
    CHECK(!is_stored(h, TARGET));
    CHECK_EQ(check_stat(h, CSM_STAT_STALE), 1);
    check_survived(h, 1);
}
static void between_reserve_and_copy(void) { outside_the_lock("publish: before copy"); }
static void between_copy_and_commit(void) { outside_the_lock("publish: copied"); }

static void between_the_commit_and_its_counting(void) {
    csm *h = segment();
    struct check_child v = halt(h, "commit: not counted", compute);
    check_kill(&v);
    CHECK(is_stored(h, TARGET)); /* before anybody has repaired anything */
    CHECK_EQ(check_info(h).entries, BEFORE);
    CHECK_EQ(obtain(h, OTHER), CSM_OK);
    CHECK_EQ(check_info(h).entries, BEFORE + 2);
    check_done(h, 1, 0, 2);
    check_dense(h);
    check_survived(h, 1);

    h = segment();
    v = halt(h, "commit: not counted", compute);
    CHECK(is_stored(h, TARGET));
    check_goes_on_without(h);
    go_to_end(&v);
    CHECK_EQ(check_info(h).entries, BEFORE + 1);
    check_survived(h, 1);
}

/* ---- wake-ups */

/* Two wait for TARGET when it is published; the publisher gets as far as `point`. */
static void while_two_wait(const char *point, bool kill_it) {
    csm *h = segment();
    struct check_child one = waiter_start(h), two = waiter_start(h), v = halt(h, point, compute_slowly);
    waiter_wait(&one, h);
    waiter_wait(&two, h);
    go_on(&v);
    check_locked(h, false);
    if (kill_it) check_kill(&v);
    check_hear(&one, 'd');
    check_hear(&two, 'd');
    if (!kill_it) go_to_end(&v);
    check_done(h, 0, 0, 1); /* they got what was published */
    check_kill(&one);
    check_kill(&two);
    check_survived(h, 1);
}
static void between_unlock_and_the_wake_ups(void) {
    while_two_wait("finish: before wake-ups", true);
    while_two_wait("finish: before wake-ups", false);
}
static void between_two_wake_ups(void) {
    while_two_wait("wake: one of them", true);
    while_two_wait("wake: one of them", false);
}

static void compute_watched(struct check_child *me, csm *h) {
    (void)me;
    csm_call call;
    CHECK_EQ(check_claim(check_join(h), TARGET, &call), CSM_OWNER);
    value_of(1);
    step_begin();
    int code = publish_value(h, &call, TARGET);
    step_end();
    CHECK_EQ(code, CSM_OK);
}

/* sem_post stores, then wakes, if it sees somebody asleep, by a system call: the only one of its kind in a publish. A process that
 * is killed where that call begins does not make it. False: the waiter was between two slices of its sleep, and not to be woken. */
static bool post_without_waking(bool kill_it) {
    csm *h = segment();
    struct check_child waiter = waiter_start(h), v = check_fork(compute_watched, h);
    step_attach(&v);
    waiter_wait(&waiter, h);
    bool ended = false;
    do ended = !step_call(&v);
    while (!ended && step_call_begun(&v) != SYS_futex);
    if (!ended) {
        CHECK(is_stored(h, TARGET));
        check_locked(h, false);
        if (kill_it) check_kill(&v);
        check_hear(&waiter, 'd'); /* by its slice */
        check_done(h, 0, 0, 1);
        if (!kill_it) step_over(&v);
    }
    if (ended || !kill_it) {
        step_detach(&v);
        check_end(&v);
    }
    if (ended) check_hear(&waiter, 'd');
    check_kill(&waiter);
    check_survived(h, 1);
    return !ended;
}
static void between_the_store_and_the_wake_of_a_post(void) {
    if (!step_possible()) return;
    while (!post_without_waking(true)) {
    }
    while (!post_without_waking(false)) {
    }
}

static void a_waiter_in_its_sleep(void) {
    csm *h = segment();
    struct check_child one = waiter_start(h), two = waiter_start(h), v = halt(h, "nowhere", compute_slowly);
    waiter_wait(&one, h);
    waiter_wait(&two, h);
    check_kill(&one);
    check_stop(&two);
    go_to_end(&v);
    CHECK_EQ(check_info(h).waiters, 1);
    check_continue(&two);
    check_hear(&two, 'd');
    check_done(h, 0, 0, 1);
    check_kill(&two);
    check_survived(h, 1);
}

/* ---- outcomes */

/* The owner is writing its outcome into a window. Others may use the flight's record meanwhile, but not the window. */
static void while_an_outcome_is_written(void) {
    csm *h = segment(), *other = check_another(h);
    csm_call waits, calls[4], joins;
    published = CSM_NOT_STORED;
    struct check_child v = halt(h, "outcome: begun", fail_slowly);
    CHECK_EQ(check_claim(h, TARGET, &waits), CSM_JOINED);
    go_on(&v);
    check_locked(h, false);
    CHECK_EQ(csm_wait(h, &waits, 0), CSM_TIMEOUT);
    check_kill(&v);
    CHECK_EQ(csm_wait(h, &waits, FOR_EVER), CSM_OWNER); /* the dead one's exception is lost with it */
    CHECK_EQ(check_claim(other, TARGET, &joins), CSM_JOINED);
    CHECK_EQ(check_publish_as(h, &waits, TARGET, CSM_FAILURE, value_of(1), BYTES), CSM_NOT_STORED); /* into the same window */
    CHECK_EQ(csm_wait(other, &joins, 0), CSM_OUTCOME);
    CHECK(read_outcome(other, &joins));
    check_done(h, 0, 1, 2);
    csm_leave(other);
    check_survived(h, 1);

    h = segment();
    other = check_another(h);
    published = CSM_STALE;
    v = halt(h, "outcome: begun", fail_slowly);
    CHECK_EQ(check_claim(h, TARGET, &waits), CSM_JOINED);
    go_on(&v);
    check_reset(h);
    CHECK_EQ(csm_wait(h, &waits, 0), CSM_AGAIN);
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(check_claim(h, check_key("call", i), &calls[i]), CSM_OWNER);
    for (uint32_t i = 0; i < 4; i++) {
        bool same = calls[i].ticket.flight == waits.waiter.flight;
        CHECK_EQ(same, i == 3); /* a record whose window is in use is the last choice */
        CHECK_EQ(check_claim(other, check_key("call", i), &joins), CSM_JOINED);
        CHECK_EQ(check_publish_as(h, &calls[i], check_key("call", i), CSM_FAILURE, value_of(2), BYTES), CSM_NOT_STORED);
        CHECK_EQ(csm_wait(other, &joins, 0), same ? CSM_AGAIN : CSM_OUTCOME);
        if (!same) CHECK(read_outcome(other, &joins));
    }
    go_to_end(&v);
    csm_leave(other);
    check_survived(h, 1);
}

/* It says what the flight ended with, and the flight has not ended. Who takes the flight over ends it with something else. */
static void between_an_outcome_and_the_end_of_its_flight(void) {
    csm *h = segment(), *other = check_another(h);
    csm_call waits, joins;
    published = CSM_NOT_STORED;
    struct check_child v = halt(h, "outcome: committed", fail_slowly);
    CHECK_EQ(check_claim(h, TARGET, &waits), CSM_JOINED);
    CHECK_EQ(check_claim(other, TARGET, &joins), CSM_JOINED);
    go_on(&v);
    check_locked(h, true);
    check_kill(&v);
    CHECK_EQ(csm_wait(h, &waits, FOR_EVER), CSM_OWNER);
    CHECK_EQ(publish_value(h, &waits, TARGET), CSM_OK);
    CHECK_EQ(csm_wait(other, &joins, 0), CSM_AGAIN); /* it finds the value */
    check_done(h, 1, 1, 2);
    csm_leave(other);
    check_survived(h, 1);
}

/* ---- somebody closes the descriptor meanwhile: the row is another process's when the copy is done */

static csm *careless, *heir;

static void lose_the_row(void) {
    uint32_t row = csm_row(careless);
    CHECK_EQ(close(csm_descriptor(careless)), 0);
    CHECK_EQ(csm_linked(careless), 0);
    heir = check_another(heir);
    CHECK_EQ(csm_row(heir), row);
}

static void who_has_lost_its_row_leaves_the_pins_of_the_next_owner(void) {
    csm *h = segment();
    careless = check_another(h);
    heir = h;
    csm_call call;
    CHECK_EQ(check_claim(careless, TARGET, &call), CSM_OWNER);
    armed = "publish: copied";
    instead = lose_the_row;
    CHECK_EQ(check_publish(careless, &call, TARGET, value_of(1), BYTES), CSM_FORKED);
    instead = NULL;
    for (uint32_t i = 0; i < CSM_MAX_CHUNKS; i++) CHECK_EQ(csm_load(&heir->mine->write_pins[i]), 0);
    csm_leave(heir);
    check_survived(h, 1);
}

CHECK_MAIN(CHECK_TEST(in_a_claim_before_the_slot_says_so), CHECK_TEST(between_reserve_and_unlock),
           CHECK_TEST(between_reserve_and_copy), CHECK_TEST(between_copy_and_commit),
           CHECK_TEST(between_the_commit_and_its_counting), CHECK_TEST(between_unlock_and_the_wake_ups),
           CHECK_TEST(between_two_wake_ups), CHECK_TEST(between_the_store_and_the_wake_of_a_post),
           CHECK_TEST(a_waiter_in_its_sleep), CHECK_TEST(while_an_outcome_is_written),
           CHECK_TEST(between_an_outcome_and_the_end_of_its_flight),
           CHECK_TEST(who_has_lost_its_row_leaves_the_pins_of_the_next_owner))
