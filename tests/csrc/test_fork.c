/* test_fork.c holds process.c to what it says of forks:
 *   - a forked child is another process: no row, tickets, waits or stolen locks of its parent's, and neither keeps the other alive;
 *   - views that it inherits stay valid whatever the parent does, and bind nothing once both let go;
 *   - a signal handler that ends the process is not held up by what the thread it interrupts has, be it in the middle of a fork. */
#include "check.h"

#include "flight.h"
#include "lock.h"

#include <sys/resource.h>

static const uint64_t LONG_NS = UINT64_C(100000000000);

static uint64_t processes(csm *h) { return check_info(h).processes; }

/* ---- another process */

static csm_call inherited_owner, inherited_waiter;

static void use_what_is_the_parents(struct check_child *me, csm *h) {
    CHECK_EQ(check_info(h).my_row, CSM_NO_INDEX);
    CHECK_EQ(processes(h), 1); /* the parent, and not the child */
    csm_call copy = inherited_owner, call;
    CHECK_EQ(csm_wait(h, &inherited_waiter, LONG_NS), CSM_FORKED);
    csm_wait_leave(h, &inherited_waiter);
    CHECK_EQ(check_publish(h, &copy, "k", "v", 1), CSM_FORKED);
    copy = inherited_owner;
    CHECK_EQ(csm_abandon(h, &copy), CSM_FORKED);
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED); /* now it has a row */
    CHECK_EQ(processes(h), 2);
    copy = inherited_owner; /* and still no part in the parent's flight */
    CHECK_EQ(check_publish(h, &copy, "k", "v", 1), CSM_FORKED);
    CHECK_EQ(csm_wait(h, &inherited_waiter, LONG_NS), CSM_FORKED);
    csm_wait_leave(h, &call);
    check_say(me, 'd');
    check_hear(me, 'e');
}

static void a_child_has_neither_row_nor_tickets(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_claim(h, "k", &inherited_owner), CSM_OWNER);
    CHECK_EQ(check_claim(h, "k", &inherited_waiter), CSM_JOINED);
    struct check_child child = check_fork(use_what_is_the_parents, h);
    check_hear(&child, 'd');
    CHECK_EQ(check_info(h).waiters, 1);
    CHECK_EQ(csm_wait(h, &inherited_waiter, 1), CSM_TIMEOUT); /* undisturbed */
    check_say(&child, 'e');
    check_end(&child);
    CHECK_EQ(processes(h), 1);
    CHECK(csm_process_alive(check_another(h), h->self));
    CHECK_EQ(check_publish(h, &inherited_owner, "k", "v", 1), CSM_OK);
    CHECK_EQ(csm_wait(h, &inherited_waiter, LONG_NS), CSM_AGAIN);
}

/* A child that is to outlive its parent; it talks over its parent's pipes. */
static void fork_survivor(struct check_child *me, csm *h, void (*body)(struct check_child *me, csm *h)) {
    if (check_fork_process() == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
        body(me, h);
        _exit(0);
    }
    check_hear(me, '-');
}

/* Kills the parent, which leaves its pipes to the survivor. */
static void kill_parent_only(struct check_child *parent) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    CHECK(kill(parent->pid, SIGKILL) == 0);
    CHECK_EQ(waitpid(parent->pid, NULL, 0), parent->pid);
}

