#include "fleet_sim/sim_journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

enum {
    FILLING_MAX = 256 << 20, /* bytes that wait for a flush */
    FILE_MAX = 256 << 20,    /* then it begins anew, as a journal that is cleaned does */
};

struct sim_journal {
    uv_work_t work;
    uv_loop_t *loop;
    struct hp_buf filling, writing;
    int fd;
    off_t at;
    bool busy, closing;
    int status; /* of the flush under way, and of all after one that failed */
    struct hp_error error;
    uint64_t syncs, bytes;
    void (*done_cb)(void *user, int status, const struct hp_error *e);
    void *user;
};

int sim_journal_open(uv_loop_t *loop, const char *path, struct sim_journal **ret, struct hp_error *e)
{
    struct sim_journal *j = calloc(1, sizeof *j);
    if (!j)
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    j->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (j->fd < 0) {
        free(j);
        return hp_fail_errno(e, HP_EIO, errno, "journal %s", path);
    }
    j->loop = loop;
    hp_buf_init(&j->filling, FILLING_MAX);
    hp_buf_init(&j->writing, FILLING_MAX);
    *ret = j;
    return 0;
}

/* ---- One entry: lengths before texts and bytes, numbers as they are in memory ---- */

static size_t text_len(const char *text)
{
    return text ? strlen(text) : 0;
}

static size_t size_of(const struct ha_write *w)
{
    size_t n = sizeof(uint32_t) + sizeof w->number + strlen(w->uid);
    if (w->record)
        n += sizeof *w->record + text_len(w->record->name) + w->record->spec.len + w->record->intent.spec.len;
    if (w->report)
        n += sizeof *w->report + w->report->body.len;
    if (w->tombstone)
        n += sizeof *w->tombstone;
    return n;
}

static uint8_t *put(uint8_t *at, const void *data, size_t len)
{
    if (len)
        memcpy(at, data, len);
    return at + len;
}

static uint8_t *put_write(uint8_t *at, const struct ha_write *w)
{
    uint32_t kind = (uint32_t)w->kind << 8 | (uint32_t)w->meta_key;
    at = put(at, &kind, sizeof kind);
    at = put(at, &w->number, sizeof w->number);
    at = put(at, w->uid, strlen(w->uid));
    if (w->record) {
        at = put(at, w->record, sizeof *w->record);
        at = put(at, w->record->name, text_len(w->record->name));
        at = put(at, w->record->spec.data, w->record->spec.len);
        at = put(at, w->record->intent.spec.data, w->record->intent.spec.len);
    }
    if (w->report) {
        at = put(at, w->report, sizeof *w->report);
        at = put(at, w->report->body.data, w->report->body.len);
    }
    if (w->tombstone)
        at = put(at, w->tombstone, sizeof *w->tombstone);
    return at;
}

int sim_journal_add(struct sim_journal *j, const char *host, uint64_t seq, const struct ha_write *writes, size_t count)
{
    size_t len = strlen(host) + 1 + sizeof seq;
    for (size_t i = 0; i < count; i++)
        len += size_of(&writes[i]);
    uint8_t *begin = hp_buf_reserve(&j->filling, len), *at = begin;
    if (!begin)
        return HP_ENOMEM;
    at = put(at, host, strlen(host) + 1);
    at = put(at, &seq, sizeof seq);
    for (size_t i = 0; i < count; i++)
        at = put_write(at, &writes[i]);
    assert(at == begin + len);
    hp_buf_commit(&j->filling, len);
    return 0;
}

/* ---- Flushes ---- */

static void work(uv_work_t *w)
{
    struct sim_journal *j = w->data;
    const uint8_t *data = hp_buf_front(&j->writing);
    size_t left = j->writing.len;
    while (left) {
        ssize_t n = pwrite(j->fd, data, left, j->at);
        if (n < 0) {
            j->status = hp_fail_errno(&j->error, HP_EIO, errno, "the fleet's journal");
            return;
        }
        data += n;
        left -= (size_t)n;
        j->at += n;
    }
    if (fdatasync(j->fd))
        j->status = hp_fail_errno(&j->error, HP_EIO, errno, "the fleet's journal");
    if (j->at > FILE_MAX)
        j->at = 0;
}

static void release(struct sim_journal *j)
{
    close(j->fd);
    hp_buf_done(&j->filling);
    hp_buf_done(&j->writing);
    free(j);
}

static void after(uv_work_t *w, int status)
{
    struct sim_journal *j = w->data;
    (void)status; /* never cancelled */
    j->busy = false;
    if (j->closing) {
        release(j);
        return;
    }
    j->syncs++;
    j->bytes += j->writing.len;
    hp_buf_consume(&j->writing, j->writing.len);
    j->done_cb(j->user, j->status, &j->error);
}

bool sim_journal_busy(const struct sim_journal *j)
{
    return j->busy;
}

void sim_journal_flush(struct sim_journal *j, void (*done_cb)(void *user, int status, const struct hp_error *e),
                       void *user)
{
    assert(!j->busy && !j->closing);
    assert(j->writing.len == 0);
    struct hp_buf empty = j->writing;
    j->writing = j->filling;
    j->filling = empty;
    j->busy = true;
    j->done_cb = done_cb;
    j->user = user;
    j->work.data = j;
    if (uv_queue_work(j->loop, &j->work, work, after))
        abort(); /* libuv refuses no work that has a function */
}

uint64_t sim_journal_syncs(const struct sim_journal *j)
{
    return j->syncs;
}

uint64_t sim_journal_bytes(const struct sim_journal *j)
{
    return j->bytes;
}

void sim_journal_close(struct sim_journal *j)
{
    if (!j)
        return;
    j->closing = true;
    if (!j->busy)
        release(j);
}
