/* state.pml: the words of the segment, as in layout.h, and what only the checker sees.
 *
 * Left out of layout.h: what nobody decides by (counts, times, names), tags and tombs of the index (a key has its slot),
 * bytes (an entry takes a chunk), nodes (each process has one), the reset lock. */

/* ---- owners: 0 nobody, else row + 1, and with RESTARTS the incarnation. THREADS: the first two share a row */

#ifdef THREADS
#define row(p) ((p) == 1 -> 0 : (p))
#else
#define row(p) (p)
#endif
#if RESTARTS > 0 && !defined(NO_INCARNATION)
#define word(p) (row(p) + 1 + PROCS * incarnation[row(p)])
#define is_alive(owner) \
    ((owner) != 0 && alive[((owner) - 1) % PROCS] && incarnation[((owner) - 1) % PROCS] == ((owner) - 1) / PROCS)
#else
#define word(p) (row(p) + 1)
#define is_alive(owner) ((owner) != 0 && alive[(owner) - 1])
#endif

/* ---- values: what was computed, when, and whether the flight had been taken over. A copy is made in two halves, so that a torn
 * one shows */

#define token(key, g, term) (1 + (key) + KEYS * ((g) + (RESETS + 2) * ((term) % 2)))
#define key_of(t) (((t) - 1) % KEYS)
#define generation_of(t) ((((t) - 1) / KEYS) % (RESETS + 2))

/* ---- the segment */

byte generation = 1;
byte write_lock;

typedef epoch_t {
    byte generation; /* it was prepared for */
    byte run_chunk;  /* the chunk that was entered and is not handed out yet; CHUNKS: none */
    byte holes;      /* a bit per chunk that was handed out and came back */
    byte entries;    /* length of the log */
#ifdef RELAY
    byte stranded;   /* a bit per chunk that is counted as lost until the reset, and may be */
#endif
}
epoch_t epoch[2];
#define now epoch[generation % 2]
#ifdef RELAY
#define is_stranded(c) ((now.stranded >> (c)) & 1)
#else
#define is_stranded(c) 0
#endif

#define EMPTY 0
#define COMPUTING 1
#define FULL 2
typedef slot_t { /* that of a key; which slot that is, is index.c's and not modelled */
    byte generation;
    byte state;
    byte flight;
    byte place;
}
slot_t slot[KEYS];
byte record[KEYS]; /* the log: key + 1 */

typedef flight_t {
    byte serial; /* 0: free */
    byte owner;
    byte term;
    byte given_up;
    byte generation;
    byte key;
    byte reserved; /* chunk, CHUNKS: none */
    bit waiters;
#ifdef RELAY
    byte lease;    /* of the word, which bears the serial as well; of a free record it means nothing */
#endif
}
flight_t flight[FLIGHTS];
byte flight_hint;
byte next_serial = 1;

typedef chunk_t {
    byte entered;
    byte first, second; /* halves of a token */
}
chunk_t chunk[CHUNKS];

#ifdef OUTCOMES
typedef outcome_t {
    byte serial; /* word: whose outcome this is, */
    byte unread; /*       and how many waiters have not read it */
    byte writer; /* owner word of who writes to the window or cleans it */
    byte generation;
    byte first, second; /* the window */
}
outcome_t outcome[FLIGHTS];
#endif

/* rows */
bool alive[PROCS]; /* the row's lock is held: only a death lets go of it */
#if RESTARTS > 0
byte incarnation[PROCS];
byte restarts_left = RESTARTS;
#endif
byte view_pin[PROCS], write_pin[PROCS]; /* chunk + 1 */

/* nodes: each process has one */
byte target[PROCS];  /* serial waited for */
#ifdef SEMAPHORES
bit posted[PROCS];   /* the semaphore's value; more than one post is as good as one */
bit asleep[PROCS];   /* in the kernel, until woken */
#endif

/* ---- what only the checker sees */

typedef ticket_t {
    byte serial; /* 0: none */
    byte flight;
    byte term;
    byte generation;
}
ticket_t ticket[PROCS];

