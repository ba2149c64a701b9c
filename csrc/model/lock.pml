/* lock.pml: the write lock (lock.c), and what who takes it from a dead one does (repair.c). */

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
#ifdef THREADS
#define may_run alive[row(me)]
#else
#define may_run true
#endif

/* csm_lock. Goes to `busy` when a live holder does not run; it may just as well be waited for. A macro: spin takes no
 * label for an argument of an inline. */
#define lock(busy) \
    if \
    :: may_run && write_lock == 0 -> write_lock = word(me) \
    :: may_run && write_lock != 0 && !is_alive(write_lock) -> write_lock = word(me); point; mend \
    :: may_run && is_stopped(write_lock) -> impatient(busy) \
    or_die \
    fi; \
    verify(); \
    point

/* ---- repair.c; its parts are those of index.c, flight.c and arena.c */

inline repair()
{
#ifndef NO_LOG_REPAIR
    if
    :: now.entries < KEYS && record[now.entries] != 0 && has(record[now.entries] - 1, FULL) ->
        now.entries = now.entries + 1;
        point
    :: else
    fi;
#endif
#ifndef NO_FLIGHT_REPAIR
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
#endif
#ifndef NO_HINT_REPAIR
    flight_hint = 0;
    point;
#endif
#ifndef NO_RUN_REPAIR
    if
    :: now.run_chunk < CHUNKS -> chunk[now.run_chunk].entered = generation; point
    :: else
    fi;
#endif
#ifndef NO_RESERVATION_REPAIR
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
#endif
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
#ifdef RELAY
            ; flight[vi].lease = NONE
#endif
        }
        for (vi : 0 .. CHUNKS - 1) {
            chunk[vi].entered = 0
        }
        epoch[(generation + 1) % 2].run_chunk = CHUNKS;
        epoch[(generation + 1) % 2].holes = 0;
#ifdef RELAY
        epoch[(generation + 1) % 2].stranded = 0;
#endif
        epoch[(generation + 1) % 2].entries = 0;
#endif
        vi = 0
    }
}

