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
#include "wire/codec.h"
#include "wire/names.h"

#define MIB (1LL << 20)

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
            say(w, " restart=%" PRId64, y->restart_serial);
        say(w, "\n");
    } else {
        c->request_id = m->inventory_request->request_id;
        c->session = m->inventory_request->session;
        say(w, "command %s INVENTORY\n", x->host);
    }
    harpoon__internal__v1__router_command__free_unpacked(m, NULL);
}

static void step(struct scw *w, struct sc_ev *ev)
{
    struct hp_error e = {0};
    ev->time = w->time;
    if (sc_region_step(w->region, ev, &e))
        say(w, "poison %s\n", e.message);
}

static void take_messages(struct scw *w, struct sc_messages *list)
{
    int64_t first = 0, last = 0;
    for (struct sc_message *m = list->first, *next; m; m = next) {
        next = m->next;
        if (m->kind == SC_SEND_EVENT) {
            assert_true(m->sequence <= w->sequence); /* never before its commit */
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
            w->published = m->sequence;
            step(w, &ev);
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
    step(w, &ev);
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
    step(w, &ev);
}

void scw_flush(struct scw *w)
{
    bool more = true;
    while (more) {
        struct sc_effects out = {0};
        struct hp_error e = {0};
        assert_int_equal(sc_region_flush(w->region, w->time, &out, &e), 0);
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
        more = out.lookup || (out.commit && !w->hold_commits);
    }
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
        step(w, &ev);
        scw_flush(w);
    }
}

/* ---- Life ---- */

static void load_rows(struct scw *w)
{
    struct hp_error e = {0};
    sc_region_load_state(w->region, w->sequence, w->watermark, w->oldest);
    assert_int_equal(sc_region_load_project(w->region, "p", &w->quota, &e), 0);
    for (size_t i = 0; i < w->hosts.count; i++) {
        const struct scw_row *x = &w->hosts.rows[i];
        assert_int_equal(sc_region_load_host(w->region, x->key, x->body->bytes, x->body->len, &e), 0);
    }
    for (size_t i = 0; i < w->containers.count; i++) {
        const struct scw_row *x = &w->containers.rows[i];
        assert_int_equal(sc_region_load_container(w->region, x->key, x->body->bytes, x->body->len, &e), 0);
    }
    for (size_t i = 0; i < w->operations.count; i++) {
        const struct scw_row *x = &w->operations.rows[i];
        assert_int_equal(sc_region_load_known(w->region, x->key), 0);
        if (x->active)
            assert_int_equal(sc_region_load_operation(w->region, x->key, x->serial, x->body->bytes, x->body->len, &e),
                             0);
    }
    for (size_t i = 0; i < w->events.count; i++) {
        const struct scw_row *x = &w->events.rows[i];
        if (x->serial > w->watermark)
            assert_int_equal(sc_region_load_event(w->region, x->serial, x->body->bytes, x->body->len, &e), 0);
    }
    sc_region_load_known_done(w->region, w->known_complete);
}

void scw_takeover(struct scw *w)
{
    sc_region_free(w->region);
    sc_batch_free(w->held);
    w->held = NULL;
    w->epoch++;
    assert_int_equal(sc_region_new(&w->config, "r1", w->epoch, 7, &w->region), 0);
    load_rows(w);
    struct sc_ev ev = {.kind = SC_EV_LEAD};
    step(w, &ev);
    scw_flush(w);
}

struct scw *scw_new(const struct sc_region_config *config)
{
    struct scw *w = calloc(1, sizeof *w);
    assert_non_null(w);
    if (config)
        w->config = *config;
    else
        sc_region_config_defaults(&w->config);
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
    free(w);
}

/* ---- Requests ---- */

void scw_request(struct scw *w, unsigned id, Harpoon__Internal__V1__Request *q)
{
    char hex[33], request_id[32];
    uint8_t digest[32] = {0};
    snprintf(hex, sizeof hex, "%032x", id);
    snprintf(request_id, sizeof request_id, "request-%u", id);
    q->operation_id = hex;
    q->region = (char *)"r1";
    q->request_id = request_id;
    q->principal = (char *)"tester";
    /* Stands for the hash of the payload. */
    Harpoon__Internal__V1__Request payload = HARPOON__INTERNAL__V1__REQUEST__INIT;
    payload.payload_case = q->payload_case;
    payload.create = q->create;
    size_t len = harpoon__internal__v1__request__get_packed_size(&payload);
    uint8_t *buf = malloc(len + 1);
    harpoon__internal__v1__request__pack(&payload, buf);
    for (size_t i = 0; i < len; i++)
        digest[i % 32] = (uint8_t)(digest[i % 32] * 31 + buf[i]);
    free(buf);
    q->payload_digest.data = digest;
    q->payload_digest.len = 32;
    struct sc_ev ev = {.kind = SC_EV_REQUEST,
                       .request = {.message = (Harpoon__Internal__V1__Request *)(void *)hp_message_clone(&q->base),
                                   .tag = ++w->tag,
                                   .reply_to = "q",
                                   .correlation_id = "c"}};
    assert_non_null(ev.request.message);
    step(w, &ev);
    scw_flush(w);
}

static void full_name(char out[256], const char *name)
{
    hp_container_name_format(out, "p", "r1", name);
}

void scw_create_spec(struct scw *w, unsigned id, const char *name, Harpoon__V1__ContainerSpec *spec, int deadline_s)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest c = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container body = HARPOON__V1__CONTAINER__INIT;
    body.spec = spec;
    c.parent = (char *)"projects/p/regions/r1";
    c.container_id = (char *)name;
    c.container = &body;
    c.deadline_seconds = deadline_s;
    q.project = (char *)"p";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE;
    q.create = &c;
    scw_request(w, id, &q);
}

