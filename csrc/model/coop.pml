/* coop.pml: the core's protocol, for the model checker spin. README.md says what is left out, checks.txt what is run.
 *
 * Some processes share a segment. Each takes up tasks from a common stock: ask for a key (`cached`), take a view of an
 * entry and hold it, reset. At any step a process may be killed, which makes its row's lock, hence its life, visibly
 * end; and stopped, to go on later or never. The checker tries every order of all that.
 *
 * What is one step. A process that holds the write lock is alone with everything but the words that others read without
 * the lock, and of those each critical section changes the telling one by a single store, its commit. So a critical
 * section is one step here, except that `point` marks the places between its stores: there its process may be killed,
 * leaving the lock and what it had stored so far, or stopped, and then the others run while it holds the lock.
 * Everything outside the lock is a step of its own: each half of a copied value, each look of a waiter, each half of a post.
 *
 * Rules that can be taken away, one by one, to see that the checker notices: every `#ifdef` whose name is in checks.txt.
 *
 * The files, in the order in which they are needed. First what all share:
 *   state.pml   the words of the segment, and what only the checker sees
 *   check.pml   what is asserted
 *   death.pml   being killed and stopped, at any step
 *   arena.pml   flight.pml   lock.pml   what is done under the write lock, by the C file of that name (lock: and repair)
 * then what a process does, each part included into `worker` below:
 *   read.pml    hit, view, bypass          claim.pml    claim, compute          wait.pml   wait, take over
 *   outcome.pml read one, leave, write     publish.pml  publish, abandon        reset.pml  reset, a new process in a row
 *   relay.pml   what a sidecar does */

/* ---- size */

#ifndef PROCS
#define PROCS 3
#endif
#ifndef KEYS
#define KEYS 2
#endif
#ifndef CHUNKS
#define CHUNKS 2 /* each has room for one entry */
#endif
#ifndef FLIGHTS
#define FLIGHTS KEYS
#endif
#ifndef CALLS
#define CALLS 3 /* the stock of tasks: asking for a key, */
#endif
#ifndef VIEWS
#define VIEWS 0 /* holding a view of an entry, */
#endif
#ifndef RESETS
#define RESETS 1
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef RESTARTS
#define RESTARTS 0 /* new processes, each in the row of a dead one */
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef LEAVES
#define LEAVES 0 /* waits that end by a signal handler's exception; only with OUTCOMES */
#endif
#ifndef DELIVERIES
#define DELIVERIES 0 /* values that arrive from other hosts; only with RELAY */
#endif
#ifndef CLOSES
#define CLOSES 0 /* the sidecar ends by itself; only with RELAY */
#endif
#ifndef LATE
#define LATE 0 /* times that the sidecar is taken for stopped although it is not; only with RELAY */
#endif
#ifndef FAILURES
#define FAILURES 0 /* computations whose end is an outcome although there would be room; only with OUTCOMES */
#endif
/* Further: OUTCOMES, what is not stored reaches the waiters. SEMAPHORES, a sleep ends by a wake-up or its slice; else at any
 * moment. THREADS, the first two processes are two threads of one. RELAY, the last process is the cluster's sidecar.
 * LIVENESS, with the formula at the end. KEEP_OLD, see lock.pml. */

#include "state.pml"
#include "check.pml"
#include "death.pml"
#include "arena.pml"
#include "flight.pml"
#include "lock.pml"

#ifdef RELAY
#include "answers.pml"
#endif

proctype worker(byte me)
{
    byte k;      /* the key asked for */
    byte g;      /* the generation of this attempt */
    byte f;      /* the flight waited for */
    byte place;  /* the chunk read or written */
    byte value;  /* the token computed, or the half that was read */
    byte i, c;   /* scratch */
#ifdef OUTCOMES
    byte expected; /* word of the outcome that is to be cleaned */
    bit unstorable; /* what was computed is to become an outcome */
#endif

end_idle:
    atomic {
        if
#ifdef RELAY
        :: is_sidecar(me) && sidecar_is_open -> calls(1); goto sidecar
#endif
        :: may_begin && calls_left > 0 ->
            calls_left--;
            if
            :: k = 0
            :: KEYS > 1 && keys_used > 0 -> k = 1
            fi;
            keys_used = (k == keys_used -> keys_used + 1 : keys_used);
            began();
            goto look_up
#if VIEWS > 0
        :: may_begin && views_left > 0 && keys_used > 0 ->
            views_left--;
            if
            :: k = 0
            :: keys_used > 1 -> k = 1
            fi;
            began();
            goto view
#endif
#if RESETS > 0
        :: may_begin && resets_left > 0 ->
            resets_left--;
            began();
            goto reset
#endif
        fi
    }

#include "read.pml"
#include "claim.pml"
#include "wait.pml"
#ifdef OUTCOMES
#include "outcome.pml"
#endif
#include "publish.pml"
#if RESETS > 0
#include "reset.pml"
#endif
#ifdef RELAY
#include "relay.pml"
#endif

returned:
    atomic {
        calls(0);
        k = 0; g = 0; f = 0; place = 0; value = 0;
        goto end_idle
    }

dead:
#if RESTARTS > 0
    /* ---- csm_process_enter: a new process wins the lock of the row, then makes the row its own */
end_dead:
    atomic {
        restarts_left > 0 && !alive[me];
        restarts_left--;
        alive[me] = true
    }
    atomic {
        step;
        incarnation[me]++
    }
    atomic {
        step;
        view_pin[me] = 0
    }
    atomic {
        step;
        write_pin[me] = 0;
        goto end_idle
    }
#else
    skip
#endif
}

init {
    byte n;
    atomic {
        epoch[1].generation = 1;
        epoch[0].run_chunk = CHUNKS;
        epoch[1].run_chunk = CHUNKS;
        for (n : 0 .. FLIGHTS - 1) {
            flight[n].reserved = CHUNKS
        }
        for (n : 0 .. PROCS - 1) {
            alive[n] = true
        }
        for (n : 0 .. PROCS - 1) {
            run worker(n)
        }
#ifdef RELAY
        run event_loop();
#endif
        n = 0
    }
}

#ifdef LIVENESS
/* A call ends, unless it waits for a computation whose owner is stopped for good: that one looks like a slow fn. Or for another host's:
 * that this one ends is the cluster's to see to, as long as there is a sidecar that runs. */
#ifdef RELAY
#define worker_stopped (for_good && stopped != PROCS)
#define waits_for_the_cluster(p) \
    (sidecar_is_open && alive[PROCS - 1] && !(for_good && stopped == PROCS) && flight[0].serial == target[p] && \
     flight[0].given_up != target[p] && flight[0].owner == word(PROCS - 1) && flight[0].lease >= ASKED && flight[0].lease <= HELD)
#else
#define worker_stopped for_good
#define waits_for_the_cluster(p) false
#endif
#define waits_for_the_stopped(p) \
    (worker_stopped && \
     ((flight[0].serial == target[p] && is_stopped(flight[0].owner)) || \
      (flight[FLIGHTS - 1].serial == target[p] && is_stopped(flight[FLIGHTS - 1].owner))))
#define is_well(p) \
    (!calling[p] || (for_good && stopped == p + 1) || (target[p] != 0 && (waits_for_the_stopped(p) || waits_for_the_cluster(p))))
#if PROCS == 2
#define all_well (is_well(0) && is_well(1))
#else
#define all_well (is_well(0) && is_well(1) && is_well(2))
#endif
ltl every_call_returns { [] <> (all_well) }
#endif
