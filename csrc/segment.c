/* segment.c: creation, attachment, validation; the flip.
 *
 * Creation. Whoever finds a blank object tries for the OFD lock on the create byte. The winner sizes it, reserves what is
 * read without further checks, fills it in, and stores `state` last. Everybody else attaches only when `state` says
 * usable. A creator that dies leaves a blank object of some size and a free lock; the next one finds that, and the object is
 * unlinked and made anew (CSM_GONE), never truncated: somebody might have it mapped after all.
 *
 * Nothing of the shared header is trusted after attaching: the geometry is recomputed from the settings it names, compared
 * and kept in private memory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "segment.h"

#include "arena.h"
#include "hash.h"
#include "lease.h"
#include "lock.h"
#include "outcome.h"
#include "process.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static __thread int saved_errno;

int csm_errno(void) { return saved_errno; }

static int failed(void) {
    saved_errno = errno;
    return errno == ENOSPC ? CSM_NO_SPACE : CSM_SYSTEM;
}

/* Size of sem_t and which libc wrote it: attachers must agree on what is inside. */
static uint32_t semaphore_kind(void) {
#ifdef __GLIBC__
    return (uint32_t)sizeof(sem_t) << 8 | 1;
#else
    return (uint32_t)sizeof(sem_t) << 8 | 2;
#endif
}

/* ---- geometry ---- */

bool csm_segment_geometry(const csm_settings *s, struct csm_geometry *geo) {
    if (s->memory_limit < CSM_MIN_LIMIT || s->memory_limit > CSM_MAX_LIMIT || s->max_items < 1 ||
        s->max_items > CSM_MAX_ITEMS || s->rows < 1 || s->rows > CSM_MAX_ROWS || s->flights < 1 ||
        s->flights > CSM_MAX_FLIGHTS || s->nodes < 1 || s->nodes > CSM_MAX_NODES)
        return false;
    memset(geo, 0, sizeof *geo);
    geo->memory_limit = s->memory_limit;
    geo->max_items = s->max_items;
    geo->rows = s->rows;
    geo->flights = s->flights;
    geo->nodes = s->nodes;
    /* At most 80 % full with max_items entries, plus a slot for each computation in flight: a full cache must still
     * be able to note who computes what. */
    geo->slots = s->max_items + s->max_items / 4 + s->flights + 1;
    geo->chunk_bytes = CSM_MIN_CHUNK;
    while (csm_round(s->memory_limit, geo->chunk_bytes) / geo->chunk_bytes > CSM_MAX_CHUNKS) geo->chunk_bytes *= 2;
    geo->chunks = csm_round(s->memory_limit, geo->chunk_bytes) / geo->chunk_bytes;

    uint64_t at = sizeof(struct csm_header);
#define CSM_PART(name, bytes, align) (at = csm_round(at, align), geo->name = at, at += (bytes))
    CSM_PART(chunks_off, geo->chunks * sizeof(struct csm_chunk), 64);
    CSM_PART(flights_off, geo->flights * sizeof(struct csm_flight), 64);
    CSM_PART(nodes_off, geo->nodes * sizeof(struct csm_node), 64);
    CSM_PART(outcomes_off, geo->flights * sizeof(struct csm_outcome), 64);
    CSM_PART(slots_off, geo->slots * sizeof(struct csm_slot), 64);
    CSM_PART(log_off, geo->max_items * sizeof(uint64_t), CSM_PAGE);
    CSM_PART(rows_off, geo->rows * sizeof(struct csm_row), CSM_PAGE);
    CSM_PART(arena_off, s->memory_limit, CSM_PAGE);
#undef CSM_PART
    geo->mapped_bytes = csm_round(at, CSM_PAGE);
    geo->windows_off = csm_round(geo->mapped_bytes, CSM_WINDOW_BYTES);
    return true;
}

uint64_t csm_segment_bytes(const csm_settings *settings) {
    struct csm_geometry geo;
    return csm_segment_geometry(settings, &geo) ? geo.mapped_bytes : 0;
}

