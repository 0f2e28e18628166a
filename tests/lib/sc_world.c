#include "lib/sc_world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "grpc/status.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/event.pb-c.h"

static void __attribute__((format(printf, 2, 3))) say(struct scw *w, const char *fmt, ...)
{
    va_list ap;
    if (w->mute_trace)
        return;
    va_start(ap, fmt);
    w->trace_len += (size_t)vsnprintf(w->trace + w->trace_len, SCW_TRACE_MAX - w->trace_len, fmt, ap);
    va_end(ap);
    if (getenv("HARPOON_TRACE")) { /* to standard error as it happens, for long runs */
        fputs(w->trace, stderr);
        scw_clear(w);
    }
    assert_true(w->trace_len < SCW_TRACE_MAX);
}

void scw_clear(struct scw *w)
{
    w->trace_len = 0;
    w->trace[0] = '\0';
}

void scw_expect_at(struct scw *w, const char *expected, const char *file, int line)
{
    if (strcmp(w->trace, expected) != 0) {
        fprintf(stderr, "%s:%d: expected:\n%s\ngot:\n%s\n", file, line, expected, w->trace);
        _fail(file, line);
    }
    scw_clear(w);
}

/* ---- The record ---- */

static struct scw_row *find_row(struct scw_table *t, const char *key)
{
    for (size_t i = 0; i < t->count; i++)
        if (!strcmp(t->rows[i].key, key))
            return &t->rows[i];
    return NULL;
}

const struct scw_row *scw_find(const struct scw_table *t, const char *key)
{
    return find_row((struct scw_table *)t, key);
}

static struct scw_row *put_row(struct scw_table *t, const char *key, struct sc_blob *body)
{
    struct scw_row *row = find_row(t, key);
    if (!row) {
        assert_true(t->count < SCW_ROWS_MAX);
        row = &t->rows[t->count++];
        memset(row, 0, sizeof *row);
        snprintf(row->key, sizeof row->key, "%s", key);
    }
    sc_blob_unref(row->body);
    row->body = sc_blob_ref(body);
    return row;
}

static void drop_row(struct scw_table *t, struct scw_row *row)
{
    sc_blob_unref(row->body);
    size_t i = (size_t)(row - t->rows);
    memmove(row, row + 1, (t->count - i - 1) * sizeof *row);
    t->count--;
}

static const char *short_id(const char *id)
{
    const char *s = id;
    while (*s == '0' && s[1])
        s++;
    return s;
}

static void store_operations(struct scw *w, const struct sc_batch *b)
{
    for (size_t i = 0; i < b->operation_count; i++) {
        const struct sc_operation_row *x = &b->operations[i];
        const struct scw_row *old = find_row(&w->operations, x->id);
        assert_int_equal(!old, x->fresh); /* an insert of a new one, an update of a known one */
        assert_true(!old || old->active); /* what has ended never changes again */
        struct scw_row *row = put_row(&w->operations, x->id, x->body);
        row->serial = x->serial;
        row->active = x->active;
        row->stage = x->stage;
    }
}

static void store(struct scw *w, const struct sc_batch *b)
{
    assert_int_equal(b->epoch, w->epoch);
    store_operations(w, b);
    for (size_t i = 0; i < b->delete_count; i++)
        for (size_t k = 0; k < w->containers.count; k++)
            if (!strcmp(w->containers.rows[k].uid, b->deletes[i].uid))
                drop_row(&w->containers, &w->containers.rows[k--]);
    for (size_t i = 0; i < b->container_count; i++) {
        struct scw_row *row = put_row(&w->containers, b->containers[i].name, b->containers[i].body);
        assert_true(!*row->uid || !strcmp(row->uid, b->containers[i].uid));
        strcpy(row->uid, b->containers[i].uid);
    }
    for (size_t i = 0; i < b->host_count; i++)
        put_row(&w->hosts, b->hosts[i].name, b->hosts[i].body);
    for (size_t i = 0; i < b->event_count; i++) {
        char key[32];
        assert_int_equal(b->events[i].sequence, w->sequence + 1 + (int64_t)i); /* gapless */
        snprintf(key, sizeof key, "%" PRId64, b->events[i].sequence);
        put_row(&w->events, key, b->events[i].body)->serial = b->events[i].sequence;
    }
    assert_int_equal(b->sequence, w->sequence + (int64_t)b->event_count);
    assert_true(b->watermark >= w->watermark && b->watermark <= w->sequence);
    w->sequence = b->sequence;
    w->watermark = b->watermark;
    while (b->events_below && w->events.count && w->events.rows[0].serial < b->events_below)
        drop_row(&w->events, &w->events.rows[0]);
    w->oldest = b->oldest;
    w->restored = b->restored;
    w->commits++;
}

