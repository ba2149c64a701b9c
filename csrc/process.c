/* process.c: rows, liveness, fork. See process.h for the idea.
 *
 * What if a process dies here: between winning the lock and raising the incarnation, the kernel drops the lock
 * and the next winner starts over. While such a winner is *stopped*, the row's previous owner looks alive; it is
 * then treated like a slow one until the winner goes on.
 *
 * Fork. The child must not keep the parent's descriptor: an OFD lock lives as long as any copy of it (nor anything
 * else that holds its open file description, such as a mapping: see map() in segment.c), so the parent would look
 * alive after its death. The child handler therefore opens a description of its own, at once,
 * while it still has the parent's privileges (a worker may drop them right after). It has no row, no tickets, no lock.
 * Only live views go with it: their pins must hold before the parent can let go of its own, so the prepare
 * handler wins a row for the child on a fresh description and copies the pins into it.
 * pthread_atfork rather than Python's hooks: uWSGI forks from C without running those. vfork and posix_spawn run
 * no handlers and need none: the descriptor is close-on-exec. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "process.h"

#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static pthread_mutex_t watched_mutex = PTHREAD_MUTEX_INITIALIZER;
static csm *watched;

/* A server's signal handler may call exit() (uWSGI's do), and what runs then must not wait for what the very thread that was
 * interrupted has: it goes without, as the process is about to end. Set before the mutex is locked and cleared after it is unlocked,
 * so that no signal finds it locked and this not set. */
static __thread bool holding;

bool csm_process_hold(pthread_mutex_t *mutex) {
    if (csm_load(&holding)) return false;
    csm_store(&holding, true);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    pthread_mutex_lock(mutex);
    return true;
}

void csm_process_let_go(pthread_mutex_t *mutex) {
    pthread_mutex_unlock(mutex);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    csm_store(&holding, false);
}

static bool ofd(int fd, int command, int64_t at, short type, short *found) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    int rc;
    do rc = fcntl(fd, command, &lock);
    while (rc != 0 && errno == EINTR);
    if (found) *found = lock.l_type;
    return rc == 0;
}

bool csm_process_lock_byte(int fd, int64_t at) { return ofd(fd, F_OFD_SETLK, at, F_WRLCK, NULL); }
void csm_process_unlock_byte(int fd, int64_t at) { ofd(fd, F_OFD_SETLK, at, F_UNLCK, NULL); }

bool csm_process_row_held(csm *h, uint32_t row) {
    if (row == csm_row(h)) return true; /* a lock never conflicts with its own description */
    short found = F_WRLCK;
    if (!ofd(h->fd, F_OFD_GETLK, CSM_LOCK_ROWS + row, F_WRLCK, &found))
        return true; /* cannot ask: never declare anybody dead on a failed question */
    if (found != F_UNLCK) return true;
    struct stat st;
    return !csm_process_stat(h, &st); /* nor on the answer of another file */
}

uint32_t csm_process_rows(csm *h) {
    uint64_t known = csm_load_acquire(&h->rows_known);
    uint64_t used = csm_min(csm_load_acquire(&h->header->rows_used), h->geo.rows);
    if (used <= known) return (uint32_t)known; /* a mark that was lowered is damaged: rows stay */
    struct stat st;
    if (!csm_process_stat(h, &st)) return (uint32_t)known;
    int rc;
    do rc = posix_fallocate(h->fd, (off_t)(h->geo.rows_off + known * sizeof(struct csm_row)),
                            (off_t)((used - known) * sizeof(struct csm_row)));
    while (rc == EINTR);
    if (rc != 0) return (uint32_t)known; /* pages that are there cost none, so the mark is damaged */
    csm_raise(&h->rows_known, used);
    return (uint32_t)used;
}

bool csm_process_alive(csm *h, uint64_t owner) {
    owner &= (UINT64_C(1) << CSM_OWNER_BITS) - 1;
    if (owner == csm_self(h) && owner) return true;
    uint32_t row = csm_owner_row(owner);
    if (row >= h->geo.rows || row >= csm_process_rows(h)) return false;
    if ((csm_load_acquire(&h->rows[row].incarnation) & CSM_INCARNATION_MASK) != (owner & CSM_INCARNATION_MASK))
        return false;
    return row != csm_row(h) && csm_process_row_held(h, row);
}

