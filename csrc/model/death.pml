/* death.pml: SIGKILL and SIGSTOP, at any step. */

#if CRASHES == 0
#define may_die skip
#define or_die
#elif defined(THREADS) /* all threads of a process die at once; this one hears of it at its next step */
#define may_die \
    if \
    :: !alive[row(me)] -> die(); goto dead \
    :: alive[row(me)] && crashes_left > 0 -> be_killed(); goto dead \
    :: alive[row(me)] \
    fi
#define or_die \
    :: !alive[row(me)] -> die(); goto dead \
    :: alive[row(me)] && crashes_left > 0 -> be_killed(); goto dead
#else
#define may_die if :: crashes_left > 0 -> be_killed(); goto dead :: true fi
#define or_die :: crashes_left > 0 -> be_killed(); goto dead
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

/* Nothing in the segment changes. The dead one's pins, which bind nobody, and what only it could see are cleared to have fewer
 * states (the pins not when a new process may take the row). */
inline die()
{
    d_step {
        calls(0);
        held[me] = 0;
#if RESTARTS == 0
        view_pin[me] = 0; write_pin[me] = 0;
#endif
#ifdef OUTCOMES
        due[me] = 0; expected = 0; unstorable = 0;
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

/* SIGKILL: the kernel lets go of the row's lock. */
inline be_killed()
{
    crashes_left--;
    alive[row(me)] = false;
    die()
}

#if LATE > 0
active proctype clock()
{
end:
    do
    :: atomic { !late && lates_left > 0 -> late = true; lates_left-- }
    :: atomic { late -> late = false }
    od
}
#endif

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
