/* arena.pml: arena.c, under the lock. Free space belongs to the run or to a hole, then to a reservation, then to an entry. */

#ifdef NO_PIN_LOOK
#define can_enter(c) (chunk[c].entered != generation)
#else
#define can_enter(c) (chunk[c].entered != generation && !is_pinned(c))
#endif
#define pins(p, c) (alive[row(p)] && (view_pin[p] == (c) + 1 || write_pin[p] == (c) + 1)) /* a dead row's bind nobody */
#if PROCS == 2
#define is_pinned(c) (pins(0, c) || pins(1, c))
#else
#define is_pinned(c) (pins(0, c) || pins(1, c) || pins(2, c))
#endif

/* csm_arena_reserve_locked for flight f; c: the chunk, CHUNKS when there is none. */
inline reserve(f)
{
    c = 0;
    do
    :: c < CHUNKS && !((now.holes >> c) & 1) -> c++
    :: else -> break
    od;
    if
    :: c < CHUNKS ->
        flight[f].reserved = c;
        point;
        now.holes = now.holes & ~(1 << c)
    :: else ->
        if
        :: now.run_chunk < CHUNKS -> c = now.run_chunk
        :: else ->
            c = 0;
            do
            :: c < CHUNKS && !can_enter(c) -> c++
            :: else -> break
            od;
            if
            :: c < CHUNKS ->
                now.run_chunk = c;
                point;
                chunk[c].entered = generation;
                point
            :: else
            fi
        fi;
        if
        :: c < CHUNKS ->
#ifdef RUN_BEFORE_RESERVATION
            now.run_chunk = CHUNKS;
            point;
            flight[f].reserved = c
#else
            flight[f].reserved = c;
            point;
            now.run_chunk = CHUNKS
#endif
        :: else
        fi
    fi;
    point
}

/* csm_arena_return_locked */
inline give_back(f)
{
    if
    :: flight[f].reserved < CHUNKS ->
        if
        :: now.run_chunk == CHUNKS -> now.run_chunk = flight[f].reserved
        :: else -> now.holes = now.holes | (1 << flight[f].reserved)
        fi;
        point;
        flight[f].reserved = CHUNKS;
        point
    :: else
    fi
}

