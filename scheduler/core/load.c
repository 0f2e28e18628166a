/* load.c — the record becomes the state in memory, once, at the beginning of a reign. */
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
#include "wire/names.h"

static int result(struct sc_region *r, struct hp_error *e)
{
    return r->failed ? hp_fail(e, r->failed, "loading the record: %s", hp_strerror(r->failed)) : 0;
}

void sc_region_load_state(struct sc_region *r, int64_t sequence, int64_t watermark, int64_t oldest)
{
    assert(!r->leading && sequence >= 0 && watermark >= 0);
    r->sequence = r->cut_sequence = sequence;
    r->watermark = watermark < sequence ? watermark : sequence;
    r->oldest = oldest > 0 ? oldest : 1;
}

int sc_region_load_project(struct sc_region *r, const char *name, const struct sc_quota *quota, struct hp_error *e)
{
    if (!hp_segment_valid(name))
        return hp_fail(e, HP_ECORRUPT, "projects: \"%.64s\" is not a name", name);
    struct sc_project *p = sc_project_get(r, name);
    if (p)
        p->quota = *quota;
    return result(r, e);
}

int sc_region_load_host(struct sc_region *r, const char *name, const void *body, size_t len, struct hp_error *e)
{
    if (!hp_segment_valid(name))
        return hp_fail(e, HP_ECORRUPT, "hosts: \"%.64s\" is not a name", name);
    Harpoon__V1__Host *pb = harpoon__v1__host__unpack(NULL, len, body);
    if (!pb)
        return hp_fail(e, HP_ECORRUPT, "hosts: body of \"%s\" is malformed", name);
    struct sc_host *h = sc_host_new(r, name);
    if (!h) {
        harpoon__v1__host__free_unpacked(pb, NULL);
        return result(r, e);
    }
    sc_pb_set(r, &pb->name, h->pb->name);
    harpoon__v1__host__free_unpacked(h->pb, NULL);
    h->pb = pb;
    sc_host_refresh(r, h);
    return result(r, e);
}

static struct sc_res from_claim(const Harpoon__V1__Resources *x)
{
    if (!x || x->cpu_millis < 0 || x->memory_bytes < 0 || x->disk_bytes < 0)
        return (struct sc_res){0};
    return (struct sc_res){x->cpu_millis, x->memory_bytes, x->disk_bytes};
}

static void fill_container(struct sc_region *r, struct sc_container *c, Harpoon__Internal__V1__ContainerRecord *m)
{
    c->pb = m->container;
    m->container = NULL;
    c->confirmed = m->confirmed && m->confirmed->container && m->confirmed->container->spec ? m->confirmed : NULL;
    if (c->confirmed)
        m->confirmed = NULL;
    c->restart_serial = m->restart_serial;
    snprintf(c->operation_id, sizeof c->operation_id, "%s", m->operation_id);
    c->deleting = m->deleting;
    c->cleanup = m->cleanup;
    c->sync = m->sync;
    c->remove_sent = m->remove_sent;
    if (c->pb->spec->placement && *c->pb->spec->placement->anti_affinity_group) {
        c->group = sc_group_get(r, c->project->name, c->pb->spec->placement->anti_affinity_group);
        if (c->group)
            c->group->containers++;
    }
    struct sc_res claim = from_claim(m->claim);
    sc_container_claim(r, c, &claim);
    if (hp_map_put(&r->uids, c->pb->uid, c, NULL))
        sc_fail(r, HP_ENOMEM);
}

int sc_region_load_container(struct sc_region *r, const char *name, const void *body, size_t len, struct hp_error *e)
{
    struct hp_container_name n;
    struct hp_host_name hn;
    struct sc_host *h = NULL;
    if (hp_container_name_parse("name", name, &n, e))
        return hp_fail(e, HP_ECORRUPT, "containers: \"%.255s\" is not a name", name);
    Harpoon__Internal__V1__ContainerRecord *m = harpoon__internal__v1__container_record__unpack(NULL, len, body);
    if (!m || !m->container || !m->container->spec || !m->container->status || strcmp(m->container->name, name) != 0 ||
        strlen(m->container->uid) != HP_UID_LEN)
        goto corrupt;
    if (*m->container->status->host &&
        (hp_host_name_parse("host", m->container->status->host, &hn, e) || !(h = hp_map_get(&r->hosts, hn.host))))
        goto corrupt;
    struct sc_project *p = sc_project_get(r, n.project);
    struct sc_container *c = p ? sc_container_new(r, name, p) : NULL;
    if (c) {
        fill_container(r, c, m);
        sc_container_assign(r, c, h);
        c->reported_generation = m->reported_generation;
        c->reported_desired = m->reported_desired;
        c->reported_state = m->reported_state;
    }
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return result(r, e);
corrupt:
    if (m)
        harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return hp_fail(e, HP_ECORRUPT, "containers: body of \"%s\" does not fit", name);
}

