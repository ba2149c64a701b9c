/* segment.h: from settings to a mapped, validated segment. */
#ifndef CSM_SEGMENT_H
#define CSM_SEGMENT_H

#include "core.h"

/* False when the settings are out of range. */
bool csm_segment_geometry(const csm_settings *settings, struct csm_geometry *geo);

/* Puts a new generation in force: the next epoch is prepared, then the generation is stored. */
void csm_segment_flip_locked(csm *h, const void *version, size_t version_bytes, const void *config, size_t config_bytes);

#endif