static uint64_t header_check(const struct csm_header *header) {
    return csm_hash(header->secret, &header->geometry, sizeof header->geometry).lo;
}

/* ---- mapping ---- */

static int map(csm *h, int fd) {
    void *base = mmap(NULL, h->geo.mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) return failed();
    h->base = base;
    h->header = base;
    h->chunks = (void *)(h->base + h->geo.chunks_off);
    h->flights = (void *)(h->base + h->geo.flights_off);
    h->nodes = (void *)(h->base + h->geo.nodes_off);
    h->outcomes = (void *)(h->base + h->geo.outcomes_off);
    h->slots = (void *)(h->base + h->geo.slots_off);
    h->log = (void *)(h->base + h->geo.log_off);
    h->rows = (void *)(h->base + h->geo.rows_off);
    h->arena = h->base + h->geo.arena_off;
    h->granules = h->geo.memory_limit / CSM_GRANULE;
    h->chunk_granules = h->geo.chunk_bytes / CSM_GRANULE;
    return CSM_OK;
}

/* In steps: it cannot be interrupted half-way without undoing its work, and a signal that comes often would never let a
 * large one finish. */
static int reserve_pages(int fd, uint64_t bytes) {
    const uint64_t step = 1 << 20;
    for (uint64_t at = 0; at < bytes;) {
        uint64_t n = csm_min(step, bytes - at);
        int rc = posix_fallocate(fd, (off_t)at, (off_t)n);
        if (rc == EINTR) continue;
        if (rc != 0) return rc;
        at += n;
    }
    return 0;
}

/* Fills a blank, empty object in. Under the create lock. */
static int create(csm *h, int fd, const csm_settings *settings) {
    if (!csm_segment_geometry(settings, &h->geo)) return CSM_INVALID;
    if (ftruncate(fd, (off_t)h->geo.mapped_bytes) != 0) return failed();
    int rc = reserve_pages(fd, h->geo.log_off);
    if (rc != 0) {
        errno = rc;
        int code = failed();
        if (ftruncate(fd, 0) != 0) return code; /* nothing to add: the first failure is the one to report */
        return code;
    }
    int code = map(h, fd);
    if (code != CSM_OK) return code;
    struct csm_header *header = h->header;
    header->layout = CSM_LAYOUT_VERSION;
    header->sem_bytes = semaphore_kind();
    if (getrandom(h->secret, sizeof h->secret, 0) != (ssize_t)sizeof h->secret) return failed();
    memcpy(header->secret, h->secret, sizeof h->secret);
    header->created_ns = csm_wall_ns();
    header->geometry = h->geo;
    header->check = header_check(header);
    header->generation = 1;
    header->next_serial = 1;
    struct csm_epoch *epoch = &header->epoch[1];
    epoch->generation = 1;
    epoch->reset_at_ns = header->created_ns;
    epoch->told = 1; /* it was no reset */
    epoch->reset_pid = (uint64_t)getpid();
    epoch->reset_uid = (uint64_t)geteuid();
    epoch->version[0] = '1';
    epoch->version_bytes = 1;
    header->magic = CSM_MAGIC;
    CSM_CRASH_POINT("create: filled in");
    /* SYNC usable: pairs with look(); everything above becomes visible. */
    csm_store_release(&header->state, CSM_USABLE);
    return CSM_OK;
}

/* Reads the header by pread, which cannot fault on a truncated object. CSM_OK: usable; CSM_MISS: blank. The size is asked for after
 * that: a creator may be at work, and a header that says usable comes after the size that it tells of. */
static int look(int fd, struct csm_header *header, struct stat *st) {
    ssize_t n;
    do n = pread(fd, header, 512, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 || fstat(fd, st) != 0) return failed();
    if (n < 512) return n == 0 ? CSM_MISS : CSM_LAYOUT;
    if (header->magic == 0 && header->state == CSM_BLANK) return CSM_MISS;
    if (header->magic != CSM_MAGIC) return CSM_LAYOUT;
    if (header->state == CSM_BLANK) return CSM_MISS;
    if (header->layout != CSM_LAYOUT_VERSION || header->sem_bytes != semaphore_kind()) return CSM_LAYOUT;
    return header->state == CSM_USABLE ? CSM_OK : CSM_GONE;
}

