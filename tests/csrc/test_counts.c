/* test_counts.c holds the core to what it says of counting: each is in the process's row as soon as it can have one, by whomever
 * and whenever it is counted, so that it outlives a kill; what could only be counted without a row is there once there is one.
 * Also under ThreadSanitizer. */
#include "check.h"

#include "stats.h"

static void hot(csm *h, uint64_t times) {
    for (uint64_t i = 0; i < times; i++) {
        uint64_t *at = csm_load(csm_hot(h)), hits = csm_load(at) + 1;
        csm_store(at, hits);
        if (hits % CSM_HOT_LOOK == 0) csm_hot_settle(h, h);
    }
}

/* All that others see: the handle of another process. */
static void expect(csm *other, uint64_t hits, uint64_t hot_hits) {
    CHECK_EQ(check_stat(other, CSM_STAT_HITS), hits);
    CHECK_EQ(check_stat(other, CSM_STAT_HOT_HITS), hot_hits);
}

static void store(csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    CHECK_EQ(check_publish(h, &call, "k", "value", 5), CSM_OK);
}

static void find(csm *h, uint64_t times) {
    for (uint64_t i = 0; i < times; i++) CHECK(csm_find(h, "k", 1) > 0);
}

/* ---- a forked child, which has no row at first */

static void hits_hot_objects(struct check_child *me, csm *h) {
    CHECK_EQ(csm_row(h), CSM_NO_INDEX);
    hot(h, 7);
    check_say(me, 'h');
    check_hear(me, 'x');
}

static void finds(struct check_child *me, csm *h) {
    CHECK_EQ(csm_row(h), CSM_NO_INDEX);
    find(h, 3);
    check_say(me, 'h');
    check_hear(me, 'x');
}

static void a_forked_child_that_only_hits_is_counted_while_it_lives_and_after_its_death(void) {
    csm *h = check_segment(&CHECK_SMALL), *other = check_another(h);
    store(h);
    hot(h, 10);
    struct check_child one = check_fork(hits_hot_objects, h), two = check_fork(finds, h);
    check_hear(&one, 'h');
    check_hear(&two, 'h');
    expect(other, 3, 17);
    CHECK_EQ(check_info(other).processes, 4);
    check_kill(&one);
    check_kill(&two);
    expect(other, 3, 17);
    hot(h, 1);
    find(h, 1);
    expect(other, 4, 18);
}

/* ---- no row to be had */

/* Holds all rows that are free. Their mark need not say so. */
static int take_all_rows(csm *h) {
    int fd = csm_process_reopen(csm_descriptor(h));
    CHECK(fd >= 0);
    for (uint32_t row = 0; row < CHECK_SMALL.rows; row++) csm_process_lock_byte(fd, CSM_LOCK_ROWS + row);
    return fd;
}

static void what_is_counted_while_all_rows_are_taken_is_there_once_one_is_free(void) {
    csm *other = check_segment(&CHECK_SMALL);
    store(other);
    csm *h = check_open(csm_descriptor(other), &CHECK_SMALL);
    int fd = take_all_rows(other);
    hot(h, 3);
    find(h, 5);
    CHECK_EQ(csm_row(h), CSM_NO_INDEX);
    expect(other, 0, 0);
    expect(h, 5, 3); /* who asks for himself has his own as well */
    close(fd);
    find(h, 3); /* the ninth hit tries again */
    CHECK_EQ(csm_row(h), CSM_NO_INDEX);
    find(h, 1);
    CHECK(csm_row(h) != CSM_NO_INDEX);
    expect(other, 9, 0);
    csm_hot_settle(h, h); /* at the next look, or miss */
    expect(other, 9, 3);
    csm_hot_settle(h, h);
    hot(h, 2);
    expect(other, 9, 5);
}

static void hot_hits_alone_try_for_a_row_at_ever_longer_intervals(void) {
    csm *other = check_segment(&CHECK_SMALL);
    csm *h = check_open(csm_descriptor(other), &CHECK_SMALL);
    int fd = take_all_rows(other);
    hot(h, 1 + 3 * CSM_HOT_LOOK - 1);
    close(fd);
    hot(h, 1); /* the third look: not a power of two */
    CHECK_EQ(csm_row(h), CSM_NO_INDEX);
    hot(h, CSM_HOT_LOOK - 1);
    expect(other, 0, 0);
    hot(h, 1);
    CHECK(csm_row(h) != CSM_NO_INDEX);
    expect(other, 0, 4 * CSM_HOT_LOOK + 1);
}

