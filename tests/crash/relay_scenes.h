/* relay_scenes.h: what victims do in a cluster. See scenes.h.
 *
 * In some scenes a worker is the victim, and the sidecar a process that does what it is told. When the victim has been stopped, it
 * looks once and grants what is asked; then it is killed, so that all others go on without it.
 *
 * In the others the sidecar itself is the victim. lease_timeout is long, and that it has passed for a stopped one is said by the
 * test (time_passes): a minute's waiting would show no more. */
#ifndef RELAY_SCENES_H
#define RELAY_SCENES_H

#include "flight.h"
#include "lease.h"

static const uint64_t LEASE_NS = UINT64_C(10000000000);

static struct check_child sidecar; /* pid 0: none */
static bool sidecar_tidies;        /* it shows that it ends what a dead worker has left to it */

static csm *become_sidecar(void) {
    int flipped;
    csm *s = check_open(object, &TINY);
    CHECK_EQ(csm_join(s, CSM_SIDECAR, 0, NULL, 0, &flipped), CSM_OK);
    return s;
}

static csm *open_sidecar(void) {
    csm *s = become_sidecar();
    CHECK_EQ(csm_relay_open(s, "node", 4, LEASE_NS), CSM_OK);
    return s;
}

/* ---- a sidecar for others */

/* One look; all that is asked is granted. */
static void look_and_grant(csm *s) {
    csm_lease leases[8];
    int n = csm_relay_look(s, leases, 8);
    CHECK(n >= 0);
    for (int i = 0; i < n; i++)
        if (leases[i].event == CSM_LEASE_ASK) csm_relay_grant(s, leases[i].flight, leases[i].serial);
}

/* Is there a flight that it has to attend to? Not: one that was taken over, by who is dead now, before it was seen. */
static bool has_flights(csm *s) {
    for (uint32_t f = 0; f < TINY.flights; f++) {
        uint64_t serial = csm_load_acquire(&s->flights[f].serial), word = csm_load_acquire(&s->flights[f].lease);
        enum csm_lease_state state = csm_lease_state_of(word, serial);
        bool seen = state != CSM_LEASE_NONE && (state != CSM_LEASE_ASKED || csm_load(&s->flights[f].owner) == csm_self(s));
        if (seen && csm_flight_is_live(s, csm_generation(s), f, serial)) return true;
    }
    return false;
}

static void be_the_sidecar(struct check_child *me, csm *h) {
    (void)h;
    csm *s = open_sidecar();
    check_say(me, 'r');
    char word;
    while (read(me->from, &word, 1) == 1) {
        look_and_grant(s);
        while (word == 't' && has_flights(s)) {
            csm_relay_wait(s, LEASE_NS);
            look_and_grant(s);
        }
        check_say(me, 'd');
    }
}

static void let_sidecar_live(csm *h) {
    sidecar = check_fork(be_the_sidecar, h);
    check_hear(&sidecar, 'r');
}

static void tell_sidecar(char word) {
    if (!sidecar.pid) return;
    check_say(&sidecar, word);
    check_hear(&sidecar, 'd');
}

static void kill_sidecar(void) {
    if (sidecar.pid) check_kill(&sidecar);
    sidecar.pid = 0;
}

/* Nobody but the victim has asked for anything, and that one is dead: within its next look or two the sidecar is rid of it. */
static void bury_with_sidecar(void) {
    if (sidecar_tidies) tell_sidecar('t');
    kill_sidecar();
}

static void let_sidecar_die(csm *h) {
    let_sidecar_live(h);
    kill_sidecar();
}

/* ---- workers */

/* `code` is of a wait. */
static void end_wait(csm *h, csm_call *call, int code, int expected) {
    check_code(code, expected);
    if (code == CSM_TIMEOUT)
        csm_wait_leave(h, call);
    else
        conclude(h, call, TARGET, code);
}

static void ask(struct check_child *me, csm *h) { (void)me, claim_target(h, CSM_JOINED); }

static void be_granted(struct check_child *me, csm *h) {
    (void)me;
    csm_call call;
    step_begin();
    int code = check_claim(h, TARGET, &call);
    step_end();
    check_code(code, CSM_JOINED);
    step_begin();
    if (code == CSM_JOINED) code = csm_wait(h, &call, 0);
    if (code == CSM_OWNER) publish_value(h, &call, TARGET);
    step_end();
    check_code(code, CSM_OWNER);
    if (code == CSM_TIMEOUT) csm_wait_leave(h, &call);
}
static void then_grant(csm *h, unsigned part) {
    (void)h;
    if (part == 0) tell_sidecar('g');
}

static void ask_no_longer(struct check_child *me, csm *h) {
    (void)me;
    csm_call call;
    int code = check_claim(h, TARGET, &call);
    check_code(code, CSM_JOINED);
    step_begin();
    if (code == CSM_JOINED) code = csm_wait_no_longer(h, &call);
    step_end();
    end_wait(h, &call, code, CSM_OWNER);
}

static void stop_asking(struct check_child *me, csm *h) {
    (void)me;
    csm_call call;
    int code = check_claim(h, TARGET, &call);
    check_code(code, CSM_JOINED);
    step_begin();
    csm_wait_leave(h, &call);
    step_end();
    if (code == CSM_OWNER) publish_value(h, &call, TARGET);
}

/* ---- the sidecar as the victim */

