/* segment.h: from settings to a mapped, validated segment. */
#ifndef CSM_SEGMENT_H
#define CSM_SEGMENT_H

#include "core.h"

/* False when the settings are out of range. */
bool csm_segment_geometry(const csm_settings *settings, struct csm_geometry *geo);

struct csm_flip {
    enum { CSM_COLD, CSM_OWN_RESET, CSM_ADOPTED } what; /* whose reset; cold: nobody's, the counter stays as it is */
    const void *version; /* NULL: the one in force */
    size_t version_bytes;
    const void *config;  /* NULL: the one recorded */
    size_t config_bytes;
    uint64_t counter;    /* own: 0 for one more. Adopted: with */
    const void *origin;
    size_t origin_bytes;
};

/* Puts a new generation in force: the next epoch is prepared, then the generation is stored. */
void csm_segment_flip_locked(csm *h, const struct csm_flip *flip);

/* After a flip and the unlock: wakes all who may have waited for something of the old generation, the sidecar as well, and cleans up. */
void csm_segment_flipped(csm *h, uint64_t generation);

#endif
