/* coop.pml: the core's protocol, for the model checker spin. README.md says what is left out, run.py what is run.
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
 * Rules that can be taken away, one by one, to see that the checker notices: every `#ifdef` whose name is in run.py. */

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
#ifndef FAILURES
#define FAILURES 0 /* computations whose end is an outcome although there would be room; only with OUTCOMES */
#endif

/* ---- owners: 0 nobody, else row + 1, and with RESTARTS the incarnation. THREADS: the first two share a row, as two threads of a process do */

#ifdef THREADS
#define row(p) ((p) == 1 -> 0 : (p))
#else
#define row(p) (p)
#endif
#if RESTARTS > 0
#define word(p) (row(p) + 1 + PROCS * incarnation[row(p)])
#define is_alive(owner) \
    ((owner) != 0 && alive[((owner) - 1) % PROCS] && incarnation[((owner) - 1) % PROCS] == ((owner) - 1) / PROCS)
#else
#define word(p) (row(p) + 1)
#define is_alive(owner) ((owner) != 0 && alive[(owner) - 1])
#endif

/* ---- values: what was computed, when, and whether the flight had been taken over. A copy is made in two halves, so that a torn
 * one shows */

#define token(key, g, term) (1 + (key) + KEYS * ((g) + (RESETS + 2) * ((term) % 2)))
#define key_of(t) (((t) - 1) % KEYS)
#define generation_of(t) ((((t) - 1) / KEYS) % (RESETS + 2))

/* ---- the segment */

byte generation = 1;
byte write_lock;

typedef epoch_t {
    byte generation; /* it was prepared for */
    byte run_chunk;        /* the chunk that was entered and is not handed out yet; CHUNKS: none */
    byte holes;      /* a bit per chunk that was handed out and came back */
    byte entries;    /* length of the log */
}
epoch_t epoch[2];
#define now epoch[generation % 2]

#define EMPTY 0
#define COMPUTING 1
#define FULL 2
typedef slot_t { /* that of a key; which slot that is, is index.c's and not modelled */
    byte generation;
    byte state;
    byte flight;
    byte place;
}
slot_t slot[KEYS];
byte record[KEYS]; /* the log: key + 1 */

typedef flight_t {
    byte serial; /* 0: free */
    byte owner;
    byte term;
    byte given_up;
    byte generation;
    byte key;
    byte reserved; /* chunk, CHUNKS: none */
    bit waiters;
}
flight_t flight[FLIGHTS];
byte flight_hint;
byte next_serial = 1;

typedef chunk_t {
    byte entered;
    byte first, second; /* halves of a token */
}
chunk_t chunk[CHUNKS];

#ifdef OUTCOMES
typedef outcome_t {
    byte serial; /* word: whose outcome this is, */
    byte unread; /*       and how many waiters have not read it */
    byte writer; /* owner word of who writes to the window or cleans it */
    byte generation;
    byte first, second; /* the window */
}
outcome_t outcome[FLIGHTS];
#endif

/* rows */
bool alive[PROCS]; /* the row's lock is held: only a death lets go of it */
#if RESTARTS > 0
byte incarnation[PROCS];
byte restarts_left = RESTARTS;
#endif
byte view_pin[PROCS], write_pin[PROCS]; /* chunk + 1 */

/* nodes: each process has one */
byte target[PROCS];  /* serial waited for */
#ifdef SEMAPHORES
bit posted[PROCS];   /* the semaphore's value; more than one post is as good as one */
bit asleep[PROCS];   /* in the kernel, until woken */
#endif

/* ---- what only the checker sees */

typedef ticket_t {
    byte serial; /* 0: none */
    byte flight;
    byte term;
    byte generation;
}
ticket_t ticket[PROCS];

byte calls_left = CALLS, views_left = VIEWS, resets_left = RESETS;
byte crashes_left = CRASHES, stops_left = STOPS;
byte stopped;   /* process + 1 */
bool for_good;  /* it will not go on */
byte started;   /* processes are alike: they begin in order */
byte keys_used; /* and so are keys */
#if CRASHES == 0 && STOPS == 0
#define ONCE
byte computed[KEYS]; /* computations of this generation whose result is stored or under way */
#endif
bit held[PROCS]; /* its view was handed out */
#ifdef LIVENESS
bit calling[PROCS];
#define calls(yes) calling[me] = yes
#else
#define calls(yes) skip
#endif
#ifdef OUTCOMES
byte leaves_left = LEAVES, failures_left = FAILURES;
bit due[PROCS]; /* there is an outcome for this waiter */
#endif

/* What is asserted; pan prints the name. */
hidden byte value_torn, value_of_another_key, value_from_before_reset, view_changed, pinned_chunk_reused, two_owners,
    computed_twice, outcome_lost;
