/* claim.pml, part of `worker`: csm_claim, and what cache.py does with a ticket. */

claim:
    atomic {
        lock(bypass);
        if
        :: has(k, FULL) -> unlock(); goto look_up
        :: has(k, COMPUTING) ->
            f = slot[k].flight;
            if
#ifdef NO_TAKE_OVER
            :: true ->
#else
            :: may_attend(f) ->
#endif
                join(f);
                point;
                unlock();
                goto wait
#ifndef NO_TAKE_OVER
            :: may_take_over(f) ->
                take_over(f);
                f = 0;
                unlock();
                goto compute
#endif
            fi
#ifdef RELAY
        :: !has(k, FULL) && !has(k, COMPUTING) && may_ask ->
            /* The flight is the sidecar's. There being no record left is as below. */
            begin(word(PROCS - 1), ASKED);
            if
            :: i < FLIGHTS ->
                f = i;
                i = 0;
                point;
                join(f);
                point;
                unlock();
                goto wait
            :: else -> goto no_flight
            fi
        :: !has(k, FULL) && !has(k, COMPUTING) && need_not_ask ->
#else
        :: else ->
#endif
            begin(word(me), NONE);
no_flight:
            if
            :: i < FLIGHTS -> own(i); point; i = 0; unlock(); goto compute
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

    /* _own: hooks first, then fn */
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
        assert(!computed_twice);
#endif
        goto publish
    }
