/* lock.c: see lock.h.
 *
 * Critical sections are a few hundred nanoseconds, so a waiter first spins. On a machine with fewer cores than
 * runnable threads the holder is most likely preempted, and spinning only delays it: after CSM_SPINS it naps.
 * Naps rather than a futex: a wake-up can be lost to a SIGKILL between unlock and wake, so it would need a timeout,
 * hence naps, anyway; and the unlock would cost a look at a second word. */
#include "lock.h"

#include "process.h"
#include "repair.h"

enum { CSM_SPINS = 100 };
static const uint64_t FIRST_NAP_NS = 20000, LONGEST_NAP_NS = 200000;
/* How long the lock may make no progress in a live holder's hands before a call goes on without the cache. Far above a scheduling
 * delay under heavy load, well below the second that the contract allows. A call has this patience once, however often it takes
 * the lock; and a process has it once per stopped holder, however many calls it makes meanwhile. */
static const uint64_t PATIENCE_NS = 500000000;
/* A holder that has let go after this long was stopped, or starved, and counts against the caller's patience. Shorter waits are
 * those of a crowd that gets on. */
static const uint64_t STALL_NS = 50000000;
/* When patience with this very holder was lost before. Not at once: the word may just have changed hands. */
static const uint64_t SHORT_PATIENCE_NS = 1000000;

bool csm_lock_try(csm *h, uint64_t *word, bool *stolen) {
    *stolen = false;
    uint64_t holder = csm_load(word), self = csm_self(h);
    if (self == 0) return false; /* another thread found the descriptor, and with it the row, gone */
    if (holder == 0) return csm_swap_if(word, 0, self);
    bool nonsense = holder >> CSM_OWNER_BITS; /* its holder could not release it */
    if (!nonsense && csm_process_alive(h, holder)) return false;
    uint64_t pid = csm_process_pid(h, holder);
    *stolen = csm_swap_if(word, holder, self);
    bool told = word == &h->header->write_lock || word == &h->header->reset_lock; /* not: that a sidecar has followed a dead one */
    if (*stolen && told) {
        int lock = word == &h->header->reset_lock;
        csm_store(&h->stolen_from[lock], pid);
        csm_add(&h->steals[lock], 1);
    }
    return *stolen;
}

static int locked(csm *h, bool stolen) {
    csm_store(&h->header->lock_turns, csm_load(&h->header->lock_turns) + 1);
    if (stolen) {
        csm_stat_add(h, CSM_STAT_STEALS, 1);
        CSM_CRASH_POINT("lock: stolen");
        /* Killed in here, the word names this process, and the next waiter steals and repairs again. */
        csm_repair_locked(h);
    }
    return CSM_OK;
}

int csm_lock_once(csm *h) {
    int code = csm_process_enter(h);
    bool stolen;
    if (code != CSM_OK) return code;
    return csm_lock_try(h, &h->header->write_lock, &stolen) ? locked(h, stolen) : CSM_BUSY;
}

uint64_t csm_stolen(csm *h, int lock, uint64_t *pid) {
    *pid = csm_load(&h->stolen_from[lock == 1]);
    return __atomic_exchange_n(&h->steals[lock == 1], 0, __ATOMIC_RELAXED);
}

int csm_lock(csm *h) {
    csm_call call = {.stalled_ns = 0};
    return csm_lock_within(h, &call);
}

int csm_lock_within(csm *h, csm_call *call) {
    int code = csm_process_enter(h);
    if (code != CSM_OK) return code;
    uint64_t *word = &h->header->write_lock, self = csm_self(h);
    for (int i = 0; i < CSM_SPINS; i++) {
        /* SYNC lock: pairs with csm_unlock; what the previous holder stored becomes visible. */
        if (self && csm_load(word) == 0 && csm_swap_if(word, 0, self)) return locked(h, false);
        csm_pause();
    }
    /* A crowd may keep one caller waiting long although all of it runs; patience is for a holder that does not. */
    uint64_t nap = FIRST_NAP_NS, since = csm_now_ns(), turns = csm_load(&h->header->lock_turns);
    for (;;) {
        bool stolen;
        if (csm_lock_try(h, word, &stolen)) {
            uint64_t waited = csm_now_ns() - since;
            if (waited > STALL_NS) call->stalled_ns += waited;
            call->steals += stolen;
            return locked(h, stolen);
        }
        uint64_t now = csm_now_ns(), turn = csm_load(&h->header->lock_turns), waited = now - since;
        if (turn != turns) {
            if (waited > STALL_NS) call->stalled_ns += waited;
            turns = turn;
            since = now;
        } else if (call->stalled_ns + waited > PATIENCE_NS) {
            call->stalled_ns += waited;
            csm_store(&h->stalled_turn, turn + 1);
            return CSM_BUSY;
        } else if (turn + 1 == csm_load(&h->stalled_turn) && waited > SHORT_PATIENCE_NS) {
            return CSM_BUSY;
        }
        csm_nap_ns(nap);
        nap = csm_min(nap * 2, LONGEST_NAP_NS);
    }
}

void csm_unlock(csm *h) {
    /* SYNC unlock: pairs with csm_lock. A compare-and-swap, so that a word damaged meanwhile is not "released" out of
     * the hands of whoever may have taken it. */
    csm_swap_if(&h->header->write_lock, csm_self(h), 0);
}
