/* create.c — creating and deleting containers: checks, and what is recorded. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/network.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/names.h"

enum { CPU_MILLIS_MIN = 10, CPU_MILLIS_MAX = 1024000 };
static const int64_t memory_bytes_min = 4LL << 20, memory_bytes_max = 64LL << 40, other_max = 1LL << 56;

static Google__Rpc__Status *out_of_range(const char *field, int64_t value, int64_t min, int64_t max)
{
    char text[128];
    snprintf(text, sizeof text, "%" PRId64 " is not within %" PRId64 " and %" PRId64, value, min, max);
    return hp_status_add_field(hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD", "%s: %s", field, text), field,
                               text);
}

Google__Rpc__Status *sc_resources_check(const Harpoon__V1__Resources *x, bool complete)
{
    const struct {
        const char *field;
        int64_t value, min, max;
    } checks[] = {
        {"resources.cpu_millis", x->cpu_millis, CPU_MILLIS_MIN, CPU_MILLIS_MAX},
        {"resources.memory_bytes", x->memory_bytes, memory_bytes_min, memory_bytes_max},
        {"resources.disk_bytes", x->disk_bytes, 0, other_max},
        {"resources.pids_max", x->pids_max, 0, 4194304},
        {"resources.io_read_bps", x->io_read_bps, 0, other_max},
        {"resources.io_write_bps", x->io_write_bps, 0, other_max},
        {"resources.io_read_iops", x->io_read_iops, 0, other_max},
        {"resources.io_write_iops", x->io_write_iops, 0, other_max},
        {"resources.network_bps", x->network_bps, 0, SC_NETWORK_BPS_MAX},
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (!complete && checks[i].value == 0)
            continue;
        if (checks[i].value < checks[i].min || checks[i].value > checks[i].max)
            return out_of_range(checks[i].field, checks[i].value, checks[i].min, checks[i].max);
    }
    return NULL;
}

static Google__Rpc__Status *over_quota(const struct sc_project *p, const char *what, int64_t quota, int64_t used,
                                       int64_t more)
{
    char subject[96], text[160];
    snprintf(subject, sizeof subject, "projects/%s", p->name);
    snprintf(text, sizeof text, "%s: quota %" PRId64 ", in use %" PRId64 ", asked for %" PRId64 " more", what, quota,
             used, more);
    Google__Rpc__Status *s =
        hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "quota of project \"%s\": %s", p->name, text);
    return hp_status_add_quota(s, subject, text);
}

Google__Rpc__Status *sc_quota_check(const struct sc_project *p, const struct sc_res *more, int containers)
{
    const struct sc_quota *q = &p->quota;
    if (q->res.cpu_millis && more->cpu_millis > 0 && p->used.cpu_millis + more->cpu_millis > q->res.cpu_millis)
        return over_quota(p, "cpu_millis", q->res.cpu_millis, p->used.cpu_millis, more->cpu_millis);
    if (q->res.memory_bytes && more->memory_bytes > 0 &&
        p->used.memory_bytes + more->memory_bytes > q->res.memory_bytes)
        return over_quota(p, "memory_bytes", q->res.memory_bytes, p->used.memory_bytes, more->memory_bytes);
    if (q->res.disk_bytes && more->disk_bytes > 0 && p->used.disk_bytes + more->disk_bytes > q->res.disk_bytes)
        return over_quota(p, "disk_bytes", q->res.disk_bytes, p->used.disk_bytes, more->disk_bytes);
    if (q->containers && containers > 0 && p->containers + containers > q->containers)
        return over_quota(p, "containers", q->containers, p->containers, containers);
    return NULL;
}

static Google__Rpc__Status *check_create(struct sc_region *r, const Harpoon__V1__CreateContainerRequest *q,
                                         const char *name, const char *project)
{
    struct sc_container *old = sc_container_find(r, name);
    if (old) {
        Google__Rpc__Status *s =
            hp_status_new(HP_CODE_ALREADY_EXISTS, "CONTAINER_EXISTS", "container \"%s\" exists already%s", name,
                          old->deleting ? " (it is being deleted)" : "");
        return hp_status_add_metadata(hp_status_add_metadata(s, "container", name), "uid", old->uid);
    }
    const struct sc_stray *stray = sc_stray_named(r, name);
    if (stray) {
        Google__Rpc__Status *s = hp_status_new(
            HP_CODE_ALREADY_EXISTS, "CONTAINER_QUARANTINED",
            "host \"%s\" has a container \"%s\" (uid %s) that the record does not know: adopt it, or use another name",
            stray->host->info.name, name, stray->uid);
        return hp_status_add_metadata(hp_status_add_metadata(s, "host", stray->host->full_name), "uid", stray->uid);
    }
    if (!q->container || !q->container->spec || !q->container->spec->resources)
        return hp_status_add_field(
            hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD", "container.spec.resources: is missing"),
            "container.spec.resources", "is missing");
    Google__Rpc__Status *s = sc_resources_check(q->container->spec->resources, true);
    if (!s)
        s = sc_storage_wrong(q->container->spec);
    if (s)
        return s;
    if (r->containers.count >= r->config.containers_max || r->active_count >= r->config.operations_max)
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "REGION_FULL", "region \"%s\" is full: %zu containers",
                             r->name, r->containers.count);
    s = sc_gang_check(r, q->container->spec, project);
    if (s)
        return s;
    const struct sc_project *p = hp_map_get(&r->projects, project);
    const struct sc_operation *reserved = sc_reserve_find(r, name); /* counts already */
    struct sc_res need = sc_spec_res(q->container->spec);
    need.disk_bytes += sc_storage_total(q->container->spec);
    if (reserved)
        sc_res_sub(&need, &reserved->need);
    return p ? sc_quota_check(p, &need, reserved ? 0 : 1) : NULL;
}

