/* fleet.h — random hosts and requests, for tests and benchmarks of placement: one seed gives the same fleet and the same stream of requests. */
#ifndef TESTS_LIB_FLEET_H
#define TESTS_LIB_FLEET_H

#include "base/rng.h"
#include "core/place_index.h"

enum { FLEET_GROUPS = 256, FLEET_MEMBERS_MAX = 64, FLEET_IMAGES = 8, FLEET_CLASSES_MAX = 3 };

/* What a request may ask for beside its size and the host's facts. */
enum {
    FLEET_SPREAD = 1,
    FLEET_SKEW = 2,
    FLEET_PRIMARY = 4,
    FLEET_IMAGE = 8,
    FLEET_PREFER = 16,
    FLEET_NETWORK = 32, /* a mode, bandwidth, or both */
    FLEET_STORAGE = 64,
    FLEET_ALL = 127
};

struct fleet_options {
    size_t hosts;
    int zones, sizes;    /* so many of each, in use alike */
    int racks;           /* of each zone; 0: none */
    int stretch_percent; /* hosts of one size differ by up to so much */
    int labels;          /* values of the label "disk"; 0: no such label */
    int tainted_percent; /* of hosts; as many requests tolerate it */
    int sriov_percent; /* of hosts, that have one to eight network functions; as many have MACVLAN; with any, all have 100 MB/s to 1.2 GB/s */
    int storage_percent;              /* of hosts have each storage class; 0: none, and none are asked for */
    int storage_classes;              /* how many there are; 0: two */
    bool serial;                      /* each host has a label that no other has */
    const struct sc_weights *weights; /* NULL: the default */
    uint64_t seed;
};

struct fleet {
    struct fleet_options o;
    struct fleet_group *groups;
    uint32_t *images[FLEET_IMAGES]; /* hosts that have each, in rising order */
    size_t image_counts[FLEET_IMAGES];
    struct hp_rng rng;
    struct sc_slot *slots;
    struct sc_slot_info *infos;
    Harpoon__V1__Host *pbs; /* one for each host when there are serials, else one for each zone and label */
    struct fleet_text *texts;
    struct sc_storage **storages; /* of each host; NULL: none */
    struct sc_topology topology;
    struct sc_index index;
    struct sc_overcommit overcommit;
};

/* Members of a spread group: hosts, once for each container. */
struct fleet_group {
    uint32_t hosts[FLEET_MEMBERS_MAX], count;
};

/* One request, with what its spec points at. */
struct fleet_request {
    struct sc_query query;
    Harpoon__V1__PlacementSpec spec;
    Harpoon__V1__PlacementSpec__HostLabelsEntry label, *labels[1];
    Harpoon__V1__LabelExpression expression, *expressions[1];
    Harpoon__V1__Toleration toleration, *tolerations[1];
    char zone_text[8], label_text[8], liked_text[8], *zones[1], *values[1], *liked[1];
    int group; /* -1: none */
    Harpoon__V1__SpreadConstraint skews[SC_LEVELS], *skews_at[SC_LEVELS];
    Harpoon__V1__LabelPreference preference, *preferences[1];
    Harpoon__V1__LabelExpression liking;
    struct sc_storage_item storage[FLEET_CLASSES_MAX];
};

/* Exits when there is no memory. */
void fleet_init(struct fleet *f, const struct fleet_options *o);
void fleet_done(struct fleet *f);
/* A size between a sliver and a quarter of a common host; `constrained_percent` of the requests ask for a zone, a label, or both. */
void fleet_request(struct fleet *f, int constrained_percent, struct fleet_request *ret);
/* Adds some of `what`, a set of FLEET_…, at random, to a request. */
void fleet_ask(struct fleet *f, unsigned what, struct fleet_request *r);
/* Counts the members of its group, as a region does before each question. */
void fleet_mark(struct fleet *f, const struct fleet_request *r);
/* A container of the request is on the host now; or one that was, of that group and role, is there no more. */
void fleet_join(struct fleet *f, const struct fleet_request *r, size_t host);
void fleet_leave(struct fleet *f, int group, bool primary, size_t host);
/* New load of one host. */
void fleet_metrics(struct fleet *f, size_t host);
/* Slot and index alike. */
void fleet_claim(struct fleet *f, size_t host, const struct sc_res *old, const struct sc_res *fresh);
/* What the request asks for of storage classes counts on the host (1), or does not any more (-1). */
void fleet_claim_storage(struct fleet *f, size_t host, const struct sc_storage_item *items, size_t count, int sign);
/* The host has other classes, or others of the same, or none; nothing is claimed of them. */
void fleet_storage(struct fleet *f, size_t host);
/* After a change of state or labels. */
void fleet_facts(struct fleet *f, size_t host);

#endif
