/* test_killed.c holds repair.c, and the order of the stores in all other files, to:
 *   - whoever is killed, at whatever instruction, in claim, publish, fail, abandon, take-over, reset, attach, create or in
 *     the repair after another's death: the next process finds, after its steal, a sound segment, every entry that was
 *     there before, no half-written one, no key that is stuck, and no space lost.
 *
 * A child does the work one instruction at a time. After each the object's bytes are compared with those before; when they
 * differ they are copied into a new object. On that one nobody holds a lock, so to who attaches every process of it has
 * been killed at that very moment. Every such copy is then looked at, put to use, and filled. */
#include "check.h"

#include "image.h"
#include "lock.h"
#include "step.h"

/* Small, so that a copy costs little: 16 chunks. */
static const csm_settings TINY = {.memory_limit = CSM_MIN_LIMIT, .max_items = 64, .rows = 4, .flights = 4, .nodes = 4};

enum { BEFORE = 5, NEW = 6, FITS = 32 }; /* FITS: values of 2000 bytes in all of the arena */

static size_t arena_at;              /* where the arena begins in the object */
static bool may_be_gone;              /* what is done makes or destroys a segment */
static uint64_t before_in_generation; /* which has the entries "before"; 0: none */
static unsigned char values[NEW][1500 * NEW]; /* of the keys "new": 1500 bytes times the number */

/* ---- what must hold after a death */

/* Makes room in the address space; a real process never unmaps a segment. */
static void forget(csm *h) {
    csm_leave(h);
    CHECK(munmap(h->base, h->geo.mapped_bytes) == 0);
}

static void check_usable(int fd) {
    csm *h;
    int created, own = csm_process_reopen(fd);
    int code = csm_open(own, &TINY, 0, &h, &created);
    if (code == CSM_GONE) { /* half-made, or destroyed: made anew under its name, by who comes next */
        CHECK(may_be_gone);
        close(own);
        return;
    }
    CHECK_EQ(code, CSM_OK);
    check_join(check_keep(h));
    check_sound(h);
    uint64_t generation = csm_generation(h);
    for (uint32_t i = 0; i < BEFORE; i++)
        CHECK(check_has(h, check_key("before", i), 1000 * i, i) || generation != before_in_generation);
    for (uint32_t i = 0; i < NEW; i++) {
        if (check_has(h, check_key("new", i), 1500 * i, i)) continue;
        csm_call call; /* no owner, no waiter and no lock-holder is left to be waited for */
        CHECK_EQ(check_claim(h, check_key("new", i), &call), CSM_OWNER);
        CHECK_EQ(csm_abandon(h, &call), CSM_OK);
    }
    csm_info info = check_info(h);
    CHECK_EQ(info.waiters, 0);
    for (uint32_t i = 0; info.entries < TINY.max_items && i < 3; i++) {
        int stored = check_store(h, check_key("small", i), 100, i);
        CHECK(stored == CSM_OK || stored == CSM_FULL_ARENA);
    }
    check_sound(h);
    check_reset(h);
    for (uint32_t i = 0; i <= FITS; i++)
        CHECK_EQ(check_store(h, check_key("after", i), 2000, i), i < FITS ? CSM_OK : CSM_FULL_ARENA);
    CHECK_EQ(check_info(h).flights, 0);
    check_sound(h);
    forget(h);
}

/* ---- killing at every store */

struct work {
    enum { OPENS, JOINS, HAS_JOINED } begins; /* what is still to be done, watched, before the body */
    void (*body)(csm *h);
};
static const struct work *doing;
static int object;

static void work(struct check_child *me, csm *h) {
    (void)me;
    (void)h;
    csm *mine = doing->begins == OPENS ? NULL : check_open(object, &TINY);
    if (doing->begins == HAS_JOINED) check_join(mine);
    step_begin();
    if (doing->begins == OPENS) mine = check_open(object, &TINY);
    if (doing->begins != HAS_JOINED) check_join(mine);
    doing->body(mine);
    step_end();
}

static void nothing(csm *h) { (void)h; }
static const struct work ATTACH = {OPENS, nothing}, REPAIR = {JOINS, nothing};

