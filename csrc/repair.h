/* repair.h: what a thief of the write lock does before it goes on. */
#ifndef CSM_REPAIR_H
#define CSM_REPAIR_H

#include "core.h"

void csm_repair_locked(csm *h);

#endif
