/* test_cache.c holds cache.c to:
 *   - a hit is the whole value, for keys and values of every size, small ones in place and large ones through a view;
 *   - a reader whom a reset overtakes, at whatever instruction, reads again, or gets what is right; never a mixture;
 *   - a view stays as it is and says which generation it is of;
 *   - entries are listed once, in the order they were stored, in batches, and of one generation;
 *   - who only looks on is counted nowhere, pins nothing, has no row, and does without the write lock. */
#include "check.h"

#include "step.h"

/* ---- sizes */

static void keys_and_values_of_every_size(void) {
    static const size_t KEYS[] = {0, 1, 15, 16, 17, 1000, 65535}, VALUES[] = {0, 1, 15, 16, 4095, 4096, 4097, 100000};
    csm *h = check_segment(&(csm_settings){.memory_limit = 16 << 20, .max_items = 100, .rows = 2, .flights = 2, .nodes = 2});
    static char key[65536];
    unsigned char *data = malloc(100000);
    for (size_t k = 0; k < sizeof KEYS / sizeof *KEYS; k++)
        for (size_t v = 0; v < sizeof VALUES / sizeof *VALUES; v++) {
            csm_call call = {.stalled_ns = 0};
            csm_view *view;
            memset(key, 'a' + (int)v, KEYS[k]);
            if (KEYS[k] == 0 && v > 0) continue; /* there is one key of no bytes */
            CHECK_EQ(csm_claim(h, key, KEYS[k], NULL, &call), CSM_OWNER);
            check_fill(data, VALUES[v], k * 10 + v);
            csm_piece piece = {data, VALUES[v]};
            CHECK_EQ(csm_publish(h, &call, key, KEYS[k], CSM_VALUE, (int)v, &piece, 1), CSM_OK);
            int64_t found = csm_find(h, key, KEYS[k]);
            CHECK(found > 0);
            CHECK_EQ(found & 31, v);
            CHECK_EQ(found >> 5 & 0x3fffff, VALUES[v]);
            CHECK_EQ(csm_view_acquire(h, key, KEYS[k], &view), CSM_OK);
            CHECK(view->data == csm_base(h) + (found >> 27) * 16 && view->bytes == VALUES[v] && view->format == v);
            CHECK(check_filled(view->data, VALUES[v], k * 10 + v));
            CHECK(VALUES[v] < CSM_LARGE || (uintptr_t)view->data % 64 == 0); /* arrays begin on a cache line */
            csm_view_release(view);
        }
    free(data);
    check_sound(h);
    CHECK_EQ(csm_claim(h, key, CSM_MAX_KEY + 1, NULL, &(csm_call){.stalled_ns = 0}), CSM_INVALID);
}

static void what_is_too_large_to_be_told_in_a_word_wants_a_view(void) {
    csm *h = check_segment(&(csm_settings){.memory_limit = 16 << 20, .max_items = 9, .rows = 2, .flights = 2, .nodes = 2});
    csm_view *view;
    CHECK_EQ(check_store(h, "below", (4 << 20) - 1, 1), CSM_OK);
    CHECK_EQ(check_store(h, "large", 4 << 20, 2), CSM_OK);
    CHECK(csm_find(h, "below", 5) > 0);
    CHECK_EQ(csm_find(h, "large", 5), -1);
    CHECK_EQ(csm_view_acquire(h, "large", 5, &view), CSM_OK);
    CHECK(view->bytes == 4 << 20 && check_filled(view->data, view->bytes, 2));
    CHECK_EQ(check_info(h).pinned_chunks, view->last_chunk - view->first_chunk + 1);
    csm_view_release(view);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    csm_view_release(NULL);
}

/* ---- a reset at any instruction of a hit */

enum { BYTES = 600 };

/* Generation `g` has the key with bytes of its own, and not where the last one had it: there is something else. */
static void fill_generation(csm *h) {
    uint64_t generation = csm_generation(h), in_front = generation % 3 * 4;
    for (uint64_t i = 0; i < in_front; i++) CHECK_EQ(check_store(h, check_key("front", i), BYTES, 1000 + i), CSM_OK);
    CHECK_EQ(check_store(h, "k", BYTES, generation), CSM_OK);
    for (uint64_t i = in_front; i < 12; i++) CHECK_EQ(check_store(h, check_key("behind", i), BYTES, 2000 + i), CSM_OK);
}

static void find_over_and_over(struct check_child *me, csm *h) {
    (void)me;
    unsigned char data[BYTES];
    for (;;) {
        step_begin();
        uint64_t generation = csm_generation(h), bytes = 0;
        int64_t found = csm_find(h, "k", 1);
        if (found > 0) {
            bytes = found >> 5 & 0x3fffff;
            if (bytes <= BYTES) csm_copy_racy(data, csm_base(h) + (found >> 27) * 16, bytes);
        }
        uint64_t after = csm_generation(h);
        step_end();
        if (after != generation) continue; /* it never happened */
        CHECK(found > 0 && bytes == BYTES && check_filled(data, BYTES, generation));
    }
}

