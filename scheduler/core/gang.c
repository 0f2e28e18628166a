/* gang.c — containers that get their places together, or none: the members wait until all have been created, are given places one after another on trial, and keep them only when each
 * has one. All that is decided in one step, and so recorded in one transaction. What a gang is follows from its containers: the next reign finds it again.
 *
 * While one of a gang has a host the others are placed by themselves: what a host refused, or what is created in the place of a member that failed. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

static const Harpoon__V1__Gang *named_by(const Harpoon__V1__ContainerSpec *spec)
{
    const Harpoon__V1__PlacementSpec *p = spec ? spec->placement : NULL;
    return p && p->gang && *p->gang->name ? p->gang : NULL;
}

struct sc_group *sc_gang_of(const struct sc_region *r, const struct sc_container *c)
{
    return sc_traits(c)->gang;
}

Google__Rpc__Status *sc_gang_check(const struct sc_region *r, const Harpoon__V1__ContainerSpec *spec,
                                   const char *project)
{
    const Harpoon__V1__Gang *named = named_by(spec);
    const struct sc_group *g = named ? sc_group_find(r, "*", project, named->name) : NULL;
    if (!named)
        return NULL;
    if (named->size < 2 || named->size > SC_GANG_MAX)
        return hp_status_add_field(hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD",
                                                 "container.spec.placement.gang.size: %d is not within 2 and %d",
                                                 named->size, SC_GANG_MAX),
                                   "container.spec.placement.gang.size", "is out of range");
    if (!g || sc_list_empty(&g->waiting))
        return NULL;
    const struct sc_operation *first = SC_OWNER(g->waiting.next, struct sc_operation, gang);
    int size = named_by(sc_body(first->container)->spec)->size;
    if (size != named->size)
        return hp_status_add_metadata(hp_status_new(HP_CODE_FAILED_PRECONDITION, "GANG_SIZE",
                                                    "gang \"%s\" is of %d containers as \"%s\" has it, not of %d",
                                                    named->name, size, first->container->name, named->size),
                                      "container", first->container->name);
    if (!g->count && g->waiting_count >= (size_t)size)
        return hp_status_new(HP_CODE_FAILED_PRECONDITION, "GANG_FULL",
                             "all %d containers of gang \"%s\" wait for their places already", size, named->name);
    return NULL;
}

/* The hardest to place first: primaries, then by size; else as they came. */
static bool goes_before(const struct sc_operation *a, const struct sc_operation *b)
{
    const struct sc_container *x = a->container, *y = b->container;
    bool p = sc_body(x)->spec->placement->role == HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY,
         q = sc_body(y)->spec->placement->role == HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY;
    if (p != q)
        return p;
    if (sc_traits(x)->claim.memory_bytes != sc_traits(y)->claim.memory_bytes)
        return sc_traits(x)->claim.memory_bytes > sc_traits(y)->claim.memory_bytes;
    return sc_traits(x)->claim.cpu_millis > sc_traits(y)->claim.cpu_millis;
}

static size_t collect(const struct sc_group *g, struct sc_operation **ops)
{
    size_t n = 0;
    for (const struct sc_list *l = g->waiting.next; l != &g->waiting && n < SC_GANG_MAX; l = l->next) {
        struct sc_operation *op = SC_OWNER(l, struct sc_operation, gang);
        size_t at = n++;
        for (; at > 0 && goes_before(op, ops[at - 1]); at--)
            ops[at] = ops[at - 1];
        ops[at] = op;
    }
    return n;
}

/* Why the one at `failed` has no place beside those before it. */
static void no_place(struct sc_region *r, const struct sc_query *q, struct sc_operation **ops, size_t count,
                     size_t failed)
{
    char why[400], text[512];
    int rejected[SC_FILTER_COUNT];
    sc_place_count(r->slots, r->slot_count, q, rejected);
    sc_place_reason(rejected, r->slot_count, why, sizeof why);
    snprintf(text, sizeof text, "waits with its gang of %zu: %zu had places, the next %s", count, failed, why);
    for (size_t i = 0; i < count; i++) {
        sc_operation_reason(r, ops[i], text);
        sc_container_state(r, ops[i]->container, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING, text);
    }
}

bool sc_gang_complete(const struct sc_container *c, const struct sc_group *g)
{
    return g->waiting_count >= (size_t)named_by(sc_body(c)->spec)->size;
}

void sc_gang_try(struct sc_region *r, struct sc_group *g)
{
    struct sc_operation *ops[SC_GANG_MAX];
    struct sc_host *hosts[SC_GANG_MAX];
    struct sc_query q;
    size_t count = collect(g, ops), placed = 0;
    bool skew = r->freed.skew; /* what is tried wakes nobody */
    assert(!g->count);
    for (size_t i = 0; i < count; i++)
        if (sc_stray_bars(r, ops[i]))
            return;
    for (; placed < count; placed++) {
        struct sc_container *c = ops[placed]->container;
        sc_query_of(r, &q, c, ops[placed]);
        ptrdiff_t best = r->failed ? -1 : sc_places_best(r, &q);
        if (best < 0)
            break;
        hosts[placed] = r->slots[best].info->host;
        sc_container_try(r, c, hosts[placed], 1);
    }
    if (placed < count && !r->failed)
        no_place(r, &q, ops, count, placed);
    for (size_t i = placed; i-- > 0;)
        sc_container_try(r, ops[i]->container, hosts[i], -1);
    r->freed.skew = skew;
    assert(!g->count || r->failed);
    for (size_t i = 0; placed == count && i < count && !r->failed; i++)
        sc_place_on(r, ops[i]->container, ops[i], hosts[i], "creating");
}
