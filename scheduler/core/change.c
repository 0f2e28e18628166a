/* change.c — changes of a container (resize, update, start, stop, restart) and their queue.
 *
 * Changes of one container are done one after another, in the order of acceptance. What the owner sees is the state with all accepted changes;
 * `confirmed` is the state without those that are under way or wait. The host is sent the confirmed state with the first change of the
 * queue. When that succeeds it becomes confirmed; when it fails it is taken out and what is asked for is made anew from the others, so that each operation
 * stands for its own change only. A delete does not wait: it overtakes the queue. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/network.h"
#include "core/operations.h"
#include "core/state.h"

/* ---- Checks ---- */

static const char *etag_of(const Harpoon__Internal__V1__Request *q)
{
    switch (q->payload_case) {
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE:
        return q->resize->etag;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE:
        return q->update->etag;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START:
        return q->start->etag;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP:
        return q->stop->etag;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART:
        return q->restart->etag;
    default:
        return "";
    }
}

static Google__Rpc__Status *precondition(const struct sc_container *c, const char *reason, const char *text)
{
    Google__Rpc__Status *s = hp_status_new(HP_CODE_FAILED_PRECONDITION, reason, "container \"%s\" %s", c->name, text);
    return hp_status_add_precondition(s, reason, c->name, text);
}

Google__Rpc__Status *sc_change_check(const struct sc_container *c, const char *name, const char *etag)
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
    if (c->deleting)
        return precondition(c, "CONTAINER_DELETING", "is being deleted");
    if (sc_body(c)->status->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_LOST)
        return precondition(c, "CONTAINER_LOST", "was lost with its host: delete it and create it anew");
    if (c->cleanup || (!c->host && sc_list_empty(&c->queue)))
        return precondition(c, "CONTAINER_NOT_MADE", "could not be made: delete it and create it anew");
    size_t waiting = 0;
    for (struct sc_list *l = c->queue.next; l != &c->queue; l = l->next)
        waiting++;
    if (waiting >= SC_QUEUE_MAX)
        return hp_status_add_retry(hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "CONTAINER_BUSY",
                                                 "%zu operations wait on container \"%s\" already", waiting, name),
                                   1000);
    return NULL;
}

static int64_t grown(int64_t wanted, int64_t claimed)
{
    return wanted > claimed ? wanted - claimed : 0;
}

static Google__Rpc__Status *check_host_room(const struct sc_host *h, const struct sc_res *more)
{
    enum sc_filter f = sc_slot_check_room(sc_host_slot(h), more);
    if (f == SC_FITS)
        return NULL;
    return hp_status_add_metadata(hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "HOST_FULL",
                                                "host \"%s\" has no room for the new size: %s", h->info.name,
                                                sc_filter_name(f)),
                                  "filter", sc_filter_name(f));
}

/* Growth must fit both the host, the one it is moving to, too, and the quota. */
static Google__Rpc__Status *check_growth(const struct sc_container *c, const struct sc_res *need)
{
    struct sc_res more = {grown(need->cpu_millis, sc_traits(c)->claim.cpu_millis),
                          grown(need->memory_bytes, sc_traits(c)->claim.memory_bytes),
                          grown(need->disk_bytes, sc_traits(c)->claim.disk_bytes),
                          grown(need->network_bps, sc_traits(c)->claim.network_bps),
                          grown(need->functions, sc_traits(c)->claim.functions)};
    Google__Rpc__Status *s = sc_quota_check(sc_traits(c)->project, &more, 0);
    const struct sc_operation *head = sc_container_head(c);
    if (!s && c->host)
        s = check_host_room(c->host, &more);
    if (!s && head && head->hold && !sc_preempt_under_way(head))
        s = check_host_room(head->hold->host, &more);
    return s;
}

static Google__Rpc__Status *check_resize(const struct sc_container *c, const Harpoon__V1__ResizeContainerRequest *q)
{
    if (!q->resources)
        return hp_status_add_field(hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD", "resources: is missing"),
                                   "resources", "is missing");
    Google__Rpc__Status *s = sc_resources_check(q->resources, false);
    struct sc_res need = sc_resources_res(q->resources);
    return s ? s : check_growth(c, &need);
}

static bool same_expression(const Harpoon__V1__LabelExpression *x, const Harpoon__V1__LabelExpression *y)
{
    if (!x || !y)
        return x == y;
    if (strcmp(x->key, y->key) != 0 || x->operator_ != y->operator_ || x->n_values != y->n_values)
        return false;
    for (size_t k = 0; k < x->n_values; k++)
        if (strcmp(x->values[k], y->values[k]) != 0)
            return false;
    return true;
}

