/* client.h — the client side of one gRPC connection, without I/O or clock, and the calls that run on it. */
#ifndef HP_GRPC_CLIENT_H
#define HP_GRPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "google/rpc/status.pb-c.h"

enum {
    HP_CLIENT_OUTPUT_HIGH_BYTES =
        64 << 10,                    /* hp_client_call_send says HP_EAGAIN above, on_writable comes below half of it */
    HP_CLIENT_OUTPUT_MAX = 16 << 20, /* bytes queued in one call: HP_ELIMIT above */
    HP_CLIENT_HEADERS_MAX = 200,     /* fields in one response, trailers included */
    HP_CLIENT_PING_MS = 20000,       /* for the answer to a keepalive ping */
};

struct hp_client_call;

struct hp_client_call_events {
    /* `response` is valid during the call only. */
    void (*on_message)(struct hp_client_call *call, const ProtobufCMessage *response, void *user);
    void (*on_writable)(struct hp_client_call *call, void *user); /* may be NULL */
    /* Exactly once, last. status->code 0: success. Connection failures are UNAVAILABLE, our deadline DEADLINE_EXCEEDED. The call is freed afterwards. */
    void (*on_finish)(struct hp_client_call *call, const Google__Rpc__Status *status, void *user);
};
/* Queues one request message; 0, HP_EAGAIN (queued; wait for on_writable), HP_ELIMIT (not queued). */
int hp_client_call_send(struct hp_client_call *call, const ProtobufCMessage *request);
void hp_client_call_half_close(struct hp_client_call *call);
/* on_finish follows from the loop with CANCELLED; no other callback does. */
void hp_client_call_cancel(struct hp_client_call *call);

/* ---- for the one who drives connections (io/rpc_client) ---- */

struct hp_grpc_call_options {
    const char *path; /* copied */
    const ProtobufCMessageDescriptor *response;
    uint64_t deadline_ms; /* on the clock of now_ms; UINT64_MAX none */
    size_t message_max;   /* bytes of one response */
    const struct hp_client_call_events *events;
    void *user;
    /* Called when the call changed while it waits for a connection. Only take a note. */
    void (*wake_cb)(void *wake_user);
    void *wake_user;
};
/* A call that waits for a connection: messages may be queued. HP_ENOMEM, HP_EINVAL for a path without '/'. */
int hp_grpc_call_new(const struct hp_grpc_call_options *o, struct hp_client_call **ret,
                     struct hp_error *e) HP_MUST_CHECK;
/* Waiting calls only. Deadline of the call, and whether it was cancelled. */
uint64_t hp_grpc_call_deadline(const struct hp_client_call *call);
bool hp_grpc_call_cancelled(const struct hp_client_call *call);
/* Waiting calls only: calls on_finish and frees. */
void hp_grpc_call_end(struct hp_client_call *call, int code, const char *message);
/* A list of waiting calls, linked through the calls themselves. */
struct hp_client_call *hp_grpc_call_next(const struct hp_client_call *call);
void hp_grpc_call_set_next(struct hp_client_call *call, struct hp_client_call *next);

struct hp_grpc_client;
struct hp_grpc_client_config {
    const char *scheme;          /* "http" or "https"; these three texts must outlive the connection */
    const char *authority;       /* "host:port" */
    const char *token;           /* sent as "authorization: Bearer …"; NULL none */
    uint64_t keepalive_ms;       /* ping after so long without a byte while calls are under way; 0: never */
    void (*wake_cb)(void *user); /* as in grpc/server.h */
    void *user;
};
int hp_grpc_client_new(const struct hp_grpc_client_config *c, uint64_t now_ms, struct hp_grpc_client **ret,
                       struct hp_error *e) HP_MUST_CHECK;
/* Calls under way end as `code` with this message. Not from inside a callback. */
void hp_grpc_client_free(struct hp_grpc_client *s, int code, const char *message);
/* Starts a waiting call on this connection. HP_EUNAVAILABLE: the connection takes no more calls: the call still waits; HP_ENOMEM. */
int hp_grpc_client_attach(struct hp_grpc_client *s, uint64_t now_ms, struct hp_client_call *call) HP_MUST_CHECK;
/* These five as in grpc/server.h. */
int hp_grpc_client_receive(struct hp_grpc_client *s, uint64_t now_ms, const uint8_t *data, size_t len,
                           struct hp_error *e) HP_MUST_CHECK;
int hp_grpc_client_pull(struct hp_grpc_client *s, uint64_t now_ms, const uint8_t **ret_data, size_t *ret_len,
                        struct hp_error *e) HP_MUST_CHECK;
uint64_t hp_grpc_client_deadline(const struct hp_grpc_client *s);
int hp_grpc_client_tick(struct hp_grpc_client *s, uint64_t now_ms, struct hp_error *e) HP_MUST_CHECK;
bool hp_grpc_client_finished(const struct hp_grpc_client *s);
/* Takes new calls: no GOAWAY yet. */
bool hp_grpc_client_usable(const struct hp_grpc_client *s);
size_t hp_grpc_client_calls(const struct hp_grpc_client *s);

#endif
