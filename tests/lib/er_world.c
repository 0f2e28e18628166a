#include "lib/er_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire/codec.h"
#include "wire/frame.h"

#define V1(name) HARPOON__INTERNAL__V1__##name
typedef Harpoon__Internal__V1__AgentMessage pb_agent;
typedef Harpoon__Internal__V1__RouterMessage pb_router;
typedef Harpoon__Internal__V1__RouterCommand pb_command;
typedef Harpoon__Internal__V1__Report pb_report;

static void say(struct erw *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct erw *w, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    w->trace = realloc(w->trace, w->trace_len + (size_t)n + 2);
    memcpy(w->trace + w->trace_len, line, (size_t)n);
    w->trace_len += (size_t)n;
    w->trace[w->trace_len++] = '\n';
    w->trace[w->trace_len] = '\0';
}

static void *unpack(const ProtobufCMessageDescriptor *d, const uint8_t *data, size_t len)
{
    ProtobufCMessage *m = NULL;
    struct hp_error e = {0};
    assert_int_equal(hp_unpack(d, data, len, NULL, &m, &e), 0);
    return m;
}

static void say_send(struct erw *w, size_t link, const uint8_t *frame, size_t len)
{
    assert_true(len > HP_FRAME_HEADER);
    assert_int_equal((size_t)frame[1] << 16 | (size_t)frame[2] << 8 | frame[3], len - HP_FRAME_HEADER);
    pb_router *m =
        unpack(&harpoon__internal__v1__router_message__descriptor, frame + HP_FRAME_HEADER, len - HP_FRAME_HEADER);
    switch (m->body_case) {
    case V1(ROUTER_MESSAGE__BODY_WELCOME):
        say(w, "%zu< welcome %s v%d heartbeat=%d metrics=%d window=%d", link, m->welcome->router, m->welcome->version,
            m->welcome->heartbeat_ms, m->welcome->metrics_ms, m->welcome->window);
        break;
    case V1(ROUTER_MESSAGE__BODY_COMMAND):
        say(w, "%zu< command %s/%lld", link, m->command->uid, (long long)m->command->generation);
        break;
    case V1(ROUTER_MESSAGE__BODY_CONFIRMED): {
        char ids[512] = "";
        for (size_t i = 0; i < m->confirmed->n_report_ids && i < 40; i++)
            snprintf(ids + strlen(ids), sizeof ids - strlen(ids), " %lld", (long long)m->confirmed->report_ids[i]);
        say(w, "%zu< confirmed%s", link, ids);
        break;
    }
    case V1(ROUTER_MESSAGE__BODY_DRAINING):
        say(w, "%zu< draining %d", link, m->draining->deadline_ms);
        break;
    case V1(ROUTER_MESSAGE__BODY_HEARTBEAT):
        say(w, "%zu< heartbeat", link);
        break;
    case V1(ROUTER_MESSAGE__BODY_REFUSED):
        say(w, "%zu< refused %d%s: %s", link, m->refused->status->code, m->refused->retry_ms ? " retry" : "",
            m->refused->status->message);
        break;
    case V1(ROUTER_MESSAGE__BODY_INVENTORY_REQUEST):
        say(w, "%zu< inventory? %lld", link, (long long)m->inventory_request->request_id);
        break;
    default:
        fail();
    }
    hp_unpacked_free(&m->base);
}

