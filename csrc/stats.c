/* stats.c: see stats.h.
 *
 * Each process writes in its own row only, its threads by atomic additions: nobody waits, and nothing is lost when a process
 * dies, since rows are never cleared. Who reads adds the rows up.
 *
 * Only what is counted without a row would be lost with its process, and be seen by nobody until then. So who counts in `spare` tries
 * for a row at once, and what has come together there is moved. A process that can have none (all rows taken, no descriptor) tries
 * again at twice the count, since it takes a system call for each row; each miss tries anyway.
 *
 * Hits of hot objects (csm_hot) are too cheap for an atomic addition, which takes as long as twenty plain ones. A load and a store
 * are exact as well as long as nobody else writes the word between them:
 *   - of the process's threads only one at a time counts there, or calls csm_hot_settle; nothing else in the core writes the words.
 *   - A row is another process's only when its lock is free, so when this process has ended or is about to leave, or when somebody
 *     closed the descriptor (process.h). In that one case a thread that was interrupted between the two, on a row that another process
 *     has won and counted in before it went on, sets that one's count back.
 *   - A forked child has been given `early_hot`, its own, before any of its threads runs.
 *   - A row may be won, without the GIL, in the middle of a hit, which then still stores in `early_hot`. The first hit that is counted
 *     there settles at once. A later one, of a process that could have no row until now, stays there until the next one that settles:
 *     each miss does, so the winner itself nearly always. To tell that one would cost each hit a load and a comparison more.
 *
 * The slowest computations. A row remembers CSM_SLOWEST of them, one per key: those of the current generation that took longest, and
 * of older ones as long as there is room. Nearly all computations are told by one comparison that they are not among them. The
 * others are written under the handle's mutex, so by one thread at a time; who reads them takes no lock, and believes a record whose
 * seal fits.
 *
 * What if a process dies here: one time is missing in the total or in a bucket; one record of the table does not open, and the next
 * owner of the row takes its place for free. */
#include "stats.h"

#include "hash.h"
#include "process.h"

static const uint64_t BUCKET_NS[CSM_BUCKETS] = {
    1000000,   2500000,   5000000,    10000000,   25000000,   50000000,    100000000,   250000000, 500000000,
    1000000000, 2500000000, 5000000000, 10000000000, 25000000000, 50000000000, 100000000000, 0,
};

_Static_assert(sizeof(struct csm_times) == sizeof(csm_durations), "api.h and layout.h differ on times");
_Static_assert(sizeof((csm_info){0}.stats) == CSM_STAT_WORDS * sizeof(uint64_t), "api.h and layout.h differ on statistics");
_Static_assert(sizeof((csm_row_info){0}.stats) == CSM_STAT_WORDS * sizeof(uint64_t), "api.h and layout.h differ on statistics");
_Static_assert(sizeof((csm_slow_info){0}.key) == CSM_SLOW_KEY, "api.h and layout.h differ on keys");
_Static_assert((int)CSM_STATS <= (int)CSM_STAT_WORDS, "more statistics than words for them");

uint64_t csm_bucket_ns(int i) { return i >= 0 && i < (int)CSM_BUCKETS ? BUCKET_NS[i] : 0; }

void csm_count(csm *h, int stat, uint64_t n) {
    csm_process_enter(h); /* what is counted without a row is lost with the process; no row to be had: so be it */
    if (stat >= 0 && stat < (int)CSM_STATS && stat != CSM_STAT_HOT_HITS) csm_stat_add(h, (enum csm_stat)stat, n);
}

void csm_stats_early(csm *h, uint64_t before) {
    if ((before & (before - 1)) == 0) csm_process_enter(h); /* 0, 1, 2, 4, 8 ... */
    /* SYNC early: pairs with csm_process_enter. Both store, then look: the count that is in `spare`, the row that is in `mine`. At
     * least one sees the other's, and moves what it finds. */
    csm_fence_seq();
    struct csm_row *mine = csm_load(&h->mine);
    if (mine != &h->spare) csm_stats_move(&h->spare, mine);
}

/* ---- hits of hot objects ---- */

uint64_t **csm_hot(csm *h) { return &h->hot; }

void csm_hot_settle(csm *from, csm *to) {
    uint64_t early = csm_load(&from->early_hot) - CSM_EARLY_HOT, looks = early / CSM_HOT_LOOK;
    if (from != to && from->id != to->id) return;
    if (early && (looks & (looks - 1)) == 0) csm_process_enter(to);
    uint64_t *at = csm_load(&to->hot);
    if (early && at != &from->early_hot) {
        csm_store(&from->early_hot, CSM_EARLY_HOT);
        csm_store(at, csm_load(at) + early);
    }
    if (from != to) csm_stats_move(&from->spare, csm_load(&to->mine));
}

/* ---- times ---- */

static void add_time(struct csm_times *times, uint64_t ns) {
    uint32_t i = 0;
    while (i < CSM_BUCKETS - 1 && ns > BUCKET_NS[i]) i++;
    csm_add(&times->buckets[i], 1);
    csm_add(&times->total_ns, ns);
    csm_raise(&times->max_ns, ns);
}

static uint64_t since(uint64_t began_ns) {
    int64_t ns = (int64_t)(csm_now_ns() - began_ns);
    return ns > 0 ? (uint64_t)ns : 0;
}

