/* test_join.c holds csm_join (segment.c) to:
 *   - who joins finds the cache as its lifetime and configured version say;
 *   - of several joiners who find it cold one flips, whatever they are held up in;
 *   - nobody looks as if it had joined before it has, and beside a stopped holder of the lock only who has nothing to
 *     flip joins. */
#include "check.h"

#include "lock.h"
#include "step.h"

static const uint64_t LONG_NS = UINT64_C(60000000000);

static int blank; /* inherited by the children */

static int joined(csm *h, int role, int cold_when_alone, const char *config) {
    int flipped = -1;
    CHECK_EQ(csm_join(h, role, cold_when_alone, config, strlen(config), &flipped), CSM_OK);
    return flipped;
}

static csm *fresh_handle(int fd) { return check_open(fd, &CHECK_SMALL); }

static void version_is(csm *h, const char *want, uint64_t in_generation) {
    char version[CSM_VERSION_BYTES];
    size_t bytes;
    uint64_t generation;
    CHECK_EQ(csm_version(h, version, sizeof version, &bytes, &generation), CSM_OK);
    CHECK_EQ(generation, in_generation);
    CHECK(bytes == strlen(want) && memcmp(version, want, bytes) == 0);
}

static void with_lifetime_app_it_starts_cold_when_nobody_lives(void) {
    int fd = check_object();
    csm *a = fresh_handle(fd), *b = fresh_handle(fd), *c = fresh_handle(fd), *o = fresh_handle(fd);
    CHECK_EQ(joined(a, CSM_APP, 1, ""), 0); /* new and empty: nothing to flip */
    check_reset(a);
    CHECK_EQ(check_store(a, "k", 10, 1), CSM_OK);
    CHECK_EQ(joined(b, CSM_APP, 1, ""), 0); /* somebody lives */
    CHECK_EQ(joined(a, CSM_APP, 1, ""), 0); /* again, with another */
    csm_leave(a);
    CHECK(check_has(b, "k", 10, 1));
    CHECK_EQ(joined(o, CSM_OBSERVER, 0, ""), 0);
    check_sound(o); /* takes a row */
    CHECK_EQ(check_info(o).observers, 1);
    csm_leave(b);
    CHECK_EQ(joined(c, CSM_APP, 1, ""), 1); /* observers do not count */
    CHECK(!check_has(c, "k", 10, 1));
    version_is(c, "2", 3);
    csm_leave(c);
    c = fresh_handle(fd);
    CHECK_EQ(joined(c, CSM_APP, 1, ""), 0); /* it is empty still */
    CHECK_EQ(check_store(c, "k", 10, 2), CSM_OK);
    csm_leave(c);
    c = fresh_handle(fd);
    CHECK_EQ(joined(c, CSM_APP, 0, ""), 0); /* lifetime "host" */
    CHECK(check_has(c, "k", 10, 2));
}

static void join_among_others(struct check_child *me, csm *h) {
    h = fresh_handle(blank);
    check_hear(me, 'g');
    check_say(me, joined(h, CSM_APP, 1, "") ? 'f' : 'j');
    check_hear(me, 'e');
}

static void store_and_hang(struct check_child *me, csm *h) {
    h = check_join(fresh_handle(blank));
    CHECK_EQ(check_store(h, "k", 10, 1), CSM_OK);
    check_say(me, 's');
    check_hear(me, '-');
}

/* A whole deployment is killed, and starts again. */
static void of_all_who_join_after_a_kill_one_flips(void) {
    enum { N = 6 };
    blank = check_object();
    for (uint64_t round = 1; round <= 10; round++) {
        struct check_child old = check_fork(store_and_hang, NULL), children[N];
        check_hear(&old, 's');
        check_kill(&old);
        for (int i = 0; i < N; i++) children[i] = check_fork(join_among_others, NULL);
        for (int i = 0; i < N; i++) check_say(&children[i], 'g');
        int flips = 0;
        for (int i = 0; i < N; i++) {
            char word;
            CHECK_EQ(read(children[i].from, &word, 1), 1);
            CHECK(word == 'f' || word == 'j');
            flips += word == 'f';
        }
        CHECK_EQ(flips, 1);
        for (int i = 0; i < N; i++) check_say(&children[i], 'e');
        for (int i = 0; i < N; i++) check_end(&children[i]);
        csm *h = fresh_handle(blank);
        CHECK_EQ(csm_generation(h), 1 + round);
        csm_leave(h);
    }
}

