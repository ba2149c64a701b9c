/* main.c: hostile bytes. The outcome of any damage to a segment, its semaphores excepted, must be an error or a miss.
 *
 *     hostile [--seconds S | --executions N] [--seed N] [--mode NAME] [--first N]
 *
 * An execution is: put the segment back to the middle of its life, damage it, call everything there is. Its number and the seed
 * determine it, except in the mode that has threads. Modes:
 *
 *     bits     one bit is flipped, each in turn: of the header, chunks, flights, nodes, outcomes, slots, log, rows, and of the
 *              headers and keys of entries
 *     before   some words are changed, then all processes call everything
 *     fetch    a word changes right before the core loads it, and perhaps back right after (needs clang)
 *     while    threads, as so many processes, call everything while another one goes on changing words
 *     attach   an object that nobody uses is damaged, or cut off, and then opened
 *     full     as `before`, on a /dev/shm without a free page: a page that is not there is a SIGBUS
 *
 * Half of the segments have a sidecar, which is a third process.
 *
 * Each mode runs in a process of its own, so that a crash is told apart from a hang, and with its number. */
#include "fetch.h"
#include "guard.h"
#include "script.h"

#include <getopt.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

enum mode { BITS, BEFORE, FETCH, WHILE, ATTACH, FULL, MODES };
static const char *const mode_names[MODES] = {"bits", "before", "fetch", "while", "attach", "full"};

/* Far more than an execution takes, even if each of its calls waits for a lock that nobody gives back. */
enum { WATCHDOG_S = 100 };

struct options {
    uint64_t seconds, executions, seed, first;
    int mode; /* MODES: all */
};

/* Shared with the process of the mode. */
struct shared {
    struct script_counts counts;
    uint64_t execution;
    uint64_t over; /* it has tried everything there is */
};

static struct shared *shared;
static enum mode running;
static uint64_t running_seed;

static void on_alarm(int signal_number) {
    (void)signal_number;
    static const char text[] = "hostile: a call does not come back: ";
    const char *name = script_running ? script_running : "(see the other thread)";
    if (write(2, text, sizeof text - 1) < 0 || write(2, name, strlen(name)) < 0 || write(2, "\n", 1) < 0) _exit(3);
    abort();
}

/* ---- the modes. Each does execution number `i` */

static struct feed feed_of(uint64_t i) {
    uint64_t random = running_seed * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)running << 60 ^ i * UINT64_C(0xd1342543de82ef95);
    check_random(&random);
    return (struct feed){.random = random};
}

enum who { A, B, SIDECAR };

static struct script script_of(struct life *l, enum who who, uint64_t i, bool exact) {
    csm *handles[] = {l->a, l->b, l->s};
    struct script s = {.life = l, .h = handles[who], .is_b = who == B, .exact = exact, .counts = &shared->counts};
    s.feed = feed_of(i);
    return s;
}

static void run(struct script *s) {
    if (s->h == s->life->s)
        script_run_sidecar(s);
    else
        script_run(s);
}

static uint64_t processes(const struct life *l) { return l->s ? 3 : 2; }

static void all_run(struct life *l, uint64_t i, bool exact) {
    for (uint64_t turn = 0, n = processes(l); turn < n; turn++) {
        struct script s = script_of(l, (enum who)((i + turn) % n), i * n + turn, exact);
        run(&s);
    }
}

static void tidy(struct life *l) {
    csm_view_release(l->view);
    l->view = NULL;
}

static bool one_bit(struct life *l, uint64_t i) {
    enum damage_scope scope;
    if (!damage_bit(l, l->a->base, i, &scope)) return false;
    all_run(l, i, scope == DAMAGE_NOTICEABLE);
    return true;
}

static bool one_before(struct life *l, uint64_t i) {
    enum damage_scope scope = i % 3 ? DAMAGE_ANYTHING : DAMAGE_NOTICEABLE;
    struct feed feed = feed_of(i);
    damage(l, l->a->base, scope, &feed);
    all_run(l, i, scope == DAMAGE_NOTICEABLE);
    return true;
}

static bool one_fetch(struct life *l, uint64_t i) {
    struct script s = script_of(l, (enum who)(i % processes(l)), i * 2, false);
    struct feed feed = feed_of(i * 2 + 1);
    fetch_arm(l, s.h->base, &feed);
    run(&s);
    fetch_disarm();
    if (fetch_loads) return true;
    printf("  fetch: not tested: the compiler does not trace loads\n");
    return false;
}

