/* process.h: who is alive.
 *
 * A process owns a row by holding an OFD lock on that row's byte. The kernel lets go of it when the last thread
 * is gone and the files are closed, so "is this owner dead?" is one F_OFD_GETLK: no timeouts, no heartbeats,
 * right across PID reuse and PID namespaces. Owners are written as (row, incarnation).
 *
 * Nobody cleans another's row. A dead row is ignored where it is met, and cleaned by the process that next
 * wins its lock: only that one can know that nobody else writes there. */
#ifndef CSM_PROCESS_H
#define CSM_PROCESS_H

#include "core.h"

#include <sys/stat.h>

/* Wins a row unless this process has one. CSM_OK, CSM_NO_ROW, CSM_NO_SPACE. */
int csm_process_enter(csm *h);

/* Does another app live? An app holds a second lock, beside its row's: what the row says of its role may still be its former
 * owner's. */
bool csm_process_other_apps(csm *h);

/* Takes the role. */
void csm_process_join(csm *h, uint64_t role);

/* Is `owner` (an owner word) a process that still lives? Nonsense counts as dead. */
bool csm_process_alive(csm *h, uint64_t owner);

/* The pid that the row of `owner` names, 0 when that one has no row any more. For people. */
uint64_t csm_process_pid(csm *h, uint64_t owner);

/* Is row `row` held, by whatever incarnation? */
bool csm_process_row_held(csm *h, uint32_t row);

/* How many rows there may be to look at: all below it have their page. */
uint32_t csm_process_rows(csm *h);

/* Gives the handle a description of its own of the object behind `fd`, and adds it to those the fork handlers look after. */
bool csm_process_watch(csm *h, int fd);

/* The opposite: the row is free again. No other thread may be using the handle. */
void csm_process_leave(csm *h);

/* For the mutexes of handles: false, and nothing is locked, if this thread has one of them already. That can only be in a signal handler
 * that interrupted it, and that ends the process. */
bool csm_process_hold(pthread_mutex_t *mutex);
void csm_process_let_go(pthread_mutex_t *mutex);

/* This process's handle on the segment with that id, or NULL. */
csm *csm_process_find(uint64_t id);

/* fstat of the handle's descriptor; false when there is none, or none any more. Before anything is written through the descriptor,
 * concluded from its locks, or done to its number: somebody may have closed it behind our back (daemons close all they find), and
 * the number may be another file's by now. When that is so the handle gives up row and descriptor, and csm_linked says so. */
bool csm_process_stat(csm *h, struct stat *st);

/* A new open file description of the object behind `fd`, close-on-exec; negative when that cannot be had.
 * Works for objects that were unlinked. Async-signal-safe. */
int csm_process_reopen(int fd);

/* Non-blocking OFD write lock of one byte. */
bool csm_process_lock_byte(int fd, int64_t at);
void csm_process_unlock_byte(int fd, int64_t at);

#endif