/* ---- What leaves ---- */

static void trace_event(struct scw *w, const struct sc_event_row *x)
{
    Harpoon__V1__Event *m = harpoon__v1__event__unpack(NULL, x->body->len, x->body->bytes);
    assert_non_null(m);
    assert_int_equal(m->sequence, x->sequence);
    const char *subject = strrchr(m->subject, '/');
    const char *op = strrchr(m->operation, '/');
    say(w, "  %" PRId64 " %s %s", m->sequence, m->type + strlen("harpoon."), subject ? subject + 1 : m->subject);
    if (op)
        say(w, " op=%s", short_id(op + 1));
    if (*m->host)
        say(w, " @%s", m->host);
    say(w, "\n");
    harpoon__v1__event__free_unpacked(m, NULL);
}

static void take_verdict(struct scw *w, const struct sc_message *x)
{
    Harpoon__Internal__V1__Verdict *v = harpoon__internal__v1__verdict__unpack(NULL, x->body->len, x->body->bytes);
    assert_non_null(v);
    assert_string_equal(x->key, "q");
    w->verdict_code = v->status->code;
    hp_status_reason(v->status, w->verdict_reason, sizeof w->verdict_reason);
    w->verdict_stage = v->operation ? (int)v->operation->stage : 0;
    const char *op = v->operation ? strrchr(v->operation->name, '/') : NULL;
    snprintf(w->verdict_operation, sizeof w->verdict_operation, "%s", op ? op + 1 : "");
    say(w, "verdict %s%s%s", hp_code_name(w->verdict_code), *w->verdict_reason ? " " : "", w->verdict_reason);
    if (op)
        say(w, " op=%s stage=%d", short_id(op + 1), w->verdict_stage);
    if (v->explain)
        say(w, " explain feasible=%d of %d", v->explain->feasible_count, v->explain->host_count);
    say(w, "\n");
    harpoon__internal__v1__verdict__free_unpacked(v, NULL);
}

static const char *verb_name(int verb)
{
    static const char *const names[] = {"INVENTORY", "ENSURE", "REMOVE", "QUARANTINE"};
    return names[verb];
}

static void take_command(struct scw *w, const struct sc_message *x)
{
    Harpoon__Internal__V1__RouterCommand *m =
        harpoon__internal__v1__router_command__unpack(NULL, x->body->len, x->body->bytes);
    assert_non_null(m);
    if (m->body_case == HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_ANNOUNCE) {
        say(w, "announce %s\n", *x->key ? x->key : "all");
        harpoon__internal__v1__router_command__free_unpacked(m, NULL);
        return;
    }
    assert_true(w->command_count < SCW_COMMANDS_MAX);
    struct scw_command *c = &w->commands[w->command_count++];
    *c = (struct scw_command){0};
    snprintf(c->router, sizeof c->router, "%.63s", x->key);
    snprintf(c->host, sizeof c->host, "%s", x->host);
    if (m->body_case == HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_COMMAND) {
        const Harpoon__Internal__V1__Command *y = m->command;
        c->verb = y->verb;
        c->generation = y->generation;
        c->session = y->session;
        c->restart_serial = y->restart_serial;
        snprintf(c->uid, sizeof c->uid, "%s", y->uid);
        snprintf(c->container, sizeof c->container, "%.255s", y->container);
        if (y->spec) {
            c->cpu_millis = y->spec->resources->cpu_millis;
            c->memory_bytes = y->spec->resources->memory_bytes;
            c->desired = y->spec->desired_state;
        }
        const char *name = strrchr(y->container, '/');
        say(w, "command %s %s %s gen=%" PRId64, x->host, verb_name(y->verb), name ? name + 1 : "?", y->generation);
        if (getenv("HARPOON_TRACE"))
            say(w, " uid=%s", y->uid);
        if (y->spec)
            say(w, " cpu=%" PRId64 "%s", c->cpu_millis, c->desired == 2 ? " stopped" : "");
        if (y->restart_serial)
            say(w, " %s=%" PRId64, y->start_only ? "start" : "restart", y->restart_serial);
        say(w, "\n");
    } else {
        c->request_id = m->inventory_request->request_id;
        c->session = m->inventory_request->session;
        say(w, "command %s INVENTORY%s\n", x->host, m->inventory_request->specs ? " specs" : "");
    }
    harpoon__internal__v1__router_command__free_unpacked(m, NULL);
}