static bool same_conditions(const Harpoon__V1__PlacementSpec *a, const Harpoon__V1__PlacementSpec *b)
{
    if (a->n_label_expressions != b->n_label_expressions || a->n_tolerations != b->n_tolerations)
        return false;
    for (size_t i = 0; i < a->n_label_expressions; i++)
        if (!same_expression(a->label_expressions[i], b->label_expressions[i]))
            return false;
    for (size_t i = 0; i < a->n_tolerations; i++)
        if (strcmp(a->tolerations[i]->key, b->tolerations[i]->key) != 0 ||
            strcmp(a->tolerations[i]->value, b->tolerations[i]->value) != 0)
            return false;
    return true;
}

static bool same_spread(const Harpoon__V1__PlacementSpec *a, const Harpoon__V1__PlacementSpec *b)
{
    if (a->n_spread_constraints != b->n_spread_constraints || a->n_preferences != b->n_preferences ||
        !a->gang != !b->gang ||
        (a->gang && (strcmp(a->gang->name, b->gang->name) != 0 || a->gang->size != b->gang->size)))
        return false;
    for (size_t i = 0; i < a->n_spread_constraints; i++)
        if (a->spread_constraints[i]->topology != b->spread_constraints[i]->topology ||
            a->spread_constraints[i]->max_skew != b->spread_constraints[i]->max_skew)
            return false;
    for (size_t i = 0; i < a->n_preferences; i++)
        if (a->preferences[i]->weight != b->preferences[i]->weight ||
            !same_expression(a->preferences[i]->expression, b->preferences[i]->expression))
            return false;
    return true;
}

/* But for the role. */
static bool same_placement(const Harpoon__V1__PlacementSpec *a, const Harpoon__V1__PlacementSpec *b)
{
    if (!b)
        return true;
    Harpoon__V1__PlacementSpec none = HARPOON__V1__PLACEMENT_SPEC__INIT;
    const Harpoon__V1__PlacementSpec *old = a ? a : &none;
    if (strcmp(old->spread_group, b->spread_group) || strcmp(old->workload_class, b->workload_class) ||
        old->priority != b->priority || old->may_preempt != b->may_preempt || !same_spread(old, b) ||
        strcmp(old->host, b->host) || strcmp(old->anti_affinity_group, b->anti_affinity_group) ||
        strcmp(old->affinity_group, b->affinity_group) || !same_conditions(old, b) || old->n_zones != b->n_zones ||
        old->n_host_labels != b->n_host_labels)
        return false;
    for (size_t i = 0; i < b->n_zones; i++)
        if (strcmp(old->zones[i], b->zones[i]) != 0)
            return false;
    for (size_t i = 0; i < b->n_host_labels; i++) {
        bool found = false;
        for (size_t k = 0; k < old->n_host_labels && !found; k++)
            found = !strcmp(old->host_labels[k]->key, b->host_labels[i]->key) &&
                    !strcmp(old->host_labels[k]->value, b->host_labels[i]->value);
        if (!found)
            return false;
    }
    return true;
}

static Google__Rpc__Status *check_update(const struct sc_container *c, const Harpoon__V1__UpdateContainerRequest *q)
{
    if (!q->container || !q->container->spec)
        return hp_status_add_field(
            hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD", "container.spec: is missing"), "container.spec",
            "is missing");
    const Harpoon__V1__ContainerSpec *spec = q->container->spec;
    if (!same_placement(sc_body(c)->spec->placement, spec->placement))
        return hp_status_add_field(hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD",
                                                 "container.spec.placement: only its role can change after the create"),
                                   "container.spec.placement", "only its role can change after the create");
    Google__Rpc__Status *s = sc_network_check_update(c, spec);
    if (!s && !sc_storage_same(sc_body(c)->spec, spec))
        s = hp_status_add_field(
            hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD",
                          "container.spec.volumes: those in storage classes cannot change after the create"),
            "container.spec.volumes", "those in storage classes cannot change after the create");
    if (!s && spec->resources)
        s = sc_resources_check(spec->resources, false);
    struct sc_res need = sc_spec_res(spec);
    return s ? s : check_growth(c, &need);
}

/* ---- Applying a change to a container's labels and spec ---- */

