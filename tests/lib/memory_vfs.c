#include "lib/memory_vfs.h"

#include <assert.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/rng.h"

enum { BLOCK_BYTES = 512, SECTOR_BYTES = 4096 /* what SQLite's layer for Linux says */ };

struct handle {
    sqlite3_file base;
    struct mv_disk *disk;
    enum mv_file_id id;
    bool sync_directory; /* with the first sync: a journal or write-ahead log that may be new */
};

static struct mv_disk *disk;
static struct mv_log *logging;
static struct mv_broken broken;
static int open_files;
static bool log_sync_due; /* of the write-ahead log, put off until its pages are carried over */
static struct hp_rng rng;
/* The gate: holds writers back, so that what is handed over meanwhile shares the next transaction. */
static pthread_mutex_t gate_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_cond = PTHREAD_COND_INITIALIZER;
static bool gate_closed, gate_waiting;
/* What fails. */
static atomic_long calls[MV_CALLS];
static enum mv_call fail_call;
static long fail_at; /* 0: nothing */
static int fail_code;
static sqlite3_mem_methods real_memory;

void mv_fail(enum mv_call call, long at, int code)
{
    for (int i = 0; i < MV_CALLS; i++)
        atomic_store(&calls[i], 0);
    fail_call = call;
    fail_at = at;
    fail_code = code;
}

long mv_calls(enum mv_call call)
{
    return atomic_load(&calls[call]);
}

bool mv_failed(void)
{
    return fail_at && mv_calls(fail_call) >= fail_at;
}

/* The code that this call fails with; 0: it does not. */
static int fails(enum mv_call call)
{
    long number = atomic_fetch_add(&calls[call], 1) + 1;
    return call == fail_call && number == fail_at ? fail_code : SQLITE_OK;
}

static void *fallible_malloc(int n)
{
    return fails(MV_CALL_ALLOC) ? NULL : real_memory.xMalloc(n);
}

static void *fallible_realloc(void *p, int n)
{
    return fails(MV_CALL_ALLOC) ? NULL : real_memory.xRealloc(p, n);
}

void mv_watch_allocations(void)
{
    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory) != SQLITE_OK)
        abort();
    sqlite3_mem_methods memory = real_memory;
    memory.xMalloc = fallible_malloc;
    memory.xRealloc = fallible_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &memory) != SQLITE_OK)
        abort();
}

/* ---- files ---- */

