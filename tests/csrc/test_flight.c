/* test_flight.c holds flight.c and wait.c to:
 *   - of all who ask for a key one becomes owner, the others wait, and get what the owner publishes;
 *   - a ticket is good once, and void after a reset, a takeover, or when its flight is over, however alike the flight that
 *     came after it looks;
 *   - a flight whose owner died, or gave up because no lock was to be had, is taken over by exactly one;
 *   - full tables are codes, and the dead leave nothing in them for good. */
#include "check.h"

#include "flight.h"
#include "lock.h"

static const uint64_t LONG_NS = UINT64_C(100000000000);

/* ---- one computes, the others wait */

static void one_owner_the_others_join(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, joined[3];
    CHECK_EQ(check_claim(a, "k", &owner), CSM_OWNER);
    CHECK(owner.ticket.serial != 0 && owner.waiter.serial == 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(check_claim(i ? b : a, "k", &joined[i]), CSM_JOINED);
        CHECK(joined[i].ticket.serial == 0 && joined[i].waiter.serial != 0);
    }
    CHECK_EQ(check_info(a).flights, 1);
    CHECK_EQ(check_info(a).waiters, 3);
    csm_flight_info info;
    CHECK_EQ(csm_flights(b, &info, 1), 1);
    CHECK(info.alive && info.waiters == 3 && info.key_bytes == 1 && info.key[0] == 'k' && info.pid == (uint64_t)getpid());
    for (int i = 0; i < 3; i++) CHECK_EQ(csm_wait(i ? b : a, &joined[i], 0), CSM_TIMEOUT);
    CHECK_EQ(check_publish(a, &owner, "k", "value", 5), CSM_OK);
    CHECK_EQ(owner.ticket.serial, 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(csm_wait(i ? b : a, &joined[i], 0), CSM_AGAIN);
        CHECK_EQ(joined[i].waiter.serial, 0);
    }
    CHECK_EQ(check_claim(b, "k", &owner), CSM_READY);
    csm_info end = check_info(a);
    CHECK_EQ(end.flights, 0);
    CHECK_EQ(end.waiters, 0);
    CHECK_EQ(end.entries, 1);
    CHECK_EQ(end.stats[CSM_STAT_COMPUTATIONS], 1);
    CHECK_EQ(end.stats[CSM_STAT_WAITS], 3);
    check_sound(a);
}

static void wait_for_k(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    CHECK_EQ(csm_wait(h, &call, LONG_NS), CSM_AGAIN);
    CHECK(check_has(h, "k", 500, 42));
    check_say(me, 'd');
}

static void sleepers_of_all_processes_are_woken(void) {
    enum { N = 6 };
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call;
    struct check_child child[N];
    unsigned char value[500];
    check_fill(value, sizeof value, 42);
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    for (int i = 0; i < N; i++) child[i] = check_fork(wait_for_k, h);
    CHECK_UNTIL(check_info(h).waiters == N);
    CHECK_EQ(check_publish(h, &call, "k", value, sizeof value), CSM_OK);
    for (int i = 0; i < N; i++) check_hear(&child[i], 'd');
    for (int i = 0; i < N; i++) check_end(&child[i]);
    CHECK_EQ(check_info(h).waiters, 0);
}

static void after_an_abandoned_flight_the_next_asker_computes(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter;
    CHECK_EQ(check_claim(a, "k", &owner), CSM_OWNER);
    CHECK_EQ(check_claim(b, "k", &waiter), CSM_JOINED);
    CHECK_EQ(csm_abandon(a, &owner), CSM_OK);
    CHECK_EQ(csm_wait(b, &waiter, LONG_NS), CSM_AGAIN);
    CHECK_EQ(check_claim(b, "k", &waiter), CSM_OWNER);
    CHECK_EQ(check_publish(b, &waiter, "k", "v", 1), CSM_OK);
    check_sound(a);
}

static void on_signal(int signal_number) { (void)signal_number; }

