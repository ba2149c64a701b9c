/* relay.pml, part of `worker`: relay.c, what the last process does when it is the cluster's sidecar (RELAY). Of the cluster there is no more
 * than what may arrive at any moment: leave to compute, word that another host computes, and what that one came to. */

    /* The thread that may wait for the lock. What the other one does is in answers.pml. */
sidecar:
    atomic {
        step;
        i = 0;
        do
        :: i < FLIGHTS - 1 -> i++
        :: true -> break
        od;
        if
        :: may_answer(i) || flight[i].lease == GRANTED -> f = i; i = 0; goto end_unawaited
#ifdef OUTCOMES
        :: may_answer(i) && failures_left > 0 && flight[i].generation == generation ->
            failures_left--;
            f = i;
            c = flight[f].serial;
            k = flight[f].key;
            i = 0;
            value = token(k, generation, 0);
            goto take_asked
#endif
        /* a value arrives, which was computed elsewhere since the reset that is in force here now */
        :: deliveries_left > 0 ->
            deliveries_left--;
            if
            :: k = 0
            :: KEYS > 1 -> k = 1
            fi;
            i = 0;
            g = generation;
            value = token(k, generation, 0);
            goto take
        :: closes_left > 0 -> closes_left--; i = 0; goto close
        :: else
        fi;
        i = 0;
        goto returned
    }

    /* end_unawaited of relay.c: a flight that nobody waits for and nobody works on */
end_unawaited:
    atomic {
        lock(returned);
        d_step {
            i = 0;
            for (vi : 0 .. PROCS - 1) {
                i = (target[vi] != 0 && target[vi] == flight[f].serial && is_alive(word(vi)) && vi != me -> 1 : i)
            }
            vi = 0
        }
        if
        :: i == 0 && is_live(f, flight[f].serial, generation) &&
           (flight[f].owner == word(me) -> may_answer(f) : !is_alive(flight[f].owner)) ->
            i = 0;
            flight[f].lease = (flight[f].owner == word(me) -> TAKEN : flight[f].lease);
            point;
            free_room(f);
            k = flight[f].key;
            vacate(k);
            free_flight(f);
            point
        :: else -> i = 0
        fi;
        f = 0;
        unlock();
        goto returned
    }

    /* csm_relay_take: of the generation `g` */
take:
    atomic {
        lock(returned);
        if
#ifndef NO_STAMP_CHECK
        :: generation != g -> unlock(); goto returned
        :: generation == g && has(k, FULL) -> unlock(); goto returned
        :: generation == g && has(k, COMPUTING) ->
#else
        :: has(k, FULL) -> unlock(); goto returned
        :: has(k, COMPUTING) ->
#endif
            f = slot[k].flight;
            if
            :: flight[f].owner == word(me) && flight[f].given_up != flight[f].serial && (flight[f].lease == ASKED || may_answer(f)) ->
                flight[f].lease = TAKEN;
                own(f)
            :: flight[f].owner == word(me) && flight[f].given_up != flight[f].serial && !(flight[f].lease == ASKED || may_answer(f)) ->
                f = 0; unlock(); goto returned /* another thread is about to publish it */
            :: (flight[f].owner != word(me) || flight[f].given_up == flight[f].serial) && may_attend(f) ->
                f = 0; unlock(); goto returned /* a worker computes it */
            :: (flight[f].owner != word(me) || flight[f].given_up == flight[f].serial) && may_take_over(f) ->
                take_over(f);
                flight[f].lease = TAKEN
            fi;
            f = 0;
            point;
            unlock();
            g = 0;
            goto publish
        :: else ->
            begin(word(me), TAKEN);
            if
            :: i < FLIGHTS ->
                own(i);
                point;
                i = 0;
                unlock();
                g = 0;
                goto publish
            :: else -> i = 0; unlock(); goto returned
            fi
        fi
    }

#ifdef OUTCOMES
    /* csm_relay_take_asked: flight f, if its serial is still c; to end it with what another host's computation came to */
take_asked:
    atomic {
        lock(too_late);
        if
#ifdef NO_SERIAL_CHECK
        :: is_live(f, flight[f].serial, generation) && flight[f].owner == word(me) && may_answer(f) ->
#else
        :: is_live(f, c, generation) && flight[f].owner == word(me) && may_answer(f) ->
#endif
            flight[f].lease = TAKEN;
            own(f);
            point;
            f = 0; c = 0;
            unstorable = 1;
            unlock();
            goto publish
        :: else -> unlock(); goto too_late
        fi
    }
too_late:
    atomic {
        step;
        c = 0;
        goto returned
    }
#endif

    /* csm_relay_close; without the lock, which a stopped one has, it does the same */
close:
    atomic {
        step;
        if
        :: write_lock == 0 -> write_lock = word(me)
        :: write_lock != 0 && !is_alive(write_lock) -> write_lock = word(me); point; mend
        :: is_stopped(write_lock)
        or_die
        fi;
        sidecar_is_open = 0;
        point;
        f = 0;
#ifndef NO_GIVE_UP_AT_CLOSE
        do
        :: f < FLIGHTS ->
            flight[f].given_up = (flight[f].serial != 0 && flight[f].owner == word(me) -> flight[f].serial : flight[f].given_up);
            point;
            f++
        :: else -> break
        od;
        f = 0;
#endif
        unlock();
        goto returned
    }
