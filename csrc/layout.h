/* layout.h: every shared byte.
 *
 * A segment is one POSIX shm object:
 *
 *   header     identity, geometry, generation, locks, two epochs, peers\
 *   chunks     what the allocator knows of each chunk                   |  pages reserved at creation
 *   flights    computations in flight                                   |
 *   nodes      threads that wait                                        |
 *   outcomes   per flight: what it ended with, without a stored value   |
 *   slots      the index                                               /
 *   log        commit order -> slot                                        reserved as it grows
 *   rows       one page per process: statistics, pins                      reserved when a row is first won
 *   arena      memory_limit bytes of entries                               reserved chunk by chunk
 *   (windows)  payloads of the outcomes: never mapped, pread/pwrite only   taken while an outcome lives
 *
 * Everything that is mapped and read was reserved before (posix_fallocate): on tmpfs even *reading* a page
 * that is not there takes one, and a full /dev/shm answers that with SIGBUS.
 *
 * Who may write. `L` under the write lock. `R` only the process that holds the row's OFD lock. `N` the process
 * whose owner word stands in the node. `A` anybody, by an atomic operation that is complete in itself. `C` the
 * creator, before `state` says ready; "by the sidecar": the process that `sidecar` names. Fields written under the lock and
 * read without it are accessed atomically on both sides.
 *
 * What makes death harmless: a slot's control word is the truth about its key; a flight is live only while a slot
 * of the current generation points to it; an extent is an entry's only when a ready slot names it. All the rest is
 * derived, and repair.c can derive it again.
 *
 * Offsets, not pointers, and every one read from here is bounds-checked before it is used.
 */
#ifndef CSM_LAYOUT_H
#define CSM_LAYOUT_H

#include <semaphore.h>
#include <stdint.h>

#define CSM_MAGIC UINT64_C(0x314d4853504f4f43) /* "COOPSHM1", little-endian */
#define CSM_LAYOUT_VERSION 4u

#define CSM_GRANULE 16u           /* arena space is counted in granules */
#define CSM_PAGE 4096u
#define CSM_MAX_CHUNKS 256u       /* bounds the pin counters of a row; a long-held view costs 1/256 of the arena */
#define CSM_MIN_CHUNK 4096u
#define CSM_MIN_LIMIT (64u * 1024u)
#define CSM_MAX_LIMIT (UINT64_C(1) << 40)
#define CSM_MAX_ITEMS (UINT64_C(1) << 31)
#define CSM_MAX_KEY 65535u
#define CSM_MAX_VALUE (UINT64_C(0xfffffff) * CSM_GRANULE) /* an extent's length has 28 bits: 4 GiB */
#define CSM_MAX_FORMAT 31u
#define CSM_MAX_ROWS 4096u
#define CSM_MAX_FLIGHTS 32768u
#define CSM_MAX_NODES 32768u
#define CSM_WINDOW_BYTES (UINT64_C(1) << 32) /* file space of one outcome's payload */
#define CSM_HOLES 256u
#define CSM_VERSION_BYTES 1024u
#define CSM_KEY_PREVIEW 96u
#define CSM_DIGEST_BYTES 24u
#define CSM_NODE_NAME 64u         /* of a node of the cluster; of an origin: that, '#', 16 digits */
#define CSM_ORIGIN_BYTES 80u
#define CSM_PEERS 64u
#define CSM_PROBES 1024u /* at 80 % load linear probing's longest run for 10^7 keys is about 700 */
#define CSM_STAT_WORDS 48u
#define CSM_BUCKETS 17u           /* of a distribution of times; the last one has no upper bound */
#define CSM_SLOWEST 8u            /* computations that a row remembers */
#define CSM_SLOW_KEY 72u
#define CSM_ALIGN_LARGE 64u       /* arrays in large values start on a cache line */
#define CSM_LARGE 4096u

/* Bytes of the OFD locks, far behind any data. They are the same in every layout version, so that one may ask
 * whether *anybody* uses an object without understanding the object. */
#define CSM_LOCK_ROWS (INT64_C(1) << 62)      /* + row: that row is held */
#define CSM_LOCK_APPS (CSM_LOCK_ROWS + (INT64_C(1) << 20)) /* + row: its process has joined as an app */
#define CSM_LOCK_CREATE (CSM_LOCK_ROWS - 1)   /* initialising */

enum csm_state { CSM_BLANK = 0, CSM_USABLE = 1, CSM_DESTROYED = 2 };

