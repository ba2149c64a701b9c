/* api.h: everything Python (or a C program) may call, and nothing else.
 *
 * build.py hands this very file to cffi's cdef(), and the C sources include it through core.h, so the two
 * sides cannot drift apart. It is therefore plain C: no preprocessor conditionals, no includes.
 *
 * Conventions. Functions return a csm_code (zero or negative) or a csm_step (positive); results come back
 * through out-parameters; nothing sets or reads errno across this boundary except where `CSM_SYSTEM` says
 * so. Every function may be called from any thread. None runs user code. Lengths are bytes, times are
 * nanoseconds on CLOCK_MONOTONIC unless a name says otherwise.
 */

/* ---- codes -------------------------------------------------------------------------------------- */

enum csm_code {
    CSM_OK = 0,
    CSM_MISS = -1,        /* no such entry in the current generation */
    CSM_STALE = -2,       /* the ticket is void: a reset came, or the flight was taken over. Go round again */
    CSM_FORKED = -3,      /* the ticket belongs to the parent of this process */
    CSM_BUSY = -4,        /* the write lock is held by a live process that does not run (stopped?) */
    CSM_NO_ROW = -5,      /* process table full, or no descriptor to lock a row with */
    CSM_NO_FLIGHT = -6,   /* too many computations in flight */
    CSM_NO_SLOT = -7,     /* no free slot within the probe bound */
    CSM_NO_NODE = -8,     /* too many waiters */
    CSM_FULL_ARENA = -9,  /* no extent of that size left in this generation */
    CSM_FULL_ITEMS = -10, /* max_items reached */
    CSM_TOO_LARGE = -11,  /* could not fit even into an empty arena */
    CSM_NO_SPACE = -12,   /* /dev/shm (or the memory cgroup) has no pages left */
    CSM_CYCLE = -13,      /* waiting would deadlock; csm_chain_* tell the keys */
    CSM_INTERRUPTED = -14,/* a signal arrived; run its handler and call again */
    CSM_TIMEOUT = -15,
    CSM_LAYOUT = -16,     /* segment made by another layout version, word size or libc */
    CSM_CORRUPT = -17,    /* the segment contradicts itself */
    CSM_GONE = -18,       /* the segment was destroyed: open it anew */
    CSM_SYSTEM = -19,     /* a system call failed; csm_errno() tells which error */
    CSM_INVALID = -20,    /* an argument is out of range */
    CSM_NOT_STORED = -21  /* published to the waiters, not kept, because the caller asked for that */
};

enum csm_step {
    CSM_READY = 1,   /* the entry is there: look it up */
    CSM_OWNER = 2,   /* the caller owns the flight: compute, then publish or abandon */
    CSM_JOINED = 3,  /* somebody else computes: csm_wait */
    CSM_OUTCOME = 4, /* the flight ended with an outcome that is not in the cache: csm_outcome_read */
    CSM_AGAIN = 5    /* the world changed: start over with a look-up */
};

/* What a published payload is to the waiters. Only CSM_VALUE may be stored. */
enum csm_kind {
    CSM_VALUE = 0,
    CSM_UNCACHED = 1,   /* NoCache: for the current waiters only */
    CSM_FAILURE = 2,    /* an encoded exception */
    CSM_UNSHAREABLE = 3 /* the value cannot be encoded: each waiter must compute for itself */
};

/* Who attaches. Only apps keep a lifetime = "app" cache alive; observers are admin commands. */
enum csm_role { CSM_ATTACHING = 0, CSM_APP = 1, CSM_OBSERVER = 2, CSM_SIDECAR = 3 };

/* Statistics, per row, summed on reading; they outlive the process that counted. */
enum csm_stat {
    CSM_STAT_HITS, CSM_STAT_HOT_HITS, CSM_STAT_MISSES, CSM_STAT_COMPUTATIONS, CSM_STAT_WAITS,
    CSM_STAT_FAILURES, CSM_STAT_TAKEOVERS, CSM_STAT_STALE, CSM_STAT_UNCACHED, CSM_STAT_RESETS,
    CSM_STAT_STEALS, CSM_STAT_LOST_OUTCOMES, CSM_STAT_STRANDED_BYTES,
    CSM_STAT_BYPASS_FULL, CSM_STAT_BYPASS_ITEMS, CSM_STAT_BYPASS_TOO_LARGE, CSM_STAT_BYPASS_NO_SPACE,
    CSM_STAT_BYPASS_LOCK, CSM_STAT_BYPASS_ROWS, CSM_STAT_BYPASS_FLIGHTS, CSM_STAT_BYPASS_SLOTS,
    CSM_STAT_BYPASS_WAITERS, CSM_STAT_BYPASS_FORKED, CSM_STAT_BYPASS_ENCODE, CSM_STAT_BYPASS_DECODE,
    CSM_STAT_BYPASS_SEGMENT, CSM_STAT_BYPASS_TIMEOUT, CSM_STAT_TIMEOUTS,
    CSM_STAT_STORED, CSM_STAT_STORED_BYTES, /* entries, and their bytes as memory_limit counts them */
    CSM_STATS
};