static int attach(csm *h, int fd, const struct csm_header *header, const struct stat *st) {
    const struct csm_geometry *g = &header->geometry;
    csm_settings settings = {.memory_limit = g->memory_limit, .max_items = g->max_items, .rows = (uint32_t)g->rows,
                             .flights = (uint32_t)g->flights, .nodes = (uint32_t)g->nodes};
    if (!csm_segment_geometry(&settings, &h->geo) || memcmp(&h->geo, g, sizeof *g) != 0 ||
        header_check(header) != header->check || (uint64_t)st->st_size < h->geo.mapped_bytes)
        return CSM_CORRUPT;
    memcpy(h->secret, header->secret, sizeof h->secret); /* those that were checked, not what the mapping says by now */
    return map(h, fd);
}

static int create_or_attach(csm *h, int fd, const csm_settings *settings, uint64_t timeout_ns, int *created) {
    union {
        struct csm_header header;
        unsigned char bytes[sizeof(struct csm_header)];
    } seen;
    struct stat st;
    uint64_t start = csm_now_ns(), nap = 100000;
    for (;;) {
        int code = look(fd, &seen.header, &st);
        if (code == CSM_OK) return attach(h, fd, &seen.header, &st);
        if (code != CSM_MISS || !settings) return code;
        if (csm_process_lock_byte(fd, CSM_LOCK_CREATE)) {
            /* Look again: the object may have been finished between the look and the lock. */
            code = look(fd, &seen.header, &st);
            if (code == CSM_OK) {
                code = attach(h, fd, &seen.header, &st);
            } else if (code == CSM_MISS && st.st_size > 0) {
                code = CSM_GONE; /* its creator died, or somebody blanked it: others may have it mapped, so it is not reused */
            } else if (code == CSM_MISS && settings) {
                code = create(h, fd, settings);
                *created = code == CSM_OK;
            }
            csm_process_unlock_byte(fd, CSM_LOCK_CREATE);
            return code;
        }
        if (errno != EAGAIN && errno != EACCES) return failed();
        if (csm_now_ns() - start > timeout_ns) return CSM_BUSY;
        csm_nap_ns(nap);
        nap = csm_min(nap * 2, 10000000);
    }
}

int csm_open(int fd, const csm_settings *settings, uint64_t timeout_ns, csm **out, int *created) {
    *created = 0;
    *out = NULL;
    csm *h = calloc(1, sizeof *h);
    if (!h) {
        errno = ENOMEM;
        return failed();
    }
    h->fd = -1;
    h->row = h->child_row = CSM_NO_INDEX;
    h->child_fd = -1;
    h->mine = &h->spare;
    h->hot = &h->early_hot;
    h->early_hot = CSM_EARLY_HOT;
    pthread_mutex_init(&h->mutex, NULL);
    int code = create_or_attach(h, fd, settings, timeout_ns, created);
    struct stat st;
    /* The mapping was made from `fd`, and holds on to that open file description; a forked child inherits the mapping. If row
     * locks were taken through it, a dead parent would look alive for as long as a child lives. So they are taken through a
     * description of their own. */
    if (code == CSM_OK && fstat(fd, &st) != 0) code = failed();
    if (code == CSM_OK) {
        h->device = st.st_dev;
        h->inode = st.st_ino;
        h->id = csm_hash(h->secret, "id", 2).lo | 1;
        if (!csm_process_watch(h, fd)) code = failed();
    }
    if (code != CSM_OK) {
        if (h->base) munmap(h->base, h->geo.mapped_bytes);
        free(h);
        return code;
    }
    close(fd);
    *out = h;
    return CSM_OK;
}

void csm_leave(csm *h) { csm_process_leave(h); }

/* The addresses stay taken, by zeros that cost nothing: who still had the handle, a search for cycles in another thread for one, finds
 * an empty segment there, and what it stores stays in this process. */
void csm_forget(csm *h) {
    csm_process_leave(h);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    mmap(h->base, h->geo.mapped_bytes, PROT_READ | PROT_WRITE, flags, -1, 0); /* if it fails, the mapping stays */
}

