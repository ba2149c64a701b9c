/* scenes.h: what the victims do.
 *
 * A scene is told by three functions. `prepare` and `between` are done by the test's own process, before there is a victim and
 * when it has come to the end of one of its watched parts; `victim` by the victim, which marks those parts by step_begin and
 * step_end, and what it does beside them is not watched. It has joined when it begins, by the handle that it has inherited,
 * as a worker does that was forked by a server.
 *
 * A victim that was stopped, and not killed, goes on, and must be right as well. Then others may have been at work meanwhile:
 * what it asked for may be there already, its ticket stale, and so on. `meanwhile` tells; every other surprise is a fault. */
#ifndef SCENES_H
#define SCENES_H

#include "step.h"
#include "survivor.h"

struct scene {
    const char *name;
    unsigned parts;                         /* that are watched, one after the other */
    bool awaited;                           /* somebody waits for TARGET when the first part begins */
    bool asks;                              /* so does the test itself */
    bool is_sidecar;                        /* the victim is the cluster's sidecar */
    bool sampled;                           /* it takes long: with --every, only some of the states that others can see */
    enum { SAME, MAKES, DESTROYS } anew;    /* each victim has a segment of its own: it is blank, or it is to be destroyed */
    enum { ALONE, PARENT, CHILD } forks;    /* which of the two is watched, if it forks */
    bool leaves_lock;                       /* killed in it, one may leave the lock and something to repair */
    void (*prepare)(csm *h);
    void (*victim)(struct check_child *me, csm *h);
    void (*between)(csm *h, unsigned part);
};

/* What all processes of a scene share, beside the segment. */
static struct scene_shared {
    bool meanwhile; /* the victim was stopped and others have been at work */
} *shared;

static csm_call owned;           /* by the test's process: a flight of TARGET */
static csm_call queued;          /* by the same: a place among those who wait for it */
static struct check_child owner; /* another process that owns TARGET; pid 0: none */
static int object;               /* the segment's descriptor */
static unsigned char payload[LARGE];

/* ---- parts of scenes */

static void check_code(int code, int expected) {
    bool other = code == CSM_STALE || code == CSM_READY || code == CSM_AGAIN || code == CSM_MISS || code == CSM_OWNER ||
                 code == CSM_TIMEOUT; /* the last: by one who had looked just before, and is still queued */
    if (!(shared->meanwhile && other)) CHECK_EQ(code, expected);
}

static void own_target(csm *h) { CHECK_EQ(check_claim(h, TARGET, &owned), CSM_OWNER); }

static void publish_owned(csm *h) {
    if (owned.ticket.serial) publish_value(h, &owned, TARGET);
}

static void own_until_killed(struct check_child *me, csm *h) {
    check_join(h);
    own_target(h);
    check_say(me, 'o');
    check_hear(me, '-');
}

static void let_another_own_target(csm *h) {
    owner = check_fork(own_until_killed, h);
    check_hear(&owner, 'o');
}

static void kill_owner(void) {
    if (owner.pid) check_kill(&owner);
    owner.pid = 0;
}

static void fill_it(csm *h) {
    CHECK(fill_arena(h) > 0);
    while (check_store(h, check_key("rest", check_info(h).entries), 300, 0) == CSM_OK) {
    }
    csm_store(&csm_epoch_of(h, csm_generation(h))->refused, 0); /* the victim is to look for itself */
}

/* ---- claim */

static void claim_target(csm *h, int expected) {
    csm_call call;
    step_begin();
    int code = check_claim(h, TARGET, &call);
    step_end();
    check_code(code, expected);
    if (code == CSM_JOINED) code = csm_wait(h, &call, 0);
    if (code == CSM_TIMEOUT)
        csm_wait_leave(h, &call);
    else
        conclude(h, &call, TARGET, code);
}

static void miss(struct check_child *me, csm *h) { (void)me, claim_target(h, CSM_OWNER); }
static void join(struct check_child *me, csm *h) { (void)me, claim_target(h, CSM_JOINED); }

static void store_target(csm *h) { CHECK_EQ(obtain(h, TARGET), CSM_OK); }
static void hit(struct check_child *me, csm *h) {
    (void)me;
    csm_call call;
    step_begin();
    int64_t found = csm_find(h, TARGET, strlen(TARGET));
    int code = check_claim(h, TARGET, &call);
    step_end();
    CHECK(found > 0 || shared->meanwhile);
    CHECK(code == CSM_READY || (shared->meanwhile && code == CSM_OWNER));
    if (code == CSM_OWNER) conclude(h, &call, TARGET, code);
}

