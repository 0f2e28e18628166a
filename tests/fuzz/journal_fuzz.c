/* A damaged journal of the agent: the file of a real one with bytes changed, cut off, or with rows that the real code would not have written, opened by the real code, and taken by the core.
 *
 * Asserted: it opens, or is refused with a message; what opens can be written to and opens again with the same rows, or the write says that it failed; the core takes the rows or calls them corrupt, and one that
 * took them lives on: inspects, sends messages that unpack, and comes to rest (lib/agent_model.c). */
#include <assert.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/script.h"
#include "lib/agent_model.h"
#include "shell/journal_sqlite.h"
#include "shell/journal_table.h"

enum { SPEC, REPORT, VALUE, PATCH, CUT, FILE_MAX = 1 << 20 };

const struct fuzz_kind fuzz_kinds[] = {
    [SPEC] = {"spec", &harpoon__v1__container_spec__descriptor},
    [REPORT] = {"report", &harpoon__internal__v1__agent_message__descriptor},
    [VALUE] = {"value", NULL},
    [PATCH] = {"patch", NULL},
    [CUT] = {"cut", NULL},
};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {"u1", "u2", "op1", "oci:/images:a", "projects/p/regions/r1/containers/c1", NULL};

static char dir[64], path[96];
static uint8_t base[FILE_MAX];
static size_t base_len;
static uv_loop_t loop;
static uint64_t synced;
static int synced_status;

static void on_synced(void *user, uint64_t seq, int status, const struct hp_error *e)
{
    synced = seq;
    synced_status = status;
}

static void on_tick(uv_timer_t *t)
{
}

/* Writes and waits for the answer; 0 when durable. */
static int write_and_wait(struct ha_sqlite *j, const struct ha_write *writes, size_t count)
{
    struct ha_journal *journal = ha_sqlite_journal(j);
    uv_timer_t tick; /* keeps the loop turning: the journal does not */
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 1000, 1000);
    journal->synced_cb = on_synced;
    synced = 0;
    journal->write(journal, 1, writes, count);
    while (!synced)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    return synced_status;
}

static void close_journal(struct ha_sqlite *j)
{
    ha_sqlite_close(j);
    while (uv_run(&loop, UV_RUN_NOWAIT))
        continue;
}

/* ---- The undamaged file ---- */

static void pack(struct ha_bytes *ret, const ProtobufCMessage *m)
{
    ret->len = protobuf_c_message_get_packed_size(m);
    ret->data = malloc(ret->len + 1);
    protobuf_c_message_pack(m, ret->data);
}

static void fill(struct ha_sqlite *j)
{
    struct am_ensure ensure;
    struct ha_record a = {
        .uid = "u1", .name = (char *)(uintptr_t) "projects/p/regions/r1/containers/c1", .generation = 1};
    struct ha_record b = {
        .uid = "u2", .name = a.name, .intent = {.generation = 1, .verb = 1, .epoch = 1, .operation_id = "op2"}};
    struct ha_report_row r = {.id = 5, .uid = "u1", .result = true, .generation = 1};
    struct ha_tombstone t = {.uid = "u3", .generation = 2, .report_id = 4};
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__CommandResult result = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    am_ensure_init(&ensure, "u1", 1, "a");
    result.uid = a.uid;
    result.report_id = 5;
    result.outcome = 1;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT;
    m.result = &result;
    pack(&a.spec, &ensure.spec.base);
    pack(&b.intent.spec, &ensure.spec.base);
    pack(&r.body, &m.base);
    a.outcome = 1;
    a.state = 3;
    const struct ha_write writes[] = {
        {.kind = HA_WRITE_META, .meta_key = HA_META_SESSION, .number = 3},
        {.kind = HA_WRITE_META, .meta_key = HA_META_REPORT_NEXT, .number = 1000},
        {.kind = HA_WRITE_CONTAINER, .record = &a},
        {.kind = HA_WRITE_CONTAINER, .record = &b},
        {.kind = HA_WRITE_REPORT, .report = &r},
        {.kind = HA_WRITE_TOMBSTONE, .tombstone = &t},
    };
    int rc = write_and_wait(j, writes, sizeof writes / sizeof writes[0]);
    assert(rc == 0);
    free(a.spec.data);
    free(b.intent.spec.data);
    free(r.body.data);
}

static void forget(void)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    char name[128];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        unlink(name);
    }
}

static void remove_dir(void)
{
    forget();
    rmdir(dir);
}

static void start(void)
{
    struct ha_sqlite *j;
    struct ha_image image;
    struct hp_error e = {0};
    snprintf(dir, sizeof dir, "/dev/shm/harpoon-fuzz-XXXXXX");
    if (!mkdtemp(dir))
        abort();
    atexit(remove_dir);
    snprintf(path, sizeof path, "%s/journal", dir);
    uv_loop_init(&loop);
    int rc = ha_sqlite_open(&loop, path, &j, &image, &e);
    assert(rc == 0);
    ha_image_done(&image);
    fill(j);
    close_journal(j);
    FILE *f = fopen(path, "r");
    base_len = f ? fread(base, 1, sizeof base, f) : 0;
    assert(base_len > 0);
    fclose(f);
}

/* ---- Damage ---- */

