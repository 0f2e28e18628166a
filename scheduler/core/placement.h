/* placement.h — which hosts can take a container, and which of them is best. One feasibility function ranks, commits and explains. */
#ifndef SC_CORE_PLACEMENT_H
#define SC_CORE_PLACEMENT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/map.h"
#include "core/storage.h"
#include "core/topology.h"
#include "harpoon/v1/container.pb-c.h"
#include "harpoon/v1/host.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"
#include "wire/load.h"

struct sc_host;

/* What is claimed, in the units of harpoon.v1.Resources. Never negative. */
struct sc_res {
    int64_t cpu_millis;
    int64_t memory_bytes;
    int64_t disk_bytes;
    int64_t network_bps;
    int64_t functions; /* of network cards: 0 or 1 of a container */
};

static inline void sc_res_add(struct sc_res *a, const struct sc_res *b)
{
    a->cpu_millis += b->cpu_millis;
    a->memory_bytes += b->memory_bytes;
    a->disk_bytes += b->disk_bytes;
    a->network_bps += b->network_bps;
    a->functions += b->functions;
}

static inline void sc_res_sub(struct sc_res *a, const struct sc_res *b)
{
    a->cpu_millis -= b->cpu_millis;
    a->memory_bytes -= b->memory_bytes;
    a->disk_bytes -= b->disk_bytes;
    a->network_bps -= b->network_bps;
    a->functions -= b->functions;
}

struct sc_overcommit {
    int cpu_percent, memory_percent, disk_percent, network_percent; /* of allocatable; 150 means 1.5 */
};

/* Why a host cannot take a container; the order is that of the checks. */
enum sc_filter {
    SC_FITS,
    SC_FILTER_STATE, /* not READY, or not attached */
    SC_FILTER_CORDONED,
    SC_FILTER_BREAKER_CPU, /* its breaker is open; the four in the order of enum hp_resource */
    SC_FILTER_BREAKER_MEMORY,
    SC_FILTER_BREAKER_IO,
    SC_FILTER_BREAKER_NETWORK,
    SC_FILTER_EXCLUDED,     /* refused this operation before */
    SC_FILTER_NETWORK_MODE, /* does not offer it */
    SC_FILTER_HOST,         /* another host was asked for */
    SC_FILTER_ZONE,
    SC_FILTER_LABELS,
    SC_FILTER_TAINTS,   /* one is not tolerated */
    SC_FILTER_AFFINITY, /* others of the group are elsewhere */
    SC_FILTER_ANTI_AFFINITY,
    SC_FILTER_SPREAD_ZONE, /* its zone has too many of the spread group; the three in the order of enum sc_level */
    SC_FILTER_SPREAD_RACK,
    SC_FILTER_SPREAD_HOST,
    SC_FILTER_CPU, /* this and the later ones: it lacks room, and nothing else */
    SC_FILTER_MEMORY,
    SC_FILTER_DISK,
    SC_FILTER_FUNCTIONS, /* none is left */
    SC_FILTER_NETWORK,
    SC_FILTER_STORAGE, /* it lacks a storage class, or has too little of it left */
    SC_FILTER_COUNT
};

/* What placement knows of a host beside its slot; embedded in its owner. */
struct sc_slot_info {
    struct sc_host *host;            /* the owner */
    const Harpoon__V1__Host *pb;     /* zone, labels, taints; others may have the same */
    Harpoon__V1__Breaker **breakers; /* that are open; the owner's */
    const char *name;                /* short */
    struct sc_res limit;             /* allocatable with overcommit */
    struct sc_res claimed;           /* by containers */
    uint32_t at;                     /* its slot */
    float trust;                     /* 1: nothing has failed there of late; to 0 */
    uint32_t failed_s;               /* when `trust` was worked out, when it is below 1 */
    uint8_t breaker_count;
    bool smaller;         /* it has come back with less than is claimed: until that fits again */
    bool storage_smaller; /* the same, of a storage class */
    const struct sc_storage
        *storage;             /* what may be claimed of its classes; others may have the same; NULL: it has none */
    int64_t *storage_claimed; /* of each of them */
};

