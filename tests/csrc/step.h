/* step.h: runs a child one machine instruction at a time.
 *
 * So a test can look at the segment after every single store, kill the child right there, or hold it while others go on:
 * moments that neither pipes nor signals can hit. The child calls step_begin where it is to be watched and step_end after
 * that; between them its parent calls step_once. */
#ifndef STEP_H
#define STEP_H

#include "check.h"

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/user.h>

/* ---- in the child */

static inline void step_begin(void) {
    static bool traced;
    if (!traced) CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    traced = true;
    raise(SIGSTOP);
}

static inline void step_end(void) { raise(SIGSTOP); }

/* ---- in the parent */

/* The child is at step_begin. From now on the two share a processor: they take turns, and so it is ten times faster. */
static inline void step_attach(struct check_child *c) {
    check_stopped(c);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    sched_setaffinity(c->pid, sizeof one, &one);
    CHECK(ptrace(PTRACE_SETOPTIONS, c->pid, NULL, (void *)PTRACE_O_TRACESYSGOOD) == 0); /* tells stops at calls apart */
}

/* Lets the child run, as `request` says, until it stops by SIGSTOP or SIGTRAP, and tells by which. */
static inline int step_until_stop(struct check_child *c, int request) {
    for (;;) {
        CHECK(ptrace((__typeof__(PTRACE_CONT))request, c->pid, NULL, NULL) == 0);
        int status = check_wait(c, 0);
        CHECK(WIFSTOPPED(status));
        int by = WSTOPSIG(status) & ~0x80;
        if (by == SIGSTOP || by == SIGTRAP) return by;
        CHECK(by == SIGWINCH || by == SIGCONT); /* dropped; anything else, an abort for one, is a failure */
    }
}

/* One instruction. False: the child is at step_end. */
static inline bool step_once(struct check_child *c) { return step_until_stop(c, PTRACE_SINGLESTEP) == SIGTRAP; }

/* To where the next system call begins, or the one that has begun ends. False: the child is at step_end. */
static inline bool step_call(struct check_child *c) { return step_until_stop(c, PTRACE_SYSCALL) == SIGTRAP; }

/* The number of the call that begins there; -1: it ends. A child that is killed where a call begins does not make it. */
static inline int64_t step_call_begun(struct check_child *c) {
    struct __ptrace_syscall_info info;
    CHECK(ptrace(PTRACE_GET_SYSCALL_INFO, c->pid, (void *)sizeof info, &info) > 0);
    CHECK(info.op == PTRACE_SYSCALL_INFO_ENTRY || info.op == PTRACE_SYSCALL_INFO_EXIT);
    return info.op == PTRACE_SYSCALL_INFO_ENTRY ? (int64_t)info.entry.nr : -1;
}

/* The child runs to its next step_begin or step_end, and stays there. */
static inline void step_over(struct check_child *c) { CHECK_EQ(step_until_stop(c, PTRACE_CONT), SIGSTOP); }

/* From now on the child runs by itself, through step_end as if it were not there. */
static inline void step_detach(struct check_child *c) {
    CHECK(ptrace(PTRACE_DETACH, c->pid, NULL, NULL) == 0);
}

/* The child is stopped by a real SIGSTOP, at the very instruction where it is, and is not traced any more. */
static inline void step_freeze(struct check_child *c) {
    CHECK(ptrace(PTRACE_DETACH, c->pid, NULL, (void *)(intptr_t)SIGSTOP) == 0);
    check_stopped(c);
}

/* ---- where it is, and leaps: x86-64 only */

#if defined(__x86_64__)
#define STEP_LEAPS true

/* The address of the instruction that comes next. */
static inline uint64_t step_at(struct check_child *c) {
    errno = 0;
    long at = ptrace(PTRACE_PEEKUSER, c->pid, (void *)offsetof(struct user, regs.rip), NULL);
    CHECK(errno == 0);
    return (uint64_t)at;
}

static inline long step_code(struct check_child *c, uint64_t at) {
    errno = 0;
    long code = ptrace(PTRACE_PEEKTEXT, c->pid, (void *)at, NULL);
    CHECK(errno == 0);
    return code;
}

/* The number of the system call that comes next; -1: something else comes. */
static inline long step_at_call(struct check_child *c) {
    if ((step_code(c, step_at(c)) & 0xffff) != 0x050f) return -1; /* "syscall" */
    return ptrace(PTRACE_PEEKUSER, c->pid, (void *)offsetof(struct user, regs.rax), NULL);
}

/* Where the function that the child has just been called into goes back to. */
static inline uint64_t step_return(struct check_child *c) {
    errno = 0;
    long stack = ptrace(PTRACE_PEEKUSER, c->pid, (void *)offsetof(struct user, regs.rsp), NULL);
    CHECK(errno == 0);
    return (uint64_t)step_code(c, (uint64_t)stack);
}

/* Runs until the instruction at `at` is the next one. By a breakpoint in the child's own copy of the code; a process that
 * the child forks meanwhile would inherit it. False: the child came to step_end first, and is there. */
static inline bool step_leap(struct check_child *c, uint64_t at) {
    long code = step_code(c, at), breakpoint = (code & ~0xffL) | 0xcc; /* "int3" */
    CHECK(ptrace(PTRACE_POKETEXT, c->pid, (void *)at, (void *)breakpoint) == 0);
    bool there = step_until_stop(c, PTRACE_CONT) == SIGTRAP;
    CHECK(ptrace(PTRACE_POKETEXT, c->pid, (void *)at, (void *)code) == 0);
    if (!there) return false;
    CHECK_EQ(step_at(c), at + 1);
    CHECK(ptrace(PTRACE_POKEUSER, c->pid, (void *)offsetof(struct user, regs.rip), (void *)at) == 0);
    return true;
}
#else
#define STEP_LEAPS false
static inline uint64_t step_at(struct check_child *c) { return (void)c, 0; }
static inline long step_at_call(struct check_child *c) { return (void)c, -1; }
static inline uint64_t step_return(struct check_child *c) { return (void)c, 0; }
static inline bool step_leap(struct check_child *c, uint64_t at) { return (void)c, (void)at, false; }
#endif

/* Is any of that possible here? */
static inline bool step_possible(void) {
#if defined(CSM_TSAN)
    printf("       not tested: no single steps under ThreadSanitizer\n");
    return false;
#else
    pid_t pid = check_fork_process();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(1);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    bool traced = WIFSTOPPED(status) && ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0;
    if (traced) {
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        traced = WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
    }
    if (!traced) printf("       not tested: no child can be traced here\n");
    kill(pid, SIGKILL);
    if (!WIFEXITED(status) && !WIFSIGNALED(status)) waitpid(pid, NULL, 0);
    return traced;
#endif
}

#endif
