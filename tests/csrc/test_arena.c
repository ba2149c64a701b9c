/* test_arena.c holds arena.c to:
 *   - no two entries or reservations overlap, and every granule of an entered chunk is accounted for at any time;
 *   - space that was reserved and not used is used again, at once;
 *   - a chunk that a live process pins, reader or late writer, is passed over, and used again after the next reset; a
 *     dead one's pins bind nobody;
 *   - all of memory_limit can be filled, to the last granule of a partial last chunk, and not more;
 *   - what finds no room is a code: too large, full, no pages left. Never a signal. */
#include "check.h"

#include "arena.h"
#include "lock.h"

#include <sched.h>
#include <sys/mount.h>

enum { FLIGHTS = 48 };

/* Flights whose reservations a test makes by itself: the real ones of as many claims, so that verify counts them. */
static csm_call calls[1024];

static void claim_flights(csm *h, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) CHECK_EQ(check_claim(h, check_key("flight", i), &calls[i]), CSM_OWNER);
}

static struct csm_flight *flight_of(csm *h, uint32_t i) { return &h->flights[calls[i].ticket.flight]; }
static uint64_t reserved(csm *h, uint32_t i) { return csm_load(&flight_of(h, i)->reserved); }
static uint64_t first_of(csm *h, uint32_t i) { return csm_extent_first(reserved(h, i)); }

static int reserve(csm *h, uint32_t i, uint64_t granules) {
    CHECK_EQ(csm_lock(h), CSM_OK);
    uint64_t extent;
    int code = csm_arena_reserve_locked(h, csm_generation(h), flight_of(h, i), granules, &extent);
    csm_unlock(h);
    if (code == CSM_OK) CHECK(reserved(h, i) == extent && csm_extent_granules(extent) == granules);
    return code;
}

static void give_back(csm *h, uint32_t i) {
    CHECK_EQ(csm_lock(h), CSM_OK);
    csm_arena_return_locked(h, csm_generation(h), flight_of(h, i));
    csm_unlock(h);
    CHECK_EQ(reserved(h, i), 0);
}

/* Stores values of 1000 bytes until there is no room; how many. */
static uint32_t fill(csm *h, uint64_t seed) {
    for (uint32_t i = 0;; i++) {
        int code = check_store(h, check_key("of 1000", i), 1000, seed + i);
        if (code == CSM_OK) continue;
        CHECK_EQ(code, CSM_FULL_ARENA);
        return i;
    }
}

static void check_filled_with(csm *h, uint32_t n, uint64_t seed) {
    for (uint32_t i = 0; i < n; i++) CHECK(check_has(h, check_key("of 1000", i), 1000, seed + i));
}

/* ---- reservations */

static void reservations_follow_one_another_through_the_chunks(void) {
    csm *h = check_segment(&CHECK_SMALL);
    claim_flights(h, 5);
    static const uint64_t SIZES[] = {1, 255, 256, 1000, 7}; /* a chunk is 256 granules */
    uint64_t at = 0;
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_EQ(reserve(h, i, SIZES[i]), CSM_OK);
        CHECK_EQ(first_of(h, i), at);
        at += SIZES[i];
        CHECK_EQ(check_info(h).chunks_entered, (at + 255) / 256);
        check_sound(h);
    }
}

static void what_is_given_back_is_used_again(void) {
    csm *h = check_segment(&CHECK_SMALL);
    claim_flights(h, 6);
    for (uint32_t i = 0; i < 5; i++) CHECK_EQ(reserve(h, i, 100), CSM_OK);
    give_back(h, 4); /* the last: the run moves back */
    CHECK_EQ(reserve(h, 4, 30), CSM_OK);
    CHECK_EQ(first_of(h, 4), 400);
    give_back(h, 2); /* neighbours become one hole, in either order */
    give_back(h, 1);
    check_sound(h);
    CHECK_EQ(reserve(h, 1, 200), CSM_OK);
    CHECK_EQ(first_of(h, 1), 100);
    give_back(h, 1);
    CHECK_EQ(reserve(h, 1, 50), CSM_OK); /* the front of the hole */
    CHECK_EQ(reserve(h, 2, 150), CSM_OK);
    CHECK_EQ(first_of(h, 1), 100);
    CHECK_EQ(first_of(h, 2), 150);
    give_back(h, 0);
    give_back(h, 2);
    CHECK_EQ(reserve(h, 5, 90), CSM_OK); /* the smallest hole that will do */
    CHECK_EQ(first_of(h, 5), 0);
    check_sound(h);
}

