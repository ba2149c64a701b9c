/* test_damage.c holds all of the core to: whatever somebody writes into the segment, semaphores excepted, a call comes back. It
 * may then miss, refuse, or find a value that was overwritten; it does not crash, loop, or touch what is not the segment's.
 *
 * Each round takes a segment in the middle of its life (entries, flights, waiters, an outcome, a view, holes), changes some of
 * its words, and calls everything there is, from two processes. Arena bytes are changed as well: a value is then wrong, which
 * nobody can notice. After a reset that gets through, the segment need not be sound; but it must still be answered from. */
#include "check.h"

#include "flight.h"

enum { ROUNDS = 3000, CAPACITY = 8192 };

static const csm_settings TINY = {.memory_limit = CSM_MIN_LIMIT, .max_items = 40, .rows = 4, .flights = 6, .nodes = 6};
static const uint64_t SHORT_NS = 2000000;

struct life {
    csm *a, *b;
    csm_call owner, waiter, other, read;
    csm_view *view;
};

static void begin(struct life *l) {
    csm_call done;
    l->a = check_segment(&TINY);
    l->b = check_another(l->a);
    for (uint32_t i = 0; i < 8; i++) CHECK_EQ(check_store(l->a, check_key("key", i), i * 900, i), CSM_OK);
    CHECK_EQ(csm_view_acquire(l->b, "key 3", 5, &l->view), CSM_OK);
    CHECK_EQ(check_claim(l->a, "read", &done), CSM_OWNER);
    CHECK_EQ(check_claim(l->b, "read", &l->read), CSM_JOINED);
    CHECK_EQ(check_publish_as(l->a, &done, "read", CSM_FAILURE, "0123456789", 10), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(l->b, &l->read, 0), CSM_OUTCOME);
    CHECK_EQ(check_claim(l->a, "owned", &l->owner), CSM_OWNER);
    CHECK_EQ(check_claim(l->b, "other", &l->other), CSM_OWNER);
    CHECK_EQ(check_claim_in(l->b, "owned", &l->other, &l->waiter), CSM_JOINED);
}

static bool is_semaphore(const csm *h, uint64_t at) {
    uint64_t end = h->geo.nodes_off + h->geo.nodes * sizeof(struct csm_node);
    if (at < h->geo.nodes_off || at >= end) return false;
    return (at - h->geo.nodes_off) % sizeof(struct csm_node) >= offsetof(struct csm_node, u);
}

/* Values that mean something somewhere, or nearly so. */
static uint64_t some_word(const csm *h, uint64_t old, uint64_t *random) {
    switch (check_random(random) % 12) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return old + 1;
    case 3: return old - 1;
    case 4: return old ^ UINT64_C(1) << check_random(random) % 64;
    case 5: return h->self;
    case 6: return csm_ctl(1, check_random(random) % 8, (enum csm_slot_state)(check_random(random) % 5));
    case 7: return csm_extent(check_random(random) % 5000, check_random(random) % 5000);
    case 8: return csm_run(check_random(random) % 5000, check_random(random) % 20);
    case 9: return csm_meta(check_random(random) % 100000, check_random(random) % 40, check_random(random) % 100);
    case 10: return check_random(random) % 50;
    default: return check_random(random) << 32 ^ check_random(random);
    }
}

static void damage(const struct life *l, uint64_t *random) {
    const csm *h = l->a;
    static const uint64_t HEADER = sizeof(struct csm_header);
    for (uint64_t n = 1 + check_random(random) % 30; n; n--) {
        uint64_t where = check_random(random) % 4, at = 0;
        switch (where) { /* most of the segment is arena; most of what matters is not */
        case 0: at = check_random(random) % HEADER; break;
        case 1: at = check_random(random) % h->geo.arena_off; break;
        case 2: at = h->geo.flights_off + check_random(random) % (h->geo.log_off - h->geo.flights_off); break;
        case 3: at = check_random(random) % h->geo.mapped_bytes; break;
        }
        at = at / 8 * 8;
        if (is_semaphore(h, at)) continue;
        uint64_t *word = (uint64_t *)(void *)(h->base + at);
        csm_store(word, some_word(h, csm_load(word), random));
    }
}

