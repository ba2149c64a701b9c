/* test_points_relay.c: killed, and stopped, in the windows of asking the sidecar and of its answers. See points.h. */
#include "points.h"

#include "arena.h"
#include "lease.h"

static const uint64_t LONG_NS = UINT64_C(10000000000), SHORT_NS = 300000000;

/* ---- the cast */

static csm *be_sidecar(csm *h, uint64_t lease_timeout_ns) {
    int flipped;
    csm *s = check_open(csm_descriptor(h), &TINY);
    CHECK_EQ(csm_join(s, CSM_SIDECAR, 0, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(csm_relay_open(s, "node", 4, lease_timeout_ns), CSM_OK);
    return s;
}

/* The next event, however long it takes. */
static csm_lease event(csm *s, enum csm_lease_event expected) {
    csm_lease lease;
    int n;
    while ((n = csm_relay_look(s, &lease, 1)) == 0) csm_relay_wait(s, LONG_NS);
    CHECK_EQ(n, 1);
    CHECK_EQ(lease.event, expected);
    return lease;
}

static void grant(csm *s, const csm_lease *l) { CHECK_EQ(csm_relay_grant(s, l->flight, l->serial), CSM_OK); }

static void claim_target(csm *h) {
    csm_call call;
    int code = check_claim(check_join(h), TARGET, &call);
    if (code == CSM_JOINED) code = csm_wait(h, &call, FOR_EVER);
    CHECK_EQ(conclude(h, &call, TARGET, code), published == CSM_STALE ? CSM_AGAIN : CSM_OK);
}

/* All is as if there had never been a sidecar. */
static void check_all_over(csm *h, csm *s) {
    if (s) {
        csm_relay_close(s);
        csm_leave(s);
    }
    uint64_t pid;
    CHECK_EQ(csm_has_sidecar(h, &pid), 0);
    check_survived(h, csm_generation(h));
}

/* The same, but for so many rooms of TARGET that are lost until the reset. */
static void check_all_over_but(csm *h, csm *s, uint64_t rooms) {
    stranded = rooms * csm_footprint(strlen(TARGET), BYTES) * CSM_GRANULE;
    check_all_over(h, s);
    stranded = 0;
}

/* ---- workers */

/* With the lock: the flight is the sidecar's already, and nobody waits for it yet. */
static void between_asking_and_queueing(void) {
    csm *h = segment(), *s = be_sidecar(h, LONG_NS);
    struct check_child v = halt(h, "claim: asked", claim_target);
    check_locked(h, true);
    event(s, CSM_LEASE_ASK); /* the sidecar needs no lock to see it */
    check_kill(&v);
    event(s, CSM_LEASE_WITHDRAW);
    CHECK_EQ(check_stat(h, CSM_STAT_STEALS), 1); /* by the sidecar, which ended it */
    csm_call call;
    CHECK_EQ(check_claim(h, TARGET, &call), CSM_JOINED);
    csm_lease lease = event(s, CSM_LEASE_ASK);
    grant(s, &lease);
    CHECK_EQ(conclude(h, &call, TARGET, csm_wait(h, &call, LONG_NS)), CSM_OK);
    event(s, CSM_LEASE_STORED);
    check_all_over(h, s);

    h = segment(), s = be_sidecar(h, LONG_NS);
    v = halt(h, "claim: asked", claim_target);
    check_goes_on_without(h);
    lease = event(s, CSM_LEASE_ASK);
    grant(s, &lease);
    go_to_end(&v);
    event(s, CSM_LEASE_STORED);
    check_all_over(h, s);
}

static void between_queueing_and_ringing(void) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h = segment(), *s = be_sidecar(h, LONG_NS);
        struct check_child v = halt(h, "bell: not rung", claim_target);
        check_locked(h, false);
        CHECK_EQ(csm_relay_wait(s, LONG_NS), CSM_TIMEOUT); /* its slice */
        csm_lease lease = event(s, CSM_LEASE_ASK);
        if (kill_it) {
            check_kill(&v);
            event(s, CSM_LEASE_WITHDRAW);
        } else {
            grant(s, &lease);
            go_to_end(&v);
            event(s, CSM_LEASE_STORED);
        }
        check_all_over(h, s);
    }
}

