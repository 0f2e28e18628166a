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
#include "io/amqp_conn.h"

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
    BACKOFF_MAX_MS = 5000,
};

enum conn_state { WAITING, CONNECTING, STARTING, TUNING, OPENING, DECLARING, OPEN, CLOSING, DROPPING };

/* A content that is being put together. */
struct channel {
    amqp_pool_t pool;               /* holds what is decoded until the method or content is handed over */
    struct hp_amqp_content content; /* id 0: none under way */
    uint8_t *assembly;              /* body of several frames; NULL otherwise */
    uint64_t have;                  /* body bytes seen */
};

struct hp_amqp_conn {
    uv_loop_t *loop;
    const struct hp_amqp_conn_events *ev;
    void *user;
    struct hp_amqp_login login;      /* address, credentials, limits */
    struct hp_tls_context *tls;      /* NULL: plain TCP */
    struct hp_amqp_object *topology; /* ends with name NULL */
    enum conn_state state;
    bool closing;                  /* hp_amqp_conn_close was called */
    bool stalled;                  /* the stream is full */
    bool suspect;                  /* the peer was silent for too long when last looked at */
    struct hp_stream *stream;      /* NULL when WAITING */
    struct hp_error error;         /* why the connection ends */
    uv_timer_t timer;              /* next of: retry, reply due, heartbeat */
    uv_idle_t idle;                /* active: a turn was asked for */
    int open_handles;              /* of the two above */
    struct hp_backoff backoff;     /* between attempts */
    struct hp_rng rng;             /* its jitter */
    uint64_t retry_at_ms;          /* WAITING */
    uint64_t retry_min_ms;         /* of the failure under way */
    uint64_t settled_at_ms;        /* 0: not yet */
    uint64_t reply_due_ms;         /* 0: none */
    int replies;                   /* still due */
    int declared;                  /* objects answered while DECLARING; -1: channel.open-ok still due */
    uint64_t heartbeat_ms;         /* negotiated; 0 none */
    uint64_t sent_ms, received_ms; /* last traffic */
    size_t frame_max;              /* negotiated */
    struct hp_buf out;             /* encoded, not yet given to the stream */
    struct hp_buf in;              /* an incomplete frame */
    uint16_t channel_count;
    struct channel channels[]; /* 0 is the connection's own */
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

void hp_amqp_close_error(struct hp_error *e, int code, amqp_bytes_t text)
{
    int kind = code == AMQP_ACCESS_REFUSED                                        ? HP_EPERM
               : code == AMQP_NOT_FOUND                                           ? HP_ENOTFOUND
               : code == AMQP_PRECONDITION_FAILED || code == AMQP_RESOURCE_LOCKED ? HP_ECONFLICT
               : code == AMQP_CONNECTION_FORCED                                   ? HP_EUNAVAILABLE
                                                                                  : HP_EPROTO;
    hp_fail(e, kind, "the broker says: %d %.*s", code, (int)(text.len > 500 ? 500 : text.len), (char *)text.bytes);
}

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

static void reset_channels(struct hp_amqp_conn *c)
{
    for (int i = 0; i <= c->channel_count; i++) {
        struct channel *ch = &c->channels[i];
        free(ch->assembly);
        ch->assembly = NULL;
        ch->content = (struct hp_amqp_content){0};
        empty_amqp_pool(&ch->pool);
    }
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
    reset_channels(c);
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

/* Between connections: everything of the last one is forgotten, the next is planned. */
static void wait_for_retry(struct hp_amqp_conn *c)
{
    uint64_t now = uv_now(c->loop);
    if (c->settled_at_ms && now - c->settled_at_ms >= SETTLED_MS)
        hp_backoff_reset(&c->backoff);
    uint64_t delay = hp_backoff_next_ms(&c->backoff, &c->rng);
    c->state = WAITING;
    c->retry_at_ms = now + (delay > c->retry_min_ms ? delay : c->retry_min_ms);
    c->retry_min_ms = c->settled_at_ms = c->reply_due_ms = c->heartbeat_ms = 0;
    c->replies = 0;
    c->stalled = c->suspect = false;
    hp_buf_done(&c->in);
    hp_buf_done(&c->out);
    reset_channels(c);
}

static void ended(struct hp_amqp_conn *c)
{
    struct hp_error e = c->error;
    c->error = (struct hp_error){0};
    hp_wrap(&e, "broker %s", c->login.address);
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

void hp_amqp_conn_settled(struct hp_amqp_conn *c)
{
    c->settled_at_ms = uv_now(c->loop);
}

/* ---- Input ---- */

/* Sends one method of the opening; the broker answers with one. */
static int say(struct hp_amqp_conn *c, uint16_t channel, amqp_method_number_t id, void *method, struct hp_error *e)
{
    int rc = hp_amqp_put_method(&c->out, channel, id, method, e);
    if (!rc)
        hp_amqp_conn_flush(c);
    return rc;
}

static int on_tune(struct hp_amqp_conn *c, const amqp_connection_tune_t *tune, struct hp_error *e)
{
    amqp_connection_tune_ok_t ok;
    int rc = hp_amqp_login_tune(&c->login, tune, c->channel_count, &ok, e);
    if (rc)
        return rc;
    c->frame_max = ok.frame_max;
    c->heartbeat_ms = ok.heartbeat * UINT64_C(1000);
    rc = hp_amqp_put_method(&c->out, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &ok, e);
    if (rc)
        return rc;
    c->state = OPENING;
    amqp_connection_open_t open = {.virtual_host = amqp_cstring_bytes(c->login.vhost)};
    return say(c, 0, AMQP_CONNECTION_OPEN_METHOD, &open, e);
}

/* Channel 1 and all declarations in one write; the answers come in the same order. */
static int declare_all(struct hp_amqp_conn *c, struct hp_error *e)
{
    c->state = DECLARING;
    c->declared = -1;
    amqp_channel_open_t open = {.out_of_band = amqp_empty_bytes};
    int rc = hp_amqp_put_method(&c->out, 1, AMQP_CHANNEL_OPEN_METHOD, &open, e);
    for (size_t i = 0; !rc && c->topology[i].name; i++)
        rc = hp_amqp_put_declare(&c->out, 1, &c->topology[i], e);
    hp_amqp_conn_flush(c);
    return rc;
}

static int on_own_method(struct hp_amqp_conn *c, amqp_method_number_t id, const void *method, struct hp_error *e)
{
    if (id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *m = method;
        hp_amqp_close_error(e, m->reply_code, m->reply_text);
        amqp_connection_close_ok_t ok = {0};
        (void)!say(c, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok, NULL);
        if (c->state < DECLARING && e->code == HP_EPERM)
            c->retry_min_ms = BACKOFF_MAX_MS;
        return e->code;
    }
    if (id == AMQP_CONNECTION_BLOCKED_METHOD) {
        const amqp_connection_blocked_t *m = method;
        char reason[256];
        snprintf(reason, sizeof reason, "%.*s", (int)m->reason.len, (char *)m->reason.bytes);
        c->ev->blocked(c->user, true, reason);
        return 0;
    }
    if (id == AMQP_CONNECTION_UNBLOCKED_METHOD) {
        c->ev->blocked(c->user, false, "");
        return 0;
    }
    if (id == AMQP_CONNECTION_CLOSE_OK_METHOD && c->state == CLOSING)
        return hp_fail(e, HP_ECANCELED, "closed");
    c->reply_due_ms = uv_now(c->loop) + c->login.rpc_ms;
    if (id == AMQP_CONNECTION_START_METHOD && c->state == STARTING) {
        amqp_connection_start_ok_t ok;
        int rc = hp_amqp_login_start(&c->login, method, &ok, e);
        c->state = TUNING;
        return rc ? rc : say(c, 0, AMQP_CONNECTION_START_OK_METHOD, &ok, e);
    }
    if (id == AMQP_CONNECTION_TUNE_METHOD && c->state == TUNING)
        return on_tune(c, method, e);
    if (id == AMQP_CONNECTION_OPEN_OK_METHOD && c->state == OPENING)
        return declare_all(c, e);
    return hp_fail(e, HP_EPROTO, "method 0x%08x from the broker is out of place", (unsigned)id);
}

static int on_declare_reply(struct hp_amqp_conn *c, amqp_method_number_t id, const void *method, struct hp_error *e)
{
    if (id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *m = method;
        hp_amqp_close_error(e, m->reply_code, m->reply_text);
        if (c->declared >= 0 && c->topology[c->declared].name) {
            char what[320];
            hp_amqp_object_describe(what, &c->topology[c->declared]);
            hp_wrap(e, "%s cannot be declared", what);
        }
        /* Other arguments than those of the existing object, or no right: trying often does not help. A lock ends with the old connection; and a broker that has
         * just started answers NOT_FOUND for a queue whose process is not up yet. */
        if (m->reply_code != AMQP_RESOURCE_LOCKED && m->reply_code != AMQP_NOT_FOUND)
            c->retry_min_ms = HP_AMQP_CONFIG_RETRY_MS;
        return e->code;
    }
    c->declared++;
    if (c->topology[c->declared].name) {
        c->reply_due_ms = uv_now(c->loop) + c->login.rpc_ms;
        return 0;
    }
    c->state = OPEN;
    c->reply_due_ms = 0;
    c->ev->open(c->user);
    return 0;
}

/* What is decoded points into its frame, and the body may come with a later read: the pool keeps the frame as long as the content. */
static int keep_frame(struct channel *ch, const struct hp_amqp_frame *f, struct hp_amqp_frame *ret, struct hp_error *e)
{
    amqp_bytes_t copy;
    *ret = *f;
    if (f->len == 0)
        return 0;
    amqp_pool_alloc_bytes(&ch->pool, f->len, &copy);
    if (!copy.bytes)
        return hp_fail(e, HP_ENOMEM, "out of memory for a frame of %zu bytes", f->len);
    memcpy(copy.bytes, f->payload, f->len);
    ret->payload = copy.bytes;
    return 0;
}

static int on_method(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    struct channel *ch = &c->channels[f->channel];
    if (ch->content.id)
        return hp_fail(e, HP_EPROTO, "method within a message from the broker");
    amqp_method_number_t id;
    void *method;
    struct hp_amqp_frame kept;
    int rc = keep_frame(ch, f, &kept, e);
    if (!rc)
        rc = hp_amqp_decode_method(&kept, &ch->pool, &id, &method, e);
    if (rc)
        return rc;
    if (id == AMQP_BASIC_DELIVER_METHOD || id == AMQP_BASIC_RETURN_METHOD) {
        ch->content = (struct hp_amqp_content){.id = id, .method = method};
        return 0;
    }
    if (f->channel == 0)
        rc = on_own_method(c, id, method, e);
    else if (c->state == DECLARING)
        rc = on_declare_reply(c, id, method, e);
    else if (c->state == OPEN)
        c->ev->method(c->user, f->channel, id, method);
    recycle_amqp_pool(&ch->pool);
    return rc;
}

static void hand_over(struct hp_amqp_conn *c, uint16_t channel)
{
    struct channel *ch = &c->channels[channel];
    if (c->state == OPEN)
        c->ev->content(c->user, channel, &ch->content);
    free(ch->assembly);
    ch->assembly = NULL;
    ch->content = (struct hp_amqp_content){0};
    recycle_amqp_pool(&ch->pool);
}

static int on_header(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    struct channel *ch = &c->channels[f->channel];
    if (!ch->content.id || ch->content.properties)
        return hp_fail(e, HP_EPROTO, "content header without a message from the broker");
    amqp_basic_properties_t *properties;
    struct hp_amqp_frame kept;
    int rc = keep_frame(ch, f, &kept, e);
    if (!rc)
        rc = hp_amqp_decode_header(&kept, &ch->pool, &ch->content.len, &properties, e);
    if (rc)
        return rc;
    ch->content.properties = properties;
    ch->have = 0;
    if (ch->content.len == 0) {
        ch->content.body = (const uint8_t *)"";
        hand_over(c, f->channel);
    }
    return 0;
}

static int on_body(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    struct channel *ch = &c->channels[f->channel];
    if (!ch->content.properties || f->len > ch->content.len - ch->have)
        return hp_fail(e, HP_EPROTO, "message body out of place or longer than announced by the broker");
    if (f->len == ch->content.len && f->len <= HP_AMQP_BODY_MAX) {
        ch->content.body = f->payload; /* whole: no copy */
        hand_over(c, f->channel);
        return 0;
    }
    if (ch->content.len <= HP_AMQP_BODY_MAX) {
        if (!ch->assembly)
            ch->assembly = malloc(ch->content.len);
        if (!ch->assembly)
            return hp_fail(e, HP_ENOMEM, "out of memory for a message of %llu bytes",
                           (unsigned long long)ch->content.len);
        memcpy(ch->assembly + ch->have, f->payload, f->len);
        ch->content.body = ch->assembly;
    }
    ch->have += f->len;
    if (ch->have == ch->content.len)
        hand_over(c, f->channel);
    return 0;
}

static int on_frame(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    if (f->channel > c->channel_count)
        return hp_fail(e, HP_EPROTO, "frame on channel %u from the broker", f->channel);
    switch (f->type) {
    case AMQP_FRAME_METHOD:
        return on_method(c, f, e);
    case AMQP_FRAME_HEADER:
        return on_header(c, f, e);
    case AMQP_FRAME_BODY:
        return on_body(c, f, e);
    default:
        return 0; /* heartbeat: received_ms says it */
    }
}

/* All whole frames of data; *ret_used bytes were taken. */
static int take_frames(struct hp_amqp_conn *c, const uint8_t *data, size_t len, size_t *ret_used, struct hp_error *e)
{
    size_t done = 0;
    *ret_used = 0;
    while (c->state != DROPPING) {
        struct hp_amqp_frame f;
        size_t used;
        int rc = hp_amqp_frame_next(data + done, len - done, c->frame_max, &f, &used, e);
        if (rc)
            return rc;
        if (!used)
            break;
        done += used;
        rc = on_frame(c, &f, e);
        if (rc)
            return rc;
    }
    *ret_used = done;
    return 0;
}

static int keep_input(struct hp_amqp_conn *c, const uint8_t *data, size_t len, struct hp_error *e)
{
    int rc = hp_buf_append(&c->in, data, len);
    return rc ? hp_fail(e, rc, "input from the broker: %s", hp_strerror(rc)) : 0;
}

static void on_stream_read(struct hp_stream *s, const uint8_t *data, size_t len, void *user)
{
    struct hp_amqp_conn *c = user;
    struct hp_error e = {0};
    size_t used = 0;
    int rc = 0;
    c->received_ms = uv_now(c->loop);
    c->suspect = false;
    if (c->state == DROPPING)
        return;
    if (c->in.len == 0) {
        rc = take_frames(c, data, len, &used, &e);
        if (!rc && used < len && c->state != DROPPING)
            rc = keep_input(c, data + used, len - used, &e);
    } else {
        rc = keep_input(c, data, len, &e);
        if (!rc)
            rc = take_frames(c, hp_buf_front(&c->in), c->in.len, &used, &e);
        if (!rc)
            hp_buf_consume(&c->in, used);
    }
    if (rc) {
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
    int rc = hp_stream_connect(c->loop, c->login.address, c->login.host, &o, &stream_events, c, &c->stream, &e);
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
    hp_backoff_init(&c->backoff, BACKOFF_INITIAL_MS, BACKOFF_MAX_MS);
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
