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
            :: is_attended(f) ->
#endif
                join(f);
                point;
                unlock();
                goto wait
#ifndef NO_TAKE_OVER
            :: else ->
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
