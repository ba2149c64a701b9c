/* test_cycle.c holds cycle.c to:
 *   - of the waits that would close a cycle the last one to come is refused, at once and for whatever number of
 *     computations, processes, caches and waits, and is told the keys; the others go on;
 *   - nothing else is refused: not shared needs, not waits that are over, of the dead, or of the last generation. */
#include "check.h"

#include "flight.h"

static const uint64_t LONG_NS = UINT64_C(100000000000);

/* What csm_chain_* tell: these computations, in this order. */
static void check_chain(size_t n, const uint64_t *numbers) {
    CHECK_EQ(csm_chain_length(), n);
    for (size_t i = 0; i < n; i++) {
        unsigned char key[64];
        const char *want = check_key("k", numbers[i]);
        CHECK_EQ(csm_chain_key(i, key, sizeof key), strlen(want));
        CHECK(memcmp(key, want, strlen(want)) == 0);
    }
    CHECK_EQ(csm_chain_key(n, (unsigned char[64]){0}, 64), 0);
}

/* ---- cycles */

static void a_computation_may_not_wait_for_itself(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call owner, call;
    CHECK_EQ(check_claim(h, "k 0", &owner), CSM_OWNER);
    CHECK_EQ(check_claim_in(h, "k 0", &owner, &call), CSM_CYCLE);
    check_chain(1, (uint64_t[]){0});
    CHECK_EQ(call.waiter.serial, 0);
    CHECK_EQ(check_info(h).waiters, 0);
    CHECK_EQ(check_claim(h, "k 0", &call), CSM_JOINED); /* somebody else may */
}

/* Computation i asks for i + 1, and the last for the first; every other one is in another process. */
static void close_a_cycle_of(uint64_t n) {
    csm_settings settings = CHECK_SMALL;
    settings.flights = settings.nodes = 256;
    csm *handles[2];
    handles[0] = check_segment(&settings);
    handles[1] = check_another(handles[0]);
    static csm_call owners[256], waits[256];
    static uint64_t numbers[256];
    for (uint64_t i = 0; i < n; i++) {
        numbers[i] = i;
        CHECK_EQ(check_claim(handles[i % 2], check_key("k", i), &owners[i]), CSM_OWNER);
    }
    for (uint64_t i = 0; i + 1 < n; i++)
        CHECK_EQ(check_claim_in(handles[i % 2], check_key("k", i + 1), &owners[i], &waits[i]), CSM_JOINED);
    CHECK_EQ(check_claim_in(handles[(n - 1) % 2], check_key("k", 0), &owners[n - 1], &waits[n - 1]), CSM_CYCLE);
    if (n <= 32)
        check_chain(n, numbers); /* the asked-for one first */
    else
        CHECK(csm_chain_length() > 1);
    CHECK_EQ(check_info(handles[0]).waiters, n - 1);
    for (uint64_t i = n; i--;) { /* the refused one fails, or does without; then all the others can end */
        CHECK_EQ(check_publish(handles[i % 2], &owners[i], check_key("k", i), "v", 1), CSM_OK);
        if (i > 0) CHECK_EQ(csm_wait(handles[(i - 1) % 2], &waits[i - 1], LONG_NS), CSM_AGAIN);
    }
    CHECK_EQ(check_info(handles[0]).waiters, 0);
    check_sound(handles[0]);
}

static void a_cycle_of_two(void) { close_a_cycle_of(2); }
static void a_cycle_of_three(void) { close_a_cycle_of(3); }
static void a_cycle_of_eight(void) { close_a_cycle_of(8); }
static void a_cycle_of_two_hundred(void) { close_a_cycle_of(200); }

static void of_a_long_chain_the_asked_for_key_is_told(void) {
    close_a_cycle_of(40);
    unsigned char key[64];
    CHECK_EQ(csm_chain_key(0, key, sizeof key), 3);
    CHECK(memcmp(key, "k 0", 3) == 0);
}

/* A waits, on its own stack, for B that it computes. C waits for A. Now B must not wait for C. */
static void a_computation_waits_for_those_it_computes_itself(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_another(p);
    csm_call a, b, c, wait;
    CHECK_EQ(check_claim(p, "a", &a), CSM_OWNER);
    CHECK_EQ(check_claim_in(p, "b", &a, &b), CSM_OWNER); /* nested in a */
    CHECK_EQ(check_claim(q, "c", &c), CSM_OWNER);
    CHECK_EQ(check_claim_in(q, "a", &c, &wait), CSM_JOINED);
    CHECK_EQ(check_claim_in(p, "c", &b, &wait), CSM_CYCLE);
}

