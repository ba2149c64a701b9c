/* test_relay_log.c holds relay_log.c, the doorbell, and the stamps of segment.c and cache.c to: the log tells what was computed where, and
 * entries read from it are pinned; who rings is heard; what is written of other nodes is read as a whole; each reset says how manieth it
 * is and who made it, and nothing but a reset changes that. */
#include "relay.h"

#include "index.h"

/* ---- the log */

static void check_entry(csm *s, uint64_t *position, int local, const char *key, bool remote) {
    csm_relay_entry_view e;
    CHECK_EQ(csm_relay_entry(s, csm_generation(s), local, position, &e), CSM_OK);
    CHECK_EQ(e.key_bytes, strlen(key));
    CHECK(memcmp(e.key, key, e.key_bytes) == 0);
    CHECK_EQ(e.remote, remote);
    CHECK_EQ(e.view->format, 7);
    CHECK(e.view->bytes == 1 && e.view->data[0] == 'v');
    csm_view_release(e.view);
    ++*position;
}

static void the_log_tells_what_was_computed_where(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call;
    CHECK_EQ(check_claim(h, "before", &call), CSM_OWNER);
    CHECK_EQ(check_publish(h, &call, "before", "v", 1), CSM_OK);
    csm *s = relay_sidecar(h, RELAY_LONG_NS);
    CHECK_EQ(relay_deliver(s, 1, "remote", "v", 1), CSM_OK);
    csm_lease lease = relay_ask(h, s, "local", &call);
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(check_publish(h, &call, "local", "v", 1), CSM_OK);
    CHECK_EQ(relay_deliver(s, 1, "last", "v", 1), CSM_OK);
    uint64_t at = 0, mine = 0;
    csm_relay_entry_view e;
    check_entry(s, &at, 0, "before", false);
    check_entry(s, &at, 0, "remote", true);
    check_entry(s, &at, 0, "local", false);
    check_entry(s, &at, 0, "last", true);
    CHECK_EQ(csm_relay_entry(s, 1, 0, &at, &e), CSM_MISS);
    CHECK_EQ(at, 4);
    check_entry(s, &mine, 1, "before", false);
    CHECK_EQ(mine, 1);
    check_entry(s, &mine, 1, "local", false);
    CHECK_EQ(mine, 3);
    CHECK_EQ(csm_relay_entry(s, 1, 1, &mine, &e), CSM_MISS);
    CHECK_EQ(mine, 4);
    CHECK_EQ(csm_relay_find(s, 1, "remote", 6, &e), CSM_OK);
    CHECK(e.view->data[0] == 'v' && e.key_bytes == 6);
    CHECK_EQ(check_info(h).pinned_chunks, 1);
    csm_view_release(e.view);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    CHECK_EQ(csm_relay_find(s, 1, "none", 4, &e), CSM_MISS);
    check_reset(h);
    at = 0;
    CHECK_EQ(csm_relay_entry(s, 1, 0, &at, &e), CSM_STALE);
    CHECK_EQ(csm_relay_find(s, 1, "remote", 6, &e), CSM_STALE);
    CHECK_EQ(csm_relay_entry(s, 2, 0, &at, &e), CSM_MISS);
    CHECK_EQ(check_stat(h, CSM_STAT_HITS), 0); /* nobody has asked for anything */
    check_sound(h);
}

static void what_is_read_from_the_log_survives_a_reset(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    static unsigned char value[20000];
    uint64_t at = 0;
    check_fill(value, sizeof value, 1);
    CHECK_EQ(relay_deliver(s, 1, "k", value, sizeof value), CSM_OK);
    csm_relay_entry_view e;
    CHECK_EQ(csm_relay_entry(s, 1, 0, &at, &e), CSM_OK);
    check_reset(h);
    for (uint64_t n = 0; relay_deliver(s, 2, check_key("n", n), value, 3000) == CSM_OK; n++) {
    }
    CHECK(check_filled(e.view->data, sizeof value, 1));
    CHECK(memcmp(e.key, "k", 1) == 0);
    csm_view_release(e.view);
    check_sound(h);
}

static void a_commit_that_was_not_counted_is_remote_still(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    CHECK_EQ(relay_deliver(s, 1, "k", "v", 1), CSM_OK);
    uint64_t at = 0;
    csm_epoch_of(h, 1)->entries = 0; /* as if the sidecar had been killed right after the commit */
    csm_epoch_of(h, 1)->bytes_used = 0;
    csm_index_repair_locked(h, 1);
    CHECK_EQ(check_info(h).entries, 1);
    check_entry(s, &at, 0, "k", true);
}

/* ---- the doorbell */

