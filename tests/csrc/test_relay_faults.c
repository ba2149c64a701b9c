/* test_relay_faults.c: no worker waits longer than lease_timeout for a sidecar that does not answer, does not run, has died or has closed;
 * a sidecar that cannot have the lock waits for it where it may, and its look never does; and who follows a dead one begins anew. */
#include "relay.h"

#include "arena.h"
#include "lock.h"
#include "segment.h"

/* ---- a sidecar that does not answer */

static void nobody_waits_longer_than_lease_timeout_for_an_answer(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call, unseen;
    CHECK_EQ(check_claim(h, "unseen", &unseen), CSM_JOINED);
    relay_is_late(h, unseen.waiter.flight);
    CHECK_EQ(csm_wait(h, &unseen, RELAY_LONG_NS), CSM_OWNER);
    csm_lease lease = relay_ask(h, s, "k", &call);
    CHECK_EQ(csm_wait(h, &call, 0), CSM_TIMEOUT);
    relay_is_late(h, lease.flight);
    relay_quiet(s); /* it runs, and says nothing */
    CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(csm_relay_grant(s, lease.flight, lease.serial), CSM_STALE); /* too late */
    relay_expect(s, CSM_LEASE_WITHDRAW);
    relay_quiet(s);
    CHECK_EQ(relay_deliver(s, 1, "k", "v", 1), CSM_JOINED); /* the worker's comes */
    CHECK_EQ(check_publish(h, &call, "k", "v", 1), CSM_OK);
    relay_quiet(s);
    CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), 0);
    check_sound(h);
}

static void who_waits_no_longer_computes_unless_somebody_does(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call, other;
    csm_lease lease = relay_ask(h, s, "k", &call);
    CHECK_EQ(csm_wait_no_longer(h, &call), CSM_OWNER);
    CHECK_EQ(call.waiter.serial, 0);
    relay_expect(s, CSM_LEASE_WITHDRAW);
    CHECK_EQ(check_claim(h, "k", &other), CSM_JOINED);
    CHECK_EQ(csm_wait_no_longer(h, &other), CSM_TIMEOUT);
    CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    CHECK_EQ(csm_wait_no_longer(h, &other), CSM_AGAIN);
    lease = relay_ask(h, s, "k", &call);
    relay_hold(s, &lease);
    CHECK_EQ(csm_wait_no_longer(h, &call), CSM_TIMEOUT);
    CHECK(call.waiter.serial != 0);
    csm_wait_leave(h, &call);
}

static uint64_t takeovers(csm *h) {
    csm_flight_info flight;
    CHECK_EQ(csm_flights(h, &flight, 1), 1);
    return flight.takeovers;
}

/* Whether it has granted it or said nothing: whoever takes a computation over from a sidecar was preceded by none that died. */
static void to_take_over_from_the_sidecar_is_told_as_nobodys_death(void) {
    for (int granted = 0; granted < 2; granted++) {
        csm *h = check_segment(&CHECK_SMALL), *g = check_another(h), *s = relay_sidecar(h, RELAY_LONG_NS);
        csm_call one, two;
        if (granted) {
            relay_granted(h, s, "k", &one);
        } else {
            relay_ask(h, s, "k", &one);
            CHECK_EQ(csm_wait_no_longer(h, &one), CSM_OWNER);
        }
        CHECK_EQ(takeovers(g), 0);
        CHECK_EQ(check_claim(g, "k", &two), CSM_JOINED);
        csm_leave(h);
        CHECK_EQ(csm_wait(g, &two, RELAY_LONG_NS), CSM_OWNER);
        CHECK_EQ(takeovers(g), 1);
        CHECK_EQ(check_stat(g, CSM_STAT_TAKEOVERS), 1);
        CHECK_EQ(check_publish(g, &two, "k", "v", 1), CSM_OK);
        check_sound(g);
    }
}

static void but_for_a_computation_under_way_elsewhere(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call;
    csm_lease lease = relay_ask(h, s, "k", &call);
    relay_hold(s, &lease);
    relay_is_late(h, lease.flight);
    relay_quiet(s);
    CHECK_EQ(csm_wait(h, &call, 0), CSM_TIMEOUT);
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(h, &call, 0), CSM_OWNER);
}

