#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/stream.h"
#include "lib/fake_router.h"
#include "wire/frame.h"

static void send_to(struct fr_session *s, const Harpoon__Internal__V1__RouterMessage *m)
{
    size_t n = harpoon__internal__v1__router_message__get_packed_size(m);
    uint8_t *buf = malloc(n + HP_FRAME_HEADER);
    hp_frame_header(buf, n);
    harpoon__internal__v1__router_message__pack(m, buf + HP_FRAME_HEADER);
    if (s->stream)
        assert_int_equal(hp_stream_write(s->stream, buf, n + HP_FRAME_HEADER), 0);
    free(buf);
}

static void on_hello(struct fr_session *s, const Harpoon__Internal__V1__AgentHello *h)
{
    struct fake_router *r = s->router;
    Harpoon__Internal__V1__RouterMessage m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__Welcome w = HARPOON__INTERNAL__V1__WELCOME__INIT;
    Harpoon__Internal__V1__Refused no = HARPOON__INTERNAL__V1__REFUSED__INIT;
    assert_int_equal(s->session, 0);
    assert_true(h->session > 0);
    s->session = h->session;
    snprintf(s->host, sizeof s->host, "%s", h->host);
    r->hellos++;
    r->last_digest = h->digest->digest;
    if (r->mute)
        return;
    if (r->refuse) {
        m.body_case = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_REFUSED;
        m.refused = &no;
        send_to(s, &m);
        hp_stream_close(s->stream, 1000);
        return;
    }
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_WELCOME;
    m.welcome = &w;
    w.version = 1;
    w.router = (char *)"er";
    w.heartbeat_ms = r->heartbeat_ms;
    w.metrics_ms = r->metrics_ms;
    w.window = 8;
    send_to(s, &m);
}

static void confirm(struct fr_session *s, int64_t id)
{
    Harpoon__Internal__V1__RouterMessage m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__ReportsConfirmed c = HARPOON__INTERNAL__V1__REPORTS_CONFIRMED__INIT;
    if (s->router->no_confirm)
        return;
    c.n_report_ids = 1;
    c.report_ids = &id;
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_CONFIRMED;
    m.confirmed = &c;
    send_to(s, &m);
}

static int on_frame(void *user, const uint8_t *body, size_t len)
{
    struct fr_session *s = user;
    struct fake_router *r = s->router;
    Harpoon__Internal__V1__AgentMessage *m = harpoon__internal__v1__agent_message__unpack(NULL, len, body);
    Harpoon__Internal__V1__RouterMessage beat = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__Heartbeat hb = HARPOON__INTERNAL__V1__HEARTBEAT__INIT;
    assert_non_null(m);
    assert_true(s->session > 0 || m->body_case == HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HELLO);
    switch (m->body_case) {
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HELLO:
        on_hello(s, m->hello);
        break;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HEARTBEAT:
        s->heartbeats++;
        beat.body_case = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_HEARTBEAT;
        beat.heartbeat = &hb;
        if (r->echo_heartbeats)
            send_to(s, &beat);
        break;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_METRICS:
        s->metrics++;
        break;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_GOODBYE:
        s->goodbye = true;
        break;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT:
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION:
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_INVENTORY:
        assert_true(r->heard_count < FR_REPORTS_MAX);
        r->heard[r->heard_count++] = m;
        if (m->body_case == HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT)
            confirm(s, m->result->report_id);
        if (m->body_case == HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION)
            confirm(s, m->observation->report_id);
        return 0;
    default:
        break;
    }
    harpoon__internal__v1__agent_message__free_unpacked(m, NULL);
    return 0;
}

static void on_read(struct hp_stream *stream, const uint8_t *data, size_t len, void *user)
{
    struct fr_session *s = user;
    struct hp_error e = {0};
    assert_int_equal(hp_frame_read(s->reader, data, len, on_frame, s, &e), 0);
}

static void on_close(struct hp_stream *stream, const struct hp_error *e, void *user)
{
    struct fr_session *s = user;
    hp_frame_reader_done(s->reader);
    free(s->reader);
    s->stream = NULL;
    s->router->open--;
}

static const struct hp_stream_events events = {.on_read = on_read, .on_close = on_close};

static void on_accept(struct hp_listener *l, struct hp_stream *stream, void *user)
{
    struct fake_router *r = user;
    assert_true(r->session_count < FR_SESSIONS_MAX);
    struct fr_session *s = &r->sessions[r->session_count++];
    *s = (struct fr_session){.router = r, .stream = stream, .reader = malloc(sizeof(struct hp_frame_reader))};
    hp_frame_reader_init(s->reader);
    hp_stream_set_events(stream, &events);
    hp_stream_set_user(stream, s);
    r->open++;
}

void fake_router_open(struct fake_router *r, uv_loop_t *loop)
{
    struct hp_listener_options o = {0};
    struct hp_error e = {0};
    *r = (struct fake_router){.heartbeat_ms = 5000};
    assert_int_equal(hp_listener_start(loop, "127.0.0.1:0", &o, on_accept, r, &r->listener, &e), 0);
    snprintf(r->address, sizeof r->address, "%s", hp_listener_address(r->listener));
}

void fake_router_stop_listening(struct fake_router *r)
{
    if (r->listener)
        hp_listener_close(r->listener);
    r->listener = NULL;
}

void fake_router_cut(struct fake_router *r)
{
    for (size_t i = 0; i < r->session_count; i++)
        if (r->sessions[i].stream)
            hp_stream_close(r->sessions[i].stream, 0);
}

void fake_router_close(struct fake_router *r)
{
    fake_router_stop_listening(r);
    fake_router_cut(r);
    fake_router_forget(r);
}

void fake_router_forget(struct fake_router *r)
{
    for (size_t i = 0; i < r->heard_count; i++)
        harpoon__internal__v1__agent_message__free_unpacked(r->heard[i], NULL);
    r->heard_count = 0;
}

static struct fr_session *last_open(struct fake_router *r)
{
    for (size_t i = r->session_count; i > 0; i--)
        if (r->sessions[i - 1].stream && r->sessions[i - 1].session)
            return &r->sessions[i - 1];
    fail_msg("no session is open");
    return NULL;
}

void fake_router_send(struct fake_router *r, const Harpoon__Internal__V1__RouterMessage *m)
{
    send_to(last_open(r), m);
}

void fake_router_send_raw(struct fake_router *r, const void *data, size_t len)
{
    assert_int_equal(hp_stream_write(last_open(r)->stream, data, len), 0);
}

void fake_router_command(struct fake_router *r, const Harpoon__Internal__V1__Command *c)
{
    Harpoon__Internal__V1__RouterMessage m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_COMMAND;
    m.command = (Harpoon__Internal__V1__Command *)c;
    fake_router_send(r, &m);
}

void fake_router_drain(struct fake_router *r)
{
    Harpoon__Internal__V1__RouterMessage m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__RouterDraining d = HARPOON__INTERNAL__V1__ROUTER_DRAINING__INIT;
    d.deadline_ms = 10000;
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_DRAINING;
    m.draining = &d;
    fake_router_send(r, &m);
}
