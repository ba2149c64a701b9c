/* points.h: processes that stop at a named point of csrc (csm_crash_point), and what is to be seen then.
 *
 * The victim stops itself there; then it is killed, or looked at and continued. The programs that include this say exactly what
 * must come of it: who computes, what is stored, what is taken back, what the statistics say. That nothing else can happen at
 * any other place is for sweep.c. */
#ifndef POINTS_H
#define POINTS_H

#include "survivor.h"

static const char *armed; /* the point where this process stops, once */
static void (*instead)(void); /* what it does there, if not that: as another thread would, meanwhile */

void csm_crash_point(const char *name) {
    if (!armed || strcmp(armed, name) != 0) return;
    armed = NULL;
    if (instead)
        instead();
    else
        raise(SIGSTOP);
}

/* ---- victims */

static const char *aim;
static void (*body)(csm *h);

static inline void be_halted(struct check_child *me, csm *h) {
    (void)me;
    armed = aim;
    body(h);
}

/* Comes back when a process that does `what` has stopped, for the first time. */
static inline struct check_child halt(csm *h, const char *point, void (*what)(csm *h)) {
    aim = point;
    body = what;
    struct check_child v = check_fork(be_halted, h);
    check_stopped(&v);
    return v;
}

static inline void go_on(struct check_child *v) {
    check_continue(v);
    check_stopped(v);
}

static inline void go_to_end(struct check_child *v) {
    check_continue(v);
    check_end(v);
}

static int published; /* what the victim is to be told by csm_publish */

static inline void compute(csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(check_join(h), TARGET, &call), CSM_OWNER);
    CHECK_EQ(publish_value(h, &call, TARGET), published);
}

/* ---- segments */

static inline csm *segment(void) {
    csm *h = check_segment(&TINY);
    for (uint32_t i = 0; i < BEFORE; i++) CHECK_EQ(check_store(h, check_key("before", i), 1000, i), CSM_OK);
    published = CSM_OK;
    return h;
}

/* What all have done since the segment was made. */
static inline void check_done(csm *h, uint64_t steals, uint64_t takeovers, uint64_t computations) {
    CHECK_EQ(check_stat(h, CSM_STAT_STEALS), steals);
    CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), takeovers);
    CHECK_EQ(check_stat(h, CSM_STAT_COMPUTATIONS), BEFORE + computations);
}

/* The entries lie one behind the other: what was reserved in vain has been taken back and used. */
static inline void check_dense(csm *h) {
    uint64_t run = csm_load(&csm_epoch_of(h, csm_generation(h))->run);
    CHECK_EQ(csm_run_first(run) * CSM_GRANULE, check_info(h).bytes_used);
}

static inline void check_locked(csm *h, bool locked) { CHECK_EQ(csm_load(&h->header->write_lock) != 0, locked); }

/* The victim is stopped with the lock: hits go on, all else does without the cache. */
static inline void check_goes_on_without(csm *h) {
    csm_call call;
    check_locked(h, true);
    for (uint32_t i = 0; i < BEFORE; i++) check_has(h, check_key("before", i), 1000, i);
    CHECK_EQ(check_claim(h, OTHER, &call), CSM_BUSY);
}

/* Somebody computes TARGET, who lives. */
static inline void check_is_computing(csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, TARGET, &call), CSM_JOINED);
    CHECK_EQ(csm_wait(h, &call, 0), CSM_TIMEOUT);
    csm_wait_leave(h, &call);
}

#endif
