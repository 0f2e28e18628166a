/* The loop thread copies a step's writes into a batch and queues it. The journal's thread takes all that are queued, writes them in one transaction, and posts the last
 * batch's number back. When a transaction fails, nothing later is written: the agent stops, and what is durable is right. */
#include "shell/journal_sqlite.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "io/loop.h"
#include "io/metrics.h"
#include "shell/journal_table.h"

enum { SCHEMA_VERSION = 1, APPLICATION_ID = 0x48417031 /* "HAp1" */, PATH_MAX_BYTES = 4096 };

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
    char path[PATH_MAX_BYTES];
};

static struct hp_metric commits = {.kind = HP_METRIC_HISTOGRAM,
                                   .name = "harpoon_agent_journal_commit_seconds",
                                   .help = "Time of one durable transaction of the journal."};
static struct hp_metric batched = {.kind = HP_METRIC_COUNTER,
                                   .name = "harpoon_agent_journal_steps_total",
                                   .help = "Steps of the agent that were made durable."};

/* ---- errors ---- */

static int fail_db(struct ha_sqlite *j, int code, const char *what, struct hp_error *e)
{
    const char *text = j->db ? sqlite3_errmsg(j->db) : sqlite3_errstr(code);
    switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return hp_fail(
            e, HP_ECORRUPT,
            "journal %s is damaged (%s): %s. Containers run on. Start once with --quarantine-journal to move it "
            "aside: running containers are then quarantined until the scheduler adopts or removes them",
            j->path, text, what);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return hp_fail(e, HP_EUNAVAILABLE, "journal %s is in use: another agent has the same state directory", j->path);
    case SQLITE_NOMEM:
        return hp_fail(e, HP_ENOMEM, "journal %s: %s", j->path, what);
    default:
        return hp_fail(e, HP_EIO, "journal %s: %s: %s", j->path, what, text);
    }
}

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
        hp_metric_add(&batched, 1);
    }
    if (rc == SQLITE_OK)
        rc = run(j->statements[S_COMMIT]);
    if (rc != SQLITE_OK)
        return fail_db(j, rc, "writing", e);
    hp_metric_observe_ns(&commits, hp_now_ns() - begin);
    return 0;
}

static void batch_free(struct batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        struct ha_write *w = &b->writes[i];
        if (w->kind == HA_WRITE_CONTAINER && w->record)
            ha_record_done((struct ha_record *)w->record);
        if (w->kind == HA_WRITE_REPORT && w->report)
            ha_report_row_done((struct ha_report_row *)w->report);
        free((void *)w->record);
        free((void *)w->report);
        free((void *)w->tombstone);
    }
    free(b);
}

/* Writes a list in one transaction and tells of its last batch. */
static void write_list(struct ha_sqlite *j, struct batch *list)
{
    struct hp_error e = {0};
    int rc = j->broken ? HP_ECANCELED : commit(j, list, &e);
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

static bool copy_write(struct ha_write *to, const struct ha_write *from)
{
    *to = *from;
    to->record = NULL;
    to->report = NULL;
    to->tombstone = NULL;
    if (from->kind == HA_WRITE_CONTAINER) {
        struct ha_record *r = calloc(1, sizeof *r);
        to->record = r;
        return r && ha_record_copy(r, from->record) == 0;
    }
    if (from->kind == HA_WRITE_REPORT) {
        struct ha_report_row *r = calloc(1, sizeof *r);
        to->report = r;
        return r && ha_report_row_copy(r, from->report) == 0;
    }
    if (from->kind == HA_WRITE_TOMBSTONE) {
        struct ha_tombstone *t = malloc(sizeof *t);
        to->tombstone = t;
        if (t)
            *t = *from->tombstone;
        return t != NULL;
    }
    return true;
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
        if (!copy_write(&b->writes[b->count], &writes[b->count])) {
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
        abort();
    }
    pthread_mutex_lock(&j->mutex);
    *j->queue_tail = b;
    j->queue_tail = &b->next;
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->mutex);
}

/* ---- opening ---- */

static int exec(struct ha_sqlite *j, const char *what, const char *sql, struct hp_error *e)
{
    int rc = sqlite3_exec(j->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : fail_db(j, rc, what, e);
}

/* The single number that a pragma answers. */
static int pragma_number(struct ha_sqlite *j, const char *sql, int64_t *ret, struct hp_error *e)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(j->db, sql, -1, &s, NULL);
    if (rc != SQLITE_OK)
        return fail_db(j, rc, sql, e);
    rc = sqlite3_step(s);
    *ret = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_finalize(s);
    return rc == SQLITE_ROW ? 0 : fail_db(j, rc, sql, e);
}