/* It takes over what it was granted, and so has the lock. Another one waits. */
static void in_the_middle_of_taking_over_what_was_granted(void) {
    static const char *const points[] = {"take over: prepared", "take over: owned"};
    for (int i = 0; i < 4; i++) {
        csm *h = segment(), *s = be_sidecar(h, LONG_NS);
        csm_call call;
        CHECK_EQ(check_claim(h, TARGET, &call), CSM_JOINED);
        csm_lease lease = event(s, CSM_LEASE_ASK);
        grant(s, &lease);
        struct check_child v = halt(h, points[i / 2], claim_target);
        check_locked(h, true);
        if (i % 2) {
            check_kill(&v);
            CHECK_EQ(csm_wait(h, &call, LONG_NS), CSM_OWNER);
            CHECK_EQ(csm_load(&h->flights[lease.flight].lease), csm_lease_word(lease.serial, false, CSM_LEASE_GRANTED) | CSM_LEASE_LET_GO);
            CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), 0); /* the victim had not begun to compute */
            CHECK_EQ(publish_value(h, &call, TARGET), CSM_OK);
        } else {
            go_to_end(&v);
            CHECK_EQ(csm_wait(h, &call, LONG_NS), CSM_AGAIN);
        }
        event(s, CSM_LEASE_STORED);
        check_all_over(h, s);
    }
}

/* ---- the sidecar: it is the victim, and a waiter waits for its answer */

static void open_and_say_so(csm *h) { be_sidecar(h, SHORT_NS); }

static void while_it_opens(void) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h = segment();
        struct check_child v = halt(h, "relay: named", open_and_say_so);
        if (kill_it)
            check_kill(&v);
        else
            check_goes_on_without(h); /* it has the lock */
        if (!kill_it) go_to_end(&v);
        csm *s = be_sidecar(h, LONG_NS); /* a dead one's word is taken over */
        csm_call call;
        CHECK_EQ(check_claim(h, TARGET, &call), CSM_JOINED);
        event(s, CSM_LEASE_ASK);
        csm_wait_leave(h, &call);
        check_all_over(h, s);
    }
}

static void (*reply)(csm *s, const csm_lease *lease);

static void answer_one(csm *h) {
    csm *s = be_sidecar(h, SHORT_NS);
    raise(SIGSTOP); /* now somebody asks */
    csm_lease lease = event(s, CSM_LEASE_ASK);
    armed = aim;
    reply(s, &lease);
}

/* Comes back when the sidecar is at `point` with its answer to the call. */
static struct check_child at_point(csm *h, const char *point, void (*with)(csm *s, const csm_lease *lease), csm_call *call) {
    reply = with;
    aim = point;
    body = answer_one;
    struct check_child v = check_fork(be_halted, h);
    check_stopped(&v); /* it is a sidecar */
    while (check_claim(h, TARGET, call) == CSM_OWNER) CHECK_EQ(csm_abandon(h, call), CSM_OK);
    check_continue(&v);
    check_stopped(&v); /* at the point */
    return v;
}

static void deliver_value(csm *s, const csm_lease *l) {
    csm_call call = {.stalled_ns = 0};
    (void)l;
    int code = csm_relay_take(s, 1, TARGET, strlen(TARGET), &call);
    CHECK_EQ(code, CSM_OWNER);
    CHECK_EQ(publish_value(s, &call, TARGET), published);
}

static void deliver_outcome(csm *s, const csm_lease *l) {
    static unsigned char data[LARGE];
    csm_call call = {.stalled_ns = 0};
    check_fill(data, LARGE, 1);
    CHECK_EQ(csm_relay_take_asked(s, l->flight, l->serial, &call), CSM_OWNER);
    CHECK_EQ(check_publish_as(s, &call, "", CSM_UNCACHED, data, LARGE), published == CSM_STALE ? CSM_STALE : CSM_NOT_STORED);
}

/* `rooms`: that it has reserved. Who lives may still be writing there. */
static void in_the_middle_of(const char *point, void (*with)(csm *s, const csm_lease *lease), uint64_t rooms) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h = segment();
        csm_call call;
        published = kill_it ? CSM_OK : CSM_STALE; /* what it is told when it goes on, late */
        struct check_child v = at_point(h, point, with, &call);
        if (kill_it) check_kill(&v);
        CHECK_EQ(csm_wait(h, &call, FOR_EVER), CSM_OWNER); /* at once, or after lease_timeout */
        CHECK_EQ(publish_value(h, &call, TARGET), CSM_OK);
        CHECK_EQ(obtain(h, OTHER), CSM_OK); /* and nobody asks any more */
        if (!kill_it) go_to_end(&v);
        published = CSM_OK;
        check_sound(h);
        check_all_over_but(h, NULL, kill_it ? 0 : rooms);
    }
}

