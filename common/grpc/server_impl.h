/* server_impl.h — what server.c (the connection) and server_call.c (its calls) share. */
#ifndef HP_GRPC_SERVER_IMPL_H
#define HP_GRPC_SERVER_IMPL_H

#include <nghttp2/nghttp2.h>
#include <sys/queue.h>

#include "grpc/call.h"
#include "grpc/message.h"
#include "grpc/server.h"

/* A call's life. HEADERS: the header block is arriving. OPEN: it is the handler's. FINISHED: the handler is done (it finished, or was told by on_cancel); the
 * answer is on its way. Freed when nghttp2 closes the stream.
 *
 *     HEADERS ──accepted──▶ OPEN ──finish, cancel──▶ FINISHED ──stream closed──▶ freed
 *        └──────────────refused─────────────────────────▲
 */
enum server_call_state { CALL_HEADERS, CALL_OPEN, CALL_FINISHED };

struct server_call {
    struct hp_rpc_call base;               /* must be first */
    struct hp_grpc_server *session;        /* owner */
    TAILQ_ENTRY(server_call) link;         /* session->calls */
    TAILQ_ENTRY(server_call) pending_link; /* session->pending, when `pending` */
    struct hp_message_reader reader;       /* request bytes to messages */
    struct hp_bytes held;                  /* request bytes that wait while the call is paused; not yet consumed */
    struct hp_bytes output;                /* framed responses */
    ProtobufCMessage *request;             /* unary: kept until the client half-closes */
    Google__Rpc__Status *status;           /* of a finished call; NULL: success */
    char *authorization;                   /* header, until the call starts */
    uint64_t deadline_ms;                  /* the client's; UINT64_MAX none */
    uint64_t request_due_ms;               /* for the header block, and the message of a unary call; UINT64_MAX none */
    uint64_t stall_due_ms;                 /* output must move until then; UINT64_MAX: none queued */
    int32_t stream_id;
    uint32_t header_count, header_bytes;
    enum server_call_state state;
    uint16_t http_status; /* of the response; not 200 only for refusals */
    bool post, te_trailers, content_type, path_seen, timeout_bad, encoding_bad; /* from the header block */
    bool out_of_memory;                                                         /* for a header */
    bool half_closed;                                                           /* the client has sent END_STREAM */
    bool half_close_done;                                                       /* … and the handler knows */
    bool paused;                                                                /* by the handler */
    bool output_full;                                                           /* hp_rpc_send said HP_EAGAIN */
    bool pending;                                                               /* on session->pending */
    bool response_started;                                                      /* response headers are submitted */
};

struct hp_grpc_server {
    nghttp2_session *h2;
    struct hp_grpc_server_config config;
    struct hp_rpc_limits limits;
    TAILQ_HEAD(, server_call) calls;   /* all streams that live */
    TAILQ_HEAD(, server_call) pending; /* calls with work for the next pull */
    size_t call_count;
    uint64_t now_ms; /* as last given */
    uint64_t due_ms; /* not later than the earliest deadline of all */
    uint64_t start_ms;
    uint64_t received_ms;    /* last bytes from the peer */
    uint64_t ping_sent_ms;   /* UINT64_MAX: none under way */
    uint64_t idle_since_ms;  /* UINT64_MAX while there are calls */
    uint64_t drain_final_ms; /* when the second GOAWAY is due; UINT64_MAX: not draining or done */
    int fatal;               /* HP_E…: something failed inside a callback */
    bool ready;              /* the client's SETTINGS came */
    bool draining;
    bool busy; /* inside an API function: no wake needed */
};

/* server_call.c */
struct server_call *server_call_new(struct hp_grpc_server *s, int32_t stream_id);
/* The stream is closed: tells the handler if it does not know, frees. */
void server_call_closed(struct server_call *c);
void server_call_header(struct server_call *c, const uint8_t *name, size_t name_len, const uint8_t *value,
                        size_t value_len);
/* The header block is complete. */
void server_call_begin(struct server_call *c);
void server_call_data(struct server_call *c, const uint8_t *data, size_t len);
void server_call_half_close(struct server_call *c);
/* Work put off to the loop: on_writable, waiting messages. */
void server_call_work(struct server_call *c);
/* Ends what is due; returns the earliest instant that is still to come. */
uint64_t server_call_tick(struct server_call *c, uint64_t now_ms);

/* server.c */
void server_wake(struct hp_grpc_server *s);
void server_due(struct hp_grpc_server *s, uint64_t due_ms);
/* An nghttp2 function failed in a way that ends the connection. */
void server_fatal(struct hp_grpc_server *s, int nghttp2_error);

#endif
