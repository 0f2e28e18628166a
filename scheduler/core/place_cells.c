#include "core/place_cells.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define NONE SC_DOMAIN_NONE

void sc_cells_init(struct sc_cells *c)
{
    *c = (struct sc_cells){0};
    hp_map_init(&c->ids, NONE / 2, 1);
}

void sc_cells_done(struct sc_cells *c)
{
    hp_map_done(&c->ids);
    free(c->items);
    free(c->modes);
    free(c->seats);
    free(c->racks);
}

int sc_cells_reserve(struct sc_cells *c, size_t count)
{
    if (count <= c->seat_room)
        return 0;
    size_t room = c->seat_room ? c->seat_room : 64;
    while (room < count)
        room *= 2;
    struct sc_seat *seats = realloc(c->seats, room * sizeof *seats);
    if (!seats)
        return HP_ENOMEM;
    c->seats = seats;
    for (size_t i = c->seat_room; i < room; i++)
        seats[i].cell = NONE;
    c->seat_room = (uint32_t)room;
    return 0;
}

static int reserve_rack(struct sc_cells *c, uint32_t rack)
{
    if (rack < c->rack_count)
        return 0;
    uint32_t count = c->rack_count ? c->rack_count : 16;
    while (count <= rack)
        count *= 2;
    struct sc_rack_cells *racks = realloc(c->racks, count * sizeof *racks);
    if (!racks)
        return HP_ENOMEM;
    c->racks = racks;
    for (uint32_t i = c->rack_count; i < count; i++)
        racks[i] = (struct sc_rack_cells){.first = NONE};
    c->rack_count = count;
    return 0;
}

static int cell_of(struct sc_cells *c, uint32_t rack, uint32_t zone, uint32_t labels, uint32_t *ret)
{
    char name[32];
    snprintf(name, sizeof name, "%u %u", rack, labels);
    uintptr_t found = (uintptr_t)hp_map_get(&c->ids, name);
    *ret = (uint32_t)(found - 1);
    if (found) {
        c->items[*ret].zone = zone; /* the rack's number may have been another rack's before */
        return 0;
    }
    if (c->count == c->room) {
        uint32_t room = c->room ? 2 * c->room : 64;
        struct sc_cell *items = realloc(c->items, room * sizeof *items);
        if (!items)
            return HP_ENOMEM;
        c->items = items;
        struct sc_cell_modes *modes = realloc(c->modes, room * sizeof *modes);
        if (!modes)
            return HP_ENOMEM;
        c->modes = modes;
        c->room = room;
    }
    int code = reserve_rack(c, rack);
    if (!code)
        code = hp_map_put(&c->ids, name, (void *)((uintptr_t)c->count + 1), NULL);
    if (code)
        return code;
    c->items[c->count] =
        (struct sc_cell){.rack = rack, .zone = zone, .labels = labels, .first = NONE, .next = c->racks[rack].first};
    c->modes[c->count] = (struct sc_cell_modes){{0}};
    c->racks[rack].first = c->count;
    *ret = c->count++;
    return 0;
}

static int32_t primaries_of(const struct sc_topology *t, uint32_t slot)
{
    return t->levels[SC_LEVEL_HOST].items[slot].primaries;
}

static void add_least(struct sc_cell *x, int32_t primaries, uint32_t hosts)
{
    if (!x->with_least || primaries < x->least) {
        x->least = primaries;
        x->with_least = hosts;
    } else if (primaries == x->least) {
        x->with_least += hosts;
    }
}

static void count_again(struct sc_cells *c, const struct sc_topology *t, struct sc_cell *x)
{
    x->with_least = 0;
    for (uint32_t i = x->first; i != NONE; i = c->seats[i].after)
        add_least(x, primaries_of(t, i), 1);
}

static void count_modes(struct sc_cell_modes *x, unsigned modes, int delta)
{
    x->known = 0;
    for (; modes; modes &= modes - 1)
        x->hosts[__builtin_ctz(modes)] += (uint32_t)delta;
}

int sc_cells_put(struct sc_cells *c, const struct sc_topology *t, uint32_t slot, uint32_t zone, uint32_t labels,
                 uint8_t modes)
{
    struct sc_seat *s = &c->seats[slot];
    uint32_t id;
    assert(slot < c->seat_room && s->cell == NONE);
    int code = cell_of(c, sc_topology_domain(t, SC_LEVEL_RACK, slot), zone, labels, &id);
    if (code)
        return code;
    struct sc_cell *x = &c->items[id];
    *s = (struct sc_seat){.cell = id, .after = x->first, .before = NONE};
    if (x->first != NONE)
        c->seats[x->first].before = slot;
    x->first = slot;
    count_modes(&c->modes[id], modes, 1);
    c->used += x->hosts++ == 0;
    add_least(x, primaries_of(t, slot), 1);
    return 0;
}

static void leave_least(struct sc_cells *c, const struct sc_topology *t, struct sc_cell *x, int32_t primaries)
{
    if (primaries == x->least && --x->with_least == 0)
        count_again(c, t, x);
}

void sc_cells_take(struct sc_cells *c, const struct sc_topology *t, uint32_t slot, uint8_t modes)
{
    struct sc_seat *s = &c->seats[slot];
    if (s->cell == NONE)
        return;
    struct sc_cell *x = &c->items[s->cell];
    if (s->before == NONE)
        x->first = s->after;
    else
        c->seats[s->before].after = s->after;
    if (s->after != NONE)
        c->seats[s->after].before = s->before;
    s->cell = NONE;
    c->used -= --x->hosts == 0;
    count_modes(&c->modes[x - c->items], modes, -1);
    leave_least(c, t, x, primaries_of(t, slot));
}

void sc_cells_primaries(struct sc_cells *c, const struct sc_topology *t, uint32_t slot, int32_t delta)
{
    int32_t fresh = primaries_of(t, slot);
    if (c->seats[slot].cell == NONE || !delta)
        return;
    struct sc_cell *x = &c->items[c->seats[slot].cell];
    c->modes[c->seats[slot].cell].known = 0;
    if (fresh <= x->least && delta < 0) {
        x->with_least -= fresh - delta == x->least;
        add_least(x, fresh, 1);
    } else {
        leave_least(c, t, x, fresh - delta);
    }
}

void sc_cells_check(const struct sc_cells *c, const struct sc_topology *t, uint32_t slot)
{
    const struct sc_seat *s = &c->seats[slot];
    assert(s->cell < c->count);
    const struct sc_cell *x = &c->items[s->cell];
    assert(x->rack == sc_topology_domain(t, SC_LEVEL_RACK, slot));
    assert(x->least <= primaries_of(t, slot) && x->with_least > 0 && x->with_least <= x->hosts);
    uint32_t hosts = 0, with_least = 0;
    for (uint32_t i = x->first; i != NONE; i = c->seats[i].after) {
        hosts++;
        with_least += primaries_of(t, i) == x->least;
    }
    assert(hosts == x->hosts && with_least == x->with_least);
}
