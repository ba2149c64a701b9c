/* test_points_others.c: killed, and stopped, in the windows of reset, repair, take-over, rows, views, fork and creation. See points.h. */
#include "points.h"

/* ---- reset */

static void reset_it(csm *h) { check_reset(check_join(h)); }

static void before_the_flip(void) {
    csm *h = segment();
    char version[CSM_VERSION_BYTES];
    size_t bytes;
    uint64_t generation;
    struct check_child v = halt(h, "flip: prepared", reset_it);
    check_kill(&v);
    CHECK_EQ(csm_version(h, version, sizeof version, &bytes, &generation), CSM_OK);
    CHECK(generation == 1 && bytes == 1 && version[0] == '1');
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    check_has(h, check_key("before", 0), 1000, 0);
    check_done(h, 1, 0, 1);
    CHECK_EQ(check_stat(h, CSM_STAT_RESETS), 0);
    check_survived(h, 1);
    CHECK_EQ(csm_version(h, version, sizeof version, &bytes, &generation), CSM_OK);
    CHECK(generation == 2 && version[0] == '2');

    h = segment();
    v = halt(h, "flip: prepared", reset_it);
    check_goes_on_without(h);
    CHECK_EQ(csm_reset_lock(h, 0), CSM_TIMEOUT);
    go_to_end(&v);
    CHECK_EQ(csm_generation(h), 2);
    check_survived(h, 1);
}

static void after_the_flip(void) {
    csm *h = segment();
    struct check_child v = halt(h, "flip: done", reset_it);
    check_kill(&v);
    CHECK_EQ(csm_generation(h), 2);
    CHECK(!is_stored(h, check_key("before", 0)));
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    check_done(h, 1, 0, 1);
    check_dense(h);
    check_survived(h, 1);

    h = segment();
    v = halt(h, "flip: done", reset_it);
    CHECK(!is_stored(h, check_key("before", 0)));
    check_goes_on_without(h);
    go_to_end(&v);
    CHECK_EQ(check_stat(h, CSM_STAT_RESETS), 1);
    check_survived(h, 1);
}

static void between_the_flip_and_the_wake_ups(void) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h = segment();
        csm_call call;
        CHECK_EQ(check_claim(h, TARGET, &call), CSM_OWNER);
        struct check_child waiter = waiter_start(h);
        waiter_wait(&waiter, h);
        struct check_child v = halt(h, "reset: before wake-ups", reset_it);
        if (kill_it) check_kill(&v);
        check_hear(&waiter, 'd'); /* by its slice; it computes in the new generation */
        CHECK(is_stored(h, TARGET));
        CHECK_EQ(publish_value(h, &call, TARGET), CSM_STALE);
        if (!kill_it) {
            CHECK_EQ(csm_reset_lock(h, 0), CSM_TIMEOUT);
            go_to_end(&v);
        }
        check_done(h, 0, 0, 2);
        check_kill(&waiter);
        check_survived(h, 1);
    }
}

/* ---- repair and take-over */

static void claim_other(csm *h) {
    csm_call call;
    int step = check_claim(check_join(h), OTHER, &call);
    CHECK_EQ(conclude(h, &call, OTHER, step), CSM_OK);
}

static void in_a_repair(const char *point) {
    csm *h = segment();
    struct check_child first = halt(h, "commit: not counted", compute);
    check_kill(&first);
    struct check_child v = halt(h, point, claim_other);
    check_kill(&v);
    CHECK_EQ(obtain(h, OTHER), CSM_OK);
    CHECK_EQ(check_info(h).entries, BEFORE + 2); /* counted once */
    check_done(h, 2, 0, 2);
    check_dense(h);
    check_survived(h, 1);

    h = segment();
    first = halt(h, "commit: not counted", compute);
    check_kill(&first);
    v = halt(h, point, claim_other);
    check_goes_on_without(h);
    go_to_end(&v);
    CHECK_EQ(check_info(h).entries, BEFORE + 2);
    check_done(h, 1, 0, 2);
    check_survived(h, 1);
}
static void between_steal_and_repair(void) { in_a_repair("lock: stolen"); }
static void in_the_middle_of_a_repair(void) { in_a_repair("repair: half-way"); }

