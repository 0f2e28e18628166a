/* rpc_server_impl.h — the inside of rpc_server.h, shared by rpc_server.c, rpc_h2.c and rpc_http*.c only. */
#ifndef HP_IO_RPC_SERVER_IMPL_H
#define HP_IO_RPC_SERVER_IMPL_H

#include <sys/queue.h>

#include "grpc/bytes.h"
#include "grpc/health.h"
#include "grpc/reflection.h"
#include "grpc/table.h"
#include "io/rpc_server.h"
#include "io/stream.h"

enum {
    RPC_BUFFER_MAX = 256 << 20,                     /* bytes of requests and responses held for all peers together */
    RPC_CONNECTIONS_MAX = 10000,                    /* default of connections_max */
    RPC_KEEPALIVE_MS = 60000,                       /* default of keepalive_ms */
    RPC_IDLE_MS = 1800000,                          /* default of idle_ms */
    RPC_WRITE_QUEUE_MAX = 512 << 10,                /* of one connection's stream */
    RPC_WRITE_QUEUE_HIGH = RPC_WRITE_QUEUE_MAX / 2, /* no more is pulled above */
    RPC_LINGER_MS = 2000,                           /* for the last bytes of a connection that ends in order */
};

struct rpc_h2_conn;
struct rpc_http;

struct hp_rpc_server {
    uv_loop_t *loop;
    const struct hp_rpc_service *service;
    struct hp_rpc_table table;
    struct hp_rpc_health health;
    struct hp_rpc_reflection reflection;
    struct hp_rpc_budget budget;
    uint64_t keepalive_ms, idle_ms;
    int connections_max, connections; /* HTTP/2 */
    struct hp_tls_context *tls;
    struct hp_listener *grpc, *h2c;
    LIST_HEAD(, rpc_h2_conn) conns;
    TAILQ_HEAD(rpc_h2_dirty, rpc_h2_conn) dirty; /* something to pull, since a handler answered from elsewhere */
    struct rpc_http *http;                       /* NULL: not listening */
    uv_idle_t flush;                             /* active while `dirty` is not empty */
    uv_timer_t drain;                            /* the end of the grace period of hp_rpc_server_close */
    int handles;                                 /* of the two above, until their close callbacks */
    bool closing;                                /* hp_rpc_server_close was called, or the start failed */
    bool handles_closing;
    void (*closed_cb)(void *user);
    void *closed_user;
};

/* rpc_server.c: a part has ended; frees the server after the last. */
void rpc_server_part_ended(struct hp_rpc_server *s);

/* rpc_h2.c */
void rpc_h2_accept(struct hp_listener *l, struct hp_stream *stream, void *server);
/* Pulls and writes for the connections on `dirty`. */
void rpc_h2_flush(struct hp_rpc_server *s);
void rpc_h2_drain_all(struct hp_rpc_server *s);
void rpc_h2_close_all(struct hp_rpc_server *s);

/* rpc_http.c */
int rpc_http_start(struct hp_rpc_server *s, const struct hp_rpc_server_options *o, struct rpc_http **ret,
                   struct hp_error *e) HP_MUST_CHECK;
const char *rpc_http_address(const struct rpc_http *h);
/* Both with the former ones. Stops accepting. When no call is left, or rpc_http_close is called, everything closes; then h is freed and rpc_server_part_ended called. */
void rpc_http_drain(struct rpc_http *h);
void rpc_http_close(struct rpc_http *h);

/* Is this numeric "host:port" a loopback address? */
bool rpc_is_loopback(const char *address);

#endif
