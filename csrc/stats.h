/* stats.h: what a process counts in its row, besides plain counts (csm_stat_add in core.h): how long things took, and the
 * computations that took longest. */
#ifndef CSM_STATS_H
#define CSM_STATS_H

#include "core.h"

/* A computation has ended, whatever came of it: the ticket's owner publishes it or gives it up. `key` is NULL for one that is not
 * to be remembered. Not for a ticket of another process. */
void csm_stats_computed(csm *h, const csm_ticket *t, const void *key, size_t key_bytes);

/* A waiter leaves. */
void csm_stats_waited(csm *h, const csm_waiter *w);

/* Adds what was counted before there was a row, and forgets it there. */
void csm_stats_move(struct csm_row *from, struct csm_row *to);

/* Adds `from`, which others may be counting in. */
void csm_stats_sum(const struct csm_times *from, csm_durations *to);

/* Copies record `i` of a row; false when there is none that is whole. */
bool csm_stats_slow(csm *h, const struct csm_row *row, uint32_t i, struct csm_slow *out);

#endif