static void in_a_take_over(void) {
    csm *h = segment();
    struct check_child first = halt(h, "publish: copied", compute);
    check_kill(&first);
    struct check_child v = halt(h, "take over: prepared", compute);
    check_kill(&v);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    check_done(h, 1, 1, 2);
    check_dense(h); /* given back once, not twice */
    check_survived(h, 1);

    h = segment();
    first = halt(h, "publish: copied", compute);
    check_kill(&first);
    v = halt(h, "take over: prepared", compute);
    check_goes_on_without(h);
    go_to_end(&v);
    check_done(h, 0, 1, 2);
    check_dense(h);
    check_survived(h, 1);
}

/* ---- rows, views and forks */

static void join_and_stay(csm *h) {
    check_join(h);
    raise(SIGSTOP);
}

/* The kernel says that somebody has the row, and the row says that it is the dead one. */
static void between_row_lock_and_incarnation(void) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h = segment();
        csm_call call;
        struct check_child first = halt(h, "publish: copied", compute);
        check_kill(&first);
        struct check_child v = halt(h, "row: locked", join_and_stay);
        check_is_computing(h); /* or so it seems: until the winner of the row goes on, or dies */
        CHECK_EQ(obtain(h, OTHER), CSM_OK);
        if (kill_it)
            check_kill(&v);
        else
            go_on(&v);
        CHECK_EQ(check_claim(h, TARGET, &call), CSM_OWNER);
        CHECK_EQ(publish_value(h, &call, TARGET), CSM_OK);
        check_done(h, 0, 1, 3);
        if (!kill_it) go_to_end(&v);
        check_survived(h, 1);
    }
}

static csm *losing;

static void find_it_closed(void) {
    CHECK_EQ(close(csm_descriptor(losing)), 0);
    CHECK_EQ(csm_linked(losing), 0);
}

/* Another thread closes all descriptors, and a third one notices. The kernel lets go of the row, so the process must not believe in it. */
static void a_descriptor_is_closed_while_a_row_is_won(void) {
    csm *h = segment();
    losing = check_open(csm_descriptor(h), &TINY);
    instead = find_it_closed;
    armed = "row: locked";
    CHECK_EQ(csm_process_enter(losing), CSM_NO_ROW);
    CHECK_EQ(csm_self(losing), 0);
    CHECK_EQ(csm_row(losing), CSM_NO_INDEX);
    CHECK(*csm_hot(losing) == &losing->early_hot && losing->mine == &losing->spare);
    CHECK_EQ(check_claim(losing, TARGET, &(csm_call){.stalled_ns = 0}), CSM_GONE);
    CHECK_EQ(csm_lock_once(losing), CSM_NO_ROW);
    CHECK(!csm_process_row_held(h, 1));
    check_survived(h, 1);
}

static void view_it(csm *h) {
    csm_view *view;
    bool stale = published == CSM_STALE;
    CHECK_EQ(csm_view_acquire(check_join(h), TARGET, strlen(TARGET), &view), stale ? CSM_MISS : CSM_OK);
    csm_view_release(view);
}

static void between_pin_and_look(void) {
    csm *h = segment();
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    struct check_child v = halt(h, "view: pinned", view_it);
    CHECK_EQ(check_info(h).pinned_chunks, 2);
    check_kill(&v);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    check_survived(h, 1);

    h = segment();
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    published = CSM_STALE;
    v = halt(h, "view: pinned", view_it);
    check_reset(h);
    CHECK_EQ(fill_arena(h), FIT - 1);
    go_to_end(&v);
    check_survived(h, 1);
}

static pid_t *forked; /* by the victim */