/* A slot's control word: generation (44) | flight (16) | state (4). A word of another generation is empty,
 * whatever its state: that is what makes a reset O(1). */
enum csm_slot_state {
    CSM_SLOT_EMPTY = 0,
    CSM_SLOT_TOMB = 1, /* was computing in this generation; searches go on behind it */
    CSM_SLOT_COMPUTING = 2,
    CSM_SLOT_FULL = 3
};
#define CSM_GENERATION_MASK ((UINT64_C(1) << 44) - 1)

struct csm_slot {  /* 32 bytes, two a cache line */
    uint64_t ctl;   /* L  commit word, release */
    uint64_t tag;   /* L  low half of the key's hash; valid while computing or full */
    uint64_t place; /* L  full: the entry's first granule in the arena (36) | check over it, meta and generation (28) */
    uint64_t meta;  /* L  full: value bytes (40) | format (8) | key bytes (16) */
};

/* An entry in the arena: this header, the key, padding, the value. Written once, before its slot is full; never
 * again in its generation. */
struct csm_entry {
    uint64_t hash_hi;
    uint32_t key_bytes;
    uint32_t slot;
};

struct csm_flight {
    uint64_t serial;     /* L  0: free. Never the same twice */
    uint64_t owner;      /* L  owner word */
    uint64_t term;       /* L  +1 per takeover */
    uint64_t given_up;   /* A  by the owner: serial it stopped caring for without having the lock. Its ticket is void. Only grows */
    uint64_t slot;       /* L */
    uint64_t generation; /* L */
    uint64_t hash_lo;    /* L */
    uint64_t hash_hi;    /* L */
    uint64_t reserved;   /* L  extent taken for the value, 0 none */
    uint64_t waiters;    /* L  1 once somebody joined */
    uint64_t sentinel;   /* A  node + 1 of the waiter that watches the owner closely */
    uint64_t started_ns; /* L */
    uint64_t pid;        /* L */
    uint64_t key_bytes;  /* L  whole key */
    uint64_t parent;     /* L  target word of the computation that its owner makes it for, 0: none */
    uint64_t parent_id;  /* L  and the id of that one's cache */
    unsigned char key[CSM_KEY_PREVIEW]; /* L */
    uint64_t lease;      /* A  see lease.h: what the cluster's sidecar has to do with it */
    unsigned char digest[CSM_DIGEST_BYTES]; /* L  of a key that is longer than `key`, if the sidecar was asked */
};

struct csm_node {       /* 64 bytes */
    uint64_t owner;     /* A  0: free; taken by compare-and-swap, also from a dead owner */
    uint64_t target;    /* N  serial (48) | flight (16) waited for, 0: none yet */
    uint64_t parent;    /* N  the same for the computation that waits, 0: none */
    uint64_t parent_id; /* N  and the id of that one's cache */
    union {
        sem_t semaphore; /* N initialises; anybody posts */
        unsigned char room[32];
    } u;
};

struct csm_outcome {
    uint64_t word;       /* L, and A by readers: serial (48) of the flight it ends | waiters that have not read it (16) */
    uint64_t writer;     /* L, then that one: owner word of who writes or cleans the window, 0 nobody */
    uint64_t generation; /* L */
    uint64_t bytes;      /* L */
    uint64_t kind;       /* L  kind (8) | format (8) */
    uint64_t at_ns;      /* L */
    uint64_t taken;      /* the writer: bytes of its window that may hold pages */
    uint64_t check;      /* L  hash of serial, generation, bytes, kind: a damaged length or kind is a lost outcome */
};

struct csm_chunk {
    uint64_t entered; /* L  generation in which the allocator last entered it */
    uint64_t backed;  /* A  a mark (arena.c): every page is there, for good */
};

/* All that begins anew with a generation. There are two; generation & 1 tells which one is in force. A reset
 * prepares the other, and the store of the generation puts it in force as a whole. */
