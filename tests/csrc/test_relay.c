/* test_relay.c holds lease.c and relay.c to: with a sidecar a worker that misses asks, and computes when it is granted that, or gets what
 * another host has computed, value or not; and the sidecar is told of each thing once. What if it does not answer is in test_relay_faults.c,
 * what if processes die or stop in the middle, in tests/crash. */
#include "relay.h"

#include "digest.h"

/* ---- asking and being answered */

static void without_a_sidecar_nobody_asks(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call;
    uint64_t pid;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    CHECK_EQ(csm_has_sidecar(h, &pid), 0);
    CHECK_EQ(csm_load(&h->flights[call.ticket.flight].lease), csm_lease_word(call.ticket.serial, false, CSM_LEASE_NONE));
}

static void who_is_granted_computes(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call;
    uint64_t pid;
    CHECK_EQ(csm_has_sidecar(h, &pid), 1);
    CHECK_EQ(pid, getpid());
    csm_lease lease = relay_ask(h, s, "k", &call);
    CHECK_EQ(lease.nested, 0);
    CHECK_EQ(lease.generation, 1);
    relay_quiet(s); /* once */
    CHECK_EQ(csm_wait(h, &call, 0), CSM_TIMEOUT);
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(call.waiter.serial, 0);
    CHECK_EQ(csm_relay_grant(s, lease.flight, lease.serial), CSM_STALE);
    CHECK_EQ(csm_relay_hold(s, lease.flight, lease.serial), CSM_STALE);
    relay_let_time_pass();
    relay_quiet(s);
    CHECK_EQ(check_publish(h, &call, "k", "v", 1), CSM_OK);
    CHECK_EQ(relay_expect(s, CSM_LEASE_STORED).serial, lease.serial);
    relay_quiet(s);
    CHECK_EQ(check_stat(h, CSM_STAT_COMPUTATIONS), 1);
    CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), 0);
    CHECK_EQ(check_stat(h, CSM_STAT_WAITS), 0);
    check_sound(h);
}

static void all_who_wait_share_one_question(void) {
    csm *h = check_segment(&CHECK_SMALL), *g = check_another(h), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call one, two;
    csm_lease lease = relay_ask(h, s, "k", &one);
    CHECK_EQ(check_claim(g, "k", &two), CSM_JOINED);
    relay_quiet(s);
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(g, &two, RELAY_LONG_NS), CSM_OWNER); /* whoever comes first */
    CHECK_EQ(csm_wait(h, &one, 0), CSM_TIMEOUT);
    CHECK_EQ(check_publish(g, &two, "k", "v", 1), CSM_OK);
    CHECK_EQ(csm_wait(h, &one, RELAY_LONG_NS), CSM_AGAIN);
    relay_expect(s, CSM_LEASE_STORED);
    check_sound(h);
}

static void also_who_comes_right_after_the_grant(void) {
    csm *h = check_segment(&CHECK_SMALL), *g = check_another(h), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call one, two;
    csm_lease lease = relay_ask(h, s, "k", &one);
    relay_grant(s, &lease);
    CHECK_EQ(check_claim(g, "k", &two), CSM_OWNER);
    CHECK_EQ(csm_wait(h, &one, 0), CSM_TIMEOUT);
    CHECK_EQ(check_publish(g, &two, "k", "v", 1), CSM_OK);
    CHECK_EQ(csm_wait(h, &one, 0), CSM_AGAIN);
    relay_expect(s, CSM_LEASE_STORED);
}

static void what_another_host_computed_is_stored(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call;
    csm_lease lease = relay_ask(h, s, "k", &call);
    relay_hold(s, &lease);
    relay_hold(s, &lease); /* repeated */
    CHECK_EQ(csm_wait(h, &call, 0), CSM_TIMEOUT);
    CHECK_EQ(relay_deliver(s, 1, "k", "value", 5), CSM_OK);
    CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_AGAIN);
    CHECK(csm_find(h, "k", 1) > 0);
    CHECK_EQ(relay_deliver(s, 1, "k", "value", 5), CSM_READY);
    CHECK_EQ(relay_deliver(s, 1, "unasked", "value", 5), CSM_OK);
    CHECK_EQ(relay_deliver(s, 2, "other", "value", 5), CSM_STALE);
    relay_quiet(s); /* nothing that it does not know */
    CHECK_EQ(check_stat(h, CSM_STAT_COMPUTATIONS), 0);
    check_sound(h);
}