/* ---- types -------------------------------------------------------------------------------------- */

typedef struct csm csm; /* one attached segment in this process */

typedef struct {
    uint64_t memory_limit; /* bytes of entries: key, value, 16-byte header, padding */
    uint64_t max_items;
    uint32_t rows;    /* processes that can be attached at once */
    uint32_t flights; /* computations that can be in flight at once */
    uint32_t nodes;   /* threads that can wait at once */
} csm_settings;

typedef struct { /* the owner's proof; void after a reset, a takeover or a fork */
    uint64_t generation;
    uint64_t serial;
    uint64_t owner;
    uint64_t id;  /* of the cache */
    uint64_t pid; /* of the process that may use it */
    uint64_t began_ns;
    uint64_t former_pid; /* taken over from a dead process: which one; else 0 */
    uint32_t term;
    uint32_t flight;
} csm_ticket;

typedef struct { /* a place in the queue, filled by csm_claim, kept up to date by csm_wait */
    uint64_t generation;
    uint64_t serial;
    uint64_t owner;
    uint64_t parent;
    uint64_t parent_id;
    uint64_t joined_ns;
    uint32_t flight;
    uint32_t node;
    uint64_t outcome_serial; /* set by CSM_OUTCOME: */
    uint64_t outcome_bytes;
    uint32_t outcome;
    uint32_t outcome_kind;   /*   csm_kind */
    uint32_t outcome_format;
} csm_waiter;

typedef struct { /* one attempt to get one key; all zero to begin with */
    csm_ticket ticket; /* held while ticket.serial is not 0: publish or abandon */
    csm_waiter waiter; /* queued while waiter.serial is not 0: wait on or leave */
    uint64_t stalled_ns; /* waited for stopped holders of the write lock, so far */
    uint64_t steals;     /* how often the write lock was taken from a dead holder for it: see csm_stolen */
} csm_call;

typedef struct {
    const void *data;
    uint64_t bytes;
} csm_piece;

typedef struct { /* a pinned, immutable value; lives until csm_view_release */
    csm *cache;
    const unsigned char *data;
    uint64_t bytes;
    uint64_t generation;
    uint64_t forks;
    uint32_t format;
    uint32_t first_chunk;
    uint32_t last_chunk;
} csm_view;

enum csm_lease_event {
    CSM_LEASE_ASK = 1,      /* a worker asks: answer by hold, grant or take. Again with `nested`, when that has changed */
    CSM_LEASE_WITHDRAW = 2, /* an answer is not waited for any more */
    CSM_LEASE_END = 3,      /* what was granted is over, without anything to pass on */
    CSM_LEASE_STORED = 4,   /* it is over, and its entry is in the log */
    CSM_LEASE_OUTCOME = 5   /* it is over, and ended with what `call` tells: csm_outcome_read */
};

typedef struct {
    uint64_t serial, generation;
    uint32_t flight;
    uint32_t event;     /* csm_lease_event */
    uint32_t nested;    /* a computation waits for it */
    uint32_t key_bytes; /* of the whole key; at most 96 are in `key`. If it is longer: */
    unsigned char key[96];
    unsigned char digest[24]; /* BLAKE2s of the whole key */
    csm_call call;
} csm_lease;

typedef struct {
    csm_view *view;
    const unsigned char *key;
    uint32_t key_bytes;
    uint32_t remote; /* 1: it was computed on another host */
} csm_relay_entry_view;

typedef struct {
    uint64_t covers, state, since_ns;
    char name[64];
} csm_peer_info;

typedef struct { /* which reset a cache stands at: see csm_reset_commit */
    uint64_t generation;
    uint64_t counter;     /* of resets, in the cluster; 0: there was none */
    uint64_t own_counter; /* of the last one that was made on this host, 0: none was */
    uint32_t version_bytes, origin_bytes;
    char version[1024];
    char origin[80];
} csm_stamp;

