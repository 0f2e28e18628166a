/* The router's core, driven by literal sequences of events; what it does is compared as text, one effect a line. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/core.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "harpoon/internal/v1/report.pb-c.h"
#include "wire/codec.h"
#include "wire/frame.h"

#define V1(name) HARPOON__INTERNAL__V1__##name
typedef Harpoon__Internal__V1__AgentMessage pb_agent;
typedef Harpoon__Internal__V1__RouterMessage pb_router;
typedef Harpoon__Internal__V1__RouterCommand pb_command;
typedef Harpoon__Internal__V1__Report pb_report;

enum { LINKS = 8, PENDING_MAX = 6000 };

struct world {
    struct er_core *core;
    uint64_t now;
    struct er_session *session[LINKS];      /* by link number; NULL: disconnected */
    bool closed[LINKS];                     /* ER_CLOSE was seen */
    struct er_report *pending[PENDING_MAX]; /* published, no outcome yet; oldest first */
    size_t pending_count;
    char *trace; /* what has happened since the last expect() */
    size_t trace_len;
    bool quiet; /* no trace of sends and publishes */
};

static void say(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct world *w, const char *fmt, ...)
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

static void say_send(struct world *w, size_t link, const uint8_t *frame, size_t len)
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

static void say_report(struct world *w, const struct er_report *report)
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

static void say_metrics(struct world *w, const uint8_t *body, size_t len)
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

static void apply(struct world *w)
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
            assert_true(w->pending_count < PENDING_MAX);
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

static void end_turn(struct world *w)
{
    apply(w);
    er_core_end_turn(w->core, w->now);
    apply(w);
}

/* Compares, and forgets, what has happened. */
static void expect(struct world *w, const char *trace)
{
    end_turn(w);
    const char *got = w->trace ? w->trace : "";
    if (strcmp(got, trace) != 0)
        fail_msg("expected:\n%sgot:\n%s", trace, got);
    free(w->trace);
    w->trace = NULL;
    w->trace_len = 0;
}

static void forget(struct world *w)
{
    end_turn(w);
    free(w->trace);
    w->trace = NULL;
    w->trace_len = 0;
}

static const struct er_options defaults = {
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

static void world_init(struct world *w, const struct er_options *o)
{
    struct hp_error e = {0};
    memset(w, 0, sizeof *w);
    w->now = 1000000;
    assert_int_equal(er_core_new(o, w->now, &w->core, &e), 0);
}

static void connect_link(struct world *w, size_t link, const char *uri)
{
    w->session[link] = er_core_connected(w->core, w->now, (void *)(uintptr_t)link, uri);
    w->closed[link] = false;
}

static void disconnect(struct world *w, size_t link)
{
    er_core_disconnected(w->core, w->now, w->session[link]);
    w->session[link] = NULL;
    apply(w);
}

static int feed(struct world *w, size_t link, const pb_agent *m)
{
    uint8_t *body;
    size_t len;
    struct hp_error e = {0};
    assert_int_equal(hp_pack(&m->base, &body, &len, &e), 0);
    int rc = er_core_frame(w->core, w->now, w->session[link], body, len);
    free(body);
    apply(w);
    return rc;
}

static int hello_as(struct world *w, size_t link, const char *region, const char *host, int64_t session, int version)
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
    return feed(w, link, &m);
}

static int hello(struct world *w, size_t link, const char *host, int64_t session)
{
    return hello_as(w, link, "r1", host, session, 1);
}

static int simple(struct world *w, size_t link, int body_case)
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
    return feed(w, link, &m);
}

#define heartbeat(w, link) assert_int_equal(simple(w, link, V1(AGENT_MESSAGE__BODY_HEARTBEAT)), 0)
#define metrics(w, link) assert_int_equal(simple(w, link, V1(AGENT_MESSAGE__BODY_METRICS)), 0)

static int observe(struct world *w, size_t link, int64_t report_id)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Observation o = HARPOON__INTERNAL__V1__OBSERVATION__INIT;
    o.report_id = report_id;
    m.body_case = V1(AGENT_MESSAGE__BODY_OBSERVATION);
    m.observation = &o;
    return feed(w, link, &m);
}

