/* wait.c: see wait.h.
 *
 * What if a process dies here: its node keeps its owner word. Such a node is skipped by who counts, woken in vain by who
 * wakes, and taken by who finds no free one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "wait.h"

#include "process.h"

#include <errno.h>

static bool try_take(csm *h, uint32_t node, uint64_t from) {
    struct csm_node *n = &h->nodes[node];
    if (!csm_swap_if(&n->owner, from, csm_self(h))) return false;
    csm_store(&n->parent, 0);
    csm_store(&n->target, 0);
    /* A fresh semaphore: a dead owner may have left it in any state. A late post by somebody who still believes in the
     * former owner is one stray wake-up. */
    sem_init(&n->u.semaphore, 1, 0);
    return true;
}

uint32_t csm_wait_node_take(csm *h) {
    uint32_t used = csm_wait_nodes(h);
    for (uint32_t node = 0; node < used; node++)
        if (csm_load(&h->nodes[node].owner) == 0 && try_take(h, node, 0)) return node;
    for (uint32_t node = used; node < h->geo.nodes; node++) {
        if (csm_load(&h->nodes[node].owner) != 0 || !try_take(h, node, 0)) continue;
        csm_raise(&h->header->nodes_used, node + 1);
        return node;
    }
    for (uint32_t node = 0; node < h->geo.nodes; node++) {
        uint64_t owner = csm_load(&h->nodes[node].owner);
        if (!csm_process_alive(h, owner) && try_take(h, node, owner)) return node;
    }
    return CSM_NO_INDEX;
}

void csm_wait_node_drop(csm *h, uint32_t node) {
    struct csm_node *n = &h->nodes[node];
    csm_store(&n->target, 0);
    csm_store(&n->parent, 0);
    csm_store_release(&n->owner, 0);
}

int csm_wait_on(sem_t *semaphore, uint64_t ns) {
    struct timespec until;
    int rc;
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 30) && !defined(CSM_TSAN)
    clock_gettime(CLOCK_MONOTONIC, &until);
#define CSM_SLEEP(sem) sem_clockwait((sem), CLOCK_MONOTONIC, &until)
#else
    clock_gettime(CLOCK_REALTIME, &until); /* a clock that jumps makes one slice too short or too long */
#define CSM_SLEEP(sem) sem_timedwait((sem), &until)
#endif
    uint64_t at = (uint64_t)until.tv_nsec + ns;
    until.tv_sec += (time_t)(at / 1000000000u);
    until.tv_nsec = (long)(at % 1000000000u);
    rc = CSM_SLEEP(semaphore);
    if (rc == 0) return CSM_OK;
    return errno == EINTR ? CSM_INTERRUPTED : CSM_TIMEOUT;
}

int csm_wait_sleep(csm *h, uint32_t node, uint64_t ns) { return csm_wait_on(&h->nodes[node].u.semaphore, ns); }

void csm_wait_wake_one(csm *h, uint64_t target) {
    uint32_t used = csm_wait_nodes(h);
    for (uint32_t node = 0; node < used; node++) {
        if (csm_wait_target(h, node) != target || !csm_process_alive(h, csm_load(&h->nodes[node].owner))) continue;
        sem_post(&h->nodes[node].u.semaphore);
        return;
    }
}

void csm_wait_wake(csm *h, uint64_t target) {
    uint32_t used = csm_wait_nodes(h);
    for (uint32_t node = 0; node < used; node++) {
        uint64_t waits_for = csm_wait_target(h, node);
        if (waits_for == 0 || (target && waits_for != target)) continue;
        sem_post(&h->nodes[node].u.semaphore);
        CSM_CRASH_POINT("wake: one of them");
    }
}

uint64_t csm_wait_count(csm *h, uint64_t target) {
    uint32_t used = csm_wait_nodes(h);
    uint64_t count = 0;
    for (uint32_t node = 0; node < used; node++)
        if (csm_wait_target(h, node) == target) count++;
    return count;
}