uint64_t csm_process_pid(csm *h, uint64_t owner) {
    uint32_t row = csm_owner_row(owner);
    if (row >= csm_process_rows(h)) return 0;
    uint64_t pid = csm_load(&h->rows[row].pid);
    csm_fence_acquire();
    return (csm_load(&h->rows[row].incarnation) & CSM_INCARNATION_MASK) == (owner & CSM_INCARNATION_MASK) ? pid : 0;
}

/* `row`: the one that this process has from now on, or `spare`. */
static void count_in(csm *h, struct csm_row *row) {
    csm_store_release(&h->mine, row);
    csm_store(&h->hot, row == &h->spare ? &h->early_hot : &row->stats[CSM_STAT_HOT_HITS]);
}

/* The row's lock went with the descriptor. Nothing is stored in the row any more: it may be another process's. A critical section
 * that another thread is in ends without a release, and the next who wants the lock finds it a dead owner's. */
static void lose(csm *h) {
    csm_store(&h->fd, CSM_FD_LOST);
    csm_fence_seq(); /* SYNC lost: pairs with csm_process_enter */
    csm_store_release(&h->self, 0);
    csm_store(&h->row, CSM_NO_INDEX);
    count_in(h, &h->spare);
}

bool csm_process_stat(csm *h, struct stat *st) {
    int fd = csm_load(&h->fd);
    if (fd < 0) return false;
    if (fstat(fd, st) == 0 && st->st_dev == h->device && st->st_ino == h->inode) return true;
    lose(h);
    return false;
}

int csm_process_reopen(int fd) {
    char path[32] = "/proc/self/fd/";
    char digits[12];
    size_t at = strlen(path), n = 0;
    do digits[n++] = (char)('0' + fd % 10);
    while ((fd /= 10));
    while (n) path[at++] = digits[--n];
    path[at] = 0;
    int rc;
    do rc = open(path, O_RDWR | O_CLOEXEC);
    while (rc < 0 && errno == EINTR);
    return rc;
}

/* Makes a row whose lock is held through `fd` ready for its new owner. */
static uint64_t take_over_row(csm *h, int fd, uint32_t row) {
    struct csm_row *r = &h->rows[row];
    CSM_CRASH_POINT("row: locked");
    /* First the incarnation: from here on nobody takes the new owner for the old one. */
    uint64_t incarnation = csm_load(&r->incarnation) + 1;
    if ((incarnation & CSM_INCARNATION_MASK) == 0) incarnation++;
    csm_store_seq(&r->incarnation, incarnation);
    csm_store(&r->role, CSM_ATTACHING);
    for (uint32_t i = 0; i < CSM_MAX_CHUNKS; i++) {
        csm_store(&r->view_pins[i], 0);
        csm_store(&r->write_pins[i], 0);
    }
    csm_store(&r->pid, (uint64_t)getpid());
    csm_store(&r->since_ns, csm_wall_ns());
    if (h->role == CSM_APP) csm_process_lock_byte(fd, CSM_LOCK_APPS + row); /* a forked child of one that has joined */
    csm_store_release(&r->role, h->role);
    return csm_owner(row, incarnation);
}

/* Wins some row through `fd`; CSM_NO_INDEX when there is none. */
static uint32_t win_row(csm *h, int fd, int *code) {
    *code = CSM_NO_ROW;
    for (uint32_t row = 0; row < h->geo.rows; row++) {
        if (row == csm_row(h)) continue; /* prepare handler: same process, other description */
        if (!csm_process_lock_byte(fd, CSM_LOCK_ROWS + row)) {
            if (errno == EAGAIN || errno == EACCES) continue;
            return CSM_NO_INDEX; /* EBADF, ENOLCK: no row can be had through this descriptor */
        }
        uint64_t used = csm_process_rows(h);
        if (row >= used) {
            /* All pages below the high-water mark must be there before anybody looks at them: this row's, and those of lower
             * rows whose winners have not come to it yet. */
            uint64_t at = h->geo.rows_off + used * sizeof(struct csm_row);
            int rc;
            do rc = posix_fallocate(fd, (off_t)at, (off_t)((row + 1 - used) * sizeof(struct csm_row)));
            while (rc == EINTR);
            if (rc != 0) {
                csm_process_unlock_byte(fd, CSM_LOCK_ROWS + row);
                *code = CSM_NO_SPACE;
                return CSM_NO_INDEX;
            }
            csm_raise(&h->rows_known, row + 1);
        }
        csm_raise(&h->header->rows_used, row + 1);
        return row;
    }
    return CSM_NO_INDEX;
}

