/* guard.h: see guard.c. */
#ifndef GUARD_H
#define GUARD_H

#include <stddef.h>

/* Removes a mapping of a segment, moat and all. `bytes` is a multiple of the page size. */
int guard_unmap(void *base, size_t bytes);

#endif
