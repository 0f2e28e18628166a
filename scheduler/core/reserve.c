/* reserve.c — places that are taken before what they are for: until they are used, given back, or their time is over.
 *
 * A reservation is an operation that stays PLACED: its host is the place, its deadline the end. It is for one name: the create, or the move, of the container of that name
 * gets the place when it fits there, and ends the reservation. It counts for the host, for the quota, and for the anti-affinity group as the container will. All of it is in the
 * operation's row. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

#define RESERVE HARPOON__V1__VERB__VERB_RESERVE

enum { NAMES_MAX = 10000 }; /* reservations of a region */

struct sc_operation *sc_reserve_find(const struct sc_region *r, const char *container)
{
    return hp_map_get(&r->reservations, container);
}

static const Harpoon__V1__ContainerSpec *spec_of(const Harpoon__V1__ReserveRequest *q)
{
    return q->create && q->create->container ? q->create->container->spec : NULL;
}

/* Takes the place; false: no memory. */
static bool hold(struct sc_region *r, struct sc_operation *op, struct sc_host *h,
                 const Harpoon__V1__ContainerSpec *spec)
{
    struct sc_storage_item needs[SC_STORAGE_NEEDS_MAX];
    size_t count = sc_storage_needs(spec, needs);
    const struct sc_res res = sc_spec_res(spec);
    const char *group = spec->placement ? spec->placement->anti_affinity_group : "";
    struct sc_project *p = sc_project_get(r, op->project);
    struct sc_group *g = *group ? sc_group_get(r, "", op->project, group) : NULL;
    struct sc_storage *storage = count ? sc_storage_new(needs, count) : NULL;
    if (!p || (*group && !g) || (count && !storage) || hp_map_put(&r->reservations, op->target, op, NULL)) {
        sc_storage_unref(storage);
        sc_fail(r, HP_ENOMEM);
        return false;
    }
    if (g)
        g->containers++; /* as a container that names it */
    p->containers++;
    op->need = res;
    op->need.disk_bytes += sc_storage_total(spec);
    sc_res_add(&p->used, &op->need);
    strcpy(op->host, h->info.name);
    bool held = sc_hold_take(r, op, h, &res, storage, g);
    sc_storage_unref(storage);
    return held;
}

void sc_reserve_over(struct sc_region *r, struct sc_operation *op)
{
    struct sc_project *p = hp_map_get(&r->projects, op->project);
    struct sc_group *g = op->hold->group;
    assert(p && op->verb == RESERVE);
    hp_map_remove(&r->reservations, op->target);
    sc_res_sub(&p->used, &op->need);
    sc_hold_drop(r, op);
    sc_group_leave(r, g);
    sc_project_leave(r, p);
}

struct sc_host *sc_reserve_use(struct sc_region *r, struct sc_container *c, const struct sc_operation *user)
{
    struct sc_operation *op = sc_reserve_find(r, c->name);
    if (!op)
        return NULL;
    struct sc_host *h = op->hold->host;
    sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
    return !r->failed && h != c->host && sc_place_fits(r, c, user, h) ? h : NULL;
}

void sc_reserve_host_lost(struct sc_region *r, const struct sc_host *h)
{
    for (struct hp_map_node *n = hp_map_first(&r->reservations), *next; n && !r->failed; n = next) {
        struct sc_operation *op = n->value;
        next = hp_map_next(n);
        if (op->hold->host == h)
            sc_operation_end(
                r, op, HARPOON__V1__STAGE__STAGE_FAILED,
                hp_status_new(HP_CODE_FAILED_PRECONDITION, "HOST_LOST", "host \"%s\" was declared lost", h->info.name));
    }
}

bool sc_reserve_load(struct sc_region *r, struct sc_operation *op)
{
    Harpoon__Internal__V1__Request *q =
        sc_pb_unpack(r, &harpoon__internal__v1__request__descriptor, op->change, op->change_len);
    struct sc_host *h = hp_map_get(&r->hosts, op->host);
    bool good = q && h && q->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESERVE && spec_of(q->reserve) &&
                !sc_reserve_find(r, op->target);
    if (good)
        (void)hold(r, op, h, spec_of(q->reserve)); /* without memory the region has failed */
    if (q)
        harpoon__internal__v1__request__free_unpacked(q, NULL);
    return good;
}

static Google__Rpc__Status *check(struct sc_region *r, const struct sc_operation *op,
                                  const Harpoon__V1__ReserveRequest *q)
{
    const Harpoon__V1__ContainerSpec *spec = spec_of(q);
    const struct sc_operation *other = sc_reserve_find(r, op->target);
    if (!spec || !spec->resources)
        return hp_status_add_field(
            hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD", "create.container.spec.resources: is missing"),
            "create.container.spec.resources", "is missing");
    if (other)
        return hp_status_add_metadata(hp_status_new(HP_CODE_ALREADY_EXISTS, "RESERVED",
                                                    "a place for \"%s\" is reserved by \"%s\"", op->target,
                                                    other->name),
                                      "operation", other->name);
    if (r->reservations.count >= NAMES_MAX || r->active_count >= r->config.operations_max)
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "REGION_FULL", "%zu reservations are in force already",
                             r->reservations.count);
    Google__Rpc__Status *s = sc_resources_check(spec->resources, true);
    if (!s)
        s = sc_storage_wrong(spec);
    const struct sc_project *p = hp_map_get(&r->projects, op->project);
    struct sc_res need = sc_spec_res(spec);
    need.disk_bytes += sc_storage_total(spec);
    return s ? s : p ? sc_quota_check(p, &need, 1) : NULL;
}

static struct sc_host *find(struct sc_region *r, const struct sc_operation *op, const Harpoon__V1__ReserveRequest *q,
                            char *reason, size_t size)
{
    struct sc_query query;
    int rejected[SC_FILTER_COUNT];
    const struct sc_container *c = sc_container_find(r, op->target);
    const struct sc_res need = sc_spec_res(spec_of(q));
    sc_query_init(r, &query, &need, spec_of(q), op->project, NULL);
    if (c && c->host)
        sc_host_slot(c->host)->excluded_stamp = query.stamp; /* for its move */
    ptrdiff_t best = r->restored ? -1 : sc_places_best(r, &query);
    if (best >= 0)
        return r->slots[best].info->host;
    sc_place_count(r->slots, r->slot_count, &query, rejected);
    sc_place_reason(rejected, r->slot_count, reason, size);
    return NULL;
}

Google__Rpc__Status *sc_reserve_decide(struct sc_region *r, struct sc_operation *op,
                                       const Harpoon__Internal__V1__Request *q, bool dry_run)
{
    char reason[512];
    Google__Rpc__Status *s = check(r, op, q->reserve);
    struct sc_host *h = s ? NULL : find(r, op, q->reserve, reason, sizeof reason);
    if (s)
        return s;
    if (!h)
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "NO_PLACE", "%s", reason);
    if (dry_run || !sc_change_keep(r, op, q) || !hold(r, op, h, spec_of(q->reserve)))
        return NULL;
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_PLACED);
    return NULL;
}