static void a_sidecar_that_does_not_look_is_nobodys_owner(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call held, taken, calls[2], next;
    csm_lease leases[2] = {relay_ask(h, s, "held", &held), relay_ask(h, s, "taken", &taken)};
    relay_hold(s, &leases[0]);
    CHECK_EQ(csm_relay_take(s, 1, "taken", 5, &calls[1]), CSM_OWNER);
    uint64_t pid;
    relay_hangs(h);
    CHECK_EQ(csm_wait(h, &held, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(csm_wait(h, &taken, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(csm_has_sidecar(h, &pid), 0);
    CHECK_EQ(check_claim(h, "next", &next), CSM_OWNER); /* without asking */
    CHECK_EQ(check_publish(s, &calls[1], "taken", "v", 1), CSM_STALE);
    CHECK_EQ(relay_event(s).event, CSM_LEASE_WITHDRAW); /* it goes on: of the other, it knew */
    CHECK_EQ(csm_has_sidecar(h, &pid), 1);
    CHECK_EQ(check_publish(h, &held, "held", "v", 1), CSM_OK);
    CHECK_EQ(check_publish(h, &taken, "taken", "v", 1), CSM_OK);
    CHECK_EQ(check_publish(h, &next, "next", "v", 1), CSM_OK);
    relay_ask(h, s, "and so on", &next);
    check_sound(h);
}

/* The event loop is late, and a thread of the same process publishes what has come. There is no room; but what that thread is just
 * about to end is not up for grabs, be the room that it finds that of a dead process. */
static void a_sidecar_that_is_late_does_not_end_what_it_publishes(void) {
    enum { BYTES = 8000 };
    static const char data[BYTES];
    csm *h = check_segment(&CHECK_SMALL), *dead = check_another(h);
    csm_call call = {.stalled_ns = 0}, other;
    CHECK_EQ(check_claim(dead, "dead", &other), CSM_OWNER);
    uint64_t extent;
    CHECK_EQ(csm_lock(dead), CSM_OK);
    struct csm_flight *flight = &dead->flights[other.ticket.flight];
    CHECK_EQ(csm_arena_reserve_locked(dead, 1, flight, csm_footprint(1, BYTES), &extent), CSM_OK);
    csm_unlock(dead);
    int code = CSM_OK;
    for (uint64_t i = 0; code == CSM_OK; i++) {
        CHECK_EQ(check_claim(h, check_key("big", i), &other), CSM_OWNER);
        code = check_publish(h, &other, check_key("big", i), data, BYTES);
    }
    CHECK_EQ(code, CSM_FULL_ARENA);
    csm *s = relay_sidecar(h, RELAY_LONG_NS);
    CHECK_EQ(csm_relay_take(s, 1, "k", 1, &call), CSM_OWNER);
    csm_leave(dead);
    relay_hangs(h);
    CHECK_EQ(check_publish(s, &call, "k", data, BYTES), CSM_OK);
    CHECK_EQ(check_info(h).flights, 0);
    CHECK_EQ(check_stat(h, CSM_STAT_STRANDED_BYTES), 0);
    check_sound(h);
}

/* What it had was taken over and has ended, and the record serves another flight of its own, about which it was asked since. */
static void a_late_ticket_ends_no_later_flight_of_its_process(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call late = {.stalled_ns = 0}, call;
    CHECK_EQ(csm_relay_take(s, 1, "k", 1, &late), CSM_OWNER);
    relay_hangs(h);
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    relay_quiet(s);
    csm_lease lease = relay_ask(h, s, "l", &call);
    CHECK_EQ(lease.flight, late.ticket.flight);
    CHECK_EQ(check_publish(s, &late, "k", "v", 1), CSM_STALE);
    CHECK_EQ(csm_wait(h, &call, 0), CSM_TIMEOUT); /* it has not been answered, nor given up */
    CHECK_EQ(relay_deliver_outcome(s, &lease, CSM_UNCACHED, "v", 1), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_OUTCOME);
    check_sound(h);
}

/* The same by the clock. */
static void who_sleeps_is_not_kept_longer_either(void) {
    const uint64_t timeout_ns = 200000000;
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, timeout_ns);
    csm_call call;
    csm_lease lease;
    while (check_claim(h, "k", &call) == CSM_OWNER) { /* a slow machine: the time has passed already */
        CHECK_EQ(csm_abandon(h, &call), CSM_OK);
        csm_relay_look(s, &lease, 1);
    }
    CHECK_EQ(csm_relay_look(s, &lease, 1), 1);
    csm_relay_hold(s, lease.flight, lease.serial);
    CHECK_EQ(csm_wait(h, &call, UINT64_C(60000000000)), CSM_OWNER);
}

static void a_dead_sidecar_is_a_dead_owner(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call calls[4], call;
    csm_lease lease, leases[8];
    CHECK_EQ(check_claim(h, "asked", &calls[0]), CSM_JOINED);
    CHECK_EQ(csm_relay_look(s, &lease, 1), 1);
    CHECK_EQ(check_claim(h, "not seen", &calls[1]), CSM_JOINED);
    for (uint32_t i = 2; i < 4; i++) {
        CHECK_EQ(check_claim(h, check_key("k", i), &calls[i]), CSM_JOINED);
        CHECK(csm_relay_look(s, leases, 8) > 0);
    }
    int flipped;
    csm *t = check_open(csm_descriptor(h), &CHECK_SMALL);
    CHECK_EQ(csm_join(t, CSM_SIDECAR, 0, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(csm_relay_open(t, "other", 5, RELAY_LONG_NS), CSM_BUSY);
    csm_leave(s);
    for (int i = 0; i < 4; i++) CHECK_EQ(csm_wait(h, &calls[i], RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(check_claim(h, "next", &call), CSM_OWNER);
    CHECK_EQ(csm_relay_open(t, "other", 5, RELAY_LONG_NS), CSM_OK);
    relay_quiet(t);
    for (int i = 0; i < 4; i++) CHECK_EQ(csm_abandon(h, &calls[i]), CSM_OK);
    relay_quiet(t);
    relay_ask(h, t, "k", &call);
    char origin[CSM_ORIGIN_BYTES];
    CHECK(csm_origin(h, origin) == 5 + 17 && memcmp(origin, "other#", 6) == 0);
    check_sound(h);
}

static void a_sidecar_that_closes_leaves_nobody_waiting(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call calls[2], wanted, call;
    csm_lease lease = relay_granted(h, s, "wanted", &wanted);
    csm_relay_want(s, lease.flight, lease.serial);
    relay_ask(h, s, "seen", &calls[0]);
    CHECK_EQ(check_claim(h, "not seen", &calls[1]), CSM_JOINED);
    csm_relay_close(s);
    for (int i = 0; i < 2; i++) CHECK_EQ(csm_wait(h, &calls[i], RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(check_claim(h, "next", &call), CSM_OWNER);
    CHECK_EQ(csm_relay_look(s, &lease, 1), CSM_GONE);
    CHECK_EQ(csm_relay_hold(s, 0, 1), CSM_GONE);
    CHECK_EQ(csm_relay_take(s, 1, "k", 1, &call), CSM_GONE);
    csm_relay_close(s);
    CHECK_EQ(check_info(h).waiters, 0);
    CHECK_EQ(csm_relay_open(s, "node", 4, RELAY_LONG_NS), CSM_OK);
    relay_ask(h, s, "k", &call);
}

static void a_destroyed_segment_is_gone_for_the_sidecar(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_lease lease;
    CHECK_EQ(csm_destroy(h), CSM_OK);
    CHECK_EQ(csm_relay_look(s, &lease, 1), CSM_GONE);
    csm_relay_close(s);
    CHECK_EQ(csm_relay_open(s, "node", 4, RELAY_LONG_NS), CSM_GONE);
}

/* ---- a lock that is not to be had */

/* What has been taken and cannot be published is nobody's: neither a worker nor a later delivery waits for it. */
static void what_could_not_be_published_is_taken_again(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call = {.stalled_ns = 0}, other;
    CHECK_EQ(csm_relay_take(s, 1, "k", 1, &call), CSM_OWNER);
    csm_store(&h->header->write_lock, csm_self(h)); /* lives, and does not let go */
    CHECK_EQ(check_publish(s, &call, "k", "v", 1), CSM_BUSY);
    csm_store(&h->header->write_lock, 0);
    CHECK_EQ(relay_deliver(s, 1, "k", "v", 1), CSM_OK);
    CHECK(csm_find(h, "k", 1) > 0);
    CHECK_EQ(check_info(h).flights, 0);

    call = (csm_call){.stalled_ns = 0};
    CHECK_EQ(csm_relay_take(s, 1, "l", 1, &call), CSM_OWNER);
    CHECK_EQ(relay_deliver(s, 1, "l", "v", 1), CSM_JOINED); /* by another thread, which is about to publish it */
    CHECK_EQ(check_claim(h, "l", &other), CSM_JOINED);
    CHECK_EQ(check_publish(s, &call, "l", "v", 1), CSM_OK);
    CHECK_EQ(csm_wait(h, &other, RELAY_LONG_NS), CSM_AGAIN);
    relay_quiet(s);
    check_sound(h);
}

/* The sidecar is the last one to leave an outcome of more pages than a window keeps: a reset came before it could read it, by a process
 * that was killed before its sweep. It would clean up, and has to look. */
static void a_look_does_not_wait_for_the_lock(void) {
    enum { BYTES = 40000, KEPT = 16 * 1024 };
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    static const char data[BYTES];
    for (int busy = 0; busy < 2; busy++) {
        csm_call call;
        csm_lease lease = relay_granted(h, s, "k", &call);
        csm_relay_want(s, lease.flight, lease.serial);
        relay_quiet(s);
        CHECK_EQ(check_publish_as(h, &call, "k", CSM_UNCACHED, data, BYTES), CSM_NOT_STORED);
        struct csm_outcome *o = &h->outcomes[lease.flight];
        CHECK_EQ(csm_load(&o->word) & 0xffff, 1);
        CHECK_EQ(csm_lock(h), CSM_OK);
        csm_segment_flip_locked(h, &(struct csm_flip){.what = CSM_COLD});
        if (!busy) csm_unlock(h); /* else it lives, and does not let go */
        relay_expect(s, CSM_LEASE_END);
        CHECK_EQ(csm_load(&s->stalled_turn), 0); /* no patience was lost, since none was asked for */
        CHECK_EQ(csm_load(&o->word) & 0xffff, 0);
        CHECK_EQ(csm_load(&o->taken) <= KEPT, !busy);
        CHECK_EQ(check_info(h).waiters, 0);
        if (busy) csm_unlock(h);
        check_reset(h); /* at the latest */
        CHECK(csm_load(&o->taken) <= KEPT);
    }
    check_sound(h);
}

/* ---- after one that has died */

static void be_sidecar(struct check_child *me, csm *h) {
    relay_sidecar(h, RELAY_LONG_NS);
    check_say(me, 'r');
    check_hear(me, 'x');
}

static void to_follow_a_dead_sidecar_is_no_theft_of_a_lock(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child former = check_fork(be_sidecar, h);
    check_hear(&former, 'r');
    check_kill(&former);
    csm *s = relay_sidecar(h, RELAY_LONG_NS);
    uint64_t pid;
    CHECK_EQ(csm_stolen(s, 0, &pid), 0);
    CHECK_EQ(csm_stolen(s, 1, &pid), 0);
    CHECK_EQ(check_stat(h, CSM_STAT_STEALS), 0);
    csm_call call;
    relay_ask(h, s, "k", &call);
    check_sound(h);
}

CHECK_MAIN(CHECK_TEST(nobody_waits_longer_than_lease_timeout_for_an_answer), CHECK_TEST(but_for_a_computation_under_way_elsewhere),
           CHECK_TEST(who_waits_no_longer_computes_unless_somebody_does), CHECK_TEST(to_take_over_from_the_sidecar_is_told_as_nobodys_death),
           CHECK_TEST(a_sidecar_that_does_not_look_is_nobodys_owner),
           CHECK_TEST(a_sidecar_that_is_late_does_not_end_what_it_publishes), CHECK_TEST(a_late_ticket_ends_no_later_flight_of_its_process),
           CHECK_TEST(who_sleeps_is_not_kept_longer_either),
           CHECK_TEST(a_dead_sidecar_is_a_dead_owner), CHECK_TEST(a_sidecar_that_closes_leaves_nobody_waiting),
           CHECK_TEST(a_destroyed_segment_is_gone_for_the_sidecar), CHECK_TEST(what_could_not_be_published_is_taken_again),
           CHECK_TEST(a_look_does_not_wait_for_the_lock), CHECK_TEST(to_follow_a_dead_sidecar_is_no_theft_of_a_lock))
