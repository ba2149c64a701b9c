/* script.h: every function of api.h, called on a segment that may be damaged, by one of the life's two processes.
 *
 * What is held: a call comes back; what it returns lies within the segment (all of it is read, so that a sanitizer sees it); and,
 * where `exact` is asked for, a value that is found is the right one. */
#ifndef SCRIPT_H
#define SCRIPT_H

#include "damage.h"

enum script_op {
    OP_OPEN, OP_JOIN, OP_FIND, OP_VIEW, OP_CLAIM, OP_WAIT, OP_OUTCOME_READ, OP_PUBLISH, OP_PUBLISH_FAILURE,
    OP_PUBLISH_UNCACHED, OP_PUBLISH_UNSHAREABLE, OP_ABANDON, OP_WAIT_LEAVE, OP_RESET_LOCK, OP_RESET_COMMIT, OP_ENTRIES,
    OP_FLIGHTS, OP_DESCRIBE, OP_VERIFY, OP_VERSION, OP_WARN_ONCE, OP_LINKED, OP_IN_USE, OP_COUNT, OP_CYCLE_CHECK, OP_CHAIN, OP_LEAVE,
    OP_DESTROY, OP_ROWS, OP_CHUNKS, OP_SLOWEST, OP_RESET_INFO, OP_STOLEN, OP_WAIT_NO_LONGER, OP_STAMP, OP_PEERS, OP_RELAY_LOOK,
    OP_RELAY_WAIT, OP_RELAY_HOLD, OP_RELAY_GRANT, OP_RELAY_WANT, OP_RELAY_TAKE, OP_RELAY_TAKE_ASKED, OP_RELAY_ENTRY, OP_RELAY_FIND,
    OP_PEER_WRITE, OP_ADOPT, OP_RELAY_OPEN, OP_RELAY_CLOSE, OPS
};
extern const char *const script_names[OPS];

/* Outcomes of a call: a code, a step, or what a number that was returned means. */
enum { OUTCOME_FOUND = 6, OUTCOME_SOME = 7, OUTCOME_LAST = 8, OUTCOME_FIRST = -22, OUTCOMES = OUTCOME_LAST - OUTCOME_FIRST };
const char *script_outcome_name(int outcome);

/* In memory that the processes share which the harness consists of. */
struct script_counts {
    uint64_t executions, healed;
    uint64_t calls[OPS][OUTCOMES];
    uint64_t longest_ns[OPS];
};

struct script {
    struct life *life;
    csm *h;
    bool is_b;
    bool exact;
    struct feed feed;
    struct script_counts *counts;
};

/* Calls everything, in an order that the feed decides. Or, by the sidecar's handle, all that is a sidecar's. */
void script_run(struct script *s);
void script_run_sidecar(struct script *s);

/* Opens the object behind `fd`, which is closed, and uses it if it can be opened. */
void script_attach(struct script *s, int fd);

/* What runs now, for who finds that it does not end. */
extern _Thread_local const char *volatile script_running;

/* ---- for script.c and sidecar.c */

int script_note(struct script *s, enum script_op op, uint64_t since, int outcome);

/* Calls, takes note, and yields the outcome. */
#define CALL(op, expression)                                    \
    ({                                                          \
        uint64_t since_ = csm_now_ns();                         \
        script_running = script_names[op];                      \
        script_note(s, op, since_, (int)(expression));          \
    })
#define CALL_VOID(op, statement) CALL(op, (statement, CSM_OK))

/* What a number that was returned means. */
static inline int script_some(int64_t n) { return n > 0 ? OUTCOME_SOME : (int)n; }

/* Looks at all of what was found of key `n`. LIFE_KEYS: of some other one. */
void script_check_value(struct script *s, uint32_t n, const void *data, uint64_t bytes);
void script_read_outcome(struct script *s, csm_call *call, bool is_lifes);

/* Which key that is, LIFE_KEYS if none of the life's. */
uint32_t script_number_of(const void *key, size_t bytes);

/* Ends the flight, one way or another. */
void script_publish(struct script *s, csm_call *call, const char *key, uint32_t n);

#endif
