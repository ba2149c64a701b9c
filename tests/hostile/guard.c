/* guard.c: each mapping of a segment gets a wide stretch of no man's land on either side.
 *
 * AddressSanitizer knows nothing of mappings: a read before or behind a segment would hit whatever lies there. With this, linked by
 * -Wl,--wrap=mmap, it is a fault. The core is compiled as it is in production. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "guard.h"

#include <sys/mman.h>

/* Offsets that are wrong by less than this are noticed for certain. Address space costs nothing. */
static const size_t MOAT = (size_t)1 << 32;

void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (fd < 0 || !(flags & MAP_SHARED) || at) return __real_mmap(at, bytes, protection, flags, fd, offset);
    unsigned char *moat = __real_mmap(NULL, bytes + 2 * MOAT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (moat == MAP_FAILED) return MAP_FAILED;
    return __real_mmap(moat + MOAT, bytes, protection, flags | MAP_FIXED, fd, offset);
}

int guard_unmap(void *base, size_t bytes) { return munmap((unsigned char *)base - MOAT, bytes + 2 * MOAT); }
