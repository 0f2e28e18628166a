/* One link: a listener, and for each connection two ends with a pipe in each direction. Nothing is read while the pipe's direction is dropped or holds enough, so what a sender sent waits
 * in the kernel, and neither its end nor its failure is seen before the link is healed: as behind a broken network. */
#include "lib/tcp_proxy_link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/tcp_proxy.h"

enum { CHUNK = 16 << 10, BACKLOG = 128, SLICES_PER_S = 20 };

/* What was read at once; len 0: the end of the stream. */
struct chunk {
    struct chunk *next;
    uint64_t read_ms;
    size_t len, sent;
    uint8_t data[];
};

struct tp_conn;

struct pipe {
    struct tp_conn *conn;
    enum tp_direction direction;
    uv_tcp_t *from, *to;
    struct chunk *head, **tail;
    size_t held; /* bytes of the chunks */
    bool reading, writing;
    bool ended;        /* the end was read */
    bool finished;     /* and handed on */
    uint64_t ready_ms; /* when the rate allows more */
    uv_write_t write;
    uv_shutdown_t shutdown;
};

struct tp_conn {
    struct tp_link *link;
    struct tp_conn *next, **at;
    uv_tcp_t client, target;
    uv_timer_t timer;
    uv_connect_t connect;
    struct pipe up, down;
    int handles;    /* of client, target and timer, not closed yet */
    bool connected; /* to the target */
    bool orphan;    /* half-open: one end is gone and the other is told nothing */
    bool dying;
    unsigned news; /* directions in which a reset waits for the end of a drop */
};

static void *allocate(size_t size)
{
    void *p = calloc(1, size);
    if (!p) {
        fprintf(stderr, "tcp-proxy: out of memory\n");
        abort();
    }
    return p;
}

static bool drops(const struct tp_link *l, unsigned direction)
{
    return l->state.mode == TP_DROP && (l->state.directions & direction);
}

static bool is_faulty(const struct tp_state *s)
{
    return s->mode != TP_PASS || s->delay_ms || s->bytes_per_s;
}

/* ---- the end of a connection ---- */

static void pipe_free(struct pipe *p)
{
    for (struct chunk *c; (c = p->head);) {
        p->head = c->next;
        free(c);
    }
}

static void maybe_free_link(struct tp_link *l)
{
    if (l->closing && !l->open && !l->listener.data)
        free(l);
}

static void on_closed(uv_handle_t *h)
{
    struct tp_conn *c = h->data;
    struct tp_link *l = c->link;
    if (--c->handles)
        return;
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    pipe_free(&c->up);
    pipe_free(&c->down);
    free(c);
    l->open--;
    --*l->total;
    maybe_free_link(l);
}

static void end_close(uv_tcp_t *end, bool reset)
{
    uv_os_fd_t fd;
    if (uv_is_closing((uv_handle_t *)end))
        return;
    if (reset && !uv_fileno((uv_handle_t *)end, &fd))
        (void)!setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
    uv_close((uv_handle_t *)end, on_closed);
}

static void conn_close(struct tp_conn *c, bool reset)
{
    if (c->dying)
        return;
    c->dying = true;
    end_close(&c->client, reset);
    end_close(&c->target, reset);
    uv_close((uv_handle_t *)&c->timer, on_closed);
}

/* An end has failed; the other learns it by a reset, if the news gets through. */
static void end_failed(struct tp_conn *c, const uv_tcp_t *end)
{
    unsigned way = end == &c->client ? TP_UP : TP_DOWN;
    if (!drops(c->link, way)) {
        conn_close(c, true);
        return;
    }
    c->news |= way;
    uv_read_stop((uv_stream_t *)&c->client);
    uv_read_stop((uv_stream_t *)&c->target);
    c->up.reading = c->down.reading = false;
}

/* ---- pipes ---- */

static void pump(struct pipe *p);

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct chunk *k = allocate(sizeof *k + CHUNK);
    *buf = uv_buf_init((char *)k->data, CHUNK);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct tp_conn *c = s->data;
    struct pipe *p = s == (uv_stream_t *)&c->client ? &c->up : &c->down;
    struct chunk *k = buf->base ? (struct chunk *)(buf->base - offsetof(struct chunk, data)) : NULL;
    if (n == 0 || (n < 0 && n != UV_EOF)) {
        free(k);
        if (n < 0)
            end_failed(c, p->from);
        return;
    }
    if (!k)
        k = allocate(sizeof *k);
    p->ended = n == UV_EOF;
    k->len = n > 0 ? (size_t)n : 0;
    k->read_ms = uv_now(c->link->loop);
    p->held += k->len;
    *p->tail = k;
    p->tail = &k->next;
    pump(p);
}

static void on_shutdown(uv_shutdown_t *r, int status)
{
    struct tp_conn *c = r->data;
    if (!c->dying && c->up.finished && c->down.finished)
        conn_close(c, false);
}

