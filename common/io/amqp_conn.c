/* One AMQP connection on the loop. librabbitmq serves as the codec only (amqp_wire.h): its socket functions block, under a broker alarm even for ever, while bytes over io/stream.h
 * never do.
 *
 *   WAITING ──timer──▶ CONNECTING ─▶ STARTING ─▶ TUNING ─▶ OPENING ─▶ DECLARING ─▶ OPEN ──close──▶ CLOSING ─▶ (freed)
 *      ▲                   └────────────┴───────────┴─────────┴───────────┴─────────┘
 *      └──────────────────────────── DROPPING: the stream closes, `down` is told ◀──┘
 *
 * Happy path: TCP or TLS, protocol header, start/start-ok, tune/tune-ok, open/open-ok, channel 1, all declarations in one write, `open`.
 * Failures: whatever goes wrong records the first error and closes the stream; all else happens when the stream says that it is closed. A silent peer meets the
 * deadline of the reply that is due, or two missed heartbeats. */
#include "io/amqp_conn_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/backoff.h"
#include "io/amqp_login.h"
#include "io/loop.h"
#include "io/stream.h"
#include "io/tls.h"

enum {
    CLOSE_MS = 1000,            /* for the orderly end */
    SLICE = 256 * 1024,         /* bytes given to the stream at a time */
    STREAM_QUEUE_MAX = 4 << 20, /* bytes the stream may hold */
    OUTPUT_MAX = 32 << 20,      /* encoded and not yet taken by the stream: at least one message and its frames */
    INPUT_MAX = 2 << 20,        /* an incomplete frame, and one read behind it */
    FRAME_MAX = 128 * 1024,     /* until the broker and we have agreed */
    SETTLED_MS = 5000,          /* a connection that lived so long starts the back-off anew */
    SUSPECT_MS = 200,           /* grace before a silent peer is given up: the loop itself may have been late */
    BACKOFF_INITIAL_MS = 100,
    REMAKE_MS = 10000, /* what was to be deleted then may be well by now */
};

static void on_timer(uv_timer_t *timer);
static void connect_now(struct hp_amqp_conn *c);

/* ---- Time ---- */

static uint64_t next_due(const struct hp_amqp_conn *c)
{
    if (c->state == WAITING)
        return c->closing ? UINT64_MAX : c->retry_at_ms;
    if (c->state == DROPPING)
        return UINT64_MAX;
    uint64_t due = c->reply_due_ms ? c->reply_due_ms : UINT64_MAX;
    if (c->heartbeat_ms && c->state >= OPENING && c->state <= OPEN) {
        uint64_t send = c->sent_ms + c->heartbeat_ms / 2;
        uint64_t dead = c->received_ms + 2 * c->heartbeat_ms + (c->suspect ? SUSPECT_MS : 0);
        due = send < due ? send : due;
        due = dead < due ? dead : due;
    }
    return due;
}

static void arm(struct hp_amqp_conn *c)
{
    if (uv_is_closing((uv_handle_t *)&c->timer))
        return;
    uint64_t due = next_due(c);
    uint64_t now = uv_now(c->loop);
    if (due == UINT64_MAX)
        uv_timer_stop(&c->timer);
    else
        uv_timer_start(&c->timer, on_timer, due > now ? due - now : 0, 0);
}

void hp_amqp_conn_expect(struct hp_amqp_conn *c)
{
    if (c->replies++ == 0) {
        c->reply_due_ms = uv_now(c->loop) + c->login.rpc_ms;
        arm(c);
    }
}

void hp_amqp_conn_answered(struct hp_amqp_conn *c)
{
    if (c->replies > 0)
        c->replies--;
    c->reply_due_ms = c->replies ? uv_now(c->loop) + c->login.rpc_ms : 0;
    arm(c);
}

