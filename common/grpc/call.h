/* call.h — what a transport puts behind struct hp_rpc_call: for the transports only; handlers see grpc/rpc.h. */
#ifndef HP_GRPC_CALL_H
#define HP_GRPC_CALL_H

#include "base/error.h"
#include "grpc/rpc.h"
#include "grpc/table.h"

struct hp_rpc_call_ops {
    int (*send)(struct hp_rpc_call *call, const ProtobufCMessage *response);
    void (*finish)(struct hp_rpc_call *call, Google__Rpc__Status *status); /* owns status; NULL: success */
    void (*pause)(struct hp_rpc_call *call, bool pause);
    uint64_t (*deadline_left_ms)(const struct hp_rpc_call *call);
};

/* First member of each transport's own call. */
struct hp_rpc_call {
    const struct hp_rpc_call_ops *ops;
    const struct hp_rpc_entry *entry;
    struct hp_rpc_peer peer;
    void *user;
    bool seen;  /* the handler has had a callback, so it is told when the call is cancelled */
    bool ended; /* by the handler or by on_cancel: it must not use the call any more */
};

/* Ends the call for its handler, who did not end it: calls on_cancel when it has seen the call. Idempotent. */
void hp_rpc_call_cancel(struct hp_rpc_call *call);
/* The limits of a service with its defaults filled in. */
struct hp_rpc_limits {
    size_t message_max, call_buffer_max;
    int calls_max;
};
struct hp_rpc_limits hp_rpc_limits_of(const struct hp_rpc_service *service);
/* The status for bytes that hp_unpack or hp_message_read refused with `code`. */
Google__Rpc__Status *hp_rpc_input_status(int code, const struct hp_error *e);
/* Checks the credentials for the call's method (peer is filled in); NULL when the call may go on. */
Google__Rpc__Status *hp_rpc_call_authenticate(struct hp_rpc_call *call, const struct hp_rpc_service *service,
                                              const char *authorization);
/* The call is about to be freed. */
void hp_rpc_call_forget(struct hp_rpc_call *call, const struct hp_rpc_service *service);

#endif