/* From within the computation of another key, for which the one who owns TARGET will ask when this one is dead. */
static void join_nested(struct check_child *me, csm *h) {
    (void)me;
    csm_call outer, call;
    CHECK_EQ(check_claim(h, OUTER, &outer), CSM_OWNER);
    step_begin();
    int code = check_claim_in(h, TARGET, &outer, &call);
    if (code == CSM_JOINED) code = csm_wait(h, &call, 0);
    if (code == CSM_TIMEOUT) csm_wait_leave(h, &call);
    step_end();
    check_code(code, CSM_TIMEOUT);
    if (code != CSM_TIMEOUT) conclude(h, &call, TARGET, code);
    publish_value(h, &outer, OUTER);
}

static void let_owner_die(csm *h) {
    let_another_own_target(h);
    kill_owner();
}

/* ---- publish and abandon */

static void publish_as(csm *h, int kind, size_t bytes, int expected) {
    csm_call call;
    own_target(h);
    call = owned;
    check_fill(payload, bytes, call.ticket.generation);
    step_begin();
    int code = check_publish_as(h, &call, TARGET, kind, payload, bytes);
    step_end();
    check_code(code, expected);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
}

static void publish(struct check_child *me, csm *h) { (void)me, publish_as(h, CSM_VALUE, BYTES, CSM_OK); }
static void find_no_room(struct check_child *me, csm *h) { (void)me, publish_as(h, CSM_VALUE, BYTES, CSM_FULL_ARENA); }
static void fail(struct check_child *me, csm *h) { (void)me, publish_as(h, CSM_FAILURE, BYTES, CSM_NOT_STORED); }
static void publish_uncached(struct check_child *me, csm *h) {
    (void)me, publish_as(h, CSM_UNCACHED, LARGE, CSM_NOT_STORED);
}

static void abandon(struct check_child *me, csm *h) {
    (void)me;
    own_target(h);
    step_begin();
    int code = csm_abandon(h, &owned);
    step_end();
    check_code(code, CSM_OK);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
}

/* ---- wait */

/* While it is queued. */
static int wait_for_target(csm *h, csm_call *call, uint64_t limit_ns) {
    return call->waiter.serial ? csm_wait(h, call, limit_ns) : CSM_AGAIN;
}

static void wait_on(csm *h, int expected) {
    csm_call call;
    int code = check_claim(h, TARGET, &call);
    check_code(code, CSM_JOINED);
    step_begin(); /* sleeps, in vain */
    code = wait_for_target(h, &call, 3000000);
    step_end();
    check_code(code, CSM_TIMEOUT);
    /* The owner publishes, or dies; or nothing of that, and this one leaves. */
    step_begin();
    code = wait_for_target(h, &call, 0);
    if (code == CSM_OUTCOME && csm_outcome_read(h, &call, payload) != CSM_OK) code = CSM_AGAIN;
    if (code == CSM_TIMEOUT) csm_wait_leave(h, &call);
    step_end();
    check_code(code, expected);
    if (code == CSM_OUTCOME) CHECK(check_filled(payload, LARGE, call.waiter.generation));
    if (code == CSM_OWNER) conclude(h, &call, TARGET, code);
}

static void wait_for_value(struct check_child *me, csm *h) { (void)me, wait_on(h, CSM_AGAIN); }
static void wait_for_outcome(struct check_child *me, csm *h) { (void)me, wait_on(h, CSM_OUTCOME); }
static void wait_for_the_dead(struct check_child *me, csm *h) { (void)me, wait_on(h, CSM_OWNER); }
static void wait_in_vain(struct check_child *me, csm *h) { (void)me, wait_on(h, CSM_TIMEOUT); }

static void then_publish(csm *h, unsigned part) {
    if (part == 0) publish_owned(h);
}
static void then_fail(csm *h, unsigned part) {
    check_fill(payload, LARGE, owned.ticket.generation);
    if (part == 0 && owned.ticket.serial) check_publish_as(h, &owned, TARGET, CSM_FAILURE, payload, LARGE);
}
static void then_die(csm *h, unsigned part) {
    (void)h;
    if (part == 0) kill_owner();
}