static void enter(struct scw *w)
{
    if (w->enter)
        w->enter();
}

/* Gives `rc`, having noted when the reign is over. */
static int leave(struct scw *w, int rc)
{
    if (w->leave)
        w->leave();
    w->over = w->over || (w->leave && rc == HP_ENOMEM);
    return rc;
}

void scw_step(struct scw *w, struct sc_ev *ev)
{
    struct hp_error e = {0};
    ev->time = w->time;
    enter(w);
    int rc = leave(w, sc_region_step(w->region, ev, &e));
    if (rc && !(w->leave && rc == HP_ENOMEM))
        say(w, "poison %s\n", e.message);
}

static void take_messages(struct scw *w, struct sc_messages *list)
{
    int64_t first = 0, last = 0;
    for (struct sc_message *m = list->first, *next; m; m = next) {
        next = m->next;
        if (m->kind == SC_SEND_EVENT) {
            assert_true(m->sequence <= w->sequence); /* never before its commit */
            w->skips += m->sequence > w->sent + 1;
            w->sent = m->sequence > w->sent ? m->sequence : w->sent;
            first = first ? first : m->sequence;
            last = m->sequence;
        }
        if (m->kind != SC_SEND_EVENT && last) {
            say(w, "publish %" PRId64 "-%" PRId64 "\n", first, last);
            first = last = 0;
        }
        if (m->kind == SC_SEND_VERDICT)
            take_verdict(w, m);
        else if (m->kind != SC_SEND_EVENT)
            take_command(w, m);
        if (m->kind == SC_SEND_EVENT && !w->mute_stream) {
            struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .published = {m->sequence, true}};
            w->repeats += m->sequence <= w->published;
            w->published = m->sequence;
            scw_step(w, &ev);
        }
        sc_message_free(m);
    }
    if (last)
        say(w, "publish %" PRId64 "-%" PRId64 "\n", first, last);
}

static void trace_batch(struct scw *w, const struct sc_batch *b)
{
    say(w, "commit");
    for (size_t i = 0; i < b->operation_count; i++)
        say(w, " op=%s:%d%s", short_id(b->operations[i].id), b->operations[i].stage, b->operations[i].fresh ? "+" : "");
    for (size_t i = 0; i < b->delete_count; i++)
        say(w, " del");
    for (size_t i = 0; i < b->container_count; i++)
        say(w, " %s:%" PRId64, strrchr(b->containers[i].name, '/') + 1, b->containers[i].generation);
    for (size_t i = 0; i < b->host_count; i++)
        say(w, " %s", b->hosts[i].name);
    say(w, "\n");
    for (size_t i = 0; i < b->event_count; i++)
        trace_event(w, &b->events[i]);
}

void scw_commit(struct scw *w)
{
    struct sc_batch *b = w->held;
    assert_non_null(b);
    w->held = NULL;
    store(w, b);
    trace_batch(w, b);
    struct sc_ev ev = {.kind = SC_EV_COMMITTED, .committed = b};
    scw_step(w, &ev);
}

