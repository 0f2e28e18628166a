/* placement.h — which hosts can take a container, and which of them is best. One feasibility function ranks, commits and explains. */
#ifndef SC_CORE_PLACEMENT_H
#define SC_CORE_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"
#include "harpoon/v1/host.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"

struct sc_host;

/* What is claimed, in the units of harpoon.v1.Resources. Never negative. */
struct sc_res {
    int64_t cpu_millis;
    int64_t memory_bytes;
    int64_t disk_bytes;
};

static inline void sc_res_add(struct sc_res *a, const struct sc_res *b)
{
    a->cpu_millis += b->cpu_millis;
    a->memory_bytes += b->memory_bytes;
    a->disk_bytes += b->disk_bytes;
}

static inline void sc_res_sub(struct sc_res *a, const struct sc_res *b)
{
    a->cpu_millis -= b->cpu_millis;
    a->memory_bytes -= b->memory_bytes;
    a->disk_bytes -= b->disk_bytes;
}

struct sc_overcommit {
    int cpu_percent, memory_percent, disk_percent; /* of allocatable; 150 means 1.5 */
};

/* Why a host cannot take a container; the order is that of the checks. */
enum sc_filter {
    SC_FITS,
    SC_FILTER_STATE, /* not READY, or not attached */
    SC_FILTER_CORDONED,
    SC_FILTER_EXCLUDED, /* refused this operation before */
    SC_FILTER_HOST,     /* another host was asked for */
    SC_FILTER_ZONE,
    SC_FILTER_LABELS,
    SC_FILTER_ANTI_AFFINITY,
    SC_FILTER_CPU,
    SC_FILTER_MEMORY,
    SC_FILTER_DISK,
    SC_FILTER_COUNT
};

/* What placement knows of a host beside its slot; embedded in its owner. */
struct sc_slot_info {
    struct sc_host *host;        /* the owner */
    const Harpoon__V1__Host *pb; /* zone, labels */
    const char *name;            /* short */
    struct sc_res limit;         /* allocatable with overcommit */
    struct sc_res claimed;       /* by containers */
};

/* What every placement looks at, for every host: side by side in one array, one cache line each. `free` is limit - claimed (below 0 on a host that has become smaller). */
struct sc_slot {
    struct sc_res free;
    struct sc_slot_info *info;
    float cpu_inverse, memory_inverse, disk_inverse; /* 1 / limit; 0 for a limit of 0 */
    float idle;                                      /* measured: 1 idle (or not known) to 0 busy */
    uint32_t excluded_stamp;                         /* equal to the query's: refused it before */
    uint32_t group_stamp; /* equal to the query's: has a container of its anti-affinity group */
    bool ready;           /* READY and attached */
    bool cordoned, attached;
};

/* One question. */
struct sc_query {
    struct sc_res need;
    const Harpoon__V1__PlacementSpec *spec; /* may be NULL */
    uint32_t stamp;                         /* of this query, not 0; marks slots beforehand */
};

/* Parts of a score, each 0 to 1. */
struct sc_score {
    double total; /* 0 to 100 */
    double cpu, memory, disk, balance, load;
};

void sc_slot_set_allocatable(struct sc_slot *s, const Harpoon__V1__Resources *allocatable,
                             const struct sc_overcommit *o);
/* Replaces one claim by another; either may be NULL for none. */
void sc_slot_claim(struct sc_slot *s, const struct sc_res *old, const struct sc_res *fresh);
/* The one feasibility function. */
enum sc_filter sc_slot_check(const struct sc_slot *s, const struct sc_query *q);
/* Whether `more` can be claimed on top, on the host that has the container already. */
enum sc_filter sc_slot_check_room(const struct sc_slot *s, const struct sc_res *more);
void sc_slot_score(const struct sc_slot *s, const struct sc_query *q, struct sc_score *ret);
/* Index of the best feasible slot, or -1; counts the filters that removed the others in rejected[SC_FILTER_COUNT] (may be NULL). Ties go to the earlier slot. */
ptrdiff_t sc_place_best(const struct sc_slot *slots, size_t count, const struct sc_query *q, int *rejected);
/* "capacity_cpu" and so on, as in harpoon.v1.HostVerdict. */
const char *sc_filter_name(enum sc_filter f);
/* Why no host fits, in one sentence. */
void sc_place_reason(const int *rejected, size_t host_count, char *out, size_t size);
/* A heap answer (free with protobuf-c), hosts best first; at most `hosts_max` of them. `region` is for full names. */
int sc_place_explain(const struct sc_slot *slots, size_t count, const struct sc_query *q, const char *region,
                     size_t hosts_max, Harpoon__V1__ExplainResponse **ret) HP_MUST_CHECK;

#endif