static void claim_b_and_hang(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "b", &call), CSM_OWNER);
    check_say(me, 'c');
    check_hear(me, '-');
}

/* The same, when B became its own by a takeover. */
static void also_when_it_took_them_over(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_another(p);
    csm_call a, b, c, wait;
    struct check_child child = check_fork(claim_b_and_hang, p);
    check_hear(&child, 'c');
    CHECK_EQ(check_claim(p, "a", &a), CSM_OWNER);
    CHECK_EQ(check_claim_in(p, "b", &a, &b), CSM_JOINED);
    check_kill(&child);
    CHECK_EQ(csm_wait(p, &b, LONG_NS), CSM_OWNER);
    CHECK_EQ(check_claim(q, "c", &c), CSM_OWNER);
    CHECK_EQ(check_claim_in(q, "a", &c, &wait), CSM_JOINED);
    CHECK_EQ(check_claim_in(p, "c", &b, &wait), CSM_CYCLE);
}

/* Computation i, of cache i % CACHES, asks for i + 1, and the last for the first. */
static void a_cycle_over_caches(void) {
    enum { CACHES = 3, N = 6 };
    csm *caches[CACHES], *others[CACHES];
    for (int i = 0; i < CACHES; i++) others[i] = check_another(caches[i] = check_segment(&CHECK_SMALL));
    csm_call owners[N], waits[N];
    for (uint64_t i = 0; i < N; i++) CHECK_EQ(check_claim(caches[i % CACHES], check_key("k", i), &owners[i]), CSM_OWNER);
    for (uint64_t i = 0; i + 1 < N; i++)
        CHECK_EQ(check_claim_in(others[(i + 1) % CACHES], check_key("k", i + 1), &owners[i], &waits[i]), CSM_JOINED);
    CHECK_EQ(check_claim_in(others[0], "k 0", &owners[N - 1], &waits[N - 1]), CSM_CYCLE);
    check_chain(N, (uint64_t[]){0, 1, 2, 3, 4, 5});
    for (uint64_t i = 0; i < N; i++) CHECK_EQ(csm_chain_id(i), csm_id(caches[i % CACHES]));
    CHECK(csm_id(caches[0]) != csm_id(caches[1]) && csm_id(caches[0]) == csm_id(others[0]));
}

/* Nested on one stack: a of one cache computes b of another, which asks for c, which waits for a. */
static void a_computation_waits_for_its_parts_in_other_caches(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_segment(&CHECK_SMALL);
    csm_call a, b, c, wait;
    CHECK_EQ(check_claim(p, "a", &a), CSM_OWNER);
    CHECK_EQ(check_claim_in(q, "b", &a, &b), CSM_OWNER);
    CHECK_EQ(check_claim(p, "c", &c), CSM_OWNER);
    CHECK_EQ(check_claim_in(p, "a", &c, &wait), CSM_JOINED);
    CHECK_EQ(check_claim_in(p, "c", &b, &wait), CSM_CYCLE);
}

/* Flights and serials are numbered alike in each cache: the same number is not the same computation. */
static void the_same_number_in_another_cache_is_no_cycle(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_segment(&CHECK_SMALL);
    csm_call a, b, c, wait;
    CHECK_EQ(check_claim(p, "a", &a), CSM_OWNER);
    CHECK_EQ(check_claim(q, "b", &b), CSM_OWNER);
    CHECK_EQ(a.ticket.serial, b.ticket.serial);
    CHECK_EQ(a.ticket.flight, b.ticket.flight);
    CHECK_EQ(check_claim_in(q, "b", &a, &wait), CSM_JOINED);
    CHECK_EQ(check_claim(p, "c", &c), CSM_OWNER);
    CHECK_EQ(check_claim_in(p, "a", &c, &wait), CSM_JOINED);
    CHECK_EQ(check_claim_in(p, "c", &a, &wait), CSM_CYCLE);
    CHECK_EQ(check_claim_in(q, "b", &c, &wait), CSM_JOINED);
}

/* A process in the middle of the chain uses a cache that this one does not: the search says so, and goes on once it may. */
static csm *first_cache;
static int middle_object;

static void wait_through_another_cache(struct check_child *me, csm *c) {
    csm *b = check_join(check_open(middle_object, &CHECK_SMALL));
    csm_call ka, kb, wait;
    CHECK_EQ(check_claim(first_cache, "a", &ka), CSM_OWNER);
    CHECK_EQ(check_claim(b, "b", &kb), CSM_OWNER);
    CHECK_EQ(check_claim_in(b, "b", &ka, &wait), CSM_JOINED);
    CHECK_EQ(check_claim_in(c, "c", &kb, &wait), CSM_JOINED);
    check_say(me, 'w');
    check_hear(me, '-');
}

