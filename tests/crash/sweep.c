/* sweep.c: any process may be killed or stopped at any instruction.
 *
 * usage: sweep [--every N] [--seed N] [BEGINNING OF A SCENE'S NAME]...
 *
 * For each scene (scenes.h) and each instruction of it: a fresh victim does the scene up to that instruction. There it is killed by
 * SIGKILL, and the survivors (survivor.h) find the segment sound, all that was stored, nothing half-done, and no row, flight,
 * node, window or byte of the arena lost. Or it is stopped by SIGSTOP, others work beside it, it is continued, ends well, and
 * then the same is checked; but a sidecar that was taken for dead while it copied has cost the room that it copied to. All
 * victims of a scene work on one segment, so that what each of them lost would add up.
 *
 * The stealer is a victim as well: for each state in which another one can die with the write lock, what repairs it is killed
 * and stopped at each of its instructions. Those before the steal change nothing, and those after the unlock are a claim like
 * any other: they are done for one state only.
 *
 * --every N: at every N-th instruction, and at all that change what others can see (a byte of the segment, a lock). The seed, printed,
 * says where among N it begins, and chooses some of the states to repair, and of those in scenes that take long. */
#include "scenes.h"
#include "trace.h"

struct counts {
    uint64_t instructions, states, kills, stops, with_lock, patient, stranded, astray;
};

static uint32_t every = 1;
static uint64_t seed;
static struct counts counts, *totals;
static const struct scene *scene;         /* of this test */
static const struct scene *died_in;       /* the scene's victim finds the lock of one who died in this; NULL: it is free */
static struct check_child waiter;         /* pid 0: none */
static char whereabouts[200];             /* what a failure happens in */

/* ---- reporting */

static void say_where(int signal_number) {
    ssize_t n = write(2, whereabouts, strlen(whereabouts));
    (void)n;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

enum { WATCHDOG_S = 120 };

static void now_at(const char *what, unsigned part, uint32_t n, const struct trace *t) {
    snprintf(whereabouts, sizeof whereabouts, "in \"%s\": %s in part %u at instruction %u of %u (--every %u --seed %" PRIu64 ")\n",
             scene->name, what, part, n, t->n, every, seed);
    alarm(WATCHDOG_S);
}

/* ---- a victim's life */

struct victim {
    const struct scene *scene;
    struct check_child child;  /* who is watched */
    struct check_child parent; /* and who forked it, pid 0: the test itself */
    int hold;                  /* keeps an orphan from going on, -1: nobody is kept */
    unsigned part;
};

static const struct scene *beginning; /* what the next victim does */

static void be_victim(struct check_child *me, csm *h) {
    if (h) check_join(h);
    beginning->victim(me, h);
}

/* It forks: from its first instruction on the child is watched instead. */
static void follow_fork(struct victim *v) {
    unsigned long pid;
    v->parent = v->child;
    pid_t parent = v->parent.pid;
    CHECK(ptrace(PTRACE_SETOPTIONS, parent, NULL, (void *)(PTRACE_O_TRACEFORK | PTRACE_O_EXITKILL)) == 0);
    CHECK(ptrace(PTRACE_CONT, parent, NULL, NULL) == 0);
    int status = check_wait(&v->parent, 0);
    CHECK_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_FORK << 8);
    CHECK(ptrace(PTRACE_GETEVENTMSG, parent, NULL, &pid) == 0);
    step_over(&v->parent);
    v->child = (struct check_child){(pid_t)pid, fcntl(v->parent.from, F_DUPFD_CLOEXEC, 0), fcntl(v->parent.to, F_DUPFD_CLOEXEC, 0)};
    check_stopped(&v->child);
}

/* Comes back when it is at its first step_begin. */
static struct victim victim_start(const struct scene *s, csm *h) {
    beginning = s;
    shared->meanwhile = false;
    struct victim v = {.scene = s, .child = check_fork(be_victim, h), .hold = -1};
    step_attach(&v.child);
    if (s->forks == CHILD) follow_fork(&v);
    if (s->forks) v.hold = fcntl(v.child.to, F_DUPFD_CLOEXEC, 0);
    return v;
}

/* It is at the end of its part, and traced. Comes back when it is at the beginning of the next one. */
static void victim_next(struct victim *v, csm *h) {
    if (v->scene->between) v->scene->between(h, v->part);
    v->part++;
    step_over(&v->child);
}

static void victim_skip_to(struct victim *v, csm *h, unsigned part) {
    while (v->part < part) {
        step_over(&v->child);
        victim_next(v, h);
    }
}