/* ---- views */

static void view(struct check_child *me, csm *h) {
    (void)me;
    csm_view *v;
    step_begin();
    int code = csm_view_acquire(h, TARGET, strlen(TARGET), &v);
    step_end();
    check_code(code, CSM_OK);
    if (code == CSM_OK) CHECK(check_filled(v->data, BYTES, v->generation));
    step_begin();
    csm_view_release(v);
    step_end();
}
/* What is pinned is not reused. */
static void then_reset_and_fill(csm *h, unsigned part) {
    if (part != 0) return;
    check_reset(h);
    int fits = fill_arena(h);
    CHECK(fits == FIT - 1 || shared->meanwhile); /* then it may have found nothing to pin */
}

/* ---- reset */

static void reset(struct check_child *me, csm *h) {
    (void)me;
    uint64_t generation = csm_generation(h);
    step_begin();
    int code = csm_reset_lock(h, FOR_EVER);
    if (code == CSM_OK) code = csm_reset_commit(h, "2", 1, 0);
    csm_reset_unlock(h);
    step_end();
    CHECK_EQ(code, CSM_OK);
    CHECK(csm_generation(h) > generation);
    CHECK(!is_stored(h, check_key("before", 0)));
}

/* ---- repair: another one has died with the lock */

static void steal(struct check_child *me, csm *h) {
    (void)me;
    csm_call call;
    step_begin();
    int code = check_claim(h, OTHER, &call);
    step_end();
    check_code(code, CSM_OWNER);
    conclude(h, &call, OTHER, code);
}

/* ---- segments */

static void attach(struct check_child *me, csm *h) {
    (void)me;
    (void)h;
    int flipped, created = 0;
    csm *mine;
    step_begin();
    int code = csm_open(csm_process_reopen(object), &TINY, FOR_EVER, &mine, &created);
    if (code == CSM_OK) code = csm_join(mine, CSM_APP, 0, NULL, 0, &flipped);
    step_end();
    CHECK_EQ(code, CSM_OK);
    CHECK_EQ(obtain(mine, OTHER), CSM_OK);
    step_begin();
    csm_leave(mine);
    step_end();
}

static void destroy(struct check_child *me, csm *h) {
    (void)me;
    step_begin();
    int code = csm_destroy(h);
    step_end();
    CHECK_EQ(code, CSM_OK);
    CHECK(csm_destroyed(h));
}

/* ---- fork */

/* The child outlives a parent that is killed. When the test says so, or has ended it, whatever has happened meanwhile: */
static void live_on(struct check_child *me, csm *h, csm_view *v) {
    char go;
    while (read(me->from, &go, 1) < 0 && errno == EINTR) {
    }
    if (v) CHECK(check_filled(v->data, BYTES, v->generation));
    CHECK_EQ(obtain(h, "of the child"), CSM_OK);
    csm_view_release(v);
    _exit(0);
}

