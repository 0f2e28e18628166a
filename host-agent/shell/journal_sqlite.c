/* The loop thread copies a step's writes into a batch and queues it. The journal's thread takes all that are queued, writes them in one transaction, and posts the last
 * batch's number back. When a transaction fails, nothing later is written: the agent stops, and what is durable is right. Only a full disk is waited for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "io/metrics.h"
#include "shell/journal_files.h"
#include "shell/journal_sqlite_impl.h"
#include "shell/journal_table.h"

enum { FULL_WAIT_S = 1 };

/* One step's writes, deep copies; also the mail that tells of them. */
struct batch {
    struct hp_mail mail;
    struct batch *next;
    struct ha_sqlite *owner;
    uint64_t seq;
    int status;
    struct hp_error error;
    size_t count;
    struct ha_write writes[];
};

static struct hp_metric commits = {.kind = HP_METRIC_HISTOGRAM,
                                   .name = "harpoon_agent_journal_commit_seconds",
                                   .help = "Time of one durable transaction of the journal."};
static struct hp_metric batched = {.kind = HP_METRIC_COUNTER,
                                   .name = "harpoon_agent_journal_steps_total",
                                   .help = "Steps of the agent that were made durable."};

/* ---- writing, on the thread ---- */

static int run(sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int run_row(sqlite3_stmt *s, const struct ha_table *t, const void *row)
{
    int rc = ha_table_bind(t, s, row);
    return rc == SQLITE_OK ? run(s) : rc;
}

static int run_text(sqlite3_stmt *s, const char *key)
{
    int rc = sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    return rc == SQLITE_OK ? run(s) : rc;
}

static int apply(struct ha_sqlite *j, const struct ha_write *w)
{
    sqlite3_stmt **s = j->statements;
    switch (w->kind) {
    case HA_WRITE_META:
        sqlite3_bind_int(s[S_META], 1, (int)w->meta_key);
        sqlite3_bind_int64(s[S_META], 2, w->number);
        sqlite3_bind_int64(s[S_META], 3, (int64_t)ha_sqlite_meta_sum((int)w->meta_key, w->number));
        return run(s[S_META]);
    case HA_WRITE_CONTAINER:
        return run_row(s[S_CONTAINER], &ha_table_containers, w->record);
    case HA_WRITE_CONTAINER_DELETE:
        return run_text(s[S_CONTAINER_DELETE], w->uid);
    case HA_WRITE_REPORT:
        return run_row(s[S_REPORT], &ha_table_reports, w->report);
    case HA_WRITE_REPORT_DELETE:
        sqlite3_bind_int64(s[S_REPORT_DELETE], 1, w->number);
        return run(s[S_REPORT_DELETE]);
    case HA_WRITE_TOMBSTONE:
        return run_row(s[S_TOMBSTONE], &ha_table_tombstones, w->tombstone);
    case HA_WRITE_TOMBSTONE_DELETE:
        return run_text(s[S_TOMBSTONE_DELETE], w->uid);
    }
    return SQLITE_MISUSE;
}

static int commit(struct ha_sqlite *j, const struct batch *list, struct hp_error *e)
{
    uint64_t begin = hp_now_ns();
    int rc = run(j->statements[S_BEGIN]);
    for (const struct batch *b = list; b && rc == SQLITE_OK; b = b->next) {
        for (size_t i = 0; i < b->count && rc == SQLITE_OK; i++)
            rc = apply(j, &b->writes[i]);
    }
    if (rc == SQLITE_OK)
        rc = run(j->statements[S_COMMIT]);
    if (rc != SQLITE_OK) {
        rc = ha_sqlite_fail(j, rc, "writing", e);
        if (!sqlite3_get_autocommit(j->db)) /* SQLite may have taken it back itself */
            (void)sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
        return rc;
    }
    for (const struct batch *b = list; b; b = b->next)
        hp_metric_add(&batched, 1);
    hp_metric_observe_ns(&commits, hp_now_ns() - begin);
    return 0;
}

/* ---- a full disk ---- */

static void take_reserve(struct ha_sqlite *j, int64_t bytes)
{
    struct hp_error e = {0};
    j->reserved = ha_reserve_take(j->path, bytes, &e) == 0;
    if (!j->reserved)
        hp_warn("no room to keep back for the journal", HP_S("error", e.message));
}

static bool give_reserve(struct ha_sqlite *j)
{
    bool had = j->reserved && ha_reserve_give(j->path);
    j->reserved = false;
    return had;
}

/* False: the journal is being closed. */
static bool wait_for_room(struct ha_sqlite *j)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FULL_WAIT_S;
    pthread_mutex_lock(&j->mutex);
    if (!j->stop)
        pthread_cond_timedwait(&j->cond, &j->mutex, &until);
    bool go_on = !j->stop;
    pthread_mutex_unlock(&j->mutex);
    return go_on;
}

static int commit_patiently(struct ha_sqlite *j, const struct batch *list, struct hp_error *e)
{
    bool waited = false;
    for (;;) {
        int rc = commit(j, list, e);
        if (rc != HP_ELIMIT) {
            if (waited)
                hp_info("journal: there is room again");
            return rc;
        }
        if (give_reserve(j))
            continue;
        if (!waited)
            hp_err("the disk is full to the last; nothing is begun or told until there is room, containers run on",
                   HP_S("error", e->message));
        waited = true;
        if (!wait_for_room(j))
            return rc;
    }
}

