/* core.h: what the C files share: the handle, and nothing about any one part. */
#ifndef CSM_CORE_H
#define CSM_CORE_H

#include "atomic.h"
#include "layout.h"
#include "point.h"

#include <pthread.h>
#include <time.h>

#include "api.h"

#define CSM_NO_INDEX UINT32_MAX
#define CSM_FD_LOST (-2) /* somebody else closed it */

/* One attached segment in this process. Everything here is private memory; the geometry in particular is
 * a validated copy, so that later damage to the shared one cannot send an access out of bounds. */
struct csm {
    unsigned char *base;
    struct csm_geometry geo;
    struct csm_header *header;
    struct csm_chunk *chunks;
    struct csm_flight *flights;
    struct csm_node *nodes;
    struct csm_outcome *outcomes;
    struct csm_slot *slots;
    uint64_t *log;
    struct csm_row *rows;
    unsigned char *arena;
    uint64_t granules;         /* of the arena */
    uint64_t chunk_granules;
    uint64_t secret[2];
    uint64_t id;               /* of the segment, the same in all processes; 0 is nobody's */

    int fd;                    /* own open file description: it carries this process's OFD locks. -1: none, or CSM_FD_LOST */
    uint32_t row;              /* CSM_NO_INDEX: none yet */
    uint64_t self;             /* owner word, 0 without a row */
    struct csm_row *mine;      /* the row, or `spare` until there is one */
    struct csm_row spare;
    uint64_t *hot;             /* where hits of hot objects are counted: the row's word, or `early_hot`. Changes with `mine` */
    uint64_t early_hot;        /* CSM_EARLY_HOT and those that were counted without a row */
    uint64_t role;
    uint64_t pid;              /* of this process */
    uint64_t stalled_turn;     /* lock_turns + 1 when patience with the lock's holder was last lost */
    uint64_t views;            /* live views in this process */
    uint64_t forks;            /* +1 in each forked child */
    uint64_t pins_lost_before; /* views made before that fork have no pins in this process's row */
    pthread_mutex_t mutex;     /* winning a row; fork */
    uint64_t device, inode;    /* of the object, to notice when somebody closed `fd` behind our back */
    bool kept[CSM_MAX_CHUNKS]; /* chunks whose pins were kept for a child that got no row */
    uint64_t rows_known;       /* rows whose pages are there for certain: this process has made sure */
    uint64_t log_known;        /* bytes of the log, likewise */
    struct {                   /* the computations that the row remembers, so that it is not asked; under `mutex` */
        uint64_t ns, generation, hash;
    } slow[CSM_SLOWEST];
    uint64_t slow_of;          /* owner word of the row that they are of */
    uint64_t slow_generation;  /* in which others are to be remembered, if they took longer than: */
    uint64_t slow_least_ns;
    uint64_t steals[2];        /* of the write lock, of the reset lock: since csm_stolen was last called */
    uint64_t stolen_from[2];   /* pid of the last dead holder */
    uint64_t reaped_ns;        /* when this process last looked for flights of the dead */
    int child_fd;              /* between fork's prepare and child handlers */
    uint32_t child_row;
    struct csm_relay *relay;   /* relay.c's, if this is the sidecar */
    struct csm *next;          /* process.c's list of all handles */
};

struct csm_hash {
    uint64_t lo, hi;
};

static inline uint64_t csm_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t csm_wall_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void csm_nap_ns(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

/* Row and owner word of this process. A thread may win the row while others look; the owner word is stored last. */
static inline uint64_t csm_self(csm *h) { return csm_load_acquire(&h->self); }
static inline uint32_t csm_row(csm *h) { return csm_load(&h->row); }

/* So that the first hit that is counted without a row is one at which csm_hot_settle is called. */
#define CSM_EARLY_HOT (CSM_HOT_LOOK - 1)

/* stats.c: something was counted in `spare`, where others do not see it. `before`: the count before. */
void csm_stats_early(csm *h, uint64_t before);

/* Returns the count before. The row is this process's own: no cache line is shared with another one. Not for CSM_STAT_HOT_HITS. */
static inline uint64_t csm_stat_add(csm *h, enum csm_stat stat, uint64_t n) {
    struct csm_row *row = csm_load(&h->mine);
    uint64_t before = csm_add(&row->stats[stat], n);
    if (row == &h->spare) csm_stats_early(h, before);
    return before;
}

static inline uint64_t csm_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The epoch in force. Only under the write lock, or followed by a check of the generation. */
static inline struct csm_epoch *csm_epoch_of(csm *h, uint64_t generation) {
    return &h->header->epoch[generation & 1];
}

#endif
