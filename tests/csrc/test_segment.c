/* test_segment.c holds segment.c to:
 *   - of processes that open a blank object at the same time one makes the segment, and all use the same one;
 *   - a creator that dies or hangs holds nobody up for good, and nobody uses what it left half-made;
 *   - an object that is not a segment of this layout, is too short, or contradicts itself, is a code, not a crash;
 *   - a segment that was destroyed, or lost its name, is gone for all who use it. */
#include "check.h"

#include "step.h"

static const uint64_t LONG_NS = UINT64_C(60000000000);

/* csm_open through a description of its own. */
static int open_code(int fd, const csm_settings *settings, uint64_t timeout_ns, int *created) {
    csm *h;
    int own = csm_process_reopen(fd);
    CHECK(own >= 0);
    int code = csm_open(own, settings, timeout_ns, &h, created);
    CHECK_EQ(h != NULL, code == CSM_OK);
    if (code == CSM_OK)
        csm_leave(check_keep(h));
    else
        CHECK(close(own) == 0); /* still the caller's */
    return code;
}

static void poke(int fd, size_t at, const void *bytes, size_t n) { CHECK_EQ(pwrite(fd, bytes, n, (off_t)at), n); }

/* ---- creation */

static int blank; /* inherited by the children */

static void attach_among_others(struct check_child *me, csm *h) {
    check_hear(me, 'g');
    int created;
    CHECK_EQ(csm_open(csm_process_reopen(blank), &CHECK_SMALL, LONG_NS, &h, &created), CSM_OK);
    check_join(h);
    CHECK_EQ(check_store(h, check_key("of", (uint64_t)getpid()), 100, (uint64_t)getpid()), CSM_OK);
    check_say(me, created ? 'c' : 'a');
    check_hear(me, 'e');
}

static void one_of_eight_makes_the_segment(void) {
    enum { N = 8 };
    for (int round = 0; round < 15; round++) {
        struct check_child children[N];
        blank = check_object();
        for (int i = 0; i < N; i++) children[i] = check_fork(attach_among_others, NULL);
        for (int i = 0; i < N; i++) check_say(&children[i], 'g');
        int creators = 0;
        for (int i = 0; i < N; i++) {
            char word;
            CHECK_EQ(read(children[i].from, &word, 1), 1);
            CHECK(word == 'c' || word == 'a');
            creators += word == 'c';
        }
        CHECK_EQ(creators, 1);
        csm *h = check_open(blank, &CHECK_SMALL);
        CHECK_EQ(check_info(h).processes, N);
        CHECK_EQ(csm_generation(h), 1);
        for (int i = 0; i < N; i++) check_say(&children[i], 'e');
        for (int i = 0; i < N; i++) check_end(&children[i]);
        check_join(h);
        for (int i = 0; i < N; i++)
            CHECK(check_has(h, check_key("of", (uint64_t)children[i].pid), 100, (uint64_t)children[i].pid));
        check_sound(h);
        csm_leave(h);
        close(blank);
    }
}

static void guard_and_hang(struct check_child *me, csm *h) {
    (void)h;
    int fd = csm_process_reopen(blank);
    CHECK_EQ(csm_guard(fd), CSM_OK);
    check_say(me, 'g');
    check_hear(me, '-');
}

static void a_creator_that_hangs_is_waited_for_and_a_dead_one_is_not(void) {
    int created;
    blank = check_object();
    struct check_child creator = check_fork(guard_and_hang, NULL);
    check_hear(&creator, 'g');
    CHECK_EQ(csm_guard(blank), CSM_BUSY);
    CHECK_EQ(open_code(blank, &CHECK_SMALL, 1000000, &created), CSM_BUSY);
    check_stop(&creator);
    CHECK_EQ(open_code(blank, &CHECK_SMALL, 1000000, &created), CSM_BUSY);
    check_kill(&creator);
    CHECK_EQ(open_code(blank, &CHECK_SMALL, 0, &created), CSM_OK);
    CHECK_EQ(created, 1);
    CHECK_EQ(open_code(blank, &CHECK_SMALL, 0, &created), CSM_OK);
    CHECK_EQ(created, 0);
    CHECK_EQ(csm_guard(blank), CSM_OK);
    csm_unguard(blank);
}

