/* Point reads of the record: GetContainer, GetOperation, GetHost. */
#include "shell/reads.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "grpc/status.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "shell/gateway.h"
#include "shell/metrics.h"
#include "shell/rows.h"
#include "wire/codec.h"

enum { SQL_MAX = 768 };

/* One call. */
struct get_call {
    struct hp_db_job job;
    struct hp_rpc_call *rpc;                /* NULL once the client has gone */
    const ProtobufCMessageDescriptor *body; /* of the row */
    const char *what;                       /* "container" */
    char name[HP_NAME_MAX + 1];
    char sql[SQL_MAX];
    ProtobufCMessage *found; /* result; NULL: none */
};

ProtobufCMessage *gw_unwrap(ProtobufCMessage *body)
{
    ProtobufCMessage *inner = body;
    if (body->descriptor == &harpoon__internal__v1__container_record__descriptor) {
        Harpoon__Internal__V1__ContainerRecord *r = (Harpoon__Internal__V1__ContainerRecord *)body;
        inner = r->container ? &r->container->base : NULL;
        r->container = NULL;
    } else if (body->descriptor == &harpoon__internal__v1__operation_record__descriptor) {
        Harpoon__Internal__V1__OperationRecord *r = (Harpoon__Internal__V1__OperationRecord *)body;
        inner = r->operation ? &r->operation->base : NULL;
        r->operation = NULL;
    }
    if (inner != body)
        hp_unpacked_free(body);
    return inner;
}

struct one {
    const ProtobufCMessageDescriptor *body;
    ProtobufCMessage *found;
};

static int read_one(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct one *o = user;
    ProtobufCMessage *body = NULL;
    int rc = gw_unpack_body(o->body, columns[0], lengths[0], &body, e);
    if (rc < 0)
        return rc;
    o->found = gw_unwrap(body);
    return o->found ? 0 : hp_fail(e, HP_ECORRUPT, "a body of type %s holds no resource", o->body->name);
}

static int run_get(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct get_call *g = (struct get_call *)((char *)job - offsetof(struct get_call, job));
    struct one o = {.body = g->body};
    int rc = gw_select(c, g->sql, read_one, &o, e);
    if (rc < 0 && o.found) {
        hp_unpacked_free(o.found);
        o.found = NULL;
    }
    g->found = o.found;
    return rc;
}

static void get_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct get_call *g = (struct get_call *)((char *)job - offsetof(struct get_call, job));
    if (g->rpc) {
        hp_rpc_set_user(g->rpc, NULL);
        if (result < 0)
            gw_fail(g->rpc, gw_record_status(result, e));
        else if (g->found)
            hp_rpc_reply(g->rpc, g->found);
        else
            gw_fail(g->rpc, hp_status_new(HP_CODE_NOT_FOUND, "NOT_FOUND", "there is no %s \"%s\"", g->what, g->name));
    }
    hp_unpacked_free(g->found);
    free(g);
}

static struct get_call *new_get(struct hp_rpc_call *call, const ProtobufCMessageDescriptor *body, const char *what,
                                const char *name)
{
    struct get_call *g = calloc(1, sizeof *g);
    if (!g) {
        gw_fail(call, NULL);
        return NULL;
    }
    g->rpc = call;
    g->body = body;
    g->what = what;
    snprintf(g->name, sizeof g->name, "%s", name);
    g->job.run = run_get;
    g->job.done_cb = get_done;
    return g;
}

static void submit(struct get_call *g)
{
    struct gw_gateway *gw = gw_of(g->rpc);
    struct hp_error e = {0};
    int rc = gw->stopping ? HP_ECANCELED : hp_db_submit(gw->db, &g->job);
    if (rc < 0) {
        gw_fail(g->rpc, gw->stopping ? gw_stopping_status() : gw_record_status(rc, &e));
        free(g);
        return;
    }
    hp_metric_add(&gw_metric_reads, 1);
    hp_rpc_set_user(g->rpc, &g->rpc);
}

/* Gets and lists put the address of their pointer to the call into the call. */
void gw_on_read_cancel(struct hp_rpc_call *call)
{
    struct hp_rpc_call **rpc = hp_rpc_user(call);
    if (rpc)
        *rpc = NULL;
}

void gw_on_get_container(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const char *text = ((const Harpoon__V1__GetContainerRequest *)message)->name;
    struct hp_container_name name;
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    hp_rpc_set_user(call, NULL);
    if (hp_container_name_parse("name", text, &name, &e) < 0) {
        gw_fail_field(call, "name", &e);
        return;
    }
    if (!gw_allow_read(gw_caller(call), name.project, &status)) {
        gw_fail(call, status);
        return;
    }
    if (!gw_region_of(call, name.region))
        return;
    struct get_call *g = new_get(call, &harpoon__internal__v1__container_record__descriptor, "container", text);
    if (!g)
        return;
    snprintf(g->sql, sizeof g->sql, "SELECT body FROM containers WHERE name = '%s'", g->name);
    submit(g);
}

static void operation_sql(char out[SQL_MAX], const struct hp_operation_name *n)
{
    snprintf(out, SQL_MAX, "SELECT body FROM operations WHERE region = '%s' AND id = '%s' AND project = '%s'",
             n->region, n->operation, n->project);
}

int gw_select_operation(struct hp_db_conn *c, const struct hp_operation_name *name, Harpoon__V1__Operation **ret,
                        struct hp_error *e)
{
    char sql[SQL_MAX];
    struct one o = {.body = &harpoon__internal__v1__operation_record__descriptor};
    operation_sql(sql, name);
    int rc = gw_select(c, sql, read_one, &o, e);
    if (rc < 0 && o.found) {
        hp_unpacked_free(o.found);
        o.found = NULL;
    }
    *ret = (Harpoon__V1__Operation *)o.found;
    return rc;
}

Google__Rpc__Status *gw_operation_not_found(const char *name)
{
    return hp_status_new(HP_CODE_NOT_FOUND, "NOT_FOUND", "there is no operation \"%s\", or it is not recorded yet",
                         name);
}

void gw_on_get_operation(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const char *text = ((const Harpoon__V1__GetOperationRequest *)message)->name;
    struct hp_operation_name name;
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    hp_rpc_set_user(call, NULL);
    if (hp_operation_name_parse("name", text, &name, &e) < 0) {
        gw_fail_field(call, "name", &e);
        return;
    }
    if (!gw_allow_read(gw_caller(call), name.project, &status)) {
        gw_fail(call, status);
        return;
    }
    if (!gw_region_of(call, name.region))
        return;
    struct get_call *g =
        new_get(call, &harpoon__internal__v1__operation_record__descriptor, "recorded operation", text);
    if (!g)
        return;
    operation_sql(g->sql, &name);
    submit(g);
}

void gw_on_get_host(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const char *text = ((const Harpoon__V1__GetHostRequest *)message)->name;
    struct hp_host_name name;
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    hp_rpc_set_user(call, NULL);
    if (hp_host_name_parse("name", text, &name, &e) < 0) {
        gw_fail_field(call, "name", &e);
        return;
    }
    if (!gw_allow_read(gw_caller(call), "", &status)) {
        gw_fail(call, status);
        return;
    }
    if (!gw_region_of(call, name.region))
        return;
    struct get_call *g = new_get(call, &harpoon__v1__host__descriptor, "host", text);
    if (!g)
        return;
    snprintf(g->sql, sizeof g->sql, "SELECT body FROM hosts WHERE region = '%s' AND name = '%s'", name.region,
             name.host);
    submit(g);
}
