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
/* Writes what is queued, ends the thread, frees. Blocks for an fsync. No callback comes after it. */
void ha_sqlite_close(struct ha_sqlite *j);

/* Moves the journal and what belongs to it aside, to PATH.damaged-N; ret_path: at least 4096 bytes. No journal: HP_ENOTFOUND. */
int ha_sqlite_quarantine(const char *path, char *ret_path, struct hp_error *e) HP_MUST_CHECK;

#endif