static void wait_and_be_interrupted(struct check_child *me, csm *h) {
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    check_say(me, 'r');
    CHECK_EQ(csm_wait(h, &call, LONG_NS), CSM_INTERRUPTED);
    check_say(me, 'i');
    CHECK_EQ(csm_wait(h, &call, 1), CSM_TIMEOUT); /* still queued */
    csm_wait_leave(h, &call);
}

static void a_signal_ends_a_wait(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    struct check_child child = check_fork(wait_and_be_interrupted, h);
    check_hear(&child, 'r');
    CHECK(fcntl(child.from, F_SETFL, O_NONBLOCK) == 0);
    char word = 0;
    while (read(child.from, &word, 1) != 1) { /* until one arrives while it sleeps */
        CHECK(kill(child.pid, SIGUSR1) == 0);
        csm_nap_ns(1000000);
    }
    CHECK_EQ(word, 'i');
    check_end(&child);
    CHECK_EQ(check_info(h).waiters, 0);
}

/* ---- tickets */

static void a_ticket_is_good_once(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call, copy;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    csm_piece piece = {"v", 1};
    CHECK_EQ(csm_publish(h, &call, "k", 1, CSM_VALUE, (int)CSM_MAX_FORMAT + 1, &piece, 1), CSM_INVALID);
    CHECK(call.ticket.serial != 0); /* the one code after which it is not spent */
    copy = call;
    CHECK_EQ(csm_publish(h, &call, "k", 1, CSM_VALUE, CSM_MAX_FORMAT, &piece, 1), CSM_OK);
    CHECK_EQ(check_publish(h, &call, "k", "w", 1), CSM_STALE);
    CHECK_EQ(csm_abandon(h, &call), CSM_STALE);
    call = copy;
    CHECK_EQ(check_publish(h, &call, "k", "w", 1), CSM_STALE);
    call = copy;
    CHECK_EQ(csm_abandon(h, &call), CSM_STALE);
    int64_t found = csm_find(h, "k", 1);
    CHECK(found > 0);
    CHECK_EQ(csm_base(h)[(found >> 27) * 16], 'v');
    check_sound(h);
}

/* With one flight record, every flight of the segment looks like the one before. */
static void a_reset_voids_tickets_and_waits(void) {
    csm_settings settings = CHECK_SMALL;
    settings.flights = 1;
    csm *a = check_segment(&settings), *b = check_another(a);
    csm_call old, waiter, new, late;
    CHECK_EQ(check_claim(a, "k", &old), CSM_OWNER);
    CHECK_EQ(check_claim(b, "k", &waiter), CSM_JOINED);
    check_reset(b);
    CHECK_EQ(csm_wait(b, &waiter, LONG_NS), CSM_AGAIN);
    CHECK_EQ(check_claim(a, "k", &new), CSM_OWNER); /* same key, process, slot and record */
    CHECK_EQ(new.ticket.flight, old.ticket.flight);
    late = old;
    CHECK_EQ(check_publish(a, &late, "k", "old", 3), CSM_STALE);
    CHECK_EQ(csm_find(a, "k", 1), 0);
    CHECK_EQ(check_claim(b, "k", &waiter), CSM_JOINED); /* the new flight goes on */
    late = old;
    CHECK_EQ(check_publish_as(a, &late, "k", CSM_FAILURE, "old", 3), CSM_STALE);
    late = old;
    CHECK_EQ(csm_abandon(a, &late), CSM_STALE);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_TIMEOUT);
    CHECK_EQ(check_publish(a, &new, "k", "new", 3), CSM_OK);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_AGAIN);
    late = old;
    CHECK_EQ(check_publish(a, &late, "k", "old", 3), CSM_STALE);
    int64_t found = csm_find(b, "k", 1);
    CHECK(found > 0 && memcmp(csm_base(b) + (found >> 27) * 16, "new", 3) == 0);
    CHECK_EQ(check_stat(a, CSM_STAT_STALE), 4);
    check_sound(a);
}

