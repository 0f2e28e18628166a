/* Agents' connections: bytes to frames to the core, and back. */
#include <stdlib.h>

#include "base/log.h"
#include "shell/private.h"

enum { CLOSE_LINGER_MS = 1000 };

static uint64_t now(const struct er_shell *s)
{
    return uv_now(s->loop);
}

void er_agents_send(struct er_conn *c, uint64_t now_ms, const uint8_t *frame, size_t len)
{
    int rc = hp_stream_write(c->stream, frame, len);
    if ((rc == HP_ELIMIT || rc == HP_ENOMEM) && c->session)
        er_core_too_slow(c->shell->core, now_ms, c->session);
}

static void on_open(struct hp_stream *stream, void *user)
{
    struct er_conn *c = user;
    struct er_shell *s = c->shell;
    c->session = er_core_connected(s->core, now(s), c, hp_stream_peer_uri(stream));
    if (!c->session)
        hp_stream_close(stream, 0);
    er_shell_wake(s);
}

static int on_frame(void *user, const uint8_t *body, size_t len)
{
    struct er_conn *c = user;
    int rc = er_core_frame(c->shell->core, now(c->shell), c->session, body, len);
    c->done = rc != 0;
    return rc;
}

static void on_read(struct hp_stream *stream, const uint8_t *data, size_t len, void *user)
{
    struct er_conn *c = user;
    struct er_shell *s = c->shell;
    struct hp_error e = {0};
    if (c->done || !c->session)
        return;
    if (hp_frame_read(&c->reader, data, len, on_frame, c, &e) && !c->done) {
        c->done = true;
        hp_warn("broken frame: closing", HP_S("peer", hp_stream_peer(stream)), HP_S("error", e.message));
        er_core_frame_error(s->core, now(s), c->session, &e);
    }
    er_shell_apply(s);
    if (c->done) /* the core has said so already, unless it had no memory for it */
        hp_stream_close(stream, CLOSE_LINGER_MS);
    er_shell_wake(s);
}

/* Strangers can fail handshakes as fast as they like, but not fill the log. */
static void complain(struct er_shell *s, const struct hp_error *e)
{
    enum { COMPLAINTS_A_SECOND = 5 };
    if (now(s) - s->complaints_ms >= 1000) {
        s->complaints_ms = now(s);
        s->complaints = 0;
    }
    if (s->complaints++ < COMPLAINTS_A_SECOND)
        hp_warn("connection not accepted", HP_S("error", e->message));
}

static void on_close(struct hp_stream *stream, const struct hp_error *e, void *user)
{
    struct er_conn *c = user;
    struct er_shell *s = c->shell;
    (void)stream;
    if (c->session) {
        er_core_disconnected(s->core, now(s), c->session);
        er_shell_apply(s);
        er_shell_wake(s);
    } else if (e->code) {
        complain(s, e);
    }
    hp_frame_reader_done(&c->reader);
    if (c->prev)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    free(c);
    er_shell_end_if_done(s);
}

static const struct hp_stream_events events = {.on_open = on_open, .on_read = on_read, .on_close = on_close};

static void on_accept(struct hp_listener *l, struct hp_stream *stream, void *user)
{
    struct er_shell *s = user;
    struct er_conn *c = calloc(1, sizeof *c);
    (void)l;
    if (!c) {
        hp_stream_close(stream, 0);
        return;
    }
    c->shell = s;
    c->stream = stream;
    hp_frame_reader_init(&c->reader);
    hp_stream_set_events(stream, &events);
    hp_stream_set_user(stream, c);
    c->next = s->conns;
    if (s->conns)
        s->conns->prev = c;
    s->conns = c;
}

int er_agents_listen(struct er_shell *s, struct hp_error *e)
{
    struct hp_listener_options o = {
        .stream = {.tls = s->tls, .write_queue_max = (size_t)s->config->write_queue_bytes},
        .connections_max = (int)s->config->sessions_max,
        .handshakes_max = (int)s->config->handshakes_max,
    };
    return hp_listener_start(s->loop, s->config->listen, &o, on_accept, s, &s->listener, e);
}
