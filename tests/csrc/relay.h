/* relay.h: a sidecar for the tests of relay.c and lease.c. */
#ifndef RELAY_H
#define RELAY_H

#include "check.h"

#include "flight.h"
#include "lease.h"

static const uint64_t RELAY_LONG_NS = UINT64_C(10000000000);

/* Another handle on the same segment, as its sidecar. */
static inline csm *relay_sidecar(csm *h, uint64_t lease_timeout_ns) {
    int flipped;
    csm *s = check_open(csm_descriptor(h), &CHECK_SMALL);
    CHECK_EQ(csm_join(s, CSM_SIDECAR, 0, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(csm_relay_open(s, "node", 4, lease_timeout_ns), CSM_OK);
    return s;
}

/* The next look sweeps, whatever the time. */
static inline void relay_let_time_pass(void) { csm_nap_ns(110000000); }

/* Longer than any lease_timeout: since the flight began; since the sidecar looked. */
static inline void relay_is_late(csm *h, uint32_t f) { csm_store(&h->flights[f].started_ns, csm_now_ns() - 2 * RELAY_LONG_NS); }
static inline void relay_hangs(csm *h) { csm_store(&h->header->sidecar_seen_ns, csm_now_ns() - 2 * RELAY_LONG_NS); }

/* One event, and no more. */
static inline csm_lease relay_event(csm *s) {
    static csm_lease leases[2];
    CHECK_EQ(csm_relay_look(s, leases, 2), 1);
    return leases[0];
}

static inline csm_lease relay_expect(csm *s, enum csm_lease_event event) {
    csm_lease lease = relay_event(s);
    CHECK_EQ(lease.event, event);
    return lease;
}

static inline void relay_quiet(csm *s) {
    csm_lease lease;
    CHECK_EQ(csm_relay_look(s, &lease, 1), 0);
}

/* `h` asks for `key`; the sidecar is told. */
static inline csm_lease relay_ask(csm *h, csm *s, const char *key, csm_call *call) {
    CHECK_EQ(check_claim(h, key, call), CSM_JOINED);
    csm_lease lease = relay_expect(s, CSM_LEASE_ASK);
    CHECK_EQ(lease.key_bytes, strlen(key));
    CHECK(memcmp(lease.key, key, csm_min(strlen(key), CSM_KEY_PREVIEW)) == 0);
    return lease;
}

static inline void relay_hold(csm *s, const csm_lease *l) { CHECK_EQ(csm_relay_hold(s, l->flight, l->serial), CSM_OK); }
static inline void relay_grant(csm *s, const csm_lease *l) { CHECK_EQ(csm_relay_grant(s, l->flight, l->serial), CSM_OK); }

/* `h` asks for `key`, and computes it under the lease. */
static inline csm_lease relay_granted(csm *h, csm *s, const char *key, csm_call *call) {
    csm_lease lease = relay_ask(h, s, key, call);
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(h, call, RELAY_LONG_NS), CSM_OWNER);
    return lease;
}

/* `key` arrives from another host, with that kind of payload. The code of csm_publish, or of the take. */
static inline int relay_deliver(csm *s, uint64_t generation, const char *key, const void *data, size_t bytes) {
    csm_call call = {.stalled_ns = 0};
    int code = csm_relay_take(s, generation, key, strlen(key), &call);
    return code == CSM_OWNER ? check_publish(s, &call, key, data, bytes) : code;
}

static inline int relay_deliver_outcome(csm *s, const csm_lease *l, int kind, const void *data, size_t bytes) {
    csm_call call = {.stalled_ns = 0};
    int code = csm_relay_take_asked(s, l->flight, l->serial, &call);
    return code == CSM_OWNER ? check_publish_as(s, &call, "", kind, data, bytes) : code;
}

#endif