struct attacker {
    struct life *l;
    uint64_t i;
    bool stop;
};

static void *attack(void *argument) {
    struct attacker *a = argument;
    struct feed feed = feed_of(a->i);
    while (!__atomic_load_n(&a->stop, __ATOMIC_ACQUIRE)) {
        damage_flicker(a->l, a->l->b->base, &feed);
        if (a->i % 2) damage(a->l, a->l->b->base, DAMAGE_ANYTHING, &feed);
    }
    return NULL;
}

static void *run_script(void *script) {
    run(script);
    return NULL;
}

static bool one_while(struct life *l, uint64_t i) {
    struct attacker attacker = {.l = l, .i = i};
    struct script of[3];
    pthread_t attacks, others[3];
    uint64_t n = processes(l);
    for (uint64_t who = 0; who < n; who++) of[who] = script_of(l, (enum who)who, i * n + who, false);
    CHECK(pthread_create(&attacks, NULL, attack, &attacker) == 0);
    for (uint64_t who = 1; who < n; who++) CHECK(pthread_create(&others[who], NULL, run_script, &of[who]) == 0);
    run(&of[A]);
    for (uint64_t who = 1; who < n; who++) pthread_join(others[who], NULL);
    __atomic_store_n(&attacker.stop, true, __ATOMIC_RELEASE);
    pthread_join(attacks, NULL);
    return true;
}

static bool one_attach(struct life *l, uint64_t i) {
    struct feed feed = feed_of(i);
    int fd = life_copy(l), own = csm_process_reopen(fd);
    uint64_t bytes = l->of_a.geo.mapped_bytes;
    CHECK(own >= 0);
    if (i % 4) { /* most damage is to what is looked at first */
        unsigned char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(base != MAP_FAILED);
        uint64_t at = feed_below(&feed, i % 4 == 1 ? 64 : 256) / 8 * 8;
        if (i % 4 < 3) csm_store((uint64_t *)(void *)(base + at), i % 8 < 4 ? feed_next(&feed) : UINT64_C(1) << feed_below(&feed, 64));
        if (i % 8 > 4) damage(l, base, DAMAGE_ANYTHING, &feed);
        CHECK(guard_unmap(base, bytes) == 0);
    } else {
        static const uint64_t sizes[] = {0, 1, 8, 63, 64, 256, 511, 512, 513, 4096, 8192};
        uint64_t n = feed_below(&feed, 20);
        CHECK(ftruncate(fd, (off_t)(n < 11 ? sizes[n] : feed_below(&feed, bytes))) == 0);
    }
    close(fd);
    struct script s = script_of(l, A, i, false);
    script_attach(&s, own);
    check_unlink_objects(check_test_pid);
    return true;
}

static bool one(struct life *l, uint64_t i) {
    switch (running) {
    case BITS: return one_bit(l, i);
    case FETCH: return one_fetch(l, i);
    case WHILE: return one_while(l, i);
    case ATTACH: return one_attach(l, i);
    default: return one_before(l, i);
    }
}

/* ---- a /dev/shm of its own, without a free page */

/* Who is not root becomes it in a user namespace. */
static bool own_mounts(void) {
    char map[64];
    int n = snprintf(map, sizeof map, "0 %u 1", (unsigned)geteuid());
    if (unshare(CLONE_NEWNS) == 0) return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
    bool mapped = fd >= 0 && write(fd, map, (size_t)n) == n;
    if (fd >= 0) close(fd);
    return mapped;
}

static bool own_shm(void) {
    return own_mounts() && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=4m") == 0;
}

static void fill_shm(void) {
    static char page[CSM_PAGE];
    struct statvfs free;
    int fd = open("/dev/shm/filler", O_WRONLY | O_CREAT | O_APPEND, 0600);
    CHECK(fd >= 0);
    while (write(fd, page, sizeof page) > 0) continue;
    close(fd);
    CHECK(statvfs("/dev/shm", &free) == 0);
    CHECK_EQ(free.f_bfree, 0);
}

/* ---- running */