static void a_cache_that_is_not_attached_to_is_named(void) {
    csm *a = first_cache = check_segment(&CHECK_SMALL), *c = check_segment(&CHECK_SMALL);
    middle_object = check_object();
    csm_call kc, wait;
    CHECK_EQ(check_claim(c, "c", &kc), CSM_OWNER);
    struct check_child child = check_fork(wait_through_another_cache, c);
    check_hear(&child, 'w');
    CHECK_EQ(check_claim_in(a, "a", &kc, &wait), CSM_JOINED);
    uint64_t id = csm_cycle_unknown();
    CHECK(id != 0);
    CHECK_EQ(csm_cycle_check(a, &wait), CSM_JOINED);
    csm *b = check_open(middle_object, NULL);
    CHECK_EQ(csm_id(b), id);
    CHECK_EQ(csm_cycle_check(a, &wait), CSM_CYCLE);
    CHECK_EQ(csm_cycle_unknown(), 0);
    CHECK_EQ(wait.waiter.serial, 0);
    CHECK_EQ(csm_chain_length(), 3);
    CHECK_EQ(csm_chain_id(1), id);
    check_kill(&child);
}

/* ---- no false alarm */

static void shared_needs_are_no_cycle(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_another(p);
    csm_call calls[5], wait;
    csm *by[5] = {p, q, p, q, p};
    for (uint64_t i = 0; i < 5; i++) CHECK_EQ(check_claim(by[i], check_key("k", i), &calls[i]), CSM_OWNER);
    static const uint64_t EDGES[][2] = {{0, 1}, {0, 2}, {1, 3}, {2, 3}, {3, 4}, {0, 3}, {0, 4}, {2, 4}};
    for (size_t i = 0; i < sizeof EDGES / sizeof *EDGES; i++) {
        csm_call *parent = &calls[EDGES[i][0]];
        CHECK_EQ(check_claim_in(by[EDGES[i][0]], check_key("k", EDGES[i][1]), parent, &wait), CSM_JOINED);
    }
    CHECK_EQ(check_claim_in(p, "k 0", &calls[4], &wait), CSM_CYCLE);
    check_chain(2, (uint64_t[]){0, 4}); /* the shortest */
}

/* Random waits among sixteen computations of two caches, some given up again: refused is exactly what closes a cycle. */
static void random_waits_beside_a_model(void) {
    enum { N = 16, CACHES = 2, PROCESSES = 3 };
    csm_settings settings = CHECK_SMALL;
    settings.nodes = 512;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        csm *handles[CACHES][PROCESSES];
        for (int c = 0; c < CACHES; c++) {
            handles[c][0] = check_segment(&settings);
            for (int p = 1; p < PROCESSES; p++) handles[c][p] = check_another(handles[c][0]);
        }
        static csm_call owners[N], waits[N][N];
        bool edge[N][N] = {{false}};
        uint64_t random = seed;
        int refused = 0;
        for (uint64_t i = 0; i < N; i++)
            CHECK_EQ(check_claim(handles[i % CACHES][i % PROCESSES], check_key("k", i), &owners[i]), CSM_OWNER);
        for (int step = 0; step < 300; step++) {
            uint64_t from = check_random(&random) % N, to = check_random(&random) % N;
            if (edge[from][to]) {
                csm_wait_leave(handles[to % CACHES][from % PROCESSES], &waits[from][to]);
                edge[from][to] = false;
                continue;
            }
            bool reached[N] = {false}; /* from `to` */
            reached[to] = true;
            for (int round = 0; round < N; round++)
                for (int i = 0; i < N; i++)
                    for (int j = 0; j < N; j++) reached[j] |= reached[i] && edge[i][j];
            csm *asked = handles[to % CACHES][from % PROCESSES];
            int code = check_claim_in(asked, check_key("k", to), &owners[from], &waits[from][to]);
            CHECK_EQ(code, reached[from] ? CSM_CYCLE : CSM_JOINED);
            edge[from][to] = code == CSM_JOINED;
            refused += code == CSM_CYCLE;
        }
        CHECK(refused > 0);
        for (int c = 0; c < CACHES; c++)
            for (int p = 0; p < PROCESSES; p++) csm_leave(handles[c][p]);
    }
}

static void a_wait_without_a_computation_around_it_is_no_edge(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_another(p);
    csm_call a, b, wait;
    CHECK_EQ(check_claim(p, "a", &a), CSM_OWNER);
    CHECK_EQ(check_claim(q, "b", &b), CSM_OWNER);
    CHECK_EQ(check_claim(p, "b", &wait), CSM_JOINED); /* another thread of p, not a's */
    CHECK_EQ(check_claim_in(q, "a", &b, &wait), CSM_JOINED);
}