/* The version is "1" again, but it is not the same "1". */
static void a_version_that_comes_back_is_another_generation(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call;
    CHECK_EQ(check_store(h, "old", 10, 1), CSM_OK);
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    CHECK_EQ(csm_reset_lock(h, 0), CSM_OK);
    for (int i = 2; i <= 5; i++) CHECK_EQ(csm_reset_commit(h, i % 2 ? "1" : "2", 1, 0), CSM_OK);
    csm_reset_unlock(h);
    char version[8];
    size_t bytes;
    uint64_t generation;
    CHECK_EQ(csm_version(h, version, sizeof version, &bytes, &generation), CSM_OK);
    CHECK(bytes == 1 && version[0] == '1' && generation == 5);
    CHECK(!check_has(h, "old", 10, 1));
    CHECK_EQ(check_publish(h, &call, "k", "old", 3), CSM_STALE);
    CHECK_EQ(csm_find(h, "k", 1), 0);
}

/* ---- the owner dies */

static void claim_and_hang(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    check_say(me, 'c');
    check_hear(me, '-');
}

static void exactly_one_takes_a_dead_owners_place(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a), *c = check_another(a);
    csm_call first, second, third;
    struct check_child owner = check_fork(claim_and_hang, a);
    check_hear(&owner, 'c');
    CHECK_EQ(check_claim(a, "k", &first), CSM_JOINED);
    CHECK_EQ(check_claim(b, "k", &second), CSM_JOINED);
    CHECK_EQ(csm_wait(a, &first, 1), CSM_TIMEOUT);
    check_kill(&owner);
    csm_flight_info info;
    CHECK_EQ(csm_flights(a, &info, 1), 1);
    CHECK_EQ(info.alive, 0);
    check_sound(a);
    CHECK_EQ(csm_wait(b, &second, LONG_NS), CSM_OWNER);
    CHECK(second.ticket.serial != 0 && second.waiter.serial == 0);
    CHECK_EQ(csm_wait(a, &first, 1), CSM_TIMEOUT); /* that one waits for the new owner */
    CHECK_EQ(check_claim(c, "k", &third), CSM_JOINED);
    CHECK_EQ(check_publish(b, &second, "k", "v", 1), CSM_OK);
    CHECK_EQ(csm_wait(a, &first, 0), CSM_AGAIN);
    CHECK_EQ(csm_wait(c, &third, 0), CSM_AGAIN);
    CHECK_EQ(check_stat(a, CSM_STAT_TAKEOVERS), 1);
    check_sound(a);
}

static void an_asker_takes_a_dead_owners_place(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child owner = check_fork(claim_and_hang, h);
    check_hear(&owner, 'c');
    check_kill(&owner);
    CHECK_EQ(check_store(h, "k", 100, 1), CSM_OK);
    CHECK_EQ(check_stat(h, CSM_STAT_TAKEOVERS), 1);
    check_sound(h);
}

static void die_in_publish(struct check_child *me, csm *h) {
    (void)me;
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    csm_piece pieces[] = {{"begins", 6}, check_stopping_piece(3000)};
    csm_publish(h, &call, "k", 1, CSM_VALUE, 7, pieces, 2);
}

/* Again and again, in the middle of the copy: nothing is seen of the value, and the room is not lost. */
static void owners_killed_while_they_publish_leave_nothing(void) {
    csm *h = check_segment(&CHECK_SMALL);
    for (int i = 0; i < 40; i++) {
        struct check_child owner = check_fork(die_in_publish, h);
        check_stopped(&owner);
        check_sound(h);
        check_kill(&owner);
        CHECK_EQ(csm_find(h, "k", 1), 0);
        check_sound(h);
    }
    CHECK_EQ(check_info(h).flights, 1);
    CHECK(check_info(h).rows_used <= 2);
    CHECK_EQ(check_store(h, "k", 50000, 3), CSM_OK);
    CHECK_EQ(check_info(h).flights, 0);
    check_sound(h);
}