static int check_integrity(struct ha_sqlite *j, struct hp_error *e)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(j->db, "PRAGMA quick_check(1)", -1, &s, NULL);
    if (rc != SQLITE_OK)
        return fail_db(j, rc, "quick_check", e);
    rc = sqlite3_step(s);
    const char *text = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
    int ret = 0;
    if (rc != SQLITE_ROW)
        ret = fail_db(j, rc, "quick_check", e);
    else if (!text || strcmp(text, "ok") != 0)
        ret = fail_db(j, SQLITE_CORRUPT, text ? text : "quick_check", e);
    sqlite3_finalize(s);
    return ret;
}

static int create_schema(struct ha_sqlite *j, struct hp_error *e)
{
    static const struct ha_table *const tables[] = {&ha_table_containers, &ha_table_reports, &ha_table_tombstones};
    char sql[HA_SQL_MAX];
    int rc = exec(j, "making tables",
                  "BEGIN IMMEDIATE; CREATE TABLE meta (key INTEGER PRIMARY KEY, value INTEGER) STRICT", e);
    for (size_t i = 0; !rc && i < 3; i++) {
        ha_table_create_sql(tables[i], sql);
        rc = exec(j, "making tables", sql, e);
    }
    if (rc)
        return rc;
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", APPLICATION_ID,
             SCHEMA_VERSION);
    return exec(j, "making tables", sql, e);
}

static int check_schema(struct ha_sqlite *j, struct hp_error *e)
{
    int64_t app = 0, version = 0, objects = 0;
    int rc = pragma_number(j, "SELECT count(*) FROM sqlite_schema", &objects, e);
    if (!rc)
        rc = pragma_number(j, "PRAGMA application_id", &app, e);
    if (!rc)
        rc = pragma_number(j, "PRAGMA user_version", &version, e);
    if (rc)
        return rc;
    if (objects == 0 && app == 0 && version == 0)
        return create_schema(j, e);
    if (app != APPLICATION_ID)
        return fail_db(j, SQLITE_NOTADB, "it is another program's database", e);
    if (version != SCHEMA_VERSION)
        return hp_fail(e, HP_EUNSUPPORTED, "journal %s has schema version %lld; this agent knows version %d", j->path,
                       (long long)version, SCHEMA_VERSION);
    return 0;
}

static int prepare(struct ha_sqlite *j, enum statement at, const char *sql, struct hp_error *e)
{
    int rc = sqlite3_prepare_v3(j->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &j->statements[at], NULL);
    return rc == SQLITE_OK ? 0 : fail_db(j, rc, sql, e);
}

static int prepare_all(struct ha_sqlite *j, struct hp_error *e)
{
    static const struct {
        enum statement at;
        const char *sql;
    } plain[] = {{S_BEGIN, "BEGIN IMMEDIATE"},
                 {S_COMMIT, "COMMIT"},
                 {S_META, "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"},
                 {S_CONTAINER_DELETE, "DELETE FROM containers WHERE uid = ?"},
                 {S_REPORT_DELETE, "DELETE FROM reports WHERE id = ?"},
                 {S_TOMBSTONE_DELETE, "DELETE FROM tombstones WHERE uid = ?"}};
    static const struct {
        enum statement at;
        const struct ha_table *table;
    } rows[] = {
        {S_CONTAINER, &ha_table_containers}, {S_REPORT, &ha_table_reports}, {S_TOMBSTONE, &ha_table_tombstones}};
    char sql[HA_SQL_MAX];
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof plain / sizeof plain[0]; i++)
        rc = prepare(j, plain[i].at, plain[i].sql, e);
    for (size_t i = 0; !rc && i < sizeof rows / sizeof rows[0]; i++) {
        ha_table_replace_sql(rows[i].table, sql);
        rc = prepare(j, rows[i].at, sql, e);
    }
    return rc;
}

/* ---- reading ---- */

static int load_meta(struct ha_sqlite *j, struct ha_image *image, struct hp_error *e)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(j->db, "SELECT key, value FROM meta", -1, &s, NULL);
    if (rc != SQLITE_OK)
        return fail_db(j, rc, "meta", e);
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        int key = sqlite3_column_int(s, 0);
        if (key >= 0 && key < HA_META_COUNT)
            image->meta[key] = sqlite3_column_int64(s, 1);
    }
    sqlite3_finalize(s);
    return rc == SQLITE_DONE ? 0 : fail_db(j, rc, "meta", e);
}

/* Reads all rows of a table. Rows read so far are in *rows also on failure. */
static int load_table(struct ha_sqlite *j, const struct ha_table *t, void **rows, size_t *count, struct hp_error *e)
{
    char sql[HA_SQL_MAX];
    size_t cap = 0;
    sqlite3_stmt *s;
    ha_table_select_sql(t, sql);
    int rc = sqlite3_prepare_v2(j->db, sql, -1, &s, NULL), ret = 0;
    if (rc != SQLITE_OK)
        return fail_db(j, rc, t->name, e);
    while (!ret && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        if (*count == cap) {
            cap = cap ? cap * 2 : 64;
            void *p = realloc(*rows, cap * t->row_size);
            if (!p) {
                ret = hp_fail(e, HP_ENOMEM, "journal %s", j->path);
                break;
            }
            *rows = p;
        }
        assert(*rows);
        void *row = (char *)*rows + *count * t->row_size;
        memset(row, 0, t->row_size);
        (*count)++;
        struct hp_error inner = {0};
        ret = ha_table_read(t, s, row, &inner);
        if (ret)
            ret = ret == HP_ECORRUPT ? fail_db(j, SQLITE_CORRUPT, inner.message, e)
                                     : hp_fail(e, ret, "%s", inner.message);
    }
    sqlite3_finalize(s);
    if (ret)
        return ret;
    return rc == SQLITE_DONE ? 0 : fail_db(j, rc, t->name, e);
}

