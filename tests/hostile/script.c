/* script.c: see script.h. */
#include "script.h"

#include "guard.h"

#include <stdatomic.h>

enum { CAPACITY = 4096, KEY_ROOM = 40 };
static const uint64_t SHORT_NS = 200000;

const char *const script_names[OPS] = {
    [OP_OPEN] = "open", [OP_JOIN] = "join", [OP_FIND] = "find", [OP_VIEW] = "view", [OP_CLAIM] = "claim", [OP_WAIT] = "wait",
    [OP_OUTCOME_READ] = "outcome read", [OP_PUBLISH] = "publish a value", [OP_PUBLISH_FAILURE] = "publish a failure",
    [OP_PUBLISH_UNCACHED] = "publish uncached", [OP_PUBLISH_UNSHAREABLE] = "publish unshareable", [OP_ABANDON] = "abandon",
    [OP_WAIT_LEAVE] = "leave the queue", [OP_RESET_LOCK] = "reset lock", [OP_RESET_COMMIT] = "reset commit",
    [OP_ENTRIES] = "entries", [OP_FLIGHTS] = "flights", [OP_DESCRIBE] = "describe", [OP_VERIFY] = "verify",
    [OP_VERSION] = "version", [OP_WARN_ONCE] = "warn once", [OP_LINKED] = "linked", [OP_IN_USE] = "in use", [OP_COUNT] = "count",
    [OP_CYCLE_CHECK] = "cycle check", [OP_CHAIN] = "chain of a cycle", [OP_LEAVE] = "leave", [OP_DESTROY] = "destroy",
    [OP_ROWS] = "rows", [OP_CHUNKS] = "chunks", [OP_SLOWEST] = "slowest", [OP_RESET_INFO] = "last reset", [OP_STOLEN] = "stolen",
    [OP_WAIT_NO_LONGER] = "wait no longer", [OP_STAMP] = "stamp", [OP_PEERS] = "peers", [OP_RELAY_LOOK] = "relay: look",
    [OP_RELAY_WAIT] = "relay: wait", [OP_RELAY_HOLD] = "relay: hold", [OP_RELAY_GRANT] = "relay: grant", [OP_RELAY_WANT] = "relay: want",
    [OP_RELAY_TAKE] = "relay: take", [OP_RELAY_TAKE_ASKED] = "relay: take asked", [OP_RELAY_ENTRY] = "relay: entry",
    [OP_RELAY_FIND] = "relay: find", [OP_PEER_WRITE] = "relay: write peer", [OP_ADOPT] = "relay: adopt", [OP_RELAY_OPEN] = "relay: open",
    [OP_RELAY_CLOSE] = "relay: close"};

const char *script_outcome_name(int outcome) {
    static const char *const codes[] = {
        "ok or none", "MISS", "STALE", "FORKED", "BUSY", "NO_ROW", "NO_FLIGHT", "NO_SLOT", "NO_NODE", "FULL_ARENA", "FULL_ITEMS",
        "TOO_LARGE", "NO_SPACE", "CYCLE", "INTERRUPTED", "TIMEOUT", "LAYOUT", "CORRUPT", "GONE", "SYSTEM", "INVALID", "NOT_STORED"};
    static const char *const steps[] = {"", "ready", "owner", "joined", "outcome", "again", "found", "some"};
    return outcome <= 0 ? codes[-outcome] : steps[outcome];
}

_Thread_local const char *volatile script_running;

static atomic_uint_fast64_t sink;

/* All bytes are looked at. */
static void read_all(const void *data, uint64_t bytes) {
    const volatile unsigned char *at = data;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) sum += at[i];
    atomic_fetch_add_explicit(&sink, sum, memory_order_relaxed);
}

int script_note(struct script *s, enum script_op op, uint64_t since, int outcome) {
    CHECK(outcome > OUTCOME_FIRST && outcome < OUTCOME_LAST);
    uint64_t took = csm_now_ns() - since;
    __atomic_fetch_add(&s->counts->calls[op][outcome - OUTCOME_FIRST], 1, __ATOMIC_RELAXED);
    csm_raise(&s->counts->longest_ns[op], took);
    /* The lock's word names a live process that does not hold it: each call would be refused after half a second. */
    if (outcome == CSM_BUSY && s->h) {
        csm_store(&s->h->header->write_lock, 0);
        __atomic_fetch_add(&s->counts->healed, 1, __ATOMIC_RELAXED);
    }
    script_running = NULL;
    return outcome;
}

/* ---- what may be found */

void script_check_value(struct script *s, uint32_t n, const void *data, uint64_t bytes) {
    read_all(data, bytes);
    if (!s->exact || n == LIFE_KEYS) return;
    CHECK_EQ(bytes, life_value_bytes(n));
    CHECK(memcmp(data, life_value(n), bytes) == 0);
}