/* Sized and partly filled in, but never declared usable. It is made anew under its name, not here. */
static void what_a_dead_creator_left_is_not_used(void) {
    int created, fd = check_object();
    CHECK(ftruncate(fd, (off_t)csm_segment_bytes(&CHECK_SMALL)) == 0);
    CHECK_EQ(open_code(fd, &CHECK_SMALL, 0, &created), CSM_GONE);
    const uint64_t magic = CSM_MAGIC;
    poke(fd, 0, &magic, sizeof magic);
    CHECK_EQ(open_code(fd, &CHECK_SMALL, 0, &created), CSM_GONE);
    CHECK_EQ(created, 0);
}

static void settings_are_checked_and_an_existing_segment_keeps_its_own(void) {
    int created, fd = check_object();
    for (int i = 0; i < 10; i++) {
        csm_settings bad = CHECK_SMALL;
        switch (i) {
        case 0: bad.memory_limit = CSM_MIN_LIMIT - 1; break;
        case 1: bad.memory_limit = CSM_MAX_LIMIT + 1; break;
        case 2: bad.max_items = 0; break;
        case 3: bad.max_items = CSM_MAX_ITEMS + 1; break;
        case 4: bad.rows = 0; break;
        case 5: bad.rows = CSM_MAX_ROWS + 1; break;
        case 6: bad.flights = 0; break;
        case 7: bad.flights = CSM_MAX_FLIGHTS + 1; break;
        case 8: bad.nodes = 0; break;
        case 9: bad.nodes = CSM_MAX_NODES + 1; break;
        }
        CHECK_EQ(csm_segment_bytes(&bad), 0);
        CHECK_EQ(open_code(fd, &bad, 0, &created), CSM_INVALID);
    }
    csm *h = check_join(check_open(fd, &CHECK_SMALL));
    csm_settings other = {.memory_limit = 1 << 20, .max_items = 7, .rows = 3, .flights = 2, .nodes = 1};
    csm *again = check_join(check_open(fd, &other));
    CHECK_EQ(check_info(again).memory_limit, CHECK_SMALL.memory_limit);
    CHECK_EQ(check_info(again).max_items, CHECK_SMALL.max_items);
    CHECK_EQ(csm_mapped_bytes(again), csm_segment_bytes(&CHECK_SMALL));
    CHECK(csm_is_object(h, csm_descriptor(again)) == 1 && csm_is_object(h, STDERR_FILENO) == 0);
}

static void open_watched(struct check_child *me, csm *h) {
    (void)me;
    int created, fd = csm_process_reopen(blank);
    step_begin();
    int code = csm_open(fd, &CHECK_SMALL, 0, &h, &created);
    step_end();
    CHECK_EQ(code, CSM_OK);
}

/* Whoever is held up in any system call of its opening, and finds the object made by another one when it goes on. */
static void an_opener_may_be_overtaken_by_a_creator(void) {
    if (!step_possible()) return;
    uint32_t overtaken = 0;
    for (bool ended = false; !ended; overtaken++) {
        blank = check_object();
        struct check_child slow = check_fork(open_watched, NULL);
        step_attach(&slow);
        for (uint32_t i = 0; i <= overtaken && !ended; i++) ended = !step_call(&slow);
        int created, code = open_code(blank, &CHECK_SMALL, 0, &created);
        CHECK(code == CSM_OK || code == CSM_BUSY); /* busy: the slow one was there first */
        if (!ended) step_over(&slow);
        step_detach(&slow);
        check_end(&slow);
    }
    CHECK(overtaken > 10);
}

/* ---- strange objects */