static void own_k0_wait_for_k1_and_hang(struct check_child *me, csm *h) {
    csm_call owner, wait;
    CHECK_EQ(check_claim(h, "k 0", &owner), CSM_OWNER);
    CHECK_EQ(check_claim_in(h, "k 1", &owner, &wait), CSM_JOINED);
    check_say(me, 'j');
    check_hear(me, '-');
}

static void waits_of_the_dead_are_no_edges(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_another(p);
    csm_call k0, k1, wait;
    CHECK_EQ(check_claim(p, "k 1", &k1), CSM_OWNER);
    struct check_child child = check_fork(own_k0_wait_for_k1_and_hang, p);
    check_hear(&child, 'j');
    CHECK_EQ(check_claim_in(p, "k 0", &k1, &wait), CSM_CYCLE);
    check_kill(&child);
    CHECK_EQ(check_claim(q, "k 0", &k0), CSM_OWNER); /* takes the dead one's place, and waits for nobody */
    CHECK_EQ(check_claim_in(p, "k 0", &k1, &wait), CSM_JOINED);
    CHECK_EQ(check_claim_in(q, "k 1", &k0, &wait), CSM_CYCLE);
}

/* One in the middle of a chain died, and nobody has taken its place yet. */
static void a_chain_through_the_dead_is_broken(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_another(p);
    csm_call k1, k2, wait;
    CHECK_EQ(check_claim(p, "k 1", &k1), CSM_OWNER);
    struct check_child child = check_fork(own_k0_wait_for_k1_and_hang, p);
    check_hear(&child, 'j');
    CHECK_EQ(check_claim(q, "k 2", &k2), CSM_OWNER);
    CHECK_EQ(check_claim_in(q, "k 0", &k2, &wait), CSM_JOINED); /* 2 -> 0 -> 1 */
    CHECK_EQ(check_claim_in(p, "k 2", &k1, &k2), CSM_CYCLE);
    check_kill(&child);
    CHECK_EQ(check_claim_in(p, "k 2", &k1, &k2), CSM_JOINED);
}

static void waits_of_the_last_generation_are_no_edges(void) {
    csm *p = check_segment(&CHECK_SMALL), *q = check_another(p);
    csm_call old[2], new[2], waits[2], wait;
    CHECK_EQ(check_claim(p, "k 0", &old[0]), CSM_OWNER);
    CHECK_EQ(check_claim(q, "k 1", &old[1]), CSM_OWNER);
    CHECK_EQ(check_claim_in(p, "k 1", &old[0], &waits[0]), CSM_JOINED);
    check_reset(p);
    CHECK_EQ(check_claim(p, "k 0", &new[0]), CSM_OWNER);
    CHECK_EQ(check_claim(q, "k 1", &new[1]), CSM_OWNER);
    CHECK_EQ(check_claim_in(q, "k 0", &new[1], &wait), CSM_JOINED);
    /* A computation of the last generation waits for one of this: its own result is void, nobody waits for it. */
    CHECK_EQ(check_claim_in(p, "k 1", &old[0], &waits[1]), CSM_JOINED);
    CHECK_EQ(check_claim_in(p, "k 1", &new[0], &wait), CSM_CYCLE);
}

CHECK_MAIN(CHECK_TEST(a_computation_may_not_wait_for_itself), CHECK_TEST(a_cycle_of_two), CHECK_TEST(a_cycle_of_three),
           CHECK_TEST(a_cycle_of_eight), CHECK_TEST(a_cycle_of_two_hundred),
           CHECK_TEST(of_a_long_chain_the_asked_for_key_is_told),
           CHECK_TEST(a_computation_waits_for_those_it_computes_itself), CHECK_TEST(also_when_it_took_them_over),
           CHECK_TEST(a_cycle_over_caches), CHECK_TEST(a_computation_waits_for_its_parts_in_other_caches),
           CHECK_TEST(the_same_number_in_another_cache_is_no_cycle), CHECK_TEST(a_cache_that_is_not_attached_to_is_named),
           CHECK_TEST(shared_needs_are_no_cycle), CHECK_TEST(random_waits_beside_a_model),
           CHECK_TEST(a_wait_without_a_computation_around_it_is_no_edge), CHECK_TEST(waits_of_the_dead_are_no_edges),
           CHECK_TEST(a_chain_through_the_dead_is_broken),
           CHECK_TEST(waits_of_the_last_generation_are_no_edges))