static const char *key_of(uint32_t n, char room[KEY_ROOM]) {
    snprintf(room, KEY_ROOM, "key %u", n);
    return room;
}

uint32_t script_number_of(const void *key, size_t bytes) {
    char room[KEY_ROOM];
    uint32_t n = 0;
    while (n < LIFE_KEYS && !(bytes == strlen(key_of(n, room)) && memcmp(key, room, bytes) == 0)) n++;
    return n;
}

static uint32_t some_key(struct script *s) { return (uint32_t)feed_below(&s->feed, LIFE_KEYS); }

static void find(struct script *s) {
    char room[KEY_ROOM];
    uint32_t n = some_key(s);
    const char *key = key_of(n, room);
    int64_t found;
    CALL(OP_FIND, (found = csm_find(s->h, key, strlen(key))) > 0 ? OUTCOME_FOUND : (int)found);
    if (found <= 0) return;
    uint64_t at = (uint64_t)(found >> 27) * 16, bytes = found >> 5 & 0x3fffff;
    CHECK(at >= s->h->geo.arena_off && at + bytes <= s->h->geo.arena_off + s->h->geo.memory_limit);
    script_check_value(s, n, csm_base(s->h) + at, bytes);
}

static void view(struct script *s) {
    char room[KEY_ROOM];
    uint32_t n = some_key(s);
    const char *key = key_of(n, room);
    csm_view *v;
    if (CALL(OP_VIEW, csm_view_acquire(s->h, key, strlen(key), &v)) != CSM_OK) return;
    CHECK(v->data >= s->h->arena && v->bytes <= s->h->geo.memory_limit);
    CHECK(v->data + v->bytes <= s->h->arena + s->h->geo.memory_limit);
    script_check_value(s, n, v->data, v->bytes);
    csm_view_release(v);
}

void script_read_outcome(struct script *s, csm_call *call, bool is_lifes) {
    /* Nobody wrote more: what claims so must have been noticed. */
    CHECK(call->waiter.outcome_bytes <= (UINT64_C(1) << 20));
    unsigned char *buffer = malloc(call->waiter.outcome_bytes + 1);
    CHECK(buffer);
    if (CALL(OP_OUTCOME_READ, csm_outcome_read(s->h, call, buffer)) == CSM_OK && is_lifes && s->exact) {
        CHECK_EQ(call->waiter.outcome_bytes, LIFE_OUTCOME_BYTES);
        CHECK_EQ(call->waiter.outcome_kind, CSM_FAILURE);
        CHECK(memcmp(buffer, LIFE_OUTCOME, LIFE_OUTCOME_BYTES) == 0);
    }
    free(buffer);
}

/* ---- computing once */

void script_publish(struct script *s, csm_call *call, const char *key, uint32_t n) {
    static const struct {
        enum script_op op;
        int kind;
    } kinds[] = {{OP_PUBLISH, CSM_VALUE}, {OP_PUBLISH_FAILURE, CSM_FAILURE}, {OP_PUBLISH_UNCACHED, CSM_UNCACHED},
                 {OP_PUBLISH_UNSHAREABLE, CSM_UNSHAREABLE}, {OP_ABANDON, 0}};
    uint64_t which = feed_below(&s->feed, 8);
    if (which > 4) which = 0;
    if (kinds[which].op == OP_ABANDON)
        CALL(OP_ABANDON, csm_abandon(s->h, call));
    else
        CALL(kinds[which].op, check_publish_as(s->h, call, key, kinds[which].kind, life_value(n), life_value_bytes(n)));
}

static void finish(struct script *s, csm_call *call, const char *key, uint32_t n, int code) {
    if (code == CSM_JOINED && csm_cycle_unknown()) code = CALL(OP_CYCLE_CHECK, csm_cycle_check(s->h, call));
    if (code == CSM_CYCLE) {
        size_t length = 0;
        CALL(OP_CHAIN, script_some((int64_t)(length = csm_chain_length())));
        unsigned char preview[CSM_KEY_PREVIEW];
        for (size_t i = 0; i < length; i++) {
            CHECK(csm_chain_key(i, preview, sizeof preview) <= sizeof preview);
            csm_chain_key_bytes(i);
            csm_chain_id(i);
        }
    }
    if (code == CSM_JOINED) code = CALL(OP_WAIT, csm_wait(s->h, call, feed_below(&s->feed, 4) ? 0 : SHORT_NS));
    if (code == CSM_TIMEOUT && feed_below(&s->feed, 2)) code = CALL(OP_WAIT_NO_LONGER, csm_wait_no_longer(s->h, call));
    if (code == CSM_OUTCOME) script_read_outcome(s, call, false);
    if (call->ticket.serial) script_publish(s, call, key, n);
    CALL_VOID(OP_WAIT_LEAVE, csm_wait_leave(s->h, call));
}