/* Publishes TARGET; at `point` others do `meanwhile`. */
static void publish_while(csm *h, csm_call *call, const char *point, void (*meanwhile)(void), int code) {
    armed = point;
    instead = meanwhile;
    CHECK_EQ(publish_value(h, call, TARGET), code);
    instead = NULL;
}

/* Where a sidecar that lives has room, and is about to write, nobody else does before the reset. */
static void before_it_copies(void) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h = segment();
        csm_call call;
        published = CSM_STALE;
        struct check_child v = at_point(h, "publish: before copy", deliver_value, &call);
        if (kill_it) check_kill(&v);
        CHECK_EQ(csm_wait(h, &call, FOR_EVER), CSM_OWNER);
        CHECK_EQ(obtain(h, OTHER), CSM_OK); /* it would have the room that came back */
        CHECK_EQ(publish_value(h, &call, TARGET), CSM_OK);
        if (!kill_it) go_to_end(&v);
        CHECK(is_stored(h, OTHER) && is_stored(h, TARGET));
        check_all_over_but(h, NULL, !kill_it);
    }
}

/* Then what is lost is counted twice, and lost once. */
static void before_it_copies_and_who_takes_over_is_killed(void) {
    csm *h = segment();
    csm_call call;
    published = CSM_STALE;
    struct check_child v = at_point(h, "publish: before copy", deliver_value, &call);
    csm_wait_leave(h, &call);
    struct check_child heir = halt(h, "strand: counted", claim_target);
    check_goes_on_without(h);
    check_kill(&heir);
    CHECK_EQ(obtain(h, OTHER), CSM_OK);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    go_to_end(&v);
    CHECK(is_stored(h, OTHER) && is_stored(h, TARGET));
    check_all_over_but(h, NULL, 2);
}

/* ---- a sidecar that goes on late, and cannot have the lock */

static csm *locker, *third;
static struct check_child late;

static void go_on_without_the_lock(void) {
    csm_call call;
    CHECK_EQ(csm_lock_once(locker), CSM_OK);
    go_to_end(&late); /* it loses patience */
    csm_unlock(locker);
    CHECK_EQ(check_claim(third, TARGET, &call), CSM_JOINED); /* who took over from it computes as before */
    csm_wait_leave(third, &call);
    CHECK_EQ(obtain(third, OTHER), CSM_OK);
}

/* Both are stored, and the others gone. */
static void check_without(csm *h, uint64_t rooms) {
    CHECK(is_stored(h, OTHER) && is_stored(h, TARGET));
    csm_leave(locker);
    csm_leave(third);
    check_all_over_but(h, NULL, rooms);
}

/* It gives up what it had, not what has another owner by now. */
static void before_it_copies_and_it_gives_up_late(void) {
    csm *h = segment();
    csm_call call;
    locker = check_another(h), third = check_another(h);
    published = CSM_BUSY;
    late = at_point(h, "publish: before copy", deliver_value, &call);
    CHECK_EQ(csm_wait(h, &call, FOR_EVER), CSM_OWNER);
    publish_while(h, &call, "publish: before copy", go_on_without_the_lock, CSM_OK);
    check_without(h, 1);
}

static void stop_twice(void) {
    raise(SIGSTOP);
    armed = "give up: looked";
    instead = NULL;
}

static void deliver_value_and_give_up(csm *s, const csm_lease *l) {
    instead = stop_twice;
    deliver_value(s, l);
}

static void store_both(void) {
    CHECK_EQ(obtain(third, TARGET), CSM_OK);
    CHECK_EQ(obtain(third, OTHER), CSM_OK);
}

static void be_disowned(void) {
    go_to_end(&late);
    store_both();
}

/* Later still: when it had seen that the flight is its own. Who took it over is in the middle of its copy, and goes on. */
static void before_it_gives_up_what_a_worker_has_by_then(void) {
    csm *h = segment();
    csm_call call;
    locker = check_another(h), third = check_another(h);
    published = CSM_BUSY;
    late = at_point(h, "publish: before copy", deliver_value_and_give_up, &call);
    CHECK_EQ(csm_lock_once(locker), CSM_OK);
    go_on(&late);
    csm_unlock(locker);
    CHECK_EQ(csm_wait(h, &call, FOR_EVER), CSM_OWNER);
    publish_while(h, &call, "publish: before copy", be_disowned, CSM_STALE);
    check_without(h, 2);
}

