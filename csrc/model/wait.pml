/* wait.pml, part of `worker`: csm_wait. */

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
#ifdef NO_TAKE_OVER
        :: true -> goto sleep
#else
        :: may_attend(f) -> goto sleep
        :: may_take_over(f) -> goto try_take_over
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
#if LEAVES > 0
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
            :: may_attend(f) -> unlock(); goto sleep
            :: may_take_over(f) ->
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