/* Does `w` on the object behind `fd`, and looks at all that it could leave behind. With `depth`, also at what is left when
 * the process that repairs after it is killed. How many different states there were. */
static uint32_t kill_at_every_store(int fd, const struct work *w, int depth) {
    struct image before = {.data = NULL}, now = {.data = NULL};
    uint32_t states = 0;
    doing = w;
    object = fd;
    struct check_child child = check_fork(work, NULL);
    step_attach(&child);
    image_read(fd, &before, 0, arena_at);
    while (step_once(&child)) {
        /* Without the arena: nobody sees its bytes before a word elsewhere says that they are there. */
        image_read(fd, &now, 0, arena_at);
        if (image_is(&before, &now)) continue;
        states++;
        image_read(fd, &now, arena_at, csm_segment_bytes(&TINY));
        int copy = image_object(&now);
        if (depth && image_lock(&now)) {
            states += kill_at_every_store(copy, &REPAIR, depth - 1);
            close(copy);
            copy = image_object(&now);
        }
        check_usable(copy);
        close(copy);
        image_swap(&before, &now);
        before.bytes = csm_min(before.bytes, arena_at);
    }
    check_kill(&child);
    free(before.data);
    free(now.data);
    return states;
}

/* `prepare` makes the segment that the work is done on: the entries "before", and what else it needs. */
static void kill_while(void (*body)(csm *h), void (*prepare)(csm *h), int depth) {
    if (!step_possible()) return;
    int fd = check_object();
    csm *h = check_join(check_open(fd, &TINY));
    for (uint32_t i = 0; i < BEFORE; i++) CHECK_EQ(check_store(h, check_key("before", i), 1000 * i, i), CSM_OK);
    if (prepare) prepare(h);
    for (uint32_t i = 0; i < NEW; i++) check_fill(values[i], 1500 * i, i);
    arena_at = h->geo.arena_off;
    before_in_generation = csm_generation(h);
    const struct work w = {HAS_JOINED, body};
    uint32_t states = kill_at_every_store(fd, &w, depth);
    CHECK(states > 5);
    printf("       %u states\n", states);
}

/* ---- the works */

/* As check_store, with a value that was made before: so that not the test's own loops are stepped through. */
static int store_new(csm *h, const char *key, uint32_t i) {
    csm_call call;
    CHECK_EQ(check_claim(h, key, &call), CSM_OWNER);
    return check_publish(h, &call, key, values[i], 1500 * i);
}

static void store_some(csm *h) {
    CHECK_EQ(store_new(h, "new 0", 0), CSM_OK);
    CHECK_EQ(store_new(h, "new 1", 1), CSM_OK);
    CHECK_EQ(store_new(h, "new 2", 2), CSM_OK);
}
static void killed_while_storing(void) { kill_while(store_some, NULL, 0); }

static void store_one(csm *h) { CHECK_EQ(store_new(h, "new 1", 1), CSM_OK); }
static void killed_while_repairing_after_one_killed_while_storing(void) { kill_while(store_one, NULL, 1); }

static void fail(csm *h) {
    csm_call owner, waiter;
    char data[600];
    CHECK_EQ(check_claim(h, "new 0", &owner), CSM_OWNER);
    CHECK_EQ(check_claim(h, "new 0", &waiter), CSM_JOINED);
    CHECK_EQ(csm_publish(h, &owner, "new 0", 5, CSM_FAILURE, 0, &(csm_piece){"no", 2}, 1), CSM_NOT_STORED);
    CHECK_EQ(csm_wait(h, &waiter, 0), CSM_OUTCOME);
    CHECK_EQ(csm_outcome_read(h, &waiter, data), CSM_OK);
    CHECK_EQ(check_claim(h, "new 0", &owner), CSM_OWNER);
    CHECK_EQ(check_claim(h, "new 0", &waiter), CSM_JOINED);
    csm_wait_leave(h, &waiter);
    CHECK_EQ(csm_abandon(h, &owner), CSM_OK);
}
static void killed_while_failing(void) { kill_while(fail, NULL, 0); }

