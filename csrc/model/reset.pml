/* reset.pml, part of `worker`: csm_reset_commit. */

reset:
    atomic {
        lock(returned);
        /* csm_segment_flip_locked */
#ifdef FLIP_BEFORE_PREPARE
        generation++;
        point;
        c = generation;
#else
        c = generation + 1;
#endif
        epoch[c % 2].generation = c;
        point;
        epoch[c % 2].run_chunk = CHUNKS;
        point;
        epoch[c % 2].holes = 0;
#ifdef RELAY
        epoch[c % 2].stranded = 0;
#endif
        epoch[c % 2].entries = 0;
        point;
        flight_hint = 0;
        point;
#ifndef FLIP_BEFORE_PREPARE
        generation = c;
#endif
        forget();
        g = c;
        c = 0;
        point;
        unlock()
    }
    wake(0);
#ifdef OUTCOMES
    /* csm_outcome_sweep: no serial, its writer was killed before it had finished */
sweep:
    atomic {
        step;
        k = KEYS; /* after cleaning, `sweep_next` */
        if
        :: outcome[f].serial == 0 || outcome[f].generation != g -> expected = word_of(f); goto clean
        :: else
        fi
    }
sweep_next:
    atomic {
        step;
        f++;
        if
        :: f < FLIGHTS -> goto sweep
        :: else
        fi
    }
#endif
    goto returned;
