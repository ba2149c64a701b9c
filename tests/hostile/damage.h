/* damage.h: what may happen to the bytes of a segment, the semaphores' own excepted. */
#ifndef DAMAGE_H
#define DAMAGE_H

#include "life.h"

/* Where decisions come from: bytes that somebody else chose, and then numbers that follow from `random`. */
struct feed {
    const unsigned char *data;
    size_t bytes;
    uint64_t random;
};

uint64_t feed_next(struct feed *feed);
uint64_t feed_below(struct feed *feed, uint64_t n);

enum damage_scope {
    DAMAGE_ANYTHING,
    /* Not the values, nor the words that say which space is free or which generation it is. After any of this, a value that is found
     * is the right one. */
    DAMAGE_NOTICEABLE,
};

/* Changes a few words, or one; through `base`, a mapping of the life's segment. */
void damage(const struct life *l, unsigned char *base, enum damage_scope scope, struct feed *feed);

/* That word, to whatever; *was is what it was. False: it may not be changed. */
bool damage_word(const struct life *l, unsigned char *base, uint64_t at, struct feed *feed, uint64_t *was);

/* One word, many times, back and forth between what it is and something else: what is read twice is then two things. */
void damage_flicker(const struct life *l, unsigned char *base, struct feed *feed);

/* In some order the n-th single bit of the segment that may be flipped; false when there are not so many. Values in the arena are left out: they are
 * most of the bits, and all alike. */
bool damage_bit(const struct life *l, unsigned char *base, uint64_t n, enum damage_scope *scope);

#endif