static void claim(struct script *s) {
    static const char *const others[] = {"owned", "other", "dead", "read", "hole", "asked", "held", "granted", "taken"};
    char room[KEY_ROOM];
    uint32_t n = some_key(s);
    uint64_t other = feed_below(&s->feed, 30);
    const char *key = other < sizeof others / sizeof *others ? others[other] : key_of(n, room);
    const csm_call *parent = s->is_b ? &s->life->other : &s->life->owned;
    csm_call call = {0};
    int code = CALL(OP_CLAIM, csm_claim(s->h, key, strlen(key), feed_below(&s->feed, 3) ? NULL : parent, &call));
    finish(s, &call, key, n, code);
}

static void wait_for(struct script *s, csm_call *call, const char *key) {
    if (!call->waiter.serial) return;
    int code = CALL(OP_WAIT, csm_wait(s->h, call, feed_below(&s->feed, 4) ? 0 : SHORT_NS));
    finish(s, call, key, 0, code);
}

/* What the process had begun before the damage, once each. */
static void go_on(struct script *s) {
    struct life *l = s->life;
    if (!s->is_b) {
        if (l->owned.ticket.serial) script_publish(s, &l->owned, "owned", 0);
        wait_for(s, &l->held, "held");
        wait_for(s, &l->asked, "asked");
        return;
    }
    if (l->granted.ticket.serial) script_publish(s, &l->granted, "granted", 0);
    if (l->view) {
        csm_view *v = l->view;
        l->view = NULL;
        script_check_value(s, 3, v->data, v->bytes);
        csm_view_release(v);
    }
    if (l->read.waiter.outcome_serial) {
        script_read_outcome(s, &l->read, true);
        l->read.waiter.outcome_serial = 0;
    }
    if (l->other.ticket.serial && feed_below(&s->feed, 2)) script_publish(s, &l->other, "other", 1);
    wait_for(s, &l->waiter, "owned");
}

/* ---- looking on */

/* Was a computation of this key ever published? A record that says something else must not open. */
static bool is_some_key(const unsigned char *key, uint32_t bytes) {
    static const char *const others[] = {"owned", "other", "dead", "read", "hole", "asked", "held", "granted", "taken"};
    if (script_number_of(key, bytes) < LIFE_KEYS) return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (bytes == strlen(others[i]) && memcmp(key, others[i], bytes) == 0) return true;
    return false;
}

static void look_closely(struct script *s) {
    uint32_t n, capacity = (uint32_t)feed_below(&s->feed, 20);
    csm_row_info rows[20];
    CALL(OP_ROWS, script_some(n = csm_describe_rows(s->h, rows, capacity)));
    CHECK(n <= capacity);
    for (uint32_t i = 0; i < n; i++) CHECK(rows[i].pinned_bytes <= s->h->geo.memory_limit);
    csm_chunk_info chunks[20];
    CALL(OP_CHUNKS, script_some(n = csm_describe_chunks(s->h, chunks, capacity)));
    CHECK(n <= capacity);
    for (uint32_t i = 0; i < n; i++) CHECK(chunks[i].allocated_bytes <= chunks[i].bytes);
    csm_slow_info slow[20];
    CALL(OP_SLOWEST, script_some(n = csm_slowest(s->h, slow, capacity)));
    CHECK(n <= capacity);
    for (uint32_t i = 0; i < n; i++) CHECK(is_some_key(slow[i].key, slow[i].key_bytes));
    csm_reset_info reset;
    CALL_VOID(OP_RESET_INFO, csm_describe_reset(s->h, &reset));
    CHECK(reset.version_bytes <= sizeof reset.version && reset.former_bytes <= sizeof reset.former);
    uint64_t pid;
    CALL(OP_STOLEN, script_some((int64_t)csm_stolen(s->h, (int)feed_below(&s->feed, 2), &pid)));
    csm_tell_once(s->h, csm_generation(s->h));
    csm_stamp stamp;
    char origin[CSM_ORIGIN_BYTES];
    CALL_VOID(OP_STAMP, csm_stamp_read(s->h, &stamp));
    CHECK(stamp.version_bytes <= sizeof stamp.version && stamp.origin_bytes <= sizeof stamp.origin);
    CHECK(csm_origin(s->h, origin) <= sizeof origin);
    csm_peer_info peers[20];
    CALL(OP_PEERS, script_some(n = csm_peers(s->h, peers, capacity)));
    CHECK(n <= capacity);
    for (uint32_t i = 0; i < n; i++) CHECK(memchr(peers[i].name, 0, sizeof peers[i].name));
    csm_has_sidecar(s->h, &pid);
}