static void on_timer(uv_timer_t *timer)
{
    struct hp_amqp_conn *c = timer->data;
    uint64_t now = uv_now(c->loop);
    if (c->state == WAITING) {
        connect_now(c);
        return;
    }
    struct hp_error e = {0};
    if (c->reply_due_ms && now >= c->reply_due_ms) {
        hp_fail(&e, HP_ETIMEDOUT, "the broker did not answer within %llu ms", (unsigned long long)c->login.rpc_ms);
        hp_amqp_conn_drop(c, 0, &e);
        return;
    }
    if (c->heartbeat_ms && c->state >= OPENING && c->state <= OPEN) {
        if (now >= c->received_ms + 2 * c->heartbeat_ms + SUSPECT_MS && c->suspect) {
            hp_fail(&e, HP_ETIMEDOUT, "no heartbeat from the broker for %llu ms",
                    (unsigned long long)(now - c->received_ms));
            hp_amqp_conn_drop(c, 0, &e);
            return;
        }
        if (now >= c->received_ms + 2 * c->heartbeat_ms && !c->suspect) {
            /* Anchored at now, so that the loop polls the socket at least once before the verdict. */
            c->suspect = true;
            c->received_ms = now - 2 * c->heartbeat_ms;
        }
        if (now >= c->sent_ms + c->heartbeat_ms / 2) {
            c->sent_ms = now;
            if (!hp_amqp_put_heartbeat(&c->out, NULL))
                hp_amqp_conn_flush(c);
        }
    }
    arm(c);
}

/* ---- Output ---- */

struct hp_buf *hp_amqp_conn_out(struct hp_amqp_conn *c)
{
    assert(c->state == OPEN || c->state == DECLARING);
    return &c->out;
}

size_t hp_amqp_conn_frame_max(const struct hp_amqp_conn *c)
{
    return c->frame_max;
}

bool hp_amqp_conn_is_open(const struct hp_amqp_conn *c)
{
    return c->state == OPEN;
}

bool hp_amqp_conn_has_room(const struct hp_amqp_conn *c)
{
    return c->state == OPEN && !c->stalled && c->out.len < HP_AMQP_OUT_HIGH;
}

void hp_amqp_conn_flush(struct hp_amqp_conn *c)
{
    if (!c->stream || c->state == CONNECTING || c->state == DROPPING)
        return;
    c->stalled = false;
    while (c->out.len) {
        size_t n = c->out.len < SLICE ? c->out.len : SLICE;
        int rc = hp_stream_write(c->stream, hp_buf_front(&c->out), n);
        if (rc == HP_ELIMIT) {
            c->stalled = true; /* on_writable goes on */
            return;
        }
        if (rc) {
            struct hp_error e = {0};
            hp_fail(&e, rc, "sending failed: %s", hp_strerror(rc));
            hp_amqp_conn_drop(c, 0, &e);
            return;
        }
        hp_buf_consume(&c->out, n);
        c->sent_ms = uv_now(c->loop);
    }
}

static void on_idle(uv_idle_t *idle)
{
    struct hp_amqp_conn *c = idle->data;
    uv_idle_stop(idle);
    c->ev->turn(c->user);
    hp_amqp_conn_flush(c);
}

void hp_amqp_conn_kick(struct hp_amqp_conn *c)
{
    if (!uv_is_closing((uv_handle_t *)&c->idle))
        uv_idle_start(&c->idle, on_idle); /* no effect when it runs already */
}

/* ---- The end of a connection ---- */

void hp_amqp_conn_drop(struct hp_amqp_conn *c, uint64_t retry_min_ms, const struct hp_error *e)
{
    if (c->state == WAITING || c->state == DROPPING)
        return;
    assert(c->stream);
    if (!c->error.code)
        c->error = *e;
    c->retry_min_ms = retry_min_ms;
    c->state = DROPPING;
    arm(c);
    hp_stream_close(c->stream, 0);
}

static void finish(struct hp_amqp_conn *c)
{
    assert(c->closing && !c->stream);
    void (*closed)(void *) = c->ev->closed;
    void *user = c->user;
    hp_tls_context_unref(c->tls);
    hp_amqp_login_done(&c->login);
    hp_amqp_objects_free(c->topology);
    hp_buf_done(&c->out);
    hp_buf_done(&c->in);
    hp_amqp_conn_reset_channels(c);
    free(c);
    closed(user);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct hp_amqp_conn *c = handle->data;
    if (--c->open_handles == 0)
        finish(c);
}

static void close_handles(struct hp_amqp_conn *c)
{
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
    uv_close((uv_handle_t *)&c->idle, on_handle_closed);
}