static void view_over_and_over(struct check_child *me, csm *h) {
    (void)me;
    csm_view *view;
    for (;;) {
        step_begin();
        int code = csm_view_acquire(h, "k", 1, &view);
        step_end();
        CHECK_EQ(code, CSM_OK);
        CHECK(view->bytes == BYTES && check_filled(view->data, BYTES, view->generation));
        csm_view_release(view);
    }
}

/* Lets the child's section run n instructions, then resets and fills anew, then lets it end; for every n, or every so many. */
static void reset_within(void (*body)(struct check_child *me, csm *h)) {
    if (!step_possible()) return;
    csm *h = check_segment(&CHECK_SMALL);
    fill_generation(h);
    struct check_child child = check_fork(body, h);
    step_attach(&child);
    step_over(&child); /* once undisturbed */
    step_over(&child);
    bool ended = false;
    for (uint32_t n = 0; !ended; n += CHECK_SANITIZED ? 13 : 1) {
        for (uint32_t i = 0; i < n && !ended; i++) ended = !step_once(&child);
        for (int i = 0; i < 2; i++) { /* of two generations the older one's epoch is overwritten, too */
            check_reset(h);
            fill_generation(h);
        }
        if (!ended) step_over(&child); /* to its end */
        step_over(&child);             /* through its checks, to its next beginning */
        CHECK(n < 100000);
    }
    check_kill(&child);
    check_sound(h);
}

static void a_reset_at_any_instruction_of_a_look_up(void) { reset_within(find_over_and_over); }
static void a_reset_at_any_instruction_of_a_view(void) { reset_within(view_over_and_over); }

/* ---- lists */

static void entries_are_listed_in_the_order_they_were_stored(void) {
    enum { N = 300, BATCH = 256 };
    csm *h = check_segment(&CHECK_SMALL);
    unsigned char buffer[BATCH];
    for (uint32_t i = 0; i < N; i++) CHECK_EQ(check_store(h, check_key("key", N - i), i % 7, i), CSM_OK);
    uint64_t cursor = 0, generation = csm_generation(h);
    uint32_t listed = 0;
    int64_t bytes;
    while ((bytes = csm_entries(h, generation, &cursor, buffer, BATCH)) > 0) {
        CHECK(bytes <= BATCH);
        for (int64_t at = 0; at < bytes; listed++) {
            uint32_t head[2];
            uint64_t value_bytes;
            memcpy(head, buffer + at, 8);
            memcpy(&value_bytes, buffer + at + 8, 8);
            const char *key = check_key("key", N - listed);
            CHECK(head[0] == strlen(key) && memcmp(buffer + at + 16, key, head[0]) == 0);
            CHECK(head[1] == 7 && value_bytes == listed % 7);
            at += 16 + head[0];
        }
        CHECK_EQ(cursor, listed);
    }
    CHECK_EQ(bytes, 0);
    CHECK_EQ(listed, N);
    check_reset(h);
    cursor = 5;
    CHECK_EQ(csm_entries(h, generation, &cursor, buffer, BATCH), CSM_STALE);
    cursor = 0;
    CHECK_EQ(csm_entries(h, generation + 1, &cursor, buffer, BATCH), 0);
}

static void who_looks_on_leaves_no_trace_and_needs_no_lock(void) {
    csm *a = check_segment(&CHECK_SMALL), *h = check_open(csm_descriptor(a), &CHECK_SMALL);
    int flipped;
    uint64_t at, bytes;
    uint32_t format;
    char report[4096];
    CHECK_EQ(csm_join(h, CSM_OBSERVER, 0, NULL, 0, &flipped), CSM_OK);
    CHECK_EQ(check_store(a, "small", 10, 1), CSM_OK);
    CHECK_EQ(check_store(a, "large", 20000, 2), CSM_OK);
    uint64_t hits = check_stat(a, CSM_STAT_HITS), looks = check_stat(h, CSM_STAT_HITS);
    csm_store(&a->header->write_lock, csm_self(a)); /* a process that does not run holds it */
    CHECK_EQ(csm_peek(h, "small", 5, &at, &bytes, &format), CSM_OK);
    CHECK(bytes == 10 && format == 7 && check_filled(csm_base(h) + at, bytes, 1));
    CHECK_EQ(csm_peek(h, "large", 5, &at, &bytes, &format), CSM_OK);
    CHECK(bytes == 20000 && check_filled(csm_base(h) + at, bytes, 2));
    CHECK_EQ(csm_peek(h, "other", 5, &at, &bytes, &format), CSM_MISS);
    CHECK_EQ(csm_verify_entries(h, report, sizeof report), 0);
    CHECK_EQ(csm_self(h), 0);
    CHECK_EQ(check_info(a).rows_used, 1);
    CHECK_EQ(check_info(a).pinned_chunks, 0);
    CHECK_EQ(check_stat(a, CSM_STAT_HITS), hits);
    CHECK_EQ(check_stat(h, CSM_STAT_HITS), looks);
    CHECK_EQ(csm_verify(h, report, sizeof report), CSM_BUSY);
    csm_store(&a->header->write_lock, 0);

    /* What it finds: an entry that its key does not lead to, and a header that is not what it was. */
    CHECK_EQ(csm_peek(a, "small", 5, &at, &bytes, &format), CSM_OK);
    csm_base(a)[at - 16] ^= 1; /* its key */
    a->header->magic ^= 1;
    CHECK(csm_verify_entries(h, report, sizeof report) >= 2);
    CHECK(strstr(report, "magic damaged") && strstr(report, "does not lead there"));
    a->header->magic ^= 1;
    check_reset(a);
    CHECK_EQ(csm_verify_entries(h, report, sizeof report), 0);
    CHECK_EQ(csm_peek(h, "small", 5, &at, &bytes, &format), CSM_MISS);
    csm_leave(h);
}

