/* client_impl.h — what client.c (the connection) and client_call.c (its calls) share. */
#ifndef HP_GRPC_CLIENT_IMPL_H
#define HP_GRPC_CLIENT_IMPL_H

#include <nghttp2/nghttp2.h>
#include <sys/queue.h>

#include "grpc/client.h"
#include "grpc/message.h"

/* A call's life. WAITING: no connection yet. OPEN: its stream lives. Every way out is client_call_end, which tells the user and frees.
 *
 *     WAITING ──attach──▶ OPEN ──stream closed, deadline, cancel, connection lost──▶ freed
 *        └──────────deadline, cancel, no connection────────────────────────────────────▲
 */
enum client_call_state { CLIENT_WAITING, CLIENT_OPEN };

struct hp_client_call {
    struct hp_grpc_call_options options;      /* path is ours */
    struct hp_grpc_client *session;           /* NULL while waiting */
    struct hp_client_call *next_waiting;      /* the waiting list of the one who drives us */
    TAILQ_ENTRY(hp_client_call) link;         /* session->calls */
    TAILQ_ENTRY(hp_client_call) pending_link; /* session->pending, when `pending` */
    struct hp_message_reader reader;
    struct hp_bytes output;      /* framed requests */
    char *message;               /* grpc-message, decoded */
    Google__Rpc__Status *status; /* grpc-status-details-bin, unpacked */
    int32_t stream_id;
    uint32_t header_count;
    int http_status; /* 0 until it came */
    int grpc_status; /* -1 until it came */
    enum client_call_state state;
    bool content_type_ok;
    bool half_closed; /* by us: no more messages are queued */
    bool output_full; /* send said HP_EAGAIN */
    bool cancelled;   /* by the user: no callback but on_finish */
    bool pending;
};

struct hp_grpc_client {
    nghttp2_session *h2;
    struct hp_grpc_client_config config;
    TAILQ_HEAD(, hp_client_call) calls;
    TAILQ_HEAD(, hp_client_call) pending;
    size_t call_count;
    char *bearer; /* "Bearer …" or NULL */
    uint64_t now_ms, due_ms, received_ms;
    uint64_t ping_sent_ms; /* UINT64_MAX: none under way */
    int fatal;             /* HP_E…: something failed inside a callback */
    bool going_away;       /* the server sent GOAWAY */
    bool busy;             /* inside an API function: no wake needed */
};

/* client_call.c */
/* Resets the stream when it is open, tells the user, frees. Owns status. */
void client_call_end(struct hp_client_call *call, Google__Rpc__Status *status);
/* The response is complete while our half of the stream is open. */
void client_call_answered(struct hp_client_call *call);
/* nghttp2 closed the stream. */
void client_call_closed(struct hp_client_call *call, uint32_t error_code);
void client_call_header(struct hp_client_call *call, const uint8_t *name, size_t name_len, const uint8_t *value,
                        size_t value_len);
void client_call_data(struct hp_client_call *call, const uint8_t *data, size_t len);
/* Cancellation and on_writable, put off to the loop. */
void client_call_work(struct hp_client_call *call);
int client_call_open(struct hp_grpc_client *s, struct hp_client_call *call);

/* client.c */
void client_wake(struct hp_grpc_client *s);
void client_due(struct hp_grpc_client *s, uint64_t due_ms);
void client_fatal(struct hp_grpc_client *s, int nghttp2_error);

#endif
