/* read.pml, part of `worker`: a hit, a computation without the cache, a view. No lock. */

    /* _look_up of cache.py, and csm_find. Looking at the slot is one step: csm_index_find sees a slot change under its hands
     * and then finds nothing, as it would have after the change. */
look_up:
    atomic {
        step;
        if
        :: is_sidecar(me) -> goto returned /* it has published, or was too late to */
        :: !is_sidecar(me) && has(k, FULL) -> g = generation; place = slot[k].place
        :: !is_sidecar(me) && !has(k, FULL) -> goto claim
        fi
    }
    atomic {
        step;
        value = chunk[place].first
    }
    atomic {
        step;
        c = chunk[place].second
    }
    atomic {
        step;
        if
#ifdef NO_RECHECK
        :: true ->
#else
        :: generation == g ->
#endif
            check_value(value, c);
            c = 0;
            goto returned
        :: else -> g = 0; place = 0; value = 0; c = 0; goto claim
        fi
    }

    /* _bypass of cache.py */
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
    /* csm_view_acquire */
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
