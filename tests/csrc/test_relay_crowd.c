/* test_relay_crowd.c: a sidecar among threads and processes, all busy at once. It answers in every way, at random: lets them compute, has
 * them wait and then delivers a value or an outcome, or lets them compute after all. While nobody is killed a key is computed once per
 * generation, here or (as far as the segment can tell) elsewhere; and whoever asks is served. */
#include "relay.h"

enum { THREADS = 6, PROCESSES = 3, KEYS = 40, ROUNDS = 30 };

static struct shared {
    uint64_t computed[ROUNDS + 2][KEYS]; /* by whomever, in that generation */
    uint64_t ends;                       /* the sidecar is to end */
} *shared;

static void compute(csm *h, csm_call *call, const char *key, uint64_t k) {
    uint64_t generation = call->ticket.generation;
    csm_add(&shared->computed[generation][k], 1);
    int code = check_publish(h, call, key, &generation, sizeof generation);
    CHECK(code == CSM_OK || code == CSM_STALE);
}

/* As users do it. Returns the generation that the value is of. */
static uint64_t obtain(csm *h, uint64_t k) {
    const char *key = check_key("k", k);
    for (;;) {
        csm_view *view;
        csm_call call;
        if (csm_view_acquire(h, key, strlen(key), &view) == CSM_OK) {
            uint64_t generation;
            memcpy(&generation, view->data, sizeof generation);
            CHECK_EQ(generation, view->generation);
            csm_view_release(view);
            return generation;
        }
        int code = check_claim(h, key, &call);
        if (code == CSM_JOINED) code = csm_wait(h, &call, UINT64_C(60000000000));
        if (code == CSM_OWNER) compute(h, &call, key, k);
        if (code == CSM_OUTCOME) {
            uint64_t generation, now = call.waiter.generation;
            CHECK_EQ(call.waiter.outcome_bytes, sizeof generation);
            if (csm_outcome_read(h, &call, &generation) != CSM_OK) continue;
            CHECK_EQ(generation, now);
            return generation;
        }
        CHECK(code == CSM_OWNER || code == CSM_AGAIN || code == CSM_READY);
    }
}

static void *ask_for_all(void *arg) {
    csm *h = arg;
    uint64_t random = (uint64_t)(uintptr_t)&random ^ (uint64_t)getpid();
    for (int round = 0; round < ROUNDS; round++) {
        for (int n = 0; n < KEYS; n++) {
            uint64_t before = csm_generation(h), of = obtain(h, check_random(&random) % KEYS);
            CHECK(of >= before);
        }
    }
    return NULL;
}

static void be_a_process(struct check_child *me, csm *h) {
    (void)me;
    pthread_t threads[2];
    check_join(h);
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, ask_for_all, h) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

/* ---- the sidecar */

static void deliver(csm *s, const csm_lease *l, bool as_outcome) {
    char key[40] = {0};
    memcpy(key, l->key, l->key_bytes);
    csm_call call = {.stalled_ns = 0};
    int code = as_outcome ? csm_relay_take_asked(s, l->flight, l->serial, &call)
                          : csm_relay_take(s, l->generation, key, l->key_bytes, &call);
    if (code == CSM_STALE || code == CSM_READY || code == CSM_JOINED) return;
    CHECK_EQ(code, CSM_OWNER);
    csm_add(&shared->computed[l->generation][strtoul(key + 2, NULL, 10)], !as_outcome);
    code = check_publish_as(s, &call, key, as_outcome ? CSM_UNCACHED : CSM_VALUE, &l->generation, sizeof l->generation);
    CHECK(code == CSM_OK || code == CSM_NOT_STORED || code == CSM_STALE);
}

static void answer(csm *s, const csm_lease *l, uint64_t how) {
    if (how % 2) csm_relay_hold(s, l->flight, l->serial);
    if (how / 2 % 3 == 0) deliver(s, l, false);
    if (how / 2 % 3 == 1) deliver(s, l, true);
    csm_relay_grant(s, l->flight, l->serial);
    if (how % 5 == 0) csm_relay_want(s, l->flight, l->serial);
}

static void *be_the_sidecar(void *arg) {
    csm *s = arg;
    uint64_t random = 7;
    csm_lease leases[16];
    while (!csm_load_acquire(&shared->ends)) {
        csm_relay_wait(s, RELAY_LONG_NS);
        int n;
        do {
            n = csm_relay_look(s, leases, 16);
            CHECK(n >= 0);
            for (int i = 0; i < n; i++) {
                if (leases[i].event == CSM_LEASE_ASK) answer(s, &leases[i], check_random(&random));
                CHECK(leases[i].event != CSM_LEASE_OUTCOME); /* workers only ever compute values */
            }
        } while (n == 16);
    }
    return NULL;
}

static void *deliver_unasked(void *arg) {
    csm *s = arg;
    uint64_t random = 11;
    while (!csm_load_acquire(&shared->ends)) {
        csm_lease l = {.generation = csm_generation(s)};
        l.key_bytes = (uint32_t)snprintf((char *)l.key, sizeof l.key, "k %d", (int)(check_random(&random) % KEYS));
        deliver(s, &l, false);
        uint64_t at = 0, n = 0;
        csm_relay_entry_view e;
        int code;
        for (; (code = csm_relay_entry(s, l.generation, 0, &at, &e)) == CSM_OK; at++, n++) {
            uint64_t generation;
            memcpy(&generation, e.view->data, sizeof generation);
            CHECK_EQ(generation, l.generation);
            csm_view_release(e.view);
        }
        CHECK(code == CSM_STALE || code == CSM_MISS);
        CHECK(n <= KEYS);
        csm_nap_ns(200000);
    }
    return NULL;
}

static void all_are_served_and_nothing_is_computed_twice(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    csm_settings settings = CHECK_SMALL;
    settings.memory_limit = 1 << 20;
    settings.flights = settings.nodes = 256;
    settings.rows = 16;
    csm *h = check_segment(&settings);
    struct check_child processes[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) processes[i] = check_fork(be_a_process, h);
    csm *s = relay_sidecar(h, RELAY_LONG_NS);
    pthread_t threads[THREADS], sidecar, deliverer;
    CHECK(pthread_create(&sidecar, NULL, be_the_sidecar, s) == 0);
    CHECK(pthread_create(&deliverer, NULL, deliver_unasked, s) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, ask_for_all, h) == 0);
    for (uint64_t n = 0; n < ROUNDS; n++) {
        for (uint64_t k = 0; k < KEYS; k++) CHECK(obtain(h, (k * 7 + n) % KEYS) >= n + 1);
        check_reset(h);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < PROCESSES; i++) check_end(&processes[i]);
    csm_store_release(&shared->ends, 1);
    CHECK(pthread_join(sidecar, NULL) == 0 && pthread_join(deliverer, NULL) == 0);
    for (uint64_t generation = 1; generation <= ROUNDS + 1; generation++)
        for (uint64_t k = 0; k < KEYS; k++) CHECK(csm_load(&shared->computed[generation][k]) <= 1);
    CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), 0);
    csm_relay_close(s);
    CHECK_EQ(check_info(h).flights, 0);
    CHECK_EQ(check_info(h).waiters, 0);
    check_sound(h);
}

CHECK_MAIN(CHECK_TEST(all_are_served_and_nothing_is_computed_twice))