static void look_on(struct script *s) {
    unsigned char buffer[CAPACITY];
    char report[512] = "";
    uint64_t cursor = 0, generation = csm_generation(s->h), capacity = feed_below(&s->feed, CAPACITY + 1);
    for (int64_t bytes = 1, n = 0; bytes > 0 && n < 100; n++) {
        CALL(OP_ENTRIES, script_some(bytes = csm_entries(s->h, generation, &cursor, buffer, capacity)));
        CHECK(bytes <= (int64_t)capacity);
        for (int64_t at = 0; at < bytes;) {
            uint32_t head[4];
            CHECK(at + 16 <= bytes);
            memcpy(head, buffer + at, sizeof head);
            at += 16 + (int64_t)head[0];
            CHECK(at <= bytes);
        }
    }
    csm_flight_info flights[4];
    uint32_t n = 0;
    CALL(OP_FLIGHTS, script_some(n = csm_flights(s->h, flights, 4)));
    CHECK(n <= 4);
    csm_info info;
    CALL_VOID(OP_DESCRIBE, csm_describe(s->h, &info));
    CHECK(info.rows_used <= s->h->geo.rows && info.pinned_chunks <= info.chunks);
    size_t room = feed_below(&s->feed, sizeof report), version_bytes;
    CALL(OP_VERIFY, script_some(csm_verify(s->h, report, room)));
    CHECK(room == 0 || memchr(report, 0, room));
    CALL(OP_WARN_ONCE, script_some(csm_warn_once(s->h, generation)));
    CALL(OP_VERSION, csm_version(s->h, report, feed_below(&s->feed, sizeof report), &version_bytes, &generation));
    CHECK(version_bytes <= sizeof report);
    CALL(OP_LINKED, script_some(csm_linked(s->h)));
    CALL(OP_IN_USE, script_some(csm_in_use_by_others(s->h)));
    CALL_VOID(OP_COUNT, csm_count(s->h, (int)feed_below(&s->feed, CSM_STATS), 1));
    look_closely(s);
}

static void reset(struct script *s) {
    if (CALL(OP_RESET_LOCK, csm_reset_lock(s->h, SHORT_NS)) != CSM_OK) return;
    char version[CSM_VERSION_BYTES];
    memset(version, '7', sizeof version);
    CALL(OP_RESET_COMMIT, csm_reset_commit(s->h, version, feed_below(&s->feed, sizeof version + 1), feed_below(&s->feed, 2)));
    csm_reset_unlock(s->h);
}

/* ---- coming and going */

static void drop(csm *h) {
    unsigned char *base = h->base;
    uint64_t bytes = h->geo.mapped_bytes;
    csm_leave(h);
    CHECK(guard_unmap(base, bytes) == 0);
    pthread_mutex_destroy(&h->mutex);
    free(h);
}

void script_attach(struct script *s, int fd) {
    csm *h, *before = s->h;
    int created, flipped;
    s->h = NULL;
    int code = CALL(OP_OPEN, csm_open(fd, feed_below(&s->feed, 4) ? &LIFE_SETTINGS : NULL, SHORT_NS, &h, &created));
    if (code != CSM_OK) {
        close(fd);
        s->h = before;
        return;
    }
    s->h = h;
    bool is_app = feed_below(&s->feed, 3), exact = s->exact;
    code = CALL(OP_JOIN, csm_join(h, is_app ? CSM_APP : CSM_OBSERVER, (int)feed_below(&s->feed, 2), "\"v\"",
                                  feed_below(&s->feed, 2) * 3, &flipped));
    if (code == CSM_OK) {
        view(s);
        find(s);
        look_on(s);
        claim(s);
    }
    CALL_VOID(OP_LEAVE, drop(h));
    s->h = before;
    s->exact = exact;
}

static void attach(struct script *s) {
    int fd = csm_process_reopen(s->life->fd);
    CHECK(fd >= 0);
    script_attach(s, fd);
}

static void destroy(struct script *s) {
    if (feed_below(&s->feed, 8) == 0) CALL(OP_DESTROY, csm_destroy(s->h));
}

void script_run(struct script *s) {
    static void (*const steps[])(struct script *) = {go_on, find, find, view, claim, claim, look_on, claim, find, attach,
                                                     claim, view, reset, find, claim, claim, look_on, destroy, claim};
    enum { STEPS = sizeof steps / sizeof *steps };
    uint64_t from = feed_below(&s->feed, STEPS);
    for (uint64_t i = 0; i < STEPS; i++) steps[(from + i) % STEPS](s);
}
