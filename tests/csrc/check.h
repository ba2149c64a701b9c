/* check.h: what the tests of the C core share. Include it first.
 *
 * A test is a function without arguments that returns when it passes. CHECK_MAIN runs each one in a process of its own,
 * so a test begins without handles, children or signal handlers of another; if it fails, the others still run. The
 * program that looks on also cleans up: it unlinks the objects that the test made, and fails a test that leaves a
 * child behind, running or dead. It ends a test that hangs after two minutes. Tests measure no time themselves.
 *
 * Two handles on one object, each with a description of its own, behave like two processes: each has its row, its locks
 * and its tickets, and looks alive or dead to the other. What needs a real process, because it must die, stop or fork,
 * uses check_fork: such a child is told what to do, and tells what it did, a byte at a time through pipes.
 *
 * The object keeps its name while a test runs: csm_linked takes one without a name for destroyed. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "core.h"
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHECK_WATCHDOG_S = 120 };

/* Under a sanitizer code is some ten times longer, and a forked child of several threads may find the allocator locked. */
#if defined(__SANITIZE_ADDRESS__) || defined(CSM_TSAN)
#define CHECK_SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECK_SANITIZED true
#endif
#endif
#ifndef CHECK_SANITIZED
#define CHECK_SANITIZED false
#endif

/* ---- checking */

