/* journal_wal.h — tells damage in SQLite's write-ahead log from the end of it, which SQLite does not: it takes the first frame that is not right for the end, and
 * forgets what follows. */
#ifndef HA_SHELL_JOURNAL_WAL_H
#define HA_SHELL_JOURNAL_WAL_H

#include <sqlite3.h>

#include "base/error.h"

/* Reads the log of an open database that nobody writes to. Blocks. HP_ECORRUPT: a transaction that was finished cannot be read any more; HP_EIO, HP_ENOMEM. Damage in
 * the last two transactions looks as a crash before their end would, and is not noticed. */
int ha_wal_check(sqlite3 *db, struct hp_error *e) HP_MUST_CHECK;

#endif