static void say_report(struct erw *w, const struct er_report *report)
{
    size_t len;
    const uint8_t *body = er_report_body(report, &len);
    pb_report *r = unpack(&harpoon__internal__v1__report__descriptor, body, len);
    assert_string_equal(r->router, "er-1-abc");
    assert_string_equal(r->region, "r1");
    char head[100];
    snprintf(head, sizeof head, "publish %s#%lld", r->host, (long long)r->session);
    switch (r->body_case) {
    case V1(REPORT__BODY_ATTACH):
        say(w, "%s attach zone=%s digest=%d/%llu", head, r->attach->zone, r->attach->digest->count,
            (unsigned long long)r->attach->digest->digest);
        break;
    case V1(REPORT__BODY_DETACH):
        say(w, "%s detach %s", head, r->detach->reason);
        break;
    case V1(REPORT__BODY_JOURNALLED):
        say(w, "%s journalled %lld", head, (long long)r->journalled->report_id);
        break;
    case V1(REPORT__BODY_RESULT):
        say(w, "%s result %lld %s/%lld", head, (long long)r->result->report_id, r->result->uid,
            (long long)r->result->generation);
        break;
    case V1(REPORT__BODY_OBSERVATION):
        say(w, "%s observation %lld", head, (long long)r->observation->report_id);
        break;
    case V1(REPORT__BODY_INVENTORY):
        say(w, "%s inventory %lld", head, (long long)r->inventory->request_id);
        break;
    case V1(REPORT__BODY_UNDELIVERED):
        say(w, "%s undelivered %s/%lld %s", head, r->undelivered->uid, (long long)r->undelivered->generation,
            r->undelivered->reason);
        break;
    case V1(REPORT__BODY_DIGEST):
        say(w, "%s digest %d/%llu", head, r->digest->count, (unsigned long long)r->digest->digest);
        break;
    default:
        fail();
    }
    hp_unpacked_free(&r->base);
}

static void say_metrics(struct erw *w, const uint8_t *body, size_t len)
{
    Harpoon__Internal__V1__MetricsBatch *b = unpack(&harpoon__internal__v1__metrics_batch__descriptor, body, len);
    char text[512] = "";
    assert_string_equal(b->router, "er-1-abc");
    for (size_t i = 0; i < b->n_samples && i < 20; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), " %s#%lld%s", b->samples[i]->host,
                 (long long)b->samples[i]->session, b->samples[i]->metrics ? "+" : "");
    if (w->quiet)
        say(w, "metrics of %zu", b->n_samples);
    else
        say(w, "metrics%s", text);
    hp_unpacked_free(&b->base);
}

void erw_apply(struct erw *w)
{
    size_t count;
    const struct er_effect *list = er_core_effects(w->core, &count);
    for (size_t i = 0; i < count; i++) {
        const struct er_effect *f = &list[i];
        size_t link = (size_t)(uintptr_t)f->link;
        switch (f->kind) {
        case ER_SEND:
            if (!w->quiet)
                say_send(w, link, er_core_bytes(w->core, f->offset), f->len);
            break;
        case ER_CLOSE:
            say(w, "%zu close", link);
            w->closed[link] = true;
            break;
        case ER_PAUSE:
            say(w, "%zu pause", link);
            break;
        case ER_RESUME:
            say(w, "%zu resume", link);
            break;
        case ER_PUBLISH:
            assert_true(w->pending_count < ERW_PENDING_MAX);
            w->pending[w->pending_count++] = f->report;
            if (!w->quiet)
                say_report(w, f->report);
            break;
        case ER_PUBLISH_METRICS:
            say_metrics(w, er_core_bytes(w->core, f->offset), f->len);
            break;
        case ER_NOTE:
            break; /* for the log only */
        case ER_DRAINED:
            say(w, "drained");
            break;
        }
    }
    er_core_effects_done(w->core);
}

void erw_end_turn(struct erw *w)
{
    erw_apply(w);
    er_core_end_turn(w->core, w->now);
    erw_apply(w);
}

/* Compares, and forgets, what has happened. */
void erw_expect(struct erw *w, const char *trace)
{
    erw_end_turn(w);
    const char *got = w->trace ? w->trace : "";
    if (strcmp(got, trace) != 0)
        fail_msg("expected:\n%sgot:\n%s", trace, got);
    free(w->trace);
    w->trace = NULL;
    w->trace_len = 0;
}

void erw_forget(struct erw *w)
{
    erw_end_turn(w);
    free(w->trace);
    w->trace = NULL;
    w->trace_len = 0;
}

const struct er_options erw_defaults = {
    .router = "er-1-abc",
    .region = "r1",
    .heartbeat_ms = 5000,
    .metrics_ms = 5000,
    .window = 2,
    .sessions_max = 100,
    .attaches_max = 100,
    .drain_ms = 10000,
    .check_identity = true,
    .seed = 7,
};