static void fork_watched(struct check_child *me, csm *h) {
    csm_view *v;
    CHECK_EQ(csm_view_acquire(h, TARGET, strlen(TARGET), &v), CSM_OK);
    step_begin();
    pid_t pid = fork();
    if (pid == 0) live_on(me, h, v);
    step_end();
    csm_view_release(v);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void be_forked(struct check_child *me, csm *h, csm_view *v) {
    step_begin();
    if (fork() != 0) { /* the child has been watched since it began */
        step_end();
        for (;;) pause();
    }
    csm_call call;
    int code = check_claim(h, "of the child", &call);
    step_end();
    CHECK_EQ(code, CSM_OWNER);
    publish_value(h, &call, "of the child");
    live_on(me, h, v);
}
static void be_forked_with_view(struct check_child *me, csm *h) {
    csm_view *v;
    CHECK_EQ(csm_view_acquire(h, TARGET, strlen(TARGET), &v), CSM_OK);
    be_forked(me, h, v);
}
static void be_forked_without(struct check_child *me, csm *h) { be_forked(me, h, NULL); }

/* ---- the scenes */

#include "relay_scenes.h"

static const struct scene SCENES[] = {
    {.name = "claim: a miss", .parts = 1, .leaves_lock = true, .victim = miss},
    {.name = "claim: a hit", .parts = 1, .victim = hit, .prepare = store_target},
    {.name = "claim: joins", .parts = 1, .victim = join, .prepare = own_target},
    {.name = "claim: joins, nested", .parts = 1, .victim = join_nested, .prepare = own_target},
    {.name = "claim: takes over", .parts = 1, .leaves_lock = true, .victim = miss, .prepare = let_owner_die},
    {.name = "publish: stored", .parts = 1, .leaves_lock = true, .awaited = true, .victim = publish},
    {.name = "publish: full", .parts = 1, .leaves_lock = true, .awaited = true, .victim = find_no_room, .prepare = fill_it},
    {.name = "publish: failed", .parts = 1, .leaves_lock = true, .awaited = true, .victim = fail},
    {.name = "publish: NoCache", .parts = 1, .awaited = true, .victim = publish_uncached},
    {.name = "abandon", .parts = 1, .leaves_lock = true, .awaited = true, .victim = abandon},
    {.name = "wait: for a value", .parts = 2, .victim = wait_for_value, .prepare = own_target, .between = then_publish},
    {.name = "wait: for an outcome", .parts = 2, .victim = wait_for_outcome, .prepare = own_target, .between = then_fail},
    {.name = "wait: for the dead", .parts = 2, .victim = wait_for_the_dead, .prepare = let_another_own_target,
     .between = then_die},
    {.name = "wait: leaves", .parts = 2, .victim = wait_in_vain, .prepare = own_target},
    {.name = "view", .parts = 2, .victim = view, .prepare = store_target, .between = then_reset_and_fill},
    {.name = "reset", .parts = 1, .leaves_lock = true, .awaited = true, .victim = reset, .prepare = own_target},
    {.name = "attach: a new segment", .parts = 2, .anew = MAKES, .victim = attach},
    {.name = "attach: an existing one", .parts = 2, .victim = attach},
    {.name = "destroy", .parts = 1, .anew = DESTROYS, .victim = destroy},
    {.name = "fork: the parent", .parts = 1, .forks = PARENT, .victim = fork_watched, .prepare = store_target},
    {.name = "fork: the child", .parts = 1, .forks = CHILD, .victim = be_forked_without, .prepare = store_target},
    {.name = "worker: asks", .parts = 1, .sampled = true, .victim = ask, .prepare = let_sidecar_live},
    {.name = "worker: is granted", .parts = 2, .sampled = true, .victim = be_granted, .prepare = let_sidecar_live, .between = then_grant},
    {.name = "worker: asks no longer", .parts = 1, .sampled = true, .victim = ask_no_longer, .prepare = let_sidecar_live},
    {.name = "worker: leaves", .parts = 1, .sampled = true, .victim = stop_asking, .prepare = let_sidecar_live},
    {.name = "sidecar: opens", .parts = 2, .sampled = true, .is_sidecar = true, .victim = begin_to_be_asked, .prepare = let_sidecar_die},
    {.name = "sidecar: grants", .parts = 2, .sampled = true, .is_sidecar = true, .awaited = true, .victim = grant_it, .between = then_let_compute},
    {.name = "sidecar: delivers", .parts = 2, .sampled = true, .is_sidecar = true, .awaited = true, .victim = hold_and_deliver},
    {.name = "sidecar: delivers unasked", .parts = 1, .sampled = true, .is_sidecar = true, .victim = deliver_unasked},
    {.name = "sidecar: passes an outcome on", .parts = 2, .sampled = true, .is_sidecar = true, .awaited = true, .victim = pass_outcome_on},
    {.name = "sidecar: adopts", .parts = 1, .sampled = true, .is_sidecar = true, .awaited = true, .victim = adopt},
    {.name = "sidecar: closes", .parts = 2, .sampled = true, .is_sidecar = true, .awaited = true, .victim = close_it},
    {.name = "sidecar: ends what nobody awaits", .parts = 2, .sampled = true, .is_sidecar = true, .asks = true, .victim = end_what_nobody_awaits,
     .between = then_leave},
    {.name = "sidecar: reads the log", .parts = 2, .sampled = true, .is_sidecar = true, .victim = read_log, .prepare = store_target,
     .between = then_time_passes},
    {.name = "fork: with a view", .parts = 1, .forks = CHILD, .victim = be_forked_with_view, .prepare = store_target},
};

#endif
