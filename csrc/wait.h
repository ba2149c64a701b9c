/* wait.h: nodes, the places in which threads sleep.
 *
 * A node has a POSIX semaphore and says whom its owner waits for. There are no queues: who wakes scans the nodes.
 * That needs no links that a death could cut, costs a few microseconds for hundreds of waiters, and lets the cycle
 * check read the nodes as the edges of the wait-for graph.
 *
 * A wake-up is only ever a hint. sem_post is a store and a wake, and its process can be killed between the two; so
 * every sleep is sliced, and after each the sleeper looks at the slot, the generation and the owner itself. A stray
 * post, to a node that meanwhile serves somebody else, costs that one a look. */
#ifndef CSM_WAIT_H
#define CSM_WAIT_H

#include "core.h"

/* Takes a free node (or a dead owner's); CSM_NO_INDEX when there is none. Lock-free. */
uint32_t csm_wait_node_take(csm *h);
void csm_wait_node_drop(csm *h, uint32_t node);

/* Sleeps in the node at most `ns`. CSM_OK (woken), CSM_TIMEOUT, CSM_INTERRUPTED. */
int csm_wait_sleep(csm *h, uint32_t node, uint64_t ns);

/* Sleeps on any semaphore. */
int csm_wait_on(sem_t *semaphore, uint64_t ns);

/* Wakes one of those that wait for `target` and live. */
void csm_wait_wake_one(csm *h, uint64_t target);

/* Wakes all that wait for `target`, or everybody when it is 0. */
void csm_wait_wake(csm *h, uint64_t target);

/* How many nodes wait for `target`, those of the dead included. */
uint64_t csm_wait_count(csm *h, uint64_t target);

/* The node's words. 0 when it is free. */
static inline uint64_t csm_wait_target(csm *h, uint32_t node) { return csm_load_acquire(&h->nodes[node].target); }
static inline uint32_t csm_wait_nodes(csm *h) {
    return (uint32_t)csm_min(csm_load_acquire(&h->header->nodes_used), h->geo.nodes);
}

#endif
