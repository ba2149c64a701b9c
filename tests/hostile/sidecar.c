/* sidecar.c: what is the sidecar's of api.h, called on a segment that may be damaged. See script.h. */
#include "script.h"

enum { EVENTS = 4 };

static const uint64_t SOON_NS = 200000;

static uint32_t some_flight(struct script *s) { return (uint32_t)feed_below(&s->feed, s->h->geo.flights + 1); }

/* The serial that the flight has, or nearly. */
static uint64_t some_serial(struct script *s, uint32_t f) {
    uint64_t serial = f < s->h->geo.flights ? csm_load(&s->h->flights[f].serial) : 0;
    return feed_below(&s->feed, 4) ? serial : serial + feed_below(&s->feed, 3) - 1;
}

/* ---- publishing what came from elsewhere */

static void deliver(struct script *s) {
    static const char *const others[] = {"owned", "other", "dead", "asked", "held", "granted", "taken"};
    uint64_t other = feed_below(&s->feed, 14), generation = csm_generation(s->h) - (feed_below(&s->feed, 8) == 0);
    uint32_t n = (uint32_t)feed_below(&s->feed, LIFE_KEYS);
    const char *key = other < sizeof others / sizeof *others ? others[other] : check_key("key", n);
    csm_call call = {.stalled_ns = 0};
    CALL(OP_RELAY_TAKE, csm_relay_take(s->h, generation, key, strlen(key), &call));
    if (call.ticket.serial) script_publish(s, &call, key, n);
}

static void pass_on(struct script *s, uint32_t f, uint64_t serial) {
    csm_call call = {.stalled_ns = 0};
    if (CALL(OP_RELAY_TAKE_ASKED, csm_relay_take_asked(s->h, f, serial, &call)) != CSM_OWNER) return;
    CALL(OP_PUBLISH_FAILURE, check_publish_as(s->h, &call, "", CSM_FAILURE, life_value(1), life_value_bytes(1)));
}

static void publish_taken(struct script *s) {
    if (s->life->taken.ticket.serial) script_publish(s, &s->life->taken, "taken", 0);
}

/* ---- answers */

static void answer(struct script *s, uint32_t f, uint64_t serial) {
    switch (feed_below(&s->feed, 4)) {
    case 0: CALL(OP_RELAY_HOLD, csm_relay_hold(s->h, f, serial)); break;
    case 1: CALL(OP_RELAY_GRANT, csm_relay_grant(s->h, f, serial)); break;
    case 2: pass_on(s, f, serial); break;
    default: break;
    }
    if (feed_below(&s->feed, 2)) CALL_VOID(OP_RELAY_WANT, csm_relay_want(s->h, f, serial));
}

static void answer_any(struct script *s) {
    uint32_t f = some_flight(s);
    answer(s, f, some_serial(s, f));
}

/* However the segment is damaged: each flight has an end and a beginning to tell, and now and then a change. */
static void look(struct script *s) {
    csm_lease leases[EVENTS] = {{.event = 0}};
    uint32_t capacity = 1 + (uint32_t)feed_below(&s->feed, EVENTS);
    int n = CALL(OP_RELAY_LOOK, script_some(csm_relay_look(s->h, leases, capacity)));
    if (n != OUTCOME_SOME) return;
    for (uint32_t i = 0; i < capacity && leases[i].event; i++) {
        csm_lease *l = &leases[i];
        CHECK(l->event >= CSM_LEASE_ASK && l->event <= CSM_LEASE_OUTCOME && l->flight < s->h->geo.flights);
        CHECK(l->key_bytes <= CSM_MAX_KEY);
        if (l->event == CSM_LEASE_ASK) answer(s, l->flight, l->serial);
        if (l->event == CSM_LEASE_OUTCOME) script_read_outcome(s, &l->call, false);
    }
}

static void look_now(struct script *s) {
    CALL(OP_RELAY_WAIT, csm_relay_wait(s->h, feed_below(&s->feed, SOON_NS)));
    look(s);
}

/* ---- the log */

static void check_entry(struct script *s, const csm_relay_entry_view *e) {
    const unsigned char *end = s->h->arena + s->h->geo.memory_limit;
    CHECK(e->key >= s->h->arena && e->key_bytes <= CSM_MAX_KEY && e->key + e->key_bytes <= end);
    CHECK(e->view->data >= s->h->arena && e->view->bytes <= s->h->geo.memory_limit && e->view->data + e->view->bytes <= end);
    script_check_value(s, script_number_of(e->key, e->key_bytes), e->view->data, e->view->bytes);
}

static void read_log(struct script *s) {
    uint64_t generation = csm_generation(s->h), position = feed_below(&s->feed, 4) ? 0 : feed_next(&s->feed), before = 0;
    int local = (int)feed_below(&s->feed, 2);
    csm_relay_entry_view e;
    for (uint64_t n = 0; CALL(OP_RELAY_ENTRY, csm_relay_entry(s->h, generation, local, &position, &e)) == CSM_OK; n++) {
        CHECK(n < s->h->geo.max_items && position >= before && !(local && e.remote));
        check_entry(s, &e);
        csm_view_release(e.view);
        before = ++position;
    }
}

static void find(struct script *s) {
    const char *key = check_key("key", feed_below(&s->feed, LIFE_KEYS));
    csm_relay_entry_view e;
    if (CALL(OP_RELAY_FIND, csm_relay_find(s->h, csm_generation(s->h), key, strlen(key), &e)) != CSM_OK) return;
    check_entry(s, &e);
    csm_view_release(e.view);
}

/* ---- nodes, resets, coming and going */

static void note_peer(struct script *s) {
    uint32_t n = (uint32_t)feed_below(&s->feed, CSM_PEERS + 1);
    CALL(OP_PEER_WRITE, csm_peer_write(s->h, n, "web2", feed_below(&s->feed, 5), feed_next(&s->feed), feed_below(&s->feed, 5)));
}

static void adopt(struct script *s) {
    if (feed_below(&s->feed, 4) || CALL(OP_RESET_LOCK, csm_reset_lock(s->h, SOON_NS)) != CSM_OK) return;
    char origin[CSM_ORIGIN_BYTES];
    memset(origin, 'o', sizeof origin);
    CALL(OP_ADOPT, csm_reset_adopt(s->h, "7", 1, feed_next(&s->feed), origin, feed_below(&s->feed, sizeof origin + 1)));
    csm_reset_unlock(s->h);
}

static void begin_anew(struct script *s) {
    if (feed_below(&s->feed, 4)) return;
    if (feed_below(&s->feed, 2)) CALL_VOID(OP_RELAY_CLOSE, csm_relay_close(s->h));
    CALL(OP_RELAY_OPEN, csm_relay_open(s->h, "node", 4, UINT64_C(10000000000)));
}

void script_run_sidecar(struct script *s) {
    static void (*const steps[])(struct script *) = {look, answer_any, publish_taken, read_log, deliver, look_now, find, note_peer,
                                                     answer_any, look, deliver, adopt, look, begin_anew, look, read_log, deliver};
    enum { STEPS = sizeof steps / sizeof *steps };
    uint64_t from = feed_below(&s->feed, STEPS);
    for (uint64_t i = 0; i < STEPS; i++) steps[(from + i) % STEPS](s);
}
