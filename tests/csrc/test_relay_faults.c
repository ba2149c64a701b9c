/* test_relay_faults.c holds relay.c to what it promises when the sidecar cannot have the lock, and when it follows one that has died. */
#include "relay.h"

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

CHECK_MAIN(CHECK_TEST(what_could_not_be_published_is_taken_again), CHECK_TEST(to_follow_a_dead_sidecar_is_no_theft_of_a_lock))