static void outcomes_reach_those_who_wait(void) {
    csm *h = check_segment(&CHECK_SMALL), *g = check_another(h), *s = relay_sidecar(h, RELAY_LONG_NS);
    static const int kinds[] = {CSM_FAILURE, CSM_UNCACHED, CSM_UNSHAREABLE};
    for (size_t i = 0; i < 3; i++) {
        csm_call one, two;
        csm_lease lease = relay_ask(h, s, "k", &one);
        CHECK_EQ(check_claim(g, "k", &two), CSM_JOINED);
        if (i) relay_hold(s, &lease); /* or it was not known yet that somebody computes */
        CHECK_EQ(relay_deliver_outcome(s, &lease, kinds[i], "outcome", 7), CSM_NOT_STORED);
        CHECK_EQ(relay_deliver_outcome(s, &lease, kinds[i], "outcome", 7), CSM_STALE);
        csm *handles[] = {h, g};
        csm_call *calls[] = {&one, &two};
        for (int n = 0; n < 2; n++) {
            char data[7];
            CHECK_EQ(csm_wait(handles[n], calls[n], RELAY_LONG_NS), CSM_OUTCOME);
            CHECK_EQ(calls[n]->waiter.outcome_kind, kinds[i]);
            CHECK_EQ(calls[n]->waiter.outcome_bytes, 7);
            CHECK_EQ(csm_outcome_read(handles[n], calls[n], data), CSM_OK);
            CHECK(memcmp(data, "outcome", 7) == 0);
        }
        relay_quiet(s);
    }
    CHECK_EQ(check_stat(h, CSM_STAT_FAILURES), 0); /* here, nothing has failed */
    CHECK_EQ(check_stat(h, CSM_STAT_UNCACHED), 0);
    check_sound(h);
}

static void a_value_without_room_reaches_those_who_wait(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    static char large[1 << 20];
    csm_call call;
    csm_lease lease = relay_ask(h, s, "k", &call);
    relay_hold(s, &lease);
    CHECK_EQ(relay_deliver(s, 1, "k", large, sizeof large), CSM_TOO_LARGE);
    CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_OUTCOME);
    CHECK_EQ(call.waiter.outcome_kind, CSM_VALUE);
    CHECK_EQ(call.waiter.outcome_bytes, sizeof large);
    CHECK_EQ(csm_outcome_read(h, &call, large), CSM_OK);
    CHECK_EQ(relay_deliver(s, 1, "unasked", large, sizeof large), CSM_TOO_LARGE);
    check_sound(h);
}