void scw_create(struct scw *w, unsigned id, const char *name, int64_t cpu, int64_t memory_mib)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    x.cpu_millis = cpu;
    x.memory_bytes = memory_mib * MIB;
    spec.resources = &x;
    spec.image = (char *)"oci:/images:busybox";
    scw_create_spec(w, id, name, &spec, 0);
}

void scw_resize(struct scw *w, unsigned id, const char *name, int64_t cpu, int64_t memory_mib, const char *etag)
{
    char full[256];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__ResizeContainerRequest c = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    full_name(full, name);
    x.cpu_millis = cpu;
    x.memory_bytes = memory_mib * MIB;
    c.name = full;
    c.resources = &x;
    c.etag = (char *)etag;
    q.project = (char *)"p";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE;
    q.resize = &c;
    scw_request(w, id, &q);
}

void scw_verb(struct scw *w, unsigned id, Harpoon__Internal__V1__Request__PayloadCase verb, const char *name,
              const char *etag)
{
    char full[256];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__StartContainerRequest start = HARPOON__V1__START_CONTAINER_REQUEST__INIT;
    Harpoon__V1__StopContainerRequest stop = HARPOON__V1__STOP_CONTAINER_REQUEST__INIT;
    Harpoon__V1__RestartContainerRequest restart = HARPOON__V1__RESTART_CONTAINER_REQUEST__INIT;
    Harpoon__V1__DeleteContainerRequest del = HARPOON__V1__DELETE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__CordonHostRequest cordon = HARPOON__V1__CORDON_HOST_REQUEST__INIT;
    Harpoon__V1__UncordonHostRequest uncordon = HARPOON__V1__UNCORDON_HOST_REQUEST__INIT;
    Harpoon__V1__DrainHostRequest drain = HARPOON__V1__DRAIN_HOST_REQUEST__INIT;
    Harpoon__V1__DeclareHostLostRequest lost = HARPOON__V1__DECLARE_HOST_LOST_REQUEST__INIT;
    bool of_host = verb >= HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON;
    if (of_host)
        hp_host_name_format(full, "r1", name);
    else
        full_name(full, name);
    q.project = of_host ? (char *)"" : (char *)"p";
    q.payload_case = verb;
    start.name = stop.name = restart.name = del.name = cordon.name = uncordon.name = drain.name = lost.name = full;
    start.etag = stop.etag = restart.etag = del.etag = (char *)etag;
    switch (verb) {
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START:
        q.start = &start;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP:
        q.stop = &stop;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART:
        q.restart = &restart;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE:
        q.delete_ = &del;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON:
        q.cordon = &cordon;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UNCORDON:
        q.uncordon = &uncordon;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DRAIN:
        q.drain = &drain;
        break;
    default:
        q.declare_lost = &lost;
    }
    scw_request(w, id, &q);
}

