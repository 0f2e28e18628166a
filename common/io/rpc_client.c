/* The client: connections on demand, calls that wait for one, the orderly end.
 *
 * Happy path: start → the call waits → a connection is made → attached → the session (grpc/client.h) does the rest. A connection that the server sends away
 * (GOAWAY) finishes its calls while the next call makes a new one. A connection that cannot be made fails the calls that wait for it, at once: whoever retries
 * decides when. */
#include "io/rpc_client.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "grpc/status.h"
#include "io/loop.h"
#include "io/stream.h"
#include "io/tls.h"

enum {
    CLIENT_CONNECT_MS = 5000,
    CLIENT_MESSAGE_MAX = 16 << 20,
    CLIENT_KEEPALIVE_MS = 30000,
    CLIENT_WAITING_MAX = 10000, /* calls that wait for a connection: more are refused */
    CLIENT_WRITE_QUEUE_MAX = 512 << 10,
    CLIENT_LINGER_MS = 500,
};

struct client_conn {
    struct hp_rpc_client *client;
    struct hp_stream *stream;       /* NULL after on_close */
    struct hp_grpc_client *session; /* NULL before on_open and after on_close */
    LIST_ENTRY(client_conn) link;
    uv_timer_t timer; /* the session's deadline */
    bool ending;      /* hp_stream_close was called */
    bool stuck;       /* the stream's queue is long: reading is paused */
    bool dirty;       /* to be flushed on the next turn */
};

struct hp_rpc_client {
    uv_loop_t *loop;
    struct hp_tls_context *tls; /* NULL: plaintext */
    char *authority, *token;
    uint64_t connect_ms;
    size_t message_max;
    LIST_HEAD(, client_conn) conns;
    struct client_conn *current;                   /* takes new calls, or is being made; NULL: none */
    struct hp_client_call *waiting, *last_waiting; /* for `current` */
    int waiting_count;
    uv_idle_t work;   /* active when something must be done on the next turn */
    uv_timer_t timer; /* the earliest deadline of the waiting calls */
    int handles;      /* of these two, until their close callbacks */
    bool closing, handles_closing;
    void (*closed_cb)(void *user);
    void *closed_user;
};

static void on_work(uv_idle_t *idle);
static void on_waiting_due(uv_timer_t *timer);
static void maybe_closed(struct hp_rpc_client *c);

static void wake(void *user)
{
    struct hp_rpc_client *c = user;
    if (!c->handles_closing && !uv_is_active((uv_handle_t *)&c->work))
        uv_idle_start(&c->work, on_work);
}

static void conn_wake(void *user)
{
    struct client_conn *k = user;
    k->dirty = true;
    wake(k->client);
}

/* ---- calls that wait ---- */

static void wait_for_connection(struct hp_rpc_client *c, struct hp_client_call *call)
{
    hp_grpc_call_set_next(call, NULL);
    if (c->last_waiting)
        hp_grpc_call_set_next(c->last_waiting, call);
    else
        c->waiting = call;
    c->last_waiting = call;
    c->waiting_count++;
}

static struct hp_client_call *take_first(struct hp_rpc_client *c)
{
    struct hp_client_call *call = c->waiting;
    if (!call)
        return NULL;
    c->waiting = hp_grpc_call_next(call);
    if (!c->waiting)
        c->last_waiting = NULL;
    c->waiting_count--;
    return call;
}

/* Ends those that are cancelled or due; the others keep their order. Callbacks may add new ones behind. */
static void sweep_waiting(struct hp_rpc_client *c)
{
    uint64_t now = hp_now_ms(), due = UINT64_MAX;
    for (int n = c->waiting_count; n > 0; n--) {
        struct hp_client_call *call = take_first(c);
        if (!call)
            break;
        uint64_t deadline = hp_grpc_call_deadline(call);
        if (hp_grpc_call_cancelled(call) || c->closing) {
            hp_grpc_call_end(call, HP_CODE_CANCELLED, "the call was cancelled");
        } else if (deadline <= now) {
            hp_grpc_call_end(call, HP_CODE_DEADLINE_EXCEEDED,
                             "the call's deadline passed before there was a connection");
        } else {
            wait_for_connection(c, call);
            if (deadline < due)
                due = deadline;
        }
    }
    if (c->handles_closing)
        return;
    uv_timer_stop(&c->timer);
    if (due == UINT64_MAX)
        return;
    uv_update_time(c->loop);
    uv_timer_start(&c->timer, on_waiting_due, due - now, 0);
}