struct csm_epoch {
    uint64_t generation;      /* L  the one it is (being) prepared for */
    uint64_t run;             /* L  bump pointer: granule (48) | end chunk (16) */
    uint64_t entries;         /* L  length of the log */
    uint64_t bytes_used;      /* L */
    uint64_t next_bytes_used; /* L  see index.c, commit */
    uint64_t holes_used;      /* L  holes[] in use, an upper bound */
    uint64_t refused;         /* L  smallest extent refused, 0 none: do not search again at once */
    uint64_t refused_ns;      /* L */
    uint64_t warned;          /* A  0 -> 1 */
    uint64_t told;            /* A  0 -> 1: somebody has logged the reset */
    uint64_t reset_at_ns;     /* L  wall clock, for people; and who began this generation: */
    uint64_t reset_pid;       /* L */
    uint64_t reset_uid;       /* L */
    uint64_t counter;         /* L  of resets, in the cluster */
    uint64_t own_counter;     /* L  what it became with the last reset that was made on this host, 0: none was */
    uint64_t origin_bytes;    /* L */
    uint64_t version_bytes;   /* L */
    uint64_t config_bytes;    /* L */
    unsigned char origin[CSM_ORIGIN_BYTES];   /* L  who made the reset: node name '#' id of its segment */
    unsigned char version[CSM_VERSION_BYTES]; /* L  canonical JSON */
    unsigned char config[CSM_VERSION_BYTES];  /* L  the configured version last seen */
    uint64_t holes[CSM_HOLES];                /* L  free extents behind the run */
};

/* How long things took. A kill between the additions leaves out one time, of one of them. */
struct csm_times {
    uint64_t total_ns;
    uint64_t max_ns;
    uint64_t buckets[CSM_BUCKETS]; /* how many took so long; see csm_bucket_ns */
};

/* A computation that took long. `seal` is a hash of the rest: a record that is just being written, that a killed process has
 * half written, or that was damaged, does not open, so nobody has to look in any order. */
struct csm_slow {
    uint64_t seal;
    uint64_t ns;         /* 0: none */
    uint64_t ended_ns;   /* wall clock */
    uint64_t generation;
    uint64_t hash;       /* of the key */
    uint64_t pid;
    uint64_t key_bytes;  /* of the whole key */
    unsigned char key[CSM_SLOW_KEY];
};

struct csm_row {              /* one page */
    uint64_t incarnation;     /* R  +1 each time the row is won */
    uint64_t pid;             /* R  for people */
    uint64_t role;            /* R  csm_role */
    uint64_t since_ns;        /* R  wall clock */
    uint64_t pad[4];
    uint64_t stats[CSM_STAT_WORDS];         /* R  never cleared: they outlive the process. So do these: */
    struct csm_times compute;               /* R */
    struct csm_times wait;                  /* R */
    struct csm_slow slow[CSM_SLOWEST];      /* R */
    uint32_t view_pins[CSM_MAX_CHUNKS];     /* R  by views; inherited by a forked child */
    uint32_t write_pins[CSM_MAX_CHUNKS];    /* R  by publishing threads; not inherited */
    unsigned char rest[CSM_PAGE - 64 - 8 * CSM_STAT_WORDS - 2 * sizeof(struct csm_times) -
                       CSM_SLOWEST * sizeof(struct csm_slow) - 8 * CSM_MAX_CHUNKS];
};

/* A node of the cluster, for people and for who waits until all have a reset. By the sidecar. */
struct csm_peer {
    uint64_t turn;      /* odd while the record is being written */
    uint64_t covers;    /* own_counter of this host's last reset that the node's state includes */
    uint64_t state;     /* as the relay says it; 0 with an empty name: no record */
    uint64_t since_ns;  /* wall clock */
    unsigned char name[CSM_NODE_NAME]; /* ends with a 0 */
};

struct csm_geometry {         /* C  all of it follows from the settings; attachers compute it anew and compare */
    uint64_t memory_limit, max_items;
    uint64_t rows, flights, nodes;
    uint64_t slots, chunks, chunk_bytes;
    uint64_t chunks_off, flights_off, nodes_off, outcomes_off, slots_off, log_off, rows_off, arena_off;
    uint64_t mapped_bytes, windows_off;
};

struct csm_header {
    uint64_t magic;      /* C */
    uint32_t layout;     /* C */
    uint32_t sem_bytes;  /* C  sizeof(sem_t): a cheap witness of libc and word size */
    uint64_t state;      /* C, then A: destroyed. Stored last by the creator, release */
    uint64_t secret[2];  /* C  key of the hash */
    uint64_t created_ns; /* C  wall clock */
    uint64_t check;      /* C  hash over geometry and secret */
    uint64_t pad0[1];
    struct csm_geometry geometry;
    uint64_t pad1[(128 - sizeof(struct csm_geometry) % 64 + 64) % 64 / 8];