static int load(struct ha_sqlite *j, struct ha_image *image, struct hp_error *e)
{
    void *records = NULL, *reports = NULL, *tombstones = NULL;
    int rc = load_meta(j, image, e);
    if (!rc)
        rc = load_table(j, &ha_table_containers, &records, &image->record_count, e);
    if (!rc)
        rc = load_table(j, &ha_table_reports, &reports, &image->report_count, e);
    if (!rc)
        rc = load_table(j, &ha_table_tombstones, &tombstones, &image->tombstone_count, e);
    image->records = records;
    image->reports = reports;
    image->tombstones = tombstones;
    return rc;
}

/* ---- life ---- */

static void close_db(struct ha_sqlite *j)
{
    for (int i = 0; i < S_COUNT; i++)
        sqlite3_finalize(j->statements[i]);
    sqlite3_close(j->db);
}

static int open_db(struct ha_sqlite *j, struct ha_image *image, struct hp_error *e)
{
    int rc = sqlite3_open_v2(j->path, &j->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return fail_db(j, rc, "opening", e);
    sqlite3_extended_result_codes(j->db, 1);
    rc = exec(j, "opening",
              "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
              "PRAGMA wal_autocheckpoint = 1000; PRAGMA trusted_schema = OFF; BEGIN IMMEDIATE; COMMIT",
              e);
    if (!rc)
        rc = check_integrity(j, e);
    if (!rc)
        rc = check_schema(j, e);
    if (!rc)
        rc = prepare_all(j, e);
    if (!rc)
        rc = load(j, image, e);
    return rc;
}

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
    if (strlen(path) >= PATH_MAX_BYTES)
        return hp_fail(e, HP_EINVAL, "journal: path longer than %d bytes", PATH_MAX_BYTES - 1);
    struct ha_sqlite *j = calloc(1, sizeof *j);
    if (!j)
        return hp_fail(e, HP_ENOMEM, "journal");
    snprintf(j->path, sizeof j->path, "%s", path);
    j->base.write = enqueue;
    j->queue_tail = &j->queue;
    int rc = open_db(j, ret_image, e);
    if (!rc)
        rc = hp_mailbox_new(loop, &j->mailbox, e);
    pthread_mutex_init(&j->mutex, NULL);
    pthread_cond_init(&j->cond, NULL);
    if (!rc) {
        int err = pthread_create(&j->thread, NULL, thread_main, j);
        if (err) {
            rc = hp_fail_errno(e, HP_EIO, err, "journal: thread");
            hp_mailbox_close(j->mailbox);
        }
    }
    if (rc) {
        ha_image_done(ret_image);
        close_db(j);
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

void ha_sqlite_close(struct ha_sqlite *j)
{
    j->base.synced_cb = NULL;
    pthread_mutex_lock(&j->mutex);
    j->stop = true;
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->mutex);
    pthread_join(j->thread, NULL);
    hp_mailbox_close(j->mailbox);
    close_db(j);
    pthread_mutex_destroy(&j->mutex);
    pthread_cond_destroy(&j->cond);
    free(j);
}

int ha_sqlite_quarantine(const char *path, char *ret_path, struct hp_error *e)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    char from[PATH_MAX_BYTES + 64], to[PATH_MAX_BYTES + 64];
    struct stat st;
    if (strlen(path) >= PATH_MAX_BYTES - 32)
        return hp_fail(e, HP_EINVAL, "journal: path longer than %d bytes", PATH_MAX_BYTES - 33);
    if (stat(path, &st))
        return hp_fail_errno(e, errno == ENOENT ? HP_ENOTFOUND : HP_EIO, errno, "journal %s", path);
    int n = 1;
    do
        snprintf(ret_path, PATH_MAX_BYTES, "%s.damaged-%d", path, n);
    while (stat(ret_path, &st) == 0 && n++ < 1000);
    for (int i = 0; i < 4; i++) {
        snprintf(from, sizeof from, "%s%s", path, suffixes[i]);
        snprintf(to, sizeof to, "%s%s", ret_path, suffixes[i]);
        if (rename(from, to) && errno != ENOENT)
            return hp_fail_errno(e, HP_EIO, errno, "journal: moving %s to %s", from, to);
    }
    return 0;
}