static uint64_t block_digest(const struct mv_file *f, size_t block)
{
    size_t at = block * BLOCK_BYTES, len = f->size - at < BLOCK_BYTES ? f->size - at : BLOCK_BYTES;
    uint64_t h = 0x9E3779B97F4A7C15ULL * (block + 1) + len, word;
    for (size_t i = 0; i < len; i += 8) {
        word = 0;
        memcpy(&word, f->data + at + i, len - i < 8 ? len - i : 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93ULL;
        h ^= h >> 32;
    }
    return h;
}

/* Takes the blocks that from..to touches out of the digest, or in again. */
static void toggle(struct mv_file *f, size_t from, size_t to)
{
    for (size_t b = from / BLOCK_BYTES; b * BLOCK_BYTES < to && b * BLOCK_BYTES < f->size; b++)
        f->digest ^= block_digest(f, b);
}

static void resize(struct mv_file *f, size_t size)
{
    size_t low = size < f->size ? size : f->size, high = size < f->size ? f->size : size;
    toggle(f, low, high);
    if (size > f->cap) {
        f->cap = size * 2;
        f->data = realloc(f->data, f->cap);
        if (!f->data)
            abort();
    }
    if (size > f->size)
        memset(f->data + f->size, 0, size - f->size);
    f->size = size;
    toggle(f, low, high);
}

static void put(struct mv_file *f, size_t offset, const uint8_t *data, size_t len)
{
    if (!len)
        return;
    if (offset + len > f->size)
        resize(f, offset + len);
    toggle(f, offset, offset + len);
    memcpy(f->data + offset, data, len);
    toggle(f, offset, offset + len);
}

void mv_disk_apply_part(struct mv_disk *d, const struct mv_op *op, size_t from, size_t to)
{
    assert(op->kind == MV_WRITE && from <= to && to <= op->len);
    put(&d->files[op->file], op->offset + from, op->data + from, to - from);
}

void mv_disk_apply(struct mv_disk *d, const struct mv_op *op)
{
    struct mv_file *f = &d->files[op->file];
    switch (op->kind) {
    case MV_CREATE:
        f->exists = true;
        break;
    case MV_DELETE:
        resize(f, 0);
        f->exists = false;
        break;
    case MV_WRITE:
        put(f, op->offset, op->data, op->len);
        break;
    case MV_TRUNCATE:
        resize(f, op->offset);
        break;
    case MV_SYNC:
    case MV_SYNCDIR:
    case MV_MARK:
        break;
    }
}

void mv_disk_flip(struct mv_disk *d, enum mv_file_id file, size_t at, uint8_t mask)
{
    uint8_t byte = d->files[file].data[at] ^ mask;
    put(&d->files[file], at, &byte, 1);
}

void mv_disk_copy(struct mv_disk *to, const struct mv_disk *from)
{
    for (int i = 0; i < MV_FILES; i++) {
        struct mv_file *t = &to->files[i];
        const struct mv_file *f = &from->files[i];
        if (t->cap < f->size) {
            free(t->data);
            t->cap = f->size * 2;
            t->data = malloc(t->cap);
            if (!t->data)
                abort();
        }
        if (f->size)
            memcpy(t->data, f->data, f->size);
        t->size = f->size;
        t->exists = f->exists;
        t->digest = f->digest;
    }
}

void mv_disk_done(struct mv_disk *d)
{
    for (int i = 0; i < MV_FILES; i++)
        free(d->files[i].data);
    *d = (struct mv_disk){0};
}

uint64_t mv_disk_digest(const struct mv_disk *d)
{
    uint64_t h = 0;
    for (int i = 0; i < MV_FILES; i++)
        h = h * 0x9E3779B97F4A7C15ULL + (d->files[i].digest ^ (d->files[i].size * 31 + d->files[i].exists));
    return h;
}

/* ---- the log ---- */

static void log_op(struct mv_log *log, struct mv_op op, const void *data)
{
    if (log->count == log->cap) {
        log->cap = log->cap ? log->cap * 2 : 1024;
        log->ops = realloc(log->ops, log->cap * sizeof *log->ops);
        if (!log->ops)
            abort();
    }
    if (data) {
        op.data = malloc(op.len);
        if (!op.data)
            abort();
        memcpy(op.data, data, op.len);
    }
    log->ops[log->count++] = op;
}

void mv_log_mark(struct mv_log *log, uint64_t a, uint64_t b)
{
    log_op(log, (struct mv_op){.kind = MV_MARK, .a = a, .b = b}, NULL);
}

void mv_log_copy(struct mv_log *to, const struct mv_log *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        log_op(to, from->ops[i], from->ops[i].data);
}

void mv_log_done(struct mv_log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free(log->ops[i].data);
    free(log->ops);
    *log = (struct mv_log){0};
}

static void change(struct mv_disk *d, struct mv_op op, const void *data)
{
    op.data = (uint8_t *)(uintptr_t)data;
    mv_disk_apply(d, &op);
    if (logging)
        log_op(logging, op, data);
}

/* ---- SQLite's file methods (https://www.sqlite.org/c3ref/io_methods.html) ---- */

static struct mv_file *file_of(sqlite3_file *f)
{
    struct handle *h = (struct handle *)f;
    return &h->disk->files[h->id];
}

static int on_close(sqlite3_file *f)
{
    open_files--;
    return SQLITE_OK;
}

static int on_read(sqlite3_file *f, void *out, int len, sqlite3_int64 offset)
{
    int code = fails(MV_CALL_READ);
    if (code)
        return code;
    const struct mv_file *m = file_of(f);
    size_t at = (size_t)offset, n = (size_t)len;
    size_t have = at < m->size ? m->size - at : 0;
    if (have > n)
        have = n;
    if (have)
        memcpy(out, m->data + at, have);
    memset((char *)out + have, 0, n - have);
    return have == n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static void pass_gate(void)
{
    pthread_mutex_lock(&gate_mutex);
    while (gate_closed) {
        gate_waiting = true;
        pthread_cond_broadcast(&gate_cond);
        pthread_cond_wait(&gate_cond, &gate_mutex);
    }
    gate_waiting = false;
    pthread_mutex_unlock(&gate_mutex);
}

void mv_gate_close(void)
{
    pthread_mutex_lock(&gate_mutex);
    gate_closed = true;
    pthread_mutex_unlock(&gate_mutex);
}

void mv_gate_await(void)
{
    pthread_mutex_lock(&gate_mutex);
    while (!gate_waiting)
        pthread_cond_wait(&gate_cond, &gate_mutex);
    pthread_mutex_unlock(&gate_mutex);
}

void mv_gate_open(void)
{
    pthread_mutex_lock(&gate_mutex);
    gate_closed = gate_waiting = false;
    pthread_cond_broadcast(&gate_cond);
    pthread_mutex_unlock(&gate_mutex);
}

static int on_write(sqlite3_file *f, const void *data, int len, sqlite3_int64 offset)
{
    struct handle *h = (struct handle *)f;
    int code = fails(MV_CALL_WRITE);
    pass_gate();
    if (log_sync_due && h->id == MV_MAIN) {
        change(h->disk, (struct mv_op){.kind = MV_SYNC, .file = MV_WAL}, NULL);
        log_sync_due = false;
    }
    change(h->disk,
           (struct mv_op){
               .kind = MV_WRITE, .file = h->id, .offset = (size_t)offset, .len = (size_t)(code ? len / 2 : len)},
           data);
    return code;
}

static int on_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    int code = fails(MV_CALL_TRUNCATE);
    if (code)
        return code;
    struct handle *h = (struct handle *)f;
    change(h->disk, (struct mv_op){.kind = MV_TRUNCATE, .file = h->id, .offset = (size_t)size}, NULL);
    return SQLITE_OK;
}

static int on_sync(sqlite3_file *f, int flags)
{
    int code = fails(MV_CALL_SYNC);
    if (code)
        return code;
    struct handle *h = (struct handle *)f;
    if (broken.no_full && h->id == MV_WAL)
        log_sync_due = true;
    if (broken.no_sync || (broken.no_full && h->id == MV_WAL))
        return SQLITE_OK;
    change(h->disk, (struct mv_op){.kind = MV_SYNC, .file = h->id}, NULL);
    if (h->sync_directory)
        change(h->disk, (struct mv_op){.kind = MV_SYNCDIR}, NULL);
    h->sync_directory = false;
    return SQLITE_OK;
}

static int on_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    int code = fails(MV_CALL_SIZE);
    if (code)
        return code;
    *ret = (sqlite3_int64)file_of(f)->size;
    return SQLITE_OK;
}