static void apply_resources(struct sc_region *r, Harpoon__V1__ContainerSpec *spec, const Harpoon__V1__Resources *x)
{
    if (!spec->resources) {
        spec->resources = sc_alloc(r, sizeof *spec->resources);
        if (!spec->resources)
            return;
        harpoon__v1__resources__init(spec->resources);
    }
    Harpoon__V1__Resources *to = spec->resources;
    to->cpu_millis = x->cpu_millis ? x->cpu_millis : to->cpu_millis;
    to->memory_bytes = x->memory_bytes ? x->memory_bytes : to->memory_bytes;
    to->disk_bytes = x->disk_bytes ? x->disk_bytes : to->disk_bytes;
    to->pids_max = x->pids_max ? x->pids_max : to->pids_max;
    to->io_read_bps = x->io_read_bps ? x->io_read_bps : to->io_read_bps;
    to->io_write_bps = x->io_write_bps ? x->io_write_bps : to->io_write_bps;
    to->io_read_iops = x->io_read_iops ? x->io_read_iops : to->io_read_iops;
    to->io_write_iops = x->io_write_iops ? x->io_write_iops : to->io_write_iops;
    to->network_bps = x->network_bps ? x->network_bps : to->network_bps;
}

/* Takes labels and spec from a copy of what was asked for; placement stays but for its role, and so do state and size where they are left open. */
static void apply_update(struct sc_region *r, Harpoon__V1__Container *doc, const Harpoon__V1__Container *asked)
{
    Harpoon__V1__Container m = HARPOON__V1__CONTAINER__INIT;
    m.labels = asked->labels;
    m.n_labels = asked->n_labels;
    m.spec = asked->spec;
    Harpoon__V1__Container *copy = sc_pb_clone(r, &m.base);
    if (!copy)
        return;
    Harpoon__V1__ContainerSpec *spec = copy->spec, *old = doc->spec;
    if (spec->desired_state == HARPOON__V1__DESIRED_STATE__DESIRED_STATE_UNSPECIFIED)
        spec->desired_state = old->desired_state;
    Harpoon__V1__PlacementSpec *fresh = spec->placement;
    if (!old->placement) {
        old->placement = fresh; /* the same, maybe with a role */
    } else if (fresh) {
        if (fresh->role != HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_UNSPECIFIED)
            old->placement->role = fresh->role;
        harpoon__v1__placement_spec__free_unpacked(fresh, NULL);
    }
    spec->placement = old->placement;
    old->placement = NULL;
    if (!spec->resources) {
        spec->resources = old->resources;
        old->resources = NULL;
    } else if (old->resources) {
        if (!spec->resources->cpu_millis)
            spec->resources->cpu_millis = old->resources->cpu_millis;
        if (!spec->resources->memory_bytes)
            spec->resources->memory_bytes = old->resources->memory_bytes;
    }
    copy->spec = old;
    doc->spec = spec;
    size_t n = doc->n_labels;
    Harpoon__V1__Container__LabelsEntry **labels = doc->labels;
    doc->labels = copy->labels;
    doc->n_labels = copy->n_labels;
    copy->labels = labels;
    copy->n_labels = n;
    harpoon__v1__container__free_unpacked(copy, NULL);
}

static void apply_change(struct sc_region *r, Harpoon__V1__Container *doc, int64_t *restart_serial,
                         const Harpoon__Internal__V1__Request *q, int64_t serial)
{
    switch (q->payload_case) {
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE:
        apply_resources(r, doc->spec, q->resize->resources);
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE:
        apply_update(r, doc, q->update->container);
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP:
        doc->spec->desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START:
        doc->spec->desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
        if (serial > 0)
            *restart_serial = serial;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART:
        doc->spec->desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
        *restart_serial = serial;
        break;
    default:
        assert(!"not a change");
    }
}

static void apply_operation(struct sc_region *r, Harpoon__V1__Container *doc, int64_t *restart_serial,
                            const struct sc_operation *op)
{
    assert(!sc_operation_places(op) && op->change);
    Harpoon__Internal__V1__Request *q = harpoon__internal__v1__request__unpack(NULL, op->change_len, op->change);
    if (!q) {
        sc_fail(r, HP_ENOMEM);
        return;
    }
    apply_change(r, doc, restart_serial, q, op->restart_serial);
    harpoon__internal__v1__request__free_unpacked(q, NULL);
}

/* ---- The confirmed state ---- */

/* Labels and spec as they are asked for now. */
static Harpoon__V1__Container *clone_doc(struct sc_region *r, const Harpoon__V1__Container *from)
{
    Harpoon__V1__Container m = HARPOON__V1__CONTAINER__INIT;
    m.labels = from->labels;
    m.n_labels = from->n_labels;
    m.spec = from->spec;
    return sc_pb_clone(r, &m.base);
}