int csm_process_enter(csm *h) {
    if (csm_self(h)) return CSM_OK;
    int code = CSM_OK;
    if (!csm_process_hold(&h->mutex)) return CSM_NO_ROW;
    if (!csm_self(h)) {
        struct stat st;
        bool open = csm_process_stat(h, &st);
        uint32_t row = open ? win_row(h, h->fd, &code) : CSM_NO_INDEX;
        if (!open) code = CSM_NO_ROW;
        if (row != CSM_NO_INDEX) {
            code = CSM_OK;
            h->pid = (uint64_t)getpid();
            uint64_t self = take_over_row(h, h->fd, row);
            csm_store(&h->row, row);
            count_in(h, &h->rows[row]);
            csm_fence_seq(); /* SYNC early: pairs with csm_stats_early */
            csm_stats_move(&h->spare, &h->rows[row]);
            csm_store_release(&h->self, self);
            /* SYNC lost: pairs with lose. Another thread may have found the descriptor closed since, and what it stored is overwritten
             * here. Both store, then look or store once more: what stays is that there is no row. */
            csm_fence_seq();
            if (csm_load(&h->fd) == CSM_FD_LOST) {
                lose(h);
                code = CSM_NO_ROW;
            }
        }
    }
    csm_process_let_go(&h->mutex);
    return code;
}

bool csm_process_other_apps(csm *h) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = CSM_LOCK_APPS, .l_len = CSM_MAX_ROWS};
    int rc;
    do rc = fcntl(h->fd, F_OFD_GETLK, &lock);
    while (rc != 0 && errno == EINTR);
    return rc != 0 || lock.l_type != F_UNLCK;
}

void csm_process_join(csm *h, uint64_t role) {
    if (!csm_process_hold(&h->mutex)) return;
    if (role == CSM_APP) csm_process_lock_byte(h->fd, CSM_LOCK_APPS + csm_row(h));
    h->role = role;
    csm_store_release(&h->mine->role, role);
    csm_process_let_go(&h->mutex);
}

/* ---- fork ---- */

/* No row can be had for the child, but it has the views. So the parent's row keeps their chunks pinned, once more and for
 * good, and the child goes on holding the parent's description: the row lives as long as either. The parent then looks alive
 * until the child has ended. Rare (row table full, no descriptors left, privileges dropped), and safe. */
enum { NO_ROW_FOR_CHILD = -2 };

static void keep_pins(csm *h) {
    for (uint32_t i = 0; i < CSM_MAX_CHUNKS; i++) {
        if (h->kept[i] || csm_load(&h->mine->view_pins[i]) == 0) continue;
        csm_add_seq(&h->mine->view_pins[i], 1);
        h->kept[i] = true;
    }
}

static void before_fork(void) {
    csm_store(&holding, true);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    pthread_mutex_lock(&watched_mutex);
    for (csm *h = watched; h; h = h->next) {
        pthread_mutex_lock(&h->mutex);
        h->child_fd = -1;
        h->child_row = CSM_NO_INDEX;
        struct stat st;
        if (!csm_process_stat(h, &st) || !h->self || csm_load(&h->views) == 0) continue;
        int code, fd = csm_process_reopen(h->fd);
        uint32_t row = fd < 0 ? CSM_NO_INDEX : win_row(h, fd, &code);
        if (row == CSM_NO_INDEX) {
            if (fd >= 0) close(fd);
            keep_pins(h);
            h->child_fd = NO_ROW_FOR_CHILD;
            continue;
        }
        take_over_row(h, fd, row);
        for (uint32_t i = 0; i < CSM_MAX_CHUNKS; i++)
            csm_store(&h->rows[row].view_pins[i], csm_load(&h->mine->view_pins[i]));
        csm_fence_seq();
        CSM_CRASH_POINT("fork: row for the child");
        h->child_fd = fd;
        h->child_row = row;
    }
}

