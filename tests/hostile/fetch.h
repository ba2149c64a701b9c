/* fetch.h: see fetch.c. */
#ifndef FETCH_H
#define FETCH_H

#include "damage.h"

/* From now on, words that this thread is about to load through the mapping at `base` may change right before. */
void fetch_arm(const struct life *l, unsigned char *base, struct feed *feed);
void fetch_disarm(void);

/* Loads seen; 0 when the compiler traces none. */
extern uint64_t fetch_loads;

#endif