/* 1 / limit of each resource; 0 for a limit of 0. */
struct sc_inverse {
    float cpu, memory, disk;
};

/* What is free of what nearly everything asks for. */
struct sc_free {
    int64_t cpu_millis, memory_bytes, disk_bytes;
};

/* What every placement looks at, for every host: side by side in one array, one cache line each. `free` is limit - claimed (below 0 on a host that has become smaller). */
struct sc_slot {
    struct sc_free free;
    struct sc_slot_info *info;
    struct sc_inverse inverse;
    float idle;              /* measured: 1 idle to 0 busy; a half when not known */
    uint32_t excluded_stamp; /* equal to the query's: refused it before */
    uint32_t group_stamp;    /* equal to the query's: has a container of its anti-affinity group */
    uint32_t affine_stamp;   /* equal to the query's: has a container of its affinity group */
    bool ready : 1;          /* READY and attached */
    bool cordoned : 1, attached : 1;
    uint8_t breakers;  /* open ones: bits of enum hp_resource */
    uint8_t modes;     /* of networks that it offers (network.h) */
    uint8_t functions; /* how much of its functions is left (network.h) */
};
static_assert(sizeof(struct sc_slot) == 64, "a cache line");

/* How much each part of a score counts. Those of the host alone: 0 to SC_WEIGHT_MAX, at least one of them above 0. Those that are asked for by some containers only, and count with
 * these: 0 to SC_WEIGHT_ASKED_MAX. */
struct sc_weights {
    int cpu, memory, disk; /* what would be left free; with `pack`, what would be taken */
    int balance, load, failures;
    int spread, primaries, image, preferences; /* asked for */
    int network; /* where hosts have functions: left to those that ask for them, and used evenly */
    int storage; /* for what asks for classes: what would be left of them; for all: hosts that have no others */
    bool pack;   /* the fullest host that fits, instead of the emptiest */
};
enum { SC_WEIGHT_MAX = 100, SC_WEIGHT_ASKED_MAX = 10000 };
extern const struct sc_weights sc_weights_default;
/* Of the containers that name it in placement.workload_class. */
struct sc_class {
    char name[64];
    struct sc_weights weights;
};
enum { SC_CLASSES_MAX = 8 }; /* of a region */

/* One question. */
struct sc_query {
    struct sc_res need;
    const Harpoon__V1__PlacementSpec *spec; /* may be NULL */
    const struct sc_weights *weights;
    uint32_t stamp;               /* of this query, not 0; marks slots beforehand */
    bool affine;                  /* only where the affinity group is: slots have its mark */
    uint8_t needs;                /* bits of enum hp_resource: no open breaker of these */
    uint8_t mode;                 /* bit of the network mode (network.h); 0: any host will do */
    bool network;                 /* where functions are counts */
    bool spread;                  /* it has a spread group, whose members are marked in the topology */
    bool primary;                 /* it will count as one */
    int max_skew[SC_LEVELS];      /* of the spread group; 0: any */
    struct sc_topology *topology; /* of the slots; needed for `spread` and `primary`, and surveyed for each answer */
    const uint32_t *image_hosts;  /* slots that have the image, in rising order */
    size_t image_count;
    int32_t
        image_part; /* what counts for them: 0 to SC_UNIT; so that a first host with an image does not get all that want it, the share of hosts that have it */
    bool image;     /* where the image is counts */
    const struct sc_storage_item *storage; /* what its volumes claim */
    size_t storage_count;
    bool storage_counts;  /* some hosts have storage classes: so that they are kept free for what asks for them */
    const uint32_t *only; /* slots that are looked at, no others; NULL: all */
    size_t only_count;
};

/* Parts of a score, and their weighted sum: whole numbers, so that sums and bounds of sums are exact. */
enum { SC_UNIT = 1 << 20 }; /* a part's greatest value */
struct sc_score {
    int64_t total; /* 0 to SC_UNIT * sum of weights */
    int32_t cpu, memory, disk, balance, load, failures;
    int32_t spread, primaries, image, preferences, network, storage; /* 0 where they are not asked for */
};

