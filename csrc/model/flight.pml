/* flight.pml: what flight.c, publish.c, index.c, outcome.c and wait.c do under the lock; and waking. */

#ifdef OUTCOMES
#ifdef NO_WINDOW_WRITER
#define is_written(f) false
#else
#define is_written(f) is_alive(outcome[f].writer)
#endif
/* csm_outcome_is_idle */
#define is_idle(f) (outcome[f].unread == 0 && !is_written(f))
#define idle_and_free(f) (is_free(f) && is_idle(f))
/* of those behind f */
#if FLIGHTS == 3
#define another_is_idle(f) (((f) < 1 && idle_and_free(1)) || ((f) < 2 && idle_and_free(2)))
#elif FLIGHTS == 2
#define another_is_idle(f) ((f) < 1 && idle_and_free(1))
#else
#define another_is_idle(f) false
#endif
#endif

/* csm_flight_free_locked. A free record's other words mean nothing; they are cleared to have fewer states. */
inline free_flight(f)
{
    flight[f].reserved = CHUNKS;
    flight[f].term = 0;
    flight[f].waiters = 0;
#ifdef RELAY
    flight[f].lease = NONE;
#endif
    point;
    flight[f].serial = 0;
    flight[f].generation = 0;
    flight[f].key = 0;
    point;
    flight_hint = (f < flight_hint -> f : flight_hint)
}

/* may_write_locked; csm_arena_is_written */
#define writes(p, o, c) (word(p) == (o) && write_pin[p] == (c) + 1)
#if PROCS == 2
#define is_written_by(o, c) (writes(0, o, c) || writes(1, o, c))
#else
#define is_written_by(o, c) (writes(0, o, c) || writes(1, o, c) || writes(2, o, c))
#endif
#ifdef BELIEVE_GIVEN_UP
#define may_write(f) has_owner(f)
#else
#define may_write(f) (has_owner(f) || (is_alive(flight[f].owner) && is_written_by(flight[f].owner, flight[f].reserved)))
#endif

