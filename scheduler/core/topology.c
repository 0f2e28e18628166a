#include "core/topology.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sc_topology_init(struct sc_topology *t, uint64_t seed)
{
    *t = (struct sc_topology){.marking = 1};
    hp_map_init(&t->zone_ids, SC_DOMAIN_NONE / 2, seed);
    hp_map_init(&t->rack_ids, SC_DOMAIN_NONE / 2, seed);
    for (int level = 0; level < SC_LEVELS; level++)
        t->levels[level].spare = SC_DOMAIN_NONE;
}

void sc_topology_done(struct sc_topology *t)
{
    hp_map_done(&t->zone_ids);
    hp_map_done(&t->rack_ids);
    for (int level = 0; level < SC_LEVELS; level++) {
        free(t->levels[level].items);
        free(t->levels[level].inside);
    }
}

static int reserve(struct sc_domains *d, size_t count, bool inside)
{
    if (count <= d->room)
        return 0;
    if (count > SC_DOMAIN_NONE / 4)
        return HP_ELIMIT;
    uint32_t room = d->room ? d->room : 16;
    while (room < count)
        room *= 2;
    struct sc_domain *items = realloc(d->items, room * sizeof *items);
    if (!items)
        return HP_ENOMEM;
    d->items = items;
    struct sc_inside *more = inside ? realloc(d->inside, room * sizeof *more) : NULL;
    if (inside && !more)
        return HP_ENOMEM;
    d->inside = more;
    d->room = room;
    return 0;
}

int sc_topology_reserve(struct sc_topology *t, size_t hosts)
{
    struct sc_domains *d = &t->levels[SC_LEVEL_HOST];
    int code = reserve(d, hosts, false);
    while (!code && d->count < hosts)
        d->items[d->count++] = (struct sc_domain){.parent = SC_DOMAIN_NONE};
    return code;
}

/* The domain of that name, made when there is none. */
static int domain_of(struct sc_domains *d, struct hp_map *ids, const char *name, uint32_t parent, uint32_t *ret)
{
    uintptr_t found = (uintptr_t)hp_map_get(ids, name);
    if (found) {
        *ret = (uint32_t)(found - 1);
        return 0;
    }
    uint32_t id = d->spare;
    int code = id == SC_DOMAIN_NONE ? reserve(d, (size_t)d->count + 1, true) : 0;
    if (!code)
        code = hp_map_put(ids, name, (void *)((uintptr_t)(id == SC_DOMAIN_NONE ? d->count : id) + 1), NULL);
    if (code)
        return code;
    if (id == SC_DOMAIN_NONE)
        id = d->count++;
    else
        d->spare = d->items[id].parent;
    d->items[id] = (struct sc_domain){.parent = parent};
    d->inside[id] = (struct sc_inside){0};
    *ret = id;
    return 0;
}

/* Its last host has left. */
static void drop_domain(struct sc_domains *d, struct hp_map *ids, uint32_t id)
{
    for (struct hp_map_node *n = hp_map_first(ids); n; n = hp_map_next(n))
        if ((uintptr_t)n->value == (uintptr_t)id + 1) {
            hp_map_remove(ids, n->key);
            break;
        }
    assert(d->items[id].primaries == 0);
    d->items[id].parent = d->spare;
    d->spare = id;
}

static void leave(struct sc_topology *t, uint32_t rack, int32_t primaries)
{
    struct sc_domains *racks = &t->levels[SC_LEVEL_RACK], *zones = &t->levels[SC_LEVEL_ZONE];
    uint32_t zone = racks->items[rack].parent;
    racks->items[rack].primaries -= primaries;
    zones->items[zone].primaries -= primaries;
    if (--racks->inside[rack].hosts == 0)
        drop_domain(racks, &t->rack_ids, rack);
    if (--zones->inside[zone].hosts == 0)
        drop_domain(zones, &t->zone_ids, zone);
}

int sc_topology_put(struct sc_topology *t, size_t slot, const char *zone, const char *rack)
{
    char name[512];
    uint32_t z, r;
    struct sc_domains *zones = &t->levels[SC_LEVEL_ZONE], *racks = &t->levels[SC_LEVEL_RACK];
    struct sc_domain *host = &t->levels[SC_LEVEL_HOST].items[slot];
    assert(slot < t->levels[SC_LEVEL_HOST].count);
    int code = domain_of(zones, &t->zone_ids, zone, SC_DOMAIN_NONE, &z);
    if (code)
        return code;
    snprintf(name, sizeof name, "%u\n%s", z, rack);
    code = domain_of(racks, &t->rack_ids, name, z, &r);
    if (code) {
        if (!zones->inside[z].hosts)
            drop_domain(zones, &t->zone_ids, z);
        return code;
    }
    if (host->parent == r)
        return 0;
    uint32_t old = host->parent;
    host->parent = r;
    zones->inside[z].hosts++;
    racks->inside[r].hosts++;
    zones->items[z].primaries += host->primaries;
    racks->items[r].primaries += host->primaries;
    if (old != SC_DOMAIN_NONE)
        leave(t, old, host->primaries);
    return 0;
}

uint32_t sc_topology_domain(const struct sc_topology *t, enum sc_level level, size_t slot)
{
    if (level == SC_LEVEL_HOST)
        return (uint32_t)slot;
    uint32_t rack = t->levels[SC_LEVEL_HOST].items[slot].parent;
    assert(rack != SC_DOMAIN_NONE);
    return level == SC_LEVEL_RACK ? rack : t->levels[SC_LEVEL_RACK].items[rack].parent;
}