int csm_in_use(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = CSM_LOCK_ROWS, .l_len = CSM_MAX_ROWS};
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return failed();
    return lock.l_type != F_UNLCK;
}

int csm_in_use_by_others(csm *h) { return csm_process_other_apps(h); }
int csm_descriptor(csm *h) { return h->fd; }
uint64_t csm_id(csm *h) { return h->id; }

int csm_is_object(csm *h, int fd) {
    struct stat mine, other;
    return csm_process_stat(h, &mine) && fstat(fd, &other) == 0 && mine.st_ino == other.st_ino &&
           mine.st_dev == other.st_dev;
}

int csm_guard(int fd) { return csm_process_lock_byte(fd, CSM_LOCK_CREATE) ? CSM_OK : CSM_BUSY; }
void csm_unguard(int fd) { csm_process_unlock_byte(fd, CSM_LOCK_CREATE); }

/* ---- generations ---- */

size_t csm_origin(csm *h, char *buffer) {
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (; n < CSM_NODE_NAME - 1 && csm_load(&h->header->node_name[n]); n++) buffer[n] = (char)csm_load(&h->header->node_name[n]);
    buffer[n++] = '#';
    for (int shift = 60; shift >= 0; shift -= 4) buffer[n++] = digits[h->id >> shift & 15];
    return n;
}

/* Who made the reset, and the how manieth it is. */
static void stamp(csm *h, const struct csm_flip *flip, const struct csm_epoch *old, struct csm_epoch *epoch) {
    uint64_t counter = csm_load(&old->counter), own = csm_load(&old->own_counter);
    const void *origin = old->origin;
    uint64_t n = csm_min(csm_load(&old->origin_bytes), CSM_ORIGIN_BYTES);
    char mine[CSM_ORIGIN_BYTES];
    if (flip->what == CSM_OWN_RESET) {
        own = counter = flip->counter ? flip->counter : counter + 1;
        n = csm_origin(h, mine);
        origin = mine;
    } else if (flip->what == CSM_ADOPTED) {
        counter = flip->counter;
        n = csm_min(flip->origin_bytes, CSM_ORIGIN_BYTES);
        origin = flip->origin;
    }
    csm_store(&epoch->counter, counter);
    csm_store(&epoch->own_counter, own);
    csm_store(&epoch->origin_bytes, n);
    csm_fill_racy(epoch->origin, origin, n);
}

void csm_segment_flip_locked(csm *h, const struct csm_flip *flip) {
    struct csm_header *header = h->header;
    uint64_t generation = csm_load(&header->generation), next = generation + 1;
    struct csm_epoch *old = csm_epoch_of(h, generation), *epoch = csm_epoch_of(h, next);
    /* Nobody believes in `epoch` yet. Whoever still copies from it, as the one before the current, checks the
     * generation afterwards and drops what it copied. */
    csm_store(&epoch->generation, next);
    csm_fence_release();
    csm_arena_prepare_locked(epoch);
    csm_store(&epoch->entries, 0);
    csm_store(&epoch->bytes_used, 0);
    csm_store(&epoch->next_bytes_used, 0);
    csm_store(&epoch->warned, 0);
    csm_store(&epoch->told, 0);
    csm_store(&header->flight_hint, 0); /* those of the old generation are free again */
    csm_store(&epoch->reset_at_ns, csm_wall_ns());
    csm_store(&epoch->reset_pid, h->pid);
    csm_store(&epoch->reset_uid, (uint64_t)geteuid());
    stamp(h, flip, old, epoch);
    uint64_t n = csm_min(flip->version ? flip->version_bytes : csm_load(&old->version_bytes), CSM_VERSION_BYTES);
    csm_store(&epoch->version_bytes, n);
    csm_fill_racy(epoch->version, flip->version ? flip->version : old->version, n);
    n = csm_min(flip->config ? flip->config_bytes : csm_load(&old->config_bytes), CSM_VERSION_BYTES);
    csm_store(&epoch->config_bytes, n);
    csm_fill_racy(epoch->config, flip->config ? flip->config : old->config, n);
    CSM_CRASH_POINT("flip: prepared");
    /* SYNC flip: pairs with every load of the generation; and, with csm_arena_is_pinned, with the pins. Killed before it:
     * no reset took place. Killed after it: it did, as a whole. */
    csm_store_seq(&header->generation, next);
    CSM_CRASH_POINT("flip: done");
    csm_fence_seq();
}