void erw_init(struct erw *w, const struct er_options *o)
{
    struct hp_error e = {0};
    memset(w, 0, sizeof *w);
    w->now = 1000000;
    assert_int_equal(er_core_new(o, w->now, &w->core, &e), 0);
}

void erw_connect(struct erw *w, size_t link, const char *uri)
{
    w->session[link] = er_core_connected(w->core, w->now, (void *)(uintptr_t)link, uri);
    w->closed[link] = false;
}

void erw_disconnect(struct erw *w, size_t link)
{
    er_core_disconnected(w->core, w->now, w->session[link]);
    w->session[link] = NULL;
    erw_apply(w);
}

static uint8_t *pack(const ProtobufCMessage *m, size_t *ret_len)
{
    uint8_t *body;
    struct hp_error e = {0};
    assert_int_equal(hp_pack(m, &body, ret_len, &e), 0);
    return body;
}

static int feed_body(struct erw *w, size_t link, uint8_t *body, size_t len)
{
    int rc = er_core_frame(w->core, w->now, w->session[link], body, len);
    free(body);
    erw_apply(w);
    return rc;
}

int erw_feed(struct erw *w, size_t link, const pb_agent *m)
{
    size_t len;
    uint8_t *body = pack(&m->base, &len);
    return feed_body(w, link, body, len);
}

uint8_t *erw_pack_hello(const char *region, const char *host, int64_t session, int version, size_t *ret_len)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentHello h = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    d.count = 3;
    d.digest = 77;
    h.version_min = h.version_max = version;
    h.region = (char *)(uintptr_t)region;
    h.host = (char *)(uintptr_t)host;
    h.session = session;
    h.zone = (char *)(uintptr_t) "z1";
    h.digest = &d;
    m.body_case = V1(AGENT_MESSAGE__BODY_HELLO);
    m.hello = &h;
    return pack(&m.base, ret_len);
}

int erw_hello_as(struct erw *w, size_t link, const char *region, const char *host, int64_t session, int version)
{
    size_t len;
    uint8_t *body = erw_pack_hello(region, host, session, version, &len);
    return feed_body(w, link, body, len);
}

int erw_hello(struct erw *w, size_t link, const char *host, int64_t session)
{
    return erw_hello_as(w, link, "r1", host, session, 1);
}

int erw_send_empty(struct erw *w, size_t link, int body_case)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Heartbeat beat = HARPOON__INTERNAL__V1__HEARTBEAT__INIT;
    Harpoon__Internal__V1__AgentMetrics metrics = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    Harpoon__Internal__V1__Goodbye bye = HARPOON__INTERNAL__V1__GOODBYE__INIT;
    m.body_case = body_case;
    if (body_case == V1(AGENT_MESSAGE__BODY_HEARTBEAT))
        m.heartbeat = &beat;
    else if (body_case == V1(AGENT_MESSAGE__BODY_METRICS))
        m.metrics = &metrics;
    else
        m.goodbye = &bye;
    return erw_feed(w, link, &m);
}

int erw_observe(struct erw *w, size_t link, int64_t report_id)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Observation o = HARPOON__INTERNAL__V1__OBSERVATION__INIT;
    o.report_id = report_id;
    m.body_case = V1(AGENT_MESSAGE__BODY_OBSERVATION);
    m.observation = &o;
    return erw_feed(w, link, &m);
}

uint8_t *erw_pack_result(int64_t report_id, const char *uid, int64_t generation, size_t *ret_len)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__CommandResult r = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    r.report_id = report_id;
    r.uid = (char *)(uintptr_t)uid;
    r.generation = generation;
    m.body_case = V1(AGENT_MESSAGE__BODY_RESULT);
    m.result = &r;
    return pack(&m.base, ret_len);
}

int erw_result(struct erw *w, size_t link, int64_t report_id, const char *uid, int64_t generation)
{
    size_t len;
    uint8_t *body = erw_pack_result(report_id, uid, generation, &len);
    return feed_body(w, link, body, len);
}

