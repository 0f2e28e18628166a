#include "shell/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/sql.h"

#define OWNER(job_, type_) ((type_ *)(void *)((char *)(job_)-offsetof(type_, job)))

/* ---- Taking a region over ---- */

struct state_row {
    int64_t epoch, sequence, watermark, oldest;
    int restored; /* enum sc_restored */
    bool found;
};

static int take_state(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct state_row *x = user;
    *x = (struct state_row){strtoll(columns[0], NULL, 10),
                            strtoll(columns[1], NULL, 10),
                            strtoll(columns[2], NULL, 10),
                            strtoll(columns[3], NULL, 10),
                            atoi(columns[4]),
                            true};
    return 0;
}

static int take_project(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct sc_quota q = {{strtoll(columns[1], NULL, 10), strtoll(columns[2], NULL, 10), strtoll(columns[3], NULL, 10)},
                         strtoll(columns[4], NULL, 10)};
    return sc_region_load_project(user, columns[0], &q, e);
}

static int take_host(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    return sc_region_load_host(user, columns[0], columns[1], lengths[1], e);
}

static int take_container(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    return sc_region_load_container(user, columns[0], columns[1], lengths[1], e);
}

static int take_operation(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    return sc_region_load_operation(user, columns[0], strtoll(columns[1], NULL, 10), columns[2], lengths[2], e);
}

struct event_rows {
    struct sc_region *region;
    size_t count;
    int64_t last;
};

static int take_event(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct event_rows *x = user;
    x->count++;
    x->last = strtoll(columns[0], NULL, 10);
    return sc_region_load_event(x->region, x->last, columns[1], lengths[1], e);
}

struct known_rows {
    struct sc_region *region;
    size_t count;
};

static int take_known(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct known_rows *k = user;
    k->count++;
    int rc = sc_region_load_known(k->region, columns[0]);
    return rc ? hp_fail(e, rc, "operation ids: %s", hp_strerror(rc)) : 0;
}

static int take_mark(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    sc_region_load_mark(user, strtoll(columns[0], NULL, 10), strtoll(columns[1], NULL, 10));
    return 0;
}

/* A few events' times, spread over what is kept, tell how old the rest is. */
static int load_marks(struct hp_db_conn *c, const struct sc_takeover *t, const struct state_row *x, struct hp_error *e)
{
    enum { POINTS = 256 };
    char list[POINTS * 22 + 1];
    size_t n = 0;
    int64_t step = (x->sequence - x->oldest + 1) / POINTS;
    step = step < 1024 ? 1024 : step;
    for (int64_t s = x->oldest; s <= x->sequence && n + 24 < sizeof list; s += step)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%" PRId64, n ? "," : "", s);
    if (!n)
        return 0;
    return sc_sql_select(
        c, take_mark, t->region, e,
        "SELECT sequence, time_ns FROM events WHERE region = '%s' AND sequence IN (%s) ORDER BY sequence", t->name,
        list);
}

