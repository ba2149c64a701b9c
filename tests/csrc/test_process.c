/* test_process.c holds process.c to:
 *   - whoever holds a row is seen alive, by everybody, in whatever PID namespace; once dead, or gone, dead, at once;
 *   - a row that is used again is another owner; its predecessor's pins, locks and flights are nobody's;
 *   - a full row table is a code, and hits go on without a row;
 *   - a descriptor that somebody else closed is given up: no other file is written to, believed or closed.
 * What a fork does is in test_fork.c. */
#include "check.h"

#include "flight.h"
#include "lock.h"

#include <sched.h>

static const uint64_t LONG_NS = UINT64_C(100000000000);

static uint64_t processes(csm *h) { return check_info(h).processes; }

/* ---- rows */

static void join_and_hang(struct check_child *me, csm *h) {
    check_join(h);
    csm_call call;
    CHECK_EQ(check_claim(h, "held", &call), CSM_OWNER);
    check_say(me, 'j');
    check_hear(me, '-');
}

static void every_process_has_a_row_of_its_own(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    CHECK_EQ(check_info(a).my_row, 0);
    CHECK_EQ(check_info(b).my_row, 1);
    CHECK(csm_process_alive(a, a->self) && csm_process_alive(a, b->self));
    CHECK(csm_process_alive(b, a->self) && csm_process_alive(b, b->self));
    CHECK(csm_in_use_by_others(a) == 1 && csm_in_use(csm_descriptor(b)) == 1);
    CHECK_EQ(fcntl(csm_descriptor(a), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    uint64_t left = b->self;
    csm_leave(b);
    CHECK_EQ(processes(a), 1);
    CHECK(!csm_process_alive(a, left));
    CHECK_EQ(csm_in_use_by_others(a), 0);
    CHECK_EQ(check_claim(b, "k", &(csm_call){.stalled_ns = 0}), CSM_NO_ROW);
}

static void nonsense_is_not_alive(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    static const uint64_t NONSENSE[] = {0, 1, UINT64_MAX, UINT64_C(1) << 40, UINT64_C(0xffff) << 40};
    for (size_t i = 0; i < sizeof NONSENSE / sizeof *NONSENSE; i++) CHECK(!csm_process_alive(a, NONSENSE[i]));
    CHECK(!csm_process_alive(a, a->self + 1)); /* another incarnation of a row that is held */
    CHECK(!csm_process_alive(a, b->self + 1));
    CHECK(!csm_process_alive(a, csm_owner(CHECK_SMALL.rows - 1, 1))); /* a row that nobody ever had */
    CHECK(!csm_process_alive(a, csm_owner(CHECK_SMALL.rows, 1)));
}

static void the_dead_are_seen_at_once_and_their_rows_used_again(void) {
    csm *h = check_segment(&CHECK_SMALL);
    uint64_t last = 0;
    for (int round = 0; round < 20; round++) {
        struct check_child child = check_fork(join_and_hang, h);
        check_hear(&child, 'j');
        CHECK_EQ(processes(h), 2);
        uint64_t incarnation = csm_load(&h->rows[1].incarnation);
        CHECK(incarnation > last);
        CHECK_EQ(csm_load(&h->rows[1].pid), child.pid);
        CHECK(csm_process_alive(h, csm_owner(1, incarnation)));
        CHECK(!last || !csm_process_alive(h, csm_owner(1, last)));
        csm_call call;
        CHECK_EQ(check_claim(h, "held", &call), CSM_JOINED);
        check_kill(&child);
        CHECK(!csm_process_alive(h, csm_owner(1, incarnation)));
        CHECK_EQ(processes(h), 1);
        CHECK_EQ(csm_wait(h, &call, LONG_NS), CSM_OWNER);
        CHECK_EQ(csm_abandon(h, &call), CSM_OK);
        last = incarnation;
    }
    CHECK_EQ(check_info(h).rows_used, 2);
    CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), 20); /* what the dead counted is still counted */
    CHECK_EQ(check_stat(h, CSM_STAT_COMPUTATIONS), 40);
}