static int result(struct world *w, size_t link, int64_t report_id, const char *uid, int64_t generation)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__CommandResult r = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    r.report_id = report_id;
    r.uid = (char *)(uintptr_t)uid;
    r.generation = generation;
    m.body_case = V1(AGENT_MESSAGE__BODY_RESULT);
    m.result = &r;
    return feed(w, link, &m);
}

static void route(struct world *w, const pb_command *m)
{
    uint8_t *body;
    size_t len;
    struct hp_error e = {0};
    assert_int_equal(hp_pack(&m->base, &body, &len, &e), 0);
    er_core_command(w->core, w->now, body, len);
    free(body);
    apply(w);
}

static void command_for(struct world *w, const char *host, int64_t session, const char *uid, int64_t generation,
                        int64_t deadline_ms)
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
    route(w, &m);
}

static void announce(struct world *w)
{
    pb_command m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    Harpoon__Internal__V1__Announce a = HARPOON__INTERNAL__V1__ANNOUNCE__INIT;
    m.body_case = V1(ROUTER_COMMAND__BODY_ANNOUNCE);
    m.announce = &a;
    route(w, &m);
}

static void outcome(struct world *w, size_t index, enum er_outcome o)
{
    assert_true(index < w->pending_count);
    struct er_report *r = w->pending[index];
    memmove(&w->pending[index], &w->pending[index + 1], (w->pending_count - index - 1) * sizeof *w->pending);
    w->pending_count--;
    er_core_published(w->core, w->now, r, o);
    apply(w);
}

static void confirm_all(struct world *w)
{
    while (w->pending_count)
        outcome(w, 0, ER_CONFIRMED);
}

static void broker(struct world *w, bool ready)
{
    er_core_broker(w->core, w->now, ready);
    apply(w);
}

/* Lets time pass, deadline by deadline. */
static void pass(struct world *w, uint64_t ms)
{
    uint64_t until = w->now + ms, due;
    for (int i = 0; (due = er_core_deadline(w->core)) <= until; i++) {
        assert_true(i < 100000); /* a deadline that does not move would burn the processor */
        if (due > w->now)
            w->now = due;
        er_core_tick(w->core, w->now);
        apply(w);
    }
    w->now = until;
}

static void attach(struct world *w, size_t link, const char *host, int64_t session)
{
    char uri[100];
    snprintf(uri, sizeof uri, "harpoon://regions/r1/hosts/%s", host);
    connect_link(w, link, uri);
    assert_int_equal(hello(w, link, host, session), 0);
}

/* One attached host h1 with session 5 on link 1, its Attach confirmed. */
static void one_host(struct world *w, const struct er_options *o)
{
    world_init(w, o);
    broker(w, true);
    attach(w, 1, "h1", 5);
    end_turn(w);
    confirm_all(w);
    forget(w);
}

static void world_done(struct world *w)
{
    for (size_t i = 0; i < LINKS; i++)
        if (w->session[i])
            disconnect(w, i);
    end_turn(w);
    while (w->pending_count) {
        confirm_all(w);
        end_turn(w);
    }
    er_core_free(w->core);
    free(w->trace);
}

/* ---- Attaching ---- */

static void attach_is_welcomed_and_reported(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, &defaults);
    broker(&w, true);
    attach(&w, 1, "h1", 5);
    expect(&w, "1< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
               "publish h1#5 attach zone=z1 digest=3/77\n");
    outcome(&w, 0, ER_CONFIRMED);
    expect(&w, "");
    disconnect(&w, 1);
    expect(&w, "publish h1#5 detach connection_lost\n");
    world_done(&w);
}