static void random_reservations_never_overlap(void) {
    csm *h = check_segment(&CHECK_SMALL);
    claim_flights(h, FLIGHTS);
    uint64_t random = 7, refused = 0;
    bool held[FLIGHTS] = {false};
    unsigned char owner[CSM_MIN_LIMIT / CSM_GRANULE] = {0};
    for (int step = 0; step < 6000; step++) {
        uint32_t i = (uint32_t)(check_random(&random) % FLIGHTS);
        if (held[i]) {
            for (uint64_t g = 0; g < csm_extent_granules(reserved(h, i)); g++) owner[first_of(h, i) + g] = 0;
            give_back(h, i);
            held[i] = false;
        } else {
            uint64_t granules = 1 + check_random(&random) % (step % 5 ? 100 : 600);
            int code = reserve(h, i, granules);
            CHECK(code == CSM_OK || code == CSM_FULL_ARENA);
            held[i] = code == CSM_OK;
            refused += code != CSM_OK;
            for (uint64_t g = 0; g < granules && held[i]; g++) {
                CHECK_EQ(owner[first_of(h, i) + g], 0);
                owner[first_of(h, i) + g] = (unsigned char)(i + 1);
            }
        }
        check_sound(h);
    }
    CHECK(refused > 0);
    for (uint32_t i = 0; i < FLIGHTS; i++)
        if (held[i]) give_back(h, i);
    check_sound(h);
    CHECK_EQ(check_stat(h, CSM_STAT_STRANDED_BYTES), 0);
}

static void more_holes_than_the_table_holds_are_stranded_until_the_reset(void) {
    csm_settings settings = CHECK_SMALL;
    settings.flights = 1024;
    csm *h = check_segment(&settings);
    uint32_t everything = fill(h, 1);
    check_reset(h);
    claim_flights(h, 1001);
    for (uint32_t i = 0; i < 1000; i++) CHECK_EQ(reserve(h, i, i == 500 ? 40 : 2), CSM_OK);
    CHECK_EQ(reserve(h, 1000, 1), CSM_OK); /* so that nothing goes back to the run */
    for (uint32_t i = 1; i < 600; i += 2) give_back(h, i); /* 300 of them, no two neighbours */
    CHECK_EQ(check_stat(h, CSM_STAT_STRANDED_BYTES), (300 - CSM_HOLES) * 2 * CSM_GRANULE);
    check_sound(h);
    uint64_t large = first_of(h, 500); /* a larger one takes a smaller one's place in the table */
    give_back(h, 500);
    CHECK_EQ(reserve(h, 501, 40), CSM_OK);
    CHECK(first_of(h, 501) <= large && large < first_of(h, 501) + 40);
    check_sound(h);
    for (uint32_t i = 0; i < 1001; i++) CHECK_EQ(csm_abandon(h, &calls[i]), CSM_OK);
    check_sound(h);
    check_reset(h);
    CHECK_EQ(fill(h, 2), everything);
    check_sound(h);
}

/* ---- full */

static void nothing_larger_than_the_arena(void) {
    csm *h = check_segment(&CHECK_SMALL);
    claim_flights(h, 2);
    CHECK_EQ(reserve(h, 0, CSM_MIN_LIMIT / CSM_GRANULE + 1), CSM_TOO_LARGE);
    CHECK_EQ(reserve(h, 0, CSM_MIN_LIMIT / CSM_GRANULE), CSM_OK);
    CHECK_EQ(reserve(h, 1, 1), CSM_FULL_ARENA);
    CHECK_EQ(check_info(h).full, 1);
    give_back(h, 0);
    CHECK_EQ(check_info(h).full, 0);
    CHECK_EQ(reserve(h, 1, 1), CSM_OK); /* at once */
    CHECK_EQ(csm_abandon(h, &calls[0]), CSM_OK);
    CHECK_EQ(csm_abandon(h, &calls[1]), CSM_OK);
    CHECK_EQ(check_store(h, "too large", CSM_MIN_LIMIT, 1), CSM_TOO_LARGE);
    CHECK_EQ(check_store(h, "as large as can be", CSM_MIN_LIMIT - 96, 1), CSM_OK); /* header, key, alignment */
    CHECK(check_has(h, "as large as can be", CSM_MIN_LIMIT - 96, 1));
    check_sound(h);
}

