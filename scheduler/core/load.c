/* load.c — the record becomes the state in memory, once, at the beginning of a reign. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/names.h"

static int result(struct sc_region *r, struct hp_error *e)
{
    return r->failed ? hp_fail(e, r->failed, "loading the record: %s", hp_strerror(r->failed)) : 0;
}

void sc_region_load_state(struct sc_region *r, int64_t sequence, int64_t watermark, int64_t oldest)
{
    assert(!r->leading && sequence >= 0 && watermark >= 0);
    r->sequence = r->cut_sequence = r->committed_sequence = sequence;
    r->watermark = watermark < sequence ? watermark : sequence;
    r->oldest = oldest > 0 ? oldest : 1;
}

void sc_region_load_restored(struct sc_region *r)
{
    assert(!r->leading);
    r->restored = true;
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
    Harpoon__V1__Host *pb = sc_pb_unpack(r, &harpoon__v1__host__descriptor, body, len);
    if (!pb && r->failed)
        return result(r, e);
    if (!pb)
        return hp_fail(e, HP_ECORRUPT, "hosts: body of \"%s\" is malformed", name);
    struct sc_host *h = sc_host_new(r, name);
    if (!h) {
        harpoon__v1__host__free_unpacked(pb, NULL);
        return result(r, e);
    }
    sc_host_body_load(r, h, pb);
    sc_stray_load(r, h, pb);
    harpoon__v1__host__free_unpacked(pb, NULL);
    sc_pressure_load(r, h);
    sc_host_refresh(r, h);
    return result(r, e);
}

static struct sc_res from_claim(const Harpoon__V1__Resources *x, int32_t functions)
{
    if (!x || x->cpu_millis < 0 || x->memory_bytes < 0 || x->disk_bytes < 0 || x->network_bps < 0 || functions < 0)
        return (struct sc_res){0};
    return (struct sc_res){x->cpu_millis, x->memory_bytes, x->disk_bytes, x->network_bps, functions};
}

static void fill_container(struct sc_region *r, struct sc_container *c, Harpoon__Internal__V1__ContainerRecord *m)
{
    if (m->confirmed && m->confirmed->container && m->confirmed->container->spec) {
        sc_confirmed_set(c, m->confirmed);
        m->confirmed = NULL;
    }
    c->restart_serial = m->restart_serial;
    snprintf(c->operation_id, sizeof c->operation_id, "%s", m->operation_id);
    c->deleting = m->deleting;
    c->cleanup = m->cleanup;
    c->sync = m->sync;
    c->remove_sent = m->remove_sent;
    c->leaving = m->leaving;
    sc_open(c)->restored_generation = m->restored_generation;
    sc_container_join(r, c);
    struct sc_res claim = from_claim(m->claim, m->claim_functions);
    sc_container_claim(r, c, &claim);
}

/* It is as the record has it. */
static void clean(struct sc_container *c)
{
    if (!c->dirty)
        return;
    c->dirty = false;
    sc_list_remove(&c->open->dirty_link);
}

