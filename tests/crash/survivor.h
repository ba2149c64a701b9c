/* survivor.h: what must hold for all others when a process has been killed, or stopped, at any instruction.
 *
 * The survivors are the test's own process, which has been attached all along, and a waiter: a process that was asleep in
 * csm_wait. Both do what users of a cache do, by the loop that every user has (obtain). What they find they compare with what
 * may be there: the value of a key tells in which generation it was computed. */
#ifndef SURVIVOR_H
#define SURVIVOR_H

#include "check.h"

#include "lock.h"
#include "wait.h"

/* Small, so that it is soon full and a leak soon felt: 16 chunks. */
static const csm_settings TINY = {.memory_limit = CSM_MIN_LIMIT, .max_items = 64, .rows = 8, .flights = 4, .nodes = 4};

enum {
    BEFORE = 3,    /* entries that are there before anything happens, of 1000 bytes */
    BYTES = 1500,  /* of any other value */
    LARGE = 100000, /* of an outcome: far more than what a window keeps */
    BIG = 8000,    /* FIT of them fill the arena */
    FIT = 8,
    ROWS = 6,      /* test, waiter, victim, one that died before it, another owner, a forked child */
};
static const uint64_t FOR_EVER = UINT64_C(3600000000000);

static const char TARGET[] = "target", OTHER[] = "other"; /* what the victim is busy with, and what it is not */
static const char OUTER[] = "outer";                      /* what it may be computing when it asks for TARGET */

/* ---- as a user does it */

static inline const void *value_of(uint64_t generation) {
    static unsigned char value[BYTES];
    check_fill(value, BYTES, generation);
    return value;
}

/* The value of `key` if it is stored. It must be one of the generation that it is found in. */
static inline bool is_stored(csm *h, const char *key) {
    csm_view *view;
    int code = csm_view_acquire(h, key, strlen(key), &view);
    if (code == CSM_MISS) return false;
    CHECK_EQ(code, CSM_OK);
    CHECK_EQ(view->bytes, BYTES);
    CHECK(check_filled(view->data, BYTES, view->generation));
    csm_view_release(view);
    return true;
}

/* An outcome: of BYTES or LARGE, and of the generation of its flight. */
static inline bool read_outcome(csm *h, csm_call *call) {
    static unsigned char data[LARGE];
    uint64_t bytes = call->waiter.outcome_bytes;
    CHECK(bytes == BYTES || bytes == LARGE);
    int code = csm_outcome_read(h, call, data);
    if (code == CSM_STALE) return false;
    CHECK_EQ(code, CSM_OK);
    CHECK(check_filled(data, bytes, call->waiter.generation));
    return true;
}

static inline int publish_value(csm *h, csm_call *call, const char *key) {
    int code = check_publish(h, call, key, value_of(call->ticket.generation), BYTES);
    CHECK(code == CSM_OK || code == CSM_FULL_ARENA || code == CSM_STALE || code == CSM_BUSY);
    return code;
}

/* What came of a claim or a wait. CSM_OK: the caller has what it asked for. CSM_BUSY: it must do without the cache, because a stopped
 * process has the lock. CSM_AGAIN: go round. */
static inline int conclude(csm *h, csm_call *call, const char *key, int step) {
    if (step == CSM_READY || step == CSM_AGAIN) return CSM_AGAIN;
    if (step == CSM_OUTCOME) return read_outcome(h, call) ? CSM_OK : CSM_AGAIN;
    if (step == CSM_BUSY) return step;
    CHECK_EQ(step, CSM_OWNER);
    int code = publish_value(h, call, key);
    return code == CSM_STALE ? CSM_AGAIN : code == CSM_FULL_ARENA ? CSM_OK : code;
}

/* Comes back with the value of `key`: found, waited for or computed. CSM_OK or CSM_BUSY. */
static inline int obtain(csm *h, const char *key) {
    csm_call call;
    for (int step;;) {
        if (is_stored(h, key)) return CSM_OK;
        if ((step = check_claim(h, key, &call)) == CSM_JOINED) step = csm_wait(h, &call, FOR_EVER);
        if ((step = conclude(h, &call, key, step)) != CSM_AGAIN) return step;
    }
}

/* ---- the waiter */

static inline void be_the_waiter(struct check_child *me, csm *h) {
    check_join(h);
    check_say(me, 'r');
    for (;;) {
        check_hear(me, 'w');
        obtain(h, TARGET); /* or do without: the victim may be stopped with the lock */
        check_say(me, 'd');
    }
}

static inline struct check_child waiter_start(csm *h) {
    struct check_child waiter = check_fork(be_the_waiter, h);
    check_hear(&waiter, 'r');
    return waiter;
}

/* Is the process asleep in a system call? */
static inline bool is_asleep(pid_t pid) {
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, line, sizeof line - 1) > 0);
    close(fd);
    const char *state = strrchr(line, ')');
    return state && state[1] == ' ' && state[2] == 'S';
}