/* It is at the end of its part, or was stopped within it; traced or not. Comes back when it has ended, well. */
static void victim_finish(struct victim *v, csm *h, bool ended_part) {
    if (v->scene->forks == CHILD) { /* which is not the test's own child, and so remains traced */
        if (!ended_part) step_over(&v->child);
        check_say(&v->child, 'g');
        CHECK(ptrace(PTRACE_CONT, v->child.pid, NULL, NULL) == 0);
        check_end(&v->child);
        return;
    }
    if (ended_part) step_freeze(&v->child);
    for (;; v->part++) {
        if (!ended_part) {
            check_continue(&v->child);
            check_stopped(&v->child);
        }
        ended_part = false;
        if (v->scene->between) v->scene->between(h, v->part);
        if (v->part + 1 == v->scene->parts) break;
        check_continue(&v->child);
        check_stopped(&v->child);
    }
    if (v->scene->forks) check_say(&v->child, 'g');
    check_continue(&v->child);
    check_end(&v->child);
}

/* All that is left of a dead victim's family lives on for a while beside a reset and a full arena, then ends, well. */
static void victim_bury(struct victim *v, csm *h) {
    if (v->hold < 0) return;
    int status;
    CHECK_UNTIL(check_info(h).processes <= 2); /* the test, and one of the two: as soon as a child is somebody of its own */
    check_reset(h);
    fill_arena(h);
    check_sound(h);
    close(v->hold);
    if (v->parent.pid) check_kill(&v->parent);
    while (waitpid(-1, &status, 0) > 0) CHECK(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
}

/* ---- the others */

/* The segment as the scene wants it. */
static csm *prepare(const struct scene *s, csm *h, uint64_t *generation) {
    if (s->anew) object = check_object();
    if (s->anew == DESTROYS) h = check_join(check_open(object, &TINY));
    *generation = 0;
    if (!h) return h;
    check_reset(h);
    for (uint32_t i = 0; i < BEFORE; i++) CHECK_EQ(check_store(h, check_key("before", i), 1000, i), CSM_OK);
    *generation = csm_generation(h);
    owned = queued = (csm_call){0};
    if (s->prepare) s->prepare(h);
    return h;
}

static void let_wait(const struct scene *s, csm *h) {
    if (s->awaited && waiter.pid) waiter_wait(&waiter, h);
    /* A sleeper looks now and then, and would steal the lock from the dead before the victim does. */
    if (s->asks || (s->awaited && !waiter.pid)) CHECK_EQ(check_claim(h, TARGET, &queued), CSM_JOINED);
}

/* The test computes TARGET, and asks for what a victim was computing when it asked for TARGET: no cycle, for that one is no more. */
static void ask_from_within(csm *h) {
    csm_call call;
    int step = check_claim_in(h, OUTER, &owned, &call);
    CHECK(step == CSM_OWNER || step == CSM_READY);
    conclude(h, &call, OUTER, step);
}

/* All the test does beside a victim that is no more. */
static void wind_up(const struct scene *s, csm *h) {
    bury_with_sidecar();
    kill_owner();
    if (owned.ticket.serial) ask_from_within(h);
    publish_owned(h);
    owned.ticket.serial = 0;
    if (queued.waiter.serial) conclude(h, &queued, TARGET, csm_wait(h, &queued, FOR_EVER));
    if (s->awaited && waiter.pid) check_hear(&waiter, 'd');
}

/* Makes room in the address space; a real process never unmaps a segment. */
static void forget(csm *h) {
    csm_leave(h);
    CHECK(munmap(h->base, h->geo.mapped_bytes) == 0);
}

/* The victim was the first to open the object. What is there now? NULL: it is still at it, or was. */
static csm *open_what_was_made(bool dead) {
    csm *h;
    int created, own = csm_process_reopen(object), code = csm_open(own, &TINY, 0, &h, &created);
    if (code == CSM_OK) return check_keep(h);
    CHECK_EQ(code, dead ? CSM_GONE : CSM_BUSY);
    close(own);
    return NULL;
}

static void check_after(const struct scene *s, csm *h, uint64_t generation) {
    csm *made = s->anew == MAKES ? open_what_was_made(true) : h;
    csm_call call;
    if (made && s->anew == MAKES) check_join(made);
    if (made && csm_destroyed(made))
        CHECK_EQ(check_claim(made, OTHER, &call), CSM_GONE);
    else if (made)
        check_survived(made, generation);
    if (!s->anew) return;
    if (made) forget(made);
    check_unlink_objects(check_test_pid);
    close(object);
}

static bool has_lock(csm *h, const struct victim *v) {
    uint64_t holder = csm_load(&h->header->write_lock);
    return holder && csm_process_pid(h, holder) == (uint64_t)v->child.pid;
}

/* The sidecar is stopped, and has not answered in time. Comes back when the waiter has done without it; unless it has to wait for the
 * lock. */
static void let_time_pass(csm *h, const struct victim *v) {
    time_passes(h);
    if (waiter.pid && scene->awaited)
        CHECK_UNTIL(has_lock(h, v) || (check_info(h).waiters == 0 && check_info(h).flights == 0 && is_asleep(waiter.pid)));
}

/* The victim has gone on, and ended. If it was copying when it was taken for dead, its room is lost, and no other. */
static void allow_stranded(csm *h) {
    uint64_t lost = check_stat(h, CSM_STAT_STRANDED_BYTES) - stranded;
    CHECK(lost == 0 || lost == csm_footprint(strlen(TARGET), BYTES) * CSM_GRANULE);
    stranded += lost;
    counts.stranded += lost != 0;
}

/* True: the victim holds the lock. */
static bool check_beside(const struct victim *v, csm *h, uint64_t generation, enum busy how, bool reset_too) {
    const struct scene *s = v->scene;
    csm *made = s->anew == MAKES ? open_what_was_made(false) : h;
    shared->meanwhile = true;
    tell_sidecar('g');
    kill_sidecar();
    if (s->is_sidecar) let_time_pass(h, v);
    bool locked = made && !csm_destroyed(made) && check_beside_stopped(made, generation, how, reset_too);
    if (s->anew == MAKES && made) forget(made);
    return locked;
}

/* ---- the sweep */

struct death {
    const struct scene *scene;
    const struct trace *trace;
    uint32_t n;
    bool is_first; /* of its scene */
};

/* Somebody dies with the lock, before the victim's first instruction. */
static void die_first(const struct death *d, csm *h) {
    if (!d) return;
    struct victim first = victim_start(d->scene, h);
    let_wait(d->scene, h);
    if (trace_lead(d->trace, &first.child, d->n) != THERE) counts.astray++;
    check_kill(&first.child);
}

/* Leads a victim to point `n` of part `part`, kills or stops it there, and looks at everything. False: it was somewhere else. */
static bool sweep_one(csm *segment, const struct death *d, const struct trace *t, unsigned part, uint32_t n, bool kill_it) {
    const struct scene *setting = d ? d->scene : scene;
    uint64_t generation;
    csm *h = prepare(setting, segment, &generation);
    stranded = h ? check_stat(h, CSM_STAT_STRANDED_BYTES) : 0;
    struct victim v = victim_start(scene, h);
    if (d)
        die_first(d, h);
    else
        let_wait(scene, h);
    victim_skip_to(&v, h, part);
    enum lead lead = trace_lead(t, &v.child, n);
    if (kill_it) {
        check_kill(&v.child);
        victim_bury(&v, h);
        sidecar_tidies = every == 1 || (n + seed) % 4 == 0;
        counts.kills++;
    } else {
        if (scene->forks != CHILD && lead != ENDED) step_freeze(&v.child);
        bool fresh = t->points[n].fresh, patient = fresh && (every == 1 || n % 64 == seed % 64);
        bool locked = check_beside(&v, h, generation, patient ? ASK_AND_BE_PATIENT : ASK_ONCE, n % 2 == 0);
        victim_finish(&v, h, lead == ENDED);
        victim_bury(&v, h);
        if (scene->is_sidecar) allow_stranded(h);
        counts.stops++;
        counts.with_lock += locked;
        counts.patient += locked && patient;
    }
    wind_up(setting, h);
    check_after(scene, h, generation);
    return lead == THERE;
}

static void sweep_point(csm *segment, const struct death *d, const struct trace *t, unsigned part, uint32_t n, bool kill_it) {
    enum { TRIES = 3 };
    now_at(kill_it ? "killed" : "stopped", part, n, t);
    bool there = false;
    for (int i = 0; i < TRIES && !there; i++) there = sweep_one(segment, d, t, part, n, kill_it);
    counts.astray += !there;
}

/* Once through part `part`. */
static void record(csm *segment, const struct death *d, struct trace *t, const struct scene *s, unsigned part) {
    now_at("traced", part, 0, t);
    const struct scene *setting = d ? d->scene : s;
    uint64_t generation;
    csm *h = prepare(setting, segment, &generation);
    struct victim v = victim_start(s, h);
    if (d)
        die_first(d, h);
    else
        let_wait(s, h);
    victim_skip_to(&v, h, part);
    trace_record(t, &v.child, object, csm_segment_bytes(&TINY) - TINY.memory_limit);
    victim_finish(&v, h, true);
    victim_bury(&v, h);
    wind_up(setting, h);
    check_after(s, h, generation);
}

/* What happens but once is over after the first time; what happens now and then does not happen twice in a row. */
static struct trace usual_trace(csm *segment, const struct death *d, const struct scene *s, unsigned part) {
    enum { TRIES = 3 };
    struct trace t = {.n = 0};
    record(segment, d, &t, s, part);
    for (uint32_t i = 0, n = t.n + 1; i < TRIES && t.n != n; i++) {
        n = t.n;
        record(segment, d, &t, s, part);
    }
    return t;
}

enum { SAMPLE = 8 };

static void sweep_part(csm *segment, const struct death *d, unsigned part) {
    struct trace t = usual_trace(segment, d, scene, part);
    counts.instructions += t.n;
    for (uint32_t n = 0; n <= t.n; n++) {
        counts.states += t.points[n].fresh;
        if (d && !d->is_first && (t.points[n].lock == 0 || t.points[n].lock == t.points[0].lock)) continue;
        uint64_t among = every > 1 && scene->sampled ? SAMPLE : 1;
        if (t.points[n].fresh ? (counts.states + seed) % among != 0 : (n + seed) % (every * among) != 0) continue;
        sweep_point(segment, d, &t, part, n, true);
        sweep_point(segment, d, &t, part, n, false);
    }
    free(t.points);
}

/* Every state in which one may die with the lock, in `died_in`. */
static void sweep_repairs(csm *segment) {
    struct trace first = usual_trace(segment, NULL, died_in, 0);
    uint64_t states = 0;
    bool is_first = true;
    for (uint32_t n = 0; n <= first.n; n++) {
        if (!first.points[n].fresh || !first.points[n].lock) continue;
        if (every > 1 && (states++ + seed) % 4 != 0) continue;
        sweep_part(segment, &(struct death){died_in, &first, n, is_first}, 0);
        is_first = false;
    }
    free(first.points);
}

static void sweep(void) {
    if (!step_possible()) return;
    csm *segment = NULL;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    if (!scene->anew) {
        object = check_object();
        segment = check_join(check_open(object, &TINY));
    }
    if (scene->awaited && !died_in) waiter = waiter_start(segment);
    signal(SIGABRT, say_where);
    signal(SIGALRM, say_where);
    if (died_in)
        sweep_repairs(segment);
    else
        for (unsigned part = 0; part < scene->parts; part++) sweep_part(segment, NULL, part);
    if (waiter.pid) check_kill(&waiter);
    printf("       %" PRIu64 " instructions, %" PRIu64 " of them change something; %" PRIu64 " killed, %" PRIu64 " stopped (%" PRIu64
           " with the lock, %" PRIu64 " of these waited for; %" PRIu64 " of them cost their room); %" PRIu64 " astray\n",
           counts.instructions, counts.states, counts.kills, counts.stops, counts.with_lock, counts.patient, counts.stranded, counts.astray);
    for (size_t i = 0; i < sizeof counts / sizeof(uint64_t); i++) ((uint64_t *)totals)[i] += ((uint64_t *)&counts)[i];
    CHECK(counts.astray == 0 || counts.astray < counts.kills + counts.stops); /* some were where they should have been */
}

/* ---- all of them */

static bool is_wanted(const char *name, char **wanted) {
    bool any = false;
    for (; *wanted; wanted++) any = any || strncmp(name, *wanted, strlen(*wanted)) == 0;
    return any;
}

static int sweep_scene(const struct scene *s, const struct scene *first, char **wanted) {
    if (*wanted && !is_wanted(s->name, wanted)) return 0;
    scene = s;
    died_in = first;
    return check_run(&(struct check_test){s->name, sweep}, 1);
}

static void *shared_bytes(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

int main(int argc, char **argv) {
    int failures = 0;
    shared = shared_bytes(sizeof *shared);
    totals = shared_bytes(sizeof *totals);
    seed = csm_now_ns() % 1000000;
    (void)argc;
    for (argv++; argv[0] && argv[1] && (!strcmp(*argv, "--every") || !strcmp(*argv, "--seed")); argv += 2) {
        uint64_t n = strtoull(argv[1], NULL, 10);
        if (!strcmp(*argv, "--seed"))
            seed = n;
        else
            every = n ? (uint32_t)n : 1;
    }
    printf("  --every %u --seed %" PRIu64 "\n", every, seed);
    for (size_t i = 0; i < sizeof SCENES / sizeof *SCENES; i++) failures += sweep_scene(&SCENES[i], NULL, argv);
    for (size_t i = 0; i < sizeof SCENES / sizeof *SCENES; i++) {
        if (!SCENES[i].leaves_lock) continue;
        char name[64];
        snprintf(name, sizeof name, "repair after %s", SCENES[i].name);
        failures += sweep_scene(&(struct scene){.name = name, .parts = 1, .victim = steal}, &SCENES[i], argv);
    }
    printf("  in all: %" PRIu64 " instructions, %" PRIu64 " killed, %" PRIu64 " stopped, %d of the scenes failed\n",
           totals->instructions, totals->kills, totals->stops, failures);
    return failures != 0;
}