static void who_rings_is_heard(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_call call;
    CHECK_EQ(csm_relay_wait(s, 0), CSM_TIMEOUT);
    csm_lease lease;
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    CHECK_EQ(csm_relay_wait(s, RELAY_LONG_NS), CSM_OK);
    CHECK_EQ(csm_relay_look(s, &lease, 1), 1);
    relay_grant(s, &lease);
    CHECK_EQ(csm_wait(h, &call, RELAY_LONG_NS), CSM_OWNER);
    CHECK_EQ(csm_relay_wait(s, 0), CSM_TIMEOUT);
    CHECK_EQ(check_publish(h, &call, "k", "v", 1), CSM_OK);
    CHECK_EQ(csm_relay_wait(s, RELAY_LONG_NS), CSM_OK);
    CHECK_EQ(csm_relay_wait(s, 0), CSM_TIMEOUT);
    check_reset(h);
    check_reset(h); /* one ring for both */
    CHECK_EQ(csm_relay_wait(s, RELAY_LONG_NS), CSM_OK);
    CHECK_EQ(csm_relay_wait(s, 0), CSM_TIMEOUT);
    CHECK_EQ(relay_deliver(s, 3, "mine", "v", 1), CSM_OK);
    CHECK_EQ(csm_relay_wait(s, 0), CSM_TIMEOUT); /* not by itself */
    CHECK_EQ(csm_destroy(h), CSM_OK);
    CHECK_EQ(csm_relay_wait(s, RELAY_LONG_NS), CSM_OK);
}

static void a_ring_that_was_lost_costs_a_slice(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_store(&h->header->bell, 1); /* somebody was killed before it rang */
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    CHECK_EQ(csm_relay_wait(s, RELAY_LONG_NS), CSM_TIMEOUT);
    relay_expect(s, CSM_LEASE_ASK);
    CHECK_EQ(csm_relay_wait(s, 0), CSM_TIMEOUT);
    csm_wait_leave(h, &call);
    CHECK_EQ(check_claim(h, "l", &call), CSM_JOINED);
    CHECK_EQ(csm_relay_wait(s, RELAY_LONG_NS), CSM_OK);
}

/* ---- peers */

static void what_is_known_of_other_nodes_can_be_read(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    csm_peer_info peers[CSM_PEERS];
    CHECK_EQ(csm_peers(h, peers, CSM_PEERS), 0);
    CHECK_EQ(csm_peer_write(s, 3, "web3", 4, 17, 4), CSM_OK);
    CHECK_EQ(csm_peer_write(s, CSM_PEERS - 1, "web9", 4, 0, 0), CSM_OK);
    CHECK_EQ(csm_peers(h, peers, CSM_PEERS), 2);
    CHECK(strcmp(peers[0].name, "web3") == 0 && peers[0].covers == 17 && peers[0].state == 4 && peers[0].since_ns > 0);
    CHECK(strcmp(peers[1].name, "web9") == 0 && peers[1].covers == 0 && peers[1].state == 0);
    CHECK_EQ(csm_peers(h, peers, 1), 1);
    csm_store(&h->header->peers[3].turn, csm_load(&h->header->peers[3].turn) + 1); /* killed in the middle */
    CHECK_EQ(csm_peers(h, peers, CSM_PEERS), 1);
    CHECK_EQ(csm_peer_write(s, 3, "web4", 4, 18, 4), CSM_OK);
    CHECK_EQ(csm_peers(h, peers, CSM_PEERS), 2);
    CHECK_EQ(strcmp(peers[0].name, "web4"), 0);
    CHECK_EQ(csm_peer_write(s, 3, "", 0, 0, 0), CSM_OK);
    CHECK_EQ(csm_peers(h, peers, CSM_PEERS), 1);
    CHECK_EQ(csm_peer_write(s, CSM_PEERS, "x", 1, 0, 0), CSM_INVALID);
    CHECK_EQ(csm_peer_write(s, 0, "x", CSM_NODE_NAME, 0, 0), CSM_INVALID);
    CHECK_EQ(csm_peer_write(h, 0, "x", 1, 0, 0), CSM_GONE);
    csm_leave(s);
    CHECK_EQ(csm_peers(h, peers, CSM_PEERS), 0); /* nobody knows any more */
}

/* ---- stamps */

static csm_stamp check_stamp(csm *h, uint64_t counter, uint64_t own, const char *version, const char *origin) {
    csm_stamp stamp;
    csm_stamp_read(h, &stamp);
    CHECK_EQ(stamp.counter, counter);
    CHECK_EQ(stamp.own_counter, own);
    CHECK_EQ(stamp.generation, csm_generation(h));
    CHECK(stamp.version_bytes == strlen(version) && memcmp(stamp.version, version, stamp.version_bytes) == 0);
    CHECK(stamp.origin_bytes == strlen(origin) && memcmp(stamp.origin, origin, stamp.origin_bytes) == 0);
    return stamp;
}

static const char *origin_of(csm *h) {
    static char origin[CSM_ORIGIN_BYTES + 1];
    origin[csm_origin(h, origin)] = 0;
    return origin;
}

static int adopt(csm *h, const char *version, uint64_t counter, const char *origin) {
    CHECK_EQ(csm_reset_lock(h, RELAY_LONG_NS), CSM_OK);
    int code = csm_reset_adopt(h, version, strlen(version), counter, origin, strlen(origin));
    csm_reset_unlock(h);
    return code;
}