static int load(struct hp_db_conn *c, struct sc_takeover *t, const struct state_row *x, struct hp_error *e)
{
    struct sc_region *r = t->region;
    struct known_rows known = {.region = r};
    struct event_rows events = {.region = r};
    sc_region_load_state(r, x->sequence, x->watermark, x->oldest);
    if (x->restored == SC_RESTORED_COMPARING)
        sc_region_load_restored(r);
    int rc = sc_sql_select(c, take_project, r, e,
                           "SELECT name, cpu_millis, memory_bytes, disk_bytes, containers FROM projects");
    if (!rc)
        rc = sc_sql_select(c, take_host, r, e, "SELECT name, body FROM hosts WHERE region = '%s' ORDER BY name",
                           t->name);
    if (!rc)
        rc = sc_sql_select(c, take_container, r, e,
                           "SELECT name, body FROM containers WHERE region = '%s' ORDER BY name", t->name);
    if (!rc)
        rc = sc_sql_select(c, take_operation, r, e,
                           "SELECT id, serial, body FROM operations WHERE region = '%s' AND active = 1 ORDER BY serial",
                           t->name);
    if (!rc)
        rc = sc_sql_select(c, take_known, &known, e, "SELECT id FROM operations WHERE region = '%s' LIMIT %zu", t->name,
                           t->config.known_max + 1);
    if (!rc)
        rc = load_marks(c, t, x, e);
    if (!rc)
        rc = sc_sql_select(c, take_event, &events, e,
                           "SELECT sequence, body FROM events WHERE region = '%s' AND sequence > %" PRId64
                           " ORDER BY sequence LIMIT %zu",
                           t->name, x->watermark, t->config.backlog_max);
    if (!rc && events.count == t->config.backlog_max && events.last < x->sequence)
        sc_region_load_events_more(r);
    if (!rc)
        sc_region_load_known_done(r, known.count <= t->config.known_max);
    return rc;
}

static int why_not_raised(struct hp_db_conn *c, const struct sc_takeover *t, struct hp_error *e)
{
    struct state_row x = {0};
    int rc =
        sc_sql_select(c, take_state, &x, e,
                      "SELECT epoch, sequence, watermark, oldest, restored FROM regions WHERE name = '%s'", t->name);
    if (rc)
        return rc;
    if (x.restored == SC_RESTORED_RAW)
        return hp_fail(e, HP_ECONFLICT, "the record was loaded from a backup: run `harpoon admin restored` first");
    return hp_fail(e, HP_ECONFLICT,
                   "the record is older than the region (epoch %" PRId64 "; the broker has seen %" PRId64
                   "): restore the latest backup, then run `harpoon admin restored --region %s --yes`",
                   x.epoch, t->epoch_min, t->name);
}

/* One statement: from its commit on, no transaction of an older epoch can succeed. */
static int raise_epoch(struct hp_db_conn *c, struct sc_takeover *t, struct hp_error *e)
{
    uint64_t affected = 0;
    int rc = sc_sql_exec(c, NULL, e, "INSERT IGNORE INTO regions (name) VALUES ('%s')", t->name);
    if (!rc)
        rc = sc_sql_exec(
            c, &affected, e,
            "UPDATE regions SET epoch = epoch + 1, revision = revision + 1, holder = '%s' WHERE name = '%s' AND epoch "
            ">= %" PRId64 " AND restored <> %d",
            t->holder, t->name, t->epoch_min, SC_RESTORED_RAW);
    return rc || affected == 1 ? rc : why_not_raised(c, t, e);
}

static int run_takeover(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct sc_takeover *t = OWNER(job, struct sc_takeover);
    struct state_row x = {0};
    int rc = raise_epoch(c, t, e);
    if (!rc)
        rc = sc_sql_select(c, take_state, &x, e,
                           "SELECT epoch, sequence, watermark, oldest, restored FROM regions WHERE name = '%s'",
                           t->name);
    if (!rc && !x.found)
        rc = hp_fail(e, HP_ECORRUPT, "regions: no row of \"%s\"", t->name);
    if (!rc) {
        t->epoch = x.epoch;
        rc = sc_region_new(&t->config, t->name, x.epoch, t->seed, &t->region);
        if (rc)
            rc = hp_fail(e, rc, "%s", hp_strerror(rc));
    }
    if (!rc)
        rc = load(c, t, &x, e);
    if (rc) {
        sc_region_free(t->region);
        t->region = NULL;
        return hp_wrap(e, "taking over region \"%s\"", t->name);
    }
    return 0;
}

void sc_takeover_init(struct sc_takeover *t, const struct sc_region_config *config, const char *region,
                      const char *holder, uint64_t seed)
{
    *t = (struct sc_takeover){.config = *config, .seed = seed};
    t->job.run = run_takeover;
    snprintf(t->name, sizeof t->name, "%s", region);
    snprintf(t->holder, sizeof t->holder, "%s", holder);
}