/* ---- two threads of a sidecar: a flight that was taken over from the one, and came back to the other, is disowned by the first, late */

static csm *sidecar;
static csm_call first;

static void disown(void) { CHECK_EQ(publish_value(sidecar, &first, TARGET), CSM_STALE); }

/* Comes back with the flight of TARGET in the second thread's hands. */
static csm *two_threads(csm_call *second) {
    csm *h = segment(), *dead = check_another(h);
    csm_call call;
    sidecar = be_sidecar(h, LONG_NS);
    first = *second = (csm_call){.stalled_ns = 0};
    CHECK_EQ(csm_relay_take(sidecar, 1, TARGET, strlen(TARGET), &first), CSM_OWNER);
    csm_store(&h->header->sidecar_seen_ns, csm_now_ns() - 2 * LONG_NS);
    CHECK_EQ(check_claim(dead, TARGET, &call), CSM_OWNER);
    csm_leave(dead);
    CHECK_EQ(csm_relay_take(sidecar, 1, TARGET, strlen(TARGET), second), CSM_OWNER);
    return h;
}

static void disown_and_store_others(void) {
    disown();
    store_both();
}

static void disowned_before_it_copies(void) {
    csm_call second;
    csm *h = two_threads(&second);
    third = check_another(h);
    publish_while(sidecar, &second, "publish: before copy", disown_and_store_others, CSM_STALE);
    CHECK(is_stored(h, TARGET) && is_stored(h, OTHER));
    csm_leave(third);
    check_all_over_but(h, sidecar, 1);
}

/* Who takes it over has freed the room, and is killed before it is the owner. Then the room may be anybody's. */
static void disown_and_free_room(void) {
    disown();
    CHECK_EQ(csm_lock_once(third), CSM_OK);
    csm_arena_return_locked(third, 1, &third->flights[0]);
    csm_leave(third);
}

static void disowned_after_the_copy(void) {
    csm_call second;
    csm *h = two_threads(&second);
    third = check_another(h);
    publish_while(sidecar, &second, "publish: copied", disown_and_free_room, CSM_STALE);
    check_sound(h);
    CHECK_EQ(obtain(h, OTHER), CSM_OK);
    CHECK_EQ(obtain(h, TARGET), CSM_OK);
    check_all_over(h, sidecar);
}

static void in_the_middle_of_a_value(void) { in_the_middle_of("publish: copied", deliver_value, 1); }
static void in_the_middle_of_an_outcome(void) { in_the_middle_of("outcome: begun", deliver_outcome, 0); }

static void let_compute(csm *s, const csm_lease *l) {
    grant(s, l);
    raise(SIGSTOP);
}

static void between_a_grant_and_the_wake_up(void) {
    for (int kill_it = 0; kill_it < 2; kill_it++) {
        csm *h = segment();
        csm_call call;
        struct check_child v = at_point(h, "grant: not woken", let_compute, &call);
        if (kill_it) check_kill(&v);
        uint64_t serial = call.waiter.serial, f = call.waiter.flight;
        CHECK_EQ(csm_wait(h, &call, FOR_EVER), CSM_OWNER); /* by its slice, and under the lease */
        CHECK_EQ(csm_load(&h->flights[f].lease), csm_lease_word(serial, false, CSM_LEASE_GRANTED) | CSM_LEASE_LET_GO);
        CHECK_EQ(publish_value(h, &call, TARGET), CSM_OK);
        CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), 0);
        if (!kill_it) {
            go_on(&v);
            go_to_end(&v);
        }
        check_all_over(h, NULL);
    }
}

CHECK_MAIN(CHECK_TEST(between_asking_and_queueing), CHECK_TEST(between_queueing_and_ringing),
           CHECK_TEST(in_the_middle_of_taking_over_what_was_granted), CHECK_TEST(while_it_opens), CHECK_TEST(before_it_copies),
           CHECK_TEST(before_it_copies_and_who_takes_over_is_killed), CHECK_TEST(before_it_copies_and_it_gives_up_late),
           CHECK_TEST(before_it_gives_up_what_a_worker_has_by_then), CHECK_TEST(disowned_before_it_copies),
           CHECK_TEST(disowned_after_the_copy), CHECK_TEST(in_the_middle_of_a_value), CHECK_TEST(in_the_middle_of_an_outcome),
           CHECK_TEST(between_a_grant_and_the_wake_up))