static void a_reset_says_how_manieth_it_is_and_whose(void) {
    csm *h = check_segment(&CHECK_SMALL), *other = check_segment(&CHECK_SMALL);
    check_stamp(h, 0, 0, "1", "");
    CHECK(strlen(origin_of(h)) == 17 && origin_of(h)[0] == '#');
    char mine[CSM_ORIGIN_BYTES + 1];
    strcpy(mine, origin_of(h));
    CHECK(strcmp(mine, origin_of(other)) != 0); /* also before anybody has a name */
    check_reset(h);
    check_stamp(h, 1, 1, "2", mine);
    csm *s = relay_sidecar(h, RELAY_LONG_NS);
    check_stamp(h, 1, 1, "2", mine);
    CHECK_EQ(adopt(s, "\"x\"", 7, "web2#0123456789abcdef"), CSM_OK);
    check_stamp(h, 7, 1, "\"x\"", "web2#0123456789abcdef"); /* what was made here stays known */
    check_reset(h);
    check_stamp(h, 8, 8, "2", origin_of(h));
    CHECK(memcmp(origin_of(h), "node#", 5) == 0);
    CHECK_EQ(csm_reset_lock(s, RELAY_LONG_NS), CSM_OK);
    CHECK_EQ(csm_reset_commit(s, "3", 1, 20), CSM_OK);
    csm_reset_unlock(s);
    check_stamp(h, 20, 20, "3", origin_of(h));
    CHECK_EQ(adopt(s, "1", UINT64_MAX, "12345678901234567890123456789012345678901234567890123456789012345678901234567890"), CSM_OK);
    check_stamp(h, UINT64_MAX, 20, "1", "12345678901234567890123456789012345678901234567890123456789012345678901234567890");
    CHECK_EQ(adopt(s, "1", 1, "123456789012345678901234567890123456789012345678901234567890123456789012345678901"), CSM_INVALID);
    CHECK_EQ(csm_reset_adopt(s, "1", 1, 1, "x", 1), CSM_INVALID); /* without the reset lock */
    check_sound(h);
}

static csm *joins(csm *h, int cold, const char *config, int flips) {
    int flipped;
    csm *g = check_open(csm_descriptor(h), &CHECK_SMALL);
    CHECK_EQ(csm_join(g, CSM_APP, cold, config, strlen(config), &flipped), CSM_OK);
    CHECK_EQ(flipped, flips);
    return g;
}

static void only_resets_change_the_stamp(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm *g = joins(h, 0, "5", 1); /* the first configured version: as all hosts have it that never reset */
    check_stamp(h, 0, 0, "5", "");
    joins(h, 0, "5", 0);
    joins(h, 0, "6", 1); /* another one is a reset */
    check_stamp(h, 1, 1, "6", origin_of(h));
    csm *s = relay_sidecar(h, RELAY_LONG_NS);
    CHECK_EQ(adopt(s, "7", 9, "web2#1"), CSM_OK);
    joins(h, 0, "7", 1); /* another host was faster: the same version, and no reset of this one's */
    check_stamp(h, 9, 1, "7", "web2#1");
    CHECK_EQ(csm_generation(g), csm_generation(h));
}

static void a_cold_start_is_no_reset(void) {
    csm *h = check_segment(&CHECK_SMALL), *s = relay_sidecar(h, RELAY_LONG_NS);
    CHECK_EQ(adopt(s, "7", 9, "web2#1"), CSM_OK);
    CHECK_EQ(relay_deliver(s, 2, "k", "v", 1), CSM_OK);
    int fd = csm_process_reopen(csm_descriptor(h));
    csm_leave(h);
    CHECK_EQ(csm_in_use_by_others(s), 0); /* a sidecar alone keeps no cache */
    csm *g;
    int created, flipped;
    CHECK_EQ(csm_open(fd, &CHECK_SMALL, RELAY_LONG_NS, &g, &created), CSM_OK);
    check_keep(g);
    CHECK_EQ(csm_join(g, CSM_APP, 1, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(flipped, 1);
    CHECK_EQ(check_stamp(g, 9, 0, "7", "web2#1").generation, 3);
    CHECK_EQ(csm_find(g, "k", 1), 0);
    csm_lease lease;
    CHECK_EQ(csm_relay_look(s, &lease, 1), 0);
}

CHECK_MAIN(CHECK_TEST(the_log_tells_what_was_computed_where), CHECK_TEST(what_is_read_from_the_log_survives_a_reset),
           CHECK_TEST(a_commit_that_was_not_counted_is_remote_still), CHECK_TEST(who_rings_is_heard),
           CHECK_TEST(a_ring_that_was_lost_costs_a_slice), CHECK_TEST(what_is_known_of_other_nodes_can_be_read),
           CHECK_TEST(a_reset_says_how_manieth_it_is_and_whose), CHECK_TEST(only_resets_change_the_stamp),
           CHECK_TEST(a_cold_start_is_no_reset))
