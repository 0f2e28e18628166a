/* rpc_http_impl.h — Connect over HTTP/1.1: what rpc_http.c (the daemon of libmicrohttpd on our loop), rpc_http_call.c (a call) and rpc_connect.c (the
 * protocol's texts) share. */
#ifndef HP_IO_RPC_HTTP_IMPL_H
#define HP_IO_RPC_HTTP_IMPL_H

#include <microhttpd.h>
#include <uv.h>

#include "grpc/call.h"
#include "grpc/message.h"
#include "io/rpc_server_impl.h"
#include "io/tls_files.h"

enum {
    HTTP_HEADER_POOL_BYTES =
        32 << 10,                /* libmicrohttpd's memory for one connection: longer headers are refused with 431 */
    HTTP_READ_MS = 60000,        /* default of hp_rpc_server_options.http_read_ms */
    HTTP_STALL_S = 60,           /* a response that makes no progress */
    HTTP_DISCARD_MAX = 16 << 20, /* a body too long is read and dropped up to here, so that the client can hear why */
    HTTP_OUTPUT_HIGH_BYTES = 64 << 10, /* hp_rpc_send says HP_EAGAIN above, on_writable comes below half of it */
    HTTP_BLOCK_BYTES = 16 << 10,       /* of a streamed response at a time */
    CONNECT_END_STREAM = 0x02,         /* flag of the last envelope */
};

/* How a request's body and its response are written; from content-type. */
enum connect_codec { CONNECT_NONE, CONNECT_JSON, CONNECT_PROTO };

/* READING: headers and body arrive. OPEN: it is the handler's. DONE: answer known, or nobody left to answer. Freed when libmicrohttpd has completed the
 * request and our handles are closed.
 *
 *     READING ──body complete──▶ OPEN ──finish, cancel──▶ DONE ──completed──▶ freed
 *        └────────────────refused──────────────────────────▲
 */
enum http_call_state { HTTP_READING, HTTP_OPEN, HTTP_DONE };

/* A TCP connection that must send something until due_ms: linked in the order of due_ms. */
struct http_conn {
    TAILQ_ENTRY(http_conn) link;
    uint64_t due_ms;
    int fd;
    bool linked;
};

struct http_call {
    struct hp_rpc_call base; /* must be first */
    struct rpc_http *http;
    struct MHD_Connection *connection;
    struct http_conn *conn;              /* may be NULL */
    TAILQ_ENTRY(http_call) link;         /* http->calls */
    TAILQ_ENTRY(http_call) pending_link; /* http->pending: on_writable is owed */
    uv_timer_t timer;                    /* the deadline */
    uv_poll_t gone; /* the client's end of the connection, which libmicrohttpd does not watch while we are suspended */
    struct hp_bytes body;        /* of the request */
    struct hp_bytes output;      /* unary: the response's body; streaming: envelopes */
    Google__Rpc__Status *status; /* of a call that failed */
    char address[64];
    uint64_t deadline_ms; /* UINT64_MAX: none */
    uint64_t discarded;   /* bytes of a body that nobody wants */
    size_t body_max;
    int http_status; /* of a refusal by HTTP's own means; 0: derived from status */
    int handles;     /* of timer and gone, until their close callbacks */
    enum connect_codec codec;
    enum http_call_state state;
    bool streaming; /* envelopes both ways */
    bool preflight; /* OPTIONS: answered with 204 */
    bool answered;  /* unary: hp_rpc_send was called */
    bool suspended; /* libmicrohttpd does not touch the connection until we resume it */
    bool dead;      /* the client is gone: close the connection */
    bool ended;     /* streaming: the last envelope is queued */
    bool output_full, pending;
    bool watching, timed; /* `gone`, `timer` are initialised */
    bool queued;          /* MHD_queue_response was called */
};

struct rpc_http {
    struct hp_rpc_server *server;
    struct rpc_http *former; /* one with certificates of before, that has calls still */
    struct hp_tls_files files;
    struct hp_rpc_limits limits;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;   /* libmicrohttpd's epoll descriptor */
    uv_timer_t timer; /* its next timeout */
    uv_timer_t slow;  /* the first of `reading` */
    uv_idle_t again;  /* active when it must run on the next turn */
    int handles;      /* of these four, until their close callbacks */
    TAILQ_HEAD(, http_call) calls;
    TAILQ_HEAD(, http_call) pending;
    TAILQ_HEAD(, http_conn) reading; /* connections that owe us bytes */
    uint64_t read_ms;
    char *allow_origins; /* NULL: none */
    char address[80];
    bool draining, quiet, closing; /* quiet: accepts no more */
    bool stale;                    /* the certificate has changed */
    bool replaced;                 /* another one accepts */
};

/* rpc_http.c */
void rpc_http_run_again(struct rpc_http *h);
void rpc_http_read_from(struct rpc_http *h, struct http_conn *conn);
void rpc_http_read_done(struct rpc_http *h, struct http_conn *conn);
/* A call was freed. */
void rpc_http_call_ended(struct rpc_http *h);

/* rpc_http_call.c */
struct http_call *http_call_new(struct rpc_http *h, struct MHD_Connection *connection);
enum MHD_Result http_call_begin(struct http_call *c, const char *url, const char *method);
enum MHD_Result http_call_body(struct http_call *c, const char *data, size_t len);
enum MHD_Result http_call_proceed(struct http_call *c);
/* libmicrohttpd is done with the request. */
void http_call_completed(struct http_call *c);
/* The client is gone, or the server closes. */
void http_call_abandon(struct http_call *c);
void http_call_work(struct http_call *c);
/* Ends a call that its handler has not ended. */
void http_call_fail(struct http_call *c, Google__Rpc__Status *status);

/* rpc_connect.c: https://connectrpc.com/docs/protocol */
/* Sets codec and streaming. */
void connect_parse_content_type(struct http_call *c, const char *text);
/* Checks the headers of a POST to a known method; NULL when the call may go on. */
Google__Rpc__Status *connect_check_headers(struct http_call *c);
/* Turns the whole body into the one request message. */
int connect_unpack(struct http_call *c, ProtobufCMessage **ret, struct hp_error *e) HP_MUST_CHECK;
void connect_request_free(struct http_call *c, ProtobufCMessage *request);
/* Appends a response to c->output, in an envelope when streaming. HP_ELIMIT, HP_ENOMEM. */
int connect_write(struct http_call *c, const ProtobufCMessage *response) HP_MUST_CHECK;
/* {"code":…,"message":…,"details":[…]}; heap, NULL when out of memory. */
char *connect_error_json(const Google__Rpc__Status *status);
/* Appends the last envelope of a stream. */
int connect_write_end(struct http_call *c) HP_MUST_CHECK;
const char *connect_response_type(const struct http_call *c);

#endif
