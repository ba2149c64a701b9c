/* core.c: hit, miss, reset and view in C alone; core.py and instructions.py build and run it.
 *
 *   core OBJECT time ROUNDS BATCH BIG   times each case once a round; prints "case<TAB>nanoseconds a call"
 *   core OBJECT count FEW MANY          does each case FEW times, then MANY times, between the marks of marks.h
 *
 * OBJECT begins the names of the shm objects it makes; ROUNDS x BATCH is about how many hits
 * are timed; BIG is how many entries the largest cache to reset has. A loop costs
 * well under a nanosecond, which is not subtracted. Times are of CLOCK_MONOTONIC around a batch. */
#include "cache.h"
#include "marks.h"

enum { MANY = 100000, FEW = 1000, BIG_ROUNDS = 3 };

static csm *cache;         /* `entries` entries of 1 KiB, then one of 1 MiB and one of 100 MiB */
static csm *scratch;       /* what is stored goes here; reset before each batch, so that it never fills */
static uint64_t entries;
static uint32_t *shuffled; /* 0 .. entries - 1 */
static uint64_t next_key; /* of `scratch`: every miss is of a key that was never asked for */
static char payload[KIB];
static volatile uint64_t sink;

static void reset(csm *h) {
    expect(csm_reset_lock(h, 1000000000), CSM_OK, "csm_reset_lock");
    expect(csm_reset_commit(h, "1", 1, 0), CSM_OK, "csm_reset_commit");
    csm_reset_unlock(h);
}

static void make_caches(bool with_large) {
    cache = make(512 * MIB, MANY + 16);
    scratch = make(256 * MIB, 1 << 18);
    for (uint64_t n = 0; n < entries; n++) store(cache, n, payload, KIB);
    if (with_large) {
        void *large = calloc(100, MIB);
        store(cache, entries, large, MIB);
        store(cache, entries + 1, large, 100 * MIB);
        free(large);
    }
    shuffled = shuffle(entries);
}

/* ---- the cases */

static void nothing(uint64_t n) { (void)n; }
static void empty_scratch(uint64_t n) {
    (void)n;
    reset(scratch);
}

static void find_hit(uint64_t n) {
    char key[KEY_BYTES];
    set_key(key, 42);
    while (n--) sink = (uint64_t)csm_find(cache, key, KEY_BYTES);
    if ((int64_t)sink <= 0) expect(0, 1, "csm_find");
}

static void find_hit_many(uint64_t n) {
    char key[KEY_BYTES];
    for (uint64_t i = 0; n--; i = i + 1 == entries ? 0 : i + 1) {
        set_key(key, shuffled[i]);
        sink = (uint64_t)csm_find(cache, key, KEY_BYTES);
    }
}

static void find_miss(uint64_t n) {
    char key[KEY_BYTES];
    set_key(key, UINT64_MAX);
    while (n--) sink = (uint64_t)csm_find(cache, key, KEY_BYTES);
    expect((int64_t)sink, 0, "csm_find");
}

static void hit(uint64_t n) {
    char key[KEY_BYTES];
    _Alignas(64) char copy[KIB]; /* else memcpy's way, and so its instructions, vary with the stack */
    set_key(key, 42);
    while (n--) {
        uint64_t generation = csm_generation(cache);
        int64_t found = csm_find(cache, key, KEY_BYTES);
        memcpy(copy, csm_base(cache) + 16 * (found >> 27), (found >> 5) & 0x3fffff);
        if (csm_generation(cache) != generation) expect(0, 1, "csm_generation");
        sink = (unsigned char)copy[KIB - 1];
    }
}

static void view(uint64_t of, uint64_t n) {
    char key[KEY_BYTES];
    set_key(key, of);
    while (n--) {
        csm_view *v;
        expect(csm_view_acquire(cache, key, KEY_BYTES, &v), CSM_OK, "csm_view_acquire");
        csm_view_release(v);
    }
}
static void view_1_kib(uint64_t n) { view(42, n); }
static void view_1_mib(uint64_t n) { view(entries, n); }
static void view_100_mib(uint64_t n) { view(entries + 1, n); }

