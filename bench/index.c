/* index.c: look-ups in an index that is more or less full, and in one far larger than the processor's caches.
 *
 *   index OBJECT ROUNDS BATCH ITEMS BIG    times each case once a round; prints "case<TAB>nanoseconds a call"
 *
 * ITEMS: max_items of the caches that are filled to some part. BIG: entries of the large one, 0 for none. Beside it, loads
 * from memory are timed that depend on one another, in an shm object as large as its index and arena together, whose
 * pages are of the same kind: what a look-up cannot do without is two of them, the slot and the entry. */
#include "cache.h"

enum { LEVELS = 4, LINE = 64, VALUE_BYTES = 16 };

static const unsigned levels[LEVELS] = {50, 80, 95, 100}; /* per cent of max_items */

static volatile uint64_t sink;

struct filled {
    csm *cache;
    uint64_t entries;
    uint32_t *order; /* of the keys, 0 .. entries - 1 */
    char name[64];
};

static struct filled fill(uint64_t max_items, uint64_t entries, const char *name) {
    static const char value[VALUE_BYTES];
    /* 16 bytes each of header, key and value; the rest is for the chunks' ends. */
    struct filled f = {make(entries * 64 + 4 * MIB, max_items), entries, shuffle(entries), ""};
    snprintf(f.name, sizeof f.name, "%s", name);
    for (uint64_t n = 0; n < entries; n++) store(f.cache, n, value, sizeof value);
    return f;
}

/* `of_stored`: keys that are there, in random order; else keys that are not. */
static void look_up(const struct filled *f, bool of_stored, uint64_t batch) {
    char key[KEY_BYTES], name[128];
    uint64_t found = 0, at = sink % f->entries, start = now_ns();
    for (uint64_t n = 0; n < batch; n++) {
        set_key(key, f->order[at] + (of_stored ? 0 : f->entries));
        found += csm_find(f->cache, key, KEY_BYTES) > 0;
        at = at + 1 == f->entries ? 0 : at + 1;
    }
    uint64_t end = now_ns();
    sink += batch; /* the next batch goes on from there */
    expect((int64_t)found, of_stored ? (int64_t)batch : 0, "csm_find");
    snprintf(name, sizeof name, "%s, %s", of_stored ? "hit" : "miss", f->name);
    say(name, start, end, batch);
}

/* A cycle through all lines of `bytes`, in random order: each line holds the number of the next. */
static uint32_t *chain(uint64_t bytes) {
    uint64_t lines = bytes / LINE;
    char *name = names[objects++];
    snprintf(name, sizeof names[0], "%s-%d", object, objects);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)(lines * LINE)) != 0) {
        perror(name);
        exit(1);
    }
    uint32_t *at = mmap(NULL, lines * LINE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    expect(at != MAP_FAILED, 1, "mmap");
    close(fd);
    uint32_t *order = shuffle(lines);
    for (uint64_t i = 0; i < lines; i++) at[order[i] * (uint64_t)(LINE / 4)] = order[i + 1 == lines ? 0 : i + 1];
    free(order);
    return at;
}

static void chase(const uint32_t *at, uint64_t batch) {
    static uint32_t line;
    uint64_t start = now_ns();
    for (uint64_t n = 0; n < 2 * batch; n++) line = at[line * (uint64_t)(LINE / 4)];
    say("two loads from memory, the second depending on the first", start, now_ns(), batch);
    sink += line & 1;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    object = argv[1];
    atexit(remove_objects);
    uint64_t rounds = number(argv[2]), batch = number(argv[3]), items = number(argv[4]), big = number(argv[5]);
    struct filled filled[LEVELS + 1];
    int n = 0;
    for (; n < LEVELS; n++) {
        char name[64];
        snprintf(name, sizeof name, "%u %% of max_items", levels[n]);
        filled[n] = fill(items, items * levels[n] / 100, name);
    }
    const uint32_t *lines = NULL;
    if (big > 0) {
        csm_info info;
        char name[64];
        snprintf(name, sizeof name, "%llu entries", (unsigned long long)big);
        filled[n] = fill(big, big, name);
        csm_describe(filled[n++].cache, &info);
        lines = chain(info.slots * 32 + info.bytes_used);
    }
    for (uint64_t round = 0; round <= rounds; round++) {
        if (round == 1) puts("warm"); /* what was printed before does not count */
        for (int i = 0; i < n; i++) {
            look_up(&filled[(i + round) % (uint64_t)n], true, batch);
            look_up(&filled[(i + round) % (uint64_t)n], false, batch);
        }
        if (lines) chase(lines, batch);
    }
    return 0;
}
