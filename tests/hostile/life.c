/* life.c: see life.h. */
#include "life.h"

#include "arena.h"
#include "guard.h"
#include "lock.h"

#include <malloc.h>

enum { LONGEST = 9000 };

uint64_t life_value_bytes(uint32_t n) { return n * 900; }

const unsigned char *life_value(uint32_t n) {
    static unsigned char values[LIFE_KEYS][LONGEST];
    static bool filled[LIFE_KEYS];
    if (!filled[n]) check_fill(values[n], life_value_bytes(n), n);
    filled[n] = true;
    return values[n];
}

/* As a publish that has come so far. */
static void reserve(csm *h, const csm_call *call, uint64_t granules) {
    uint64_t extent;
    CHECK_EQ(csm_lock(h), CSM_OK);
    CHECK_EQ(csm_arena_reserve_locked(h, csm_generation(h), &h->flights[call->ticket.flight], granules, &extent), CSM_OK);
    csm_unlock(h);
}

static void store(csm *h, uint32_t n) {
    csm_call call;
    CHECK_EQ(check_claim(h, check_key("key", n), &call), CSM_OWNER);
    CHECK_EQ(check_publish(h, &call, check_key("key", n), life_value(n), life_value_bytes(n)), CSM_OK);
}

static void find_ranges(struct life *l) {
    off_t end = (off_t)l->a->geo.mapped_bytes;
    /* A page that was reserved and that nobody has looked at yet passes for a hole. */
    for (uint64_t at = 0; at < l->a->geo.log_off; at += CSM_PAGE) (void)*(volatile unsigned char *)(l->a->base + at);
    for (off_t at = 0; (at = lseek(l->fd, at, SEEK_DATA)) >= 0 && at < end;) {
        off_t hole = lseek(l->fd, at, SEEK_HOLE);
        CHECK(hole > at && l->ranges < LIFE_RANGES);
        l->backed[l->ranges].at = (uint64_t)at;
        l->backed[l->ranges++].end = csm_min((uint64_t)hole, (uint64_t)end);
        at = hole;
    }
}

/* The calls that are under way, in an order of their own. */
static csm_call *call_of(struct life *l, uint32_t n) {
    csm_call *all[LIFE_CALLS] = {&l->owned, &l->waiter, &l->other, &l->read, &l->asked, &l->held, &l->granted, &l->taken};
    return all[n];
}

static csm_lease expect_ask(csm *s) {
    csm_lease lease;
    CHECK_EQ(csm_relay_look(s, &lease, 1), 1);
    CHECK_EQ(lease.event, CSM_LEASE_ASK);
    return lease;
}