static void run_mode(const struct options *o, uint64_t seconds) {
    static struct life lives[2]; /* without a sidecar, and with one */
    uint64_t end = csm_now_ns() + seconds * 1000000000u;
    signal(SIGALRM, on_alarm);
    check_test_pid = getpid();
    if (running == FULL && !own_shm()) {
        printf("  full: not tested: no mount namespace can be made here\n");
        exit(0);
    }
    for (int i = 0; i < 2; i++) life_begin(&lives[i], i);
    if (running == FULL) fill_shm();
    for (uint64_t i = o->first; o->executions ? i < o->first + o->executions : csm_now_ns() < end; i++) {
        shared->execution = i;
        alarm(WATCHDOG_S);
        if (running == FULL) fill_shm();
        struct life *life = &lives[i % 2];
        life_restore(life);
        if (!one(life, i / 2)) {
            shared->over = 1; /* or nothing that can be done here */
            break;
        }
        tidy(life);
        shared->counts.executions++;
    }
    alarm(0);
    exit(0);
}

static bool passes(const struct options *o, enum mode mode, uint64_t seconds) {
    memset(shared, 0, sizeof *shared);
    fflush(NULL);
    running = mode;
    running_seed = o->seed;
    pid_t pid = check_fork_process();
    if (pid == 0) run_mode(o, seconds);
    int status;
    check_test_pid = pid;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    check_unlink_objects(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    printf("FAILED: %s %d; again by: --mode %s --seed %" PRIu64 " --first %" PRIu64 " --executions 1\n",
           WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), mode_names[mode],
           o->seed, shared->execution);
    return false;
}

static void add(struct script_counts *to, const struct script_counts *from) {
    to->executions += from->executions;
    to->healed += from->healed;
    for (int op = 0; op < OPS; op++) {
        if (from->longest_ns[op] > to->longest_ns[op]) to->longest_ns[op] = from->longest_ns[op];
        for (int outcome = 0; outcome < OUTCOMES; outcome++) to->calls[op][outcome] += from->calls[op][outcome];
    }
}

static uint64_t calls_of(const struct script_counts *c, int op) {
    uint64_t calls = 0;
    for (int outcome = 0; outcome < OUTCOMES; outcome++) calls += c->calls[op][outcome];
    return calls;
}

static void report(const struct script_counts *c) {
    uint64_t calls = 0;
    for (int op = 0; op < OPS; op++) {
        uint64_t n = calls_of(c, op);
        calls += n;
        if (n == 0) continue;
        printf("  %-20s %10" PRIu64 "  longest %4.0f ms ", script_names[op], n, (double)c->longest_ns[op] / 1e6);
        for (int outcome = OUTCOMES - 1; outcome > 0; outcome--)
            if (c->calls[op][outcome])
                printf(" %s %" PRIu64 " ", script_outcome_name(outcome + OUTCOME_FIRST), c->calls[op][outcome]);
        printf("\n");
    }
    printf("%" PRIu64 " executions, %" PRIu64 " calls; %" PRIu64 " times the harness freed a lock that named a live process\n",
           c->executions, calls, c->healed);
}

static bool read_options(int argc, char **argv, struct options *o) {
    static const struct option known[] = {{"seconds", required_argument, NULL, 's'}, {"executions", required_argument, NULL, 'n'},
                                          {"seed", required_argument, NULL, 'r'},    {"first", required_argument, NULL, 'f'},
                                          {"mode", required_argument, NULL, 'm'},    {0}};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;
        switch (c) {
        case 's': o->seconds = number; break;
        case 'n': o->executions = number; break;
        case 'r': o->seed = number; break;
        case 'f': o->first = number; break;
        case 'm':
            for (o->mode = 0; o->mode < MODES && strcmp(optarg, mode_names[o->mode]) != 0;) o->mode++;
            if (o->mode < MODES) break;
            return false;
        default: return false;
        }
    }
    return optind == argc;
}

int main(int argc, char **argv) {
    struct options o = {.seconds = 15, .seed = 1, .mode = MODES};
    if (!read_options(argc, argv, &o)) {
        fprintf(stderr, "usage: %s [--seconds S | --executions N] [--seed N] [--first N] [--mode NAME]\n", *argv);
        return 2;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    static struct script_counts total;
    bool passed = true;
    for (enum mode mode = 0; mode < MODES; mode++) {
        if (o.mode != MODES && o.mode != (int)mode) continue;
        uint64_t seconds = o.mode == MODES ? (o.seconds + MODES - 1) / MODES : o.seconds;
        passed &= passes(&o, mode, seconds);
        printf("%s: %" PRIu64 " executions%s\n", mode_names[mode], shared->counts.executions, shared->over ? ", all there are" : "");
        add(&total, &shared->counts);
    }
    report(&total);
    return passed ? 0 : 1;
}
