/* test_stats.c holds stats.c and describe.c to:
 *   - what processes count is summed exactly, and outlives them;
 *   - the time of a computation counts from when its present owner began, that of a wait from joining to leaving;
 *   - a row remembers its slowest computations, one per key, those of the generation in force first; a record that was half
 *     written, or damaged, is not shown;
 *   - pins, chunks, rows and the last reset are told as they are. */
#include "check.h"

#include "stats.h"

static uint64_t sum(const csm_durations *d) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < CSM_BUCKETS; i++) n += d->buckets[i];
    return n;
}

static uint64_t bucket_of(uint64_t ns) {
    for (int i = 0;; i++)
        if (csm_bucket_ns(i) == 0 || ns <= csm_bucket_ns(i)) return (uint64_t)i;
}

/* Computes `key` as if that had taken `ns`. The code of csm_publish. */
static int compute(csm *h, const char *key, uint64_t ns) {
    csm_call call;
    CHECK_EQ(check_claim(h, key, &call), CSM_OWNER);
    call.ticket.began_ns -= ns;
    return check_publish(h, &call, key, "value", 5);
}

static void buckets_grow_from_a_millisecond_to_a_hundred_seconds(void) {
    CHECK_EQ(csm_bucket_ns(0), 1000000);
    CHECK_EQ(csm_bucket_ns(CSM_BUCKETS - 2), 100000000000);
    CHECK_EQ(csm_bucket_ns(CSM_BUCKETS - 1), 0);
    CHECK_EQ(csm_bucket_ns(-1), 0);
    CHECK_EQ(csm_bucket_ns(CSM_BUCKETS), 0);
    for (int i = 1; i < (int)CSM_BUCKETS - 1; i++) CHECK(csm_bucket_ns(i) > csm_bucket_ns(i - 1));
}

static void a_computation_counts_once_with_its_time(void) {
    csm *h = check_segment(&CHECK_SMALL);
    static const uint64_t took[] = {0, 3000000, 700000000, UINT64_C(60000000000), UINT64_C(1000000000000)};
    enum { N = sizeof took / sizeof *took };
    uint64_t want[CSM_BUCKETS] = {0}, total = 0;
    uint64_t before = csm_now_ns();
    for (uint64_t i = 0; i < N; i++) {
        CHECK_EQ(compute(h, check_key("k", i), took[i]), CSM_OK);
        total += took[i];
    }
    uint64_t slack = csm_now_ns() - before;
    csm_info info = check_info(h);
    CHECK_EQ(info.stats[CSM_STAT_COMPUTATIONS], N);
    CHECK_EQ(info.stats[CSM_STAT_STORED], N);
    CHECK_EQ(info.stats[CSM_STAT_STORED_BYTES], info.bytes_used);
    CHECK_EQ(sum(&info.compute), N);
    CHECK(info.compute.total_ns >= total && info.compute.total_ns <= total + slack);
    CHECK(info.compute.max_ns >= took[N - 1] && info.compute.max_ns <= took[N - 1] + slack);
    if (slack < 1000000) { /* the machine did not stall: then each is in the bucket that its own time says */
        for (uint64_t i = 0; i < N; i++) want[bucket_of(took[i] + 1)]++;
        CHECK(memcmp(want, info.compute.buckets, sizeof want) == 0);
    }
    CHECK_EQ(info.compute.buckets[CSM_BUCKETS - 1], 1); /* longer than any bound */
    CHECK_EQ(sum(&info.wait), 0);
}

static void each_way_to_end_a_computation_counts(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call call;
    CHECK_EQ(check_claim(h, "failure", &call), CSM_OWNER);
    CHECK_EQ(check_publish_as(h, &call, "failure", CSM_FAILURE, "x", 1), CSM_NOT_STORED);
    CHECK_EQ(check_publish(h, &call, "failure", "x", 1), CSM_STALE); /* a spent ticket is no computation */
    CHECK_EQ(check_claim(h, "uncached", &call), CSM_OWNER);
    CHECK_EQ(check_publish_as(h, &call, "uncached", CSM_UNCACHED, "x", 1), CSM_NOT_STORED);
    CHECK_EQ(check_claim(h, "abandoned", &call), CSM_OWNER);
    CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    CHECK_EQ(check_claim(h, "too late", &call), CSM_OWNER);
    check_reset(h);
    CHECK_EQ(check_publish(h, &call, "too late", "x", 1), CSM_STALE);
    csm_info info = check_info(h);
    CHECK_EQ(sum(&info.compute), 4);
    CHECK_EQ(info.stats[CSM_STAT_COMPUTATIONS], 4);
    CHECK_EQ(info.stats[CSM_STAT_STORED], 0);
}