/* ---- the owner gives up: no lock to be had */

static void hold_the_lock(struct check_child *me, csm *h) {
    CHECK_EQ(csm_lock(h), CSM_OK);
    check_say(me, 'l');
    raise(SIGSTOP);
    csm_unlock(h);
    check_say(me, 'u');
    check_hear(me, 'e');
}

static struct check_child stopped_holder(csm *h) {
    struct check_child holder = check_fork(hold_the_lock, h);
    check_hear(&holder, 'l');
    check_stopped(&holder);
    return holder;
}

static void let_go(struct check_child *holder) {
    check_continue(holder);
    check_hear(holder, 'u');
    check_say(holder, 'e');
    check_end(holder);
}

static void a_given_up_flight_is_taken_over(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm *by[2] = {b, a}; /* the other process, and another thread of the same */
    for (uint64_t i = 0; i < 2; i++) {
        const char *key = check_key("k", i);
        csm_call owner, waiter, late;
        CHECK_EQ(check_claim(a, key, &owner), CSM_OWNER);
        CHECK_EQ(check_claim(by[i], key, &waiter), CSM_JOINED);
        late = owner;
        struct check_child holder = stopped_holder(a);
        CHECK_EQ(check_publish(a, &owner, key, "v", 1), CSM_BUSY);
        CHECK_EQ(owner.ticket.serial, 0);
        let_go(&holder);
        CHECK_EQ(csm_wait(by[i], &waiter, LONG_NS), CSM_OWNER); /* though its owner lives */
        CHECK_EQ(check_publish(a, &late, key, "old", 3), CSM_STALE);
        if (by[i] == a) { /* whose flight it is by its words: so it may be damaged, and is given up once more */
            CHECK_EQ(check_publish(a, &waiter, key, "v", 1), CSM_STALE);
            CHECK_EQ(check_claim(b, key, &waiter), CSM_OWNER);
            by[i] = b;
        }
        CHECK_EQ(check_publish(by[i], &waiter, key, "v", 1), CSM_OK);
        CHECK(csm_find(a, key, strlen(key)) > 0);
        check_sound(a);
    }
}

/* Both owners of one record, of this generation and of the last, find no lock. That the late one says so must not undo
 * that the other one did: nobody would ever end or take over its flight. */
static void giving_up_late_does_not_revive_the_next_flight(void) {
    csm_settings settings = CHECK_SMALL;
    settings.flights = 1;
    csm *a = check_segment(&settings), *b = check_another(a);
    csm_call old, new, next;
    CHECK_EQ(check_claim(a, "k", &old), CSM_OWNER);
    check_reset(a);
    CHECK_EQ(check_claim(b, "k", &new), CSM_OWNER);
    struct check_child holder = stopped_holder(a);
    CHECK_EQ(csm_abandon(b, &new), CSM_BUSY);
    CHECK_EQ(check_publish(a, &old, "k", "v", 1), CSM_BUSY);
    let_go(&holder);
    CHECK_EQ(check_claim(a, "k", &next), CSM_OWNER);
}

/* ---- tables */

static void claim_four_and_hang(struct check_child *me, csm *h) {
    csm_call call;
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(check_claim(h, check_key("dead", i), &call), CSM_OWNER);
    check_say(me, 'c');
    check_hear(me, '-');
}

static void a_full_flight_table_is_a_code(void) {
    csm_settings settings = CHECK_SMALL;
    settings.flights = 4;
    csm *h = check_segment(&settings), *other = check_another(h);
    csm_call calls[4], more;
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(check_claim(h, check_key("live", i), &calls[i]), CSM_OWNER);
    CHECK_EQ(check_claim(other, "more", &more), CSM_NO_FLIGHT);
    CHECK_EQ(check_claim(other, check_key("live", 3), &more), CSM_JOINED); /* joining needs no record */
    CHECK_EQ(csm_abandon(h, &calls[2]), CSM_OK);
    CHECK_EQ(check_store(other, "more", 10, 1), CSM_OK);
    check_reset(h); /* ends all flights */
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(check_store(other, check_key("again", i), 10, i), CSM_OK);
    csm_wait_leave(other, &more);
    check_sound(h);
}

