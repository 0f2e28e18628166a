/* journal_model.h — an agent's journal in memory: writes gather in batches, become durable when asked to, and are lost otherwise. */
#ifndef TESTS_LIB_JOURNAL_MODEL_H
#define TESTS_LIB_JOURNAL_MODEL_H

#include "core/journal.h"

enum { JM_BATCHES_MAX = 256 };

struct jm_batch {
    uint64_t seq;
    struct ha_write *writes; /* deep copies */
    size_t count;
};

struct journal_model {
    struct ha_image durable;
    struct jm_batch batches[JM_BATCHES_MAX]; /* written, not durable; oldest first */
    size_t batch_count;
};

/* Takes copies. */
void jm_write(struct journal_model *j, uint64_t seq, const struct ha_write *writes, size_t count);
/* The oldest `count` batches become durable; returns the sequence of the last of them. */
uint64_t jm_sync(struct journal_model *j, size_t count);
/* What is not durable is gone. */
void jm_lose(struct journal_model *j);
/* A deep copy of what is durable, for ha_core_new. */
struct ha_image jm_image(const struct journal_model *j);
void jm_done(struct journal_model *j);

#endif
