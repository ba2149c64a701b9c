/* trace.h: takes a process to its n-th instruction, for every n, without stepping through the n - 1 before it each time.
 *
 * One victim is stepped through what is watched, and the address of each instruction is noted. A later victim does the same
 * work in the same state, so it comes by the same addresses: a breakpoint takes it to the nearest instruction before the n-th
 * that is executed for the first time, single steps take it the rest of the way (which lies within a loop), and the address
 * where it arrives tells whether it is the one meant. Where it is not (a clock was read twice, a wait was longer), it is astray:
 * it is killed or stopped all the same, and another one tries again.
 *
 * What cannot be stopped within is a system call: it is one instruction. A string instruction, which single steps do stop within,
 * counts as one, too: what it fills is private, or bytes of an entry that nobody can see yet. So does a look at the clock: it
 * touches nothing of the segment, and would begin anew with each tick that comes while it is stepped through. */
#ifndef TRACE_H
#define TRACE_H

#include "image.h"
#include "step.h"

#include <sys/auxv.h>
#include <sys/syscall.h>

struct trace {
    uint32_t n, room;
    struct point {
        uint64_t at;   /* address of the instruction before which this is */
        uint32_t near; /* the point from which single steps lead here */
        bool fresh;    /* others may see something else here than one instruction earlier */
        uint64_t lock; /* who has the write lock, as an owner word */
    } *points;         /* n + 1: the last one is before step_end */
};

/* Is this the code that the kernel lends to read its clock (two pages of it)? */
static inline bool trace_is_clock(uint64_t at) {
    uint64_t first = getauxval(AT_SYSINFO_EHDR);
    return first && at >= first && at < first + 2 * CSM_PAGE;
}

/* One instruction. False: the child is at step_end. The step over the call that sends the stop may be told before the stop is. */
static inline bool trace_step(struct check_child *c) {
    uint64_t at = step_at(c);
    bool sends = step_at_call(c) == SYS_tgkill;
    do
        if (!step_once(c)) return false;
    while (step_at(c) == at);
    if (trace_is_clock(step_at(c))) return step_leap(c, step_return(c));
    return !sends || step_once(c);
}

static inline bool trace_has_been_at(const struct trace *t, uint64_t at) {
    for (uint32_t i = 0; i < t->n; i++)
        if (t->points[i].at == at) return true;
    return false;
}

/* The child is at step_begin; afterwards at step_end. What is watched for changes: the first bytes of an object. */
static inline void trace_record(struct trace *t, struct check_child *c, int object, uint64_t bytes) {
    struct image before = {.data = NULL}, now = {.data = NULL};
    image_read(object, &before, 0, bytes);
    bool fresh = true, forked = false;
    for (t->n = 0;; t->n++) {
        if (t->n == t->room) {
            t->room = t->room * 2 + 1024;
            CHECK((t->points = realloc(t->points, t->room * sizeof *t->points)));
        }
        struct point *p = &t->points[t->n];
        *p = (struct point){.at = step_at(c), .near = t->n, .fresh = fresh, .lock = image_lock(&before)};
        if (t->n > 0 && (forked || trace_has_been_at(t, p->at))) p->near = p[-1].near;
        long call = step_at_call(c);
        if (!trace_step(c)) break;
        forked = forked || call == SYS_clone || call == SYS_clone3 || call == SYS_fork;
        image_read(object, &now, 0, bytes);
        fresh = call >= 0 || !image_is(&before, &now); /* a call: a lock of the kernel's, bytes of a window */
        image_swap(&before, &now);
    }
    free(before.data);
    free(now.data);
}

enum lead { THERE, ASTRAY, ENDED };

/* Another child is at step_begin; afterwards at point n, or, astray, somewhere else, perhaps at step_end. */
static inline enum lead trace_lead(const struct trace *t, struct check_child *c, uint32_t n) {
    uint32_t i = t->points[n].near;
    if (i > 0 && !step_leap(c, t->points[i].at)) return ENDED;
    for (; i < n; i++)
        if (!trace_step(c)) return ENDED;
    return step_at(c) == t->points[n].at ? THERE : ASTRAY;
}

#endif