/* Everything that a new container has, from the request. */
static Harpoon__V1__Container *new_body(struct sc_region *r, const Harpoon__V1__Container *asked, const char *name,
                                        const char *uid)
{
    char etag[64];
    Google__Protobuf__Timestamp now;
    Harpoon__V1__Container m = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
    snprintf(etag, sizeof etag, "1-%.8s", uid);
    sc_timestamp(&now, r->time.wall_ns);
    m.name = (char *)name;
    m.uid = (char *)uid;
    m.generation = 1;
    m.etag = etag;
    m.labels = asked->labels;
    m.n_labels = asked->n_labels;
    m.spec = asked->spec;
    m.status = &status;
    status.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING;
    m.create_time = &now;
    m.update_time = &now;
    Harpoon__V1__Container *body = sc_pb_clone(r, &m.base);
    if (body && body->spec->desired_state == HARPOON__V1__DESIRED_STATE__DESIRED_STATE_UNSPECIFIED)
        body->spec->desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    return body;
}

static void apply_create(struct sc_region *r, struct sc_operation *op, const Harpoon__V1__CreateContainerRequest *q)
{
    char uid[27];
    sc_uid_make(r, uid);
    struct sc_project *p = sc_project_get(r, op->project);
    Harpoon__V1__Container *body = p ? new_body(r, q->container, op->target, uid) : NULL;
    struct sc_container *c = body ? sc_container_new(r, p, body) : NULL;
    if (!c)
        return;
    sc_container_join(r, c);
    struct sc_res need = sc_spec_res(sc_body(c)->spec);
    sc_container_claim(r, c, &need);
    memcpy(c->operation_id, op->id, sizeof c->operation_id);
    strcpy(op->uid, uid);
    op->generation = 1;
    op->container = c;
    sc_list_append(&c->queue, &op->queue);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    struct sc_host *kept = sc_gang_of(r, c) ? NULL : sc_reserve_use(r, c, op);
    if (kept)
        sc_place_on(r, c, op, kept, "created");
    else
        sc_place(r, c, op, "created");
}

Google__Rpc__Status *sc_create_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__Request *q, bool dry_run)
{
    Google__Rpc__Status *s = check_create(r, q->create, op->target, op->project);
    if (!s && !dry_run)
        apply_create(r, op, q->create);
    return s;
}

/* ---- Delete ---- */

static Google__Rpc__Status *check_delete(const struct sc_container *c, const char *name, const char *etag)
{
    if (!c)
        return hp_status_add_metadata(
            hp_status_new(HP_CODE_NOT_FOUND, "CONTAINER_NOT_FOUND", "container \"%s\" does not exist", name),
            "container", name);
    if (*etag && strcmp(etag, sc_body(c)->etag) != 0)
        return hp_status_add_metadata(hp_status_new(HP_CODE_ABORTED, "ETAG_MISMATCH",
                                                    "container \"%s\" was changed: its etag is \"%s\", not \"%s\"",
                                                    name, sc_body(c)->etag, etag),
                                      "etag", sc_body(c)->etag);
    if (c->delete_op)
        return hp_status_add_metadata(hp_status_new(HP_CODE_FAILED_PRECONDITION, "CONTAINER_DELETING",
                                                    "container \"%s\" is being deleted by \"%s\"", name,
                                                    c->delete_op->name),
                                      "operation", c->delete_op->name);
    return NULL;
}

/* A delete makes what has not been sent pointless; what has been sent may still end by itself. */
static void cancel_waiting(struct sc_region *r, struct sc_container *c, const struct sc_operation *by)
{
    for (struct sc_list *l = c->queue.prev, *before; l != &c->queue; l = before) {
        before = l->prev;
        struct sc_operation *op = SC_OWNER(l, struct sc_operation, queue);
        if (op->verb == HARPOON__V1__VERB__VERB_MOVE)
            sc_move_overtaken(c, op);
        else if (c->host && op->stage >= HARPOON__V1__STAGE__STAGE_DISPATCHED)
            continue;
        Google__Rpc__Status *s =
            hp_status_new(HP_CODE_CANCELLED, "SUPERSEDED", "the container was deleted by \"%s\"", by->name);
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_CANCELLED, s);
    }
}

static void apply_delete(struct sc_region *r, struct sc_container *c, struct sc_operation *op)
{
    sc_container_bump(r, c);
    strcpy(op->uid, c->uid);
    op->generation = c->generation;
    memcpy(c->operation_id, op->id, sizeof c->operation_id);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    cancel_waiting(r, c, op);
    if (!c->host) {
        sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED, "");
        sc_container_event(r, c, "deleted", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, NULL);
        sc_container_drop(r, c);
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
        return;
    }
    op->container = c;
    c->delete_op = op;
    c->deleting = true;
    sc_container_sync(r, c, false);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETING, "");
    sc_container_event(r, c, "deleting", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, NULL);
    sc_container_next(r, c);
}

Google__Rpc__Status *sc_delete_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__Request *q, bool dry_run)
{
    struct sc_container *c = sc_container_find(r, op->target);
    Google__Rpc__Status *s = check_delete(c, op->target, q->delete_->etag);
    assert(s || c);
    if (!s && !dry_run)
        apply_delete(r, c, op);
    return s;
}