#define CHECK(condition)                                                                                      \
    do {                                                                                                      \
        if (!(condition)) {                                                                                   \
            fprintf(stderr, "%s:%d: %s: CHECK(%s)\n", __FILE__, __LINE__, __func__, #condition);              \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)

/* Two integers; says what they are when they differ. */
#define CHECK_EQ(got, want)                                                                                   \
    do {                                                                                                      \
        long long got_ = (long long)(got), want_ = (long long)(want);                                         \
        if (got_ != want_) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s is %lld, not %s = %lld\n", __FILE__, __LINE__, __func__, #got, got_, \
                    #want, want_);                                                                            \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)

/* Comes back when the condition holds. The watchdog is the only limit. */
#define CHECK_UNTIL(condition)                                                                                \
    do {                                                                                                      \
        while (!(condition)) csm_nap_ns(200000);                                                              \
    } while (0)

/* ---- running */

struct check_test {
    const char *name;
    void (*run)(void);
};

#define CHECK_TEST(function) \
    { #function, function }

#define CHECK_MAIN(...)                                                                                       \
    int main(void) {                                                                                          \
        static const struct check_test tests[] = {__VA_ARGS__};                                               \
        return check_run(tests, sizeof tests / sizeof *tests);                                                \
    }

static pid_t check_test_pid; /* of the test that runs, also in its children */
static volatile sig_atomic_t check_told_to_stop;

static inline void check_on_stop(int signal_number) {
    (void)signal_number;
    check_told_to_stop = 1;
    if (check_test_pid > 0) kill(check_test_pid, SIGKILL);
}

/* Begins a process that ends with the one that forked it. */
static inline pid_t check_fork_process(void) {
    pid_t parent = getpid(), pid;
    fflush(NULL);
    CHECK((pid = fork()) >= 0);
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent && getppid() != 0) _exit(1); /* 0: the parent is in another PID namespace */
    return 0;
}

/* Removes the objects that the test made. */
static inline void check_unlink_objects(pid_t test) {
    char prefix[64], path[512];
    snprintf(prefix, sizeof prefix, "coopshm-check.%d.", (int)test);
    DIR *directory = opendir("/dev/shm");
    CHECK(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0) continue;
        snprintf(path, sizeof path, "/dev/shm/%s", entry->d_name);
        unlink(path);
    }
    closedir(directory);
}

static inline bool check_passes(const struct check_test *test) {
    check_test_pid = check_fork_process();
    if (check_test_pid == 0) {
        signal(SIGTERM, SIG_DFL);
        signal(SIGINT, SIG_DFL);
        check_test_pid = getpid();
        alarm(CHECK_WATCHDOG_S);
        test->run();
        exit(0); /* not _exit: leaks are looked for on the way out */
    }
    int status, left = 0;
    pid_t pid;
    while ((pid = waitpid(check_test_pid, &status, 0)) < 0 && errno == EINTR) {
    }
    while (waitpid(-1, NULL, 0) > 0) left++; /* orphans come here; what lives dies with the test */
    check_unlink_objects(check_test_pid);
    check_test_pid = 0;
    if (WIFSIGNALED(status)) fprintf(stderr, "%s: ended by %s\n", test->name, strsignal(WTERMSIG(status)));
    if (WIFEXITED(status) && WEXITSTATUS(status)) fprintf(stderr, "%s: exit %d\n", test->name, WEXITSTATUS(status));
    bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (passed && left) fprintf(stderr, "%s: left %d child process(es)\n", test->name, left);
    return passed && left == 0;
}

static inline int check_run(const struct check_test *tests, size_t n) {
    int failures = 0;
    signal(SIGTERM, check_on_stop);
    signal(SIGINT, check_on_stop);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (size_t i = 0; i < n && !check_told_to_stop; i++) {
        bool passed = check_passes(&tests[i]);
        failures += !passed;
        printf("  %s %s\n", passed ? "ok  " : "FAIL", tests[i].name);
        fflush(stdout);
    }
    return failures || check_told_to_stop;
}

/* ---- segments */

/* 16 chunks of one page. */
static const csm_settings CHECK_SMALL = {
    .memory_limit = CSM_MIN_LIMIT, .max_items = 4096, .rows = 8, .flights = 64, .nodes = 64};

/* A fresh, blank object. */
static inline int check_object(void) {
    static int count;
    char name[64];
    snprintf(name, sizeof name, "/coopshm-check.%d.%d.%d", (int)check_test_pid, (int)getpid(), count++);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    return fd;
}

/* A handle lives as long as its process, even after csm_leave: no leak. */
static inline csm *check_keep(csm *h) {
    static struct kept {
        struct kept *next;
        csm *h;
    } *all;
    struct kept *one = malloc(sizeof *one);
    CHECK(one);
    *one = (struct kept){all, h};
    all = one;
    return h;
}

/* A handle on the object behind `fd`, by a description of its own. `fd` stays the caller's. */
static inline csm *check_open(int fd, const csm_settings *settings) {
    csm *h;
    int created, own = csm_process_reopen(fd);
    CHECK(own >= 0);
    CHECK_EQ(csm_open(own, settings, UINT64_C(60000000000), &h, &created), CSM_OK);
    return check_keep(h);
}

static inline csm *check_join(csm *h) {
    int flipped;
    CHECK_EQ(csm_join(h, CSM_APP, 0, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(flipped, 0);
    return h;
}

/* A fresh segment, and the first process that uses it. */
static inline csm *check_segment(const csm_settings *settings) {
    int fd = check_object();
    csm *h = check_join(check_open(fd, settings));
    close(fd);
    return h;
}

/* Another process on the same segment. */
static inline csm *check_another(csm *h) { return check_join(check_open(csm_descriptor(h), &CHECK_SMALL)); }

static inline void check_sound(csm *h) {
    char report[4096];
    int faults = csm_verify(h, report, sizeof report);
    if (faults != 0) fprintf(stderr, "%s", report);
    CHECK_EQ(faults, 0);
}

static inline csm_info check_info(csm *h) {
    csm_info info;
    csm_describe(h, &info);
    return info;
}

static inline uint64_t check_stat(csm *h, enum csm_stat stat) { return check_info(h).stats[stat]; }

static inline void check_reset(csm *h) {
    CHECK_EQ(csm_reset_lock(h, UINT64_C(60000000000)), CSM_OK);
    CHECK_EQ(csm_reset_commit(h, "2", 1, 0), CSM_OK);
    csm_reset_unlock(h);
}

/* ---- entries: keys are strings, values whatever bytes */

/* The n-th key of its kind. Good until this thread has asked for three more. */
static inline const char *check_key(const char *kind, uint64_t n) {
    static __thread char keys[4][40];
    static __thread unsigned next;
    char *key = keys[next++ % 4];
    snprintf(key, sizeof keys[0], "%.16s %" PRIu64, kind, n);
    return key;
}

static inline int check_claim_in(csm *h, const char *key, const csm_call *parent, csm_call *call) {
    *call = (csm_call){0};
    return csm_claim(h, key, strlen(key), parent, call);
}

static inline int check_claim(csm *h, const char *key, csm_call *call) { return check_claim_in(h, key, NULL, call); }

static inline int check_publish_as(csm *h, csm_call *call, const char *key, int kind, const void *data, size_t bytes) {
    csm_piece piece = {data, bytes};
    return csm_publish(h, call, key, strlen(key), kind, 7, &piece, 1);
}

static inline int check_publish(csm *h, csm_call *call, const char *key, const void *data, size_t bytes) {
    return check_publish_as(h, call, key, CSM_VALUE, data, bytes);
}

/* Bytes that tell which key or generation (`seed`) they are of, wherever one looks. */
static inline void check_fill(void *data, size_t bytes, uint64_t seed) {
    unsigned char *to = data;
    for (size_t i = 0; i < bytes; i++) {
        if (i % 8 == 0) seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        to[i] = (unsigned char)(seed >> (32 + i % 8));
    }
}

static inline bool check_filled(const void *data, size_t bytes, uint64_t seed) {
    unsigned char *want = malloc(bytes + 1);
    CHECK(want);
    check_fill(want, bytes, seed);
    bool same = memcmp(data, want, bytes) == 0;
    free(want);
    return same;
}

/* Claims, which must make the caller owner, and publishes. The code of csm_publish. */
static inline int check_store(csm *h, const char *key, size_t bytes, uint64_t seed) {
    csm_call call;
    CHECK_EQ(check_claim(h, key, &call), CSM_OWNER);
    unsigned char *data = malloc(bytes + 1);
    CHECK(data);
    check_fill(data, bytes, seed);
    int code = check_publish(h, &call, key, data, bytes);
    free(data);
    return code;
}

/* Is `key` stored, with these bytes? False: it is not stored. Other bytes fail the test. */
static inline bool check_has(csm *h, const char *key, size_t bytes, uint64_t seed) {
    csm_view *view;
    int code = csm_view_acquire(h, key, strlen(key), &view);
    if (code == CSM_MISS) {
        CHECK_EQ(csm_find(h, key, strlen(key)), 0);
        return false;
    }
    CHECK_EQ(code, CSM_OK);
    CHECK_EQ(view->bytes, bytes);
    CHECK(check_filled(view->data, bytes, seed));
    int64_t found = csm_find(h, key, strlen(key));
    CHECK(found > 0);
    CHECK(csm_base(h) + (found >> 27) * 16 == view->data);
    CHECK_EQ(found >> 5 & 0x3fffff, bytes);
    CHECK_EQ(found & 31, view->format);
    csm_view_release(view);
    return true;
}

/* The same numbers on every run. */
static inline uint64_t check_random(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = *state;
    x ^= x >> 32;
    return x * UINT64_C(0x9e3779b97f4a7c15) >> 20;
}

/* ---- children */

struct check_child {
    pid_t pid; /* 0 in the child itself */
    int from, to;
};

static inline void check_say(struct check_child *c, char word) { CHECK_EQ(write(c->to, &word, 1), 1); }

static inline void check_hear(struct check_child *c, char word) {
    char heard = 0;
    ssize_t n;
    while ((n = read(c->from, &heard, 1)) < 0 && errno == EINTR) {
    }
    if (n == 0) fprintf(stderr, "the other side has ended instead of saying '%c'\n", word);
    CHECK_EQ(heard, word);
}

/* Runs `body` in a forked process, which then ends with success. */
static inline struct check_child check_fork(void (*body)(struct check_child *me, csm *h), csm *h) {
    int up[2], down[2];
    CHECK(pipe2(up, O_CLOEXEC) == 0 && pipe2(down, O_CLOEXEC) == 0);
    struct check_child c = {.pid = check_fork_process(), .from = up[0], .to = down[1]};
    if (c.pid == 0) {
        c.from = down[0];
        c.to = up[1];
        close(up[0]);
        close(down[1]);
        body(&c, h);
        _exit(0);
    }
    close(up[1]);
    close(down[0]);
    return c;
}

static inline int check_wait(struct check_child *c, int options) {
    int status;
    pid_t pid;
    while ((pid = waitpid(c->pid, &status, options)) < 0 && errno == EINTR) {
    }
    CHECK_EQ(pid, c->pid);
    if (WIFSTOPPED(status) || WIFCONTINUED(status)) return status;
    close(c->from);
    close(c->to);
    return status;
}

/* The child has ended by itself, well. */
static inline void check_end(struct check_child *c) {
    int status = check_wait(c, 0);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

/* When these come back, the child is dead, or stopped, or told to go on. */
static inline void check_kill(struct check_child *c) {
    CHECK(kill(c->pid, SIGKILL) == 0);
    int status = check_wait(c, 0);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGKILL);
}

static inline void check_stopped(struct check_child *c) {
    int status = check_wait(c, WUNTRACED);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), SIGSTOP);
}

static inline void check_stop(struct check_child *c) {
    CHECK(kill(c->pid, SIGSTOP) == 0);
    check_stopped(c);
}

static inline void check_continue(struct check_child *c) { CHECK(kill(c->pid, SIGCONT) == 0); }

/* ---- stopping a publish half-way: a piece that cannot be read until its process has been stopped and continued */

static unsigned char *check_stopping_page;

static inline void check_on_fault(int signal_number, siginfo_t *info, void *context) {
    (void)context;
    unsigned char *at = info->si_addr;
    if (at < check_stopping_page || at >= check_stopping_page + CSM_PAGE) {
        signal(signal_number, SIG_DFL); /* a real fault: met again on return */
        return;
    }
    raise(SIGSTOP);
    if (mprotect(check_stopping_page, CSM_PAGE, PROT_READ) != 0) _exit(1);
}

/* `bytes` of zeros, at most a page. The process that publishes them stops itself: see check_stopped. */
static inline csm_piece check_stopping_piece(size_t bytes) {
    check_stopping_page = mmap(NULL, CSM_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(check_stopping_page != MAP_FAILED && bytes <= CSM_PAGE);
    struct sigaction action = {.sa_sigaction = check_on_fault, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    return (csm_piece){check_stopping_page, bytes};
}

#endif
