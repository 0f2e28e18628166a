#include <string.h>

#include "grpc/status.h"
#include "shell/gateway.h"

struct gw_gateway *gw_of(struct hp_rpc_call *call)
{
    return hp_rpc_context(call);
}

const struct gw_principal *gw_caller(struct hp_rpc_call *call)
{
    return hp_rpc_peer_of(call)->identity;
}

void gw_refresh_tokens(struct gw_gateway *gw)
{
    gw_tokens_refresh(&gw->tokens, hp_now_ms());
}

void gw_fail(struct hp_rpc_call *call, Google__Rpc__Status *status)
{
    if (!status) /* out of memory when it was made; perhaps it is there now */
        status = hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "out of memory");
    hp_rpc_finish(call, status);
}

struct gw_region *gw_region_of(struct hp_rpc_call *call, const char *name)
{
    struct gw_gateway *gw = gw_of(call);
    Google__Rpc__Status *status = NULL;
    int i = gw_region_find(&gw->regions, name, &status);
    if (i >= 0)
        return &gw->region[i];
    gw_fail(call, status);
    return NULL;
}

void gw_fail_field(struct hp_rpc_call *call, const char *field, const struct hp_error *e)
{
    size_t len = strlen(field);
    const char *text = e->message;
    if (strncmp(text, field, len) == 0 && strncmp(text + len, ": ", 2) == 0)
        text += len + 2;
    Google__Rpc__Status *s = hp_status_new(HP_CODE_INVALID_ARGUMENT, "FIELD_INVALID", "%s: %s", field, text);
    gw_fail(call, hp_status_add_field(s, field, text));
}

Google__Rpc__Status *gw_record_status(int result, const struct hp_error *e)
{
    switch (result) {
    case HP_ELIMIT:
        return hp_status_add_retry(
            hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "READS_FULL", "too many reads of the record are waiting"), 1000);
    case HP_ECORRUPT:
        return hp_status_new(HP_CODE_DATA_LOSS, "RECORD_CORRUPT", "the record: %s", e->message);
    case HP_ENOMEM:
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "out of memory");
    case HP_EINTERNAL:
    case HP_EUNSUPPORTED:
        return hp_status_new(HP_CODE_INTERNAL, "RECORD_FAILED", "the record: %s", e->message);
    default:
        return hp_status_add_retry(
            hp_status_new(HP_CODE_UNAVAILABLE, "RECORD_UNAVAILABLE", "the record cannot be read: %s", e->message),
            1000);
    }
}

Google__Rpc__Status *gw_stopping_status(void)
{
    return hp_status_add_retry(hp_status_new(HP_CODE_UNAVAILABLE, "GATEWAY_STOPPING", "this gateway is stopping"), 100);
}
