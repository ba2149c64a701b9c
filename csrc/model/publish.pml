/* publish.pml, part of `worker`: csm_publish, csm_abandon, and the owner who cannot have the lock or has lost its flight. */

publish:
    atomic {
        lock(give_up);
        check_ticket;
#if FAILURES > 0
        if
        :: unstorable -> c = CHUNKS
        :: !unstorable && failures_left > 0 -> failures_left--; unstorable = 1; c = CHUNKS
        :: !unstorable -> reserve(f)
        fi;
#else
        reserve(f);
#endif
#if CRASHES > 0 || STOPS > 0 || LATE > 0
        if
        :: c == CHUNKS -> /* reap_now_and_then_locked: the room of the dead */
            reap();
            if
            :: c > 0 -> reserve(f)
            :: else -> c = CHUNKS
            fi
        :: true /* it has just been tried; or there is room */
        fi;
#endif
        if
        :: c < CHUNKS ->
            place = c;
            c = 0;
#ifdef PIN_AFTER_UNLOCK
            f = 0;
            unlock();
            goto pin
#else
#ifndef NO_WRITER_PIN
            write_pin[me] = place + 1;
#endif
            f = 0;
            unlock()
#endif
        :: else ->
            /* publish_outcome_locked */
            c = 0;
            give_back(f);
#ifdef OUTCOMES
            if
            :: flight[f].waiters && !is_written(f) -> /* csm_outcome_begin_locked */
                outcome[f].writer = word(me);
                point;
#ifndef WORD_KEPT
                outcome[f].serial = 0;
                outcome[f].generation = 0;
                outcome[f].unread = 0;
                point;
#endif
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
#ifdef PIN_AFTER_UNLOCK
pin:
    atomic {
        step;
        write_pin[me] = place + 1
    }
#endif
#if FAILURES > 0
    /* csm_arena_back: there may be no pages */
    atomic {
        step;
        if
        :: failures_left > 0 ->
            failures_left--;
            unstorable = 1;
            write_pin[me] = 0;
            place = 0;
            goto publish
        :: true
        fi
    }
#endif
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
    atomic {
        step;
        write_pin[me] = 0
    }
#ifdef WAKE_BEFORE_COMMIT
    atomic { step; g = ticket[me].serial }
    wake(g);
#endif
commit:
    atomic {
        lock(give_up);
        check_ticket;
        /* csm_index_commit_locked */
        record[now.entries] = k + 1;
        point;
        slot[k].place = place;
        point;
#ifdef COUNT_BEFORE_COMMIT
        now.entries++;
        point;
#endif
#ifdef NO_TICKET_CHECK
        slot[k].generation = generation;
#endif
#ifdef OUTCOMES
        outcome_astray = outcome[f].serial == ticket[me].serial;
        assert(!outcome_astray);
#endif
        slot[k].state = FULL;
        slot[k].flight = 0;
        point;
#ifndef COUNT_BEFORE_COMMIT
        now.entries++;
        point;
#endif
        g = ticket[me].serial;
        free_flight(f);
        point;
        f = 0;
        place = 0;
        unlock()
    }
#ifdef WAKE_BEFORE_COMMIT
    goto ended;
#endif
wake_waiters:
    wake(g);
ended:
    atomic {
        step;
        g = ticket[me].generation;
        spend()
    }
    /* _own of cache.py: the last look */
last_look:
    atomic {
        step;
        if
#ifdef NO_LAST_LOOK
        :: true ->
#else
        :: generation == g ->
#endif
            check_value(value, value);
            goto returned
        :: else -> value = 0; place = 0; g = 0; goto look_up
        fi
    }

stale:
    atomic {
        step;
        value = 0; place = 0; f = 0; g = 0;
        spend();
        goto look_up
    }

    /* lock_for could not have the lock: the flight is given up, its ticket not used again, the value returned all the same. */
give_up:
#ifdef RELAY
    /* A worker may have it by now, if this is a sidecar that is late. */
    atomic {
        step;
        if
        :: flight[ticket[me].flight].owner != word(me) ->
            f = 0;
            g = ticket[me].generation;
            spend();
            goto given_up
        :: else
        fi
    }
#endif
    atomic {
        step;
        raise_given_up();
        f = 0;
        g = ticket[me].generation;
        spend()
    }
given_up:
    atomic {
        step;
        place = 0;
        goto last_look
    }

    /* csm_abandon */
abandon:
    atomic {
        lock(give_up_abandoned);
        check_ticket;
        g = ticket[me].serial;
        give_back(f);
        vacate(k);
        free_flight(f);
        point;
        f = 0;
        unlock()
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
        raise_given_up();
        spend();
        goto look_up
    }
