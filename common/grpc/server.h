/* server.h — the server side of one gRPC connection: HTTP/2 bytes in, handler callbacks, bytes out. No I/O, no clock: the caller passes bytes and the time. */
#ifndef HP_GRPC_SERVER_H
#define HP_GRPC_SERVER_H

#include "base/error.h"
#include "grpc/bytes.h"
#include "grpc/rpc.h"
#include "grpc/table.h"

enum {
    HP_GRPC_HEADERS_MAX = 100,            /* header fields of one request; more: 431 and RESOURCE_EXHAUSTED */
    HP_GRPC_HEADER_BYTES_MAX = 16 << 10,  /* of names and values, 32 added for each field (RFC 9113, 6.5.2) */
    HP_GRPC_OUTPUT_HIGH_BYTES = 64 << 10, /* hp_rpc_send says HP_EAGAIN above, on_writable comes below half of it */
    HP_GRPC_STREAM_WINDOW = 128 << 10,    /* bytes a client may send before we take them: the bound of a paused call */
    HP_GRPC_CONNECTION_WINDOW = 1 << 20,
    HP_GRPC_PREFACE_MS = 10000,     /* for the client's first SETTINGS */
    HP_GRPC_REQUEST_MS = 30000,     /* for the one request message of a unary or server-streaming call */
    HP_GRPC_STALL_MS = 60000,       /* queued output without progress: the call is ended */
    HP_GRPC_PING_MS = 20000,        /* for the answer to a keepalive ping */
    HP_GRPC_DRAIN_NOTICE_MS = 1000, /* between the two GOAWAYs of a drain, unless the client answers sooner */
};

struct hp_grpc_server;

struct hp_grpc_server_config {
    const struct hp_rpc_table *table;     /* borrowed */
    const struct hp_rpc_service *service; /* limits, authenticator; borrowed. Its `methods` are not read: see table. */
    struct hp_rpc_budget *budget;         /* of all connections; NULL: none */
    struct hp_rpc_peer peer;              /* copied to each call; its texts must outlive the connection */
    uint64_t keepalive_ms, idle_ms;       /* 0: never */
    /* There is something to pull, because of what happened outside of the functions below. May be called at any time: only take a note. */
    void (*wake_cb)(void *user);
    void *user;
};

int hp_grpc_server_new(const struct hp_grpc_server_config *c, uint64_t now_ms, struct hp_grpc_server **ret,
                       struct hp_error *e) HP_MUST_CHECK;
/* Calls under way are cancelled. Not from inside a handler. */
void hp_grpc_server_free(struct hp_grpc_server *s);

/* Takes all of the bytes; handlers run from inside. An error means that the connection is beyond repair: pull what is left to send, then close. */
int hp_grpc_server_receive(struct hp_grpc_server *s, uint64_t now_ms, const uint8_t *data, size_t len,
                           struct hp_error *e) HP_MUST_CHECK;
/* The next bytes to send: valid until the next call of any function here; *ret_len 0: nothing for now. Handlers' on_writable and waiting messages run from inside. */
int hp_grpc_server_pull(struct hp_grpc_server *s, uint64_t now_ms, const uint8_t **ret_data, size_t *ret_len,
                        struct hp_error *e) HP_MUST_CHECK;
/* When hp_grpc_server_tick should be called, UINT64_MAX never; may be earlier than needed. Changes with every other call. */
uint64_t hp_grpc_server_deadline(const struct hp_grpc_server *s);
/* Deadlines, keepalive, idle, drain. HP_ETIMEDOUT: the peer is gone, close the connection. */
int hp_grpc_server_tick(struct hp_grpc_server *s, uint64_t now_ms, struct hp_error *e) HP_MUST_CHECK;
/* GOAWAY; calls under way go on. Idempotent. */
void hp_grpc_server_drain(struct hp_grpc_server *s, uint64_t now_ms);
/* Nothing more will be read or sent: close the connection. */
bool hp_grpc_server_finished(const struct hp_grpc_server *s);
size_t hp_grpc_server_calls(const struct hp_grpc_server *s);

#endif