/* free_room_locked */
inline free_room(f)
{
#if defined(RELAY) && !defined(RETURN_FROM_THE_LIVING)
    if
    :: flight[f].reserved < CHUNKS && may_write(f) -> /* csm_arena_strand_locked */
        now.stranded = now.stranded | (1 << flight[f].reserved);
        point;
        flight[f].reserved = CHUNKS;
        point
    :: else -> give_back(f)
    fi
#else
    give_back(f)
#endif
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

/* csm_index_occupy_locked: the commit of a claim */
inline occupy(which, f)
{
    slot[which].generation = generation;
    slot[which].state = COMPUTING;
    slot[which].flight = f;
    slot[which].place = 0
}

/* find_free_locked and csm_flight_begin_locked; i: the flight, FLIGHTS when all are in use. What the caller does to it comes next. */
inline begin(whose, how)
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
#ifdef SLOT_BEFORE_RECORD
        occupy(k, i);
        point;
#endif
#ifdef OUTCOMES
        d_step { /* it may be overwritten from here on: that it is lost to those who have not read it is no fault */
            for (vi : 0 .. PROCS - 1) {
                due[vi] = due[vi] && target[vi] != outcome[i].serial
            }
            vi = 0
        }
#endif
        flight[i].serial = 0;
        flight[i].owner = whose;
        flight[i].term = 0;
        flight[i].generation = generation;
        flight[i].key = k;
        flight[i].reserved = CHUNKS;
        flight[i].waiters = 0;
#ifdef RELAY
        flight[i].lease = how;
#endif
        point;
        flight[i].serial = next_serial;
        next_serial++;
        point;
#ifndef SLOT_BEFORE_RECORD
        occupy(k, i)
#else
        skip
#endif
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

#ifdef OUTCOMES
/* csm_outcome_void_locked: what the former owner committed just before its death; nobody is owed it any more */
inline void_outcome(f)
{
#ifndef NO_VOID_BY_SUCCESSOR
    d_step {
        if
        :: outcome[f].serial == flight[f].serial ->
            outcome[f].serial = 0;
            outcome[f].generation = 0;
            outcome[f].unread = 0;
            for (vi : 0 .. PROCS - 1) {
                due[vi] = due[vi] && target[vi] != flight[f].serial
            }
        :: else
        fi;
        vi = 0
    }
    point
#else
    skip
#endif
}
#endif

#ifdef RELAY
/* csm_lease_take_over_locked */
inline free_lease(f)
{
    flight[f].lease = (flight[f].lease == OFFERED || flight[f].lease == GRANTED -> GRANTED : NONE)
}
#endif

/* take_over_locked */
inline take_over(f)
{
#ifndef NO_RETURN_BY_SUCCESSOR
    free_room(f);
#endif
#ifdef OUTCOMES
    void_outcome(f);
#endif
    flight[f].term++;
    point;
#if defined(RELAY) && defined(LEASE_BEFORE_OWNER)
    free_lease(f);
    point;
#endif
    flight[f].owner = word(me);
    point;
    flight[f].given_up = 0;
#if defined(RELAY) && !defined(LEASE_BEFORE_OWNER)
    point;
    free_lease(f);
#endif
    own(f);
    d_step {
        for (vi : 0 .. PROCS - 1) {
            two_owners = vi != me && is_alive(word(vi)) && ticket[vi].flight == f && is_accepted(vi);
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
        :: is_live(i, flight[i].serial, generation) && may_be_lost(i) ->
            free_room(i);
            place = flight[i].key;
            vacate(place);
            place = 0;
            free_flight(i);
            point;
            c++
        :: !(is_live(i, flight[i].serial, generation) && !has_owner(i))
        fi;
        i++
    :: else -> break
    od;
    i = 0
}

/* give_up: without the lock. Serials only grow, and so does the word. */
inline raise_given_up()
{
#ifdef NO_GIVE_UP
    skip
#else
    flight[ticket[me].flight].given_up =
        (flight[ticket[me].flight].given_up < ticket[me].serial -> ticket[me].serial : flight[ticket[me].flight].given_up)
#endif
}

/* check_ticket_locked, of a ticket that is not good: if the record names this process, nobody may be working on it; but it is none of its
 * business if the record serves a later flight. */
inline disown()
{
    d_step {
        vi = ticket[me].flight;
        flight[vi].given_up = (ticket[me].generation == generation && flight[vi].owner == word(me) && flight[vi].serial == ticket[me].serial ->
                               flight[vi].serial : flight[vi].given_up);
        vi = 0
    }
}

/* The ticket is not used again. */
inline spend()
{
    ticket[me].serial = 0; ticket[me].flight = 0; ticket[me].term = 0; ticket[me].generation = 0;
#ifdef OUTCOMES
    unstorable = 0;
#endif
}

/* ---- nodes */

#define waits_for(n, s) (target[n] != 0 && ((s) == 0 || target[n] == (s)))

/* csm_wait_wake(s), 0: everybody. sem_post is a store and then a wake, and comes some time after the look at the node. */
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
            od
        }
        atomic {
            if
            :: i < PROCS -> step; posted[i] = 1
            :: else
            fi
        }
        atomic {
            if
            :: i < PROCS ->
                step;
                asleep[i] = 0;
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

/* csm_wait_node_take and join_locked; a fresh semaphore: the last sleeper's may have been posted late */
inline join(f)
{
#ifdef SEMAPHORES
    posted[me] = 0;
#endif
    flight[f].waiters = 1;
    target[me] = flight[f].serial;
    g = generation
}

inline leave()
{
    target[me] = 0;
#ifdef OUTCOMES
    due[me] = 0;
#endif
#ifdef SEMAPHORES
    asleep[me] = 0;
#endif
}

#ifdef OUTCOMES
/* csm_outcome_done has found a word of this waiter's flight. The last one cleans, if the payload was large; goes to `done` if not. */
#define count_off(done) \
    outcome[f].unread--; \
    if \
    :: outcome[f].unread == 0 -> expected = word_of(f); goto clean \
    :: true -> goto done \
    fi
#endif

/* check_ticket_locked */
#define check_ticket \
    if \
    :: !ticket_is_good(me) -> disown(); unlock(); goto stale \
    :: else \
    fi; \
    f = ticket[me].flight