static void join_watched(struct check_child *me, csm *h) {
    h = fresh_handle(blank);
    step_begin();
    int flipped, code = csm_join(h, CSM_APP, 1, NULL, 0, &flipped);
    step_end();
    CHECK_EQ(code, CSM_OK);
    check_say(me, flipped ? 'f' : 'j');
    check_hear(me, 'e');
}

/* The same, with one joiner held up where the kernel says that it has the dead one's row, but the row does not yet. */
static void also_while_one_is_about_to_take_a_dead_ones_row(void) {
    if (!step_possible()) return;
    blank = check_object();
    struct check_child old = check_fork(store_and_hang, NULL);
    check_hear(&old, 's');
    check_kill(&old);
    csm *h = fresh_handle(blank);
    struct check_child slow = check_fork(join_watched, NULL);
    step_attach(&slow);
    while (!csm_process_row_held(h, 0)) CHECK(step_once(&slow));
    int flips = joined(h, CSM_APP, 1, "");
    step_detach(&slow);
    check_stopped(&slow); /* at its step_end */
    check_continue(&slow);
    char word;
    CHECK_EQ(read(slow.from, &word, 1), 1);
    CHECK_EQ(flips + (word == 'f'), 1);
    CHECK(!check_has(h, "k", 10, 1));
    check_say(&slow, 'e');
    check_end(&slow);
}

/* Held up at any instruction, a joiner must not look to others as if it had joined before it has flipped. */
static void who_holds_an_apps_lock_has_flipped(void) {
    if (!step_possible()) return;
    blank = check_object();
    struct check_child old = check_fork(store_and_hang, NULL);
    check_hear(&old, 's');
    check_kill(&old);
    csm *watch = fresh_handle(blank);
    struct check_child joiner = check_fork(join_watched, NULL);
    step_attach(&joiner);
    while (!csm_process_other_apps(watch)) CHECK(step_once(&joiner));
    CHECK_EQ(csm_generation(watch), 2);
    step_over(&joiner);
    step_detach(&joiner);
    check_hear(&joiner, 'f');
    check_say(&joiner, 'e');
    check_end(&joiner);
}