/* A row that is won again begins without the pins its predecessor died with. */
static void pin_and_hang(struct check_child *me, csm *h) {
    csm_view *view;
    for (int i = 0; i < 3; i++) CHECK_EQ(csm_view_acquire(h, "k", 1, &view), CSM_OK);
    check_say(me, 'p');
    check_hear(me, '-');
}

static void pins_die_with_their_process(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(h, "k", 1000, 1), CSM_OK);
    struct check_child child = check_fork(pin_and_hang, h);
    check_hear(&child, 'p');
    CHECK_EQ(check_info(h).pinned_chunks, 1);
    check_kill(&child);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    csm *next = check_another(h);
    CHECK_EQ(check_info(next).my_row, 1);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
}

static void a_full_row_table_is_a_code_and_hits_go_on(void) {
    csm_settings settings = CHECK_SMALL;
    settings.rows = 2;
    csm *a = check_segment(&settings), *b = check_another(a);
    CHECK_EQ(check_store(a, "k", 100, 1), CSM_OK);
    csm *c = check_open(csm_descriptor(a), &settings);
    int flipped;
    CHECK_EQ(csm_join(c, CSM_APP, 0, NULL, 0, &flipped), CSM_NO_ROW);
    csm_call call;
    csm_view *view;
    CHECK_EQ(check_claim(c, "other", &call), CSM_NO_ROW);
    CHECK_EQ(csm_view_acquire(c, "k", 1, &view), CSM_NO_ROW);
    CHECK_EQ(csm_reset_lock(c, 0), CSM_NO_ROW);
    uint64_t hits = check_stat(c, CSM_STAT_HITS);
    int64_t found = csm_find(c, "k", 1);
    CHECK(found > 0 && check_filled(csm_base(c) + (found >> 27) * 16, 100, 1));
    CHECK_EQ(check_stat(c, CSM_STAT_HITS), hits + 1); /* counted, by the process alone for now */
    csm *observer = check_open(csm_descriptor(a), &settings);
    CHECK_EQ(csm_join(observer, CSM_OBSERVER, 0, NULL, 0, &flipped), CSM_OK); /* needs none to look on */
    CHECK_EQ(check_info(observer).entries, 1);
    csm_leave(b);
    check_join(c);
    CHECK_EQ(check_stat(a, CSM_STAT_HITS), hits + 1); /* and by all, now that it has a row */
    CHECK_EQ(check_store(c, "other", 100, 2), CSM_OK);
}

/* ---- another PID namespace */

static void enter_a_namespace(struct check_child *me, csm *h) {
    if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
        check_say(me, 'n');
        return;
    }
    pid_t pid = check_fork_process();
    if (pid == 0) {
        CHECK_EQ(getpid(), 1);
        check_join(h);
        uint64_t outside = csm_owner(0, csm_load(&h->rows[0].incarnation));
        CHECK(csm_process_alive(h, outside));
        csm_call call;
        CHECK_EQ(check_claim(h, "inside", &call), CSM_OWNER);
        CHECK_EQ(check_claim(h, "outside", &call), CSM_JOINED);
        check_say(me, 'j');
        check_hear(me, 'e');
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    check_say(me, 'e');
    check_hear(me, 'e');
}

static void liveness_is_right_across_pid_namespaces(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call outside, inside;
    CHECK_EQ(check_claim(h, "outside", &outside), CSM_OWNER);
    struct check_child child = check_fork(enter_a_namespace, h);
    char word;
    CHECK_EQ(read(child.from, &word, 1), 1);
    if (word == 'n') {
        printf("       not tested: no PID namespace can be made here\n");
        check_end(&child);
        return;
    }
    CHECK_EQ(word, 'j');
    CHECK_EQ(processes(h), 2);
    CHECK_EQ(csm_load(&h->rows[1].pid), 1);
    CHECK_EQ(check_claim(h, "inside", &inside), CSM_JOINED);
    check_say(&child, 'e');
    check_hear(&child, 'e');
    CHECK_EQ(processes(h), 1);
    CHECK_EQ(csm_wait(h, &inside, LONG_NS), CSM_OWNER);
    check_say(&child, 'e');
    check_end(&child);
}

/* ---- a descriptor that somebody closed */