static void fork_with_view(csm *h) {
    csm_view *view;
    CHECK_EQ(csm_view_acquire(check_join(h), TARGET, strlen(TARGET), &view), CSM_OK);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(check_filled(view->data, BYTES, 1));
        CHECK_EQ(obtain(h, "of the child"), CSM_OK);
        csm_view_release(view);
        _exit(0);
    }
    int status;
    *forked = pid;
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    if (WIFSTOPPED(status)) {
        raise(SIGSTOP);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
    }
    CHECK(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    CHECK(check_filled(view->data, BYTES, 1));
    csm_view_release(view);
}

static csm *segment_with_target(void) {
    csm *h = segment();
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    if (!forked) forked = mmap(NULL, sizeof *forked, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(forked != MAP_FAILED);
    return h;
}

/* The parent has a row for the child that is to be, and no child. */
static void between_forks_preparation_and_the_fork(void) {
    csm *h = segment_with_target();
    struct check_child v = halt(h, "fork: row for the child", fork_with_view);
    CHECK(csm_process_row_held(h, 1) && csm_process_row_held(h, 2));
    check_kill(&v);
    CHECK(!csm_process_row_held(h, 1) && !csm_process_row_held(h, 2));
    check_survived(h, 1);

    h = segment_with_target();
    v = halt(h, "fork: row for the child", fork_with_view);
    check_reset(h);
    CHECK_EQ(fill_arena(h), FIT - 1);
    go_to_end(&v);
    check_survived(h, 1);
}

/* There is a child, which has not yet become somebody of its own. */
static void between_the_fork_and_the_childs_adoption(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int status;
    csm *h = segment_with_target(); /* the parent is killed, the child stopped for a while */
    struct check_child v = halt(h, "fork: not yet adopted", fork_with_view);
    check_kill(&v);
    CHECK(csm_process_row_held(h, 2));
    check_reset(h);
    CHECK_EQ(fill_arena(h), FIT - 1);
    CHECK(kill(*forked, SIGCONT) == 0);
    CHECK_EQ(waitpid(*forked, &status, 0), *forked);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(!csm_process_row_held(h, 1) && !csm_process_row_held(h, 2));
    check_survived(h, 1);

    h = segment_with_target(); /* the child is killed, the parent stopped for a while */
    v = halt(h, "fork: not yet adopted", fork_with_view);
    CHECK(kill(*forked, SIGKILL) == 0);
    check_reset(h);
    CHECK_EQ(fill_arena(h), FIT - 1);
    go_to_end(&v);
    CHECK(!csm_process_row_held(h, 1) && !csm_process_row_held(h, 2));
    check_survived(h, 1);
}

/* ---- creation */

static int blank;

static void create(csm *h) {
    (void)h;
    CHECK_EQ(obtain(check_join(check_open(blank, &TINY)), TARGET), CSM_OK);
}

static void before_a_new_segment_is_usable(void) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h;
        blank = check_object();
        struct check_child v = halt(NULL, "create: filled in", create);
        int created, own = csm_process_reopen(blank);
        CHECK_EQ(csm_open(own, &TINY, 0, &h, &created), CSM_BUSY);
        if (kill_it) {
            check_kill(&v);
            CHECK_EQ(csm_open(own, &TINY, 0, &h, &created), CSM_GONE);
            continue;
        }
        go_to_end(&v);
        CHECK_EQ(csm_open(own, &TINY, 0, &h, &created), CSM_OK);
        CHECK_EQ(created, 0);
        CHECK(is_stored(check_join(check_keep(h)), TARGET));
        check_survived(h, 0);
    }
}

CHECK_MAIN(CHECK_TEST(before_the_flip), CHECK_TEST(after_the_flip), CHECK_TEST(between_the_flip_and_the_wake_ups),
           CHECK_TEST(between_steal_and_repair), CHECK_TEST(in_the_middle_of_a_repair), CHECK_TEST(in_a_take_over),
           CHECK_TEST(between_row_lock_and_incarnation), CHECK_TEST(a_descriptor_is_closed_while_a_row_is_won),
           CHECK_TEST(between_pin_and_look),
           CHECK_TEST(between_forks_preparation_and_the_fork), CHECK_TEST(between_the_fork_and_the_childs_adoption),
           CHECK_TEST(before_a_new_segment_is_usable))