static void after_fork_in_parent(void) {
    for (csm *h = watched; h; h = h->next) {
        if (h->child_fd >= 0) close(h->child_fd); /* the child's copy keeps the lock; a failed fork drops it */
        h->child_fd = -1;
        pthread_mutex_unlock(&h->mutex);
    }
    csm_process_let_go(&watched_mutex);
}

static uint64_t forks;

uint64_t csm_forks(void) { return csm_load(&forks); }

static void after_fork_in_child(void) {
    csm_store(&forks, forks + 1);
    for (csm *h = watched; h; h = h->next) {
        int inherited = h->fd;
        CSM_CRASH_POINT("fork: not yet adopted");
        memset(&h->spare, 0, sizeof h->spare); /* what was counted there the parent has as well */
        h->early_hot = CSM_EARLY_HOT;
        memset(h->steals, 0, sizeof h->steals); /* nor has it taken any lock */
        h->forks++;
        h->pid = (uint64_t)getpid();
        if (h->child_fd == NO_ROW_FOR_CHILD) h->pins_lost_before = h->forks;
        if (h->child_fd >= 0) {
            h->fd = h->child_fd;
            csm_store(&h->row, h->child_row);
            count_in(h, &h->rows[csm_row(h)]);
            csm_store_release(&h->self, csm_owner(h->row, h->mine->incarnation));
            csm_store(&h->mine->pid, (uint64_t)getpid());
        } else {
            h->fd = inherited < 0 ? inherited : csm_process_reopen(inherited);
            csm_store(&h->row, CSM_NO_INDEX);
            count_in(h, &h->spare);
            csm_store_release(&h->self, 0);
        }
        if (inherited >= 0 && h->child_fd != NO_ROW_FOR_CHILD) close(inherited);
        memset(h->kept, 0, sizeof h->kept);
        h->child_fd = -1;
        pthread_mutex_unlock(&h->mutex);
    }
    csm_process_let_go(&watched_mutex);
}

/* When the library is loaded, so that csm_forks counts from the beginning. */
__attribute__((constructor)) static void install_fork_handlers(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

bool csm_process_watch(csm *h, int fd) {
    if (!csm_process_hold(&watched_mutex)) return false;
    /* A fork comes before this, and the child knows nothing of the description; or after, and the handlers see to it. */
    h->fd = csm_process_reopen(fd);
    if (h->fd < 0) {
        csm_process_let_go(&watched_mutex);
        return false;
    }
    /* Another handle that believes in this number has lost its descriptor; on the same object, only this tells. */
    for (csm *other = watched; other; other = other->next)
        if (csm_load(&other->fd) == h->fd) lose(other);
    h->next = watched;
    watched = h;
    csm_process_let_go(&watched_mutex);
    return true;
}

csm *csm_process_find(uint64_t id) {
    if (!csm_process_hold(&watched_mutex)) return NULL;
    csm *h = watched;
    while (h && h->id != id) h = h->next;
    csm_process_let_go(&watched_mutex);
    return h; /* a handle is never freed, and its segment never unmapped */
}

void csm_process_leave(csm *h) {
    if (!csm_process_hold(&watched_mutex)) return; /* the kernel takes the row back */
    for (csm **at = &watched; *at; at = &(*at)->next)
        if (*at == h) {
            *at = h->next;
            break;
        }
    csm_process_let_go(&watched_mutex);
    if (!csm_process_hold(&h->mutex)) return;
    struct stat st;
    if (csm_process_stat(h, &st)) close(h->fd); /* and with it the row's lock */
    h->fd = -1;
    count_in(h, &h->spare);
    csm_store_release(&h->self, 0);
    csm_store(&h->row, CSM_NO_INDEX);
    csm_process_let_go(&h->mutex);
}
