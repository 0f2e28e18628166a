/* place_cells.h — hosts that may take containers, by rack and labels: what a spread is measured over, without looking at each host. A part of place_index.c.
 *
 * A cell holds the hosts of one rack with the same labels and taints, and knows the fewest primaries that one of them has, and how many of them have each network mode. */
#ifndef SC_CORE_PLACE_CELLS_H
#define SC_CORE_PLACE_CELLS_H

#include <assert.h>

#include "base/map.h"
#include "core/topology.h"

struct sc_cell {
    uint32_t rack;         /* domain */
    uint32_t zone, labels; /* facets of the index */
    uint32_t hosts, first; /* how many, and one of them */
    int32_t least;         /* primaries on those that have fewest */
    uint32_t with_least;   /* how many these are */
    uint32_t next;         /* of its rack; SC_DOMAIN_NONE: the last */
};
static_assert(sizeof(struct sc_cell) == 32, "a survey looks at thousands");

/* By network mode (network.h): how many of a cell's hosts have it, and the primaries on those of them that have fewest, worked out when somebody asks. */
struct sc_cell_modes {
    uint32_t hosts[8];
    int32_t least[8];
    uint8_t known; /* bits: `least` is right */
};

struct sc_rack_cells {
    uint32_t first; /* cell; SC_DOMAIN_NONE: it has none */
    int64_t
        plus; /* what its hosts have at most of the spread of primaries; below 0: none fits. Of the query under way */
};

/* A host's place in its cell's list. */
struct sc_seat {
    uint32_t cell, after, before; /* SC_DOMAIN_NONE: none */
};

struct sc_cells {
    struct hp_map ids; /* "rack labels" → id + 1 */
    struct sc_cell *items;
    struct sc_cell_modes *modes; /* by cell */
    struct sc_seat *seats;       /* by slot */
    struct sc_rack_cells *racks; /* by domain */
    uint32_t count, room, used, seat_room, rack_count;
};

/* Allocates nothing. */
void sc_cells_init(struct sc_cells *c);
void sc_cells_done(struct sc_cells *c);
/* Before slots below `count` are used. HP_ENOMEM. */
int sc_cells_reserve(struct sc_cells *c, size_t count) HP_MUST_CHECK;
/* The host is in none, and has these network modes, also when it is taken out. HP_ENOMEM: it stays out. */
int sc_cells_put(struct sc_cells *c, const struct sc_topology *t, uint32_t slot, uint32_t zone, uint32_t labels,
                 uint8_t modes) HP_MUST_CHECK;
/* Legal when it is in none. */
void sc_cells_take(struct sc_cells *c, const struct sc_topology *t, uint32_t slot, uint8_t modes);
/* The host has so many more primaries than before, and the topology knows it. */
void sc_cells_primaries(struct sc_cells *c, const struct sc_topology *t, uint32_t slot, int32_t delta);
/* Asserts that the host's cell is right. */
void sc_cells_check(const struct sc_cells *c, const struct sc_topology *t, uint32_t slot);

#endif