static void look_up(struct scw *w, struct sc_lookup *l)
{
    w->lookups++;
    if (w->held)
        scw_commit(w); /* jobs of one connection run in order */
    for (size_t i = 0; i < l->count; i++) {
        const struct scw_row *row = find_row(&w->operations, l->rows[i].id);
        l->rows[i].found = row != NULL;
        if (!row)
            continue;
        l->rows[i].body = malloc(row->body->len);
        l->rows[i].body_len = row->body->len;
        memcpy(l->rows[i].body, row->body->bytes, row->body->len);
    }
    struct sc_ev ev = {.kind = SC_EV_LOOKED_UP, .looked_up = l};
    scw_step(w, &ev);
}

static void read_back(struct scw *w, struct sc_page *p)
{
    w->pages++;
    if (w->held)
        scw_commit(w);
    p->rows = calloc(p->limit, sizeof *p->rows);
    assert_non_null(p->rows);
    for (size_t i = 0; i < w->events.count && p->count < p->limit; i++) {
        const struct scw_row *row = &w->events.rows[i];
        if (row->serial > p->after && row->serial <= p->to)
            p->rows[p->count++] = (struct sc_event_row){.sequence = row->serial, .body = sc_blob_ref(row->body)};
    }
    struct sc_ev ev = {.kind = SC_EV_FETCHED, .fetched = p};
    scw_step(w, &ev);
}

void scw_flush(struct scw *w)
{
    bool more = !w->over;
    while (more) {
        struct sc_effects out = {0};
        struct hp_error e = {0};
        enter(w);
        int rc = leave(w, sc_region_flush(w->region, w->time, &out, &e));
        if (w->over) {
            sc_lookup_free(out.lookup);
            assert_null(out.commit);
            return;
        }
        assert_int_equal(rc, 0);
        for (int i = 0; i < SC_SOURCE_COUNT; i++)
            if (out.acks[i].set)
                say(w, "ack %s %" PRIu64 "\n", i == SC_SOURCE_REQUESTS ? "requests" : "reports", out.acks[i].tag);
        take_messages(w, &out.messages);
        if (out.lookup)
            look_up(w, out.lookup);
        if (out.commit) {
            assert_null(w->held);
            w->held = out.commit;
            if (!w->hold_commits)
                scw_commit(w);
        }
        if (out.fetch)
            read_back(w, out.fetch);
        more = !w->over && (out.lookup || out.fetch || (out.commit && !w->hold_commits));
    }
    if (!w->over)
        sc_region_check(w->region);
}

void scw_advance(struct scw *w, uint64_t ms)
{
    uint64_t end = w->time.now_ms + ms;
    for (;;) {
        uint64_t due = sc_region_deadline(w->region);
        uint64_t to = due < end ? due : end;
        if (to > w->time.now_ms) {
            w->time.wall_ns += (int64_t)(to - w->time.now_ms) * 1000000;
            w->time.now_ms = to;
        }
        if (due > end)
            return;
        struct sc_ev ev = {.kind = SC_EV_TIMER};
        scw_step(w, &ev);
        scw_flush(w);
        if (w->over)
            return;
    }
}

/* ---- Life ---- */

static void load_row(struct scw *w, int (*load)(struct scw *w, const struct scw_row *x, struct hp_error *e),
                     const struct scw_row *x)
{
    struct hp_error e = {0};
    if (w->over)
        return;
    enter(w);
    int rc = leave(w, load(w, x, &e));
    if (!w->over)
        assert_int_equal(rc, 0);
}

static int load_project(struct scw *w, const struct scw_row *x, struct hp_error *e)
{
    return sc_region_load_project(w->region, "p", &w->quota, e);
}

static int load_host(struct scw *w, const struct scw_row *x, struct hp_error *e)
{
    return sc_region_load_host(w->region, x->key, x->body->bytes, x->body->len, e);
}

static int load_container(struct scw *w, const struct scw_row *x, struct hp_error *e)
{
    return sc_region_load_container(w->region, x->key, x->body->bytes, x->body->len, e);
}

static int load_operation(struct scw *w, const struct scw_row *x, struct hp_error *e)
{
    int rc = sc_region_load_known(w->region, x->key);
    if (rc || !x->active)
        return rc;
    return sc_region_load_operation(w->region, x->key, x->serial, x->body->bytes, x->body->len, e);
}