static void begin_sidecar(struct life *l) {
    csm_call call = {.stalled_ns = 0};
    csm_lease lease;
    int flipped;
    csm *s = l->s = check_open(l->fd, &LIFE_SETTINGS);
    CHECK_EQ(csm_join(s, CSM_SIDECAR, 0, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(csm_relay_open(s, "node", 4, UINT64_C(10000000000)), CSM_OK);
    CHECK_EQ(csm_peer_write(s, 0, "web2", 4, 1, 2), CSM_OK);
    uint64_t generation = csm_generation(s);
    CHECK_EQ(csm_relay_take(s, generation, "key 8", 5, &call), CSM_OWNER);
    CHECK_EQ(check_publish(s, &call, "key 8", life_value(8), life_value_bytes(8)), CSM_OK);
    CHECK_EQ(check_claim(l->a, "held", &l->held), CSM_JOINED);
    lease = expect_ask(s);
    CHECK_EQ(csm_relay_hold(s, lease.flight, lease.serial), CSM_OK);
    CHECK_EQ(check_claim(l->b, "granted", &l->granted), CSM_JOINED);
    lease = expect_ask(s);
    CHECK_EQ(csm_relay_grant(s, lease.flight, lease.serial), CSM_OK);
    csm_relay_want(s, lease.flight, lease.serial);
    CHECK_EQ(csm_wait(l->b, &l->granted, UINT64_C(60000000000)), CSM_OWNER);
    CHECK_EQ(csm_relay_take(s, generation, "taken", 5, &l->taken), CSM_OWNER);
    CHECK_EQ(csm_relay_look(s, &lease, 1), 0); /* and queues for the outcome that is wanted */
    CHECK_EQ(check_claim(l->a, "asked", &l->asked), CSM_JOINED);
    memcpy(&l->of_s, s, sizeof *s);
    l->relay_bytes = malloc_usable_size(s->relay);
    CHECK((l->of_relay = malloc(l->relay_bytes)));
    memcpy(l->of_relay, s->relay, l->relay_bytes);
}

static void restore_sidecar(struct life *l) {
    csm *s = l->s;
    struct csm_relay *relay = s->relay ? s->relay : malloc(l->relay_bytes); /* it may have been closed, and opened again */
    CHECK(relay);
    memcpy(s, &l->of_s, sizeof *s);
    memcpy(relay, l->of_relay, l->relay_bytes);
    s->relay = relay;
    /* As if it had just been: who asks by the clock must not find that all of this is long over. */
    csm_store(&s->header->sidecar_seen_ns, csm_now_ns());
    csm_store(&s->flights[l->asked.waiter.flight].started_ns, csm_now_ns());
}

void life_begin(struct life *l, bool sidecar) {
    csm_call done, hole, dead;
    check_test_pid = getpid(); /* in the names of objects */
    *l = (struct life){.fd = check_object()};
    for (uint32_t n = 0; n < LIFE_KEYS; n++) life_value(n);
    l->a = check_join(check_open(l->fd, &LIFE_SETTINGS));
    l->b = check_another(l->a);
    csm *c = check_another(l->a);
    for (uint32_t n = 0; n < LIFE_KEYS; n++) store(l->a, n);
    check_reset(l->a);
    for (uint32_t n = 0; n < LIFE_STORED / 2; n++) store(l->a, n);
    check_reset(l->b);

    CHECK_EQ(check_claim(l->a, "hole", &hole), CSM_OWNER);
    reserve(l->a, &hole, 100);
    for (uint32_t n = 0; n < LIFE_STORED; n++) store(l->a, n);
    CHECK_EQ(csm_abandon(l->a, &hole), CSM_OK);
    CHECK_EQ(check_claim(l->a, "read", &done), CSM_OWNER);
    CHECK_EQ(check_claim(l->b, "read", &l->read), CSM_JOINED);
    CHECK_EQ(check_publish_as(l->a, &done, "read", CSM_FAILURE, LIFE_OUTCOME, LIFE_OUTCOME_BYTES), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(l->b, &l->read, 0), CSM_OUTCOME);
    CHECK_EQ(check_claim(l->a, "owned", &l->owned), CSM_OWNER);
    CHECK_EQ(check_claim(l->b, "other", &l->other), CSM_OWNER);
    CHECK_EQ(check_claim_in(l->b, "owned", &l->other, &l->waiter), CSM_JOINED);
    CHECK_EQ(check_claim(c, "dead", &dead), CSM_OWNER);
    reserve(c, &dead, 50);
    csm_leave(c);
    CHECK(guard_unmap(c->base, c->geo.mapped_bytes) == 0);
    if (sidecar) begin_sidecar(l);
    check_sound(l->a);

    find_ranges(l);
    CHECK((l->bytes = malloc(l->a->geo.mapped_bytes)));
    for (uint32_t i = 0; i < l->ranges; i++)
        memcpy(l->bytes + l->backed[i].at, l->a->base + l->backed[i].at, l->backed[i].end - l->backed[i].at);
    memcpy(&l->of_a, l->a, sizeof *l->a);
    memcpy(&l->of_b, l->b, sizeof *l->b);
    l->n_calls = sidecar ? LIFE_CALLS : 4;
    for (uint32_t i = 0; i < l->n_calls; i++) l->calls[i] = *call_of(l, i);
}

static void punch(const struct life *l, uint64_t at, uint64_t end) {
    if (at == end) return;
    CHECK(fallocate(l->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)(end - at)) == 0);
}

void life_restore(struct life *l) {
    uint64_t at = 0, windows = l->of_a.geo.windows_off;
    struct stat st;
    for (uint32_t i = 0; i < l->ranges; i++) {
        punch(l, at, l->backed[i].at);
        at = l->backed[i].end;
        memcpy(l->of_a.base + l->backed[i].at, l->bytes + l->backed[i].at, at - l->backed[i].at);
    }
    punch(l, at, l->of_a.geo.mapped_bytes);
    CHECK(fstat(l->fd, &st) == 0);
    if ((uint64_t)st.st_size > windows) punch(l, windows, (uint64_t)st.st_size);
    off_t window = (off_t)(windows + l->calls[3].waiter.outcome * CSM_WINDOW_BYTES);
    CHECK_EQ(pwrite(l->fd, LIFE_OUTCOME, LIFE_OUTCOME_BYTES, window), LIFE_OUTCOME_BYTES);
    memcpy(l->a, &l->of_a, sizeof *l->a);
    memcpy(l->b, &l->of_b, sizeof *l->b);
    for (uint32_t i = 0; i < l->n_calls; i++) *call_of(l, i) = l->calls[i];
    if (l->s) restore_sidecar(l);
    CHECK_EQ(csm_view_acquire(l->b, "key 3", 5, &l->view), CSM_OK);
}

bool life_is_backed(const struct life *l, uint64_t at) {
    for (uint32_t i = 0; i < l->ranges; i++)
        if (at >= l->backed[i].at && at + 8 <= l->backed[i].end) return true;
    return false;
}

int life_copy(const struct life *l) {
    int fd = check_object();
    CHECK(ftruncate(fd, (off_t)l->of_a.geo.mapped_bytes) == 0);
    for (uint32_t i = 0; i < l->ranges; i++) {
        uint64_t bytes = l->backed[i].end - l->backed[i].at;
        CHECK_EQ(pwrite(fd, l->bytes + l->backed[i].at, bytes, (off_t)l->backed[i].at), bytes);
    }
    return fd;
}