void csm_stats_waited(csm *h, const csm_waiter *w) { add_time(&csm_load(&h->mine)->wait, since(w->joined_ns)); }

static void move_times(struct csm_times *from, struct csm_times *to) {
    uint64_t *words = (uint64_t *)from, *into = (uint64_t *)to;
    for (size_t i = 0; i < sizeof *from / sizeof *words; i++) {
        uint64_t early = __atomic_exchange_n(&words[i], 0, __ATOMIC_RELAXED);
        if (&into[i] == &to->max_ns)
            csm_raise(&into[i], early);
        else if (early)
            csm_add(&into[i], early);
    }
}

void csm_stats_move(struct csm_row *from, struct csm_row *to) {
    for (uint32_t i = 0; i < CSM_STAT_WORDS; i++) {
        uint64_t early = __atomic_exchange_n(&from->stats[i], 0, __ATOMIC_RELAXED);
        if (early) csm_add(&to->stats[i], early);
    }
    move_times(&from->compute, &to->compute);
    move_times(&from->wait, &to->wait);
}

void csm_stats_sum(const struct csm_times *from, csm_durations *to) {
    uint64_t longest = csm_load(&from->max_ns);
    to->total_ns += csm_load(&from->total_ns);
    if (longest > to->max_ns) to->max_ns = longest;
    for (uint32_t i = 0; i < CSM_BUCKETS; i++) to->buckets[i] += csm_load(&from->buckets[i]);
}

/* ---- the slowest computations ---- */

static uint64_t seal(csm *h, const struct csm_slow *record) {
    return csm_hash(h->secret, &record->ns, sizeof *record - offsetof(struct csm_slow, ns)).hi;
}

bool csm_stats_slow(csm *h, const struct csm_row *row, uint32_t i, struct csm_slow *out) {
    if (csm_load(&row->slow[i].ns) == 0) return false;
    csm_copy_racy(out, &row->slow[i], sizeof *out);
    return out->seal == seal(h, out) && out->ns;
}

/* Knows the row's records from now on; where none opens there is room. */
static void learn(csm *h, const struct csm_row *row, uint64_t self) {
    for (uint32_t i = 0; i < CSM_SLOWEST; i++) {
        struct csm_slow found;
        bool known = csm_stats_slow(h, row, i, &found);
        h->slow[i].ns = known ? found.ns : 0;
        h->slow[i].generation = known ? found.generation : 0;
        h->slow[i].hash = known ? found.hash : 0;
    }
    csm_store(&h->slow_of, self);
}

/* Which record a computation takes the place of: an earlier one of its key, else that which matters least. CSM_SLOWEST: none. */
static uint32_t place_for(csm *h, uint64_t generation, uint64_t hash, uint64_t ns) {
    uint32_t least = 0;
    for (uint32_t i = 0; i < CSM_SLOWEST; i++) {
        if (h->slow[i].ns && h->slow[i].hash == hash) {
            least = i;
            break;
        }
        if (h->slow[i].generation < h->slow[least].generation ||
            (h->slow[i].generation == h->slow[least].generation && h->slow[i].ns < h->slow[least].ns))
            least = i;
    }
    bool slower = generation > h->slow[least].generation || (generation == h->slow[least].generation && ns > h->slow[least].ns);
    return slower ? least : CSM_SLOWEST;
}

static void remember_locked(csm *h, const csm_ticket *t, const void *key, size_t key_bytes, uint64_t ns) {
    struct csm_row *row = csm_load(&h->mine);
    if (csm_load(&h->slow_of) != t->owner) learn(h, row, t->owner);
    uint64_t hash = csm_hash(h->secret, key, key_bytes).lo;
    uint32_t i = place_for(h, t->generation, hash, ns);
    if (i < CSM_SLOWEST) {
        h->slow[i].ns = ns;
        h->slow[i].generation = t->generation;
        h->slow[i].hash = hash;
        struct csm_slow record = {.ns = ns, .ended_ns = csm_wall_ns(), .generation = t->generation, .hash = hash,
                                  .pid = h->pid, .key_bytes = key_bytes};
        memcpy(record.key, key, csm_min(key_bytes, CSM_SLOW_KEY));
        record.seal = seal(h, &record);
        csm_fill_racy(&row->slow[i], &record, sizeof record);
    }
    uint64_t least = UINT64_MAX, generation = t->generation;
    for (i = 0; i < CSM_SLOWEST; i++) generation = h->slow[i].generation > generation ? h->slow[i].generation : generation;
    for (i = 0; i < CSM_SLOWEST; i++) least = csm_min(least, h->slow[i].generation == generation ? h->slow[i].ns : 0);
    csm_store(&h->slow_generation, generation);
    csm_store(&h->slow_least_ns, least);
}

void csm_stats_computed(csm *h, const csm_ticket *t, const void *key, size_t key_bytes) {
    uint64_t ns = since(t->began_ns);
    add_time(&csm_load(&h->mine)->compute, ns);
    if (!key || (ns <= csm_load(&h->slow_least_ns) && t->generation <= csm_load(&h->slow_generation) &&
                 t->owner == csm_load(&h->slow_of)))
        return;
    if (!csm_process_hold(&h->mutex)) return;
    if (csm_self(h) == t->owner) remember_locked(h, t, key, key_bytes, ns);
    csm_process_let_go(&h->mutex);
}