void scw_cancel(struct scw *w, unsigned id, unsigned target)
{
    char name[256], hex[33];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CancelOperationRequest c = HARPOON__V1__CANCEL_OPERATION_REQUEST__INIT;
    snprintf(hex, sizeof hex, "%032x", target);
    hp_operation_name_format(name, "p", "r1", hex);
    c.name = name;
    q.project = (char *)"p";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CANCEL;
    q.cancel = &c;
    scw_request(w, id, &q);
}

/* ---- Reports ---- */

void scw_report(struct scw *w, const char *host, Harpoon__Internal__V1__Report *m)
{
    m->region = (char *)"r1";
    m->host = (char *)host;
    if (!*m->router)
        m->router = (char *)"er1";
    struct sc_ev ev = {.kind = SC_EV_REPORT, .report = {.message = m, .tag = ++w->tag}};
    step(w, &ev);
    scw_flush(w);
}

void scw_attach_digest(struct scw *w, const char *host, int64_t session, int64_t cpu, int64_t memory_mib, int32_t count,
                       uint64_t digest)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    all.cpu_millis = cpu;
    all.memory_bytes = memory_mib * MIB;
    all.disk_bytes = 1LL << 40;
    d.count = count;
    d.digest = digest;
    hello.session = session;
    hello.allocatable = &all;
    hello.digest = &d;
    hello.zone = (char *)"z1";
    m.session = session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
}

void scw_attach(struct scw *w, const char *host, int64_t session, int64_t cpu, int64_t memory_mib)
{
    scw_attach_digest(w, host, session, cpu, memory_mib, 0, 0);
}

void scw_detach(struct scw *w, const char *host, int64_t session)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Detach d = HARPOON__INTERNAL__V1__DETACH__INIT;
    d.reason = (char *)"connection_lost";
    m.session = session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_DETACH;
    m.detach = &d;
    scw_report(w, host, &m);
}

void scw_journalled(struct scw *w, const char *host, const char *uid, int64_t generation)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandJournalled j = HARPOON__INTERNAL__V1__COMMAND_JOURNALLED__INIT;
    j.uid = (char *)uid;
    j.generation = generation;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_JOURNALLED;
    m.journalled = &j;
    scw_report(w, host, &m);
}

void scw_result(struct scw *w, const char *host, const char *uid, int64_t generation,
                Harpoon__Internal__V1__CommandOutcome outcome, int state, const char *error)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult x = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    x.uid = (char *)uid;
    x.generation = generation;
    x.outcome = outcome;
    if (state) {
        s.state = (Harpoon__V1__ContainerState)state;
        s.observed_generation = generation;
        x.status = &s;
    }
    if (error) {
        status.code = HP_CODE_INTERNAL;
        status.message = (char *)error;
        x.error = &status;
    }
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &x;
    scw_report(w, host, &m);
}

void scw_done(struct scw *w, const char *host, const char *uid, int64_t generation)
{
    scw_result(w, host, uid, generation, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE,
               HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING, NULL);
}

void scw_observe(struct scw *w, const char *host, const char *uid, int64_t generation, int state, const char *kind)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Observation x = HARPOON__INTERNAL__V1__OBSERVATION__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    s.state = (Harpoon__V1__ContainerState)state;
    x.uid = (char *)uid;
    x.generation = generation;
    x.status = &s;
    x.kind = (char *)kind;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION;
    m.observation = &x;
    scw_report(w, host, &m);
}

const char *scw_uid(struct scw *w, const char *name)
{
    char full[256];
    full_name(full, name);
    const struct scw_row *row = find_row(&w->containers, full);
    assert_non_null(row);
    return row->uid;
}