hidden byte epoch_unprepared, entries_miscounted, flight_astray, flight_unreachable, space_shared_or_lost, entry_damaged;

hidden byte vi, vc, vn; /* scratch of steps that cannot be interrupted */

#define is_live(f, s, g) \
    ((s) != 0 && flight[f].serial == (s) && flight[f].generation == (g) && slot[flight[f].key].generation == (g) && \
     slot[flight[f].key].state == COMPUTING && slot[flight[f].key].flight == (f))
#define is_attended(f) (flight[f].given_up != flight[f].serial && is_alive(flight[f].owner))
#define is_free(f) (flight[f].serial == 0 || flight[f].generation != generation)
#define has(k, s) (slot[k].generation == generation && slot[k].state == (s))

#ifdef NO_TERM
#define same_term(p, f) true
#else
#define same_term(p, f) (ticket[p].term == flight[f].term)
#endif
/* check_ticket_locked */
#ifdef NO_TICKET_CHECK
#define ticket_is_good(p) true
#else
#define ticket_is_good(p) \
    (ticket[p].serial != 0 && ticket[p].generation == generation && flight[ticket[p].flight].owner == word(p) && \
     same_term(p, ticket[p].flight) && is_live(ticket[p].flight, ticket[p].serial, ticket[p].generation))
#endif

/* ---- death and SIGSTOP */

#if CRASHES > 0
#define may_die if :: crashes_left > 0 -> be_killed(); goto dead :: true fi
#else
#define may_die skip
#endif
#define is_stopped(owner) (stopped != 0 && word(stopped - 1) == (owner))

#if STOPS > 0
#define may_stop \
    if \
    :: stops_left > 0 -> stops_left--; stopped = me + 1; stopped != me + 1 \
    :: true \
    fi
#else
#define may_stop skip
#endif

/* SIGKILL. The kernel lets go of the row's lock. Nothing else in the segment changes; the dead one's pins, which bind nobody, and
 * what only it could see are cleared to have fewer states (the pins not when a new process may take the row). */
inline be_killed()
{
    d_step {
        crashes_left--;
        alive[me] = false;
        calls(0);
        held[me] = 0;
#if RESTARTS == 0
        view_pin[me] = 0; write_pin[me] = 0;
#endif
#ifdef OUTCOMES
        due[me] = 0;
#else
        target[me] = 0;
#endif
#ifdef SEMAPHORES
        posted[me] = 0; asleep[me] = 0;
#endif
        ticket[me].serial = 0; ticket[me].flight = 0; ticket[me].term = 0; ticket[me].generation = 0;
        k = 0; g = 0; f = 0; place = 0; value = 0; i = 0; c = 0
    }
}

/* Between two stores under the lock. */
#define point may_stop; may_die

/* Before a step outside the lock. There a stop that ends is nothing but the scheduler's turn for others, which the checker
 * tries anyway; only one that does not end tells. */
#ifdef LIVENESS
#define step may_stop; may_die
#else
#define step may_die
#endif

#if STOPS > 0
/* Whoever sent SIGSTOP. */
active proctype operator()
{
end:
    do
    :: atomic {
        stopped != 0 && !for_good ->
        if
        :: stopped = 0
#ifdef LIVENESS
        :: for_good = true
#endif
        fi
    }
    od
}
#endif

/* ---- lock.c */

inline unlock()
{
    write_lock = (write_lock == word(me) -> 0 : write_lock)
}

#ifdef STEAL_WITHOUT_REPAIR
#define mend skip
#else
#define mend repair()
#endif
#ifdef STEAL_FROM_THE_STOPPED
#define impatient(busy) write_lock = word(me); mend
#else
#define impatient(busy) goto busy
#endif
#if CRASHES > 0
#define or_die :: crashes_left > 0 -> be_killed(); goto dead
#else
#define or_die
#endif

/* csm_lock. Goes to `busy` when a live holder does not run; it may just as well be waited for. A macro: spin takes no
 * label for an argument of an inline. */
#define lock(busy) \
    if \
    :: write_lock == 0 -> write_lock = word(me) \
    :: write_lock != 0 && !is_alive(write_lock) -> write_lock = word(me); point; mend \
    :: is_stopped(write_lock) -> impatient(busy) \
    or_die \
    fi; \
    verify(); \
    point

/* ---- repair.c; its parts are those of index.c, flight.c and arena.c */