/* ---- One batch, one transaction ---- */

#define OPERATIONS "INSERT INTO operations (id, region, project, target, stage, active, serial, body) VALUES "
#define OPERATIONS_UPDATE " ON DUPLICATE KEY UPDATE stage = VALUES(stage), active = VALUES(active), body = VALUES(body)"
#define CONTAINERS "INSERT INTO containers (name, uid, region, project, host, generation, body) VALUES "
#define CONTAINERS_UPDATE                                                                                              \
    " ON DUPLICATE KEY UPDATE host = VALUES(host), generation = VALUES(generation), body = VALUES(body)"
#define HOSTS "INSERT INTO hosts (region, name, body) VALUES "
#define HOSTS_UPDATE " ON DUPLICATE KEY UPDATE body = VALUES(body)"
#define EVENTS "INSERT INTO events (region, sequence, time_ns, body) VALUES "

static int over(const char *region, int64_t epoch, struct hp_error *e)
{
    return hp_fail(e, HP_EFENCED, "region \"%s\": epoch %" PRId64 " is over", region, epoch);
}

static int assert_epoch(struct hp_db_conn *c, const struct sc_write *w, struct hp_error *e)
{
    const struct sc_batch *b = w->batch;
    uint64_t affected = 0;
    int rc = sc_sql_exec(c, &affected, e,
                         "UPDATE regions SET sequence = %" PRId64 ", watermark = %" PRId64 ", oldest = %" PRId64
                         ", restored = %d, revision = revision + 1 WHERE name = '%s' AND epoch = %" PRId64
                         " AND restored <> %d",
                         b->sequence, b->watermark, b->oldest, b->restored ? SC_RESTORED_COMPARING : SC_RESTORED_NO,
                         w->name, b->epoch, SC_RESTORED_RAW);
    return rc || affected == 1 ? rc : over(w->name, b->epoch, e);
}

static void operation_row(struct sc_sql *s, const char *region, const struct sc_operation_row *x)
{
    sc_sql_row(s);
    sc_sql_text(s, x->id);
    sc_sql_text(s, region);
    sc_sql_text(s, x->project);
    sc_sql_text(s, x->target);
    sc_sql_int(s, x->stage);
    sc_sql_int(s, x->active);
    sc_sql_int(s, x->serial);
    sc_sql_bytes(s, x->body->bytes, x->body->len);
    sc_sql_row_end(s);
}

static int write_operations(struct hp_db_conn *c, const struct sc_write *w, bool fresh, struct hp_error *e)
{
    static const char many_fresh[] = OPERATIONS "(?, ?, ?, ?, ?, ?, ?, ?)";
    static const char many[] = OPERATIONS "(?, ?, ?, ?, ?, ?, ?, ?)" OPERATIONS_UPDATE;
    struct sc_sql s;
    sc_sql_begin(&s, c, OPERATIONS, fresh ? "" : OPERATIONS_UPDATE, fresh ? many_fresh : many, e);
    for (size_t i = 0; i < w->batch->operation_count; i++)
        if (w->batch->operations[i].fresh == fresh)
            operation_row(&s, w->name, &w->batch->operations[i]);
    return sc_sql_end(&s);
}

