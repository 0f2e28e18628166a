#include "grpc/health.h"

#include <stdlib.h>

#include "grpc/health/v1/health.pb-c.h"

/* One Watch call. It follows the status from on_message to the end of the call. */
struct hp_rpc_watcher {
    LIST_ENTRY(hp_rpc_watcher) link;
    struct hp_rpc_call *call;
    bool known;  /* the service exists; SERVICE_UNKNOWN otherwise, without an end */
    bool behind; /* the client is slow: the status is sent when there is room */
};

void hp_rpc_health_init(struct hp_rpc_health *h, const struct hp_rpc_table *table)
{
    h->table = table;
    h->serving = false;
    LIST_INIT(&h->watchers);
}

static bool known(const struct hp_rpc_health *h, const char *service)
{
    return service[0] == '\0' || hp_rpc_table_has_service(h->table, service);
}

static int send_status(struct hp_rpc_call *call, const struct hp_rpc_health *h, bool is_known)
{
    Grpc__Health__V1__HealthCheckResponse r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    if (!is_known)
        r.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    else if (h->serving)
        r.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    else
        r.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    return hp_rpc_send(call, &r.base);
}

static void on_check(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const struct hp_rpc_health *h = hp_rpc_context(call);
    const Grpc__Health__V1__HealthCheckRequest *q = (const void *)m;
    if (!known(h, q->service)) {
        hp_rpc_finish(call,
                      hp_status_new(HP_CODE_NOT_FOUND, "UNKNOWN_SERVICE", "there is no service \"%s\"", q->service));
        return;
    }
    int rc = send_status(call, h, true);
    hp_rpc_finish(call,
                  rc == HP_ELIMIT ? hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no memory") : NULL);
}

static void on_watch(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    struct hp_rpc_health *h = hp_rpc_context(call);
    const Grpc__Health__V1__HealthCheckRequest *q = (const void *)m;
    struct hp_rpc_watcher *w = calloc(1, sizeof *w);
    if (!w) {
        hp_rpc_finish(call, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no memory for a watch"));
        return;
    }
    w->call = call;
    w->known = known(h, q->service);
    w->behind = send_status(call, h, w->known) == HP_ELIMIT;
    hp_rpc_set_user(call, w);
    LIST_INSERT_HEAD(&h->watchers, w, link);
}

static void on_watch_writable(struct hp_rpc_call *call)
{
    struct hp_rpc_watcher *w = hp_rpc_user(call);
    if (w->behind)
        w->behind = send_status(call, hp_rpc_context(call), w->known) == HP_ELIMIT;
}

static void drop(struct hp_rpc_watcher *w)
{
    LIST_REMOVE(w, link);
    free(w);
}

static void on_watch_cancel(struct hp_rpc_call *call)
{
    struct hp_rpc_watcher *w = hp_rpc_user(call);
    if (w)
        drop(w);
}

void hp_rpc_health_set(struct hp_rpc_health *h, bool serving)
{
    if (h->serving == serving)
        return;
    h->serving = serving;
    struct hp_rpc_watcher *w;
    LIST_FOREACH(w, &h->watchers, link)
    if (w->known)
        w->behind = send_status(w->call, h, true) == HP_ELIMIT;
}

void hp_rpc_health_end_watches(struct hp_rpc_health *h)
{
    struct hp_rpc_watcher *w;
    while ((w = LIST_FIRST(&h->watchers)) != NULL) {
        struct hp_rpc_call *call = w->call;
        drop(w);
        hp_rpc_finish(call, hp_status_new(HP_CODE_UNAVAILABLE, "SHUTTING_DOWN", "the server is shutting down"));
    }
}

static const struct hp_rpc_method check_method = {
    .service = "grpc.health.v1.Health",
    .name = "Check",
    .request = &grpc__health__v1__health_check_request__descriptor,
    .response = &grpc__health__v1__health_check_response__descriptor,
    .on_message = on_check,
    .anonymous = true,
};
static const struct hp_rpc_method watch_method = {
    .service = "grpc.health.v1.Health",
    .name = "Watch",
    .request = &grpc__health__v1__health_check_request__descriptor,
    .response = &grpc__health__v1__health_check_response__descriptor,
    .server_streaming = true,
    .on_message = on_watch,
    .on_writable = on_watch_writable,
    .on_cancel = on_watch_cancel,
    .anonymous = true,
};
const struct hp_rpc_method *const hp_rpc_health_methods[] = {&check_method, &watch_method, NULL};