/* Another file gets the descriptor's number, as the next open() of a daemon that closed all it found. */
static int put_another_file_there(csm *h) {
    int at = csm_descriptor(h), file = memfd_create("another", MFD_CLOEXEC);
    CHECK(file >= 0);
    CHECK_EQ(dup2(file, at), at);
    close(file);
    return at;
}

static off_t size_of(int fd) {
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    return st.st_size;
}

static void another_file_under_its_number_is_left_alone(void) {
    csm *looker = check_segment(&CHECK_SMALL), *other = check_another(looker);
    static const char DATA[30000];
    csm_call stored, shared, waiter;
    for (int loss = 0; loss < 4; loss++) {
        csm *h = check_another(looker);
        uint64_t alive = other->self;
        CHECK_EQ(check_claim(h, check_key("stored", (uint64_t)loss), &stored), CSM_OWNER);
        CHECK_EQ(check_claim(h, check_key("shared", (uint64_t)loss), &shared), CSM_OWNER);
        CHECK_EQ(check_claim(other, check_key("shared", (uint64_t)loss), &waiter), CSM_JOINED);
        int at = put_another_file_there(h);
        /* Whatever comes first must see it. */
        if (loss == 0) CHECK(csm_process_alive(h, alive));
        if (loss == 1) CHECK(check_publish(h, &stored, check_key("stored", 1), DATA, sizeof DATA) < 0);
        if (loss == 2) CHECK(check_publish_as(h, &shared, check_key("shared", 2), CSM_UNCACHED, DATA, sizeof DATA) < 0);
        if (loss == 3) CHECK_EQ(csm_linked(h), 0);
        CHECK_EQ(check_claim(h, "next", &(csm_call){.stalled_ns = 0}), CSM_GONE);
        CHECK(csm_process_alive(other, alive) && csm_linked(other) == 1);
        CHECK_EQ(csm_wait(other, &waiter, LONG_NS), CSM_OWNER); /* to all others it is dead */
        CHECK_EQ(csm_abandon(other, &waiter), CSM_OK);
        csm_leave(h);
        CHECK_EQ(size_of(at), 0);
        CHECK_EQ(close(at), 0);
        CHECK_EQ(processes(looker), 2);
    }
    check_sound(looker);
}

static int another_file;

static void look_at_another_file(struct check_child *me, csm *h) {
    (void)me;
    CHECK_EQ(size_of(another_file), 0);
    CHECK_EQ(csm_linked(h), 0);
}

static void neither_fork_nor_leave_closes_another_file_under_its_number(void) {
    csm *h = check_segment(&CHECK_SMALL), *other = check_another(h);
    another_file = put_another_file_there(h);
    struct check_child child = check_fork(look_at_another_file, h);
    check_end(&child);
    CHECK_EQ(csm_linked(h), 0);
    CHECK_EQ(size_of(another_file), 0);
    another_file = put_another_file_there(other);
    csm_leave(other);
    CHECK_EQ(size_of(another_file), 0);
}

static void its_number_may_be_that_of_the_next_handle(void) {
    csm *looker = check_segment(&CHECK_SMALL), *lost = check_another(looker);
    int at = csm_descriptor(lost);
    close(at);
    csm *next = check_another(looker); /* the lowest free number is given out */
    while (csm_descriptor(next) != at) next = check_another(looker);
    uint64_t before = processes(looker);
    CHECK_EQ(csm_linked(lost), 0);
    csm_leave(lost);
    CHECK_EQ(csm_linked(next), 1);
    CHECK(csm_process_alive(looker, next->self));
    CHECK_EQ(processes(looker), before);
}

CHECK_MAIN(CHECK_TEST(every_process_has_a_row_of_its_own), CHECK_TEST(nonsense_is_not_alive),
           CHECK_TEST(the_dead_are_seen_at_once_and_their_rows_used_again), CHECK_TEST(pins_die_with_their_process),
           CHECK_TEST(a_full_row_table_is_a_code_and_hits_go_on), CHECK_TEST(liveness_is_right_across_pid_namespaces),
           CHECK_TEST(another_file_under_its_number_is_left_alone),
           CHECK_TEST(neither_fork_nor_leave_closes_another_file_under_its_number),
           CHECK_TEST(its_number_may_be_that_of_the_next_handle))