static void a_wait_counts_from_joining_to_leaving_however_often_it_is_looked_after(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, waiter;
    CHECK_EQ(check_claim(a, "k", &owner), CSM_OWNER);
    CHECK_EQ(check_claim(b, "k", &waiter), CSM_JOINED);
    waiter.waiter.joined_ns -= 3000000000;
    for (int i = 0; i < 5; i++) CHECK_EQ(csm_wait(b, &waiter, 0), CSM_TIMEOUT);
    csm_info info = check_info(a);
    CHECK_EQ(sum(&info.wait), 0);
    CHECK_EQ(check_publish(a, &owner, "k", "v", 1), CSM_OK);
    CHECK_EQ(csm_wait(b, &waiter, 0), CSM_AGAIN);
    csm_wait_leave(b, &waiter); /* it has left */
    info = check_info(a);
    CHECK_EQ(sum(&info.wait), 1);
    CHECK(info.wait.max_ns >= 3000000000 && info.wait.total_ns == info.wait.max_ns);
    CHECK_EQ(info.stats[CSM_STAT_WAITS], 1);
}

static void a_takeover_begins_anew(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_call owner, heir;
    CHECK_EQ(check_claim(a, "k", &owner), CSM_OWNER);
    CHECK_EQ(owner.ticket.term, 0);
    CHECK_EQ(owner.ticket.former_pid, 0);
    a->flights[owner.ticket.flight].started_ns -= UINT64_C(50000000000);
    a->flights[owner.ticket.flight].pid = 4711; /* both handles are of one process */
    csm_leave(a);
    uint64_t before = csm_now_ns();
    CHECK_EQ(check_claim(b, "k", &heir), CSM_OWNER);
    CHECK_EQ(heir.ticket.term, 1);
    CHECK_EQ(heir.ticket.former_pid, 4711);
    CHECK(heir.ticket.began_ns >= before);
    csm_flight_info flight;
    CHECK_EQ(csm_flights(b, &flight, 1), 1);
    CHECK_EQ(flight.takeovers, 1);
    CHECK_EQ(flight.role, CSM_APP);
    CHECK_EQ(flight.row, csm_row(b));
    CHECK_EQ(flight.started_ns, heir.ticket.began_ns);
    CHECK_EQ(check_publish(b, &heir, "k", "v", 1), CSM_OK);
    CHECK(check_info(b).compute.max_ns <= csm_now_ns() - before);
}

static void a_flight_tells_what_it_is_a_part_of(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_call outer, inner;
    CHECK_EQ(check_claim(h, "outer", &outer), CSM_OWNER);
    CHECK_EQ(check_claim_in(h, "inner", &outer, &inner), CSM_OWNER);
    csm_flight_info flights[4];
    CHECK_EQ(csm_flights(h, flights, 4), 2);
    CHECK_EQ(flights[0].parent_id, 0);
    CHECK_EQ(flights[0].parent_serial, 0);
    CHECK_EQ(flights[1].parent_id, csm_id(h));
    CHECK_EQ(flights[1].parent_serial, flights[0].serial);
    CHECK_EQ(flights[1].alive, 1);
}

static void count_and_wait(struct check_child *me, csm *h) {
    CHECK_EQ(compute(h, "of the child", 2000000), CSM_OK);
    csm_count(h, CSM_STAT_BYPASS_TIMEOUT, 3);
    csm_call call;
    CHECK_EQ(check_claim(h, "never ends", &call), CSM_OWNER);
    check_say(me, 'r');
    check_hear(me, 'x');
}