/* The other nodes of the cluster are tried soon, and the back-off grows with each time that all have failed. */
static uint64_t retry_delay(struct hp_amqp_conn *c)
{
    hp_amqp_login_turn(&c->login);
    if (++c->misses % c->login.node_count)
        return 1 + hp_rng_below(&c->rng, BACKOFF_INITIAL_MS);
    return hp_backoff_next_ms(&c->backoff, &c->rng);
}

/* Between connections: everything of the last one is forgotten, the next is planned. */
static void wait_for_retry(struct hp_amqp_conn *c)
{
    uint64_t now = uv_now(c->loop);
    if (c->settled_at_ms && now - c->settled_at_ms >= SETTLED_MS) {
        hp_backoff_reset(&c->backoff);
        c->misses = 0;
    }
    uint64_t delay = retry_delay(c);
    c->state = WAITING;
    c->retry_at_ms = now + (delay > c->retry_min_ms ? delay : c->retry_min_ms);
    c->retry_min_ms = c->settled_at_ms = c->reply_due_ms = c->heartbeat_ms = 0;
    c->replies = 0;
    c->stalled = c->suspect = false;
    hp_buf_done(&c->in);
    hp_buf_done(&c->out);
    hp_amqp_conn_reset_channels(c);
}

static void ended(struct hp_amqp_conn *c)
{
    struct hp_error e = c->error;
    c->error = (struct hp_error){0};
    hp_wrap(&e, "broker %s", hp_amqp_login_node(&c->login)->address);
    bool closing = c->closing; /* `down` may close, and then the handles are closing already */
    wait_for_retry(c);
    c->ev->down(c->user, &e);
    if (closing)
        close_handles(c);
    else
        arm(c);
}

static void on_stream_close(struct hp_stream *s, const struct hp_error *e, void *user)
{
    struct hp_amqp_conn *c = user;
    assert(c->stream == s);
    c->stream = NULL;
    if (!c->error.code && e && e->code)
        c->error = *e;
    if (!c->error.code)
        hp_fail(&c->error, c->closing ? HP_ECANCELED : HP_EUNAVAILABLE, "the connection was closed");
    ended(c);
}

void hp_amqp_conn_close(struct hp_amqp_conn *c)
{
    assert(!c->closing);
    c->closing = true;
    if (c->state == WAITING) {
        close_handles(c);
        return;
    }
    amqp_connection_close_t m = {.reply_code = AMQP_REPLY_SUCCESS, .reply_text = amqp_cstring_bytes("closed")};
    if (c->state != OPEN || hp_amqp_put_method(&c->out, 0, AMQP_CONNECTION_CLOSE_METHOD, &m, NULL)) {
        struct hp_error e = {0};
        hp_fail(&e, HP_ECANCELED, "closed");
        hp_amqp_conn_drop(c, 0, &e);
        return;
    }
    hp_amqp_conn_flush(c);
    if (c->state != OPEN)
        return;
    c->state = CLOSING;
    c->replies = 1;
    c->reply_due_ms = uv_now(c->loop) + CLOSE_MS;
    arm(c);
}

bool hp_amqp_conn_remake(struct hp_amqp_conn *c)
{
    if (c->closing || (c->state != OPEN && !c->undeclared))
        return false;
    struct hp_error e = {0};
    c->remake_until_ms = uv_now(c->loop) + REMAKE_MS;
    if (c->state == WAITING) {
        c->retry_at_ms = uv_now(c->loop);
        arm(c);
    } else if (c->state == DECLARING || c->state == OPEN) {
        hp_fail(&e, HP_EUNAVAILABLE, "the stream is to be made anew");
        hp_amqp_conn_drop(c, 0, &e);
    }
    return true;
}

void hp_amqp_conn_settled(struct hp_amqp_conn *c)
{
    c->settled_at_ms = uv_now(c->loop);
}

/* ---- The stream ---- */

static void on_stream_read(struct hp_stream *s, const uint8_t *data, size_t len, void *user)
{
    struct hp_amqp_conn *c = user;
    struct hp_error e = {0};
    c->received_ms = uv_now(c->loop);
    c->suspect = false;
    if (c->state == DROPPING)
        return;
    if (hp_amqp_conn_input(c, data, len, &e)) {
        hp_amqp_conn_drop(c, c->retry_min_ms, &e);
        return;
    }
    arm(c);
    /* What the owner wrote in answer goes out at once. */
    hp_amqp_conn_flush(c);
}