inline repair()
{
    if
    :: now.entries < KEYS && record[now.entries] != 0 && has(record[now.entries] - 1, FULL) ->
        now.entries = now.entries + 1;
        point
    :: else
    fi;
    i = 0;
    do
    :: i < FLIGHTS ->
        if
        :: flight[i].serial != 0 && !is_live(i, flight[i].serial, generation) -> free_flight(i); point
        :: else
        fi;
        i++
    :: else -> break
    od;
#ifndef NO_HINT_REPAIR
    flight_hint = 0;
    point;
#endif
    if
    :: now.run_chunk < CHUNKS ->
        chunk[now.run_chunk].entered = generation;
        point;
        now.holes = now.holes & ~(1 << now.run_chunk);
        point
    :: else
    fi;
    i = 0;
    do
    :: i < FLIGHTS ->
        if
        :: flight[i].serial != 0 && flight[i].reserved < CHUNKS &&
           (flight[i].reserved == now.run_chunk || (now.holes >> flight[i].reserved) & 1) ->
            flight[i].reserved = CHUNKS;
            point
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

/* What the flip has made meaningless is cleared, to have fewer states: everything that bears a generation, and the epoch that was
 * in force. All who look at these words compare the generation first; KEEP_OLD keeps them, to check that this is so. */
inline forget()
{
    d_step {
        for (vi : 0 .. KEYS - 1) {
#ifdef ONCE
            computed[vi] = 0;
#endif
#ifndef KEEP_OLD
            slot[vi].generation = 0; slot[vi].state = EMPTY; slot[vi].flight = 0; slot[vi].place = 0;
#endif
            record[vi] = 0 /* the log's records bear the generation, too */
        }
#ifndef KEEP_OLD
        for (vi : 0 .. FLIGHTS - 1) {
            flight[vi].serial = 0; flight[vi].owner = 0; flight[vi].term = 0; flight[vi].given_up = 0;
            flight[vi].generation = 0; flight[vi].key = 0; flight[vi].reserved = CHUNKS; flight[vi].waiters = 0
        }
        for (vi : 0 .. CHUNKS - 1) {
            chunk[vi].entered = 0
        }
        epoch[(generation + 1) % 2].run_chunk = CHUNKS;
        epoch[(generation + 1) % 2].holes = 0;
        epoch[(generation + 1) % 2].entries = 0;
#endif
        vi = 0
    }
}

/* ---- verify.c: what must hold whenever somebody gets the lock */

inline verify()
{
#ifndef NO_VERIFY
    d_step {
        epoch_unprepared = now.generation != generation;
        assert(!epoch_unprepared);
        vn = 0;
        for (vi : 0 .. KEYS - 1) {
            vn = vn + has(vi, FULL);
            flight_astray = has(vi, COMPUTING) && !(flight[slot[vi].flight].key == vi &&
                            is_live(slot[vi].flight, flight[slot[vi].flight].serial, generation));
            assert(!flight_astray);
            entry_damaged = has(vi, FULL) && !(slot[vi].place < CHUNKS && chunk[slot[vi].place].first == chunk[slot[vi].place].second &&
                            chunk[slot[vi].place].first != 0 && key_of(chunk[slot[vi].place].first) == vi &&
                            generation_of(chunk[slot[vi].place].first) == generation);
            assert(!entry_damaged)
        }
        entries_miscounted = vn != now.entries;
        assert(!entries_miscounted);
        for (vi : 0 .. FLIGHTS - 1) {
            flight_astray = !is_free(vi) && !is_live(vi, flight[vi].serial, generation);
            assert(!flight_astray);
            flight_unreachable = is_free(vi) && vi < flight_hint;
            assert(!flight_unreachable)
        }
        /* Each entered chunk belongs to exactly one: run, hole, reservation, entry. The others belong to nobody. */
        for (vc : 0 .. CHUNKS - 1) {
            vn = (now.run_chunk == vc) + ((now.holes >> vc) & 1);
            for (vi : 0 .. FLIGHTS - 1) {
                vn = vn + (!is_free(vi) && flight[vi].reserved == vc)
            }
            for (vi : 0 .. KEYS - 1) {
                vn = vn + (has(vi, FULL) && slot[vi].place == vc)
            }
            space_shared_or_lost = vn != (chunk[vc].entered == generation);
            assert(!space_shared_or_lost)
        }
        vi = 0; vc = 0; vn = 0
    }
#else
    skip
#endif
}

/* ---- arena.c */

#ifdef NO_PIN_LOOK
#define can_enter(c) (chunk[c].entered != generation)
#else
#define can_enter(c) (chunk[c].entered != generation && !is_pinned(c))
#endif
#define pins(p, c) (alive[row(p)] && (view_pin[p] == (c) + 1 || write_pin[p] == (c) + 1)) /* a dead row's bind nobody */
#if PROCS == 2
#define is_pinned(c) (pins(0, c) || pins(1, c))
#else
#define is_pinned(c) (pins(0, c) || pins(1, c) || pins(2, c))
#endif

/* csm_arena_reserve_locked for flight f; c: the chunk, CHUNKS when there is none. */
inline reserve(f)
{
    c = 0;
    do
    :: c < CHUNKS && !((now.holes >> c) & 1) -> c++
    :: else -> break
    od;
    if
    :: c < CHUNKS ->
        flight[f].reserved = c;
        point;
        now.holes = now.holes & ~(1 << c)
    :: else ->
        if
        :: now.run_chunk < CHUNKS -> c = now.run_chunk
        :: else ->
            c = 0;
            do
            :: c < CHUNKS && !can_enter(c) -> c++
            :: else -> break
            od;
            if
            :: c < CHUNKS ->
                now.run_chunk = c;
                point;
                chunk[c].entered = generation;
                point
            :: else
            fi
        fi;
        if
        :: c < CHUNKS ->
#ifdef RUN_BEFORE_RESERVATION
            now.run_chunk = CHUNKS;
            point;
            flight[f].reserved = c
#else
            flight[f].reserved = c;
            point;
            now.run_chunk = CHUNKS
#endif
        :: else
        fi
    fi;
    point
}

/* csm_arena_return_locked */
inline give_back(f)
{
    if
    :: flight[f].reserved < CHUNKS ->
        if
        :: now.run_chunk == CHUNKS -> now.run_chunk = flight[f].reserved
        :: else -> now.holes = now.holes | (1 << flight[f].reserved)
        fi;
        point;
        flight[f].reserved = CHUNKS;
        point
    :: else
    fi
}

#ifdef OUTCOMES
/* ---- outcome.c */

#ifdef NO_WINDOW_WRITER
#define is_written(f) false
#else
#define is_written(f) is_alive(outcome[f].writer)
#endif
#define is_idle(f) (outcome[f].unread == 0 && !is_written(f))
/* of those behind f */
#if FLIGHTS == 3
#define idle_and_free(f) (is_free(f) && is_idle(f))
#define another_is_idle(f) (((f) < 1 && idle_and_free(1)) || ((f) < 2 && idle_and_free(2)))
#elif FLIGHTS == 2
#define another_is_idle(f) ((f) < 1 && is_free(1) && is_idle(1))
#else
#define another_is_idle(f) false
#endif
#endif

/* ---- flight.c, under the lock */

/* csm_flight_free_locked. A free record's other words mean nothing; they are cleared to have fewer states. */
inline free_flight(f)
{
    flight[f].reserved = CHUNKS;
    flight[f].term = 0;
    flight[f].waiters = 0;
    point;
    flight[f].serial = 0;
    flight[f].generation = 0;
    flight[f].key = 0;
    point;
    flight_hint = (f < flight_hint -> f : flight_hint)
}

/* csm_index_vacate_locked: the commit of a flight that stores nothing */
inline vacate(which)
{
    slot[which].state = EMPTY;
    slot[which].flight = 0;
    slot[which].place = 0;
#ifdef ONCE
    computed[which] = 0;
#endif
    point
}

/* find_free_locked and begin_locked; i: the flight, FLIGHTS when all are in use. */
inline begin()
{
    i = flight_hint;
    do
    :: i < FLIGHTS && !is_free(i) ->
        flight_hint = (i == flight_hint -> i + 1 : flight_hint);
        i++
#ifdef OUTCOMES
    /* Only if there is no other: one whose outcome has not been read by all, or whose window somebody writes to. */
    :: i < FLIGHTS && is_free(i) && !is_idle(i) && another_is_idle(i) -> i++
    :: else -> break
#else
    :: else -> break
#endif
    od;
    if
    :: i < FLIGHTS ->
        flight[i].serial = 0;
        flight[i].owner = word(me);
        flight[i].term = 0;
        flight[i].generation = generation;
        flight[i].key = k;
        flight[i].reserved = CHUNKS;
        flight[i].waiters = 0;
        point;
        flight[i].serial = next_serial;
        next_serial++;
        point;
        slot[k].generation = generation;
        slot[k].state = COMPUTING;
        slot[k].flight = i;
        slot[k].place = 0;
        own(i);
        point
    :: else
    fi
}

/* own_locked */
inline own(f)
{
    ticket[me].serial = flight[f].serial;
    ticket[me].flight = f;
    ticket[me].term = flight[f].term;
    ticket[me].generation = generation
}

/* take_over_locked */
inline take_over(f)
{
    give_back(f);
#ifndef NO_TERM
    flight[f].term++;
    point;
#endif
    flight[f].owner = word(me);
    point;
    flight[f].given_up = 0;
    own(f);
    d_step {
        for (vi : 0 .. PROCS - 1) {
            two_owners = vi != me && is_alive(word(vi)) && ticket[vi].serial != 0 && ticket[vi].flight == f && ticket_is_good(vi);
            assert(!two_owners)
        }
        vi = 0
    }
    point
}

/* csm_flight_reap_locked, without the wake-up: whoever waits looks for itself. c: how many. */
inline reap()
{
    c = 0; i = 0;
    do
    :: i < FLIGHTS ->
        if
        :: is_live(i, flight[i].serial, generation) && !is_attended(i) ->
            give_back(i);
            place = flight[i].key;
            vacate(place);
            place = 0;
            free_flight(i);
            point;
            c++
        :: else
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

inline spend()
{
    ticket[me].serial = 0; ticket[me].flight = 0; ticket[me].term = 0; ticket[me].generation = 0
}

/* ---- wait.c */

#define waits_for(n, s) (target[n] != 0 && ((s) == 0 || target[n] == (s)))

/* csm_wait_wake(s), 0: everybody. sem_post is a store and then a wake. */
inline wake(s)
{
#ifdef SEMAPHORES
    i = 0;
    do
    :: i < PROCS ->
        atomic {
            step;
            do
            :: i < PROCS && !waits_for(i, s) -> i++
            :: else -> break
            od;
            if
            :: i < PROCS -> posted[i] = 1
            :: else
            fi
        }
        atomic {
            if
            :: i < PROCS -> step; asleep[i] = 0;
#ifdef WAKE_ONLY_ONE
                i = PROCS
#else
                i++
#endif
            :: else
            fi
        }
    :: else -> break
    od;
    i = 0
#else
    skip
#endif
}

inline leave()
{
    target[me] = 0;
#ifdef OUTCOMES
    due[me] = 0;
#endif
#ifdef SEMAPHORES
    posted[me] = 0;
    asleep[me] = 0;
#endif
}

/* ---- what is handed out */

/* What a call returns for key k, at its last look at the generation. */
inline check_value(x, y)
{
    d_step {
        value_torn = (x) != (y) || (x) == 0;
        assert(!value_torn);
        value_of_another_key = key_of(x) != k;
        assert(!value_of_another_key);
        value_from_before_reset = generation_of(x) < generation;
        assert(!value_from_before_reset)
    }
}

/* Writing to a chunk that somebody alive reads. */
inline check_write()
{
    d_step {
        for (vi : 0 .. PROCS - 1) {
            pinned_chunk_reused = vi != me && alive[row(vi)] && held[vi] && view_pin[vi] == place + 1;
            assert(!pinned_chunk_reused)
        }
        vi = 0
    }
}
/* ---- a process */

proctype worker(byte me)
{
    byte k;      /* the key asked for */
    byte g;      /* the generation of this attempt */
    byte f;      /* the flight waited for */
    byte place;  /* the chunk read or written */
    byte value;  /* the token computed, or the half that was read */
    byte i, c;   /* scratch */
#ifdef RETRY
    bit retried; /* has published again with a ticket it gave up */
#endif

end_idle:
    atomic {
        if
        :: me <= started && calls_left > 0 ->
            calls_left--;
            if
            :: k = 0
            :: KEYS > 1 && keys_used > 0 -> k = 1
            fi;
            keys_used = (k == keys_used -> keys_used + 1 : keys_used);
            calls(1);
            started = (me == started -> started + 1 : started);
            goto look_up
#if VIEWS > 0
        :: me <= started && views_left > 0 && keys_used > 0 ->
            views_left--;
            if
            :: k = 0
            :: keys_used > 1 -> k = 1
            fi;
            calls(1);
            started = (me == started -> started + 1 : started);
            goto view
#endif
        :: me <= started && resets_left > 0 ->
            resets_left--;
            calls(1);
            started = (me == started -> started + 1 : started);
            goto reset
        fi
    }

    /* ---- cache.py, _look_up; csm_find. Looking at the slot is one step: csm_index_find sees a slot change under its hands
     * and then finds nothing, as it would have after the change. */
look_up:
    atomic {
        step;
        if
        :: has(k, FULL) -> g = generation; place = slot[k].place
        :: else -> goto claim
        fi
    }
    atomic {
        step;
        value = chunk[place].first
    }
    atomic {
        step;
        if
#ifdef NO_RECHECK
        :: true ->
#else
        :: generation == g ->
#endif
            check_value(value, chunk[place].second);
            goto returned
        :: else -> g = 0; place = 0; value = 0; goto claim
        fi
    }

    /* ---- csm_claim */
claim:
    atomic {
        lock(bypass);
        if
        :: has(k, FULL) -> unlock(); goto look_up
        :: has(k, COMPUTING) ->
            f = slot[k].flight;
            if
            :: is_attended(f) -> /* join_locked */
                flight[f].waiters = 1;
                target[me] = flight[f].serial;
                g = generation;
                point;
                unlock();
                goto wait
            :: else ->
#ifdef NO_TAKE_OVER
                flight[f].waiters = 1;
                target[me] = flight[f].serial;
                g = generation;
                unlock();
                goto wait
#else
                take_over(f);
                f = 0;
                unlock();
                goto compute
#endif
            fi
        :: else ->
            begin();
            if
            :: i < FLIGHTS -> i = 0; unlock(); goto compute
            :: else ->
                reap();
                unlock();
                if
                :: c > 0 -> c = 0; goto claim
                :: else -> goto bypass
                fi
            fi
        fi
    }

    /* ---- csm_wait */
wait:
    atomic {
        step;
        if
        :: generation != g -> leave(); f = 0; g = 0; goto look_up
        :: generation == g && !is_live(f, target[me], g) -> goto finish_wait
        :: else
        fi
    }
    atomic {
        step;
        if
        :: is_attended(f) -> goto sleep
        :: else ->
#ifdef NO_TAKE_OVER
            goto sleep
#else
            goto try_take_over
#endif
        fi
    }
sleep:
#ifdef SEMAPHORES
    atomic {
        step;
        if
        :: posted[me] -> posted[me] = 0; goto wait
        :: else -> asleep[me] = 1
        fi
    }
    atomic {
        if
        :: !asleep[me] -> step; goto sleep
#ifndef NO_SLICE
        :: asleep[me] -> step; asleep[me] = 0; goto wait
#endif
        or_die
        fi
    }
#else
    /* The slice may end at any moment, so it is not told from a wake-up. */
#ifdef OUTCOMES
    if
    :: true -> goto wait
    :: atomic { leaves_left > 0 -> leaves_left--; goto leaves }
    fi;
#else
    goto wait;
#endif
#endif

try_take_over:
    atomic {
        lock(wait_bypass);
        if
        :: generation == g && is_live(f, target[me], g) ->
            if
            :: is_attended(f) -> unlock(); goto sleep
            :: else ->
                take_over(f);
                leave();
                f = 0; g = 0;
                unlock();
                goto compute
            fi
        :: else ->
            unlock();
#ifdef NO_LOOK_BEFORE_AGAIN
            goto again
#else
            goto finish_wait
#endif
        fi
    }
wait_bypass:
    atomic {
        step;
        leave();
        f = 0; g = 0;
        goto bypass
    }
finish_wait:
#ifdef OUTCOMES
    atomic {
        step;
        if
        :: outcome[f].serial == target[me] && outcome[f].generation == g -> goto read_outcome
        :: else -> goto again
        fi
    }
again:
#endif
    atomic {
        step;
#ifdef OUTCOMES
        outcome_lost = due[me] && generation == g;
        assert(!outcome_lost);
#endif
        leave();
        f = 0; g = 0;
        goto look_up
    }

#ifdef OUTCOMES
    /* ---- csm_outcome_read; `target` goes on naming the flight, although the node was dropped */
read_outcome:
    atomic {
        step;
        value = outcome[f].first
    }
    atomic {
        step;
        c = outcome[f].second
    }
    atomic {
        step;
        if
        :: outcome[f].serial != target[me] -> value = 0; c = 0; goto again
        :: else ->
            due[me] = 0;
            outcome[f].unread--; /* csm_outcome_done */
            if
            :: outcome[f].unread == 0 -> goto clean
            :: else -> goto return_outcome
            fi
        fi
    }
    /* clean(): the last reader gives the window's pages back */
clean:
    atomic {
        lock(return_outcome);
        if
        :: is_free(f) && outcome[f].serial == target[me] && outcome[f].unread == 0 && !is_written(f) ->
            outcome[f].writer = word(me);
            point;
            outcome[f].serial = 0;
            outcome[f].generation = 0;
            point;
            unlock()
        :: else -> unlock(); goto return_outcome
        fi
    }
    atomic {
        step;
        outcome[f].first = 0
    }
    atomic {
        step;
        outcome[f].second = 0
    }
    atomic {
        step;
        outcome[f].writer = 0
    }
return_outcome:
    atomic {
        step;
        leave();
        f = 0;
        if
        :: value == 0 -> c = 0; g = 0; goto returned /* came from csm_wait_leave: there is nobody to return to */
        :: value != 0 && generation == g -> check_value(value, c); c = 0; goto returned
        :: else -> value = 0; c = 0; g = 0; goto look_up
        fi
    }
    /* ---- csm_wait_leave: may have been counted among the readers of an outcome that it will not read. Whether it was must be
     * asked before the node is dropped: who is dropped before the count was not counted. */
leaves:
#ifdef COUNT_OFF_LATE
    atomic {
        step;
        c = target[me];
        due[me] = 0;
        target[me] = 0 /* the node is dropped */
    }
    atomic {
        step;
        if
        :: outcome[f].serial == c && outcome[f].unread > 0 ->
            outcome[f].unread--;
            target[me] = c; c = 0;
            if
            :: outcome[f].unread == 0 -> goto clean
            :: else -> goto return_outcome
            fi
        :: else -> c = 0; goto return_outcome
        fi
    }
#else
    atomic {
        step;
        c = outcome[f].serial == target[me];
        due[me] = 0
    }
    atomic {
        step;
        if
        :: c && outcome[f].serial == target[me] && outcome[f].unread > 0 ->
            c = 0;
            outcome[f].unread--;
            if
            :: outcome[f].unread == 0 -> goto clean
            :: else -> goto return_outcome
            fi
        :: else -> c = 0; goto return_outcome
        fi
    }
#endif
#endif

    /* ---- cache.py, _own: hooks first, then fn */
compute:
    atomic {
        step;
        if
        :: generation != ticket[me].generation -> goto abandon
        :: else
        fi;
        value = token(k, generation, ticket[me].term);
#ifdef ONCE
        computed[k]++;
        computed_twice = computed[k] > 1;
        assert(!computed_twice)
#endif
    }

    /* ---- csm_publish */
publish:
    atomic {
        lock(give_up);
        if
        :: !ticket_is_good(me) -> unlock(); goto stale
        :: else
        fi;
        f = ticket[me].flight;
#ifdef OUTCOMES
        if
        :: failures_left > 0 -> failures_left--; c = CHUNKS
        :: true -> reserve(f)
        fi;
#else
        reserve(f);
#endif
        if
        :: c < CHUNKS ->
            place = c;
            c = 0;
#ifndef NO_WRITER_PIN
            write_pin[me] = place + 1;
#endif
            f = 0;
            unlock()
        :: else ->
            /* publish_outcome_locked */
            c = 0;
            give_back(f);
#ifdef OUTCOMES
            if
            :: flight[f].waiters && !is_written(f) ->
                outcome[f].writer = word(me);
                point;
                outcome[f].serial = 0;
                outcome[f].generation = 0;
                outcome[f].unread = 0;
                point;
                unlock();
                goto write_outcome
            :: else
            fi;
#endif
            g = ticket[me].serial;
            vacate(k);
            free_flight(f);
            point;
            f = 0;
            unlock();
            goto wake_waiters
        fi
    }
    /* copy_entry */
    atomic {
        step;
        check_write();
        chunk[place].first = value
    }
    atomic {
        step;
        check_write();
        chunk[place].second = value
    }
commit:
    atomic {
        lock(give_up);
        if
        :: !ticket_is_good(me) -> unlock(); goto stale
        :: else
        fi;
        f = ticket[me].flight;
        /* csm_index_commit_locked */
        record[now.entries] = k + 1;
        point;
        slot[k].place = place;
        point;
#ifdef NO_TICKET_CHECK
        slot[k].generation = generation;
#endif
        slot[k].state = FULL;
        slot[k].flight = 0;
        point;
        now.entries++;
        point;
        g = ticket[me].serial;
        free_flight(f);
        point;
        f = 0;
        place = 0;
        unlock()
    }
wake_waiters:
    wake(g);
    atomic {
        step;
        write_pin[me] = 0;
        g = ticket[me].generation;
        spend()
    }
    /* _own: the last look */
    atomic {
        step;
        if
        :: generation == g -> check_value(value, value); goto returned
        :: else -> value = 0; place = 0; g = 0; goto look_up
        fi
    }

stale:
    atomic {
        step;
        /* A record that still bears the ticket's serial is marked, whatever the reason. */
        if
        :: flight[ticket[me].flight].serial == ticket[me].serial && flight[ticket[me].flight].term == ticket[me].term &&
           flight[ticket[me].flight].given_up < ticket[me].serial ->
            flight[ticket[me].flight].given_up = ticket[me].serial
        :: else
        fi;
        write_pin[me] = 0;
        value = 0; place = 0; f = 0; g = 0;
        spend();
        goto look_up
    }

    /* lock_for could not have the lock: the flight is given up, its ticket not used again, the value returned all the same. RETRY: an
     * owner that tries once more to commit, as none does. It shows what `term` is good for when an owner's process has threads. */
give_up:
    atomic {
        step;
#ifdef RETRY
        if
        :: retried -> goto given_up
        :: else
        fi;
#endif
#ifndef NO_GIVE_UP
        if
        :: flight[ticket[me].flight].given_up < ticket[me].serial ->
            flight[ticket[me].flight].given_up = ticket[me].serial
        :: else
        fi;
#endif
#ifdef RETRY
        if
        :: write_pin[me] != 0 -> retried = 1; goto commit
        :: true
        fi;
given_up:
        retried = 0;
#endif
        f = 0;
        g = ticket[me].generation;
        spend()
    }
    atomic {
        step;
        write_pin[me] = 0;
        place = 0
    }
    atomic {
        step;
        if
        :: generation == g -> check_value(value, value); goto returned
        :: else -> value = 0; place = 0; g = 0; goto look_up
        fi
    }

#ifdef OUTCOMES
write_outcome:
    atomic {
        step;
        outcome[f].first = value
    }
    atomic {
        step;
        outcome[f].second = value
    }
    /* csm_outcome_end */
    atomic {
        step;
        outcome[f].writer = 0
    }
    atomic {
        lock(give_up);
        if
        :: !ticket_is_good(me) -> unlock(); goto stale
        :: else
        fi;
        d_step { /* csm_wait_count: the dead count as well */
            vn = 0;
            for (vi : 0 .. PROCS - 1) {
                vn = vn + (target[vi] == ticket[me].serial);
                due[vi] = due[vi] || (target[vi] == ticket[me].serial)
            }
            outcome[f].generation = generation;
            outcome[f].unread = vn;
            outcome[f].serial = ticket[me].serial;
            vi = 0; vn = 0
        }
        point;
        g = ticket[me].serial;
        vacate(k);
        free_flight(f);
        point;
        f = 0;
        unlock();
        goto wake_waiters
    }
#endif

    /* ---- csm_abandon */
abandon:
    atomic {
        lock(give_up_abandoned);
        if
        :: ticket_is_good(me) ->
            f = ticket[me].flight;
            g = ticket[me].serial;
            give_back(f);
            vacate(k);
            free_flight(f);
            point;
            f = 0;
            unlock()
        :: else -> unlock(); goto stale
        fi
    }
    wake(g);
    atomic {
        step;
        g = 0;
        spend();
        goto look_up
    }
give_up_abandoned:
    atomic {
        step;
#ifndef NO_GIVE_UP
        if
        :: flight[ticket[me].flight].given_up < ticket[me].serial ->
            flight[ticket[me].flight].given_up = ticket[me].serial
        :: else
        fi;
#endif
        spend();
        goto look_up
    }

    /* ---- cache.py, _bypass: compute without the cache */
bypass:
    atomic {
        step;
        g = generation;
        value = token(k, generation, 0)
    }
    atomic {
        step;
        if
        :: generation == g -> check_value(value, value); goto returned
        :: else -> g = 0; value = 0; goto bypass
        fi
    }

#if VIEWS > 0
    /* ---- csm_view_acquire */
view:
    atomic {
        step;
        if
        :: has(k, FULL) -> g = generation; place = slot[k].place
        :: else -> goto returned
        fi
    }
    atomic {
        step;
        view_pin[me] = place + 1
    }
    atomic {
        step;
        if
#ifdef NO_PIN_RECHECK
        :: true ->
#else
        :: generation == g ->
#endif
            held[me] = 1;
            value = chunk[place].first;
            check_value(value, chunk[place].second)
        :: else -> view_pin[me] = 0; g = 0; place = 0; goto view
        fi
    }
    /* csm_view_release, at any later time */
    atomic {
        step;
        view_changed = chunk[place].first != value || chunk[place].second != value;
        assert(!view_changed);
        held[me] = 0;
        view_pin[me] = 0;
        goto returned
    }
#endif

    /* ---- csm_reset_commit, csm_segment_flip_locked */
reset:
    atomic {
        lock(returned);
#ifdef FLIP_BEFORE_PREPARE
        generation++;
        point;
        c = generation;
#else
        c = generation + 1;
#endif
        epoch[c % 2].generation = c;
        point;
        epoch[c % 2].run_chunk = CHUNKS;
        point;
        epoch[c % 2].holes = 0;
        epoch[c % 2].entries = 0;
        point;
        flight_hint = 0;
        point;
#ifndef FLIP_BEFORE_PREPARE
        generation = c;
#endif
        forget();
        c = 0;
        point;
        unlock()
    }
    wake(0);

returned:
    atomic {
        calls(0);
        k = 0; g = 0; f = 0; place = 0; value = 0;
#ifdef RETRY
        retried = 0;
#endif
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
        n = 0
    }
}

#ifdef LIVENESS
/* A call ends, unless it waits for a computation whose owner is stopped for good: that one looks like a slow fn. */
#define waits_for_the_stopped(p) \
    (for_good && target[p] != 0 && \
     ((flight[0].serial == target[p] && is_stopped(flight[0].owner)) || \
      (flight[FLIGHTS - 1].serial == target[p] && is_stopped(flight[FLIGHTS - 1].owner))))
#define is_well(p) (!calling[p] || (for_good && stopped == p + 1) || waits_for_the_stopped(p))
#if PROCS == 2
#define all_well (is_well(0) && is_well(1))
#else
#define all_well (is_well(0) && is_well(1) && is_well(2))
#endif
ltl every_call_returns { [] <> (all_well) }
#endif