static void batch_free(struct batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        ha_write_done(&b->writes[i]);
    free(b);
}

/* Writes a list in one transaction and tells of its last batch. */
static void write_list(struct ha_sqlite *j, struct batch *list)
{
    struct hp_error e = {0};
    int rc = j->broken ? HP_ECANCELED : commit_patiently(j, list, &e);
    while (list->next) {
        struct batch *next = list->next;
        batch_free(list);
        list = next;
    }
    if (j->broken) { /* told before */
        batch_free(list);
        return;
    }
    j->broken = rc != 0;
    list->status = rc;
    list->error = e;
    hp_mailbox_post(j->mailbox, &list->mail);
}

static void *thread_main(void *arg)
{
    struct ha_sqlite *j = arg;
    pthread_mutex_lock(&j->mutex);
    while (!j->stop || j->queue) {
        int64_t reserve = j->reserve_bytes;
        if (reserve && !j->stop) {
            j->reserve_bytes = 0;
            pthread_mutex_unlock(&j->mutex);
            if (!j->reserved)
                take_reserve(j, reserve);
            pthread_mutex_lock(&j->mutex);
            continue;
        }
        if (!j->queue) {
            pthread_cond_wait(&j->cond, &j->mutex);
            continue;
        }
        struct batch *list = j->queue;
        j->queue = NULL;
        j->queue_tail = &j->queue;
        pthread_mutex_unlock(&j->mutex);
        write_list(j, list);
        pthread_mutex_lock(&j->mutex);
    }
    pthread_mutex_unlock(&j->mutex);
    return NULL;
}

/* ---- the loop's side ---- */

static void deliver(struct hp_mail *mail)
{
    struct batch *b = (struct batch *)((char *)mail - offsetof(struct batch, mail));
    struct ha_sqlite *j = b->owner;
    if (j->base.synced_cb)
        j->base.synced_cb(j->base.user, b->seq, b->status, &b->error);
    batch_free(b);
}

static struct batch *batch_new(struct ha_sqlite *j, uint64_t seq, const struct ha_write *writes, size_t count)
{
    struct batch *b = calloc(1, sizeof *b + count * sizeof *writes);
    if (!b)
        return NULL;
    b->mail.deliver = deliver;
    b->owner = j;
    b->seq = seq;
    for (; b->count < count; b->count++)
        if (ha_write_copy(&b->writes[b->count], &writes[b->count])) {
            b->count++;
            batch_free(b);
            return NULL;
        }
    return b;
}

static void enqueue(struct ha_journal *base, uint64_t seq, const struct ha_write *writes, size_t count)
{
    struct ha_sqlite *j = (struct ha_sqlite *)base;
    struct batch *b = batch_new(j, seq, writes, count);
    if (!b) {
        /* There is no way on: the core counts on it. Nothing was begun that is not durable, so a new start is right. */
        hp_err("journal: out of memory; the agent ends, containers run on");
        _exit(EXIT_FAILURE);
    }
    pthread_mutex_lock(&j->mutex);
    *j->queue_tail = b;
    j->queue_tail = &b->next;
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->mutex);
}

/* ---- life ---- */

int ha_sqlite_open(uv_loop_t *loop, const char *path, struct ha_sqlite **ret, struct ha_image *ret_image,
                   struct hp_error *e)
{
    static bool registered;
    if (!registered) {
        hp_metric_register(&commits);
        hp_metric_register(&batched);
        registered = true;
    }
    *ret_image = (struct ha_image){0};
    if (strlen(path) >= HA_SQLITE_PATH_MAX_BYTES)
        return hp_fail(e, HP_EINVAL, "journal: path longer than %d bytes", HA_SQLITE_PATH_MAX_BYTES - 1);
    struct ha_sqlite *j = calloc(1, sizeof *j);
    if (!j)
        return hp_fail(e, HP_ENOMEM, "journal");
    snprintf(j->path, sizeof j->path, "%s", path);
    j->base.write = enqueue;
    j->queue_tail = &j->queue;
    int rc = ha_sqlite_open_db(j, ret_image, e);
    if (!rc)
        rc = hp_mailbox_new(loop, &j->mailbox, e);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&j->mutex, NULL);
    pthread_cond_init(&j->cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (!rc) {
        int err = pthread_create(&j->thread, NULL, thread_main, j);
        if (err) {
            rc = hp_fail_errno(e, HP_EIO, err, "journal: thread");
            hp_mailbox_close(j->mailbox);
        }
    }
    if (rc) {
        ha_image_done(ret_image);
        ha_sqlite_close_db(j);
        free(j);
        return rc;
    }
    *ret = j;
    return 0;
}

struct ha_journal *ha_sqlite_journal(struct ha_sqlite *j)
{
    return &j->base;
}

void ha_sqlite_reserve(struct ha_sqlite *j, int64_t bytes)
{
    pthread_mutex_lock(&j->mutex);
    j->reserve_bytes = bytes;
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->mutex);
}

void ha_sqlite_close(struct ha_sqlite *j)
{
    j->base.synced_cb = NULL;
    pthread_mutex_lock(&j->mutex);
    j->stop = true;
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->mutex);
    pthread_join(j->thread, NULL);
    hp_mailbox_close(j->mailbox);
    ha_sqlite_close_db(j);
    pthread_mutex_destroy(&j->mutex);
    pthread_cond_destroy(&j->cond);
    free(j);
}
