/* The metrics endpoint: as much of HTTP/1.1 (RFC 9112) as a scraper needs, on our own streams; one request, one answer, close. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/metrics.h"
#include "io/stream.h"

enum { CONNECTIONS_MAX = 32, REQUEST_MAX_BYTES = 8192, CONNECTION_MAX_MS = 10000, ANSWER_MAX_BYTES = 16 * 1024 * 1024 };

struct hp_metrics_server {
    struct hp_listener *listener;
    uv_loop_t *loop;
    uv_timer_t sweep; /* while there are connections */
    struct scrape *scrapes;
    bool closing, sweep_closed;
};

struct scrape {
    struct hp_metrics_server *server;
    struct hp_stream *stream;
    struct scrape *next;
    uint64_t due_ms;
    bool answered;
    size_t len;
    char request[REQUEST_MAX_BYTES + 1];
};

static void free_when_unused(struct hp_metrics_server *m)
{
    if (m->closing && m->sweep_closed && !m->scrapes)
        free(m);
}

static void answer(struct scrape *c, const char *status, const char *type, const char *body, bool head_only)
{
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n"
                     "X-Content-Type-Options: nosniff\r\n\r\n",
                     status, type, strlen(body));
    assert(n > 0 && n < (int)sizeof head);
    c->answered = true;
    if (hp_stream_write(c->stream, head, (size_t)n) || (!head_only && hp_stream_write(c->stream, body, strlen(body))))
        hp_stream_close(c->stream, 0);
    else
        hp_stream_close(c->stream, CONNECTION_MAX_MS);
}

static void serve(struct scrape *c)
{
    char method[8] = "", target[128] = "", version[16] = "";
    static const char text[] = "text/plain; charset=utf-8";
    if (sscanf(c->request, "%7s %127s %15s", method, target, version) != 3 || strncmp(version, "HTTP/1.", 7) != 0) {
        answer(c, "400 Bad Request", text, "not a request of HTTP/1\n", false);
        return;
    }
    bool head_only = strcmp(method, "HEAD") == 0;
    target[strcspn(target, "?")] = '\0';
    if (!head_only && strcmp(method, "GET") != 0) {
        answer(c, "405 Method Not Allowed", text, "only GET and HEAD\n", false);
    } else if (strcmp(target, "/healthz") == 0) {
        answer(c, "200 OK", text, "ok\n", head_only);
    } else if (strcmp(target, "/metrics") == 0) {
        char *body = hp_metrics_render();
        if (body)
            answer(c, "200 OK", "text/plain; version=0.0.4; charset=utf-8", body, head_only);
        else
            answer(c, "503 Service Unavailable", text, "out of memory\n", head_only);
        free(body);
    } else {
        answer(c, "404 Not Found", text, "there are /metrics and /healthz\n", head_only);
    }
}

static void on_read(struct hp_stream *s, const uint8_t *data, size_t len, void *user)
{
    struct scrape *c = user;
    (void)s;
    if (c->answered)
        return;
    if (c->len + len > REQUEST_MAX_BYTES) {
        answer(c, "431 Request Header Fields Too Large", "text/plain", "request over 8192 bytes\n", false);
        return;
    }
    memcpy(c->request + c->len, data, len);
    c->len += len;
    c->request[c->len] = '\0';
    if (strstr(c->request, "\r\n\r\n") || strstr(c->request, "\n\n"))
        serve(c);
}

static void on_close(struct hp_stream *s, const struct hp_error *e, void *user)
{
    struct scrape *c = user;
    struct hp_metrics_server *m = c->server;
    (void)s;
    (void)e;
    for (struct scrape **p = &m->scrapes; *p; p = &(*p)->next) {
        if (*p == c) {
            *p = c->next;
            break;
        }
    }
    free(c);
    if (!m->scrapes && !m->closing)
        uv_timer_stop(&m->sweep);
    free_when_unused(m);
}

static const struct hp_stream_events events = {.on_read = on_read, .on_close = on_close};

static void sweep(uv_timer_t *t)
{
    struct hp_metrics_server *m = t->data;
    uint64_t now = uv_now(m->loop);
    for (struct scrape *c = m->scrapes; c; c = c->next)
        if (c->due_ms <= now)
            hp_stream_close(c->stream, 0);
}

static void on_accept(struct hp_listener *l, struct hp_stream *s, void *user)
{
    struct hp_metrics_server *m = user;
    struct scrape *c = calloc(1, sizeof *c);
    (void)l;
    if (!c) {
        hp_stream_close(s, 0);
        return;
    }
    c->server = m;
    c->stream = s;
    c->due_ms = uv_now(m->loop) + CONNECTION_MAX_MS;
    c->next = m->scrapes;
    m->scrapes = c;
    hp_stream_set_user(s, c);
    hp_stream_set_events(s, &events);
    if (!uv_is_active((uv_handle_t *)&m->sweep))
        uv_timer_start(&m->sweep, sweep, 1000, 1000);
}

static void sweep_closed(uv_handle_t *handle)
{
    struct hp_metrics_server *m = handle->data;
    m->sweep_closed = true;
    free_when_unused(m);
}

int hp_metrics_serve(uv_loop_t *loop, const char *address, struct hp_metrics_server **ret, struct hp_error *e)
{
    struct hp_listener_options o = {.stream = {.write_queue_max = ANSWER_MAX_BYTES},
                                    .connections_max = CONNECTIONS_MAX};
    struct hp_metrics_server *m = calloc(1, sizeof *m);
    if (!m)
        return hp_fail(e, HP_ENOMEM, "metrics endpoint: out of memory");
    m->loop = loop;
    int rc = hp_listener_start(loop, address, &o, on_accept, m, &m->listener, e);
    if (rc) {
        free(m);
        return hp_wrap(e, "metrics endpoint");
    }
    uv_timer_init(loop, &m->sweep);
    m->sweep.data = m;
    *ret = m;
    return 0;
}

const char *hp_metrics_server_address(const struct hp_metrics_server *m)
{
    return hp_listener_address(m->listener);
}

void hp_metrics_server_close(struct hp_metrics_server *m)
{
    if (!m || m->closing)
        return;
    m->closing = true;
    hp_listener_close(m->listener);
    for (struct scrape *c = m->scrapes; c; c = c->next)
        hp_stream_close(c->stream, 0);
    uv_close((uv_handle_t *)&m->sweep, sweep_closed);
}