static void on_waiting_due(uv_timer_t *timer)
{
    wake(timer->data);
}

static void fail_waiting(struct hp_rpc_client *c, const char *message)
{
    for (int n = c->waiting_count; n > 0; n--) {
        struct hp_client_call *call = take_first(c);
        if (!call)
            return;
        hp_grpc_call_end(call, HP_CODE_UNAVAILABLE, message);
    }
}

/* ---- a connection ---- */

static void end(struct client_conn *k, uint64_t linger_ms)
{
    if (k->client->current == k)
        k->client->current = NULL;
    if (k->ending)
        return;
    k->ending = true;
    uv_timer_stop(&k->timer);
    hp_stream_close(k->stream, linger_ms);
}

static void on_timer(uv_timer_t *timer);

static void flush(struct client_conn *k)
{
    k->dirty = false;
    if (!k->session || k->ending)
        return;
    const uint8_t *data;
    size_t len = 0;
    do {
        if (hp_stream_queued(k->stream) > CLIENT_WRITE_QUEUE_MAX / 2) {
            if (!k->stuck)
                hp_stream_pause(k->stream);
            k->stuck = true;
            break;
        }
        struct hp_error e = {0};
        int rc = hp_grpc_client_pull(k->session, hp_now_ms(), &data, &len, &e);
        if (rc == 0 && len > 0 && !k->ending)
            rc = hp_stream_write(k->stream, data, len);
        if (rc) {
            end(k, 0);
            return;
        }
    } while (len > 0 && !k->ending);
    if (k->ending)
        return;
    if (hp_grpc_client_finished(k->session)) {
        end(k, CLIENT_LINGER_MS);
        return;
    }
    uint64_t due = hp_grpc_client_deadline(k->session), now = hp_now_ms();
    uv_update_time(k->client->loop);
    if (due == UINT64_MAX)
        uv_timer_stop(&k->timer);
    else
        uv_timer_start(&k->timer, on_timer, due > now ? due - now : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct client_conn *k = timer->data;
    struct hp_error e = {0};
    if (k->ending || !k->session)
        return;
    if (hp_grpc_client_tick(k->session, hp_now_ms(), &e))
        end(k, 0);
    else
        flush(k);
}

/* Moves the waiting calls to the connection that is there now. */
static void attach_waiting(struct hp_rpc_client *c)
{
    struct client_conn *k = c->current;
    for (int n = c->waiting_count; n > 0; n--) {
        struct hp_client_call *call = take_first(c);
        if (!call)
            return;
        int rc = hp_grpc_client_attach(k->session, hp_now_ms(), call);
        if (rc == HP_EUNAVAILABLE)
            wait_for_connection(c, call);
        else if (rc)
            hp_grpc_call_end(call, HP_CODE_RESOURCE_EXHAUSTED, "no memory for a call");
    }
}

static void on_open(struct hp_stream *stream, void *user)
{
    struct client_conn *k = user;
    struct hp_rpc_client *c = k->client;
    const char *alpn = hp_stream_alpn(stream);
    const struct hp_grpc_client_config config = {
        .scheme = c->tls ? "https" : "http",
        .authority = c->authority,
        .token = c->token,
        .keepalive_ms = CLIENT_KEEPALIVE_MS,
        .wake_cb = conn_wake,
        .user = k,
    };
    struct hp_error e = {0};
    if (k->ending)
        return;
    if (c->tls && (!alpn || strcmp(alpn, "h2") != 0)) {
        end(k, 0);
        fail_waiting(c, "the server does not speak HTTP/2");
        return;
    }
    if (hp_grpc_client_new(&config, hp_now_ms(), &k->session, &e)) {
        end(k, 0);
        fail_waiting(c, e.message);
        return;
    }
    attach_waiting(c);
    flush(k);
}

static void on_read(struct hp_stream *stream, const uint8_t *data, size_t len, void *user)
{
    struct client_conn *k = user;
    struct hp_error e = {0};
    if (k->ending)
        return;
    if (hp_grpc_client_receive(k->session, hp_now_ms(), data, len, &e))
        end(k, 0);
    else
        flush(k);
}

static void on_writable(struct hp_stream *stream, void *user)
{
    struct client_conn *k = user;
    if (k->ending)
        return;
    if (k->stuck)
        hp_stream_resume(k->stream);
    k->stuck = false;
    flush(k);
}

static void on_conn_closed(uv_handle_t *handle)
{
    struct client_conn *k = handle->data;
    struct hp_rpc_client *c = k->client;
    LIST_REMOVE(k, link);
    free(k);
    maybe_closed(c);
}

static void on_close(struct hp_stream *stream, const struct hp_error *e, void *user)
{
    struct client_conn *k = user;
    struct hp_rpc_client *c = k->client;
    bool was_current = c->current == k, was_open = k->session != NULL;
    char message[HP_ERROR_MESSAGE_MAX + 64];
    snprintf(message, sizeof message, "connection to %s %s%s%s", c->authority, was_open ? "lost" : "failed",
             e->code ? ": " : "", e->message);
    struct hp_grpc_client *session = k->session;
    if (was_current)
        c->current = NULL;
    k->ending = true;
    k->session = NULL;
    k->stream = NULL;
    if (was_current && !was_open && !c->closing)
        fail_waiting(c, message);
    hp_grpc_client_free(session, c->closing ? HP_CODE_CANCELLED : HP_CODE_UNAVAILABLE,
                        c->closing ? "the client is closing" : message);
    uv_close((uv_handle_t *)&k->timer, on_conn_closed);
    if (c->waiting)
        wake(c);
}

static const struct hp_stream_events stream_events = {on_open, on_read, on_writable, on_close};

static int connect_now(struct hp_rpc_client *c, struct hp_error *e)
{
    struct client_conn *k = calloc(1, sizeof *k);
    if (!k)
        return hp_fail(e, HP_ENOMEM, "no memory for a connection");
    const struct hp_stream_options o = {
        .tls = c->tls,
        .write_queue_max = CLIENT_WRITE_QUEUE_MAX,
        .handshake_ms = c->connect_ms,
        .alpn = c->tls ? "h2" : NULL,
    };
    k->client = c;
    int rc = hp_stream_connect(c->loop, c->authority, NULL, &o, &stream_events, k, &k->stream, e);
    if (rc) {
        free(k);
        return rc;
    }
    uv_timer_init(c->loop, &k->timer); /* cannot fail */
    k->timer.data = k;
    LIST_INSERT_HEAD(&c->conns, k, link);
    c->current = k;
    return 0;
}

/* ---- the turn of the loop ---- */

static void serve_waiting(struct hp_rpc_client *c)
{
    if (!c->waiting || c->closing)
        return;
    if (c->current && c->current->session && !hp_grpc_client_usable(c->current->session))
        c->current = NULL; /* it finishes its calls by itself */
    struct hp_error e = {0};
    if (!c->current && connect_now(c, &e)) {
        fail_waiting(c, e.message);
        return;
    }
    if (c->current->session)
        attach_waiting(c);
}

static void on_work(uv_idle_t *idle)
{
    struct hp_rpc_client *c = idle->data;
    uv_idle_stop(&c->work);
    sweep_waiting(c);
    serve_waiting(c);
    struct client_conn *k;
    LIST_FOREACH(k, &c->conns, link) /* connections are freed in close callbacks only: the list holds still */
    if (k->dirty)
        flush(k);
    maybe_closed(c);
}

/* ---- start and end ---- */

static int parse_endpoint(const char *endpoint, bool *ret_tls, const char **ret_authority, struct hp_error *e)
{
    if (strncmp(endpoint, "https://", 8) == 0) {
        *ret_tls = true;
        *ret_authority = endpoint + 8;
    } else if (strncmp(endpoint, "http://", 7) == 0) {
        *ret_tls = false;
        *ret_authority = endpoint + 7;
    } else {
        return hp_fail(e, HP_EINVAL, "endpoint \"%s\" does not begin with https:// or http://", endpoint);
    }
    return 0;
}

static int make_tls(struct hp_rpc_client *c, const struct hp_rpc_client_options *o, struct hp_error *e)
{
    const struct hp_tls_options tls = {
        .role = HP_TLS_CLIENT, .ca_file = o->ca_file, .cert_file = o->cert_file, .key_file = o->key_file};
    return hp_tls_context_new(&tls, &c->tls, e);
}

static void free_client(struct hp_rpc_client *c)
{
    hp_tls_context_unref(c->tls);
    if (c->token)
        explicit_bzero(c->token, strlen(c->token));
    free(c->token);
    free(c->authority);
    free(c);
}

int hp_rpc_client_new(uv_loop_t *loop, const struct hp_rpc_client_options *o, struct hp_rpc_client **ret,
                      struct hp_error *e)
{
    bool tls = false;
    const char *authority = NULL;
    int rc = parse_endpoint(o->endpoint, &tls, &authority, e);
    if (rc)
        return rc;
    struct hp_rpc_client *c = calloc(1, sizeof *c);
    if (!c)
        return hp_fail(e, HP_ENOMEM, "no memory for a client");
    c->loop = loop;
    c->authority = strdup(authority);
    c->token = o->token ? strdup(o->token) : NULL;
    c->connect_ms = o->connect_ms ? o->connect_ms : CLIENT_CONNECT_MS;
    c->message_max = o->message_max ? o->message_max : CLIENT_MESSAGE_MAX;
    LIST_INIT(&c->conns);
    if (!c->authority || (o->token && !c->token))
        rc = hp_fail(e, HP_ENOMEM, "no memory for a client");
    else if (tls)
        rc = make_tls(c, o, e);
    if (rc) {
        free_client(c);
        return rc;
    }
    c->authority[strcspn(c->authority, "/")] = '\0';
    uv_idle_init(loop, &c->work); /* these two cannot fail */
    uv_timer_init(loop, &c->timer);
    c->work.data = c->timer.data = c;
    c->handles = 2;
    *ret = c;
    return 0;
}

int hp_client_call_start(struct hp_rpc_client *c, const char *path, const ProtobufCMessageDescriptor *response,
                         uint64_t timeout_ms, const struct hp_client_call_events *ev, void *user,
                         struct hp_client_call **ret, struct hp_error *e)
{
    if (c->closing)
        return hp_fail(e, HP_ECANCELED, "the client is closing");
    if (c->waiting_count >= CLIENT_WAITING_MAX)
        return hp_fail(e, HP_ELIMIT, "%d calls wait for a connection already", CLIENT_WAITING_MAX);
    const struct hp_grpc_call_options o = {
        .path = path,
        .response = response,
        .deadline_ms = timeout_ms ? hp_now_ms() + timeout_ms : UINT64_MAX,
        .message_max = c->message_max,
        .events = ev,
        .user = user,
        .wake_cb = wake,
        .wake_user = c,
    };
    int rc = hp_grpc_call_new(&o, ret, e);
    if (rc)
        return rc;
    wait_for_connection(c, *ret); /* until the next turn at least, so that nothing is called from inside */
    wake(c);
    return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct hp_rpc_client *c = handle->data;
    if (--c->handles > 0)
        return;
    void (*closed_cb)(void *) = c->closed_cb;
    void *user = c->closed_user;
    free_client(c);
    if (closed_cb)
        closed_cb(user);
}

static void maybe_closed(struct hp_rpc_client *c)
{
    if (!c->closing || c->waiting || !LIST_EMPTY(&c->conns) || c->handles_closing)
        return;
    c->handles_closing = true;
    uv_close((uv_handle_t *)&c->work, on_handle_closed);
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

void hp_rpc_client_close(struct hp_rpc_client *c, void (*closed_cb)(void *user), void *user)
{
    assert(!c->closing);
    c->closing = true;
    c->closed_cb = closed_cb;
    c->closed_user = user;
    struct client_conn *k;
    LIST_FOREACH(k, &c->conns, link)
    end(k, k->session && hp_grpc_client_calls(k->session) == 0 ? CLIENT_LINGER_MS : 0);
    wake(c);
}