static void hello_must_match_certificate_region_and_version(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, &defaults);
    connect_link(&w, 1, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(hello(&w, 1, "h2", 5), HP_ECANCELED);
    expect(
        &w,
        "1< refused 7: hello: says harpoon://regions/r1/hosts/h2, the certificate says harpoon://regions/r1/hosts/h1\n"
        "1 close\n");
    connect_link(&w, 2, NULL);
    assert_int_equal(hello(&w, 2, "h2", 5), HP_ECANCELED);
    expect(&w, "2< refused 7: hello: says harpoon://regions/r1/hosts/h2, the certificate says nothing\n2 close\n");
    connect_link(&w, 3, "harpoon://regions/r2/hosts/h1");
    assert_int_equal(hello_as(&w, 3, "r2", "h1", 5, 1), HP_ECANCELED);
    expect(&w, "3< refused 9: hello: region r2, but this router serves r1\n3 close\n");
    connect_link(&w, 4, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(hello_as(&w, 4, "r1", "h1", 5, 2), HP_ECANCELED);
    expect(&w, "4< refused 9: this router speaks version 1, the agent 2 to 2\n4 close\n");
    connect_link(&w, 5, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(hello(&w, 5, "H 1", 5), HP_ECANCELED);
    expect(&w, "5< refused 3: hello: region, host or session is not valid\n5 close\n");
    connect_link(&w, 6, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(hello(&w, 6, "h1", 0), HP_ECANCELED);
    expect(&w, "6< refused 3: hello: region, host or session is not valid\n6 close\n");
    assert_int_equal(simple(&w, 6, V1(AGENT_MESSAGE__BODY_HEARTBEAT)), HP_ECANCELED); /* too late */
    expect(&w, "");
    world_done(&w);
}

static void first_message_is_the_hello_and_only_it(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, &defaults);
    connect_link(&w, 1, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(simple(&w, 1, V1(AGENT_MESSAGE__BODY_HEARTBEAT)), HP_ECANCELED);
    expect(&w, "1 close\n");
    attach(&w, 2, "h1", 5);
    forget(&w);
    assert_int_equal(hello(&w, 2, "h1", 6), HP_ECANCELED);
    expect(&w, "2 close\n");
    connect_link(&w, 3, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(er_core_frame(w.core, w.now, w.session[3], (const uint8_t *)"\x0a\xff", 2), HP_EPROTO);
    expect(&w, "3 close\n");
    world_done(&w);
}

static void silence_before_the_hello_is_cut(void **state)
{
    struct world w;
    (void)state;
    world_init(&w, &defaults);
    connect_link(&w, 1, "harpoon://regions/r1/hosts/h1");
    pass(&w, ER_HELLO_MS - 500);
    expect(&w, "");
    pass(&w, 1000);
    expect(&w, "1 close\n");
    world_done(&w);
}

static void higher_session_replaces_lower(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    connect_link(&w, 2, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(hello(&w, 2, "h1", 5), HP_ECANCELED);
    expect(&w, "2< refused 6: hello: session 5, but 5 is attached\n2 close\n");
    attach(&w, 3, "h1", 6);
    expect(&w, "1 close\n"
               "3< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
               "publish h1#5 detach replaced\n"
               "publish h1#6 attach zone=z1 digest=3/77\n");
    disconnect(&w, 1); /* the old connection goes: nothing more to say */
    command_for(&w, "h1", 6, "u1", 1, 0);
    expect(&w, "3< command u1/1\n");
    world_done(&w);
}

static void attach_storm_is_admitted_in_portions(void **state)
{
    struct world w;
    struct er_options o = defaults;
    (void)state;
    o.attaches_max = 2;
    world_init(&w, &o);
    broker(&w, true);
    attach(&w, 1, "h1", 5);
    attach(&w, 2, "h2", 5);
    forget(&w);
    connect_link(&w, 3, "harpoon://regions/r1/hosts/h3");
    assert_int_equal(hello(&w, 3, "h3", 5), HP_ECANCELED);
    expect(&w, "3< refused 14 retry: too many agents attach at once\n3 close\n");
    disconnect(&w, 3);
    outcome(&w, 0, ER_CONFIRMED);
    end_turn(&w);
    attach(&w, 3, "h3", 6);
    expect(&w, "3< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
               "publish h3#6 attach zone=z1 digest=3/77\n");
    disconnect(&w, 2); /* unconfirmed ones that leave make room too */
    attach(&w, 4, "h4", 5);
    expect(&w, "4< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
               "publish h2#5 detach connection_lost\n"
               "publish h4#5 attach zone=z1 digest=3/77\n");
    world_done(&w);
}

static void connections_have_a_limit(void **state)
{
    struct world w;
    struct er_options o = defaults;
    (void)state;
    o.sessions_max = 1;
    world_init(&w, &o);
    connect_link(&w, 1, NULL);
    connect_link(&w, 2, NULL);
    assert_non_null(w.session[1]);
    assert_null(w.session[2]);
    world_done(&w);
}

/* ---- Commands ---- */

static void window_holds_commands_back_in_order(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    for (int64_t i = 1; i <= 4; i++)
        command_for(&w, "h1", 5, "u1", i, 0);
    expect(&w, "1< command u1/1\n1< command u1/2\n");
    result(&w, 1, 10, "u1", 2);
    expect(&w, "1< command u1/3\npublish h1#5 result 10 u1/2\n");
    result(&w, 1, 11, "u9", 9); /* of no command that is known: frees nothing */
    expect(&w, "publish h1#5 result 11 u9/9\n");
    result(&w, 1, 12, "u1", 1);
    result(&w, 1, 13, "u1", 3);
    expect(&w, "1< command u1/4\npublish h1#5 result 12 u1/1\npublish h1#5 result 13 u1/3\n");
    world_done(&w);
}

static void window_opens_when_a_command_has_expired(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    command_for(&w, "h1", 5, "a", 1, 3000);
    command_for(&w, "h1", 5, "b", 1, 100000);
    command_for(&w, "h1", 5, "late", 1, 2000);
    command_for(&w, "h1", 5, "c", 1, 100000);
    expect(&w, "1< command a/1\n1< command b/1\n");
    w.now += 3500;
    command_for(&w, "h1", 5, "d", 1, 100000); /* finds a's place free; c was first; late is too late itself */
    expect(&w, "1< command c/1\n");
    world_done(&w);
}

static void undeliverable_commands_come_back(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    command_for(&w, "h2", 5, "u1", 1, 0);
    command_for(&w, "h1", 4, "u1", 2, 0);
    command_for(&w, "h1", 6, "u1", 3, 0);
    expect(&w, "publish h2#5 undelivered u1/1 no_session\n"
               "publish h1#4 undelivered u1/2 other_session\n"
               "publish h1#6 undelivered u1/3 other_session\n");
    for (int64_t i = 0; i < 2 + ER_HELD_MAX; i++)
        command_for(&w, "h1", 5, "u2", i, 0);
    forget(&w);
    command_for(&w, "h1", 5, "u3", 1, 0);
    expect(&w, "publish h1#5 undelivered u3/1 buffer_full\n");
    er_core_command(w.core, w.now, (const uint8_t *)"\xff\xff", 2); /* poison: dropped */
    expect(&w, "");
    world_done(&w);
}

static void inventory_is_asked_of_the_right_session(void **state)
{
    struct world w;
    pb_command m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    Harpoon__Internal__V1__HostInventoryRequest r = HARPOON__INTERNAL__V1__HOST_INVENTORY_REQUEST__INIT;
    pb_agent answer = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Inventory inventory = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    (void)state;
    one_host(&w, &defaults);
    r.host = (char *)(uintptr_t) "h1";
    r.session = 4;
    r.request_id = 9;
    m.body_case = V1(ROUTER_COMMAND__BODY_INVENTORY_REQUEST);
    m.inventory_request = &r;
    route(&w, &m);
    expect(&w, "");
    r.session = 5;
    route(&w, &m);
    inventory.request_id = 9;
    answer.body_case = V1(AGENT_MESSAGE__BODY_INVENTORY);
    answer.inventory = &inventory;
    feed(&w, 1, &answer);
    expect(&w, "1< inventory? 9\npublish h1#5 inventory 9\n");
    outcome(&w, 0, ER_CONFIRMED);
    expect(&w, ""); /* no id: nothing to confirm */
    world_done(&w);
}

/* ---- Reports ---- */

static void confirms_are_passed_on_in_order_and_together(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    for (int64_t id = 1; id <= 4; id++)
        observe(&w, 1, id);
    expect(&w, "publish h1#5 observation 1\npublish h1#5 observation 2\n"
               "publish h1#5 observation 3\npublish h1#5 observation 4\n");
    outcome(&w, 1, ER_CONFIRMED); /* 2: 1 is still open */
    expect(&w, "");
    outcome(&w, 0, ER_CONFIRMED); /* 1 */
    outcome(&w, 0, ER_CONFIRMED); /* 3 */
    expect(&w, "1< confirmed 1 2 3\n");
    outcome(&w, 0, ER_CONFIRMED);
    expect(&w, "1< confirmed 4\n");
    world_done(&w);
}

/* A report that was not confirmed must not be overtaken by a newer one for good. */
static void failed_report_is_repeated_with_all_that_follow(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    for (int64_t id = 1; id <= 3; id++)
        observe(&w, 1, id);
    forget(&w);
    outcome(&w, 0, ER_CONFIRMED);
    outcome(&w, 0, ER_FAILED); /* 2 */
    observe(&w, 1, 4);
    expect(&w, "");               /* 3 is still under way */
    outcome(&w, 0, ER_CONFIRMED); /* 3 */
    pass(&w, ER_RETRY_MS);
    expect(&w, "publish h1#5 observation 1\npublish h1#5 observation 2\n"
               "publish h1#5 observation 3\npublish h1#5 observation 4\n");
    confirm_all(&w);
    expect(&w, "1< confirmed 1 2 3 4\n");
    world_done(&w);
}

static void refused_publishes_are_not_hurried(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    observe(&w, 1, 1);
    int attempts = 0;
    for (uint64_t end = w.now + 30000; w.now < end;) {
        end_turn(&w);
        while (w.pending_count) {
            outcome(&w, 0, ER_FAILED);
            attempts++;
        }
        heartbeat(&w, 1);
        pass(&w, 10);
    }
    assert_in_range(attempts, 8, 14); /* 100 ms, doubled up to 5 s */
    forget(&w);
    pass(&w, ER_RETRY_MAX_MS);
    outcome(&w, 0, ER_CONFIRMED);
    end_turn(&w);
    assert_non_null(strstr(w.trace, "1< confirmed 1\n"));
    world_done(&w);
}

static void sessions_outlive_the_broker_and_are_announced_again(void **state)
{
    struct world w;
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    (void)state;
    one_host(&w, &defaults);
    attach(&w, 2, "h2", 8);
    end_turn(&w);
    confirm_all(&w);
    d.count = 4;
    d.digest = 99;
    m.body_case = V1(AGENT_MESSAGE__BODY_DIGEST);
    m.digest = &d;
    feed(&w, 1, &m);
    observe(&w, 1, 1);
    forget(&w);
    broker(&w, false);
    outcome(&w, 0, ER_FAILED);
    outcome(&w, 0, ER_FAILED);
    observe(&w, 1, 2);
    disconnect(&w, 2);
    attach(&w, 3, "h3", 1);
    expect(&w, "3< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n");
    pass(&w, 2000);
    expect(&w, "");
    broker(&w, true);
    expect(&w, "publish h2#8 detach connection_lost\n"
               "publish h1#5 attach zone=z1 digest=4/99\n"
               "publish h1#5 digest 4/99\n"
               "publish h1#5 observation 1\n"
               "publish h1#5 observation 2\n"
               "publish h3#1 attach zone=z1 digest=3/77\n");
    confirm_all(&w);
    expect(&w, "1< confirmed 1 2\n");
    announce(&w);
    expect(&w, "publish h1#5 attach zone=z1 digest=4/99\n"
               "publish h3#1 attach zone=z1 digest=3/77\n");
    world_done(&w);
}

static void host_that_cannot_be_heard_by_the_broker_is_paused(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    broker(&w, false);
    for (int64_t id = 1; id <= ER_REPORTS_MAX; id++)
        assert_int_equal(observe(&w, 1, id), 0);
    expect(&w, "1 pause\n");
    pass(&w, 60000); /* it is us who do not listen: the host is not lost */
    w.quiet = true;
    forget(&w);
    broker(&w, true);
    for (int i = 0; i < 10; i++) {
        end_turn(&w);
        confirm_all(&w);
    }
    expect(&w, "1 resume\n");
    world_done(&w);
}

static void reports_of_a_lost_host_still_leave(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    observe(&w, 1, 1);
    observe(&w, 1, 2);
    disconnect(&w, 1);
    expect(&w, "publish h1#5 observation 1\npublish h1#5 observation 2\npublish h1#5 detach connection_lost\n");
    outcome(&w, 0, ER_FAILED); /* the agent will repeat it */
    outcome(&w, 1, ER_FAILED); /* the detach is ours to repeat */
    pass(&w, ER_RETRY_MS);
    expect(&w, "publish h1#5 detach connection_lost\n");
    world_done(&w);
}

static void reports_need_an_id(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    assert_int_equal(observe(&w, 1, 0), HP_ECANCELED);
    expect(&w, "1 close\npublish h1#5 detach protocol_error\n");
    world_done(&w);
}

/* ---- Heartbeats, metrics, the end ---- */

static void heartbeats_go_both_ways(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    pass(&w, 5300);
    expect(&w, "metrics h1#5\n1< heartbeat\n");
    pass(&w, 5300);
    expect(&w, "1< heartbeat\n");
    heartbeat(&w, 1);
    pass(&w, 14900);
    expect(&w, "metrics h1#5\n1< heartbeat\n1< heartbeat\n1< heartbeat\n");
    pass(&w, 600);
    expect(&w, "1 close\npublish h1#5 detach heartbeat_missed\n");
    world_done(&w);
}

static void metrics_are_batched(void **state)
{
    struct world w;
    struct er_options o = defaults;
    (void)state;
    o.heartbeat_ms = 60000;
    one_host(&w, &o);
    attach(&w, 2, "h2", 8);
    pass(&w, 1000);
    forget(&w);
    heartbeat(&w, 2);
    metrics(&w, 1);
    heartbeat(&w, 1);
    heartbeat(&w, 2);
    for (int i = 0; i < 10; i++)
        metrics(&w, 2);
    expect(&w, "");
    pass(&w, ER_METRICS_BATCH_MS);
    expect(&w, "metrics h2#8 h1#5+ h2#8+ h2#8+ h2#8+ h2#8+\n"); /* the rest is too much */
    pass(&w, 2000);
    expect(&w, ""); /* nothing was heard: no batch */
    broker(&w, false);
    metrics(&w, 1);
    pass(&w, ER_METRICS_BATCH_MS);
    broker(&w, true);
    forget(&w);
    metrics(&w, 1);
    pass(&w, ER_METRICS_BATCH_MS);
    expect(&w, "metrics h1#5+\n"); /* what was for the absent broker is gone */
    world_done(&w);
}

static void large_batches_are_split(void **state)
{
    struct world w;
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentMetrics am = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    Harpoon__Internal__V1__ContainerMetrics cm = HARPOON__INTERNAL__V1__CONTAINER_METRICS__INIT;
    Harpoon__Internal__V1__ContainerMetrics *list[3000];
    (void)state;
    one_host(&w, &defaults);
    pass(&w, 1000);
    forget(&w);
    cm.uid = (char *)(uintptr_t) "0123456789abcdefghjkmnpqrs";
    cm.memory_bytes_used = 1;
    for (size_t i = 0; i < 3000; i++)
        list[i] = &cm;
    am.containers = list;
    am.n_containers = 3000;
    m.body_case = V1(AGENT_MESSAGE__BODY_METRICS);
    m.metrics = &am;
    w.quiet = true;
    for (int i = 0; i < 3; i++)
        feed(&w, 1, &m);
    expect(&w, "metrics of 2\n");
    pass(&w, ER_METRICS_BATCH_MS);
    expect(&w, "metrics of 1\n");
    world_done(&w);
}

static void slow_hosts_and_broken_frames_are_cut(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    attach(&w, 2, "h2", 8);
    end_turn(&w);
    confirm_all(&w);
    forget(&w);
    er_core_too_slow(w.core, w.now, w.session[1]);
    er_core_too_slow(w.core, w.now, w.session[1]);
    er_core_frame_error(w.core, w.now, w.session[2], &(struct hp_error){HP_EPROTO, "length 0"});
    expect(&w, "1 close\n2 close\npublish h1#5 detach too_slow\npublish h2#8 detach protocol_error\n");
    command_for(&w, "h1", 5, "u1", 1, 0);
    expect(&w, "publish h1#5 undelivered u1/1 no_session\n");
    world_done(&w);
}

static void goodbye_detaches_at_once(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    assert_int_equal(simple(&w, 1, V1(AGENT_MESSAGE__BODY_GOODBYE)), HP_ECANCELED);
    expect(&w, "1 close\npublish h1#5 detach goodbye\n");
    world_done(&w);
}

static void drain_moves_agents_and_waits_for_the_broker(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    attach(&w, 2, "h2", 8);
    end_turn(&w);
    confirm_all(&w);
    connect_link(&w, 3, NULL); /* has not said hello */
    forget(&w);
    er_core_drain(w.core, w.now);
    expect(&w, "3 close\n2< draining 10000\n1< draining 10000\n");
    disconnect(&w, 3);
    connect_link(&w, 4, NULL);
    assert_null(w.session[4]); /* nobody new */
    pass(&w, 1000);
    forget(&w);
    disconnect(&w, 1);                    /* it has moved */
    command_for(&w, "h2", 8, "u1", 1, 0); /* the other one works on */
    observe(&w, 2, 1);
    expect(&w, "2< command u1/1\npublish h1#5 detach router_draining\npublish h2#8 observation 1\n");
    confirm_all(&w);
    expect(&w, "2< confirmed 1\n");
    heartbeat(&w, 2);
    pass(&w, 4000);
    heartbeat(&w, 2);
    forget(&w);
    pass(&w, 5200);
    end_turn(&w);
    assert_non_null(strstr(w.trace, "2 close\npublish h2#8 detach router_draining\n"));
    forget(&w);
    disconnect(&w, 2);
    expect(&w, ""); /* the detach is not confirmed */
    outcome(&w, 0, ER_CONFIRMED);
    expect(&w, "drained\n");
    pass(&w, 20000);
    expect(&w, "");
    world_done(&w);
}

static void drain_does_not_wait_for_ever(void **state)
{
    struct world w;
    (void)state;
    one_host(&w, &defaults);
    er_core_drain(w.core, w.now);
    forget(&w);
    pass(&w, 10100);
    end_turn(&w);
    disconnect(&w, 1);
    forget(&w);
    pass(&w, 6000); /* the broker does not answer */
    expect(&w, "drained\n");
    world_done(&w);

    one_host(&w, &defaults);
    broker(&w, false);
    er_core_drain(w.core, w.now);
    disconnect(&w, 1);
    expect(&w, "1< draining 10000\ndrained\n"); /* nobody could confirm anything */
    world_done(&w);
}

/* ---- Size ---- */

static void session_is_small(void **state)
{
    enum { HOSTS = 2000 };
    struct world w;
    struct er_options o = defaults;
    static struct er_session *sessions[HOSTS];
    (void)state;
    o.sessions_max = o.attaches_max = HOSTS;
    world_init(&w, &o);
    w.quiet = true;
    broker(&w, true);
    size_t before = mallinfo2().uordblks;
    for (size_t i = 0; i < HOSTS; i++) {
        char uri[100], host[20];
        snprintf(host, sizeof host, "host-%zu", i);
        snprintf(uri, sizeof uri, "harpoon://regions/r1/hosts/%s", host);
        connect_link(&w, 1, uri);
        sessions[i] = w.session[1];
        assert_int_equal(hello(&w, 1, host, 5), 0);
        end_turn(&w);
        confirm_all(&w);
        end_turn(&w);
        pass(&w, 1);
    }
    size_t each = (mallinfo2().uordblks - before) / HOSTS;
    print_message("a session holds %zu bytes\n", each);
    assert_true(each < 1024);
    for (size_t i = 0; i < HOSTS; i++) {
        w.session[1] = sessions[i];
        disconnect(&w, 1);
        end_turn(&w);
        confirm_all(&w);
    }
    world_done(&w);
}

/* Announcing a fleet keeps at most ER_PUBLISH_MAX bodies in memory, and reaches everybody. */
static void announcing_a_fleet_is_bounded(void **state)
{
    enum { HOSTS = 5000 };
    struct world w;
    struct er_options o = defaults;
    static struct er_session *sessions[HOSTS];
    (void)state;
    o.sessions_max = o.attaches_max = HOSTS;
    world_init(&w, &o);
    w.quiet = true;
    for (size_t i = 0; i < HOSTS; i++) {
        char uri[100], host[20];
        snprintf(host, sizeof host, "host-%zu", i);
        snprintf(uri, sizeof uri, "harpoon://regions/r1/hosts/%s", host);
        connect_link(&w, 1, uri);
        sessions[i] = w.session[1];
        assert_int_equal(hello(&w, 1, host, 5), 0);
    }
    broker(&w, true);
    end_turn(&w);
    assert_int_equal(w.pending_count, ER_PUBLISH_MAX);
    confirm_all(&w);
    end_turn(&w);
    assert_int_equal(w.pending_count, HOSTS - ER_PUBLISH_MAX);
    confirm_all(&w);
    end_turn(&w);
    assert_int_equal(w.pending_count, 0);
    for (size_t i = 0; i < HOSTS; i++) {
        w.session[1] = sessions[i];
        disconnect(&w, 1);
        end_turn(&w);
        confirm_all(&w);
    }
    world_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attach_is_welcomed_and_reported),
        cmocka_unit_test(hello_must_match_certificate_region_and_version),
        cmocka_unit_test(first_message_is_the_hello_and_only_it),
        cmocka_unit_test(silence_before_the_hello_is_cut),
        cmocka_unit_test(higher_session_replaces_lower),
        cmocka_unit_test(attach_storm_is_admitted_in_portions),
        cmocka_unit_test(connections_have_a_limit),
        cmocka_unit_test(window_holds_commands_back_in_order),
        cmocka_unit_test(window_opens_when_a_command_has_expired),
        cmocka_unit_test(undeliverable_commands_come_back),
        cmocka_unit_test(inventory_is_asked_of_the_right_session),
        cmocka_unit_test(confirms_are_passed_on_in_order_and_together),
        cmocka_unit_test(failed_report_is_repeated_with_all_that_follow),
        cmocka_unit_test(refused_publishes_are_not_hurried),
        cmocka_unit_test(sessions_outlive_the_broker_and_are_announced_again),
        cmocka_unit_test(host_that_cannot_be_heard_by_the_broker_is_paused),
        cmocka_unit_test(reports_of_a_lost_host_still_leave),
        cmocka_unit_test(reports_need_an_id),
        cmocka_unit_test(heartbeats_go_both_ways),
        cmocka_unit_test(metrics_are_batched),
        cmocka_unit_test(large_batches_are_split),
        cmocka_unit_test(slow_hosts_and_broken_frames_are_cut),
        cmocka_unit_test(goodbye_detaches_at_once),
        cmocka_unit_test(drain_moves_agents_and_waits_for_the_broker),
        cmocka_unit_test(drain_does_not_wait_for_ever),
        cmocka_unit_test(session_is_small),
        cmocka_unit_test(announcing_a_fleet_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
