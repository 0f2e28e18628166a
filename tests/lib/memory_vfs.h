/* memory_vfs.h — a disk in memory below SQLite: every operation that changes a file can be logged, and what a crash leaves of it rebuilt.
 *
 * The promises of the disk are those that SQLite's own file layer for Linux relies on: a file's writes are durable after a sync of the file, in any order or in
 * part before it; a file's creation or removal is durable after a sync of the directory, which the layer does where the real one does it. */
#ifndef TESTS_LIB_MEMORY_VFS_H
#define TESTS_LIB_MEMORY_VFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mv_file_id { MV_MAIN, MV_JOURNAL, MV_WAL, MV_FILES };

struct mv_file {
    bool exists;
    uint8_t *data;
    size_t size, cap;
    uint64_t digest; /* of the content; kept up with each write */
};

/* Zeroed: empty. */
struct mv_disk {
    struct mv_file files[MV_FILES];
};

enum mv_kind {
    MV_CREATE,
    MV_DELETE,
    MV_WRITE,
    MV_TRUNCATE,
    MV_SYNC,    /* the file */
    MV_SYNCDIR, /* creations and removals */
    MV_MARK,    /* the test's own: what was told or handed over at this point */
};

struct mv_op {
    enum mv_kind kind;
    enum mv_file_id file;
    size_t offset, len; /* TRUNCATE: the new size is `offset` */
    uint8_t *data;      /* WRITE */
    uint64_t a, b;      /* MARK */
};

struct mv_log {
    struct mv_op *ops;
    size_t count, cap;
};

/* What the layer leaves out, to see a test fail. */
struct mv_broken {
    bool no_sync;      /* a sync says that it is done, and is not */
    bool no_full;      /* as with PRAGMA synchronous = NORMAL: a commit does not sync the write-ahead log */
    int checkpoint_at; /* pages of the write-ahead log after which it is carried over; 0: as the program says */
};

/* What can fail: calls of the layer, and SQLite's allocations. */
enum mv_call {
    MV_CALL_OPEN,
    MV_CALL_READ,
    MV_CALL_WRITE,
    MV_CALL_TRUNCATE,
    MV_CALL_SYNC,
    MV_CALL_SIZE,
    MV_CALL_LOCK,
    MV_CALL_DELETE,
    MV_CALL_ACCESS,
    MV_CALL_ALLOC, /* on any thread */
    MV_CALLS
};

/* Makes this the default file layer of the process; all databases are then files of the disk in use. */
void mv_install(void);
void mv_options(const struct mv_broken *b);
/* What is opened from now on is on `d`; changes are appended to `log` (NULL: not logged). */
void mv_use(struct mv_disk *d, struct mv_log *log);
/* True: no file is open. */
bool mv_idle(void);
/* Holds back the next write of any file; waits until one is held back; lets it go. */
void mv_gate_close(void);
void mv_gate_await(void);
void mv_gate_open(void);

/* Before mv_install: allocations are counted and fail, too. */
void mv_watch_allocations(void);
/* From now on calls are counted from 1. The `at`th of this kind fails, once, with SQLite's code `code`; 0: none. A write that fails has been done in part. */
void mv_fail(enum mv_call call, long at, int code);
/* Calls since then. */
long mv_calls(enum mv_call call);
bool mv_failed(void);

void mv_log_mark(struct mv_log *log, uint64_t a, uint64_t b);
void mv_log_copy(struct mv_log *to, const struct mv_log *from, size_t count);
void mv_log_done(struct mv_log *log);

void mv_disk_copy(struct mv_disk *to, const struct mv_disk *from); /* reuses the memory of *to */
void mv_disk_done(struct mv_disk *d);
void mv_disk_apply(struct mv_disk *d, const struct mv_op *op);
/* The bytes from..to of a WRITE only. */
void mv_disk_apply_part(struct mv_disk *d, const struct mv_op *op, size_t from, size_t to);
/* Changes one byte. */
void mv_disk_flip(struct mv_disk *d, enum mv_file_id file, size_t at, uint8_t mask);
uint64_t mv_disk_digest(const struct mv_disk *d);

#endif