void csm_segment_flipped(csm *h, uint64_t generation) {
    CSM_CRASH_POINT("reset: before wake-ups");
    csm_wait_wake(h, 0);
    csm_lease_ring(h);
    csm_outcome_sweep(h, generation);
}

/* Is it the version in force? */
static bool is_version(struct csm_epoch *epoch, const char *version, size_t bytes) {
    return csm_load(&epoch->version_bytes) == bytes && csm_equal_racy(epoch->version, version, bytes);
}

static bool is_configured(struct csm_epoch *epoch, const char *config, size_t config_bytes) {
    return config_bytes == 0 ||
           (csm_load(&epoch->config_bytes) == config_bytes && csm_equal_racy(epoch->config, config, config_bytes));
}

/* The lock's holder is stopped, so nothing can be flipped. Nor has it to be, if the configuration is the one in force and another app
 * lives, by the invariant of csm_join: the caller came while that one had the cache. */
static bool may_join_unlocked(csm *h, int cold_when_alone, const char *config, size_t config_bytes) {
    uint64_t now = csm_load_acquire(&h->header->generation);
    bool same = is_configured(csm_epoch_of(h, now), config, config_bytes);
    return csm_generation(h) == now && same && (!cold_when_alone || csm_process_other_apps(h)); /* SYNC flip */
}

/* Who holds an app's lock has joined: it came to others who had, or has flipped what the former ones left. So it is taken last, under the
 * write lock; and where that is not to be had, only in the presence of somebody who has it. */
int csm_join(csm *h, int role, int cold_when_alone, const char *config, size_t config_bytes, int *flipped) {
    *flipped = 0;
    if (config_bytes > CSM_VERSION_BYTES) return CSM_INVALID;
    if (role == CSM_OBSERVER || role == CSM_SIDECAR) {
        /* Who only looks on needs neither lock nor row: it gets by beside a stopped lock holder, on a full /dev/shm and
         * with a full row table, and does not make the segment look used. It takes a row when it resets or verifies; a sidecar, in
         * csm_relay_open. */
        h->role = (uint64_t)role;
        return CSM_OK;
    }
    int code = csm_lock(h);
    if (code == CSM_BUSY && may_join_unlocked(h, cold_when_alone, config, config_bytes)) {
        csm_process_join(h, (uint64_t)role);
        return CSM_OK;
    }
    if (code != CSM_OK) return code;
    struct csm_epoch *epoch = csm_epoch_of(h, csm_load(&h->header->generation));
    bool differs = !is_configured(epoch, config, config_bytes);
    bool cold = cold_when_alone && !csm_process_other_apps(h) && csm_load(&epoch->entries);
    if (differs) {
        /* The first version of a segment that was never reset is no reset, or each host that starts would reset the cluster. Nor is
         * one that is in force already: this host comes later than the one that brought it. */
        bool first = csm_load(&epoch->counter) == 0 && csm_load(&epoch->config_bytes) == 0;
        bool is_reset = !first && !is_version(epoch, config, config_bytes);
        csm_segment_flip_locked(h, &(struct csm_flip){.what = is_reset ? CSM_OWN_RESET : CSM_COLD, .version = config,
                                                      .version_bytes = config_bytes, .config = config, .config_bytes = config_bytes});
    } else if (cold) {
        csm_segment_flip_locked(h, &(struct csm_flip){.what = CSM_COLD});
    }
    *flipped = differs || cold;
    csm_process_join(h, (uint64_t)role);
    uint64_t generation = csm_load(&h->header->generation);
    csm_unlock(h);
    if (*flipped) csm_segment_flipped(h, generation);
    return CSM_OK;
}