static void what_a_killed_process_counted_stays_also_when_its_row_is_used_again(void) {
    csm *h = check_segment(&CHECK_SMALL);
    for (int i = 1; i <= 3; i++) {
        struct check_child c = check_fork(count_and_wait, h);
        check_hear(&c, 'r');
        check_kill(&c);
        csm_info info = check_info(h);
        CHECK_EQ(info.stats[CSM_STAT_COMPUTATIONS], 2 * i); /* one ended, one never will */
        CHECK_EQ(info.stats[CSM_STAT_BYPASS_TIMEOUT], 3 * i);
        CHECK_EQ(info.stats[CSM_STAT_STORED], i);
        CHECK_EQ(sum(&info.compute), i);
        CHECK_EQ(info.processes, 1);
        check_reset(h);
    }
    csm_row_info rows[8];
    CHECK_EQ(csm_describe_rows(h, rows, 8), 2);
    CHECK_EQ(rows[0].alive, 1);
    CHECK_EQ(rows[0].role, CSM_APP);
    CHECK_EQ(rows[0].pid, getpid());
    CHECK(rows[0].since_ns <= csm_wall_ns());
    CHECK_EQ(rows[1].alive, 0);
    CHECK_EQ(rows[1].stats[CSM_STAT_COMPUTATIONS], 6);
    CHECK_EQ(sum(&rows[1].compute), 3);
    CHECK_EQ(csm_describe_rows(h, rows, 1), 1);
}

static void what_was_counted_before_there_was_a_row_is_not_lost(void) {
    int fd = check_object();
    csm *h = check_open(fd, &CHECK_SMALL);
    close(fd);
    h->mine->stats[CSM_STAT_MISSES] = 5; /* as csm_stat_add, while all rows are taken */
    h->mine->wait = (struct csm_times){.total_ns = 7, .max_ns = 4, .buckets = {2}};
    CHECK_EQ(check_stat(h, CSM_STAT_MISSES), 5);
    CHECK_EQ(csm_row(h), CSM_NO_INDEX);
    check_join(h);
    csm_info info = check_info(h);
    CHECK_EQ(info.stats[CSM_STAT_MISSES], 5);
    CHECK_EQ(info.wait.total_ns, 7);
    CHECK_EQ(info.wait.max_ns, 4);
    CHECK_EQ(sum(&info.wait), 2);
    CHECK_EQ(h->spare.wait.total_ns, 0);
}

/* ---- the slowest */

static void expect_slow(const csm_slow_info *found, const char *key, uint64_t ns, uint64_t generation) {
    CHECK_EQ(found->key_bytes, strlen(key));
    CHECK(memcmp(found->key, key, strlen(key)) == 0);
    CHECK(found->ns >= ns);
    CHECK_EQ(found->generation, generation);
    CHECK_EQ(found->pid, getpid());
    CHECK(found->at_ns <= csm_wall_ns());
}

static const uint64_t S = UINT64_C(100000000000); /* no stall of the machine is that long */

static void a_row_remembers_the_slowest_of_its_computations(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_slow_info found[20];
    CHECK_EQ(csm_slowest(h, found, 20), 0);
    for (uint64_t i = 0; i < 20; i++) CHECK_EQ(compute(h, check_key("k", i), (i * 7 % 20 + 1) * S), CSM_OK);
    CHECK_EQ(csm_slowest(h, found, 20), CSM_SLOWEST);
    for (uint64_t place = 0; place < CSM_SLOWEST; place++) {
        uint64_t i = 0;
        while (i * 7 % 20 + 1 != 20 - place) i++;
        expect_slow(&found[place], check_key("k", i), (20 - place) * S, csm_generation(h));
    }
    CHECK_EQ(csm_slowest(h, found, 3), 3); /* the three slowest, whatever the order in which the rows have them */
    for (uint64_t place = 0; place < 3; place++) CHECK(found[place].ns >= (20 - place) * S);
    CHECK_EQ(csm_slowest(h, found, 0), 0);
}

static void several_rows_are_merged(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    for (uint64_t i = 0; i < 10; i++) CHECK_EQ(compute(i % 2 ? a : b, check_key("k", i), (i + 1) * S), CSM_OK);
    csm_slow_info found[4];
    CHECK_EQ(csm_slowest(a, found, 4), 4);
    for (uint64_t i = 0; i < 4; i++) expect_slow(&found[i], check_key("k", 9 - i), (10 - i) * S, csm_generation(a));
}

