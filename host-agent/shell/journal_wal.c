/* The log is a header and frames, each with the checksum of itself and all before it (https://www.sqlite.org/fileformat.html, section 4). A crash can leave the last
 * transaction unfinished, in any way: it was not synced. It cannot leave a frame that follows a finished transaction, and knows its checksum, unless that transaction
 * was synced. So such a frame behind one that is not right means damage. When the header is not right, it was being written over, and all that the log had is in the
 * database file; or it is damaged, and something is not. */
#include "shell/journal_wal.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 32, FRAME_HEADER = 24, PAGE_MAX = 65536 };

struct sum {
    uint32_t a, b;
};

struct frame {
    uint32_t page, commit; /* commit: not 0 in a transaction's last frame */
    uint32_t salt[2];
    struct sum stored;
};

struct wal {
    sqlite3_file *log, *main;
    uint32_t page_size;
    bool big_endian, header_good;
    uint32_t salt[2]; /* of the frames that count */
    struct sum header_sum;
    int64_t count; /* frames in the file */
    uint8_t *data, *other;
};

static uint32_t big32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t little32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static struct sum add(const struct wal *w, struct sum s, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        s.a += (w->big_endian ? big32(p + i) : little32(p + i)) + s.b;
        s.b += (w->big_endian ? big32(p + i + 4) : little32(p + i + 4)) + s.a;
    }
    return s;
}

static int read_at(sqlite3_file *f, void *buf, size_t len, int64_t at, struct hp_error *e)
{
    int rc = f->pMethods->xRead(f, buf, (int)len, at);
    return rc == SQLITE_OK || rc == SQLITE_IOERR_SHORT_READ
               ? 0
               : hp_fail(e, HP_EIO, "reading the write-ahead log: %s", sqlite3_errstr(rc));
}

static int read_header(struct wal *w, struct hp_error *e)
{
    uint8_t h[HEADER];
    int rc = read_at(w->log, h, sizeof h, 0, e);
    if (rc)
        return rc;
    w->big_endian = big32(h) & 1;
    struct sum s = add(w, (struct sum){0}, h, 24);
    w->header_sum = (struct sum){big32(h + 24), big32(h + 28)};
    w->header_good = (big32(h) & ~1U) == 0x377F0682 && big32(h + 8) == w->page_size && s.a == w->header_sum.a &&
                     s.b == w->header_sum.b;
    w->salt[0] = big32(h + 16);
    w->salt[1] = big32(h + 20);
    return 0;
}

/* Reads frame i and its page; *ret_linked: it follows on a frame with the checksum `before`. */
static int read_frame(struct wal *w, int64_t i, struct sum before, struct frame *ret, bool *ret_linked,
                      struct hp_error *e)
{
    uint8_t h[FRAME_HEADER];
    int64_t at = HEADER + i * (FRAME_HEADER + (int64_t)w->page_size);
    int rc = read_at(w->log, h, sizeof h, at, e);
    if (!rc)
        rc = read_at(w->log, w->data, w->page_size, at + FRAME_HEADER, e);
    if (rc)
        return rc;
    *ret = (struct frame){.page = big32(h),
                          .commit = big32(h + 4),
                          .salt = {big32(h + 8), big32(h + 12)},
                          .stored = {big32(h + 16), big32(h + 20)}};
    struct sum s = add(w, add(w, before, h, 8), w->data, w->page_size);
    *ret_linked =
        s.a == ret->stored.a && s.b == ret->stored.b && ret->salt[0] == w->salt[0] && ret->salt[1] == w->salt[1];
    return 0;
}

/* With a good header: no frame may follow on a finished transaction behind one that is not right. */
static int check_frames(struct wal *w, struct hp_error *e)
{
    struct sum before = w->header_sum;
    bool broken = false, finished = false;
    for (int64_t i = 0; i < w->count; i++) {
        struct frame f;
        bool linked;
        int rc = read_frame(w, i, before, &f, &linked, e);
        if (rc)
            return rc;
        if (broken && linked && finished)
            return hp_fail(e, HP_ECORRUPT,
                           "the write-ahead log has finished transactions behind frame %lld, which is not right",
                           (long long)i);
        broken = broken || !linked;
        finished = f.commit && f.salt[0] == w->salt[0] && f.salt[1] == w->salt[1];
        before = f.stored;
    }
    return 0;
}

