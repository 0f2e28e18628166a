/* places.c — the region's indexes of places: one for each way in which hosts are weighed.
 *
 * Containers of a workload class are placed by the weights of that class, all others by the region's. An index is ordered by the weights of what a host is whatever is asked for, so
 * that classes which differ in these have one each (96 bytes a host); classes which differ only in what is asked for, and those that weigh alike, share one. */
#include <string.h>

#include "core/hosts.h"
#include "core/state.h"

/* Whether hosts come in the same order. */
static bool alike(const struct sc_weights *a, const struct sc_weights *b)
{
    return a->cpu == b->cpu && a->memory == b->memory && a->disk == b->disk && a->balance == b->balance &&
           a->load == b->load && a->failures == b->failures && a->pack == b->pack;
}

static uint8_t index_for(struct sc_region *r, const struct sc_weights *w)
{
    for (size_t i = 0; i < r->index_count; i++)
        if (alike(&r->indexes[i].weights, w))
            return (uint8_t)i;
    assert(r->index_count <= SC_CLASSES_MAX);
    sc_index_init(&r->indexes[r->index_count], w, &r->topology);
    return (uint8_t)r->index_count++;
}

void sc_places_init(struct sc_region *r)
{
    assert(r->config.class_count <= SC_CLASSES_MAX);
    (void)index_for(r, &r->config.weights);
    for (size_t i = 0; i < r->config.class_count; i++)
        r->class_index[i] = index_for(r, &r->config.classes[i].weights);
}

void sc_places_done(struct sc_region *r)
{
    for (size_t i = 0; i < r->index_count; i++)
        sc_index_done(&r->indexes[i]);
}

int sc_places_reserve(struct sc_region *r, size_t count)
{
    int code = sc_topology_reserve(&r->topology, count);
    for (size_t i = 0; i < r->index_count && !code; i++)
        code = sc_index_reserve(&r->indexes[i], count);
    return code;
}

int sc_places_facts(struct sc_region *r, const struct sc_host *h)
{
    int code = sc_topology_put(&r->topology, h->info.at, h->info.pb->zone, h->pb->rack);
    for (size_t i = 0; i < r->index_count && !code; i++)
        code = sc_index_facts(&r->indexes[i], r->slots, r->slot_count, h->info.at);
    return code;
}

void sc_places_touch(struct sc_region *r, const struct sc_host *h)
{
    for (size_t i = 0; i < r->index_count; i++)
        sc_index_touch(&r->indexes[i], r->slots, h->info.at);
}

void sc_places_primaries(struct sc_region *r, const struct sc_host *h, int32_t delta)
{
    sc_topology_primaries(&r->topology, h->info.at, delta);
    for (size_t i = 0; i < r->index_count; i++)
        sc_index_primaries(&r->indexes[i], h->info.at, delta);
}

const struct sc_weights *sc_places_weights(const struct sc_region *r, const Harpoon__V1__PlacementSpec *spec)
{
    for (size_t i = 0; spec && *spec->workload_class && i < r->config.class_count; i++)
        if (!strcmp(r->config.classes[i].name, spec->workload_class))
            return &r->config.classes[i].weights;
    return &r->config.weights;
}

ptrdiff_t sc_places_best(struct sc_region *r, const struct sc_query *q)
{
    size_t index = 0;
    for (size_t i = 0; i < r->config.class_count; i++)
        if (q->weights == &r->config.classes[i].weights)
            index = r->class_index[i];
    return sc_index_best(&r->indexes[index], r->slots, r->slot_count, q);
}

void sc_places_check(const struct sc_region *r, const struct sc_host *h)
{
    for (size_t i = 0; i < r->index_count; i++)
        sc_index_check(&r->indexes[i], r->slots, h->info.at);
}