static int write_containers(struct hp_db_conn *c, const struct sc_write *w, struct hp_error *e)
{
    struct sc_sql s;
    sc_sql_begin(&s, c, "DELETE FROM containers WHERE uid IN (", ")", NULL, e);
    for (size_t i = 0; i < w->batch->delete_count; i++) {
        sc_sql_row(&s);
        sc_sql_text(&s, w->batch->deletes[i].uid);
        sc_sql_row_end(&s);
    }
    int rc = sc_sql_end(&s);
    if (rc)
        return rc;
    static const char many[] = CONTAINERS "(?, ?, ?, ?, ?, ?, ?)" CONTAINERS_UPDATE;
    sc_sql_begin(&s, c, CONTAINERS, CONTAINERS_UPDATE, many, e);
    for (size_t i = 0; i < w->batch->container_count; i++) {
        const struct sc_container_row *x = &w->batch->containers[i];
        sc_sql_row(&s);
        sc_sql_text(&s, x->name);
        sc_sql_text(&s, x->uid);
        sc_sql_text(&s, w->name);
        sc_sql_text(&s, x->project);
        sc_sql_text(&s, x->host);
        sc_sql_int(&s, x->generation);
        sc_sql_bytes(&s, x->body->bytes, x->body->len);
        sc_sql_row_end(&s);
    }
    return sc_sql_end(&s);
}

static int write_hosts(struct hp_db_conn *c, const struct sc_write *w, struct hp_error *e)
{
    struct sc_sql s;
    static const char many[] = HOSTS "(?, ?, ?)" HOSTS_UPDATE;
    sc_sql_begin(&s, c, HOSTS, HOSTS_UPDATE, many, e);
    for (size_t i = 0; i < w->batch->host_count; i++) {
        sc_sql_row(&s);
        sc_sql_text(&s, w->name);
        sc_sql_text(&s, w->batch->hosts[i].name);
        sc_sql_bytes(&s, w->batch->hosts[i].body->bytes, w->batch->hosts[i].body->len);
        sc_sql_row_end(&s);
    }
    return sc_sql_end(&s);
}

static int write_events(struct hp_db_conn *c, const struct sc_write *w, struct hp_error *e)
{
    struct sc_sql s;
    static const char many[] = EVENTS "(?, ?, ?, ?)";
    sc_sql_begin(&s, c, EVENTS, "", many, e);
    for (size_t i = 0; i < w->batch->event_count; i++) {
        const struct sc_event_row *x = &w->batch->events[i];
        sc_sql_row(&s);
        sc_sql_text(&s, w->name);
        sc_sql_int(&s, x->sequence);
        sc_sql_int(&s, x->time_ns);
        sc_sql_bytes(&s, x->body->bytes, x->body->len);
        sc_sql_row_end(&s);
    }
    return sc_sql_end(&s);
}

static int forget(struct hp_db_conn *c, const struct sc_write *w, struct hp_error *e)
{
    struct sc_batch *b = w->batch;
    int rc = 0;
    if (b->events_below)
        rc = sc_sql_exec(c, NULL, e, "DELETE FROM events WHERE region = '%s' AND sequence < %" PRId64, w->name,
                         b->events_below);
    if (!rc && b->operations_below) {
        uint64_t deleted = 0;
        rc = sc_sql_exec(c, &deleted, e,
                         "DELETE FROM operations WHERE region = '%s' AND active = 0 AND serial < %" PRId64
                         " ORDER BY serial LIMIT %d",
                         w->name, b->operations_below, b->operations_limit);
        b->operations_deleted = (int64_t)deleted;
    }
    return rc;
}

static int run_write(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct sc_write *w = OWNER(job, struct sc_write);
    int rc = hp_db_begin(c, e);
    if (!rc)
        rc = assert_epoch(c, w, e);
    if (!rc)
        rc = write_operations(c, w, true, e);
    if (!rc)
        rc = write_operations(c, w, false, e);
    if (!rc)
        rc = write_containers(c, w, e);
    if (!rc)
        rc = write_hosts(c, w, e);
    if (!rc)
        rc = write_events(c, w, e);
    if (!rc)
        rc = forget(c, w, e);
    if (!rc)
        rc = hp_db_commit(c, job, e);
    return rc;
}

void sc_write_init(struct sc_write *w, const char *region, struct sc_batch *batch)
{
    *w = (struct sc_write){.batch = batch};
    w->job.run = run_write;
    snprintf(w->name, sizeof w->name, "%s", region);
}