static void on_stream_open(struct hp_stream *s, void *user)
{
    static const uint8_t protocol[8] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};
    struct hp_amqp_conn *c = user;
    struct hp_error e = {0};
    if (c->state != CONNECTING)
        return;
    c->state = STARTING;
    c->sent_ms = c->received_ms = uv_now(c->loop);
    c->reply_due_ms = uv_now(c->loop) + c->login.rpc_ms;
    arm(c);
    int rc = hp_buf_append(&c->out, protocol, sizeof protocol);
    if (rc) {
        hp_fail(&e, rc, "protocol header: %s", hp_strerror(rc));
        hp_amqp_conn_drop(c, 0, &e);
        return;
    }
    hp_amqp_conn_flush(c);
}

static void on_stream_writable(struct hp_stream *s, void *user)
{
    struct hp_amqp_conn *c = user;
    if (!c->stalled)
        return;
    hp_amqp_conn_flush(c);
    if (!c->stalled && c->state == OPEN)
        hp_amqp_conn_kick(c);
}

static const struct hp_stream_events stream_events = {on_stream_open, on_stream_read, on_stream_writable,
                                                      on_stream_close};

static void connect_now(struct hp_amqp_conn *c)
{
    assert(c->state == WAITING && !c->stream && !c->closing);
    struct hp_stream_options o = {
        .tls = c->tls, .write_queue_max = STREAM_QUEUE_MAX, .handshake_ms = c->login.connect_ms};
    struct hp_error e = {0};
    c->frame_max = FRAME_MAX;
    c->state = CONNECTING;
    const struct hp_amqp_node *node = hp_amqp_login_node(&c->login);
    int rc = hp_stream_connect(c->loop, node->address, node->host, &o, &stream_events, c, &c->stream, &e);
    if (rc) {
        c->stream = NULL;
        c->error = e;
        ended(c);
    }
}

int hp_amqp_conn_new(uv_loop_t *loop, const struct hp_amqp_options *o, const struct hp_amqp_object *topology,
                     uint16_t channels, const struct hp_amqp_conn_events *ev, void *user, struct hp_amqp_conn **ret,
                     struct hp_error *e)
{
    struct hp_amqp_conn *c = calloc(1, sizeof *c + (channels + 1u) * sizeof c->channels[0]);
    if (!c)
        return hp_fail(e, HP_ENOMEM, "broker connection: out of memory");
    c->loop = loop;
    c->ev = ev;
    c->user = user;
    c->channel_count = channels;
    uint64_t seed = hp_now_ns() ^ (uintptr_t)c;
    (void)!getrandom(&seed, sizeof seed, GRND_NONBLOCK);
    hp_rng_init(&c->rng, seed);
    hp_buf_init(&c->out, OUTPUT_MAX);
    hp_buf_init(&c->in, INPUT_MAX);
    hp_backoff_init(&c->backoff, BACKOFF_INITIAL_MS, HP_AMQP_BACKOFF_MAX_MS);
    c->topology = hp_amqp_objects_copy(topology);
    int rc = c->topology ? hp_amqp_login_init(&c->login, o, e) : hp_fail(e, HP_ENOMEM, "topology: out of memory");
    if (!rc && c->login.tls) {
        struct hp_tls_options t = {
            .role = HP_TLS_CLIENT, .ca_file = o->ca_file, .cert_file = o->cert_file, .key_file = o->key_file};
        rc = hp_tls_context_new(&t, &c->tls, e);
    }
    if (rc) {
        hp_amqp_login_done(&c->login);
        hp_amqp_objects_free(c->topology);
        free(c);
        return rc;
    }
    c->login.node = hp_rng_below(&c->rng, c->login.node_count); /* clients spread over the nodes */
    for (int i = 0; i <= channels; i++)
        init_amqp_pool(&c->channels[i].pool, 4096);
    uv_timer_init(loop, &c->timer);
    uv_idle_init(loop, &c->idle);
    c->timer.data = c->idle.data = c;
    c->open_handles = 2;
    c->state = WAITING;
    c->retry_at_ms = uv_now(loop);
    arm(c);
    *ret = c;
    return 0;
}