static void set_value(sqlite3 *db, const char *table, const char *column, unsigned row, const struct fuzz_step *s,
                      bool blob)
{
    char sql[256];
    sqlite3_stmt *st;
    /* without a sum, as earlier agents wrote: otherwise no changed row would come further than it */
    snprintf(sql, sizeof sql,
             "UPDATE %s SET %s = ?1, sum = NULL WHERE rowid = (SELECT rowid FROM %s LIMIT 1 OFFSET %u)", table, column,
             table, row);
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    assert(rc == SQLITE_OK);
    size_t skip = blob ? 0 : 4;
    const char *bytes = (const char *)s->data + skip;
    int len = s->len > skip ? (int)(s->len - skip) : 0;
    if (blob || fuzz_byte(s, 3) % 4 == 0) {
        sqlite3_bind_blob(st, 1, bytes, len, SQLITE_STATIC);
    } else if (fuzz_byte(s, 3) % 4 == 1) {
        sqlite3_bind_text(st, 1, bytes, len, SQLITE_STATIC);
    } else if (fuzz_byte(s, 3) % 4 == 2) {
        int64_t number = 0;
        memcpy(&number, bytes, (size_t)len < sizeof number ? (size_t)len : sizeof number);
        sqlite3_bind_int64(st, 1, number);
    }
    (void)sqlite3_step(st); /* what the schema forbids stays as it was */
    sqlite3_finalize(st);
}

/* table, column, row, type; then the value */
static void any_value(sqlite3 *db, const struct fuzz_step *s)
{
    static const struct ha_table *const tables[] = {&ha_table_containers, &ha_table_reports, &ha_table_tombstones};
    const struct ha_table *t = tables[fuzz_byte(s, 0) % 3];
    if (fuzz_byte(s, 0) > 240)
        set_value(db, "meta", fuzz_byte(s, 1) & 1 ? "value" : "key", fuzz_byte(s, 2) % 3, s, false);
    else
        set_value(db, t->name, t->columns[fuzz_byte(s, 1) % t->column_count].name, fuzz_byte(s, 2) % 3, s, false);
}

static void change_rows(const uint8_t *data, size_t len)
{
    sqlite3 *db;
    struct fuzz_step s;
    int rc = sqlite3_open(path, &db);
    assert(rc == SQLITE_OK);
    sqlite3_exec(db, "PRAGMA synchronous = OFF; BEGIN", NULL, NULL, NULL);
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        if (s.kind == SPEC)
            set_value(db, "containers", i % 2 ? "intent_spec" : "spec", (unsigned)i / 2 % 2, &s, true);
        else if (s.kind == REPORT)
            set_value(db, "reports", "body", 0, &s, true);
        else if (s.kind == VALUE)
            any_value(db, &s);
    }
    sqlite3_exec(db, "COMMIT; PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    sqlite3_close(db);
}

/* Offsets are of 24 bits, modulo the file's length. */
static size_t offset_of(const struct fuzz_step *s, size_t len)
{
    return len ? ((size_t)fuzz_byte(s, 0) | (size_t)fuzz_byte(s, 1) << 8 | (size_t)fuzz_byte(s, 2) << 16) % len : 0;
}

static void damage(const uint8_t *data, size_t len)
{
    struct fuzz_step s;
    int fd = open(path, O_RDWR);
    struct stat st;
    assert(fd >= 0 && fstat(fd, &st) == 0);
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        if (s.kind == PATCH && s.len > 3 &&
            pwrite(fd, s.data + 3, s.len - 3, (off_t)offset_of(&s, (size_t)st.st_size)) < 0)
            abort();
        if (s.kind == CUT && ftruncate(fd, (off_t)offset_of(&s, (size_t)st.st_size)))
            abort();
    }
    close(fd);
}

/* ---- Use ---- */

static void live(struct ha_image *image)
{
    static struct agent_model m;
    struct ha_core_options o = {.region = "r1", .host = "h1", .seed = 7};
    struct ha_core *core;
    struct hp_error e = {0};
    am_init(&m);
    m.journal.durable = *image;
    struct ha_image copy = jm_image(&m.journal);
    int rc = ha_core_new(&o, &copy, &core, &e);
    assert(rc == 0 || (rc == HP_ECORRUPT && e.message[0]));
    if (rc == 0) {
        ha_core_free(core);
        am_boot(&m);
        am_link(&m, true);
        am_settle(&m);
        am_inventory(&m, true);
        am_advance(&m, 3600000);
        am_settle(&m);
        am_done(&m);
    } else {
        jm_done(&m.journal);
    }
}

static void use(void)
{
    struct ha_sqlite *j;
    struct ha_image image, again;
    struct hp_error e = {0};
    const struct ha_write meta = {.kind = HA_WRITE_META, .meta_key = HA_META_SESSION, .number = 9};
    int rc = ha_sqlite_open(&loop, path, &j, &image, &e);
    if (rc) {
        assert(e.message[0] && (rc == HP_ECORRUPT || rc == HP_EUNSUPPORTED || rc == HP_EIO));
        while (uv_run(&loop, UV_RUN_NOWAIT))
            continue;
        return;
    }
    rc = write_and_wait(j, &meta, 1);
    close_journal(j);
    if (rc == 0) {
        rc = ha_sqlite_open(&loop, path, &j, &again, &e);
        assert(rc == 0);
        assert(again.record_count == image.record_count && again.report_count == image.report_count &&
               again.tombstone_count == image.tombstone_count && again.meta[HA_META_SESSION] == 9);
        ha_image_done(&again);
        close_journal(j);
    }
    live(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!base_len)
        start();
    forget();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, base, base_len) != (ssize_t)base_len)
        abort();
    close(fd);
    change_rows(data, len);
    damage(data, len);
    use();
    return 0;
}