static void call_everything(struct life *l) {
    static unsigned char buffer[CAPACITY];
    csm *both[2] = {l->a, l->b};
    char report[256];
    csm_call call;
    csm_outcome_read(l->b, &l->read, buffer);
    csm_view_release(l->view);
    csm_wait(l->b, &l->waiter, SHORT_NS);
    check_publish(l->a, &l->owner, "owned", buffer, 700);
    if (l->waiter.waiter.serial) csm_wait(l->b, &l->waiter, SHORT_NS);
    csm_wait_leave(l->b, &l->waiter);
    check_publish_as(l->b, &l->other, "other", CSM_FAILURE, buffer, 300);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 2; i++) {
            csm *h = both[i];
            for (uint32_t k = 0; k < 10; k++) {
                const char *key = check_key("key", k);
                csm_view *view;
                int64_t found = csm_find(h, key, strlen(key));
                if (found > 0) CHECK((uint64_t)(found >> 27) * 16 + (found >> 5 & 0x3fffff) <= csm_mapped_bytes(h));
                if (csm_view_acquire(h, key, strlen(key), &view) == CSM_OK) {
                    CHECK(view->data >= h->base && view->bytes <= h->geo.mapped_bytes);
                    CHECK(view->data + view->bytes <= h->base + h->geo.mapped_bytes);
                    csm_view_release(view);
                }
                int code = check_claim(h, key, &call);
                if (code == CSM_JOINED) code = csm_wait(h, &call, SHORT_NS);
                csm_wait_leave(h, &call);
                if (code == CSM_OUTCOME && call.waiter.outcome_bytes <= CAPACITY) csm_outcome_read(h, &call, buffer);
                if (call.ticket.serial) check_publish(h, &call, key, buffer, k * 500);
            }
            csm_flight_info flights[6];
            uint64_t cursor = 0, generation = csm_generation(h);
            size_t bytes;
            csm_flights(h, flights, 6);
            for (int n = 0; n < 50 && csm_entries(h, generation, &cursor, buffer, CAPACITY) > 0; n++) continue;
            csm_verify(h, report, sizeof report);
            check_info(h);
            csm_warn_once(h, generation);
            csm_version(h, report, sizeof report, &bytes, &generation);
            if (csm_reset_lock(h, SHORT_NS) == CSM_OK) {
                csm_reset_commit(h, "2", 1);
                csm_reset_unlock(h);
            }
        }
    int flipped;
    csm_join(l->b, CSM_APP, 1, "3", 1, &flipped);
    csm_linked(l->a);
    csm_destroy(l->b);
}

static void run_from(uint64_t seed) {
    for (uint64_t round = 0; round < ROUNDS / 4; round++) {
        uint64_t random = seed + round;
        struct life l;
        begin(&l);
        damage(&l, &random);
        call_everything(&l);
        csm_leave(l.a);
        csm_leave(l.b);
        CHECK(munmap(l.a->base, l.a->geo.mapped_bytes) == 0 && munmap(l.b->base, l.b->geo.mapped_bytes) == 0);
    }
}

static void every_call_comes_back(void) { run_from(0); }
static void every_call_comes_back_second_part(void) { run_from(1000000); }
static void every_call_comes_back_third_part(void) { run_from(2000000); }
static void every_call_comes_back_fourth_part(void) { run_from(3000000); }

CHECK_MAIN(CHECK_TEST(every_call_comes_back), CHECK_TEST(every_call_comes_back_second_part),
           CHECK_TEST(every_call_comes_back_third_part), CHECK_TEST(every_call_comes_back_fourth_part))