static void a_nested_computation_is_told_of(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call outer, plain, nested, another;
    csm_lease lease = relay_ask(h, s, "outer", &outer);
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(h, &outer, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(check_claim_in(h, "first", &outer, &nested), CSM_JOINED);
    CHECK_EQ(relay_expect(s, CSM_LEASE_ASK).nested, 1);
    lease = relay_ask(h, s, "k", &plain);
    CHECK_EQ(lease.nested, 0);
    relay_hold(s, &lease);
    CHECK_EQ(check_claim_in(h, "k", &outer, &nested), CSM_JOINED);
    csm_lease again = relay_expect(s, CSM_LEASE_ASK);
    CHECK(again.nested == 1 && again.serial == lease.serial && again.key_bytes == 1 && again.key[0] == 'k');
    CHECK_EQ(check_claim_in(h, "k", &outer, &another), CSM_JOINED);
    relay_quiet(s);
    CHECK_EQ(check_claim_in(h, "outer", &outer, &another), CSM_CYCLE); /* as ever */
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(h, &nested, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(check_claim_in(h, "outer", &nested, &another), CSM_CYCLE); /* its owner's edge is there */
}

static void a_long_key_has_a_digest(void) {
    csm_settings settings = CHECK_SMALL;
    settings.memory_limit = 1 << 20;
    csm *h = check_segment(&settings), *s = relay_sidecar(h, RELAY_LONG_NS);
    static char key[CSM_MAX_KEY + 1];
    memset(key, 'x', sizeof key - 1);
    static const size_t sizes[] = {95, 96, 97, 1000, CSM_MAX_KEY};
    for (size_t i = 0; i < 5; i++) {
        csm_call call = {.stalled_ns = 0};
        uint64_t digest[CSM_DIGEST_WORDS];
        CHECK_EQ(csm_claim(h, key, sizes[i], NULL, &call), CSM_JOINED);
        csm_lease lease = relay_expect(s, CSM_LEASE_ASK);
        CHECK_EQ(lease.key_bytes, sizes[i]);
        CHECK(memcmp(lease.key, key, csm_min(sizes[i], 96)) == 0);
        csm_digest(key, sizes[i], digest);
        if (sizes[i] > CSM_KEY_PREVIEW) CHECK(memcmp(lease.digest, digest, sizeof digest) == 0);
        relay_grant(s, &lease);
        CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_OWNER);
        csm_piece piece = {"v", 1};
        CHECK_EQ(csm_publish(h, &call, key, sizes[i], CSM_VALUE, 0, &piece, 1), CSM_OK);
        relay_expect(s, CSM_LEASE_STORED);
    }
}

/* ---- what a granted computation came to */

static void an_outcome_that_was_wanted_is_told(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call;
    csm_lease lease = relay_granted(h, s, "k", &call);
    csm_relay_want(s, lease.flight, lease.serial);
    csm_relay_want(s, lease.flight, lease.serial);
    relay_quiet(s);
    CHECK_EQ(check_publish_as(h, &call, "k", CSM_FAILURE, "failure", 7), CSM_NOT_STORED);
    char data[7];
    lease = relay_expect(s, CSM_LEASE_OUTCOME);
    CHECK_EQ(lease.call.waiter.outcome_kind, CSM_FAILURE);
    CHECK_EQ(lease.call.waiter.outcome_bytes, 7);
    CHECK_EQ(csm_outcome_read(s, &lease.call, data), CSM_OK);
    CHECK(memcmp(data, "failure", 7) == 0);
    CHECK_EQ(csm_load(&h->outcomes[lease.flight].word) & 0xffff, 0); /* all have read it */
    CHECK_EQ(check_info(h).waiters, 0);

    lease = relay_granted(h, s, "k", &call); /* not wanted: nothing is written for nobody */
    CHECK_EQ(check_publish_as(h, &call, "k", CSM_FAILURE, "failure", 7), CSM_NOT_STORED);
    relay_expect(s, CSM_LEASE_END);

    lease = relay_granted(h, s, "k", &call);
    csm_relay_want(s, lease.flight, lease.serial);
    relay_quiet(s);
    CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    relay_expect(s, CSM_LEASE_END);

    lease = relay_granted(h, s, "k", &call);
    csm_relay_want(s, lease.flight, lease.serial);
    relay_quiet(s);
    CHECK_EQ(check_publish(h, &call, "k", "v", 1), CSM_OK);
    relay_expect(s, CSM_LEASE_STORED);
    relay_quiet(s);
    CHECK_EQ(check_info(h).waiters, 0);
    check_sound(h);
}

static void when_who_computes_dies_the_next_one_does_under_the_same_lease(void) {
    csm *h = check_segment(&CHECK_SMALL), *g = check_another(h), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call one, two;
    relay_granted(h, s, "k", &one);
    CHECK_EQ(check_claim(g, "k", &two), CSM_JOINED);
    relay_let_time_pass();
    relay_quiet(s);
    csm_leave(h);
    CHECK_EQ(csm_wait(g, &two, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(check_stat(g, CSM_STAT_TAKEOVERS), 1);
    relay_let_time_pass();
    relay_quiet(s);
    CHECK_EQ(check_publish(g, &two, "k", "v", 1), CSM_OK);
    relay_expect(s, CSM_LEASE_STORED);
    check_sound(g);
}

static void when_who_computes_dies_and_nobody_waits_it_is_over(void) {
    csm *h = check_segment(&CHECK_SMALL), *g = check_another(h), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call;
    csm_lease lease = relay_granted(h, s, "k", &call);
    csm_relay_want(s, lease.flight, lease.serial); /* the sidecar itself waits for an outcome, but computes nothing */
    relay_let_time_pass();
    relay_quiet(s);
    csm_leave(h);
    relay_let_time_pass();
    relay_expect(s, CSM_LEASE_END);
    CHECK_EQ(check_info(g).flights, 0);
    CHECK_EQ(check_info(g).waiters, 0);
    relay_ask(g, s, "k", &call);
    check_sound(g);
}

static void when_nobody_waits_for_an_answer_it_is_withdrawn(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    for (int state = 0; state < 3; state++) {
        csm_call call;
        csm_lease lease = relay_ask(h, s, "k", &call);
        if (state == 1) relay_hold(s, &lease);
        if (state == 2) relay_grant(s, &lease);
        csm_wait_leave(h, &call);
        relay_let_time_pass();
        CHECK_EQ(relay_event(s).event, state == 2 ? CSM_LEASE_END : CSM_LEASE_WITHDRAW);
        relay_quiet(s);
        CHECK_EQ(check_info(h).flights, 0);
        CHECK_EQ(csm_relay_grant(s, lease.flight, lease.serial), CSM_STALE);
    }
    check_sound(h);
}

static void a_reset_ends_all(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call calls[4];
    csm_lease leases[4], now[8];
    for (uint32_t i = 0; i < 4; i++) leases[i] = relay_ask(h, s, check_key("k", i), &calls[i]);
    relay_hold(s, &leases[1]);
    relay_grant(s, &leases[2]);
    relay_grant(s, &leases[3]);
    CHECK_EQ(csm_wait(h, &calls[3], RELAY_LONG_NS), CSM_OWNER);
    csm_relay_want(s, leases[3].flight, leases[3].serial);
    relay_quiet(s);
    check_reset(h);
    for (int i = 0; i < 3; i++) CHECK_EQ(csm_wait(h, &calls[i], RELAY_LONG_NS), CSM_AGAIN);
    CHECK_EQ(check_publish(h, &calls[3], "k 3", "v", 1), CSM_STALE);
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(check_claim(h, check_key("k", i), &calls[i]), CSM_JOINED);
    CHECK_EQ(csm_relay_look(s, now, 8), 8);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQ(now[2 * i].event, i < 2 ? CSM_LEASE_WITHDRAW : CSM_LEASE_END);
        CHECK(now[2 * i].generation == 1 && now[2 * i].serial == leases[i].serial);
        CHECK_EQ(now[2 * i + 1].event, CSM_LEASE_ASK);
        CHECK_EQ(now[2 * i + 1].generation, 2);
        CHECK_EQ(csm_relay_grant(s, leases[i].flight, leases[i].serial), CSM_STALE);
        CHECK_EQ(csm_relay_take_asked(s, leases[i].flight, leases[i].serial, &(csm_call){.stalled_ns = 0}), CSM_STALE);
    }
    CHECK_EQ(relay_deliver(s, 1, "k 0", "old", 3), CSM_STALE);
    CHECK_EQ(relay_deliver(s, 2, "k 0", "new", 3), CSM_OK);
    CHECK_EQ(csm_wait(h, &calls[0], RELAY_LONG_NS), CSM_AGAIN);
    check_sound(h);
}

/* ---- limits */

static void without_a_place_to_wait_one_computes_at_once(void) {
    csm_settings settings = CHECK_SMALL;
    settings.nodes = 1;
    csm *h = check_segment(&settings), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call one, two, three;
    relay_ask(h, s, "k", &one);
    CHECK_EQ(check_claim(h, "l", &two), CSM_OWNER);
    CHECK_EQ(check_claim(h, "k", &three), CSM_NO_NODE);
    relay_quiet(s);
    CHECK_EQ(check_publish(h, &two, "l", "v", 1), CSM_OK);
    relay_quiet(s);
    check_sound(h);
}

static void any_number_of_events_is_told_piece_by_piece(void) {
    enum { N = 200 };
    csm_settings settings = CHECK_SMALL;
    settings.flights = settings.nodes = N;
    csm *h = check_segment(&settings), *s = relay_sidecar(h, RELAY_LONG_NS);
    static csm_call calls[N];
    csm_lease some[7];
    for (uint32_t i = 0; i < N; i++) CHECK_EQ(check_claim(h, check_key("k", i), &calls[i]), CSM_JOINED);
    uint32_t asked = 0, ended = 0;
    for (int n; (n = csm_relay_look(s, some, 7)) > 0;)
        for (int i = 0; i < n; i++, asked++) {
            CHECK_EQ(some[i].event, CSM_LEASE_ASK);
            relay_grant(s, &some[i]);
        }
    CHECK_EQ(asked, N);
    for (uint32_t i = 0; i < N; i++) {
        CHECK_EQ(csm_wait(h, &calls[i], RELAY_LONG_NS), CSM_OWNER);
        CHECK_EQ(check_publish(h, &calls[i], check_key("k", i), "v", 1), CSM_OK);
    }
    for (int n; (n = csm_relay_look(s, some, 7)) > 0; ended += (uint32_t)n)
        for (int i = 0; i < n; i++) CHECK_EQ(some[i].event, CSM_LEASE_STORED);
    CHECK_EQ(ended, N);
    check_sound(h);
}

static void arguments_are_checked(void) {
    csm *h = check_segment(&CHECK_SMALL);
    int flipped;
    csm *s = check_open(csm_descriptor(h), &CHECK_SMALL);
    CHECK_EQ(csm_relay_open(h, "node", 4, RELAY_LONG_NS), CSM_INVALID); /* an app */
    CHECK_EQ(csm_join(s, CSM_SIDECAR, 0, NULL, 0, &flipped), CSM_OK);
    char name[CSM_NODE_NAME];
    memset(name, 'n', sizeof name);
    CHECK_EQ(csm_relay_open(s, name, sizeof name, RELAY_LONG_NS), CSM_INVALID);
    CHECK_EQ(csm_relay_open(s, name, 0, RELAY_LONG_NS), CSM_INVALID);
    CHECK_EQ(csm_relay_open(s, "a\0b", 3, RELAY_LONG_NS), CSM_INVALID);
    CHECK_EQ(csm_relay_open(s, name, 4, RELAY_LONG_NS + 1), CSM_INVALID);
    CHECK_EQ(csm_relay_open(s, name, sizeof name - 1, RELAY_LONG_NS), CSM_OK);
    CHECK_EQ(csm_relay_open(s, "again", 5, RELAY_LONG_NS), CSM_OK);
    CHECK_EQ(csm_relay_hold(s, CHECK_SMALL.flights, 1), CSM_INVALID);
    CHECK_EQ(csm_relay_grant(s, UINT32_MAX, 1), CSM_INVALID);
    CHECK_EQ(csm_relay_grant(s, 0, 0), CSM_STALE);
    CHECK_EQ(csm_relay_take_asked(s, UINT32_MAX, 1, &(csm_call){.stalled_ns = 0}), CSM_INVALID);
    csm_relay_want(s, UINT32_MAX, 1);
}

CHECK_MAIN(CHECK_TEST(without_a_sidecar_nobody_asks), CHECK_TEST(who_is_granted_computes), CHECK_TEST(all_who_wait_share_one_question),
           CHECK_TEST(also_who_comes_right_after_the_grant), CHECK_TEST(what_another_host_computed_is_stored),
           CHECK_TEST(outcomes_reach_those_who_wait), CHECK_TEST(a_value_without_room_reaches_those_who_wait),
           CHECK_TEST(a_nested_computation_is_told_of), CHECK_TEST(a_long_key_has_a_digest),
           CHECK_TEST(an_outcome_that_was_wanted_is_told),
           CHECK_TEST(when_who_computes_dies_the_next_one_does_under_the_same_lease),
           CHECK_TEST(when_who_computes_dies_and_nobody_waits_it_is_over),
           CHECK_TEST(when_nobody_waits_for_an_answer_it_is_withdrawn), CHECK_TEST(a_reset_ends_all),
           CHECK_TEST(without_a_place_to_wait_one_computes_at_once), CHECK_TEST(any_number_of_events_is_told_piece_by_piece),
           CHECK_TEST(arguments_are_checked))