static void keep_confirmed(struct sc_region *r, struct sc_container *c)
{
    if (sc_confirmed(c))
        return;
    Harpoon__Internal__V1__ContainerBase *b = sc_alloc(r, sizeof *b);
    if (!b)
        return;
    harpoon__internal__v1__container_base__init(b);
    b->container = clone_doc(r, sc_body(c));
    b->restart_serial = c->restart_serial;
    sc_confirmed_set(c, b);
}

static void swap_doc(Harpoon__V1__Container *a, Harpoon__V1__Container *b)
{
    Harpoon__V1__ContainerSpec *spec = a->spec;
    Harpoon__V1__Container__LabelsEntry **labels = a->labels;
    size_t n = a->n_labels;
    a->spec = b->spec;
    a->labels = b->labels;
    a->n_labels = b->n_labels;
    b->spec = spec;
    b->labels = labels;
    b->n_labels = n;
}

static bool only(const struct sc_container *c, const struct sc_operation *op)
{
    return c->queue.next == &op->queue && c->queue.prev == &op->queue;
}

void sc_change_confirm(struct sc_region *r, struct sc_container *c, const struct sc_operation *head)
{
    assert(sc_container_head(c) == head);
    if (only(c, head))
        sc_confirmed_set(c, NULL);
    else if (!sc_operation_places(head) && sc_confirmed(c))
        apply_operation(r, sc_confirmed(c)->container, &sc_confirmed(c)->restart_serial, head);
    sc_container_dirty(r, c);
}

void sc_change_rebuild(struct sc_region *r, struct sc_container *c)
{
    if (!sc_confirmed(c) || !sc_confirmed(c)->container)
        return;
    bool last = sc_list_empty(&c->queue);
    Harpoon__V1__Container *doc = last ? sc_confirmed(c)->container : clone_doc(r, sc_confirmed(c)->container);
    int64_t restart_serial = sc_confirmed(c)->restart_serial;
    if (!doc)
        return;
    for (struct sc_list *l = c->queue.next; l != &c->queue && !r->failed; l = l->next) {
        struct sc_operation *other = SC_OWNER(l, struct sc_operation, queue);
        if (!sc_operation_places(other))
            apply_operation(r, doc, &restart_serial, other);
    }
    swap_doc(sc_body(c), doc);
    c->restart_serial = restart_serial;
    sc_container_role(r, c);
    if (last)
        sc_confirmed_set(c, NULL);
    else
        harpoon__v1__container__free_unpacked(doc, NULL);
    sc_container_dirty(r, c);
}

void sc_change_revert(struct sc_region *r, struct sc_container *c, struct sc_operation *op)
{
    assert(!sc_operation_places(op) && op->container == c);
    assert(r->failed || sc_confirmed(c));
    sc_list_remove(&op->queue);
    sc_change_rebuild(r, c);
    sc_container_bump(r, c);
    sc_container_sync(r, c, true);
    sc_change_claim(r, c);
}

bool sc_change_target(struct sc_region *r, struct sc_container *c, struct sc_target *ret)
{
    struct sc_operation *head = sc_container_head(c);
    *ret = (struct sc_target){.doc = sc_body(c), .restart_serial = c->restart_serial};
    if (!head || !sc_confirmed(c) || only(c, head))
        return true;
    ret->doc = sc_confirmed(c)->container;
    ret->restart_serial = sc_confirmed(c)->restart_serial;
    if (sc_operation_places(head))
        return true;
    ret->owned = clone_doc(r, sc_confirmed(c)->container);
    ret->doc = ret->owned;
    if (!ret->owned)
        return false;
    apply_operation(r, ret->owned, &ret->restart_serial, head);
    return true;
}

static void cover(struct sc_res *a, const struct sc_res *b)
{
    a->cpu_millis = b->cpu_millis > a->cpu_millis ? b->cpu_millis : a->cpu_millis;
    a->memory_bytes = b->memory_bytes > a->memory_bytes ? b->memory_bytes : a->memory_bytes;
    a->disk_bytes = b->disk_bytes > a->disk_bytes ? b->disk_bytes : a->disk_bytes;
    a->network_bps = b->network_bps > a->network_bps ? b->network_bps : a->network_bps;
    a->functions = b->functions > a->functions ? b->functions : a->functions;
}

