/* journal_files.h — the files of a journal as files: moved aside when damaged, and one that keeps room for the others. All block. */
#ifndef HA_SHELL_JOURNAL_FILES_H
#define HA_SHELL_JOURNAL_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Moves the journal and what belongs to it aside, to PATH.damaged-N; ret_path: at least 4096 bytes. No journal: HP_ENOTFOUND. */
int ha_journal_quarantine(const char *path, char *ret_path, struct hp_error *e) HP_MUST_CHECK;

/* Takes `bytes` of the disk in PATH.reserve. HP_ELIMIT: it has none; then nothing is taken. */
int ha_reserve_take(const char *path, int64_t bytes, struct hp_error *e) HP_MUST_CHECK;
/* Gives them back. False: there were none. */
bool ha_reserve_give(const char *path);

#endif
