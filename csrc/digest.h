/* digest.h: BLAKE2s (RFC 7693), without a key, 192 bits of output.
 *
 * What the hosts of a cluster call a key that is too long for its flight record. Not the keyed hash of hash.h: each segment has a
 * secret of its own for that, and with a key that all know, collisions can be made by who chooses keys. */
#ifndef CSM_DIGEST_H
#define CSM_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define CSM_DIGEST_WORDS 3

/* The digest's bytes, in the order of memory. */
void csm_digest(const void *data, size_t bytes, uint64_t out[CSM_DIGEST_WORDS]);

#endif