static void what_is_not_a_segment_of_this_layout_is_refused(void) {
    int created, fd = check_object();
    poke(fd, 0, "not a segment", 13);
    CHECK_EQ(open_code(fd, &CHECK_SMALL, 0, &created), CSM_LAYOUT);
    CHECK(ftruncate(fd, 100000) == 0);
    CHECK_EQ(open_code(fd, &CHECK_SMALL, 0, &created), CSM_LAYOUT);
    struct {
        size_t at, n;
        uint64_t value;
    } const changes[] = {{offsetof(struct csm_header, magic), 8, CSM_MAGIC + 1},
                         {offsetof(struct csm_header, layout), 4, CSM_LAYOUT_VERSION + 1},
                         {offsetof(struct csm_header, layout), 4, 0},
                         {offsetof(struct csm_header, sem_bytes), 4, 16 << 8 | 1}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        csm *h = check_segment(&CHECK_SMALL);
        poke(csm_descriptor(h), changes[i].at, &changes[i].value, changes[i].n);
        CHECK_EQ(open_code(csm_descriptor(h), &CHECK_SMALL, 0, &created), CSM_LAYOUT);
        CHECK_EQ(csm_in_use(csm_descriptor(check_segment(&CHECK_SMALL))), 0); /* its own lock is not another's */
        CHECK_EQ(csm_in_use(csm_process_reopen(csm_descriptor(h))), 1); /* of whatever layout */
    }
}

static void a_truncated_segment_is_refused(void) {
    int created;
    for (uint64_t bytes = csm_segment_bytes(&CHECK_SMALL); bytes;) {
        bytes = bytes > 100000 ? bytes - 100000 : bytes > 511 ? bytes / 2 : 0;
        int fd = check_object();
        csm *h = check_open(fd, &CHECK_SMALL);
        csm_leave(h);
        CHECK(ftruncate(fd, (off_t)bytes) == 0);
        int code = open_code(fd, &CHECK_SMALL, 0, &created);
        CHECK_EQ(code, bytes >= 512 ? CSM_CORRUPT : bytes ? CSM_LAYOUT : CSM_OK);
        CHECK_EQ(created, bytes == 0); /* an empty object is a blank one */
        close(fd);
    }
}

/* Any bit. What does not describe the segment (the creation time, say, or padding) may be anything. */
static void a_damaged_header_is_refused(void) {
    csm *h = check_segment(&CHECK_SMALL);
    int created, fd = csm_descriptor(h);
    unsigned char byte, changed;
    for (size_t at = 0; at < 512; at++)
        for (int bit = 0; bit < 8; bit++) {
            CHECK_EQ(pread(fd, &byte, 1, (off_t)at), 1);
            changed = byte ^ (unsigned char)(1u << bit);
            poke(fd, at, &changed, 1);
            int code = open_code(fd, &CHECK_SMALL, 1, &created);
            if (at >= offsetof(struct csm_header, geometry) &&
                at < offsetof(struct csm_header, geometry) + sizeof(struct csm_geometry))
                CHECK_EQ(code, CSM_CORRUPT);
            else
                CHECK(code == CSM_OK || code == CSM_LAYOUT || code == CSM_GONE || code == CSM_CORRUPT);
            CHECK_EQ(created, 0);
            poke(fd, at, &byte, 1);
        }
    check_sound(h);
}

/* A consistent geometry of other settings, but not the one that was hashed. */
static void another_segments_geometry_is_refused(void) {
    csm_settings settings = CHECK_SMALL;
    settings.max_items = 17;
    csm *h = check_segment(&CHECK_SMALL), *other = check_segment(&settings);
    int created;
    poke(csm_descriptor(h), offsetof(struct csm_header, geometry), &other->geo, sizeof other->geo);
    CHECK_EQ(open_code(csm_descriptor(h), &CHECK_SMALL, 0, &created), CSM_CORRUPT);
}

/* ---- the end */

