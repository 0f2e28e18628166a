#include "grpc/call.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void hp_rpc_set_user(struct hp_rpc_call *call, void *user)
{
    call->user = user;
}

void *hp_rpc_user(const struct hp_rpc_call *call)
{
    return call->user;
}

void *hp_rpc_context(const struct hp_rpc_call *call)
{
    return call->entry->context;
}

const struct hp_rpc_method *hp_rpc_method_of(const struct hp_rpc_call *call)
{
    return call->entry->method;
}

const struct hp_rpc_peer *hp_rpc_peer_of(const struct hp_rpc_call *call)
{
    return &call->peer;
}

uint64_t hp_rpc_deadline_left_ms(const struct hp_rpc_call *call)
{
    return call->ops->deadline_left_ms(call);
}

static int send_response(struct hp_rpc_call *call, const ProtobufCMessage *response)
{
    assert(!call->ended);
    assert(response->descriptor == call->entry->method->response);
    return call->ops->send(call, response);
}

int hp_rpc_send(struct hp_rpc_call *call, const ProtobufCMessage *response)
{
    int rc = send_response(call, response);
    return rc == HP_ENOMEM ? HP_ELIMIT : rc;
}

void hp_rpc_pause(struct hp_rpc_call *call)
{
    assert(!call->ended);
    call->ops->pause(call, true);
}

void hp_rpc_resume(struct hp_rpc_call *call)
{
    assert(!call->ended);
    call->ops->pause(call, false);
}

void hp_rpc_finish(struct hp_rpc_call *call, Google__Rpc__Status *status)
{
    assert(!call->ended);
    call->ended = true;
    if (status && status->code == HP_CODE_OK) {
        hp_status_free(status);
        status = NULL;
    }
    call->ops->finish(call, status);
}

void hp_rpc_reply(struct hp_rpc_call *call, const ProtobufCMessage *response)
{
    int rc = send_response(call, response);
    if (rc == 0 || rc == HP_EAGAIN) {
        hp_rpc_finish(call, NULL);
        return;
    }
    if (rc == HP_ENOMEM) {
        hp_rpc_finish(call, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no memory for the response"));
        return;
    }
    hp_rpc_finish(call, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE",
                                      "the response of %zu bytes is more than may be queued for this call",
                                      protobuf_c_message_get_packed_size(response)));
}

void hp_rpc_call_cancel(struct hp_rpc_call *call)
{
    if (call->ended)
        return;
    call->ended = true;
    if (call->seen && call->entry->method->on_cancel)
        call->entry->method->on_cancel(call);
}

struct hp_rpc_limits hp_rpc_limits_of(const struct hp_rpc_service *service)
{
    struct hp_rpc_limits limits = {
        .message_max = service->message_max ? service->message_max : 1 << 20,
        .call_buffer_max = service->call_buffer_max ? service->call_buffer_max : 4 << 20,
        .calls_max = service->calls_max > 0 ? service->calls_max : 1000,
    };
    return limits;
}

/* The codecs say "path.of.field: what is wrong". */
static Google__Rpc__Status *malformed(const char *message)
{
    Google__Rpc__Status *s = hp_status_new(HP_CODE_INVALID_ARGUMENT, "MALFORMED_MESSAGE", "%s", message);
    size_t len = strcspn(message, ": ");
    if (len == 0 || strncmp(message + len, ": ", 2) != 0)
        return s;
    char field[HP_ERROR_MESSAGE_MAX];
    snprintf(field, sizeof field, "%.*s", (int)len, message);
    return hp_status_add_field(s, field, message + len + 2);
}

Google__Rpc__Status *hp_rpc_input_status(int code, const struct hp_error *e)
{
    assert(code < 0);
    switch (code) {
    case HP_ELIMIT:
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", "%s", e->message);
    case HP_EINVAL:
        return malformed(e->message);
    case HP_ENOMEM:
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "%s", e->message);
    default:
        return hp_status_new(HP_CODE_INTERNAL, NULL, "%s", e->message);
    }
}

Google__Rpc__Status *hp_rpc_call_authenticate(struct hp_rpc_call *call, const struct hp_rpc_service *service,
                                              const char *authorization)
{
    if (call->entry->method->anonymous || !service->authenticate)
        return NULL;
    return service->authenticate(service->context, authorization, &call->peer);
}

void hp_rpc_call_forget(struct hp_rpc_call *call, const struct hp_rpc_service *service)
{
    if (call->peer.identity && service->forget)
        service->forget(service->context, &call->peer);
    call->peer.identity = NULL;
}