/* There is a flight of TARGET. Comes back when the waiter waits for it, asleep. */
static inline void waiter_wait(struct check_child *waiter, csm *h) {
    uint64_t others = check_info(h).waiters;
    check_say(waiter, 'w');
    CHECK_UNTIL(check_info(h).waiters == others + 1 && is_asleep(waiter->pid));
}

/* ---- after a death */

/* Takes all room there is. Returns how many of BIG it was. */
static inline int fill_arena(csm *h) {
    static unsigned char data[BIG];
    if (data[0] == 0) check_fill(data, BIG, BIG);
    for (int n = 0;; n++) {
        csm_call call;
        const char *key = check_key("big", (uint64_t)n);
        CHECK_EQ(check_claim(h, key, &call), CSM_OWNER);
        int code = check_publish(h, &call, key, data, BIG);
        if (code == CSM_FULL_ARENA) return n;
        CHECK_EQ(code, CSM_OK);
    }
}

/* Nobody has written into what is stored by fill_arena, if it still is. */
static inline void check_filled_arena(csm *h) {
    for (uint64_t n = 0; check_has(h, check_key("big", n), BIG, BIG); n++) {
    }
}

/* The entries that were there before, as long as it is their generation. */
static inline void check_before(csm *h, uint64_t generation) {
    for (uint32_t i = 0; i < BEFORE; i++) {
        bool there = check_has(h, check_key("before", i), 1000, i);
        CHECK(there || csm_generation(h) != generation);
    }
}

/* Bytes that are lost until the reset. That is for the test to allow: only a sidecar that was taken for dead while it copied, and went on,
 * costs its room. */
static uint64_t stranded;

/* Nobody but the test lives, or works. Whatever the dead were doing is over, and nothing of it is left. */
static inline void check_nothing_left(csm *h) {
    csm_info info = check_info(h);
    CHECK_EQ(info.flights, 0);
    CHECK_EQ(info.waiters, 0);
    CHECK(info.rows_used <= ROWS);
    CHECK_EQ(info.stats[CSM_STAT_STRANDED_BYTES], stranded);
    CHECK_EQ(csm_load(&h->header->write_lock), 0);
    check_sound(h);
}

/* Everybody else is dead, or idle. The segment is as good as new. `generation`: of the entries "before". */
static inline void check_survived(csm *h, uint64_t generation) {
    check_filled_arena(h);
    CHECK_EQ(obtain(h, OTHER), CSM_OK);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    CHECK(is_stored(h, OTHER) || check_info(h).full);
    check_before(h, generation);
    check_nothing_left(h);
    check_reset(h); /* also: takes the reset lock from the dead, and sweeps the windows */
    CHECK(!is_stored(h, TARGET) && !is_stored(h, OTHER));
    CHECK_EQ(fill_arena(h), FIT);
    check_nothing_left(h);
    uint64_t windows = TINY.flights * UINT64_C(16384);
    CHECK(check_info(h).reserved_bytes <= check_info(h).segment_bytes + windows);
}

/* ---- beside a process that is stopped */

enum busy { ASK_ONCE, ASK_AND_BE_PATIENT };

/* The victim is stopped, somewhere. Nobody waits for it but for a key that it computes. Returns whether it holds the lock; then it
 * is asked for by one call that tries only once (all others would be told the same, half a second later), or by a real one. */
static inline bool check_beside_stopped(csm *h, uint64_t generation, enum busy how, bool reset_too) {
    check_before(h, generation); /* hits need no lock */
    csm_call call;
    uint64_t holder = csm_load(&h->header->write_lock);
    if (holder && csm_process_alive(h, holder)) {
        CHECK_EQ(csm_lock_once(h), CSM_BUSY);
        if (how == ASK_AND_BE_PATIENT) CHECK_EQ(check_claim(h, OTHER, &call), CSM_BUSY);
        return true;
    }
    CHECK_EQ(obtain(h, "meanwhile"), CSM_OK);
    int step = check_claim(h, TARGET, &call);
    if (step == CSM_JOINED) step = csm_wait(h, &call, 0);
    if (step == CSM_TIMEOUT)
        csm_wait_leave(h, &call);
    else
        conclude(h, &call, TARGET, step);
    check_sound(h);
    if (reset_too) {
        holder = csm_load(&h->header->reset_lock);
        int code = csm_reset_lock(h, 0);
        CHECK_EQ(code, holder && csm_process_alive(h, holder) ? CSM_TIMEOUT : CSM_OK);
        if (code == CSM_OK) {
            CHECK_EQ(csm_reset_commit(h, "2", 1, 0), CSM_OK);
            csm_reset_unlock(h);
            CHECK(!is_stored(h, OTHER));
            fill_arena(h); /* but for what the victim has pinned, and may still be writing */
        }
    }
    check_sound(h);
    return false;
}

#endif