/* Entries of two granules fill any memory_limit but for an odd last one. */
static void the_last_chunk_may_be_a_partial_one(void) {
    static const uint64_t EXTRA[] = {0, 16, 32, 4000, 4096, 4112};
    for (size_t i = 0; i < sizeof EXTRA / sizeof *EXTRA; i++) {
        csm_settings settings = CHECK_SMALL;
        settings.memory_limit = CSM_MIN_LIMIT + EXTRA[i];
        csm *h = check_segment(&settings);
        uint64_t fit = settings.memory_limit / 32;
        for (uint32_t n = 0; n <= fit; n++)
            CHECK_EQ(check_store(h, check_key("no value", n), 0, 0), n < fit ? CSM_OK : CSM_FULL_ARENA);
        CHECK_EQ(check_info(h).bytes_used, fit * 32);
        check_sound(h);
        csm_leave(h);
    }
}

static void memory_is_taken_as_the_cache_fills(void) {
    csm_settings settings = CHECK_SMALL;
    settings.memory_limit = 8 << 20;
    csm *h = check_segment(&settings);
    uint64_t before = check_info(h).reserved_bytes;
    CHECK(before < 1 << 20);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQ(check_store(h, check_key("large", i), 1000000, i), CSM_OK);
        uint64_t now = check_info(h).reserved_bytes, chunks = check_info(h).chunks_entered;
        CHECK(now >= before + (i + 1) * 1000000);
        CHECK(now <= before + chunks * check_info(h).chunk_bytes + (128 << 10)); /* and a piece of the log */
    }
    uint64_t full = check_info(h).reserved_bytes;
    for (uint32_t round = 0; round < 5; round++) { /* after a reset the same pages serve again */
        check_reset(h);
        for (uint32_t i = 0; i < 4; i++) CHECK_EQ(check_store(h, check_key("large", i), 1000000, i + round), CSM_OK);
    }
    CHECK_EQ(check_info(h).reserved_bytes, full);
}

/* On a filesystem of its own, which is smaller than the segment wants to be. */
static void no_pages_left_is_a_code(void) {
    char directory[] = "/tmp/coopshm-check.XXXXXX", path[64];
    CHECK(mkdtemp(directory));
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", directory, "tmpfs", 0, "size=2m") != 0) {
        printf("       not tested: mounting a filesystem of its own: %s\n", strerror(errno));
        rmdir(directory);
        return;
    }
    snprintf(path, sizeof path, "%s/segment", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    csm_settings settings = CHECK_SMALL;
    settings.memory_limit = 8 << 20;
    csm *h = check_join(check_open(fd, &settings)), *other = check_another(h);
    uint32_t stored = 0;
    for (int code = CSM_OK; code == CSM_OK; stored += code == CSM_OK) {
        code = check_store(h, check_key("of 1000", stored), 1000, stored);
        if (code != CSM_OK) CHECK_EQ(code, CSM_NO_SPACE);
    }
    CHECK(stored > 1000);
    check_filled_with(other, stored, 0);
    csm_call owner, waiter; /* the outcome finds no pages either: the waiter shall compute by itself */
    CHECK_EQ(check_claim(h, "large", &owner), CSM_OWNER);
    CHECK_EQ(check_claim(other, "large", &waiter), CSM_JOINED);
    unsigned char *data = calloc(1, 1 << 20);
    CHECK_EQ(check_publish(h, &owner, "large", data, 1 << 20), CSM_NO_SPACE);
    CHECK_EQ(csm_wait(other, &waiter, 0), CSM_OUTCOME);
    CHECK_EQ(waiter.waiter.outcome_kind, CSM_UNSHAREABLE);
    CHECK_EQ(csm_outcome_read(other, &waiter, NULL), CSM_OK);
    free(data);
    check_sound(h);
    int created; /* nor does a second segment find room */
    csm *none;
    strcat(path, "2");
    int second = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_EQ(csm_open(second, &settings, 1, &none, &created), CSM_NO_SPACE);
    struct stat st;
    CHECK(fstat(second, &st) == 0 && st.st_size == 0); /* blank: to be tried again */
    close(second);
    close(fd);
    umount2(directory, MNT_DETACH);
    rmdir(directory);
}