static void a_key_is_remembered_once_by_its_longest_of_the_generation(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_slow_info found[8];
    static const uint64_t took[] = {3, 5, 4};
    for (int i = 0; i < 3; i++) {
        csm_call call;
        CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
        call.ticket.began_ns -= took[i] * S;
        CHECK_EQ(check_publish_as(h, &call, "k", CSM_UNCACHED, "v", 1), CSM_NOT_STORED);
    }
    CHECK_EQ(csm_slowest(h, found, 8), 1);
    expect_slow(&found[0], "k", 5 * S, csm_generation(h));
    CHECK(found[0].ns < 6 * S);
    check_reset(h);
    CHECK_EQ(compute(h, "k", 2 * S), CSM_OK);
    CHECK_EQ(csm_slowest(h, found, 8), 1);
    expect_slow(&found[0], "k", 2 * S, csm_generation(h));
    CHECK(found[0].ns < 3 * S);
}

static void those_of_older_generations_give_way(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_slow_info found[8];
    for (uint64_t i = 0; i < CSM_SLOWEST; i++) CHECK_EQ(compute(h, check_key("old", i), (10 + i) * S), CSM_OK);
    csm_call late;
    CHECK_EQ(check_claim(h, "late", &late), CSM_OWNER);
    late.ticket.began_ns -= 30 * S;
    check_reset(h);
    CHECK_EQ(compute(h, "new", S), CSM_OK);
    CHECK_EQ(csm_slowest(h, found, 8), CSM_SLOWEST);
    expect_slow(&found[CSM_SLOWEST - 1], "new", S, csm_generation(h));
    for (uint64_t i = 0; i < CSM_SLOWEST - 1; i++) CHECK(found[i].ns >= 11 * S); /* the fastest of them went */
    CHECK_EQ(check_publish(h, &late, "late", "v", 1), CSM_STALE);
    CHECK_EQ(csm_slowest(h, found, 8), CSM_SLOWEST);
    expect_slow(&found[0], "late", 30 * S, csm_generation(h) - 1);
    expect_slow(&found[CSM_SLOWEST - 1], "new", S, csm_generation(h));
}

static void the_next_owner_of_a_row_knows_what_it_remembers(void) {
    csm *h = check_segment(&CHECK_SMALL), *b = check_another(h);
    for (uint64_t i = 0; i < CSM_SLOWEST; i++) CHECK_EQ(compute(b, check_key("k", i), (10 + i) * S), CSM_OK);
    uint32_t row = csm_row(b);
    csm_leave(b);
    csm *c = check_another(h);
    CHECK_EQ(csm_row(c), row);
    CHECK_EQ(compute(c, "faster", S), CSM_OK);
    CHECK_EQ(compute(c, "slower", 30 * S), CSM_OK);
    csm_slow_info found[20];
    CHECK_EQ(csm_slowest(h, found, 20), CSM_SLOWEST);
    expect_slow(&found[0], "slower", 30 * S, csm_generation(h));
    expect_slow(&found[CSM_SLOWEST - 1], check_key("k", 1), 11 * S, csm_generation(h));
}