static int on_lock(sqlite3_file *f, int level)
{
    return fails(MV_CALL_LOCK);
}

static int on_unlock(sqlite3_file *f, int level)
{
    return SQLITE_OK;
}

static int on_check_lock(sqlite3_file *f, int *ret)
{
    *ret = 0;
    return SQLITE_OK;
}

/* A pragma is answered here, and goes no further, when it would undo what a test has changed (SQLITE_FCNTL_PRAGMA). */
static int on_control(sqlite3_file *f, int op, void *arg)
{
    if (op != SQLITE_FCNTL_PRAGMA)
        return SQLITE_NOTFOUND;
    const char *const *pragma = arg;
    if (broken.checkpoint_at && strcasecmp(pragma[1], "wal_autocheckpoint") == 0)
        return SQLITE_OK;
    return SQLITE_NOTFOUND;
}

static int on_sector(sqlite3_file *f)
{
    return SECTOR_BYTES;
}

static int on_characteristics(sqlite3_file *f)
{
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* Version 1: no shared memory. A journal that is not opened exclusively cannot have a write-ahead log here. */
static const sqlite3_io_methods methods = {.iVersion = 1,
                                           .xClose = on_close,
                                           .xRead = on_read,
                                           .xWrite = on_write,
                                           .xTruncate = on_truncate,
                                           .xSync = on_sync,
                                           .xFileSize = on_size,
                                           .xLock = on_lock,
                                           .xUnlock = on_unlock,
                                           .xCheckReservedLock = on_check_lock,
                                           .xFileControl = on_control,
                                           .xSectorSize = on_sector,
                                           .xDeviceCharacteristics = on_characteristics};

/* ---- the layer ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static enum mv_file_id id_of(const char *path)
{
    return ends_with(path, "-wal") ? MV_WAL : ends_with(path, "-journal") ? MV_JOURNAL : MV_MAIN;
}

static int vfs_open(sqlite3_vfs *v, sqlite3_filename path, sqlite3_file *f, int flags, int *ret_flags)
{
    struct handle *h = (struct handle *)f;
    int code = fails(MV_CALL_OPEN);
    h->base.pMethods = NULL;
    if (code || !path || !disk)
        return code ? code : SQLITE_CANTOPEN;
    h->id = id_of(path);
    h->disk = disk;
    h->sync_directory = (flags & SQLITE_OPEN_CREATE) && h->id != MV_MAIN; /* whether it was there or not */
    if (!disk->files[h->id].exists) {
        if (!(flags & SQLITE_OPEN_CREATE))
            return SQLITE_CANTOPEN;
        change(disk, (struct mv_op){.kind = MV_CREATE, .file = h->id}, NULL);
    }
    h->base.pMethods = &methods;
    open_files++;
    if (ret_flags)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *v, const char *path, int sync_directory)
{
    int code = fails(MV_CALL_DELETE);
    if (code)
        return code;
    enum mv_file_id id = id_of(path);
    if (!disk->files[id].exists)
        return SQLITE_IOERR_DELETE_NOENT;
    change(disk, (struct mv_op){.kind = MV_DELETE, .file = id}, NULL);
    if (sync_directory && !broken.no_sync)
        change(disk, (struct mv_op){.kind = MV_SYNCDIR}, NULL);
    return SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *v, const char *path, int flags, int *ret)
{
    int code = fails(MV_CALL_ACCESS);
    if (code)
        return code;
    const struct mv_file *f = &disk->files[id_of(path)];
    *ret = f->exists && (flags != SQLITE_ACCESS_EXISTS || f->size > 0);
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *v, const char *path, int size, char *out)
{
    snprintf(out, (size_t)size, "%s", path);
    return SQLITE_OK;
}

