/* topology.h — zones, racks and hosts, and how much of what is to be spread each of them has.
 *
 * A rack is of its zone: racks of the same name in two zones are two; hosts of a zone without a rack are in one rack without a name. Hosts are named by their slot.
 *
 * Primaries are counted all the time. The members of a spread group are counted for one query at a time: sc_topology_clear, then sc_topology_mark for each host that
 * has some. A survey says, for one query, what there is least of in the domains that have a host which the query may use: it begins, sees each of those hosts (or each rack
 * of them), and ends. One thread; no I/O. */
#ifndef SC_CORE_TOPOLOGY_H
#define SC_CORE_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/map.h"

enum sc_level { SC_LEVEL_ZONE, SC_LEVEL_RACK, SC_LEVEL_HOST, SC_LEVELS };

#define SC_DOMAIN_NONE UINT32_MAX

struct sc_domain {
    uint32_t parent; /* a host's rack, a rack's zone; of a spare one: the next spare one */
    int32_t primaries;
    uint32_t marked; /* the marking that `members` is of */
    int32_t members; /* of the query's group */
};

/* What zones and racks have beside that. */
struct sc_inside {
    uint32_t hosts; /* 0: spare */
    uint32_t seen;  /* the survey that `least` is of */
    int32_t least;  /* primaries in that of its eligible racks, or hosts, which has fewest */
};

struct sc_domains {
    struct sc_domain *items;
    struct sc_inside *inside;    /* NULL for hosts */
    uint32_t count, room, spare; /* ever used; of items; the first spare one */
};

struct sc_topology {
    struct sc_domains levels[SC_LEVELS];
    struct hp_map zone_ids, rack_ids; /* name → id + 1 */
    uint32_t marking, survey;
    uint32_t marked_hosts;    /* with members of the query's group */
    int32_t least[SC_LEVELS]; /* of the survey: members in the eligible domain that has fewest */
    int32_t least_primaries;  /* and primaries in such a zone */
};

/* What a new container would add to, on one host: as far above the least as an eligible domain may be. */
struct sc_excess {
    int32_t at[SC_LEVELS];
};

/* Allocates nothing. */
void sc_topology_init(struct sc_topology *t, uint64_t seed);
void sc_topology_done(struct sc_topology *t);
/* Before slots below `hosts` are used. HP_ENOMEM. */
int sc_topology_reserve(struct sc_topology *t, size_t hosts) HP_MUST_CHECK;
/* Where the host is; again, when it has moved. HP_ENOMEM: it is where it was. */
int sc_topology_put(struct sc_topology *t, size_t slot, const char *zone, const char *rack) HP_MUST_CHECK;
/* The host has so many more primaries. */
void sc_topology_primaries(struct sc_topology *t, size_t slot, int32_t delta);
void sc_topology_clear(struct sc_topology *t);
void sc_topology_mark(struct sc_topology *t, size_t slot, int32_t members);
/* The domain of the host; it has been put. */
uint32_t sc_topology_domain(const struct sc_topology *t, enum sc_level level, size_t slot);
int32_t sc_topology_members(const struct sc_topology *t, enum sc_level level, uint32_t domain);

void sc_survey_begin(struct sc_topology *t);
/* A rack has eligible hosts: the fewest primaries, and members, on one of them. */
static inline void sc_survey_see(struct sc_topology *t, uint32_t rack, int32_t primaries, int32_t members)
{
    struct sc_inside *x = &t->levels[SC_LEVEL_RACK].inside[rack];
    if (x->seen != t->survey || primaries < x->least) {
        x->seen = t->survey;
        x->least = primaries;
    }
    if (members < t->least[SC_LEVEL_HOST])
        t->least[SC_LEVEL_HOST] = members;
}
void sc_survey_end(struct sc_topology *t);
/* Above the least, after a survey that has seen the host. Members: over the whole region. Primaries: of the zone over the region, of the rack in its zone, of the host in its rack. */
void sc_survey_members(const struct sc_topology *t, size_t slot, struct sc_excess *ret);
void sc_survey_primaries(const struct sc_topology *t, size_t slot, struct sc_excess *ret);
/* The same of a rack that was seen; nothing of its hosts. */
void sc_survey_rack_primaries(const struct sc_topology *t, uint32_t rack, struct sc_excess *ret);
/* The same of a zone alone, which may not have been seen. */
int32_t sc_survey_zone_members(const struct sc_topology *t, uint32_t zone);
int32_t sc_survey_zone_primaries(const struct sc_topology *t, uint32_t zone);

#endif
