/* life.h: a small segment in the middle of its life, which can be put back to that moment as often as one likes.
 *
 * It has entries of all sizes, in the generation in force and in an older one, a tomb, a hole, an outcome that waits to be read, a
 * flight with a waiter, a nested computation, and a flight whose owner died with space reserved. Two handles, `a` and `b`, are two
 * processes to each other; a third one has died. A value is determined by its key, so whoever finds one can tell whether it is right.
 *
 * Or there is a fourth, `s`, the cluster's sidecar, and a flight in each of the states of lease.h.
 *
 * Putting it back restores the bytes, the pages that are there, the file space of the outcome and what the handles know. */
#ifndef LIFE_H
#define LIFE_H

#include "check.h"

enum { LIFE_KEYS = 10, LIFE_STORED = 8, LIFE_RANGES = 16, LIFE_OUTCOME_BYTES = 10, LIFE_CALLS = 8 };

/* The first bytes of the outcome. */
#define LIFE_OUTCOME "0123456789"

static const csm_settings LIFE_SETTINGS = {
    .memory_limit = CSM_MIN_LIMIT, .max_items = 40, .rows = 6, .flights = 10, .nodes = 10};

struct life {
    csm *a, *b, *s;  /* s: NULL when there is no sidecar */
    csm_call owned;  /* a's: has a waiter */
    csm_call waiter; /* b's, in that flight, from within `other` */
    csm_call other;  /* b's */
    csm_call read;   /* b's: the outcome is there */
    csm_call asked;  /* a's: the sidecar has not seen it */
    csm_call held;   /* a's: another host computes */
    csm_call granted; /* b's: a computation under the cluster's lease; the sidecar waits for its outcome */
    csm_call taken;  /* the sidecar's: what came from elsewhere, and is about to be published */
    csm_view *view;  /* b's, of key 3. Taken by life_restore */
    int fd;

    struct {
        uint64_t at, end;
    } backed[LIFE_RANGES]; /* what has pages */
    uint32_t ranges;
    unsigned char *bytes; /* of those, at their offsets */
    struct csm of_a, of_b, of_s;
    unsigned char *of_relay; /* the sidecar's private memory */
    size_t relay_bytes;
    csm_call calls[LIFE_CALLS];
    uint32_t n_calls;
};

void life_begin(struct life *l, bool sidecar);
void life_restore(struct life *l);

/* Has the word at `at` a page, in the life as it was? */
bool life_is_backed(const struct life *l, uint64_t at);

/* The value of the n-th key: its length and its bytes. */
uint64_t life_value_bytes(uint32_t n);
const unsigned char *life_value(uint32_t n);

/* An object with the bytes of the life, and nothing else. */
int life_copy(const struct life *l);

#endif
