/* sim_journal.h — one file for the journals of a whole simulated fleet: durable as real ones are, by writes and fdatasync, where a file for each host would take too many descriptors. Never read. */
#ifndef HA_FLEET_SIM_SIM_JOURNAL_H
#define HA_FLEET_SIM_SIM_JOURNAL_H

#include <uv.h>

#include "core/journal.h"

struct sim_journal;

/* Makes the file anew. Loop thread only, as everything here. */
int sim_journal_open(uv_loop_t *loop, const char *path, struct sim_journal **ret, struct hp_error *e) HP_MUST_CHECK;
/* Copies; written with the next flush. HP_ENOMEM, HP_ELIMIT: nothing was taken. */
int sim_journal_add(struct sim_journal *j, const char *host, uint64_t seq, const struct ha_write *writes,
                    size_t count) HP_MUST_CHECK;
/* A flush is under way. */
bool sim_journal_busy(const struct sim_journal *j);
/* Writes all that was added, and makes it durable; not while busy. done_cb follows on a later turn of the loop. */
void sim_journal_flush(struct sim_journal *j, void (*done_cb)(void *user, int status, const struct hp_error *e),
                       void *user);
/* How often it was made durable, and how many bytes were. */
uint64_t sim_journal_syncs(const struct sim_journal *j);
uint64_t sim_journal_bytes(const struct sim_journal *j);
/* Ends a flush under way without done_cb; frees on a later turn. */
void sim_journal_close(struct sim_journal *j);

#endif
