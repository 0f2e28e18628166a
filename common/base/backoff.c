#include "base/backoff.h"

#include <assert.h>

void hp_backoff_init(struct hp_backoff *b, uint64_t initial_ms, uint64_t max_ms)
{
    assert(initial_ms > 0 && initial_ms <= max_ms);
    *b = (struct hp_backoff){.initial_ms = initial_ms, .max_ms = max_ms, .next_ms = initial_ms};
}

uint64_t hp_backoff_next_ms(struct hp_backoff *b, struct hp_rng *rng)
{
    assert(b->initial_ms > 0);
    uint64_t delay = b->next_ms;
    b->next_ms = delay > b->max_ms / 2 ? b->max_ms : delay * 2;
    uint64_t half = delay / 2;
    return delay - half + hp_rng_below(rng, half + 1);
}

void hp_backoff_reset(struct hp_backoff *b)
{
    b->next_ms = b->initial_ms;
}