static void time_passes(csm *h) {
    csm_store(&h->header->sidecar_seen_ns, csm_now_ns() - 2 * LEASE_NS);
}

/* The next event; none, if others were at work meanwhile. */
static bool look_for(csm *s, enum csm_lease_event expected, csm_lease *lease) {
    int n = csm_relay_look(s, lease, 1);
    CHECK(n == 1 ? lease->event == expected || shared->meanwhile : shared->meanwhile);
    return n == 1 && lease->event == expected;
}

static void begin_to_be_asked(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = become_sidecar();
    step_begin();
    int code = csm_relay_open(s, "node", 4, LEASE_NS);
    step_end();
    CHECK_EQ(code, CSM_OK);
    step_begin();
    csm_relay_close(s);
    step_end();
}

static void grant_it(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = open_sidecar();
    csm_lease lease;
    step_begin();
    if (look_for(s, CSM_LEASE_ASK, &lease)) csm_relay_grant(s, lease.flight, lease.serial);
    step_end();
    step_begin(); /* the waiter has stored it */
    look_for(s, CSM_LEASE_STORED, &lease);
    step_end();
}
static void then_let_compute(csm *h, unsigned part) {
    if (part == 0) CHECK_UNTIL(check_info(h).flights == 0);
}

static void deliver_value(csm *s, csm_call *call) {
    uint64_t generation = csm_generation(s);
    int code = csm_relay_take(s, generation, TARGET, strlen(TARGET), call);
    if (code == CSM_OWNER) publish_value(s, call, TARGET);
    check_code(code, CSM_OWNER);
}

static void hold_and_deliver(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = open_sidecar();
    csm_lease lease;
    csm_call call = {.stalled_ns = 0};
    step_begin();
    if (look_for(s, CSM_LEASE_ASK, &lease)) csm_relay_hold(s, lease.flight, lease.serial);
    step_end();
    step_begin();
    deliver_value(s, &call);
    step_end();
}

static void deliver_unasked(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = open_sidecar();
    csm_call call = {.stalled_ns = 0};
    value_of(csm_generation(s)); /* not watched */
    step_begin();
    deliver_value(s, &call);
    step_end();
}

static void pass_outcome_on(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = open_sidecar();
    csm_lease lease;
    csm_call call = {.stalled_ns = 0};
    step_begin();
    bool asked = look_for(s, CSM_LEASE_ASK, &lease);
    step_end();
    if (asked) check_fill(payload, LARGE, lease.generation);
    step_begin();
    int code = asked ? csm_relay_take_asked(s, lease.flight, lease.serial, &call) : CSM_STALE;
    if (code == CSM_OWNER) code = check_publish_as(s, &call, "", CSM_UNCACHED, payload, LARGE);
    step_end();
    check_code(code, CSM_NOT_STORED);
}

static void adopt(struct check_child *me, csm *h) {
    (void)me;
    csm *s = open_sidecar();
    uint64_t generation = csm_generation(h);
    step_begin();
    int code = csm_reset_lock(s, FOR_EVER);
    if (code == CSM_OK) code = csm_reset_adopt(s, "7", 1, generation + 1000, "other#1", 7);
    csm_reset_unlock(s);
    step_end();
    CHECK_EQ(code, CSM_OK);
    CHECK(csm_generation(h) > generation);
    csm_stamp stamp;
    csm_stamp_read(h, &stamp);
    CHECK(stamp.counter >= generation + 1000);
}

static void close_it(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = open_sidecar();
    csm_lease lease;
    step_begin();
    if (look_for(s, CSM_LEASE_ASK, &lease)) csm_relay_hold(s, lease.flight, lease.serial);
    step_end();
    step_begin();
    csm_relay_close(s);
    step_end();
    CHECK_UNTIL(check_info(h).flights == 0); /* what it let go of is not its own any more, although it lives */
}

static void end_what_nobody_awaits(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = open_sidecar();
    csm_lease lease;
    step_begin();
    bool told = look_for(s, CSM_LEASE_ASK, &lease);
    step_end();
    csm_nap_ns(110000000); /* it asks 10 times a second whether somebody waits */
    step_begin();
    if (told) look_for(s, CSM_LEASE_WITHDRAW, &lease);
    step_end();
}
static void then_leave(csm *h, unsigned part) {
    if (part == 0) csm_wait_leave(h, &queued);
}

/* As for a peer: with a pin while the entry is on its way. And notes of how that one is. */
static void read_log(struct check_child *me, csm *h) {
    (void)me, (void)h;
    csm *s = open_sidecar();
    uint64_t position = BEFORE;
    csm_relay_entry_view e = {.view = NULL};
    step_begin();
    int code = csm_relay_entry(s, csm_generation(s), 1, &position, &e);
    csm_peer_write(s, 0, "other", 5, 1, 2);
    step_end();
    check_code(code, CSM_OK);
    bool is_target = code == CSM_OK && e.key_bytes == strlen(TARGET) && memcmp(e.key, TARGET, e.key_bytes) == 0;
    CHECK(is_target || shared->meanwhile);
    if (is_target) CHECK(check_filled(e.view->data, BYTES, e.view->generation));
    step_begin();
    csm_view_release(e.view);
    step_end();
}
static void then_time_passes(csm *h, unsigned part) {
    time_passes(h);
    then_reset_and_fill(h, part);
}

#endif
