/* outcome.pml, part of `worker`: what a flight ended with and is not stored, from its owner's window to its waiters. */

    /* csm_outcome_read; `target` goes on naming the flight, although the node was dropped */
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
#ifdef NO_LOOK_AFTER_OUTCOME
        :: false ->
#else
        :: outcome[f].serial != target[me] ->
#endif
            value = 0; c = 0;
            goto again
        :: else
        fi
    }
    /* csm_outcome_done */
    atomic {
        step;
        due[me] = 0;
        if
        :: outcome[f].serial == target[me] && outcome[f].unread > 0 -> count_off(return_outcome)
        :: else -> goto return_outcome
        fi
    }
    /* clean, of the record with the word `expected`: for the last reader, or after a reset */
clean:
    atomic {
        lock(cleaned);
        if
        :: is_free(f) && word_of(f) == expected && !is_written(f) ->
            outcome[f].writer = word(me);
            point;
            outcome[f].serial = 0;
            outcome[f].generation = 0;
            outcome[f].unread = 0;
            point;
            unlock()
        :: else -> unlock(); goto cleaned
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
        outcome[f].writer = 0 /* csm_outcome_end */
    }
cleaned:
    atomic {
        step;
        expected = 0;
#if RESETS > 0
        if
        :: k == KEYS -> goto sweep_next
        :: else -> goto return_outcome
        fi
#else
        goto return_outcome
#endif
    }
return_outcome:
    atomic {
        step;
        leave();
        f = 0;
        if
        :: value == 0 -> c = 0; g = 0; goto returned /* came from `leaves`: there is nobody to return to */
        :: value != 0 && generation == g -> check_value(value, c); c = 0; goto returned
        :: value != 0 && generation != g -> value = 0; c = 0; g = 0; goto look_up
        fi
    }

#if LEAVES > 0
    /* csm_wait_leave: may have been counted among the readers of an outcome that it will not read. It counts itself off before
     * the node is dropped: who is dropped before the count was not counted. */
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
        target[me] = c; c = 0; /* from here on a name for this process's own use: the flight is over, or does not count it */
        if
        :: outcome[f].serial == target[me] && outcome[f].unread > 0 -> count_off(return_outcome)
        :: else -> goto return_outcome
        fi
    }
#else
    atomic {
        step;
        due[me] = 0;
        if
        :: outcome[f].serial == target[me] && outcome[f].unread > 0 -> count_off(return_outcome)
        :: else -> goto return_outcome
        fi
    }
#endif
#endif

    /* publish_outcome_locked, from where it lets go of the lock */
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
        check_ticket;
        d_step { /* csm_wait_count: the dead count as well */
            for (vi : 0 .. PROCS - 1) {
                c = c + (target[vi] == ticket[me].serial)
            }
            vi = 0
        }
        point;
        d_step { /* csm_outcome_commit_locked */
            for (vi : 0 .. PROCS - 1) {
                due[vi] = due[vi] || (target[vi] == ticket[me].serial)
            }
            outcome[f].generation = generation;
            outcome[f].unread = c;
            outcome[f].serial = ticket[me].serial;
            c = 0; vi = 0
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
