/* journal_sqlite_impl.h — the inside of journal_sqlite.h, shared by journal_sqlite.c (writing, on a thread) and journal_open.c (opening and reading) only. */
#ifndef HA_SHELL_JOURNAL_SQLITE_IMPL_H
#define HA_SHELL_JOURNAL_SQLITE_IMPL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>

#include "io/loop.h"
#include "shell/journal_sqlite.h"

enum { HA_SQLITE_PATH_MAX_BYTES = 4096 };

enum statement {
    S_BEGIN,
    S_COMMIT,
    S_META,
    S_CONTAINER,
    S_CONTAINER_DELETE,
    S_REPORT,
    S_REPORT_DELETE,
    S_TOMBSTONE,
    S_TOMBSTONE_DELETE,
    S_COUNT,
};

struct batch;

struct ha_sqlite {
    struct ha_journal base;
    sqlite3 *db; /* the thread's, once it runs */
    sqlite3_stmt *statements[S_COUNT];
    struct hp_mailbox *mailbox;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct batch *queue, **queue_tail; /* guarded */
    bool stop;                         /* guarded */
    bool broken;                       /* the thread's */
    int64_t reserve_bytes;             /* guarded; to be taken, 0: nothing */
    bool reserved;                     /* the thread's */
    char path[HA_SQLITE_PATH_MAX_BYTES];
};

/* Opens, checks and reads the file at j->path; makes durable what was read. On failure *image holds what was read so far, and j is still to be closed. */
int ha_sqlite_open_db(struct ha_sqlite *j, struct ha_image *image, struct hp_error *e) HP_MUST_CHECK;
void ha_sqlite_close_db(struct ha_sqlite *j);
/* SQLite's code as one of ours, with what to do about it; `what` was tried. */
int ha_sqlite_fail(struct ha_sqlite *j, int code, const char *what, struct hp_error *e) HP_MUST_CHECK;
/* The sum that is kept with a row of table meta. */
uint64_t ha_sqlite_meta_sum(int64_t key, int64_t number);

#endif
