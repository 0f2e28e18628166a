/* rpc_server.h — binds a table of handlers (grpc/rpc.h) to sockets: gRPC on HTTP/2, Connect on HTTP/1.1. */
#ifndef HP_IO_RPC_SERVER_H
#define HP_IO_RPC_SERVER_H

#include <uv.h>

#include "base/error.h"
#include "grpc/rpc.h"

struct hp_rpc_server;
struct hp_reflection_data;
struct hp_rpc_server_options {
    const struct hp_rpc_service *service;
    const char *grpc_listen; /* TLS, ALPN h2; NULL none */
    const char *h2c_listen;  /* plaintext, loopback addresses only (else an error); NULL none */
    const char *http_listen; /* Connect over HTTPS/1.1 (client certificates are not asked for here); NULL none */
    const char *cert_file, *key_file; /* without them http_listen is plaintext, on loopback addresses only */
    const char *client_ca_file;       /* grpc_listen: clients may show a certificate of this CA; NULL: not asked for */
    int connections_max;              /* over all listeners; 0: 10,000 */
    int64_t keepalive_ms; /* HTTP/2 ping after so long without a frame, closed when unanswered in 20 s; 0: 60,000 */
    int64_t idle_ms;      /* a connection without calls is sent GOAWAY after; 0: 1,800,000 */
    int64_t
        http_read_ms; /* http_listen: for each of TLS handshake and headers, a body, the time between requests; 0: 60,000 */
    const char *allow_origins; /* CORS for browsers on http_listen: comma-separated, "*" any, NULL none */
    const struct hp_reflection_data
        *reflection; /* what server reflection describes; NULL: harpoon.v1 (grpc/reflection.h) */
};
/* On failure nothing is left behind but handles that close on the next turns of the loop. Everything in `o` is copied or used up, except service and reflection. Begins
 * NOT_SERVING. HP_EINVAL: an option is wrong; HP_EEXISTS: an address is in use. */
int hp_rpc_server_start(uv_loop_t *loop, const struct hp_rpc_server_options *o, struct hp_rpc_server **ret,
                        struct hp_error *e) HP_MUST_CHECK;
/* As bound: kind "grpc", "h2c" or "http"; NULL when not listening. */
const char *hp_rpc_server_address(const struct hp_rpc_server *s, const char *kind);
/* grpc.health.v1 for "" and every service of the table: serving or not. */
void hp_rpc_server_set_serving(struct hp_rpc_server *s, bool serving);
/* Health becomes NOT_SERVING, GOAWAY, calls under way get drain_ms, then all is closed; closed_cb last; s is freed. */
void hp_rpc_server_close(struct hp_rpc_server *s, uint64_t drain_ms, void (*closed_cb)(void *user), void *user);

#endif