/* ---- The epoch alone ---- */

static int run_assert(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct sc_assert *a = OWNER(job, struct sc_assert);
    uint64_t affected = 0;
    int rc = sc_sql_exec(c, &affected, e,
                         "UPDATE regions SET revision = revision + 1 WHERE name = '%s' AND epoch = %" PRId64
                         " AND restored <> %d",
                         a->name, a->epoch, SC_RESTORED_RAW);
    return rc || affected == 1 ? rc : over(a->name, a->epoch, e);
}

void sc_assert_init(struct sc_assert *a, const char *region, int64_t epoch)
{
    *a = (struct sc_assert){.epoch = epoch};
    a->job.run = run_assert;
    snprintf(a->name, sizeof a->name, "%s", region);
}

/* ---- Events that wait for the stream ---- */

static int take_row(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct sc_page *p = user;
    struct sc_blob *b = malloc(sizeof *b + lengths[1]);
    if (!b)
        return hp_fail(e, HP_ENOMEM, "events: %s", hp_strerror(HP_ENOMEM));
    b->refs = 1;
    b->len = lengths[1];
    memcpy(b->bytes, columns[1], b->len);
    p->rows[p->count++] = (struct sc_event_row){.sequence = strtoll(columns[0], NULL, 10), .body = b};
    return 0;
}

static int run_read(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct sc_read *x = OWNER(job, struct sc_read);
    struct sc_page *p = x->page;
    while (p->count) /* of a run that failed */
        sc_blob_unref(p->rows[--p->count].body);
    if (!p->rows)
        p->rows = calloc(p->limit, sizeof *p->rows);
    if (!p->rows)
        return hp_fail(e, HP_ENOMEM, "events: %s", hp_strerror(HP_ENOMEM));
    return sc_sql_select(c, take_row, p, e,
                         "SELECT sequence, body FROM events WHERE region = '%s' AND sequence > %" PRId64
                         " AND sequence <= %" PRId64 " ORDER BY sequence LIMIT %zu",
                         x->name, p->after, p->to, p->limit);
}

void sc_read_init(struct sc_read *x, const char *region, struct sc_page *page)
{
    *x = (struct sc_read){.page = page};
    x->job.run = run_read;
    snprintf(x->name, sizeof x->name, "%s", region);
}

/* ---- Lookups ---- */

static int take_found(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct sc_lookup *l = user;
    for (size_t i = 0; i < l->count; i++) {
        struct sc_lookup_row *x = &l->rows[i];
        if (x->found || strcmp(x->id, columns[0]) != 0)
            continue;
        x->body = malloc(lengths[1] ? lengths[1] : 1);
        if (!x->body)
            return hp_fail(e, HP_ENOMEM, "operation \"%s\": %s", x->id, hp_strerror(HP_ENOMEM));
        memcpy(x->body, columns[1], lengths[1]);
        x->body_len = lengths[1];
        x->found = true;
    }
    return 0;
}

static int run_find(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    enum { CHUNK = 128 };
    struct sc_find *f = OWNER(job, struct sc_find);
    struct sc_lookup *l = f->lookup;
    int rc = 0;
    for (size_t at = 0; at < l->count && !rc; at += CHUNK) {
        char list[CHUNK * 36 + 1];
        size_t n = 0;
        for (size_t i = at; i < l->count && i < at + CHUNK; i++)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s'%s'", n ? "," : "", l->rows[i].id);
        rc = sc_sql_select(c, take_found, l, e, "SELECT id, body FROM operations WHERE region = '%s' AND id IN (%s)",
                           f->name, list);
    }
    return rc;
}

void sc_find_init(struct sc_find *f, const char *region, struct sc_lookup *lookup)
{
    *f = (struct sc_find){.lookup = lookup};
    f->job.run = run_find;
    snprintf(f->name, sizeof f->name, "%s", region);
}