/* What a host adds to its scores whatever is asked for. A score is base, less its weighted cost of the need, less the weighted distance of the skews. */
struct sc_host_parts {
    int64_t base;
    int32_t skew; /* cpu's free part - memory's */
};

void sc_slot_set_allocatable(struct sc_slot *s, const Harpoon__V1__Resources *allocatable,
                             const struct sc_overcommit *o);
/* Replaces one claim by another; either may be NULL for none. */
void sc_slot_claim(struct sc_slot *s, const struct sc_res *old, const struct sc_res *fresh);
/* The one feasibility function. When something is to be spread: after a survey. */
enum sc_filter sc_slot_check(const struct sc_slot *s, const struct sc_query *q);
/* Whether `more` can be claimed on top, on the host that has the container already. */
enum sc_filter sc_slot_check_room(const struct sc_slot *s, const struct sc_res *more);
/* Of a slot that fits. */
void sc_slot_score(const struct sc_slot *s, const struct sc_query *q, struct sc_score *ret);
void sc_slot_parts(const struct sc_slot *s, const struct sc_weights *w, struct sc_host_parts *ret);
/* `x` as a part of the limit, 0 to SC_UNIT; grows with both. */
int32_t sc_part(int64_t x, float inverse);
/* 0 to 100. */
double sc_score_percent(const struct sc_score *score, const struct sc_query *q);
/* Whether the host may take the container at all, be it full, busy, or of the wrong group: what a spread is measured over. */
bool sc_slot_eligible(const struct sc_slot *s, const struct sc_query *q);
/* Surveys the query's topology by looking at all; nothing to do when nothing is to be spread. */
void sc_place_survey(const struct sc_slot *slots, size_t count, const struct sc_query *q);
/* How well it is spread, 0 to SC_UNIT; falls with each excess. */
int32_t sc_spread_part(const struct sc_excess *x);
/* What a host with these labels has of the query's preferences, 0 to SC_UNIT. Keys in `blurred` (may be NULL) count as had. */
int32_t sc_preferences_part(const struct sc_query *q, const Harpoon__V1__Host *host, const struct hp_map *blurred);
bool sc_zone_fits(const Harpoon__V1__PlacementSpec *p, const char *zone);
/* Labels and label expressions. Keys in `blurred` (may be NULL) are not looked at: they may or may not fit. */
bool sc_labels_fit(const Harpoon__V1__PlacementSpec *p, const Harpoon__V1__Host *host, const struct hp_map *blurred);
bool sc_expression_fits(const Harpoon__V1__LabelExpression *x, const Harpoon__V1__Host *host);
/* The first taint that is not tolerated; NULL: none. `p` may be NULL. */
const Harpoon__V1__Taint *sc_taint_against(const Harpoon__V1__PlacementSpec *p, const Harpoon__V1__Host *host);
/* Index of the best feasible slot, or -1: by looking at all. Ties go to the earlier slot. place_index.h finds the same one faster. */
ptrdiff_t sc_place_best(const struct sc_slot *slots, size_t count, const struct sc_query *q);
/* How many slots each filter removes: rejected[SC_FILTER_COUNT]. */
void sc_place_count(const struct sc_slot *slots, size_t count, const struct sc_query *q, int *rejected);
/* "capacity_cpu" and so on, as in harpoon.v1.HostVerdict. */
const char *sc_filter_name(enum sc_filter f);
/* Why no host fits, in one sentence. */
void sc_place_reason(const int *rejected, size_t host_count, char *out, size_t size);
/* A heap answer (free with protobuf-c), hosts best first; at most `hosts_max` of them. `region` is for full names. */
int sc_place_explain(const struct sc_slot *slots, size_t count, const struct sc_query *q, const char *region,
                     size_t hosts_max, Harpoon__V1__ExplainResponse **ret) HP_MUST_CHECK;

#endif