static int load_event(struct scw *w, const struct scw_row *x, struct hp_error *e)
{
    if (x->serial <= w->watermark)
        return 0;
    return sc_region_load_event(w->region, x->serial, x->body->bytes, x->body->len, e);
}

static void load_rows(struct scw *w)
{
    sc_region_load_state(w->region, w->sequence, w->watermark, w->oldest);
    if (w->restored)
        sc_region_load_restored(w->region);
    load_row(w, load_project, NULL);
    for (size_t i = 0; i < w->hosts.count; i++)
        load_row(w, load_host, &w->hosts.rows[i]);
    for (size_t i = 0; i < w->containers.count; i++)
        load_row(w, load_container, &w->containers.rows[i]);
    for (size_t i = 0; i < w->operations.count; i++)
        load_row(w, load_operation, &w->operations.rows[i]);
    size_t events = 0;
    for (size_t i = 0; i < w->events.count && events < w->config.backlog_max; i++) {
        load_row(w, load_event, &w->events.rows[i]);
        events += w->events.rows[i].serial > w->watermark;
    }
    if (events == w->config.backlog_max && w->watermark + (int64_t)events < w->sequence)
        sc_region_load_events_more(w->region);
    sc_region_load_known_done(w->region, w->known_complete);
}

void scw_takeover(struct scw *w)
{
    sc_region_free(w->region);
    w->region = NULL;
    sc_batch_free(w->held);
    w->held = NULL;
    w->over = false;
    w->epoch++;
    enter(w);
    int rc = leave(w, sc_region_new(&w->config, "r1", w->epoch, 7, &w->region));
    if (w->over)
        return;
    assert_int_equal(rc, 0);
    load_rows(w);
    if (w->over)
        return;
    struct sc_ev ev = {.kind = SC_EV_LEAD};
    scw_step(w, &ev);
    scw_flush(w);
}

static void copy_table(struct scw_table *to, const struct scw_table *from)
{
    for (size_t i = 0; i < to->count; i++)
        sc_blob_unref(to->rows[i].body);
    *to = *from;
    for (size_t i = 0; i < to->count; i++)
        sc_blob_ref(to->rows[i].body);
}

void scw_dump(struct scw *w)
{
    if (!w->dump)
        w->dump = calloc(1, sizeof *w->dump);
    assert_non_null(w->dump);
    copy_table(&w->dump->operations, &w->operations);
    copy_table(&w->dump->containers, &w->containers);
    copy_table(&w->dump->hosts, &w->hosts);
}

void scw_restore(struct scw *w)
{
    const struct scw_table none = {0};
    assert_non_null(w->dump);
    copy_table(&w->operations, &w->dump->operations);
    copy_table(&w->containers, &w->dump->containers);
    copy_table(&w->hosts, &w->dump->hosts);
    copy_table(&w->events, &none);
    w->sequence = w->watermark = w->sequence + 1000;
    w->oldest = w->sequence + 1;
    w->epoch += 100;
    w->restored = true;
    scw_takeover(w);
}

struct scw *scw_new(const struct sc_region_config *config)
{
    struct scw *w = calloc(1, sizeof *w);
    assert_non_null(w);
    if (config)
        w->config = *config;
    else
        sc_region_config_defaults(&w->config);
    w->config.open_max = 0; /* containers rest whenever they may */
    w->time = (struct sc_time){1000, 1700000000LL * 1000000000};
    w->oldest = 1;
    w->known_complete = true;
    w->verdict_code = -1;
    scw_takeover(w);
    scw_clear(w);
    return w;
}

static void free_table(struct scw_table *t)
{
    for (size_t i = 0; i < t->count; i++)
        sc_blob_unref(t->rows[i].body);
}

void scw_free(struct scw *w)
{
    sc_region_free(w->region);
    sc_batch_free(w->held);
    free_table(&w->operations);
    free_table(&w->containers);
    free_table(&w->hosts);
    free_table(&w->events);
    if (w->dump) {
        free_table(&w->dump->operations);
        free_table(&w->dump->containers);
        free_table(&w->dump->hosts);
        free(w->dump);
    }
    free(w);
}
