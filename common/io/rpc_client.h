/* rpc_client.h — a gRPC client on the loop: one HTTP/2 connection, reconnecting, any number of calls of all four kinds. */
#ifndef HP_IO_RPC_CLIENT_H
#define HP_IO_RPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>
#include <uv.h>

#include "base/error.h"
#include "grpc/client.h" /* struct hp_client_call_events, hp_client_call_send, _half_close, _cancel */

struct hp_rpc_client;

struct hp_rpc_client_options {
    const char *endpoint; /* "https://host:port" or "http://host:port" (h2c) */
    const char *ca_file, *cert_file, *key_file;
    const char *token;   /* sent as "authorization: Bearer …"; NULL none */
    uint64_t connect_ms; /* 0: 5,000 */
    size_t message_max;  /* bytes of one response; 0: 16 MiB */
};
int hp_rpc_client_new(uv_loop_t *loop, const struct hp_rpc_client_options *o, struct hp_rpc_client **ret,
                      struct hp_error *e) HP_MUST_CHECK;
/* Calls under way end as CANCELLED. */
void hp_rpc_client_close(struct hp_rpc_client *c, void (*closed_cb)(void *user), void *user);

/* `path` is "/harpoon.v1.ContainerService/GetContainer". timeout_ms 0: none. on_finish is never called from inside. */
int hp_client_call_start(struct hp_rpc_client *c, const char *path, const ProtobufCMessageDescriptor *response,
                         uint64_t timeout_ms, const struct hp_client_call_events *ev, void *user,
                         struct hp_client_call **ret, struct hp_error *e) HP_MUST_CHECK;

#endif