static int vfs_random(sqlite3_vfs *v, int len, char *out)
{
    hp_rng_fill(&rng, out, (size_t)len);
    return len;
}

static int vfs_sleep(sqlite3_vfs *v, int us)
{
    return us;
}

static int vfs_time(sqlite3_vfs *v, double *ret)
{
    *ret = 2461000.5;
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *v, int len, char *out)
{
    return 0;
}

/* Every connection of the process: the program's own setting of it is answered by on_control. */
static int on_connection(sqlite3 *db, const char **error, const struct sqlite3_api_routines *api)
{
    if (broken.checkpoint_at)
        sqlite3_wal_autocheckpoint(db, broken.checkpoint_at);
    return SQLITE_OK;
}

void mv_install(void)
{
    static sqlite3_vfs vfs = {.iVersion = 1,
                              .szOsFile = sizeof(struct handle),
                              .mxPathname = 512,
                              .zName = "memory",
                              .xOpen = vfs_open,
                              .xDelete = vfs_delete,
                              .xAccess = vfs_access,
                              .xFullPathname = vfs_full_path,
                              .xRandomness = vfs_random,
                              .xSleep = vfs_sleep,
                              .xCurrentTime = vfs_time,
                              .xGetLastError = vfs_last_error};
    hp_rng_init(&rng, 1);
    if (sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK) /* its lock costs a tenth of the time */
        abort();
    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK ||
        sqlite3_auto_extension((void (*)(void))on_connection) != SQLITE_OK)
        abort();
}

void mv_options(const struct mv_broken *b)
{
    broken = *b;
}

void mv_use(struct mv_disk *d, struct mv_log *log)
{
    disk = d;
    logging = log;
}

bool mv_idle(void)
{
    return open_files == 0;
}