static void a_record_with_a_wrong_bit_is_not_shown_and_its_place_is_used_again(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(compute(h, "k", S), CSM_OK);
    csm_slow_info found[2];
    unsigned char *record = (unsigned char *)&h->mine->slow[0];
    for (uint64_t bit = 0; bit < sizeof h->mine->slow[0] * 8; bit++) {
        record[bit / 8] ^= (unsigned char)(1 << bit % 8);
        CHECK_EQ(csm_slowest(h, found, 2), 0);
        record[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    CHECK_EQ(csm_slowest(h, found, 2), 1);
    record[20] ^= 1;
    h->slow_of = 0; /* as the next owner of the row */
    CHECK_EQ(compute(h, "other", S / 2), CSM_OK);
    CHECK_EQ(csm_slowest(h, found, 2), 1);
    expect_slow(&found[0], "other", S / 2, csm_generation(h));
}

static void a_long_key_is_shown_in_part(void) {
    csm *h = check_segment(&CHECK_SMALL);
    char key[200];
    memset(key, 'k', sizeof key);
    key[sizeof key - 1] = 0;
    CHECK_EQ(compute(h, key, S), CSM_OK);
    key[sizeof key - 2] = 'x'; /* another one, which differs only where it is not shown */
    CHECK_EQ(compute(h, key, 2 * S), CSM_OK);
    csm_slow_info found[3];
    CHECK_EQ(csm_slowest(h, found, 3), 2);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(found[i].key_bytes, 199);
        CHECK(memcmp(found[i].key, key, sizeof found[i].key) == 0);
    }
}

/* ---- pins, chunks, resets, locks */

static void pins_are_told_by_process_and_chunk(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    CHECK_EQ(check_store(a, "k", 3000, 1), CSM_OK);
    CHECK_EQ(check_info(a).pinned_bytes, 0);
    csm_view *one, *two;
    CHECK_EQ(csm_view_acquire(b, "k", 1, &one), CSM_OK);
    CHECK_EQ(csm_view_acquire(b, "k", 1, &two), CSM_OK);
    csm_info info = check_info(a);
    CHECK_EQ(info.pinned_chunks, 1);
    CHECK_EQ(info.pinned_bytes, info.chunk_bytes);
    csm_row_info rows[8];
    CHECK_EQ(csm_describe_rows(a, rows, 8), 2);
    CHECK_EQ(rows[csm_row(a)].view_pins, 0);
    CHECK_EQ(rows[csm_row(b)].view_pins, 2);
    CHECK_EQ(rows[csm_row(b)].write_pins, 0);
    CHECK_EQ(rows[csm_row(b)].pinned_chunks, 1);
    CHECK_EQ(rows[csm_row(b)].pinned_bytes, info.chunk_bytes);
    csm_chunk_info chunks[CSM_MAX_CHUNKS];
    CHECK_EQ(csm_describe_chunks(a, chunks, CSM_MAX_CHUNKS), 16);
    CHECK_EQ(chunks[0].view_pins, 2);
    CHECK_EQ(chunks[1].view_pins, 0);
    CHECK_EQ(csm_describe_chunks(a, chunks, 3), 3);
    csm_view_release(one);
    csm_view_release(two);
    CHECK_EQ(check_info(a).pinned_bytes, 0);
}

static void chunks_tell_what_is_allocated(void) {
    csm *h = check_segment(&CHECK_SMALL);
    csm_chunk_info chunks[CSM_MAX_CHUNKS];
    for (uint64_t i = 0; i < 30; i++) {
        CHECK_EQ(check_store(h, check_key("k", i), 1000 + i * 10, i), CSM_OK);
        uint32_t n = csm_describe_chunks(h, chunks, CSM_MAX_CHUNKS);
        uint64_t allocated = 0, entered = 0, bytes = 0;
        for (uint32_t c = 0; c < n; c++) {
            allocated += chunks[c].allocated_bytes;
            entered += chunks[c].entered;
            bytes += chunks[c].bytes;
            CHECK(chunks[c].entered || chunks[c].allocated_bytes == 0);
            CHECK(chunks[c].backed || chunks[c].allocated_bytes == 0);
        }
        CHECK_EQ(allocated, check_info(h).bytes_used);
        CHECK_EQ(entered, check_info(h).chunks_entered);
        CHECK_EQ(bytes, h->geo.memory_limit);
    }
    check_reset(h);
    CHECK_EQ(csm_describe_chunks(h, chunks, CSM_MAX_CHUNKS), 16);
    for (int c = 0; c < 16; c++) CHECK(!chunks[c].entered && !chunks[c].allocated_bytes);
    CHECK_EQ(chunks[0].backed, 1);
}

static void the_last_chunk_may_be_smaller(void) {
    csm_settings settings = CHECK_SMALL;
    settings.memory_limit = CSM_MIN_LIMIT + 1000;
    csm *h = check_segment(&settings);
    csm_chunk_info chunks[CSM_MAX_CHUNKS];
    CHECK_EQ(csm_describe_chunks(h, chunks, CSM_MAX_CHUNKS), 17);
    CHECK_EQ(chunks[15].bytes, 4096);
    CHECK_EQ(chunks[16].bytes, 1000);
}

static void who_reset_is_known_and_told_once(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_reset_info info;
    csm_describe_reset(a, &info);
    CHECK_EQ(info.generation, 1);
    CHECK_EQ(info.pid, getpid());
    CHECK_EQ(info.version_bytes, 1);
    CHECK_EQ(info.version[0], '1');
    CHECK_EQ(info.former_bytes, 0);
    check_reset(b);
    csm_describe_reset(a, &info);
    CHECK_EQ(info.generation, 2);
    CHECK_EQ(info.pid, getpid());
    CHECK_EQ(info.uid, geteuid());
    CHECK(info.at_ns <= csm_wall_ns());
    CHECK_EQ(info.version_bytes, 1);
    CHECK_EQ(info.version[0], '2');
    CHECK_EQ(info.former_bytes, 1);
    CHECK_EQ(info.former[0], '1');
    CHECK_EQ(csm_tell_once(a, 1), 0); /* over */
    CHECK_EQ(csm_tell_once(a, 2), 1);
    CHECK_EQ(csm_tell_once(b, 2), 0);
    check_reset(b);
    CHECK_EQ(csm_tell_once(b, 3), 1);
    a->header->epoch[0].generation = 4; /* a flip that is under way has taken the former one's place */
    csm_describe_reset(a, &info);
    CHECK_EQ(info.generation, 3);
    CHECK_EQ(info.former_bytes, 0);
}

static void die_with_the_lock(struct check_child *me, csm *h) {
    CHECK_EQ(csm_process_enter(h), CSM_OK);
    csm_store(&h->header->write_lock, csm_self(h));
    check_say(me, 'r');
    check_hear(me, 'x');
}

static void who_takes_a_lock_from_the_dead_learns_from_whom(void) {
    csm *h = check_segment(&CHECK_SMALL);
    struct check_child c = check_fork(die_with_the_lock, h);
    check_hear(&c, 'r');
    CHECK_EQ(check_info(h).lock_pid, c.pid);
    check_kill(&c);
    CHECK_EQ(check_info(h).lock_pid, 0);
    uint64_t pid;
    CHECK_EQ(csm_stolen(h, 0, &pid), 0);
    csm_call call;
    CHECK_EQ(check_claim(h, "k", &call), CSM_OWNER);
    CHECK_EQ(call.steals, 1);
    CHECK_EQ(csm_stolen(h, 0, &pid), 1);
    CHECK_EQ(pid, c.pid);
    CHECK_EQ(csm_stolen(h, 0, &pid), 0);
    CHECK_EQ(csm_stolen(h, 1, &pid), 0);
    CHECK_EQ(check_publish(h, &call, "k", "v", 1), CSM_OK);
    CHECK_EQ(call.steals, 1);
    CHECK_EQ(csm_reset_lock(h, 0), CSM_OK);
    CHECK_EQ(check_info(h).reset_lock_pid, getpid());
    csm_reset_unlock(h);
    CHECK_EQ(check_info(h).reset_lock_pid, 0);
}

CHECK_MAIN(CHECK_TEST(buckets_grow_from_a_millisecond_to_a_hundred_seconds), CHECK_TEST(a_computation_counts_once_with_its_time),
           CHECK_TEST(each_way_to_end_a_computation_counts),
           CHECK_TEST(a_wait_counts_from_joining_to_leaving_however_often_it_is_looked_after), CHECK_TEST(a_takeover_begins_anew),
           CHECK_TEST(a_flight_tells_what_it_is_a_part_of),
           CHECK_TEST(what_a_killed_process_counted_stays_also_when_its_row_is_used_again),
           CHECK_TEST(what_was_counted_before_there_was_a_row_is_not_lost),
           CHECK_TEST(a_row_remembers_the_slowest_of_its_computations), CHECK_TEST(several_rows_are_merged),
           CHECK_TEST(a_key_is_remembered_once_by_its_longest_of_the_generation), CHECK_TEST(those_of_older_generations_give_way),
           CHECK_TEST(the_next_owner_of_a_row_knows_what_it_remembers),
           CHECK_TEST(a_record_with_a_wrong_bit_is_not_shown_and_its_place_is_used_again), CHECK_TEST(a_long_key_is_shown_in_part),
           CHECK_TEST(pins_are_told_by_process_and_chunk), CHECK_TEST(chunks_tell_what_is_allocated),
           CHECK_TEST(the_last_chunk_may_be_smaller), CHECK_TEST(who_reset_is_known_and_told_once),
           CHECK_TEST(who_takes_a_lock_from_the_dead_learns_from_whom))
