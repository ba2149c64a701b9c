/* hash.h: SipHash-2-4 with 128 bits of output (Aumasson, Bernstein: "SipHash: a fast short-input PRF").
 *
 * Keyed with a secret of the segment, so that who chooses keys (a visitor's URL, say) cannot choose collisions. */
#ifndef CSM_HASH_H
#define CSM_HASH_H

#include "core.h"

struct csm_hash csm_hash(const uint64_t secret[2], const void *data, size_t bytes);

#endif
