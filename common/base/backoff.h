/* backoff.h — how long to wait before the next attempt: doubling, bounded, with jitter. */
#ifndef HP_BASE_BACKOFF_H
#define HP_BASE_BACKOFF_H

#include <stdint.h>

#include "base/rng.h"

struct hp_backoff {
    uint64_t initial_ms, max_ms; /* first delay and upper bound, both above 0 */
    uint64_t next_ms;            /* delay of the next attempt before jitter; 0: initial_ms */
};

void hp_backoff_init(struct hp_backoff *b, uint64_t initial_ms, uint64_t max_ms);
/* The delay before the next attempt: uniform in the upper half of the doubled delay, so that many clients spread. */
uint64_t hp_backoff_next_ms(struct hp_backoff *b, struct hp_rng *rng);
/* After a success. */
void hp_backoff_reset(struct hp_backoff *b);

#endif
