/* journal_sqlite.h — the agent's journal in SQLite: WAL, synchronous=FULL, on a thread of its own; many steps share one fsync. */
#ifndef HA_SHELL_JOURNAL_SQLITE_H
#define HA_SHELL_JOURNAL_SQLITE_H

#include <uv.h>

#include "core/journal.h"

struct ha_sqlite;

/* Opens or makes the journal and reads it. Loop thread; blocks. HP_ECORRUPT: damaged, or not a journal; HP_EUNSUPPORTED: of a later version; HP_EUNAVAILABLE: another
 * agent has it; HP_EIO. The messages say what to do. */
int ha_sqlite_open(uv_loop_t *loop, const char *path, struct ha_sqlite **ret, struct ha_image *ret_image,
                   struct hp_error *e) HP_MUST_CHECK;
/* The functions for the core. */
struct ha_journal *ha_sqlite_journal(struct ha_sqlite *j);
/* Keeps `bytes` of disk for the journal in a file beside it. They are given up when the disk is full, and taken back with the next call. Loop thread; the journal's
 * thread does it. A disk without room even then holds the journal up: nothing is told durable until there is some, and nothing is lost. */
void ha_sqlite_reserve(struct ha_sqlite *j, int64_t bytes);
/* Writes what is queued, ends the thread, frees. Blocks for an fsync. No callback comes after it. */
void ha_sqlite_close(struct ha_sqlite *j);

#endif