typedef struct { /* how long things took */
    uint64_t total_ns, max_ns;
    uint64_t buckets[17]; /* how many took no longer than csm_bucket_ns(i), and longer than that of i - 1 */
} csm_durations;

typedef struct { /* a consistent enough picture for people; see csm_info */
    uint64_t generation, memory_limit, max_items, segment_bytes, reserved_bytes, chunk_bytes;
    uint64_t bytes_used, entries, slots, flights, waiters, processes, observers;
    uint64_t pinned_chunks, chunks, chunks_entered, full, reset_at_ns, created_at_ns, destroyed;
    uint64_t rows_used, my_row;
    uint64_t flights_used; /* high-water mark: computations that there were at once, those of the dead included */
    uint64_t pinned_bytes;             /* of the pinned chunks */
    uint64_t lock_pid, reset_lock_pid; /* the process that holds the write lock or the reset lock just now, 0: nobody */
    uint64_t stats[48];
    csm_durations compute; /* computations that were published or given up, those that came too late included */
    csm_durations wait;    /* from joining a flight to leaving it */
} csm_info;

typedef struct {
    uint64_t serial;
    uint64_t started_ns;     /* by its present owner */
    uint64_t waiters;
    uint64_t pid;            /* of the owner */
    uint64_t alive;          /* it lives, and has not given up */
    uint64_t role;           /* its csm_role, 0 when it is dead */
    uint64_t row;            /* its row */
    uint64_t takeovers;      /* former owners that died */
    uint64_t reserved_bytes; /* of the arena, for its value */
    uint64_t parent_id;      /* the cache of the computation that it is a part of, 0: of none */
    uint64_t parent_serial;  /* that one's serial there */
    uint32_t key_bytes; /* of the whole key; at most 96 are in `key` */
    unsigned char key[96];
} csm_flight_info;

typedef struct { /* a row that was ever used */
    uint64_t row, alive;
    uint64_t pid, role, since_ns; /* of who has it, or had it last; since_ns on the wall clock */
    uint64_t view_pins, write_pins, pinned_chunks, pinned_bytes; /* 0 when it is dead */
    uint64_t stats[48];
    csm_durations compute, wait; /* of all that ever had the row, as `stats` */
} csm_row_info;

typedef struct {
    uint64_t bytes;           /* the last chunk may be smaller than the others */
    uint64_t entered;         /* 1: in use in this generation */
    uint64_t allocated_bytes; /* in this generation: entries, reservations, and what is stranded */
    uint64_t backed;          /* 1: its pages are there */
    uint64_t view_pins, write_pins; /* of live processes */
} csm_chunk_info;

typedef struct { /* a computation that took long */
    uint64_t ns;
    uint64_t at_ns; /* when it ended, wall clock */
    uint64_t generation;
    uint64_t pid;
    uint32_t key_bytes; /* of the whole key; at most 72 are in `key` */
    unsigned char key[72];
} csm_slow_info;

typedef struct { /* who began the generation in force, and what was before */
    uint64_t generation, at_ns; /* wall clock */
    uint64_t pid, uid;
    uint64_t version_bytes, former_bytes; /* former: 0 when it is not known any more */
    char version[1024], former[1024];
} csm_reset_info;

/* ---- segment ------------------------------------------------------------------------------------ */

/* Bytes the shm object takes when everything is filled; 0 when the settings are out of range. */
uint64_t csm_segment_bytes(const csm_settings *settings);

/* Maps the shm object behind `fd`, initialising it with `settings` when it is empty (CSM_MISS if `settings` is NULL). An existing segment
 * keeps its own settings. The handle takes over `fd` on success. CSM_GONE: the object is destroyed, or its creator died: unlink it and
 * start over. Waits at most `timeout_ns` for a creator at work (CSM_BUSY). *created is 1 when this call initialised it. */
int csm_open(int fd, const csm_settings *settings, uint64_t timeout_ns, csm **out, int *created);

/* Enters the segment as `role`. An observer takes no lock and no row, and flips nothing. Others enter in one step with
 * respect to other joiners: the generation is flipped when `cold_when_alone` and no other app process lives, or when
 * `config` (canonical JSON of the configured version, 0 bytes for none) differs from the configured version the
 * segment has recorded. *flipped tells. CSM_BUSY: that could not be decided, the write lock's holder being stopped; an app that
 * need not flip gets by without the lock. */
int csm_join(csm *h, int role, int cold_when_alone, const char *config, size_t config_bytes, int *flipped);