static void on_write(uv_write_t *w, int status)
{
    struct pipe *p = w->data;
    struct tp_conn *c = p->conn;
    struct chunk *k = p->head;
    if (c->dying || status == UV_ECANCELED)
        return;
    p->writing = false;
    if (status < 0) {
        end_failed(c, p->to);
        return;
    }
    if (k->sent == k->len) {
        p->held -= k->len;
        p->head = k->next;
        if (!p->head)
            p->tail = &p->head;
        free(k);
    }
    pump(p);
}

/* When the front of the queue may go on; UINT64_MAX: not by the clock. */
static uint64_t due_ms(const struct pipe *p)
{
    const struct tp_link *l = p->conn->link;
    if (!p->head || p->writing || p->finished || drops(l, p->direction))
        return UINT64_MAX;
    uint64_t due = p->head->read_ms + (l->state.directions & p->direction ? l->state.delay_ms : 0);
    return due > p->ready_ms ? due : p->ready_ms;
}

static void on_timer(uv_timer_t *t)
{
    struct tp_conn *c = t->data;
    pump(&c->up);
    if (!c->dying)
        pump(&c->down);
}

static void arm(struct tp_conn *c)
{
    uint64_t up = due_ms(&c->up), down = due_ms(&c->down), due = up < down ? up : down, now = uv_now(c->link->loop);
    if (due != UINT64_MAX)
        uv_timer_start(&c->timer, on_timer, due > now ? due - now : 0, 0);
}

static void hand_on(struct pipe *p)
{
    struct tp_link *l = p->conn->link;
    struct chunk *k = p->head;
    size_t n = k->len - k->sent;
    uint64_t rate = l->state.directions & p->direction ? l->state.bytes_per_s : 0;
    if (k->len == 0) {
        p->finished = true;
        p->shutdown.data = p->conn;
        if (uv_shutdown(&p->shutdown, (uv_stream_t *)p->to, on_shutdown))
            conn_close(p->conn, true);
        return;
    }
    if (rate) {
        uint64_t slice = rate / SLICES_PER_S ? rate / SLICES_PER_S : 1;
        n = n < slice ? n : slice;
        p->ready_ms = uv_now(l->loop) + (n * 1000 + rate - 1) / rate;
    }
    uv_buf_t b = uv_buf_init((char *)k->data + k->sent, (unsigned)n);
    p->writing = true;
    p->write.data = p;
    k->sent += n;
    *(p->direction == TP_UP ? &l->counters.bytes_up : &l->counters.bytes_down) += n;
    if (uv_write(&p->write, (uv_stream_t *)p->to, &b, 1, on_write)) {
        p->writing = false;
        end_failed(p->conn, p->to);
    }
}

/* Reads and hands on what the link's state allows now. */
static void pump(struct pipe *p)
{
    struct tp_conn *c = p->conn;
    if (c->dying || !c->connected || c->orphan || c->news)
        return;
    bool read = !p->ended && p->held + CHUNK <= TP_HELD_MAX && !drops(c->link, p->direction);
    if (read && !p->reading)
        uv_read_start((uv_stream_t *)p->from, on_alloc, on_read);
    else if (!read && p->reading)
        uv_read_stop((uv_stream_t *)p->from);
    p->reading = read;
    if (due_ms(p) <= uv_now(c->link->loop))
        hand_on(p);
    if (!c->dying)
        arm(c);
}

/* ---- the beginning of a connection ---- */

static void on_connect(uv_connect_t *r, int status)
{
    struct tp_conn *c = r->data;
    if (c->dying || c->orphan || status == UV_ECANCELED)
        return;
    if (status) {
        c->link->counters.failed++;
        conn_close(c, true);
        return;
    }
    c->connected = true;
    pump(&c->up);
    if (!c->dying)
        pump(&c->down);
}

static void pipe_init(struct pipe *p, struct tp_conn *c, enum tp_direction direction)
{
    *p = (struct pipe){.conn = c,
                       .direction = direction,
                       .from = direction == TP_UP ? &c->client : &c->target,
                       .to = direction == TP_UP ? &c->target : &c->client,
                       .tail = &p->head};
}

static struct tp_conn *conn_new(struct tp_link *l)
{
    struct tp_conn *c = allocate(sizeof *c);
    c->link = l;
    c->next = l->conns;
    c->at = &l->conns;
    if (c->next)
        c->next->at = &c->next;
    l->conns = c;
    l->open++;
    ++*l->total;
    uv_tcp_init(l->loop, &c->client);
    uv_tcp_init(l->loop, &c->target);
    uv_timer_init(l->loop, &c->timer);
    c->client.data = c->target.data = c->timer.data = c->connect.data = c;
    c->handles = 3;
    pipe_init(&c->up, c, TP_UP);
    pipe_init(&c->down, c, TP_DOWN);
    return c;
}