static void lock_as(struct check_child *me, int role) {
    csm *h = fresh_handle(blank);
    int flipped;
    if (role != CSM_ATTACHING) CHECK_EQ(csm_join(h, role, 0, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(csm_lock(h), CSM_OK);
    check_say(me, 'l');
    check_hear(me, 'u');
    csm_unlock(h);
    check_say(me, 'u');
    check_hear(me, 'e');
}
static void lock_as_app(struct check_child *me, csm *h) { (void)h, lock_as(me, CSM_APP); }
static void lock_as_observer(struct check_child *me, csm *h) { (void)h, lock_as(me, CSM_OBSERVER); }
static void lock_while_joining(struct check_child *me, csm *h) { (void)h, lock_as(me, CSM_ATTACHING); }

/* The write lock's holder is stopped. Who comes to an app that lives has nothing to flip, and may join. Who may be the first of a new
 * deployment may not, and must not be shown what the former one left. */
static void beside_a_stopped_holder_one_joins_only_those_who_have_joined(void) {
    const struct {
        void (*holder)(struct check_child *, csm *);
        int cold_when_alone;
        const char *config;
        int code;
    } cases[] = {{lock_as_app, 1, "\"one\"", CSM_OK},       {lock_as_app, 1, "\"two\"", CSM_BUSY},
                 {lock_as_observer, 1, "", CSM_BUSY},       {lock_as_observer, 0, "", CSM_OK},
                 {lock_while_joining, 1, "", CSM_BUSY},     {lock_while_joining, 0, "\"one\"", CSM_OK},
                 {lock_while_joining, 0, "\"two\"", CSM_BUSY}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        blank = check_object();
        csm *former = fresh_handle(blank), *watch = fresh_handle(blank);
        CHECK_EQ(joined(former, CSM_APP, 1, "\"one\""), 1);
        CHECK_EQ(check_store(former, "k", 10, 1), CSM_OK);
        if (cases[i].holder != lock_as_app) csm_leave(former);
        struct check_child holder = check_fork(cases[i].holder, NULL);
        check_hear(&holder, 'l');
        check_stop(&holder);
        csm *h = fresh_handle(blank);
        int flipped;
        for (int twice = 0; twice < 2; twice++) {
            CHECK_EQ(csm_join(h, CSM_APP, cases[i].cold_when_alone, cases[i].config, strlen(cases[i].config), &flipped),
                     cases[i].code);
            CHECK_EQ(flipped, 0);
            CHECK_EQ(csm_process_other_apps(watch), cases[i].code == CSM_OK || cases[i].holder == lock_as_app);
            if (cases[i].code == CSM_OK) break;
        }
        check_continue(&holder);
        check_say(&holder, 'u');
        check_hear(&holder, 'u');
        check_say(&holder, 'e');
        check_end(&holder);
        check_sound(h);
    }
}

static void another_configured_version_is_a_reset(void) {
    int fd = check_object(), flipped;
    csm *a = fresh_handle(fd), *b = fresh_handle(fd);
    CHECK_EQ(joined(a, CSM_APP, 0, "\"one\""), 1); /* the first to say which it is */
    version_is(a, "\"one\"", 2);
    CHECK_EQ(check_store(a, "k", 10, 1), CSM_OK);
    CHECK_EQ(joined(b, CSM_APP, 0, "\"one\""), 0);
    CHECK_EQ(joined(b, CSM_APP, 0, ""), 0); /* does not say */
    CHECK(check_has(b, "k", 10, 1));
    CHECK_EQ(csm_reset_lock(b, LONG_NS), CSM_OK);
    CHECK_EQ(csm_reset_commit(b, "7", 1, 0), CSM_OK);
    csm_reset_unlock(b);
    CHECK_EQ(joined(b, CSM_APP, 0, "\"one\""), 0); /* the configuration is the same: the version went on from there */
    version_is(a, "7", 3);
    CHECK_EQ(check_store(a, "k", 10, 2), CSM_OK);
    CHECK_EQ(joined(b, CSM_APP, 0, "\"two\""), 1); /* though others live */
    CHECK(!check_has(a, "k", 10, 2));
    version_is(a, "\"two\"", 4);
    CHECK_EQ(csm_join(b, CSM_APP, 0, "", CSM_VERSION_BYTES + 1, &flipped), CSM_INVALID);
    char longest[CSM_VERSION_BYTES + 1] = {0};
    memset(longest, '9', CSM_VERSION_BYTES);
    CHECK_EQ(joined(b, CSM_APP, 0, longest), 1);
    CHECK_EQ(joined(a, CSM_APP, 0, longest), 0);
    version_is(a, longest, 5);
    check_sound(a);
}

CHECK_MAIN(CHECK_TEST(with_lifetime_app_it_starts_cold_when_nobody_lives),
           CHECK_TEST(of_all_who_join_after_a_kill_one_flips), CHECK_TEST(also_while_one_is_about_to_take_a_dead_ones_row),
           CHECK_TEST(who_holds_an_apps_lock_has_flipped),
           CHECK_TEST(beside_a_stopped_holder_one_joins_only_those_who_have_joined),
           CHECK_TEST(another_configured_version_is_a_reset))
