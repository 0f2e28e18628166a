/* place_index.h — the host that a scan of all would choose, found without looking at all.
 *
 * Hosts that can take containers are sorted into kinds: same allocatable resources and storage classes (with overcommit), zone, labels, taints, and open breakers. What depends on
 * the kind only is decided once a request, not once a host: the filters of zone, labels and taints, and what the request costs there. Each kind keeps its hosts in a tree of bounds
 * (place_tree.h), which know of a subtree's hosts what they have left, too, of network functions and storage classes, and the network modes that any of them has. A
 * search takes the kinds by their bound, best first, goes down into the better child, and leaves out every subtree whose bound is not above what it has found; what it
 * reaches is checked and scored by the same functions as in a scan (sc_slot_check, sc_slot_score), in integers, so that the answer is that of the scan, ties included.
 *
 * What this rests on: a bound is never below a score. tests/unit/scheduler_place_index_test.c compares every choice on random fleets with the scan's.
 *
 * A fleet in which nearly every host is of its own kind (a label with the host's serial number, odd sizes) would make kinds useless. Beyond SC_KINDS_MAX the label
 * key with the most values stops telling kinds apart (it is then checked host by host), or sizes are rounded (bounds get looser, answers stay the same).
 *
 * What a container asks for beyond its size: the spread of a group, and of primaries, over zones is decided once a zone, preferences once for hosts with the same labels: exactly as good
 * as filters. Over racks and hosts the bound takes each for the best, and hosts are found out when they are looked at: cheap as long as few of the good hosts have some of the group. For primaries that does not hold, for in the end every rack but one has one more than the
 * least: they are searched rack by rack instead of by trees, the racks with fewest first, and each host there is bounded by itself; but by trees for a while, when many racks are
 * as good. Hosts that have the image are all bounded one by one, unless nearly all have it: then each host is taken to have it. What is left of the SC_SHARES storage classes that were
 * met first bounds subtrees; that of others is found out host by host. Minima come from cells (place_cells.h); from all hosts when the request asks for a
 * label that no longer tells kinds apart, or when the group has a member on as many hosts as may be used.
 *
 * Memory: 108 bytes a host, beside its slot and its domain (topology.h). One thread; no I/O, no clock. */
#ifndef SC_CORE_PLACE_INDEX_H
#define SC_CORE_PLACE_INDEX_H

#include "base/map.h"
#include "core/place_cells.h"
#include "core/place_tree.h"
#include "core/placement.h"

enum { SC_KINDS_MAX = 1024 };

/* Distinct values of one property of kinds. */
struct sc_facets {
    struct hp_map ids;    /* canonical text → id + 1 */
    void **items;         /* by id */
    unsigned char *fits;  /* by id; of the query under way */
    int64_t *plus;        /* by id; what its hosts have at most of the parts that are asked for, but for … */
    int64_t *primaries;   /* … this */
    uint32_t count, room; /* of items */
    void (*item_free)(void *item);
};

struct sc_kind {
    struct sc_peak peak; /* of the tree */
    uint32_t root;
    uint32_t size, zone, labels, storage; /* facets */
    uint8_t breakers;                     /* as in a slot */
};

struct sc_index {
    struct sc_weights weights;
    int network_in_base; /* how much of its weight leaves have in them: most requests leave functions to others, so that this part is the host's alone */
    struct sc_topology *topology; /* the owner's */
    struct sc_cells cells;
    struct sc_trees trees;
    struct sc_facets sizes, zones, labels;
    struct sc_facets storages;  /* struct sc_class_set */
    char shares[SC_SHARES][64]; /* storage classes, where struct sc_offer has what is left of them */
    int share_count;
    struct hp_map kind_ids; /* text of facets and breakers → id + 1 */
    struct sc_kind *kinds;
    struct sc_candidate *candidates; /* of the query under way; as many as kinds */
    uint32_t kind_count, kind_room;
    uint32_t kinds_used;          /* not empty */
    struct hp_map blurred;        /* label keys that do not tell kinds apart */
    int size_bits;                /* sizes are told apart by so many leading bits; 64: exactly */
    struct sc_index_work {        /* since the owner set it to 0; for tests and benchmarks */
        uint64_t hosts, subtrees; /* checked; bounded */
    } work;
};

/* Allocates nothing. The topology outlives the index. */
void sc_index_init(struct sc_index *x, const struct sc_weights *weights, struct sc_topology *topology);
void sc_index_done(struct sc_index *x);
/* Before slots below `count` are used. HP_ENOMEM. */
int sc_index_reserve(struct sc_index *x, size_t count) HP_MUST_CHECK;
/* Slot i is new, or its state, limits, zone (the topology knows it already), rack, labels, taints, network modes, storage classes, or breakers have changed. HP_ENOMEM: the index is no longer of use. */
int sc_index_facts(struct sc_index *x, const struct sc_slot *slots, size_t count, size_t i) HP_MUST_CHECK;
/* Its claims or its load have changed. Slots that cannot take containers may be named, too. */
void sc_index_touch(struct sc_index *x, const struct sc_slot *slots, size_t i);
/* The host has so many more primaries; the topology knows it already. */
void sc_index_primaries(struct sc_index *x, size_t i, int32_t delta);
/* As sc_place_best. */
ptrdiff_t sc_index_best(struct sc_index *x, const struct sc_slot *slots, size_t count, const struct sc_query *q);
/* Asserts that it knows slot i as it is; for tests and simulations. */
void sc_index_check(const struct sc_index *x, const struct sc_slot *slots, size_t i);

#endif