uint8_t *erw_pack_metrics(size_t *ret_len)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentMetrics metrics = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    m.body_case = V1(AGENT_MESSAGE__BODY_METRICS);
    m.metrics = &metrics;
    return pack(&m.base, ret_len);
}

static void route_body(struct erw *w, uint8_t *body, size_t len)
{
    er_core_command(w->core, w->now, body, len);
    free(body);
    erw_apply(w);
}

void erw_route(struct erw *w, const pb_command *m)
{
    size_t len;
    uint8_t *body = pack(&m->base, &len);
    route_body(w, body, len);
}

uint8_t *erw_pack_command(const char *host, int64_t session, const char *uid, int64_t generation, int64_t deadline_ms,
                          size_t *ret_len)
{
    pb_command m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    Harpoon__Internal__V1__Command c = HARPOON__INTERNAL__V1__COMMAND__INIT;
    c.region = (char *)(uintptr_t) "r1";
    c.host = (char *)(uintptr_t)host;
    c.session = session;
    c.uid = (char *)(uintptr_t)uid;
    c.generation = generation;
    c.deadline_ms = deadline_ms;
    m.body_case = V1(ROUTER_COMMAND__BODY_COMMAND);
    m.command = &c;
    return pack(&m.base, ret_len);
}

void erw_command(struct erw *w, const char *host, int64_t session, const char *uid, int64_t generation,
                 int64_t deadline_ms)
{
    size_t len;
    uint8_t *body = erw_pack_command(host, session, uid, generation, deadline_ms, &len);
    route_body(w, body, len);
}

void erw_announce(struct erw *w)
{
    pb_command m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    Harpoon__Internal__V1__Announce a = HARPOON__INTERNAL__V1__ANNOUNCE__INIT;
    m.body_case = V1(ROUTER_COMMAND__BODY_ANNOUNCE);
    m.announce = &a;
    erw_route(w, &m);
}

void erw_outcome(struct erw *w, size_t index, enum er_outcome o)
{
    assert_true(index < w->pending_count);
    struct er_report *r = w->pending[index];
    memmove(&w->pending[index], &w->pending[index + 1], (w->pending_count - index - 1) * sizeof *w->pending);
    w->pending_count--;
    er_core_published(w->core, w->now, r, o);
    erw_apply(w);
}

void erw_confirm_all(struct erw *w)
{
    while (w->pending_count)
        erw_outcome(w, 0, ER_CONFIRMED);
}

void erw_broker(struct erw *w, bool ready)
{
    er_core_broker(w->core, w->now, ready);
    erw_apply(w);
}

/* Lets time pass, deadline by deadline. */
void erw_pass(struct erw *w, uint64_t ms)
{
    uint64_t until = w->now + ms, due;
    for (int i = 0; (due = er_core_deadline(w->core)) <= until; i++) {
        assert_true(i < 100000); /* a deadline that does not move would burn the processor */
        if (due > w->now)
            w->now = due;
        er_core_tick(w->core, w->now);
        erw_apply(w);
    }
    w->now = until;
}

void erw_attach(struct erw *w, size_t link, const char *host, int64_t session)
{
    char uri[100];
    snprintf(uri, sizeof uri, "harpoon://regions/r1/hosts/%s", host);
    erw_connect(w, link, uri);
    assert_int_equal(erw_hello(w, link, host, session), 0);
}

/* One attached host h1 with session 5 on link 1, its Attach confirmed. */
void erw_one_host(struct erw *w, const struct er_options *o)
{
    erw_init(w, o);
    erw_broker(w, true);
    erw_attach(w, 1, "h1", 5);
    erw_end_turn(w);
    erw_confirm_all(w);
    erw_forget(w);
}

void erw_done(struct erw *w)
{
    for (size_t i = 0; i < ERW_LINKS; i++)
        if (w->session[i])
            erw_disconnect(w, i);
    erw_end_turn(w);
    while (w->pending_count) {
        erw_confirm_all(w);
        erw_end_turn(w);
    }
    er_core_free(w->core);
    free(w->trace);
}
