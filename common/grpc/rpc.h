/* rpc.h — the table of RPC handlers, served alike by gRPC (HTTP/2) and Connect (HTTP/1.1), and the call object that handlers answer through. */
#ifndef HP_GRPC_RPC_H
#define HP_GRPC_RPC_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grpc/status.h"

struct hp_rpc_call;

/* One method. Callbacks run on the loop thread. A handler must finish each call exactly once with hp_rpc_finish (or hp_rpc_reply), now or later;
 * after on_cancel it must not touch the call again, except that hp_rpc_finish is then not needed. */
struct hp_rpc_method {
    const char *service; /* "harpoon.v1.ContainerService" */
    const char *name;    /* "CreateContainer" */
    const ProtobufCMessageDescriptor *request;
    const ProtobufCMessageDescriptor *response;
    bool client_streaming, server_streaming;
    /* A request message, valid during the call only (unary and server streaming: exactly once). Already within the size cap and unpacked under a memory
     * budget; strings are valid UTF-8 without NUL. */
    void (*on_message)(struct hp_rpc_call *call, const ProtobufCMessage *request);
    /* Client streaming: the client has sent its last message. May be NULL otherwise. */
    void (*on_half_close)(struct hp_rpc_call *call);
    /* hp_rpc_send returned HP_EAGAIN before and there is room again. May be NULL. */
    void (*on_writable)(struct hp_rpc_call *call);
    /* The client went away, cancelled, or the deadline passed: last callback. May be NULL. */
    void (*on_cancel)(struct hp_rpc_call *call);
    /* Client streaming: the call begins. May be NULL. */
    void (*on_start)(struct hp_rpc_call *call);
    /* May be called without credentials (health, reflection). */
    bool anonymous;
};

/* Who calls; made by the authenticator. */
struct hp_rpc_peer {
    const char *address;   /* "127.0.0.1:5000" */
    const char *cert_uri;  /* SAN URI or NULL */
    const char *cert_cn;   /* or NULL */
    const char *principal; /* set by the authenticator; lives as long as the call */
    uint64_t grants;       /* the authenticator's own bits */
    const void *identity;  /* the authenticator's own, must outlive the call: until `forget` */
};

/* The handler's own pointer on a call. */
void hp_rpc_set_user(struct hp_rpc_call *call, void *user);
void *hp_rpc_user(const struct hp_rpc_call *call);
/* Given to hp_rpc_server at start: the daemon's state. */
void *hp_rpc_context(const struct hp_rpc_call *call);
const struct hp_rpc_method *hp_rpc_method_of(const struct hp_rpc_call *call);
const struct hp_rpc_peer *hp_rpc_peer_of(const struct hp_rpc_call *call);
/* Milliseconds left until the client's deadline; UINT64_MAX when it set none. */
uint64_t hp_rpc_deadline_left_ms(const struct hp_rpc_call *call);
/* Packs and queues one response message. 0; HP_EAGAIN: queued, but please wait for on_writable before the next one; HP_ELIMIT: more than the
 * call's buffer limit: not queued. */
int hp_rpc_send(struct hp_rpc_call *call, const ProtobufCMessage *response);
/* Client streaming: no on_message until hp_rpc_resume; the client is held back by flow control. Messages that wait are delivered from the loop, never from
 * inside hp_rpc_resume. */
void hp_rpc_pause(struct hp_rpc_call *call);
void hp_rpc_resume(struct hp_rpc_call *call);
/* Ends the call. `status` NULL or code 0: success. Takes ownership of status. */
void hp_rpc_finish(struct hp_rpc_call *call, Google__Rpc__Status *status);
/* Send one message and finish with success. */
void hp_rpc_reply(struct hp_rpc_call *call, const ProtobufCMessage *response);

/* Decides who calls; sets peer->principal, grants, identity. `authorization` is the header or NULL. Returns NULL, or a status (ownership passes) that ends the call. Loop thread. */
typedef Google__Rpc__Status *(*hp_rpc_authenticate_fn)(void *context, const char *authorization,
                                                       struct hp_rpc_peer *peer);

/* What both transports are given. */
struct hp_rpc_service {
    const struct hp_rpc_method *const *methods; /* NULL-terminated */
    void *context;
    hp_rpc_authenticate_fn authenticate;                           /* NULL: everybody */
    void (*forget)(void *context, const struct hp_rpc_peer *peer); /* a call with an identity is over; may be NULL */
    size_t message_max;                                            /* bytes of one request message; 0: 1 MiB */
    size_t call_buffer_max;                                        /* bytes queued to one slow client; 0: 4 MiB */
    int calls_max;                                                 /* concurrent calls of one connection; 0: 1000 */
};

#endif