    uint64_t generation; /* L  the commit word of a reset. Alone on its line: every hit reads it */
    uint64_t pad2[7];
    uint64_t write_lock; /* A  owner word or 0 */
    uint64_t lock_turns; /* L  +1 per holder: the lock makes progress */
    uint64_t pad3[6];
    uint64_t reset_lock; /* A  owner word or 0 */
    uint64_t pad4[7];
    uint64_t next_serial;  /* L */
    uint64_t flight_hint;  /* L  no lower flight is free */
    uint64_t flights_used; /* L  high-water mark */
    uint64_t nodes_used;   /* A  high-water mark */
    uint64_t rows_used;    /* A  high-water mark: rows below it have their page; believed by csm_process_rows only */
    uint64_t log_backed;   /* A  bytes of the log whose pages are there; believed by csm_index_log_room only */
    uint64_t pad5[2];
    uint64_t sidecar;          /* A  owner word of the cluster's sidecar on this host, or 0 */
    uint64_t sidecar_seen_ns;  /* by the sidecar: when it last looked, on the monotonic clock */
    uint64_t lease_timeout_ns; /* by the sidecar */
    uint64_t bell;             /* A  1: the doorbell was rung, and the sidecar has not looked since */
    union {
        sem_t semaphore;       /* the sidecar initialises; anybody posts */
        unsigned char room[32];
    } doorbell;
    unsigned char node_name[CSM_NODE_NAME]; /* L, by the sidecar: ends with a 0; empty until there has been one */
    struct csm_epoch epoch[2];
    struct csm_peer peers[CSM_PEERS]; /* by the sidecar */
};