static struct sc_domain *domain_at(const struct sc_topology *t, enum sc_level level, size_t slot)
{
    return &t->levels[level].items[sc_topology_domain(t, level, slot)];
}

void sc_topology_primaries(struct sc_topology *t, size_t slot, int32_t delta)
{
    for (int level = 0; level < SC_LEVELS; level++) {
        struct sc_domain *d = domain_at(t, level, slot);
        d->primaries += delta;
        assert(d->primaries >= 0);
    }
}

void sc_topology_clear(struct sc_topology *t)
{
    t->marked_hosts = 0;
    if (++t->marking)
        return;
    /* The numbers are used up and begin anew: none of them may stand anywhere. */
    for (int level = 0; level < SC_LEVELS; level++)
        for (uint32_t i = 0; i < t->levels[level].count; i++)
            t->levels[level].items[i].marked = 0;
    t->marking = 1;
}

void sc_topology_mark(struct sc_topology *t, size_t slot, int32_t members)
{
    assert(members > 0);
    for (int level = 0; level < SC_LEVELS; level++) {
        struct sc_domain *d = domain_at(t, level, slot);
        if (d->marked != t->marking) {
            d->marked = t->marking;
            d->members = 0;
            t->marked_hosts += level == SC_LEVEL_HOST;
        }
        d->members += members;
    }
}

int32_t sc_topology_members(const struct sc_topology *t, enum sc_level level, uint32_t domain)
{
    const struct sc_domain *d = &t->levels[level].items[domain];
    return d->marked == t->marking ? d->members : 0;
}

/* ---- Surveys ---- */

void sc_survey_begin(struct sc_topology *t)
{
    for (int level = 0; level < SC_LEVELS; level++)
        t->least[level] = INT32_MAX;
    t->least_primaries = INT32_MAX;
    if (++t->survey)
        return;
    for (int level = 0; level < SC_LEVEL_HOST; level++)
        for (uint32_t i = 0; i < t->levels[level].count; i++)
            t->levels[level].inside[i].seen = 0;
    t->survey = 1;
}

static void lower(int32_t *least, int32_t value)
{
    *least = value < *least ? value : *least;
}

/* Something in the domain has so few. */
static void see(const struct sc_topology *t, struct sc_inside *x, int32_t primaries)
{
    if (x->seen != t->survey) {
        x->seen = t->survey;
        x->least = primaries;
    }
    lower(&x->least, primaries);
}

static bool seen(const struct sc_topology *t, const struct sc_domains *d, uint32_t id)
{
    return d->inside[id].seen == t->survey && d->inside[id].hosts;
}

void sc_survey_end(struct sc_topology *t)
{
    const struct sc_domains *racks = &t->levels[SC_LEVEL_RACK], *zones = &t->levels[SC_LEVEL_ZONE];
    for (uint32_t i = 0; i < racks->count; i++) {
        if (!seen(t, racks, i))
            continue;
        see(t, &zones->inside[racks->items[i].parent], racks->items[i].primaries);
        lower(&t->least[SC_LEVEL_RACK], sc_topology_members(t, SC_LEVEL_RACK, i));
    }
    for (uint32_t i = 0; i < zones->count; i++) {
        if (!seen(t, zones, i))
            continue;
        lower(&t->least_primaries, zones->items[i].primaries);
        lower(&t->least[SC_LEVEL_ZONE], sc_topology_members(t, SC_LEVEL_ZONE, i));
    }
}

/* A domain that has no eligible host may have less than the least: that is no shortfall. */
static int32_t above(int32_t value, int32_t least)
{
    return value > least ? value - least : 0;
}

void sc_survey_members(const struct sc_topology *t, size_t slot, struct sc_excess *ret)
{
    for (int level = 0; level < SC_LEVELS; level++)
        ret->at[level] = above(sc_topology_members(t, level, sc_topology_domain(t, level, slot)), t->least[level]);
}

void sc_survey_primaries(const struct sc_topology *t, size_t slot, struct sc_excess *ret)
{
    uint32_t rack = sc_topology_domain(t, SC_LEVEL_RACK, slot);
    sc_survey_rack_primaries(t, rack, ret);
    ret->at[SC_LEVEL_HOST] =
        above(t->levels[SC_LEVEL_HOST].items[slot].primaries, t->levels[SC_LEVEL_RACK].inside[rack].least);
}

void sc_survey_rack_primaries(const struct sc_topology *t, uint32_t rack, struct sc_excess *ret)
{
    const struct sc_domains *zones = &t->levels[SC_LEVEL_ZONE], *racks = &t->levels[SC_LEVEL_RACK];
    uint32_t zone = racks->items[rack].parent;
    assert(racks->inside[rack].seen == t->survey && zones->inside[zone].seen == t->survey);
    ret->at[SC_LEVEL_HOST] = 0;
    ret->at[SC_LEVEL_RACK] = above(racks->items[rack].primaries, zones->inside[zone].least);
    ret->at[SC_LEVEL_ZONE] = above(zones->items[zone].primaries, t->least_primaries);
}

int32_t sc_survey_zone_members(const struct sc_topology *t, uint32_t zone)
{
    return above(sc_topology_members(t, SC_LEVEL_ZONE, zone), t->least[SC_LEVEL_ZONE]);
}

int32_t sc_survey_zone_primaries(const struct sc_topology *t, uint32_t zone)
{
    return above(t->levels[SC_LEVEL_ZONE].items[zone].primaries, t->least_primaries);
}
