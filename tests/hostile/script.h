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
    OP_DESTROY, OP_ROWS, OP_CHUNKS, OP_SLOWEST, OP_RESET_INFO, OP_STOLEN, OPS
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

/* Calls everything, in an order that the feed decides. */
void script_run(struct script *s);

/* Opens the object behind `fd`, which is closed, and uses it if it can be opened. */
void script_attach(struct script *s, int fd);

/* What runs now, for who finds that it does not end. */
extern _Thread_local const char *volatile script_running;

#endif
