/* check.pml: what is asserted. Each assertion has a variable's name, which pan prints when it fails.
 *
 * Besides these pan itself reports invalid end states (somebody waits for ever for what cannot happen) and, with
 * LIVENESS, cycles in which a call never returns. */

/* ---- verify.c: what must hold whenever somebody gets the lock, be it a dead one's after repair */

inline verify()
{
#ifndef NO_VERIFY
    d_step {
        epoch_unprepared = now.generation != generation;
        assert(!epoch_unprepared);
        vn = 0;
        for (vi : 0 .. KEYS - 1) {
            vn = vn + has(vi, FULL);
            flight_astray = has(vi, COMPUTING) && !(flight[slot[vi].flight].key == vi &&
                            is_live(slot[vi].flight, flight[slot[vi].flight].serial, generation));
            assert(!flight_astray);
            entry_damaged = has(vi, FULL) && !(slot[vi].place < CHUNKS && chunk[slot[vi].place].first == chunk[slot[vi].place].second &&
                            chunk[slot[vi].place].first != 0 && key_of(chunk[slot[vi].place].first) == vi &&
                            generation_of(chunk[slot[vi].place].first) == generation);
            assert(!entry_damaged)
        }
        entries_miscounted = vn != now.entries;
        assert(!entries_miscounted);
        for (vi : 0 .. FLIGHTS - 1) {
            flight_astray = !is_free(vi) && !is_live(vi, flight[vi].serial, generation);
            assert(!flight_astray);
#ifdef RELAY
            /* Somebody attends to each flight, or looks after it. */
            flight_nobodys = is_live(vi, flight[vi].serial, generation) && has_owner(vi) && flight[vi].owner == word(PROCS - 1) &&
                             !is_sidecars(vi);
            assert(!flight_nobodys);
#endif
            flight_unreachable = is_free(vi) && vi < flight_hint;
            assert(!flight_unreachable)
        }
        /* Each entered chunk belongs to exactly one: run, hole, reservation, entry; or is counted as stranded. The others belong to
         * nobody. */
        for (vc : 0 .. CHUNKS - 1) {
            vn = (now.run_chunk == vc) + ((now.holes >> vc) & 1);
            for (vi : 0 .. FLIGHTS - 1) {
                vn = vn + (!is_free(vi) && flight[vi].reserved == vc)
            }
            for (vi : 0 .. KEYS - 1) {
                vn = vn + (has(vi, FULL) && slot[vi].place == vc)
            }
            space_shared_or_lost = vn > (chunk[vc].entered == generation) ||
                                   vn + is_stranded(vc) < (chunk[vc].entered == generation);
            assert(!space_shared_or_lost)
        }
        for (vi : 0 .. PROCS - 2) {
            for (vc : vi + 1 .. PROCS - 1) {
                two_owners = is_alive(word(vi)) && is_alive(word(vc)) && ticket[vi].flight == ticket[vc].flight &&
                             is_accepted(vi) && is_accepted(vc);
                assert(!two_owners)
            }
        }
        vi = 0; vc = 0; vn = 0
    }
#else
    skip
#endif
}


/* ---- what is handed out */

/* What a call returns for key k, at its last look at the generation. */
inline check_value(x, y)
{
    d_step {
        value_torn = (x) != (y) || (x) == 0;
        assert(!value_torn);
        value_of_another_key = key_of(x) != k;
        assert(!value_of_another_key);
        value_from_before_reset = generation_of(x) < generation;
        assert(!value_from_before_reset)
    }
}

/* Nobody writes to a chunk that somebody alive has a view of. */
inline check_write()
{
    d_step {
        for (vi : 0 .. PROCS - 1) {
            pinned_chunk_reused = vi != me && alive[row(vi)] && held[vi] && view_pin[vi] == place + 1;
            assert(!pinned_chunk_reused)
        }
        vi = 0
    }
}
