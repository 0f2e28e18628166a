/* The file at the start of the agent: is it a journal, whole, of a version that we know; then all of it is read. */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "shell/journal_sqlite_impl.h"
#include "shell/journal_table.h"
#include "shell/journal_wal.h"

enum { SCHEMA_VERSION = 1, APPLICATION_ID = 0x48417031 /* "HAp1" */, IN_USE_WAIT_MS = 2000 };

/* ---- errors ---- */

int ha_sqlite_fail(struct ha_sqlite *j, int code, const char *what, struct hp_error *e)
{
    const char *text = j->db && sqlite3_errcode(j->db) != SQLITE_OK ? sqlite3_errmsg(j->db) : sqlite3_errstr(code);
    switch (code & 0xFF) {
    case SQLITE_ERROR: /* our statements are right: the tables are not */
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
    case SQLITE_FULL:
        return hp_fail(e, HP_ELIMIT, "journal %s: %s: its file system is full", j->path, what);
    case SQLITE_NOMEM:
        return hp_fail(e, HP_ENOMEM, "journal %s: %s", j->path, what);
    default:
        return hp_fail(e, HP_EIO, "journal %s: %s: %s", j->path, what, text);
    }
}

uint64_t ha_sqlite_meta_sum(int64_t key, int64_t number)
{
    return hp_hash((uint64_t)key + 1, &number, sizeof number);
}

/* ---- opening ---- */

static int exec(struct ha_sqlite *j, const char *what, const char *sql, struct hp_error *e)
{
    int rc = sqlite3_exec(j->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : ha_sqlite_fail(j, rc, what, e);
}

/* The single number that a pragma answers. */
static int pragma_number(struct ha_sqlite *j, const char *sql, int64_t *ret, struct hp_error *e)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(j->db, sql, -1, &s, NULL);
    if (rc != SQLITE_OK)
        return ha_sqlite_fail(j, rc, sql, e);
    rc = sqlite3_step(s);
    *ret = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_finalize(s);
    return rc == SQLITE_ROW ? 0 : ha_sqlite_fail(j, rc, sql, e);
}

/* What integrity_check says of a page that it could not read; that is no damage. 0: it is something else. */
static int read_failure(const char *text)
{
    static const char coded[] = "error code=";
    const char *code = strstr(text, coded);
    if (code)
        return atoi(code + sizeof coded - 1);
    return strstr(text, "failed to get page") ? SQLITE_IOERR_READ : 0;
}

static int check_integrity(struct ha_sqlite *j, struct hp_error *e)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(j->db, "PRAGMA integrity_check(1)", -1, &s, NULL);
    if (rc != SQLITE_OK)
        return ha_sqlite_fail(j, rc, "integrity_check", e);
    rc = sqlite3_step(s);
    const char *text = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
    if (rc == SQLITE_ROW && !text)
        rc = SQLITE_NOMEM;
    int ret = 0;
    if (rc != SQLITE_ROW)
        ret = ha_sqlite_fail(j, rc, "integrity_check", e);
    else if (strcmp(text, "ok") != 0)
        ret = ha_sqlite_fail(j, read_failure(text) ? read_failure(text) : SQLITE_CORRUPT, text, e);
    sqlite3_finalize(s);
    return ret;
}