/* Gives up row and descriptor. No view of the handle may be live, no other thread may be using it. The mapping stays. */
void csm_leave(csm *h);

/* The same, and the segment's memory is let go of: for observers, which outlive many a segment. The mapping is all zeros afterwards. */
void csm_forget(csm *h);

/* 1 when any process (of whatever layout) holds a row of the object behind `fd`, else 0; negative: code. */
int csm_in_use(int fd);

/* 1 when a process other than this one has joined as an app. */
int csm_in_use_by_others(csm *h);

/* Identifies the segment among all that there are and were; the same in all processes. */
uint64_t csm_id(csm *h);

/* The handle's descriptor (it stays the handle's), and whether `fd` is the same object. */
int csm_descriptor(csm *h);
int csm_is_object(csm *h, int fd);

/* Marks the segment destroyed and flips the generation: all attached processes notice and reopen. */
int csm_destroy(csm *h);

/* Keeps creators and other replacers away from the object behind `fd`. CSM_OK, or CSM_BUSY: try again. */
int csm_guard(int fd);
void csm_unguard(int fd);

/* 1 while the object still has its name. If it has not (systemd's RemoveIPC, an operator's rm), the segment is marked
 * destroyed, for all processes that are attached to it; also 0 when the handle's descriptor was closed by somebody. Also done
 * by csm_claim, and now and then by csm_find. */
int csm_linked(csm *h);

/* +1 in each forked child: who remembers this number knows whether a fork came between. Counted by libc's own hook, which runs also
 * when a C program forks without telling Python. */
uint64_t csm_forks(void);

int csm_errno(void); /* errno of this thread's last CSM_SYSTEM */
int csm_destroyed(csm *h);

/* ---- reading ------------------------------------------------------------------------------------ */

uint64_t csm_generation(csm *h);
unsigned char *csm_base(csm *h);      /* the mapping, for zero-call reads */
uint64_t csm_mapped_bytes(csm *h);
uint64_t csm_generation_offset(csm *h);

/* Looks `key` up. The caller loads the generation before, and again after it has copied what was found: if it
 * changed, nothing was read. Positive: the value (< 4 MiB) lies at 16 * (result >> 27) from csm_base, its length
 * is (result >> 5) & 0x3fffff and its format result & 31. 0: a miss. -1: a hit that wants csm_view_acquire. */
int64_t csm_find(csm *h, const char *key, size_t key_bytes);

/* Looks `key` up and pins the value. CSM_OK, CSM_MISS, or an error. */
int csm_view_acquire(csm *h, const char *key, size_t key_bytes, csm_view **out);
void csm_view_release(csm_view *view);

/* ---- computing once ----------------------------------------------------------------------------- */

/* Becomes owner (CSM_OWNER), joins a flight (CSM_JOINED), or finds the entry (CSM_READY). `parent` is the call of the
 * computation that this one is made from, in whatever cache, or NULL: used to detect cycles. */
int csm_claim(csm *h, const char *key, size_t key_bytes, const csm_call *parent, csm_call *call);

/* Waits at most `limit_ns` for the flight to end. CSM_AGAIN, CSM_OUTCOME, CSM_OWNER (the owner died and this caller
 * took over), CSM_INTERRUPTED and CSM_TIMEOUT (both: still queued, call again or csm_wait_leave). */
int csm_wait(csm *h, csm_call *call, uint64_t limit_ns);
void csm_wait_leave(csm *h, csm_call *call);

/* The caller will wait no longer: if nobody was computing yet, because the cluster was asked and has not answered, it does so itself
 * (CSM_OWNER). CSM_TIMEOUT: somebody computes, and the caller is still queued. Otherwise as csm_wait. */
int csm_wait_no_longer(csm *h, csm_call *call);

/* Copies the outcome found by csm_wait. CSM_OK, or CSM_STALE when it was overwritten meanwhile. */
int csm_outcome_read(csm *h, csm_call *call, void *buffer);

/* Ends the flight; the ticket is spent, whatever is returned but CSM_INVALID. CSM_OK: stored. CSM_NOT_STORED, CSM_FULL_*, CSM_TOO_LARGE,
 * CSM_NO_SPACE: not stored, the waiters have it all the same. CSM_STALE, CSM_FORKED: nothing was done. CSM_BUSY: given
 * up, a waiter takes over. */
int csm_publish(csm *h, csm_call *call, const char *key, size_t key_bytes, int kind, int format, const csm_piece *pieces,
                size_t n);