static void versions_are_kept_whole(void) {
    csm *h = check_segment(&CHECK_SMALL);
    char version[CSM_VERSION_BYTES], small[4], given[CSM_VERSION_BYTES + 1];
    size_t bytes;
    uint64_t generation;
    CHECK_EQ(csm_version(h, version, sizeof version, &bytes, &generation), CSM_OK);
    CHECK(bytes == 1 && version[0] == '1' && generation == 1);
    memset(given, 'x', sizeof given);
    CHECK_EQ(csm_reset_commit(h, given, 3, 0), CSM_INVALID); /* without the reset lock */
    CHECK_EQ(csm_reset_lock(h, 0), CSM_OK);
    CHECK_EQ(csm_reset_commit(h, given, CSM_VERSION_BYTES + 1, 0), CSM_INVALID);
    CHECK_EQ(csm_reset_commit(h, given, CSM_VERSION_BYTES, 0), CSM_OK);
    csm_reset_unlock(h);
    CHECK_EQ(csm_version(h, version, sizeof version, &bytes, &generation), CSM_OK);
    CHECK(bytes == CSM_VERSION_BYTES && memcmp(version, given, bytes) == 0 && generation == 2);
    CHECK_EQ(csm_version(h, small, sizeof small, &bytes, &generation), CSM_OK);
    CHECK(bytes == sizeof small && memcmp(small, given, bytes) == 0);
}

static void one_process_warns_in_each_generation(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    CHECK_EQ(csm_warn_once(a, 1) + csm_warn_once(b, 1) + csm_warn_once(a, 1), 1);
    check_reset(a);
    CHECK_EQ(csm_warn_once(b, 1), 0);
    CHECK_EQ(csm_warn_once(b, 2) + csm_warn_once(a, 2), 1);
}

static void what_is_counted_is_summed_over_all_processes(void) {
    csm *a = check_segment(&CHECK_SMALL), *b = check_another(a);
    csm_count(a, CSM_STAT_MISSES, 3);
    csm_count(b, CSM_STAT_MISSES, 4);
    csm_count(b, -1, 1);
    csm_count(b, CSM_STATS, 1);
    CHECK_EQ(check_stat(a, CSM_STAT_MISSES), 7);
    CHECK_EQ(check_store(a, "k", 10, 1), CSM_OK);
    uint64_t before = check_stat(b, CSM_STAT_HITS);
    for (int i = 0; i < 5; i++) CHECK(csm_find(i % 2 ? a : b, "k", 1) > 0);
    CHECK_EQ(check_stat(b, CSM_STAT_HITS), before + 5);
    check_reset(a); /* counts are not of a generation */
    CHECK_EQ(check_stat(b, CSM_STAT_HITS), before + 5);
    csm_leave(b);
    CHECK_EQ(check_stat(a, CSM_STAT_MISSES), 7);
}

CHECK_MAIN(CHECK_TEST(keys_and_values_of_every_size), CHECK_TEST(what_is_too_large_to_be_told_in_a_word_wants_a_view),
           CHECK_TEST(a_reset_at_any_instruction_of_a_look_up), CHECK_TEST(a_reset_at_any_instruction_of_a_view),
           CHECK_TEST(entries_are_listed_in_the_order_they_were_stored), CHECK_TEST(versions_are_kept_whole),
           CHECK_TEST(who_looks_on_leaves_no_trace_and_needs_no_lock),
           CHECK_TEST(one_process_warns_in_each_generation), CHECK_TEST(what_is_counted_is_summed_over_all_processes))