static void fill_it(csm *h) {
    for (uint32_t i = 0; i < 40; i++) check_store(h, check_key("filler", i), 2000, i);
    CHECK_EQ(check_info(h).full, 1);
}
static void find_no_room(csm *h) { CHECK_EQ(store_new(h, "new 5", 5), CSM_FULL_ARENA); }
static void killed_while_the_arena_is_full(void) { kill_while(find_no_room, fill_it, 0); }

static void die_in_publish(struct check_child *me, csm *h) {
    (void)me;
    csm_call calls[4];
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(check_claim(h, check_key("new", i), &calls[i]), CSM_OWNER);
    csm_piece piece = check_stopping_piece(4000);
    csm_publish(h, &calls[1], "new 1", 5, CSM_VALUE, 7, &piece, 1);
}
/* Four flights of a dead owner, one of them with room reserved: the table is full. */
static void leave_flights(csm *h) {
    struct check_child child = check_fork(die_in_publish, h);
    check_stopped(&child);
    check_kill(&child);
    check_sound(h);
}
static void take_over(csm *h) {
    CHECK_EQ(store_new(h, "new 1", 1), CSM_OK);
    CHECK_EQ(store_new(h, "new 2", 2), CSM_OK);
}
static void killed_while_taking_over(void) { kill_while(take_over, leave_flights, 0); }
static void killed_while_repairing_after_a_take_over(void) { kill_while(store_one, leave_flights, 1); }

static void reap(csm *h) { CHECK_EQ(store_new(h, "new 5", 5), CSM_OK); }
static void killed_while_reaping(void) { kill_while(reap, leave_flights, 0); }

/* The run is to jump over a pinned chunk, and to leave a hole in front of it. */
static void pin_a_chunk(csm *h) {
    static csm_view *view; /* never released */
    CHECK_EQ(check_store(h, "between", 3000, 0), CSM_OK);
    CHECK_EQ(check_store(h, "pinned", 100, 0), CSM_OK);
    CHECK_EQ(csm_view_acquire(h, "pinned", 6, &view), CSM_OK);
    CHECK_EQ(view->first_chunk, 3);
    check_reset(h);
    for (uint32_t i = 0; i < BEFORE; i++) CHECK_EQ(check_store(h, check_key("before", i), 1000 * i, i), CSM_OK);
}
static void jump(csm *h) {
    CHECK_EQ(store_new(h, "new 5", 5), CSM_OK);
    CHECK_EQ(csm_load(&h->header->epoch[0].holes_used), 1);
    CHECK_EQ(store_new(h, "new 0", 0), CSM_OK);
}
static void killed_while_passing_a_pinned_chunk(void) { kill_while(jump, pin_a_chunk, 0); }

static void reset_and_store(csm *h) {
    check_reset(h);
    CHECK_EQ(store_new(h, "new 1", 1), CSM_OK);
    check_reset(h);
}
static void killed_while_resetting(void) { kill_while(reset_and_store, NULL, 0); }

static void destroy(csm *h) { CHECK_EQ(csm_destroy(h), CSM_OK); }
static void killed_while_destroying(void) {
    may_be_gone = true;
    kill_while(destroy, NULL, 0);
}

static void killed_while_creating_and_attaching(void) {
    if (!step_possible()) return;
    may_be_gone = true;
    int fd = check_object();
    arena_at = csm_segment_bytes(&TINY) - TINY.memory_limit;
    uint32_t creating = kill_at_every_store(fd, &ATTACH, 0), attaching = kill_at_every_store(fd, &ATTACH, 0);
    CHECK(creating > 20 && attaching > 3);
    printf("       %u and %u states\n", creating, attaching);
}

CHECK_MAIN(CHECK_TEST(killed_while_storing), CHECK_TEST(killed_while_repairing_after_one_killed_while_storing),
           CHECK_TEST(killed_while_failing), CHECK_TEST(killed_while_the_arena_is_full),
           CHECK_TEST(killed_while_taking_over), CHECK_TEST(killed_while_repairing_after_a_take_over),
           CHECK_TEST(killed_while_reaping), CHECK_TEST(killed_while_passing_a_pinned_chunk),
           CHECK_TEST(killed_while_resetting), CHECK_TEST(killed_while_destroying),
           CHECK_TEST(killed_while_creating_and_attaching))