#define CSM_AT(type, field, offset) \
    _Static_assert(__builtin_offsetof(struct type, field) == (offset), #type "." #field " moved")
CSM_AT(csm_header, magic, 0);
CSM_AT(csm_header, layout, 8);
CSM_AT(csm_header, state, 16);
CSM_AT(csm_header, geometry, 64);
CSM_AT(csm_header, generation, 256);
CSM_AT(csm_header, write_lock, 320);
CSM_AT(csm_header, reset_lock, 384);
CSM_AT(csm_header, next_serial, 448);
CSM_AT(csm_header, sidecar, 512);
CSM_AT(csm_header, sidecar_seen_ns, 520);
CSM_AT(csm_header, doorbell, 544);
CSM_AT(csm_header, node_name, 576);
CSM_AT(csm_header, epoch, 640);
CSM_AT(csm_row, stats, 64);
CSM_AT(csm_row, compute, 448);
CSM_AT(csm_row, wait, 600);
CSM_AT(csm_row, slow, 752);
CSM_AT(csm_row, view_pins, 1776);
CSM_AT(csm_row, write_pins, 2800);
CSM_AT(csm_row, rest, 3824);
CSM_AT(csm_node, u, 32);
_Static_assert(sizeof(struct csm_slot) == 32, "slot");
_Static_assert(sizeof(struct csm_entry) == CSM_GRANULE, "entry");
_Static_assert(sizeof(struct csm_flight) == 256, "flight");
_Static_assert(sizeof(struct csm_node) == 64, "node");
_Static_assert(sizeof(struct csm_outcome) == 64, "outcome");
_Static_assert(sizeof(struct csm_slow) == 128, "slow");
_Static_assert(sizeof(struct csm_row) == CSM_PAGE, "row");
_Static_assert(sizeof(sem_t) <= 32, "sem_t");
_Static_assert(sizeof(uint64_t) == sizeof(void *), "coopshm needs a 64-bit platform");

/* ---- packed words ---- */

static inline uint64_t csm_ctl(uint64_t generation, uint64_t flight, enum csm_slot_state state) {
    return (generation & CSM_GENERATION_MASK) << 20 | flight << 4 | (uint64_t)state;
}
static inline bool csm_ctl_is_of(uint64_t ctl, uint64_t generation) {
    return ctl >> 20 == (generation & CSM_GENERATION_MASK);
}
static inline enum csm_slot_state csm_ctl_state(uint64_t ctl) { return (enum csm_slot_state)(ctl & 15); }
static inline uint32_t csm_ctl_flight(uint64_t ctl) { return (uint32_t)(ctl >> 4) & 0xffff; }

static inline uint64_t csm_meta(uint64_t value_bytes, uint32_t format, uint32_t key_bytes) {
    return value_bytes << 24 | (uint64_t)format << 16 | key_bytes;
}
static inline uint64_t csm_meta_value(uint64_t meta) { return meta >> 24; }
static inline uint32_t csm_meta_format(uint64_t meta) { return (uint32_t)(meta >> 16) & 0xff; }
static inline uint32_t csm_meta_key(uint64_t meta) { return (uint32_t)meta & 0xffff; }

/* A place, sealed. What was not sealed with this meta in this generation does not open, but for one in 2^28. */
#define CSM_PLACE_BITS 36
static inline uint64_t csm_place_mix(uint64_t place, uint64_t meta, uint64_t generation) {
    return (place << (64 - CSM_PLACE_BITS) ^ meta ^ generation) * UINT64_C(0x9e3779b97f4a7c15);
}
static inline uint64_t csm_place_seal(uint64_t place, uint64_t meta, uint64_t generation) {
    return csm_place_mix(place, meta, generation) >> CSM_PLACE_BITS << CSM_PLACE_BITS | place;
}
static inline bool csm_place_opens(uint64_t sealed, uint64_t meta, uint64_t generation) {
    return (csm_place_mix(sealed, meta, generation) ^ sealed) >> CSM_PLACE_BITS == 0;
}
static inline uint64_t csm_place_of(uint64_t sealed) { return sealed << (64 - CSM_PLACE_BITS) >> (64 - CSM_PLACE_BITS); }

/* An extent of the arena: first granule (36) | granules (28); 0 is none. */
static inline uint64_t csm_extent(uint64_t first, uint64_t granules) { return first << 28 | granules; }
static inline uint64_t csm_extent_first(uint64_t extent) { return extent >> 28; }
static inline uint64_t csm_extent_granules(uint64_t extent) { return extent & 0xfffffff; }
static inline uint64_t csm_extent_end(uint64_t extent) {
    return csm_extent_first(extent) + csm_extent_granules(extent);
}
static inline bool csm_extent_overlaps(uint64_t extent, uint64_t first, uint64_t end) {
    return csm_extent_granules(extent) && csm_extent_first(extent) < end && first < csm_extent_end(extent);
}

static inline uint64_t csm_run(uint64_t first, uint64_t end_chunk) { return first << 16 | end_chunk; }
static inline uint64_t csm_run_first(uint64_t run) { return run >> 16; }
static inline uint64_t csm_run_chunk(uint64_t run) { return run & 0xffff; }

/* An owner: row + 1 (16) | incarnation (40). The upper 8 bits stay free for a state beside it. */
#define CSM_OWNER_BITS 56
#define CSM_INCARNATION_MASK ((UINT64_C(1) << 40) - 1)
static inline uint64_t csm_owner(uint32_t row, uint64_t incarnation) {
    return (uint64_t)(row + 1) << 40 | (incarnation & CSM_INCARNATION_MASK);
}

/* 0, nobody's word, gives a row that cannot be. */
static inline uint32_t csm_owner_row(uint64_t owner) { return (uint32_t)(owner >> 40 & 0xffff) - 1; }

/* A computation, within its cache: what a node waits for. */
static inline uint64_t csm_target(uint64_t serial, uint32_t flight) { return serial << 16 | flight; }
static inline uint32_t csm_target_flight(uint64_t target) { return (uint32_t)target & 0xffff; }

/* ---- where things lie inside an entry ---- */

static inline uint64_t csm_round(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
static inline bool csm_is_large(uint64_t value_bytes) { return value_bytes >= CSM_LARGE; }

/* Granules an entry takes. It does not depend on where the entry lies: large values get room to be aligned. */
static inline uint64_t csm_footprint(uint64_t key_bytes, uint64_t value_bytes) {
    uint64_t slack = csm_is_large(value_bytes) ? CSM_ALIGN_LARGE - CSM_GRANULE : 0;
    uint64_t bytes = csm_round(sizeof(struct csm_entry) + key_bytes, CSM_GRANULE) + slack + value_bytes;
    return csm_round(bytes, CSM_GRANULE) / CSM_GRANULE;
}
/* Arena offset, in bytes, of the value of the entry that starts at granule `place`. */
static inline uint64_t csm_value_at(uint64_t place, uint64_t key_bytes, uint64_t value_bytes) {
    uint64_t at = place * CSM_GRANULE + csm_round(sizeof(struct csm_entry) + key_bytes, CSM_GRANULE);
    return csm_is_large(value_bytes) ? csm_round(at, CSM_ALIGN_LARGE) : at;
}

#endif