/* The last content of each page in the first `count` frames must be in the database file: `latest` has the pages' last frames. */
static int check_carried_over(struct wal *w, int64_t count, struct hp_error *e)
{
    struct frame *frames = calloc((size_t)count + 1, sizeof *frames);
    int rc = frames ? 0 : hp_fail(e, HP_ENOMEM, "the write-ahead log");
    bool linked;
    for (int64_t i = 0; !rc && i < count; i++)
        rc = read_frame(w, i, w->header_sum, &frames[i], &linked, e);
    for (int64_t i = 0; !rc && i < count; i++) {
        bool last = true;
        for (int64_t k = i + 1; k < count; k++)
            last = last && frames[k].page != frames[i].page;
        if (!last || !frames[i].page)
            continue;
        rc = read_frame(w, i, w->header_sum, &frames[i], &linked, e);
        if (!rc)
            rc = read_at(w->main, w->other, w->page_size, (int64_t)(frames[i].page - 1) * w->page_size, e);
        if (!rc && memcmp(w->data, w->other, w->page_size) != 0)
            rc = hp_fail(e, HP_ECORRUPT,
                         "the write-ahead log's header is not right, and it has what the database does not");
    }
    free(frames);
    return rc;
}

/* Without one: the frames up to the last finished transaction count, as far as they follow on one another. */
static int check_headless(struct wal *w, struct hp_error *e)
{
    struct sum before = w->header_sum;
    int64_t finished = 0;
    for (int64_t i = 0; i < w->count; i++) {
        struct frame f;
        bool linked;
        int rc = read_frame(w, i, before, &f, &linked, e);
        if (rc)
            return rc;
        if (i == 0)
            memcpy(w->salt, f.salt, sizeof w->salt);
        else if (!linked)
            break;
        if (f.commit)
            finished = i + 1;
        before = f.stored;
    }
    return check_carried_over(w, finished, e);
}

static int page_size(sqlite3 *db, uint32_t *ret, struct hp_error *e)
{
    sqlite3_stmt *s;
    *ret = 0;
    int rc = sqlite3_prepare_v2(db, "PRAGMA page_size", -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        *ret = (uint32_t)sqlite3_column_int(s, 0);
    sqlite3_finalize(s);
    if (*ret >= 512 && *ret <= PAGE_MAX)
        return 0;
    return hp_fail(e, rc == SQLITE_NOMEM ? HP_ENOMEM : HP_EIO, "page_size: %s", sqlite3_errstr(rc));
}

int ha_wal_check(sqlite3 *db, struct hp_error *e)
{
    struct wal w = {0};
    sqlite3_int64 size = 0;
    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&w.log);
    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&w.main);
    if (!w.log || !w.log->pMethods || !w.main || !w.main->pMethods)
        return 0;
    int rc = w.log->pMethods->xFileSize(w.log, &size);
    if (rc != SQLITE_OK)
        return hp_fail(e, HP_EIO, "the write-ahead log's size: %s", sqlite3_errstr(rc));
    if (size < HEADER)
        return 0;
    rc = page_size(db, &w.page_size, e);
    if (rc)
        return rc;
    w.count = (size - HEADER) / (FRAME_HEADER + (int64_t)w.page_size);
    w.data = malloc(w.page_size);
    w.other = malloc(w.page_size);
    rc = w.data && w.other ? read_header(&w, e) : hp_fail(e, HP_ENOMEM, "the write-ahead log");
    if (!rc)
        rc = w.header_good ? check_frames(&w, e) : check_headless(&w, e);
    free(w.data);
    free(w.other);
    return rc;
}