static void fill_operation(struct sc_region *r, struct sc_operation *op, Harpoon__Internal__V1__OperationRecord *m)
{
    const Harpoon__V1__Operation *x = m->operation;
    const char *host = strrchr(x->host, '/');
    op->stage = x->stage;
    snprintf(op->uid, sizeof op->uid, "%s", x->uid);
    op->generation = x->generation;
    snprintf(op->host, sizeof op->host, "%s", host ? host + 1 : "");
    op->reason = *x->reason ? sc_strdup(r, x->reason) : NULL;
    op->attempts = x->attempts;
    op->create_ns = sc_timestamp_ns(x->create_time);
    op->update_ns = sc_timestamp_ns(x->update_time);
    op->deadline_ns = sc_timestamp_ns(x->deadline);
    for (size_t i = 0; i < x->n_history && op->history_count < SC_HISTORY_MAX; i++) {
        op->history[op->history_count].stage = x->history[i]->stage;
        op->history[op->history_count++].time_ns = sc_timestamp_ns(x->history[i]->time);
    }
    op->restart_serial = m->restart_serial;
    op->change = m->change.data;
    op->change_len = m->change.len;
    m->change.data = NULL;
    m->change.len = 0;
    size_t n = m->n_excluded_hosts < SC_EXCLUDED_MAX ? m->n_excluded_hosts : SC_EXCLUDED_MAX;
    op->excluded = n ? sc_alloc(r, n * sizeof *op->excluded) : NULL;
    for (size_t i = 0; i < n && op->excluded; i++)
        snprintf(op->excluded[op->excluded_count++], 64, "%s", m->excluded_hosts[i]);
}

static bool attach_operation(struct sc_region *r, struct sc_operation *op)
{
    struct sc_container *c = hp_map_get(&r->containers, op->target);
    if (!c || sc_stage_ended(op->stage) || op->stage < (int)HARPOON__V1__STAGE__STAGE_RECORDED)
        return false;
    op->container = c;
    if (op->verb == HARPOON__V1__VERB__VERB_DELETE) {
        if (c->delete_op)
            return false;
        c->delete_op = op;
        return true;
    }
    if (op->verb != HARPOON__V1__VERB__VERB_CREATE && !sc_change_load(op))
        return false;
    sc_list_append(&c->queue, &op->queue);
    if (op->verb == HARPOON__V1__VERB__VERB_CREATE && !c->host)
        sc_pending_add(r, op);
    return true;
}

int sc_region_load_operation(struct sc_region *r, const char *id, int64_t serial, const void *body, size_t len,
                             struct hp_error *e)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__Internal__V1__OperationRecord *m = harpoon__internal__v1__operation_record__unpack(NULL, len, body);
    struct hp_operation_name n;
    if (!m || !m->operation || strlen(id) != HP_OPERATION_ID_LEN || m->payload_digest.len != 32 ||
        hp_operation_name_parse("name", m->operation->name, &n, e) || strcmp(n.operation, id) != 0) {
        if (m)
            harpoon__internal__v1__operation_record__free_unpacked(m, NULL);
        return hp_fail(e, HP_ECORRUPT, "operations: body of \"%.32s\" does not fit", id);
    }
    q.operation_id = (char *)id;
    q.project = strcmp(n.project, "-") ? n.project : (char *)"";
    q.request_id = m->operation->request_id;
    q.principal = m->operation->principal;
    q.payload_digest = m->payload_digest;
    struct sc_operation *op = sc_operation_new(r, &q, m->operation->verb, m->operation->target, 0);
    if (op) {
        fill_operation(r, op, m);
        op->serial = serial;
        op->active = true;
        r->active_count++;
        if (hp_map_put(&r->operations, id, op, NULL)) {
            sc_fail(r, HP_ENOMEM);
            sc_operation_free(op);
        } else if (!attach_operation(r, op)) {
            harpoon__internal__v1__operation_record__free_unpacked(m, NULL);
            return hp_fail(e, HP_ECORRUPT, "operations: active \"%s\" has no container \"%s\" that it fits", id,
                           op->target);
        }
    }
    harpoon__internal__v1__operation_record__free_unpacked(m, NULL);
    return result(r, e);
}

int sc_region_load_event(struct sc_region *r, int64_t sequence, const void *body, size_t len, struct hp_error *e)
{
    int64_t expected = r->watermark + 1 + (int64_t)r->backlog_count;
    if (sequence != expected)
        return hp_fail(e, HP_ECORRUPT, "events: %" PRId64 " follows the watermark where %" PRId64 " should", sequence,
                       expected);
    struct sc_blob *b = malloc(sizeof *b + len);
    if (!b) {
        sc_fail(r, HP_ENOMEM);
        return result(r, e);
    }
    b->refs = 1;
    b->len = len;
    memcpy(b->bytes, body, len);
    sc_backlog_add(r, sequence, b);
    sc_blob_unref(b);
    return result(r, e);
}

int sc_region_load_known(struct sc_region *r, const char *id)
{
    sc_known_add(r, id);
    return r->failed;
}

void sc_region_load_known_done(struct sc_region *r, bool complete)
{
    if (!complete)
        sc_known_drop(&r->known);
}

void sc_region_load_mark(struct sc_region *r, int64_t sequence, int64_t time_ns)
{
    sc_mark_add(r, sequence, time_ns);
}

void sc_load_done(struct sc_region *r)
{
    r->watermark_recorded = r->watermark;
    while (!sc_list_empty(&r->dirty_containers)) {
        struct sc_container *c = SC_OWNER(r->dirty_containers.next, struct sc_container, dirty_link);
        c->dirty = false;
        sc_list_remove(&c->dirty_link);
    }
    while (!sc_list_empty(&r->dirty_hosts)) {
        struct sc_host *h = SC_OWNER(r->dirty_hosts.next, struct sc_host, dirty_link);
        h->dirty = h->urgent = false;
        sc_list_remove(&h->dirty_link);
    }
    for (size_t i = 0; i < r->slot_count; i++)
        sc_host_recount(r, r->slots[i].info->host);
    assert(sc_list_empty(&r->dirty_operations) && !r->event_count && !r->delete_count);
    for (struct hp_map_node *n = hp_map_first(&r->operations); n; n = hp_map_next(n)) {
        struct sc_operation *op = n->value;
        int64_t left = op->deadline_ns - r->time.wall_ns;
        sc_timer_set(r, &op->expiry, left > 0 ? (uint64_t)left / 1000000 : 0);
    }
}