/* ---- pins */

static void a_chunk_that_a_view_pins_is_passed_over(void) {
    csm *h = check_segment(&CHECK_SMALL), *reader = check_another(h);
    uint32_t everything = fill(h, 0);
    csm_view *view;
    CHECK_EQ(csm_view_acquire(reader, "of 1000 30", 10, &view), CSM_OK);
    uint64_t pinned = view->last_chunk - view->first_chunk + 1;
    CHECK_EQ(check_info(h).pinned_chunks, pinned);
    for (uint64_t round = 1; round <= 3; round++) {
        check_reset(h);
        uint32_t n = fill(h, round * 1000);
        CHECK(n < everything && n >= everything - 4 * (pinned + 1)); /* and what is left over on both sides of it */
        CHECK(check_filled(view->data, 1000, 30));
        check_filled_with(reader, n, round * 1000);
        for (uint64_t c = view->first_chunk; c <= view->last_chunk; c++)
            CHECK(csm_load(&h->chunks[c].entered) != csm_generation(h));
        check_sound(h);
    }
    csm_view_release(view);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    CHECK_EQ(check_store(h, "smaller", 900, 1), CSM_OK); /* even in this generation, for who has not been refused */
    check_sound(h);
    check_reset(h);
    CHECK_EQ(fill(h, 4000), everything);
    check_sound(h);
}

/* What the run leaves behind in front of a pinned chunk is not lost. */
static void the_rest_in_front_of_a_pinned_chunk_is_used(void) {
    csm *h = check_segment(&CHECK_SMALL);
    CHECK_EQ(check_store(h, "chunk 0", 4000, 1), CSM_OK);
    CHECK_EQ(check_store(h, "chunk 0 and 1", 3000, 1), CSM_OK);
    CHECK_EQ(check_store(h, "chunk 1 and 2", 3000, 2), CSM_OK);
    csm_view *view;
    CHECK_EQ(csm_view_acquire(h, "chunk 1 and 2", 13, &view), CSM_OK);
    CHECK_EQ(view->first_chunk, 1);
    CHECK_EQ(view->last_chunk, 2);
    check_reset(h);
    claim_flights(h, 4);
    CHECK_EQ(reserve(h, 0, 200), CSM_OK);
    CHECK_EQ(first_of(h, 0), 0);
    CHECK_EQ(reserve(h, 1, 100), CSM_OK); /* does not fit into the 56 granules before chunk 1 */
    CHECK_EQ(first_of(h, 1), 3 * 256);
    CHECK_EQ(reserve(h, 2, 56), CSM_OK);
    CHECK_EQ(first_of(h, 2), 200);
    CHECK_EQ(reserve(h, 3, 14 * 256), CSM_FULL_ARENA);
    check_sound(h);
    csm_view_release(view);
}

static void publish_late(struct check_child *me, csm *h) {
    csm_call call;
    CHECK_EQ(check_claim(h, "late", &call), CSM_OWNER);
    csm_piece pieces[] = {{"begins", 6}, check_stopping_piece(3000)};
    CHECK_EQ(csm_publish(h, &call, "late", 4, CSM_VALUE, 7, pieces, 2), CSM_STALE);
    check_say(me, 'd');
}

/* It is stopped between two bytes of its copy, and goes on two generations later. */
static void a_late_writer_scribbles_over_nothing(void) {
    csm *h = check_segment(&CHECK_SMALL);
    uint32_t everything = fill(h, 0);
    check_reset(h);
    struct check_child writer = check_fork(publish_late, h);
    check_stopped(&writer);
    CHECK_EQ(check_info(h).pinned_chunks, 1);
    check_sound(h);
    check_reset(h);
    check_reset(h);
    uint32_t n = fill(h, 1000);
    CHECK(n < everything && n >= everything - 8);
    CHECK(csm_load(&h->chunks[0].entered) != csm_generation(h));
    check_continue(&writer);
    check_hear(&writer, 'd');
    check_filled_with(h, n, 1000);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    check_end(&writer);
    check_sound(h);
    check_reset(h);
    CHECK_EQ(fill(h, 2000), everything);
}