/* Ends the flight without any outcome: the next asker computes. The ticket is spent. */
int csm_abandon(csm *h, csm_call *call);

/* After CSM_JOINED, on the same thread: the id of a cache that the search for cycles came to, but that this process is not
 * attached to; 0 if there was none. Attach to it, as an observer at least, and search again: CSM_JOINED or CSM_CYCLE. */
uint64_t csm_cycle_unknown(void);
int csm_cycle_check(csm *h, csm_call *call);

/* After CSM_CYCLE, on the same thread: the keys that wait on one another, the asked-for one first. */
size_t csm_chain_length(void);
uint64_t csm_chain_id(size_t i); /* its cache's */
size_t csm_chain_key(size_t i, unsigned char *buffer, size_t capacity); /* at most the first 96 bytes */
size_t csm_chain_key_bytes(size_t i);                                   /* of the whole key */

/* ---- the cluster: for the sidecar --------------------------------------------------------------- */

/* The handle, joined as CSM_SIDECAR, becomes the host's sidecar for this cache: from now on workers that miss ask it. It has to look
 * (csm_relay_look) more often than each `lease_timeout_ns` (at most 10 s), or they do without it; nor does anybody wait longer than that for
 * an answer. `name`: of the node, 1 to 63 bytes. CSM_BUSY: another one lives, or the write lock's holder is stopped. */
int csm_relay_open(csm *h, const char *name, size_t bytes, uint64_t lease_timeout_ns);

/* The opposite. Whoever waits for it goes on without it. Nothing else of it may be under way, but csm_relay_wait. */
void csm_relay_close(csm *h);

/* Sleeps until there is something to look at, at most `ns`. CSM_OK, CSM_TIMEOUT, CSM_INTERRUPTED. For one thread. */
int csm_relay_wait(csm *h, uint64_t ns);

/* What has happened: writes at most `capacity` of them and returns how many; when it is all of `capacity`, there may be more. CSM_GONE:
 * the segment was destroyed, or this process is not its sidecar any more. Never blocks. */
int csm_relay_look(csm *h, csm_lease *out, uint32_t capacity);

/* Another host computes, and its answer will come; or: whoever waits may compute. CSM_OK, or CSM_STALE: it is over. */
int csm_relay_hold(csm *h, uint32_t flight, uint64_t serial);
int csm_relay_grant(csm *h, uint32_t flight, uint64_t serial);

/* What was granted ends with CSM_LEASE_OUTCOME, should it have one. */
void csm_relay_want(csm *h, uint32_t flight, uint64_t serial);

/* Becomes owner, to publish what came from another host: of the key, in that generation (CSM_OWNER; CSM_READY: it is stored; CSM_JOINED: somebody
 * else is about to; CSM_STALE; and errors, as csm_claim); or of a flight that was asked for (CSM_OWNER, CSM_STALE). */
int csm_relay_take(csm *h, uint64_t generation, const char *key, size_t key_bytes, csm_call *call);
int csm_relay_take_asked(csm *h, uint32_t flight, uint64_t serial, csm_call *call);

/* The entry at *position of the log, or the next one that there is; of those that were computed on this host, if `local`. Pinned until
 * csm_view_release(out->view). CSM_OK: *position is where it was. CSM_MISS: no more, and *position is the end. CSM_STALE. */
int csm_relay_entry(csm *h, uint64_t generation, int local, uint64_t *position, csm_relay_entry_view *out);

/* The same for the entry of a key. CSM_OK, CSM_MISS, CSM_STALE. */
int csm_relay_find(csm *h, uint64_t generation, const char *key, size_t key_bytes, csm_relay_entry_view *out);

/* Notes what a node has; at most 64 nodes. `name`: at most 63 bytes; of none: the record is free. since_ns is when its state changed. */
int csm_peer_write(csm *h, uint32_t i, const char *name, size_t bytes, uint64_t covers, uint64_t state);

/* Reads the records, for whoever asks. Returns how many were written; 0 as well when no sidecar lives. */
uint32_t csm_peers(csm *h, csm_peer_info *out, uint32_t capacity);

/* 1 when a sidecar lives and has looked in time. *pid is its process; 0 when there is none. */
int csm_has_sidecar(csm *h, uint64_t *pid);

/* ---- reset -------------------------------------------------------------------------------------- */

/* One resetter at a time. CSM_OK, CSM_TIMEOUT or CSM_INTERRUPTED (call again). */
int csm_reset_lock(csm *h, uint64_t limit_ns);
void csm_reset_unlock(csm *h);

