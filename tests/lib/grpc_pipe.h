/* grpc_pipe.h — a client and a server session joined in memory, with a clock that the test turns. */
#ifndef HP_TESTS_GRPC_PIPE_H
#define HP_TESTS_GRPC_PIPE_H

#include "grpc/client.h"
#include "grpc/server.h"

struct grpc_pipe {
    struct hp_rpc_table table;
    struct hp_rpc_service service;
    struct hp_rpc_budget budget;
    struct hp_grpc_server *server;
    struct hp_grpc_client *client; /* NULL when the test writes the bytes itself */
    uint64_t now_ms;
    int server_error, client_error; /* of the last receive, pull or tick that failed */
    struct hp_error server_message;
    int wakes;
    size_t chunk; /* bytes handed over at once; 0: whatever a pull gives */
};

/* `service` must be filled in before (methods, limits). */
void grpc_pipe_open(struct grpc_pipe *p, bool with_client);
void grpc_pipe_close(struct grpc_pipe *p);
/* Hands bytes over both ways until both sides are silent. */
void grpc_pipe_pump(struct grpc_pipe *p);
/* Lets time pass, ticks both sides, pumps. */
void grpc_pipe_pass(struct grpc_pipe *p, uint64_t ms);
/* A call attached to the pipe's client. timeout_ms 0: none. */
struct hp_client_call *grpc_pipe_call(struct grpc_pipe *p, const char *path, const ProtobufCMessageDescriptor *response,
                                      uint64_t timeout_ms, const struct hp_client_call_events *events, void *user);

#endif
