/* index.h: the open-addressing table from key to entry.
 *
 * Linear probing from a place given by the hash; no growth, no moves. A slot whose control word is of another
 * generation is empty, so a reset clears nothing. Within a generation a slot goes
 *
 *     empty -> computing -> full                    (stored)
 *                        -> tomb or empty           (failed, not stored)
 *     tomb -> computing
 *
 * and a full slot never changes again until the generation does: readers need no lock.
 * Invariant for them: from a key's home to its slot no slot is empty. */
#ifndef CSM_INDEX_H
#define CSM_INDEX_H

#include "core.h"

struct csm_found {
    uint64_t slot;
    uint64_t place;       /* first granule of the entry */
    uint64_t value_at;    /* byte offset of the value in the arena */
    uint64_t value_bytes;
    uint32_t format;
};

/* Lock-free look-up in `generation`. True: *out was read, and is right if the generation is still the same
 * afterwards, which is for the caller to check. Every offset in *out is within the arena. */
bool csm_index_find(csm *h, uint64_t generation, struct csm_hash hash, const void *key, size_t key_bytes,
                    struct csm_found *out);

enum csm_place { CSM_PLACE_FULL, CSM_PLACE_COMPUTING, CSM_PLACE_FREE, CSM_PLACE_NONE };

/* Under the lock: where the key is, or where it may be put. *flight is set for CSM_PLACE_COMPUTING. */
enum csm_place csm_index_place_locked(csm *h, uint64_t generation, struct csm_hash hash, const void *key,
                                      size_t key_bytes, uint64_t *slot, uint32_t *flight);

/* free -> computing. The flight must be complete before. */
void csm_index_occupy_locked(csm *h, uint64_t generation, uint64_t slot, struct csm_hash hash, uint32_t flight);

/* computing -> tomb or empty. */
void csm_index_vacate_locked(csm *h, uint64_t generation, uint64_t slot);

/* computing -> full, and into the log at `entries`, its end, as of `remote` origin or not. The entry must be written before. */
void csm_index_commit_locked(csm *h, uint64_t generation, bool remote, uint64_t entries, uint64_t slot, uint64_t place,
                             uint64_t meta);

/* Finishes a commit whose process died between the commit word and the counters. */
void csm_index_repair_locked(csm *h, uint64_t generation);

/* Makes the pages of the log's first `entries` records sure, and of some more. Not under the lock. CSM_OK or CSM_NO_SPACE. */
int csm_index_back_log(csm *h, uint64_t entries);

/* How many records of the log have their pages. */
uint64_t csm_index_log_room(csm *h);

/* Reads and bounds-checks a full slot of `generation`. */
bool csm_index_entry(csm *h, uint64_t generation, uint64_t slot, struct csm_found *out, uint32_t *key_bytes);

/* Is there an entry with this hash in `slot`? */
bool csm_index_holds(csm *h, uint64_t generation, uint64_t slot, struct csm_hash hash);

/* A log record: remote (1) | generation (31) | slot (32). It names its generation, so that what an earlier one left is not mistaken for
 * a commit of this. Remote: another host computed it. */
static inline uint64_t csm_log_record(uint64_t generation, bool remote, uint64_t slot) {
    return (uint64_t)remote << 63 | (generation & INT32_MAX) << 32 | slot;
}
static inline bool csm_log_is_of(uint64_t record, uint64_t generation) {
    return ((record >> 32 ^ generation) & INT32_MAX) == 0;
}
static inline bool csm_log_is_remote(uint64_t record) { return record >> 63; }

#endif