static void flights_of_the_dead_are_reaped_when_the_table_is_full(void) {
    csm_settings settings = CHECK_SMALL;
    settings.flights = 4;
    csm *h = check_segment(&settings);
    for (uint32_t round = 0; round < 10; round++) {
        struct check_child owner = check_fork(claim_four_and_hang, h);
        check_hear(&owner, 'c');
        csm_call call;
        CHECK_EQ(check_claim(h, check_key("new", round), &call), CSM_NO_FLIGHT);
        check_kill(&owner);
        CHECK_EQ(check_store(h, check_key("new", round), 10, round), CSM_OK);
        CHECK_EQ(check_info(h).flights, 0);
        check_sound(h);
    }
}

static void join_twice_and_hang(struct check_child *me, csm *h) {
    csm_call call;
    for (int i = 0; i < 2; i++) CHECK_EQ(check_claim(h, "k", &call), CSM_JOINED);
    check_say(me, 'j');
    check_hear(me, '-');
}

static void a_full_waiter_table_is_a_code_and_the_dead_make_room(void) {
    csm_settings settings = CHECK_SMALL;
    settings.nodes = 3;
    csm *h = check_segment(&settings);
    csm_call owner, calls[3], more;
    CHECK_EQ(check_claim(h, "k", &owner), CSM_OWNER);
    struct check_child child = check_fork(join_twice_and_hang, h);
    check_hear(&child, 'j');
    CHECK_EQ(check_claim(h, "k", &calls[0]), CSM_JOINED);
    CHECK_EQ(check_claim(h, "k", &more), CSM_NO_NODE);
    csm_wait_leave(h, &calls[0]);
    CHECK_EQ(calls[0].waiter.serial, 0);
    CHECK_EQ(check_claim(h, "k", &calls[0]), CSM_JOINED);
    check_kill(&child);
    CHECK_EQ(check_info(h).waiters, 1);
    for (int i = 1; i < 3; i++) CHECK_EQ(check_claim(h, "k", &calls[i]), CSM_JOINED);
    CHECK_EQ(check_claim(h, "k", &more), CSM_NO_NODE);
    CHECK_EQ(check_publish(h, &owner, "k", "v", 1), CSM_OK);
    for (int i = 0; i < 3; i++) CHECK_EQ(csm_wait(h, &calls[i], 0), CSM_AGAIN);
    CHECK_EQ(check_info(h).waiters, 0);
}

CHECK_MAIN(CHECK_TEST(one_owner_the_others_join), CHECK_TEST(sleepers_of_all_processes_are_woken),
           CHECK_TEST(after_an_abandoned_flight_the_next_asker_computes), CHECK_TEST(a_signal_ends_a_wait),
           CHECK_TEST(a_ticket_is_good_once), CHECK_TEST(a_reset_voids_tickets_and_waits),
           CHECK_TEST(a_version_that_comes_back_is_another_generation), CHECK_TEST(exactly_one_takes_a_dead_owners_place),
           CHECK_TEST(an_asker_takes_a_dead_owners_place), CHECK_TEST(owners_killed_while_they_publish_leave_nothing),
           CHECK_TEST(a_given_up_flight_is_taken_over), CHECK_TEST(giving_up_late_does_not_revive_the_next_flight),
           CHECK_TEST(a_full_flight_table_is_a_code), CHECK_TEST(flights_of_the_dead_are_reaped_when_the_table_is_full),
           CHECK_TEST(a_full_waiter_table_is_a_code_and_the_dead_make_room))
