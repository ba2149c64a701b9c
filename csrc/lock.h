/* lock.h: owner words.
 *
 * A lock is one word: 0, or the owner (row, incarnation) of the process that holds it. It is taken by
 * compare-and-swap. Who waits and sees the holder dead takes the word over by the same compare-and-swap, so a death
 * costs a question to the kernel, never a timeout. Not a robust pthread mutex: those identify owners by thread id,
 * which collides across PID namespaces, and cannot be validated in a corrupted segment. */
#ifndef CSM_LOCK_H
#define CSM_LOCK_H

#include "core.h"

/* The write lock. CSM_OK, CSM_BUSY (a live holder does not run), CSM_NO_ROW, CSM_NO_SPACE. After stealing it from a
 * dead holder the segment has been repaired. Not recursive; release it on the same thread. */
int csm_lock(csm *h);
void csm_unlock(csm *h);

/* The same as a part of `call`, which takes the lock several times: stalled_ns is how much of its patience with stopped holders it has
 * spent, so that in all it waits for them no longer than csm_lock alone would; steals, how often it has stolen. */
int csm_lock_within(csm *h, csm_call *call);

/* The same without waiting: CSM_BUSY when a live process has it. */
int csm_lock_once(csm *h);

/* Takes the owner word at `word` if it is free or its owner is dead; *stolen tells which. */
bool csm_lock_try(csm *h, uint64_t *word, bool *stolen);

#endif