int sc_region_load_container(struct sc_region *r, const char *name, const void *body, size_t len, struct hp_error *e)
{
    struct hp_container_name n;
    struct hp_host_name hn;
    struct sc_host *h = NULL;
    if (hp_container_name_parse("name", name, &n, e))
        return hp_fail(e, HP_ECORRUPT, "containers: \"%.255s\" is not a name", name);
    Harpoon__Internal__V1__ContainerRecord *m =
        sc_pb_unpack(r, &harpoon__internal__v1__container_record__descriptor, body, len);
    if (!m && r->failed)
        return result(r, e);
    if (!m || !m->container || !m->container->spec || !m->container->status || strcmp(m->container->name, name) != 0 ||
        strlen(m->container->uid) != HP_UID_LEN || sc_container_find(r, name) || sc_container_of(r, m->container->uid))
        goto corrupt;
    if (*m->container->status->host &&
        (hp_host_name_parse("host", m->container->status->host, &hn, e) || !(h = hp_map_get(&r->hosts, hn.host))))
        goto corrupt;
    struct sc_project *p = sc_project_get(r, n.project);
    struct sc_container *c = p ? sc_container_new(r, p, m->container) : NULL;
    if (p)
        m->container = NULL; /* taken */
    if (c) {
        fill_container(r, c, m);
        sc_container_assign(r, c, h);
        sc_host_image_seen(r, c);
        c->reported_generation = m->reported_generation;
        c->reported_desired = m->reported_desired;
        c->reported_state = m->reported_state;
        c->reported_id = m->reported_id;
        clean(c);
        sc_container_rest(c);
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
    op->preempted_by = *x->preempted_by ? sc_strdup(r, x->preempted_by) : NULL;
    op->wanted_host = *m->wanted_host ? sc_strdup(r, m->wanted_host) : NULL;
    snprintf(op->parent, sizeof op->parent, "%s", m->parent);
    op->parallel = m->parallel;
    op->moved = m->moved;
    op->change = m->change.data;
    op->change_len = m->change.len;
    m->change.data = NULL;
    m->change.len = 0;
    size_t n = m->n_excluded_hosts < SC_EXCLUDED_MAX ? m->n_excluded_hosts : SC_EXCLUDED_MAX;
    op->excluded = n ? sc_alloc(r, n * sizeof *op->excluded) : NULL;
    for (size_t i = 0; i < n && op->excluded; i++)
        snprintf(op->excluded[op->excluded_count++], 64, "%s", m->excluded_hosts[i]);
    for (size_t i = 0; i < m->n_overloaded_hosts; i++)
        for (size_t k = 0; op->excluded && k < op->excluded_count; k++)
            if (!strcmp(op->excluded[k], m->overloaded_hosts[i]))
                op->excluded_passing |= 1U << k;
}

static bool attach_operation(struct sc_region *r, struct sc_operation *op, const char *held)
{
    struct sc_container *c = sc_container_find(r, op->target);
    if (op->verb == HARPOON__V1__VERB__VERB_DRAIN) {
        struct sc_host *h = hp_map_get(&r->hosts, op->host);
        if (h)
            sc_drain_begin(r, h, op);
        return h != NULL;
    }
    if (op->verb == HARPOON__V1__VERB__VERB_RESERVE)
        return sc_reserve_load(r, op);
    if (!c || sc_stage_ended(op->stage) || op->stage < (int)HARPOON__V1__STAGE__STAGE_RECORDED)
        return false;
    op->container = c;
    if (!sc_open(c)->container)
        return false; /* no memory */
    if (op->verb == HARPOON__V1__VERB__VERB_DELETE) {
        if (c->delete_op)
            return false;
        c->delete_op = op;
        return true;
    }
    if (!sc_operation_places(op) && !sc_change_load(r, op))
        return false;
    sc_list_append(&c->queue, &op->queue);
    if (op->verb == HARPOON__V1__VERB__VERB_MOVE)
        sc_move_load(r, op, held);
    if (sc_operation_places(op) && !c->host && sc_container_head(c) == op)
        sc_pending_add(r, op);
    if (op->pending && op->verb == HARPOON__V1__VERB__VERB_CREATE && *held)
        sc_preempt_load(r, op, held);
    return true;
}

int sc_region_load_operation(struct sc_region *r, const char *id, int64_t serial, const void *body, size_t len,
                             struct hp_error *e)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__Internal__V1__OperationRecord *m =
        sc_pb_unpack(r, &harpoon__internal__v1__operation_record__descriptor, body, len);
    struct hp_operation_name n;
    if (!m && r->failed)
        return result(r, e);
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
        } else if (!attach_operation(r, op, m->held_host)) {
            harpoon__internal__v1__operation_record__free_unpacked(m, NULL);
            if (r->failed)
                return result(r, e);
            return hp_fail(e, HP_ECORRUPT, "operations: active \"%s\" has no target \"%s\" that it fits", id,
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
    sc_backlog_add(r, sequence, b, NULL);
    sc_blob_unref(b);
    return result(r, e);
}

void sc_region_load_events_more(struct sc_region *r)
{
    r->hole_after = r->watermark + (int64_t)r->backlog_count;
    r->hole_to = r->sequence;
    assert(r->hole_after < r->hole_to);
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
    while (!sc_list_empty(&r->dirty_containers))
        clean(SC_OWNER(r->dirty_containers.next, struct sc_open, dirty_link)->container);
    while (!sc_list_empty(&r->dirty_hosts)) {
        struct sc_host *h = SC_OWNER(r->dirty_hosts.next, struct sc_host, dirty_link);
        h->dirty = h->urgent = false;
        sc_list_remove(&h->dirty_link);
    }
    for (size_t i = 0; i < r->slot_count; i++) {
        struct sc_slot *s = &r->slots[i];
        s->info->storage_smaller = sc_slot_storage_overdrawn(s); /* as it was, or the limits are others now */
        sc_host_recount(r, s->info->host);
    }
    assert(sc_list_empty(&r->dirty_operations) && !r->event_count && !r->delete_count);
    for (struct hp_map_node *n = hp_map_first(&r->operations); n; n = hp_map_next(n)) {
        struct sc_operation *op = n->value;
        int64_t left = op->deadline_ns - r->time.wall_ns;
        sc_timer_set(r, &op->expiry, left > 0 ? (uint64_t)left / 1000000 : 0);
    }
}