static void take(struct tp_link *l)
{
    struct tp_conn *c = conn_new(l);
    enum tp_mode mode = l->state.mode;
    bool refuse = mode == TP_REFUSE || mode == TP_RESET || (mode == TP_HALF_OPEN && l->state.directions == TP_DOWN);
    if (uv_accept((uv_stream_t *)&l->listener, (uv_stream_t *)&c->client)) {
        conn_close(c, false);
        return;
    }
    l->counters.accepted++;
    l->counters.faulted += is_faulty(&l->state);
    if (refuse || *l->total > TP_CONNECTIONS_MAX) {
        l->counters.refused++;
        conn_close(c, true);
        return;
    }
    uv_tcp_nodelay(&c->client, 1);
    if (mode == TP_HALF_OPEN) {
        c->orphan = true;
        return;
    }
    uv_tcp_nodelay(&c->target, 1);
    if (uv_tcp_connect(&c->connect, &c->target, (const struct sockaddr *)&l->to, on_connect)) {
        l->counters.failed++;
        conn_close(c, true);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct tp_link *l = listener->data;
    if (status)
        return;
    if (l->state.mode == TP_DROP)
        l->pending = true; /* until it is taken, libuv asks for no other */
    else
        take(l);
}

/* ---- links ---- */

static int parse_address(const char *what, const char *text, struct sockaddr_in *ret, struct hp_error *e)
{
    char host[32];
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    if (!colon || colon - text >= (long)sizeof host || end == colon + 1 || *end || port < 0 || port > 65535)
        return hp_fail(e, HP_EINVAL, "%s \"%.60s\": expected IPv4:port", what, text);
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    if (uv_ip4_addr(host, (int)port, ret))
        return hp_fail(e, HP_EINVAL, "%s \"%.60s\": expected IPv4:port", what, text);
    return 0;
}

static int begin(struct tp_link *l, const char *listen, struct hp_error *e)
{
    struct sockaddr_in at;
    int len = sizeof at;
    char host[32];
    int rc = parse_address("listen", listen, &at, e);
    if (rc)
        return rc;
    rc = uv_tcp_bind(&l->listener, (const struct sockaddr *)&at, 0);
    if (!rc)
        rc = uv_listen((uv_stream_t *)&l->listener, BACKLOG, on_connection);
    if (!rc)
        rc = uv_tcp_getsockname(&l->listener, (struct sockaddr *)&at, &len);
    if (rc)
        return hp_fail(e, HP_EUNAVAILABLE, "listen %s: %s", listen, uv_strerror(rc));
    uv_ip4_name(&at, host, sizeof host);
    snprintf(l->listen, sizeof l->listen, "%.15s:%u", host, (unsigned)ntohs(at.sin_port));
    return 0;
}

static void on_listener_closed(uv_handle_t *h)
{
    struct tp_link *l = h->data;
    h->data = NULL;
    maybe_free_link(l);
}

int tp_link_new(uv_loop_t *loop, const char *name, const char *listen, const char *target, size_t *total,
                struct tp_link **ret, struct hp_error *e)
{
    struct tp_link *l = allocate(sizeof *l);
    if (strlen(name) >= sizeof l->name || !*name) {
        free(l);
        return hp_fail(e, HP_EINVAL, "link: a name has 1 to %zu bytes", sizeof l->name - 1);
    }
    int rc = parse_address("target", target, &l->to, e);
    if (rc) {
        free(l);
        return rc;
    }
    l->loop = loop;
    l->total = total;
    l->state.directions = TP_BOTH;
    snprintf(l->name, sizeof l->name, "%s", name);
    snprintf(l->target, sizeof l->target, "%s", target);
    uv_tcp_init(loop, &l->listener);
    l->listener.data = l;
    rc = begin(l, listen, e);
    if (rc) {
        tp_link_close(l);
        return rc;
    }
    *ret = l;
    return 0;
}

/* The connection as the link's new state wants it. */
static void conn_apply(struct tp_conn *c)
{
    const struct tp_link *l = c->link;
    bool resets = l->state.mode == TP_RESET || (c->orphan && l->state.mode != TP_HALF_OPEN);
    if (c->dying)
        return;
    if (resets || ((c->news & TP_UP) && !drops(l, TP_UP)) || ((c->news & TP_DOWN) && !drops(l, TP_DOWN))) {
        conn_close(c, true);
        return;
    }
    if (l->state.mode == TP_HALF_OPEN && !c->orphan) {
        c->orphan = true;
        uv_read_stop((uv_stream_t *)&c->client);
        uv_read_stop((uv_stream_t *)&c->target);
        end_close(l->state.directions == TP_DOWN ? &c->client : &c->target, true);
    }
    c->up.ready_ms = c->down.ready_ms = 0;
    pump(&c->up);
    if (!c->dying)
        pump(&c->down);
}

void tp_link_set(struct tp_link *l, const struct tp_state *s)
{
    l->state = *s;
    if (is_faulty(s))
        l->counters.faulted += l->open;
    for (struct tp_conn *c = l->conns; c; c = c->next)
        conn_apply(c);
    if (l->pending && s->mode != TP_DROP) {
        l->pending = false;
        take(l);
    }
}

size_t tp_link_cut(struct tp_link *l)
{
    size_t n = 0;
    for (struct tp_conn *c = l->conns; c; c = c->next) {
        n += !c->dying;
        conn_close(c, true);
    }
    l->counters.cut += n;
    return n;
}

void tp_link_close(struct tp_link *l)
{
    assert(!l->closing);
    l->closing = true;
    tp_link_cut(l);
    uv_close((uv_handle_t *)&l->listener, on_listener_closed);
}
