/* test_threads.c holds all of the core to: everything may be called from any thread, at any time.
 *
 * A crowd asks for a few keys over and over, as the loop in cache.py does, while resets come, the arena fills, views are held,
 * and others look on. Values say which key they are of and how new the source was when they were computed, so
 *   - a wrong, torn or mixed-up value is noticed by whoever gets it;
 *   - so is one that was computed before a reset and is returned after it;
 *   - and per key and generation at most one is stored.
 * Run under ThreadSanitizer it also says that no access is a data race. The crowd is also one of processes, some of which are
 * killed or stopped whenever it happens to be, and one whose process forks. */
#include "check.h"

#include "flight.h"

enum { THREADS = 8, KEYS = 36, LARGE = 6000, HELD = 3, GENERATIONS = 4096 };

static const uint64_t SECOND_NS = UINT64_C(1000000000);

/* Shared by all threads, and by all processes that were forked. */
struct source {
    uint64_t version; /* raised to the next generation before each reset, as an on_reset callback would */
    uint64_t stop;    /* tells threads and processes to end */
    uint64_t stored[GENERATIONS][KEYS];
};
static struct source *source;

static void make_source(void) {
    source = mmap(NULL, sizeof *source, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(source != MAP_FAILED);
    source->version = 1;
}

/* ---- values that check themselves */

struct value {
    uint64_t version, key, bytes;
    unsigned char rest[LARGE - 24];
};

static size_t size_of(uint64_t key) { return key % 3 ? 40 + 10 * key : LARGE; } /* all together they do not fit */

static void compute(struct value *v, uint64_t key) {
    v->version = csm_load_acquire(&source->version);
    v->key = key;
    v->bytes = size_of(key);
    check_fill(v->rest, v->bytes - 24, key ^ v->version << 20);
}

/* It is of this key, whole, and not older than `generation`. */
static void check_value(const struct value *v, uint64_t key, uint64_t bytes, uint64_t generation) {
    CHECK_EQ(bytes, size_of(key));
    CHECK_EQ(v->bytes, bytes);
    CHECK_EQ(v->key, key);
    CHECK(v->version >= generation);
    CHECK(check_filled(v->rest, bytes - 24, key ^ v->version << 20));
}

/* ---- what a member of the crowd does */

struct member {
    csm *h;
    uint64_t random;
    csm_view *held[HELD];
    uint64_t held_keys[HELD];
    struct value value; /* what it got */
};

/* Computes and publishes. False: a reset came in between, or somebody else has taken over. */
static bool own(struct member *m, csm_call *call, const char *name, uint64_t key) {
    uint64_t generation = call->ticket.generation;
    compute(&m->value, key);
    if (check_random(&m->random) % 16 == 0) {
        int code = csm_abandon(m->h, call);
        CHECK(code == CSM_OK || code == CSM_STALE || code == CSM_BUSY);
        return false;
    }
    int kind = check_random(&m->random) % 8 ? CSM_VALUE : CSM_UNCACHED;
    int code = check_publish_as(m->h, call, name, kind, &m->value, size_of(key));
    CHECK(code == CSM_OK || code == CSM_STALE || code == CSM_FULL_ARENA || code == CSM_NOT_STORED || code == CSM_BUSY);
    if (code == CSM_OK && generation < GENERATIONS) CHECK_EQ(csm_add(&source->stored[generation][key], 1), 0);
    return code != CSM_STALE && csm_generation(m->h) == generation;
}

static bool read_outcome(struct member *m, csm_call *call, uint64_t key) {
    uint64_t generation = call->waiter.generation, bytes = call->waiter.outcome_bytes;
    CHECK(bytes <= sizeof m->value);
    if (csm_outcome_read(m->h, call, &m->value) != CSM_OK || csm_generation(m->h) != generation) return false;
    check_value(&m->value, key, bytes, generation);
    return true;
}

/* One attempt to get the key. False: go round again. */
static bool try_get(struct member *m, const char *name, uint64_t key) {
    csm *h = m->h;
    uint64_t generation = csm_generation(h);
    int64_t found = csm_find(h, name, strlen(name));
    if (found > 0) {
        uint64_t bytes = found >> 5 & 0x3fffff;
        csm_copy_racy(&m->value, csm_base(h) + (found >> 27) * 16, csm_min(bytes, sizeof m->value));
        if (csm_generation(h) != generation) return false;
        check_value(&m->value, key, bytes, generation);
        return true;
    }
    csm_call call;
    int code = check_claim(h, name, &call);
    if (code == CSM_JOINED)
        do code = csm_wait(h, &call, SECOND_NS);
        while (code == CSM_TIMEOUT || code == CSM_INTERRUPTED);
    if (code == CSM_OWNER) return own(m, &call, name, key);
    if (code == CSM_OUTCOME) return read_outcome(m, &call, key);
    if (code == CSM_BUSY) return true; /* it would be computed without the cache */
    CHECK(code == CSM_READY || code == CSM_AGAIN);
    return false;
}

static void get(struct member *m) {
    uint64_t key = check_random(&m->random) % KEYS;
    const char *name = check_key("key", key);
    while (!try_get(m, name, key)) {
    }
}

static void release(struct member *m, int i) {
    if (!m->held[i]) return;
    const struct value *v = (const void *)m->held[i]->data;
    check_value(v, m->held_keys[i], m->held[i]->bytes, m->held[i]->generation); /* whatever came since */
    csm_view_release(m->held[i]);
    m->held[i] = NULL;
}

static void view(struct member *m) {
    int i = (int)(check_random(&m->random) % HELD);
    release(m, i);
    m->held_keys[i] = check_random(&m->random) % KEYS;
    const char *name = check_key("key", m->held_keys[i]);
    int code = csm_view_acquire(m->h, name, strlen(name), &m->held[i]);
    CHECK(code == CSM_OK || code == CSM_MISS);
    if (code == CSM_OK) {
        const struct value *v = (const void *)m->held[i]->data;
        check_value(v, m->held_keys[i], m->held[i]->bytes, m->held[i]->generation);
    }
}

static void reset(struct member *m) {
    int code = csm_reset_lock(m->h, SECOND_NS);
    if (code == CSM_TIMEOUT) return; /* somebody else resets */
    CHECK_EQ(code, CSM_OK);
    uint64_t next = csm_generation(m->h) + 1;
    csm_raise(&source->version, next);
    code = csm_reset_commit(m->h, "2", 1, 0);
    CHECK(code == CSM_OK || code == CSM_BUSY);
    if (code == CSM_OK) CHECK_EQ(csm_generation(m->h), next);
    csm_reset_unlock(m->h);
}

static void look_on(struct member *m) {
    csm_flight_info flights[8];
    static __thread unsigned char entries[4096];
    uint64_t cursor = 0, generation = csm_generation(m->h);
    check_info(m->h);
    csm_flights(m->h, flights, 8);
    int64_t bytes = csm_entries(m->h, generation, &cursor, entries, sizeof entries);
    CHECK(bytes >= 0 || bytes == CSM_STALE);
    char report[1024], version[16];
    size_t length;
    CHECK_EQ(csm_version(m->h, version, sizeof version, &length, &generation), CSM_OK);
    CHECK(length == 1 && version[0] == (generation == 1 ? '1' : '2'));
    csm_warn_once(m->h, generation);
    int faults = csm_verify(m->h, report, sizeof report);
    if (faults > 0) fprintf(stderr, "%s", report);
    CHECK(faults == 0 || faults == CSM_BUSY);
}

static void act(struct member *m, bool resets) {
    uint64_t what = check_random(&m->random) % 100;
    if (what < 70)
        get(m);
    else if (what < 95)
        view(m);
    else if (what < 98)
        look_on(m);
    else if (resets)
        reset(m);
}

static void leave_crowd(struct member *m) {
    for (int i = 0; i < HELD; i++) release(m, i);
}

/* ---- threads of one process */

static csm *shared;
static int rounds;

static void *run_member(void *number) {
    struct member m = {.h = shared, .random = (uint64_t)(uintptr_t)number};
    for (int i = 0; i < rounds; i++) act(&m, true);
    leave_crowd(&m);
    return NULL;
}

static void start_threads(pthread_t *threads, int n, void *(*body)(void *)) {
    for (int i = 0; i < n; i++) CHECK(pthread_create(&threads[i], NULL, body, (void *)(uintptr_t)(i + 1)) == 0);
}

static void join_threads(pthread_t *threads, int n) {
    for (int i = 0; i < n; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void check_all_over(csm *h) {
    csm_info info = check_info(h);
    CHECK_EQ(info.flights, 0);
    CHECK_EQ(info.waiters, 0);
    CHECK_EQ(info.pinned_chunks, 0);
    check_sound(h);
}

static void a_crowd_of_threads(void) {
    pthread_t threads[THREADS];
    make_source();
    shared = check_segment(&CHECK_SMALL);
    rounds = CHECK_SANITIZED ? 3000 : 30000;
    start_threads(threads, THREADS, run_member);
    join_threads(threads, THREADS);
    check_all_over(shared);
    CHECK(csm_generation(shared) > 20);
    CHECK(check_stat(shared, CSM_STAT_WAITS) > 0);
}

static pthread_barrier_t barrier;

static void *use_for_the_first_time(void *number) {
    pthread_barrier_wait(&barrier);
    struct member m = {.h = shared, .random = (uint64_t)(uintptr_t)number};
    if ((uintptr_t)number % 3 == 0) check_info(shared);
    if ((uintptr_t)number % 3 == 1) csm_count(shared, CSM_STAT_MISSES, 1);
    for (int i = 0; i < 20; i++) act(&m, false);
    leave_crowd(&m);
    return NULL;
}

/* As in a forked child: its threads find a handle that has no row yet. */
static void first_uses_at_the_same_time(void) {
    make_source();
    int fd = check_object();
    CHECK(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    for (int round = 0; round < 30; round++) {
        pthread_t threads[THREADS];
        shared = check_open(fd, &CHECK_SMALL);
        start_threads(threads, THREADS, use_for_the_first_time);
        join_threads(threads, THREADS);
        CHECK_EQ(check_info(shared).my_row, 0);
        CHECK_EQ(check_info(shared).rows_used, 1);
        check_all_over(shared);
        csm_leave(shared);
    }
}

/* ---- a process that forks while its threads work */

static void *run_until_told(void *number) {
    struct member m = {.h = shared, .random = (uint64_t)(uintptr_t)number};
    while (!csm_load(&source->stop)) act(&m, true);
    leave_crowd(&m);
    return NULL;
}

static void act_alone(struct check_child *me, csm *h) {
    (void)me;
    struct member m = {.h = h, .random = (uint64_t)getpid()};
    for (int i = 0; i < 50; i++) act(&m, true);
    leave_crowd(&m);
}

static void forks_among_threads(void) {
    if (CHECK_SANITIZED) {
        printf("       not tested: forks of a process with threads, under a sanitizer\n");
        return;
    }
    pthread_t threads[4];
    make_source();
    shared = check_segment(&CHECK_SMALL);
    start_threads(threads, 4, run_until_told);
    for (int i = 0; i < 60; i++) {
        struct check_child child = check_fork(act_alone, shared);
        check_end(&child);
    }
    csm_store(&source->stop, 1);
    join_threads(threads, 4);
    check_all_over(shared);
}

/* ---- a crowd of processes, among which death goes about */

static void act_until_told(struct check_child *me, csm *h) {
    struct member m = {.h = h, .random = (uint64_t)getpid()};
    check_say(me, 'r');
    while (!csm_load(&source->stop)) act(&m, true);
    leave_crowd(&m);
}

static void a_crowd_of_processes_some_of_which_are_killed(void) {
    enum { N = 5, KILLS = 150 };
    struct check_child children[N];
    make_source();
    csm *h = check_segment(&CHECK_SMALL);
    struct member m = {.h = h, .random = 99};
    for (int i = 0; i < N; i++) children[i] = check_fork(act_until_told, h);
    for (int i = 0; i < N; i++) check_hear(&children[i], 'r');
    for (int kills = 0; kills < KILLS; kills++) {
        struct check_child *victim = &children[check_random(&m.random) % N];
        for (uint64_t n = check_random(&m.random) % 30; n; n--) act(&m, true);
        if (kills % 10 == 0) {
            check_stop(victim); /* perhaps with the lock: then this comes back without */
            look_on(&m);
        }
        check_kill(victim); /* and not ended by a failed check of its own */
        *victim = check_fork(act_until_told, h);
        check_hear(victim, 'r');
    }
    csm_store(&source->stop, 1);
    for (int i = 0; i < N; i++) check_end(&children[i]);
    leave_crowd(&m);
    check_sound(h);
    check_reset(h);
    CHECK_EQ(check_info(h).rows_used, N + 1);
    for (uint64_t key = 0; key < 9; key++) CHECK_EQ(check_store(h, check_key("key", key), LARGE, key), CSM_OK);
    check_all_over(h);
}

CHECK_MAIN(CHECK_TEST(a_crowd_of_threads), CHECK_TEST(first_uses_at_the_same_time), CHECK_TEST(forks_among_threads),
           CHECK_TEST(a_crowd_of_processes_some_of_which_are_killed))
