/* weights.h — [placement] weights: how hosts are weighed in a region, and for a workload class, where that is not as everywhere. */
#ifndef SC_SHELL_WEIGHTS_H
#define SC_SHELL_WEIGHTS_H

#include "base/error.h"
#include "core/region.h"

/* Each of `entries` (ends with NULL; NULL: none) is `[REGION/][CLASS]:ITEM[:ITEM…]`; an item is `spread`, `pack`, or `NAME=N`, where NAME is a part of the score. Without a region it is for all,
 * without a class for the region itself, on which its classes build: first what is for all regions, then what is for this one.
 * Puts what holds for the region into ret->weights (which has what holds everywhere) and ret->classes. HP_EINVAL names the entry, and value and limit. */
int sc_weights_apply(char *const *entries, const char *region, struct sc_region_config *ret,
                     struct hp_error *e) HP_MUST_CHECK;

#endif