static void a_destroyed_segment_is_gone_for_all(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter, call;
    csm_view *view;
    int created;
    CHECK_EQ(check_store(a, "k", 100, 1), CSM_OK);
    CHECK_EQ(csm_view_acquire(b, "k", 1, &view), CSM_OK);
    CHECK_EQ(check_claim(a, "other", &owner), CSM_OWNER);
    CHECK_EQ(check_claim(b, "other", &waiter), CSM_JOINED);
    CHECK_EQ(csm_destroy(a), CSM_OK);
    CHECK(csm_destroyed(a) && csm_destroyed(b));
    CHECK_EQ(csm_find(b, "k", 1), 0);
    CHECK_EQ(csm_wait(b, &waiter, LONG_NS), CSM_AGAIN);
    CHECK_EQ(check_claim(b, "other", &call), CSM_GONE);
    CHECK_EQ(check_publish(a, &owner, "other", "v", 1), CSM_STALE);
    CHECK_EQ(open_code(csm_descriptor(a), &CHECK_SMALL, 0, &created), CSM_GONE);
    CHECK(check_filled(view->data, 100, 1)); /* for as long as it is held */
    csm_view_release(view);
}

static void unlink_object(csm *h) {
    char path[512], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", csm_descriptor(h));
    ssize_t n = readlink(link, path, sizeof path - 1);
    CHECK(n > 0);
    path[n] = 0;
    CHECK(unlink(path) == 0);
}

/* False: the segment is gone. */
static bool claims(csm *h) {
    csm_call call;
    int code = check_claim(h, "other", &call);
    if (code == CSM_OWNER) CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    CHECK(code == CSM_OWNER || code == CSM_GONE);
    return code == CSM_OWNER;
}

static void a_segment_without_a_name_is_gone_for_all(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    CHECK_EQ(check_store(a, "k", 100, 1), CSM_OK);
    CHECK_EQ(csm_linked(a), 1);
    unlink_object(a);
    CHECK_EQ(csm_linked(a), 0);
    CHECK(csm_destroyed(b) && csm_linked(b) == 0);
    csm_call call;
    CHECK_EQ(check_claim(b, "other", &call), CSM_GONE);
    a = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(a, "k", 100, 1), CSM_OK);
    unlink_object(a);
    while (csm_find(a, "k", 1) > 0) { /* who only ever hits finds out, */
    }
    CHECK(csm_destroyed(a));
    a = check_segment(&CHECK_SMALL);
    unlink_object(a);
    CHECK(!claims(a)); /* and who misses, at once */
    CHECK(csm_destroyed(a));
}

/* A daemon closes "all" descriptors; the next open gets the number. */
static void a_handle_whose_descriptor_was_closed_is_gone(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    int fd = csm_descriptor(b);
    CHECK_EQ(csm_linked(b), 1);
    CHECK(close(fd) == 0);
    CHECK_EQ(csm_linked(b), 0);
    CHECK_EQ(dup2(STDERR_FILENO, fd), fd);
    CHECK_EQ(csm_linked(b), 0);
    CHECK(!claims(b));
    CHECK(!csm_destroyed(a));
    CHECK_EQ(check_store(a, "k", 10, 1), CSM_OK); /* the segment itself is well */
}

CHECK_MAIN(CHECK_TEST(one_of_eight_makes_the_segment),
           CHECK_TEST(a_creator_that_hangs_is_waited_for_and_a_dead_one_is_not),
           CHECK_TEST(what_a_dead_creator_left_is_not_used),
           CHECK_TEST(settings_are_checked_and_an_existing_segment_keeps_its_own),
           CHECK_TEST(an_opener_may_be_overtaken_by_a_creator),
           CHECK_TEST(what_is_not_a_segment_of_this_layout_is_refused), CHECK_TEST(a_truncated_segment_is_refused),
           CHECK_TEST(a_damaged_header_is_refused), CHECK_TEST(another_segments_geometry_is_refused),
           CHECK_TEST(a_destroyed_segment_is_gone_for_all), CHECK_TEST(a_segment_without_a_name_is_gone_for_all),
           CHECK_TEST(a_handle_whose_descriptor_was_closed_is_gone))