void sc_change_claim(struct sc_region *r, struct sc_container *c)
{
    struct sc_res claim = sc_spec_res(sc_body(c)->spec);
    if (sc_confirmed(c) && sc_confirmed(c)->container) {
        struct sc_res old = sc_spec_res(sc_confirmed(c)->container->spec);
        cover(&claim, &old);
    }
    for (struct sc_list *l = c->queue.next; l != &c->queue; l = l->next)
        cover(&claim, &SC_OWNER(l, struct sc_operation, queue)->need);
    /* What was taken back may still be in force until the host has confirmed the present state. */
    if (c->sync && c->host)
        cover(&claim, &sc_traits(c)->claim);
    bool other = memcmp(&claim, &sc_traits(c)->claim, sizeof claim) != 0;
    sc_container_claim(r, c, &claim);
    const struct sc_operation *head = sc_container_head(c);
    if (other && head && head->pending)
        sc_pending_changed(r);
}

static void set_need(struct sc_operation *op, const Harpoon__Internal__V1__Request *q)
{
    const Harpoon__V1__Resources *x = NULL;
    if (q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE)
        x = q->resize->resources;
    else if (q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE && q->update->container->spec)
        x = q->update->container->spec->resources;
    if (x)
        op->need = sc_resources_res(x);
    if (q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE)
        op->need.functions = sc_spec_res(q->update->container->spec).functions;
}

bool sc_change_load(struct sc_region *r, struct sc_operation *op)
{
    Harpoon__Internal__V1__Request *q =
        sc_pb_unpack(r, &harpoon__internal__v1__request__descriptor, op->change, op->change_len);
    bool good = q != NULL;
    if (q && q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE)
        good = q->update->container && q->update->container->spec;
    else if (q && q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE)
        good = q->resize->resources != NULL;
    else if (q)
        good = q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START ||
               q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP ||
               q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART;
    if (good)
        set_need(op, q);
    if (q)
        harpoon__internal__v1__request__free_unpacked(q, NULL);
    return good;
}

/* ---- Deciding ---- */

bool sc_change_keep(struct sc_region *r, struct sc_operation *op, const Harpoon__Internal__V1__Request *q)
{
    Harpoon__Internal__V1__Request m = HARPOON__INTERNAL__V1__REQUEST__INIT;
    m.payload_case = q->payload_case;
    m.resize = q->resize; /* all members of the payload share one place */
    op->change_len = harpoon__internal__v1__request__get_packed_size(&m);
    op->change = sc_alloc(r, op->change_len ? op->change_len : 1);
    if (!op->change)
        return false;
    harpoon__internal__v1__request__pack(&m, op->change);
    return true;
}

/* It shall run, and has ended by itself. The host runs it again when asked for a restart only: no other change runs a finished job twice. */
bool sc_container_has_ended(const struct sc_container *c)
{
    Harpoon__V1__ContainerState state = sc_body(c)->status->state;
    return sc_body(c)->spec->desired_state != HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED &&
           (state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED ||
            state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED ||
            state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_BACKOFF);
}

static void apply(struct sc_region *r, struct sc_container *c, struct sc_operation *op,
                  const Harpoon__Internal__V1__Request *q)
{
    keep_confirmed(r, c);
    if (r->failed || !sc_change_keep(r, op, q))
        return;
    set_need(op, q);
    if (q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART ||
        (q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START && sc_container_has_ended(c)))
        op->restart_serial = c->generation + 1;
    apply_change(r, sc_body(c), &c->restart_serial, q, op->restart_serial);
    sc_container_role(r, c);
    sc_container_bump(r, c);
    memcpy(c->operation_id, op->id, sizeof c->operation_id);
    op->container = c;
    strcpy(op->uid, c->uid);
    op->generation = c->generation;
    struct sc_operation *head = sc_container_head(c);
    if (head)
        sc_operation_reason(r, op, "waits for earlier operations on the container");
    sc_list_append(&c->queue, &op->queue);
    sc_change_claim(r, c);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    sc_container_event(r, c, "updated", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, NULL);
    if (!head)
        sc_container_next(r, c);
}

Google__Rpc__Status *sc_change_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__Request *q, bool dry_run)
{
    struct sc_container *c = sc_container_find(r, op->target);
    Google__Rpc__Status *s = sc_change_check(c, op->target, etag_of(q));
    if (!s && q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE)
        s = check_resize(c, q->resize);
    if (!s && q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE)
        s = check_update(c, q->update);
    if (!s && r->active_count >= r->config.operations_max)
        s = hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "REGION_FULL", "%zu operations are under way already",
                          r->active_count);
    if (!s && !dry_run)
        apply(r, c, op, q);
    return s;
}