static int create_schema(struct ha_sqlite *j, struct hp_error *e)
{
    static const struct ha_table *const tables[] = {&ha_table_containers, &ha_table_reports, &ha_table_tombstones};
    char sql[HA_SQL_MAX];
    int rc = exec(j, "making tables",
                  "BEGIN IMMEDIATE; CREATE TABLE meta (key INTEGER PRIMARY KEY, value INTEGER, sum INTEGER) STRICT", e);
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

/* Agents before this one had no sums; they do not mind them either, and leave them out. */
static int add_sums(struct ha_sqlite *j, struct hp_error *e)
{
    int64_t have = 0;
    int rc = pragma_number(j, "SELECT count(*) FROM pragma_table_info('meta') WHERE name = 'sum'", &have, e);
    if (rc || have)
        return rc;
    return exec(
        j, "adding sums",
        "BEGIN IMMEDIATE; ALTER TABLE meta ADD COLUMN sum INTEGER; ALTER TABLE containers ADD COLUMN sum INTEGER;"
        "ALTER TABLE reports ADD COLUMN sum INTEGER; ALTER TABLE tombstones ADD COLUMN sum INTEGER; COMMIT",
        e);
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
        return ha_sqlite_fail(j, SQLITE_NOTADB, "it is another program's database", e);
    if (version != SCHEMA_VERSION)
        return hp_fail(e, HP_EUNSUPPORTED, "journal %s has schema version %lld; this agent knows version %d", j->path,
                       (long long)version, SCHEMA_VERSION);
    return add_sums(j, e);
}

static int prepare(struct ha_sqlite *j, enum statement at, const char *sql, struct hp_error *e)
{
    int rc = sqlite3_prepare_v3(j->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &j->statements[at], NULL);
    return rc == SQLITE_OK ? 0 : ha_sqlite_fail(j, rc, sql, e);
}

static int prepare_all(struct ha_sqlite *j, struct hp_error *e)
{
    static const struct {
        enum statement at;
        const char *sql;
    } plain[] = {{S_BEGIN, "BEGIN IMMEDIATE"},
                 {S_COMMIT, "COMMIT"},
                 {S_META, "INSERT OR REPLACE INTO meta (key, value, sum) VALUES (?, ?, ?)"},
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

/* What can be read now may be only in the page cache: kill -9 came between its write and its sync. It counts as durable from here on, so it becomes so. A disk that
 * has no room for the pages still syncs the log that has them. */
static int make_durable(struct ha_sqlite *j, struct hp_error *e)
{
    sqlite3_file *wal = NULL;
    int rc = sqlite3_wal_checkpoint_v2(j->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if ((rc & 0xFF) == SQLITE_FULL) {
        rc = sqlite3_file_control(j->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&wal);
        if (rc == SQLITE_OK && wal && wal->pMethods)
            rc = wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
    }
    return rc == SQLITE_OK ? 0 : ha_sqlite_fail(j, rc, "syncing", e);
}

/* ---- reading ---- */

static int load_meta(struct ha_sqlite *j, struct ha_image *image, struct hp_error *e)
{
    sqlite3_stmt *s;
    int rc = sqlite3_prepare_v2(j->db, "SELECT key, value, sum FROM meta", -1, &s, NULL);
    if (rc != SQLITE_OK)
        return ha_sqlite_fail(j, rc, "meta", e);
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t key = sqlite3_column_int64(s, 0);
        if (sqlite3_column_type(s, 2) != SQLITE_NULL &&
            (uint64_t)sqlite3_column_int64(s, 2) != ha_sqlite_meta_sum(key, sqlite3_column_int64(s, 1))) {
            sqlite3_finalize(s);
            return ha_sqlite_fail(j, SQLITE_CORRUPT, "table meta: a row is not what was written", e);
        }
        if (key >= 0 && key < HA_META_COUNT)
            image->meta[key] = sqlite3_column_int64(s, 1);
    }
    sqlite3_finalize(s);
    return rc == SQLITE_DONE ? 0 : ha_sqlite_fail(j, rc, "meta", e);
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
        return ha_sqlite_fail(j, rc, t->name, e);
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
            ret = ret == HP_ECORRUPT ? ha_sqlite_fail(j, SQLITE_CORRUPT, inner.message, e)
                                     : hp_fail(e, ret, "%s", inner.message);
    }
    sqlite3_finalize(s);
    if (ret)
        return ret;
    return rc == SQLITE_DONE ? 0 : ha_sqlite_fail(j, rc, t->name, e);
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

void ha_sqlite_close_db(struct ha_sqlite *j)
{
    for (int i = 0; i < S_COUNT; i++)
        sqlite3_finalize(j->statements[i]);
    sqlite3_close(j->db);
}

/* SQLite would make a cache of 20 pages for each file at once; ours needs a few. Where SQLite is in use already, as in tests, it stays as it is. */
static void keep_small(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0);
}

/* After kill -9 a child that shares our descriptors may live on for some milliseconds, and with it the lock of the dead agent: that is waited for. */
int ha_sqlite_open_db(struct ha_sqlite *j, struct ha_image *image, struct hp_error *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, keep_small);
    int rc = sqlite3_open_v2(j->path, &j->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return ha_sqlite_fail(j, rc, "opening", e);
    sqlite3_extended_result_codes(j->db, 1);
    sqlite3_busy_timeout(j->db, IN_USE_WAIT_MS);
    rc = exec(j, "opening",
              "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
              "PRAGMA wal_autocheckpoint = 1000; PRAGMA trusted_schema = OFF; BEGIN IMMEDIATE; COMMIT",
              e);
    if (!rc) {
        struct hp_error why = {0};
        rc = ha_wal_check(j->db, &why);
        if (rc)
            rc = rc == HP_ECORRUPT ? ha_sqlite_fail(j, SQLITE_CORRUPT, why.message, e)
                                   : hp_fail(e, rc, "journal %s: %s", j->path, why.message);
    }
    if (!rc)
        rc = check_integrity(j, e);
    if (!rc)
        rc = check_schema(j, e);
    if (!rc)
        rc = prepare_all(j, e);
    if (!rc)
        rc = load(j, image, e);
    if (!rc)
        rc = make_durable(j, e);
    (void)sqlite3_db_release_memory(j->db); /* pages that were read at the start only */
    return rc;
}