/* As in hot(), with another thread in between. */
static void hit_while_a_row_is_won(csm *h, int fd) {
    uint64_t *at = csm_load(csm_hot(h)), hits = csm_load(at) + 1;
    if (fd >= 0) close(fd);
    CHECK_EQ(csm_process_enter(h), CSM_OK);
    csm_store(at, hits);
    if (hits % CSM_HOT_LOOK == 0) csm_hot_settle(h, h);
}

static void a_hit_in_the_middle_of_which_a_row_is_won_is_not_lost(void) {
    csm *other = check_segment(&CHECK_SMALL), *h = check_open(csm_descriptor(other), &CHECK_SMALL);
    hit_while_a_row_is_won(h, -1);
    expect(other, 0, 1); /* the first one of a process that had no row yet: at once */
    csm *late = check_open(csm_descriptor(other), &CHECK_SMALL);
    int fd = take_all_rows(other);
    hot(late, 3);
    hit_while_a_row_is_won(late, fd);
    hot(late, 2);
    expect(other, 0, 3); /* of one that could have none: with the former ones, */
    csm_hot_settle(late, late);
    expect(other, 0, 7); /* by the next miss or look */
}

/* ---- the row is lost */

static void what_was_counted_after_the_row_was_lost_goes_to_the_handle_that_is_next(void) {
    csm *other = check_segment(&CHECK_SMALL), *h = check_another(other);
    store(other);
    hot(h, 10);
    find(h, 4);
    close(csm_descriptor(h));
    CHECK_EQ(csm_linked(h), 0);
    CHECK_EQ(csm_row(h), CSM_NO_INDEX);
    hot(h, 5);
    find(h, 2);
    expect(other, 4, 10);
    csm *next = check_another(other);
    csm_hot_settle(h, next);
    expect(other, 6, 15);
    csm *elsewhere = check_segment(&CHECK_SMALL);
    hot(h, 1);
    csm_hot_settle(h, elsewhere);
    expect(elsewhere, 0, 0);
}

/* ---- a row is won while other threads count */

enum { TURNS = 400, COUNTS = 200 };

struct counter {
    csm *h;
    pthread_barrier_t *start;
    uint64_t counted;
};

static void *count_hits(void *argument) {
    struct counter *me = argument;
    pthread_barrier_wait(me->start);
    for (me->counted = 0; me->counted < COUNTS; me->counted++) csm_stat_add(me->h, CSM_STAT_HITS, 1);
    return NULL;
}

static void *count_hot_hits(void *argument) {
    struct counter *me = argument;
    pthread_barrier_wait(me->start);
    hot(me->h, COUNTS);
    return NULL;
}

static void *enter(void *argument) {
    struct counter *me = argument;
    pthread_barrier_wait(me->start);
    CHECK_EQ(csm_process_enter(me->h), CSM_OK);
    return NULL;
}

static void nothing_is_lost_when_a_row_is_won_while_other_threads_count(void) {
    csm *other = check_segment(&CHECK_SMALL);
    for (uint64_t turn = 1; turn <= TURNS; turn++) {
        csm *h = check_open(csm_descriptor(other), &CHECK_SMALL);
        pthread_barrier_t start;
        CHECK_EQ(pthread_barrier_init(&start, NULL, 4), 0);
        struct counter each = {.h = h, .start = &start}, again = each, hits = each, winner = each; /* CHECK_EQ is a block: not in it */
        pthread_t threads[4];
        CHECK_EQ(pthread_create(&threads[0], NULL, count_hits, &each), 0);
        CHECK_EQ(pthread_create(&threads[1], NULL, count_hits, &again), 0);
        CHECK_EQ(pthread_create(&threads[2], NULL, count_hot_hits, &hits), 0);
        CHECK_EQ(pthread_create(&threads[3], NULL, enter, &winner), 0);
        for (int i = 0; i < 4; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
        pthread_barrier_destroy(&start);
        csm_hot_settle(h, h);
        expect(other, turn * 2 * COUNTS, turn * COUNTS);
        csm_leave(h);
    }
}

static void hot_hits_are_counted_in_no_other_way(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_count(h, CSM_STAT_HOT_HITS, 5);
    expect(h, 0, 0);
}

CHECK_MAIN(CHECK_TEST(a_forked_child_that_only_hits_is_counted_while_it_lives_and_after_its_death),
           CHECK_TEST(what_is_counted_while_all_rows_are_taken_is_there_once_one_is_free),
           CHECK_TEST(hot_hits_alone_try_for_a_row_at_ever_longer_intervals),
           CHECK_TEST(a_hit_in_the_middle_of_which_a_row_is_won_is_not_lost),
           CHECK_TEST(what_was_counted_after_the_row_was_lost_goes_to_the_handle_that_is_next),
           CHECK_TEST(nothing_is_lost_when_a_row_is_won_while_other_threads_count),
           CHECK_TEST(hot_hits_are_counted_in_no_other_way))
