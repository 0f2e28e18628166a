/* rt_pool.h — a few threads for functions that block. */
#ifndef HA_RT_POOL_H
#define HA_RT_POOL_H

#include <stddef.h>

#include "base/error.h"

/* Work, embedded in its owner. */
struct ha_work {
    void (*run)(struct ha_work *work); /* on a thread of the pool, once */
    struct ha_work *next;              /* private */
};

struct ha_pool;

/* Up to `threads` of them: one now, each other when work comes and none is idle. An idle agent so has no stacks of threads that it does not need. */
int ha_pool_new(unsigned threads, size_t queue_max, struct ha_pool **ret, struct hp_error *e) HP_MUST_CHECK;
/* Any thread. HP_ELIMIT when queue_max works wait already. */
int ha_pool_submit(struct ha_pool *pool, struct ha_work *work) HP_MUST_CHECK;
/* Runs what is queued, ends the threads and frees. Blocks. NULL is fine. */
void ha_pool_free(struct ha_pool *pool);

#endif