static void end_survivor(struct check_child *parent) {
    int status;
    CHECK(waitpid(-1, &status, 0) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(parent->from);
    close(parent->to);
}

static void stay(struct check_child *me, csm *h) {
    (void)h;
    check_say(me, 's');
    check_hear(me, 'e');
}

static void own_and_fork(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    fork_survivor(me, h, stay);
}

static void a_child_does_not_keep_its_parent_alive(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child parent = check_fork(own_and_fork, h);
    check_hear(&parent, 's');
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    kill_parent_only(&parent);
    CHECK_EQ(processes(h), 1);
    CHECK_EQ(csm_wait(h, &call, LONG_NS), CSM_OWNER); /* while the child lives */
    check_say(&parent, 'e');
    end_survivor(&parent);
}

/* ---- what is told once */

static void has_taken_no_lock(struct check_child *me, csm *h) {
    (void)me;
    uint64_t pid;
    for (int lock = 0; lock < 2; lock++) CHECK_EQ(csm_stolen(h, lock, &pid), 0);
}

static void die_with_both_locks(struct check_child *me, csm *h) {
    csm *mine = check_join(h);
    CHECK_EQ(csm_reset_lock(mine, 0), CSM_OK);
    CHECK_EQ(csm_lock(mine), CSM_OK);
    check_say(me, 'l');
    check_hear(me, 'x');
}

/* The parent has not told of it yet. Its child is not to tell as well. */
static void a_lock_that_its_parent_took_from_the_dead_is_none_of_the_childs(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child dead = check_fork(die_with_both_locks, h);
    check_hear(&dead, 'l');
    check_kill(&dead);
    check_reset(h);
    struct check_child child = check_fork(has_taken_no_lock, h);
    check_end(&child);
    uint64_t pid;
    for (int lock = 0; lock < 2; lock++) {
        CHECK_EQ(csm_stolen(h, lock, &pid), 1);
        CHECK_EQ(pid, dead.pid);
    }
}

/* ---- fork with live views */

static csm_view *inherited_view;

static void acquire(csm *h) {
    CHECK_EQ(check_store(h, "k", 1000, 42), CSM_OK);
    CHECK_EQ(csm_view_acquire(h, "k", 1, &inherited_view), CSM_OK);
}

/* Two generations come and go that would use the view's memory if they could. */
static void overwrite(csm *h) {
    for (uint32_t round = 0; round < 2; round++) {
        check_reset(h);
        int code = CSM_OK;
        for (uint32_t i = 0; code == CSM_OK; i++) code = check_store(h, check_key("over", i), 500, i);
        CHECK_EQ(code, CSM_FULL_ARENA);
    }
}

static void keep_view(struct check_child *me, csm *h) {
    (void)h;
    check_say(me, 's');
    check_hear(me, 'r');
    CHECK(check_filled(inherited_view->data, 1000, 42));
    csm_view_release(inherited_view);
    check_say(me, 'd');
    check_hear(me, 'e');
}

static void an_inherited_view_survives_its_parents_release(void) {
    csm *h = check_segment(&CHECK_SMALL);
    acquire(h);
    struct check_child child = check_fork(keep_view, h);
    check_hear(&child, 's');
    CHECK_EQ(processes(h), 2); /* the row that pins for the child */
    csm_view_release(inherited_view);
    CHECK_EQ(check_info(h).pinned_chunks, 1);
    overwrite(h);
    check_say(&child, 'r');
    check_hear(&child, 'd');
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    check_say(&child, 'e');
    check_end(&child);
    CHECK_EQ(processes(h), 1);
}

static void a_parents_view_survives_its_childs_end(void) {
    csm *h = check_segment(&CHECK_SMALL);
    acquire(h);
    struct check_child child = check_fork(keep_view, h);
    check_hear(&child, 's');
    check_kill(&child);
    CHECK_EQ(check_info(h).pinned_chunks, 1);
    overwrite(h);
    CHECK(check_filled(inherited_view->data, 1000, 42));
    csm_view_release(inherited_view);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
}

static void view_and_fork(struct check_child *me, csm *h) {
    acquire(h);
    fork_survivor(me, h, keep_view);
}

static void an_inherited_view_survives_its_parents_death(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child parent = check_fork(view_and_fork, h);
    check_hear(&parent, 's');
    kill_parent_only(&parent);
    CHECK_EQ(processes(h), 2);
    overwrite(h);
    check_say(&parent, 'r');
    check_hear(&parent, 'd');
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    check_say(&parent, 'e');
    end_survivor(&parent);
}

static void also_when_there_is_no_row_for_the_child(void) {
    csm_settings settings = CHECK_SMALL;
    settings.rows = 1;
    csm *h = check_segment(&settings);
    acquire(h);
    struct check_child child = check_fork(keep_view, h);
    check_hear(&child, 's');
    csm_view_release(inherited_view);
    overwrite(h);
    check_say(&child, 'r');
    check_hear(&child, 'd');
    overwrite(h);
    check_say(&child, 'e');
    check_end(&child);
}

static void also_when_there_is_no_descriptor_for_the_child(void) {
    csm *h = check_segment(&CHECK_SMALL);
    acquire(h);
    CHECK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, 64}) == 0);
    int fds[64], n = 0;
    while ((fds[n] = open("/dev/null", O_RDONLY)) >= 0) n++;
    for (int i = 0; i < 4; i++) close(fds[--n]); /* for check_fork's pipes */
    struct check_child child = check_fork(keep_view, h);
    while (n) close(fds[--n]);
    check_hear(&child, 's');
    csm_view_release(inherited_view);
    overwrite(h);
    check_say(&child, 'r');
    check_hear(&child, 'd');
    check_say(&child, 'e');
    check_end(&child);
    CHECK(csm_process_alive(check_another(h), h->self));
}

/* ---- exit() in a signal handler */

static csm *interrupted;

static void on_signal(int number) {
    (void)number;
    csm_call call;
    CHECK_EQ(check_claim(interrupted, "of a destructor", &call), CSM_OWNER);
    CHECK_EQ(csm_abandon(interrupted, &call), CSM_OK);
    csm_leave(interrupted); /* or not: the kernel takes the row back */
}

/* Registered before the core's, so run after it: when all the mutexes are this thread's. */
static void amid_a_fork(void) {
    if (interrupted) CHECK_EQ(raise(SIGUSR1), 0);
}

__attribute__((constructor(101))) static void register_first(void) { pthread_atfork(amid_a_fork, NULL, NULL); }

static void an_exit_in_the_middle_of_a_fork_waits_for_nothing(void) {
    csm *h = check_segment(&CHECK_SMALL);
    acquire(h);
    csm_view_release(inherited_view);
    CHECK(signal(SIGUSR1, on_signal) != SIG_ERR);
    interrupted = h;
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    interrupted = NULL;
    CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    /* Here the process went on; what it has locked it has unlocked. */
    csm *other = check_another(h);
    CHECK_EQ(check_store(other, "after", 10, 1), CSM_OK);
    csm_leave(other);
    csm_leave(h);
}

CHECK_MAIN(CHECK_TEST(an_exit_in_the_middle_of_a_fork_waits_for_nothing),
           CHECK_TEST(a_child_has_neither_row_nor_tickets), CHECK_TEST(a_child_does_not_keep_its_parent_alive),
           CHECK_TEST(a_lock_that_its_parent_took_from_the_dead_is_none_of_the_childs),
           CHECK_TEST(an_inherited_view_survives_its_parents_release),
           CHECK_TEST(a_parents_view_survives_its_childs_end), CHECK_TEST(an_inherited_view_survives_its_parents_death),
           CHECK_TEST(also_when_there_is_no_row_for_the_child),
           CHECK_TEST(also_when_there_is_no_descriptor_for_the_child))