static void a_dead_writers_pins_bind_nobody(void) {
    csm *other = check_segment(&CHECK_SMALL), *h = check_another(other);
    uint32_t everything = fill(other, 0);
    check_reset(h);
    struct check_child writer = check_fork(publish_late, h);
    check_stopped(&writer);
    check_kill(&writer);
    CHECK_EQ(check_info(h).pinned_chunks, 0);
    check_sound(h); /* its reservation is the dead flight's */
    CHECK(fill(h, 1000) >= everything - 1); /* which is reaped by who needs the room */
    CHECK_EQ(check_info(h).flights, 0);
    check_sound(h);
    check_reset(h);
    CHECK_EQ(fill(h, 2000), everything);
}

/* ---- everything at once, beside a model */

static void random_publishing_is_accounted_for_exactly(void) {
    enum { KEYS = 150, STEPS = 8000 };
    struct {
        bool stored, claimed;
        uint32_t bytes;
        uint64_t seed;
        csm_call call;
        csm *by;
    } model[KEYS] = {{.stored = false}};
    csm *handles[2];
    handles[0] = check_segment(&CHECK_SMALL);
    handles[1] = check_another(handles[0]);
    uint64_t random = 13, used = 0, entries = 0, full = 0;
    for (int step = 0; step < STEPS; step++) {
        csm *h = handles[check_random(&random) % 2];
        uint32_t k = (uint32_t)(check_random(&random) % KEYS);
        uint64_t what = check_random(&random) % 1000;
        const char *key = check_key("key", k);
        if (what < 3) {
            check_reset(h);
            for (uint32_t i = 0; i < KEYS; i++) model[i].stored = false; /* claims go on, and will find out */
            used = entries = 0;
        } else if (model[k].claimed) {
            bool stale = model[k].call.ticket.generation != csm_generation(h);
            unsigned char data[3000];
            int code, good = CSM_OK;
            check_fill(data, model[k].bytes, model[k].seed);
            if (what % 4 == 0) {
                code = csm_abandon(model[k].by, &model[k].call);
            } else if (what % 4 == 1) {
                code = check_publish_as(model[k].by, &model[k].call, key, CSM_FAILURE, data, model[k].bytes);
                good = CSM_NOT_STORED;
            } else {
                code = check_publish(model[k].by, &model[k].call, key, data, model[k].bytes);
                model[k].stored = code == CSM_OK;
                if (code == CSM_FULL_ARENA) {
                    good = code;
                    full++;
                }
            }
            CHECK_EQ(code, stale ? CSM_STALE : good);
            model[k].claimed = false;
            entries += model[k].stored;
            if (model[k].stored) used += csm_footprint(strlen(key), model[k].bytes) * CSM_GRANULE;
        } else if (!model[k].stored) {
            int code = check_claim(h, key, &model[k].call);
            if (code == CSM_NO_FLIGHT) continue;
            CHECK_EQ(code, CSM_OWNER);
            model[k].claimed = true;
            model[k].by = h;
            model[k].bytes = (uint32_t)(check_random(&random) % 3000);
            model[k].seed = check_random(&random);
        }
        CHECK_EQ(check_info(h).bytes_used, used);
        CHECK_EQ(check_info(h).entries, entries);
        if (step % 10 == 0) check_sound(h);
        if (step % 200) continue;
        for (uint32_t i = 0; i < KEYS; i++)
            CHECK_EQ(check_has(h, check_key("key", i), model[i].bytes, model[i].seed), model[i].stored);
    }
    CHECK(full > 0);
}

CHECK_MAIN(CHECK_TEST(reservations_follow_one_another_through_the_chunks), CHECK_TEST(what_is_given_back_is_used_again),
           CHECK_TEST(random_reservations_never_overlap),
           CHECK_TEST(more_holes_than_the_table_holds_are_stranded_until_the_reset),
           CHECK_TEST(nothing_larger_than_the_arena), CHECK_TEST(the_last_chunk_may_be_a_partial_one),
           CHECK_TEST(memory_is_taken_as_the_cache_fills), CHECK_TEST(no_pages_left_is_a_code),
           CHECK_TEST(a_chunk_that_a_view_pins_is_passed_over), CHECK_TEST(the_rest_in_front_of_a_pinned_chunk_is_used),
           CHECK_TEST(a_late_writer_scribbles_over_nothing), CHECK_TEST(a_dead_writers_pins_bind_nobody),
           CHECK_TEST(random_publishing_is_accounted_for_exactly))