static void publish_0(uint64_t n) {
    while (n--) store(scratch, next_key++, payload, 0);
}
static void publish_1_kib(uint64_t n) {
    while (n--) store(scratch, next_key++, payload, KIB);
}
static void miss(uint64_t n) {
    char key[KEY_BYTES];
    while (n--) {
        set_key(key, next_key);
        expect(csm_find(scratch, key, KEY_BYTES), 0, "csm_find");
        store(scratch, next_key++, payload, KIB);
    }
}

static void resets(uint64_t n) {
    while (n--) reset(scratch);
}

static const struct {
    const char *name;
    void (*prepare)(uint64_t n); /* not timed */
    void (*run)(uint64_t n);
    uint64_t divisor; /* of BATCH */
    bool large;       /* of the large values, which are not there when instructions are counted */
} cases[] = {
    {"find, hit, the same key", nothing, find_hit, 1, false},
    {"find, hit, 10^5 keys in random order", nothing, find_hit_many, 1, false},
    {"find, miss", nothing, find_miss, 1, false},
    {"hit of 1 KiB: generation, find, copy, generation", nothing, hit, 1, false},
    {"view of 1 KiB: acquire, release", nothing, view_1_kib, 2, false},
    {"view of 1 MiB: acquire, release", nothing, view_1_mib, 2, true},
    {"view of 100 MiB: acquire, release", nothing, view_100_mib, 20, true},
    {"store 0 B: claim, publish", empty_scratch, publish_0, 20, false},
    {"store 1 KiB: claim, publish", empty_scratch, publish_1_kib, 20, false},
    {"miss of 1 KiB: find, claim, publish", empty_scratch, miss, 20, false},
    {"reset of an empty cache", nothing, resets, 50, false},
};
enum { CASES = sizeof cases / sizeof *cases };

/* ---- running them */

static void time_case(int i, uint64_t batch) {
    uint64_t calls = batch / cases[i].divisor + 1;
    cases[i].prepare(calls);
    uint64_t start = now_ns();
    cases[i].run(calls);
    say(cases[i].name, start, now_ns(), calls);
}

/* One reset of a cache that `stored` entries were stored in since the last one. */
static void time_reset(csm *h, uint64_t stored) {
    char name[64];
    snprintf(name, sizeof name, "reset of %llu entries", (unsigned long long)stored);
    for (uint64_t n = 0; n < stored; n++) store(h, n, payload, 16);
    uint64_t start = now_ns();
    reset(h);
    say(name, start, now_ns(), 1);
}

static void time_all(uint64_t rounds, uint64_t batch, uint64_t big) {
    for (int i = 0; i < CASES; i++) { /* warm up: pages, caches, clocks */
        uint64_t calls = batch / cases[i].divisor + 1;
        cases[i].prepare(calls);
        cases[i].run(calls);
    }
    csm *few = make(MIB, 1024), *many = make(16 * MIB, MANY), *most = make(64 * big + MIB, big);
    for (uint64_t round = 0; round < rounds; round++) {
        for (int i = 0; i < CASES; i++) time_case((int)((i + round) % CASES), batch);
        time_reset(few, 10);
        time_reset(many, MANY);
        if (big > MANY && round < BIG_ROUNDS) time_reset(most, big);
    }
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    object = argv[1];
    atexit(remove_objects);
    memset(payload, 'x', sizeof payload);
    bool timed = strcmp(argv[2], "time") == 0;
    entries = timed ? MANY : FEW;
    make_caches(timed);
    if (timed && argc == 6) {
        time_all(number(argv[3]), number(argv[4]), number(argv[5]));
        return 0;
    }
    if (strcmp(argv[2], "count") != 0) return 2;
    for (int i = 0; i < CASES; i++) {
        if (cases[i].large) continue;
        for (int at = 3; at <= 4; at++) {
            cases[i].prepare(number(argv[at]));
            CALLGRIND_ZERO_STATS;
            cases[i].run(number(argv[at]));
            CALLGRIND_DUMP_STATS_AT(cases[i].name);
        }
    }
    return 0;
}
