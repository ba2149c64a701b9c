/* answers.pml: look, hold and grant of relay.c, which the sidecar's event loop does while another of its threads takes and publishes
 * (relay.pml). Compare-and-swaps of one flight's word, without the lock. Its serial is in it: a flight that has got the record meanwhile
 * is never meant, so which one was meant need not be remembered. */

proctype event_loop()
{
    byte n;
end:
    do
    :: atomic {
        alive[PROCS - 1] && sidecar_is_open && stopped != PROCS ->
        do
        :: n < FLIGHTS - 1 -> n++
        :: true -> break
        od;
        if
        :: flight[n].lease == ASKED && flight[n].owner == word(PROCS - 1) && is_live(n, flight[n].serial, generation) -> flight[n].lease = SEEN
        :: flight[n].lease == SEEN -> flight[n].lease = HELD
        :: flight[n].lease == SEEN || flight[n].lease == HELD -> flight[n].lease = OFFERED
        :: else
        fi;
        n = 0
    }
    od
}