byte calls_left = CALLS, views_left = VIEWS, resets_left = RESETS;
byte crashes_left = CRASHES, stops_left = STOPS;
byte stopped;   /* process + 1 */
bool for_good;  /* it will not go on */
byte keys_used; /* keys are alike: the first one asked for is 0 */
#ifdef RELAY
byte deliveries_left = DELIVERIES, closes_left = CLOSES, lates_left = LATE;
bool late; /* it has not looked for lease_timeout, whatever else it does: so others take it for stopped */
bit sidecar_is_open = 1; /* the header's word names it */
#define is_sidecar(p) ((p) == PROCS - 1)
#else
#define is_sidecar(p) false
#endif
#if !defined(THREADS) && !defined(SEMAPHORES)
byte started;   /* and so are processes: they begin in order */
#define may_begin (me <= started && !is_sidecar(me))
#define began() calls(1); started = (me == started -> started + 1 : started)
#else
#define may_begin (alive[row(me)] && !is_sidecar(me)) /* no: two are of one process, or they are woken in order */
#define began() calls(1)
#endif
#if CRASHES == 0 && STOPS == 0
#define ONCE
byte computed[KEYS]; /* computations of this generation whose result is stored or under way */
#endif
bit held[PROCS]; /* its view was handed out */
#ifdef LIVENESS
bit calling[PROCS];
#define calls(yes) calling[me] = yes
#else
#define calls(yes) skip
#endif
#ifdef OUTCOMES
byte leaves_left = LEAVES, failures_left = FAILURES;
bit due[PROCS]; /* there is an outcome for this waiter */
#define word_of(f) (outcome[f].serial * (PROCS + 1) + outcome[f].unread)
#endif

/* What is asserted; pan prints the name. */
hidden byte value_torn, value_of_another_key, value_from_before_reset, view_changed, pinned_chunk_reused, two_owners,
    computed_twice, outcome_lost, outcome_astray;
hidden byte epoch_unprepared, entries_miscounted, flight_astray, flight_nobodys, flight_unreachable, space_shared_or_lost, entry_damaged;

hidden byte vi, vc, vn; /* scratch of steps that cannot be interrupted */

#define is_live(f, s, g) \
    ((s) != 0 && flight[f].serial == (s) && flight[f].generation == (g) && slot[flight[f].key].generation == (g) && \
     slot[flight[f].key].state == COMPUTING && slot[flight[f].key].flight == (f))
#define NONE 0
#define has_owner(f) (flight[f].given_up != flight[f].serial && is_alive(flight[f].owner))
#ifdef RELAY
/* lease.h. Time: an answer may be waited for no longer at any moment; a sidecar that is stopped may be noticed, or not yet. */
#define ASKED 1
#define SEEN 2
#define HELD 3
#define OFFERED 4
#define GRANTED 5
#define TAKEN 6
#ifdef NO_HANG
#define sidecar_hangs false
#elif LATE > 0
#define sidecar_hangs (late || is_stopped(word(PROCS - 1)))
#else
#define sidecar_hangs is_stopped(word(PROCS - 1))
#endif
#define is_sidecars(f) (flight[f].lease != NONE && flight[f].lease != GRANTED)
#define may_attend(f) (has_owner(f) && flight[f].lease != OFFERED && !(for_good && is_sidecars(f) && sidecar_hangs))
#define may_take_over(f) \
    (!has_owner(f) || flight[f].lease == OFFERED || flight[f].lease == ASKED || flight[f].lease == SEEN || \
     (is_sidecars(f) && sidecar_hangs))
#ifdef REAP_OWN
#define may_be_lost(f) (!has_owner(f) || (is_sidecars(f) && sidecar_hangs))
#else
#define may_be_lost(f) (!has_owner(f) || (is_sidecars(f) && sidecar_hangs && flight[f].owner != word(me)))
#endif
#define may_answer(f) (flight[f].lease == SEEN || flight[f].lease == HELD || flight[f].lease == OFFERED)
#if LATE > 0
#define may_ask (sidecar_is_open && alive[PROCS - 1] && !late)
#else
#define may_ask (sidecar_is_open && alive[PROCS - 1])
#endif
#define need_not_ask (!may_ask || sidecar_hangs)
#else
#define may_attend(f) has_owner(f)
#define may_take_over(f) (!has_owner(f))
#define may_be_lost(f) (!has_owner(f))
#endif
#define is_free(f) (flight[f].serial == 0 || flight[f].generation != generation)
#define has(k, s) (slot[k].generation == generation && slot[k].state == (s))

/* check_ticket_locked */
#ifdef ACCEPT_GIVEN_UP
#define is_up(p) false
#else
#define is_up(p) (flight[ticket[p].flight].given_up == ticket[p].serial)
#endif
#define is_accepted(p) \
    (ticket[p].serial != 0 && ticket[p].generation == generation && flight[ticket[p].flight].owner == word(p) && !is_up(p) && \
     ticket[p].term == flight[ticket[p].flight].term && is_live(ticket[p].flight, ticket[p].serial, ticket[p].generation))
#ifdef NO_TICKET_CHECK
#define ticket_is_good(p) true
#else
#define ticket_is_good(p) is_accepted(p)
#endif

