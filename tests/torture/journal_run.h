/* journal_run.h — recorded runs of the agent's real journal: what it did to its files, and every state that it went through. */
#ifndef TESTS_TORTURE_JOURNAL_RUN_H
#define TESTS_TORTURE_JOURNAL_RUN_H

#include "core/journal.h"
#include "lib/memory_vfs.h"

/* Marks in the log say: state `a` was told durable, states up to `b` were handed over. */
struct journal_run {
    uint64_t seed;
    const char *kind;
    struct mv_log log;
    uint64_t *states; /* digest of the state after i batches */
    size_t state_count;
};

/* Records a run: agents' own writes (odd seeds) or writes of all kinds and sizes (even ones), with restarts between. Aborts on failure. */
void journal_run_record(struct journal_run *r, uint64_t seed, int batches);
void journal_run_done(struct journal_run *r);
/* Equal for equal states, whatever the order of the containers. */
uint64_t journal_state_digest(const struct ha_image *image);

#endif