/* With the reset lock held: new generation, new version (canonical JSON). This is a reset made on this host; `counter`: what its counter
 * becomes, 0 for one more than it is. */
int csm_reset_commit(csm *h, const char *version, size_t version_bytes, uint64_t counter);

/* The same, for a reset that was made on another host. `origin`: at most 80 bytes. */
int csm_reset_adopt(csm *h, const char *version, size_t version_bytes, uint64_t counter, const char *origin, size_t origin_bytes);

/* Where the cache stands, all of it read at one moment. */
void csm_stamp_read(csm *h, csm_stamp *out);

/* Who a reset that is made on this host is by: name of the node if that is known, '#', id of the segment. Writes at most 80 bytes, and
 * returns how many. */
size_t csm_origin(csm *h, char *buffer);

/* Copies the current version (at most 1024 bytes) and its generation. */
int csm_version(csm *h, char *buffer, size_t capacity, size_t *bytes, uint64_t *generation);

/* 1 for the first caller in this generation, 0 for all others: who logs that the cache is full; and who logs
 * the reset (never of the generation that the segment began with). */
int csm_warn_once(csm *h, uint64_t generation);
int csm_tell_once(csm *h, uint64_t generation);

/* Who reset, from what to what. */
void csm_describe_reset(csm *h, csm_reset_info *out);

/* How often this process took the write lock (lock 0) or the reset lock (1) from a dead process since it last asked; *pid is the
 * last of them. */
uint64_t csm_stolen(csm *h, int lock, uint64_t *pid);

/* ---- looking on --------------------------------------------------------------------------------- */

/* Any statistic but CSM_STAT_HOT_HITS. */
void csm_count(csm *h, int stat, uint64_t n);

/* Hits of hot objects never come to the core. Who has them counts each by adding one to **csm_hot(h), by a plain load and store: the
 * callers of both functions agree on one at a time (Python's: whoever holds the GIL). *csm_hot(h) changes, **csm_hot(h) may go on from
 * any number. When it comes to a multiple of CSM_HOT_LOOK the caller looks whether the object still has its name, as csm_find does by
 * itself, and calls csm_hot_settle.
 *
 * It adds what `from` has counted without a row to the row of `to`, which is the same handle, or the one that this process goes on
 * with; if that is another segment's, the counts are lost with the former one. */
enum { CSM_HOT_LOOK = 4096 };
uint64_t **csm_hot(csm *h);
void csm_hot_settle(csm *from, csm *to);

/* Upper bound of bucket `i` of a csm_durations; 0: it is the last, and has none. */
uint64_t csm_bucket_ns(int i);

/* What follows, up to csm_flights, takes no lock, and numbers of a busy cache may be of slightly different moments. */
void csm_describe(csm *h, csm_info *out);

/* The rows that were ever used, the chunks, the slowest computations that the rows remember (each process some; the slowest first).
 * Return how many were written. */
uint32_t csm_describe_rows(csm *h, csm_row_info *out, uint32_t capacity);
uint32_t csm_describe_chunks(csm *h, csm_chunk_info *out, uint32_t capacity);
uint32_t csm_slowest(csm *h, csm_slow_info *out, uint32_t capacity);

/* Entries in commit order, from *cursor on, as records of (u32 key bytes, u32 format, u64 value bytes, key).
 * Returns the bytes written and moves *cursor; 0 at the end; CSM_STALE when `generation` has passed. */
int64_t csm_entries(csm *h, uint64_t generation, uint64_t *cursor, unsigned char *buffer, uint64_t capacity);

/* Live flights; returns how many were written. */
uint32_t csm_flights(csm *h, csm_flight_info *out, uint32_t capacity);

/* Looks `key` up for somebody who only looks on: nothing is counted or pinned, and no row is taken. CSM_OK: the value's *bytes
 * bytes lie at *at from csm_base; or CSM_MISS. The caller loads the generation before, and again after it has copied. */
int csm_peek(csm *h, const char *key, size_t key_bytes, uint64_t *at, uint64_t *bytes, uint32_t *format);

/* Checks every structure, partly under the write lock (some 10 ms for a million entries). Returns the number of faults (0:
 * sound) or a code; `report` gets one line a fault. */
int csm_verify(csm *h, char *report, size_t capacity);

/* Checks what can be checked without the lock: header, entries, and how they are found. Takes no row, waits for nobody. */
int csm_verify_entries(csm *h, char *report, size_t capacity);
