/* storage.h — storage classes: what hosts have of each, what volumes claim of it, and how that counts in placement.
 *
 * A host has at most HP_STORAGE_CLASSES_MAX classes; their names and limits follow from its make and are kept once for all hosts of it. A host's own are the sums that are claimed: 8 bytes a
 * class. What a container claims follows from its volumes alone, and never changes: it counts where the container counts, or has a place held. A class that a host no longer has is
 * not counted there; when it comes back, the host is counted anew. */
#ifndef SC_CORE_STORAGE_H
#define SC_CORE_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "wire/storage.h"

struct sc_slot;
struct sc_query;

enum {
    SC_STORAGE_NEEDS_MAX = 16,      /* of a container: as many as it may have volumes */
    SC_STORAGE_OVERCOMMITS_MAX = 32 /* of a region */
};

/* So many bytes of a class. */
struct sc_storage_item {
    const char *name;
    int64_t bytes; /* 0 to HP_STORAGE_BYTES_MAX: a double has it exactly */
};

/* Different classes: what a host may give, or a container claims. Nobody changes it; it is kept as long as somebody counts on it. */
struct sc_storage {
    uint32_t refs, count;
    struct sc_storage_item items[]; /* and their names behind them */
};

/* What may be claimed of a class, in percent of what hosts have; 100 for classes that are not named. */
struct sc_storage_overcommit {
    char name[64];
    int percent;
};

/* With copies of the names. NULL: no memory. */
struct sc_storage *sc_storage_new(const struct sc_storage_item *items, size_t count) HP_MUST_CHECK;
struct sc_storage *sc_storage_ref(struct sc_storage *x); /* NULL is legal */
void sc_storage_unref(struct sc_storage *x);             /* the same */

/* What the volumes of a spec (may be NULL) claim, a class once; names are borrowed. Returns how many. */
size_t sc_storage_needs(const Harpoon__V1__ContainerSpec *spec, struct sc_storage_item ret[SC_STORAGE_NEEDS_MAX]);
/* Of all classes. */
int64_t sc_storage_total(const Harpoon__V1__ContainerSpec *spec);
/* Whether both have the same volumes in classes, of the same size. */
bool sc_storage_same(const Harpoon__V1__ContainerSpec *a, const Harpoon__V1__ContainerSpec *b);

/* What hosts with these facts (may be NULL) may give. *ret is NULL when they have no class. HP_ENOMEM. */
int sc_storage_limits(const Harpoon__V1__HostFacts *facts, const struct sc_storage_overcommit *overcommits,
                      size_t count, struct sc_storage **ret) HP_MUST_CHECK;

/* Gives a slot its limits (borrowed; NULL: none), of which nothing is claimed. HP_ENOMEM: as before. */
int sc_slot_set_storage(struct sc_slot *s, const struct sc_storage *limits) HP_MUST_CHECK;
void sc_slot_storage_done(struct sc_slot *s);
/* Claims (sign 1) or gives back (-1). */
void sc_slot_claim_storage(struct sc_slot *s, const struct sc_storage_item *items, size_t count, int sign);
/* Whether more is claimed than may be, of any class: the host has less than before. */
bool sc_slot_storage_overdrawn(const struct sc_slot *s);
/* What is asked for first and not there; NULL: all is. `ret_limit` and `ret_free` (both may be NULL) are of that class, -1 when the host does not have it. */
const struct sc_storage_item *sc_slot_storage_lacks(const struct sc_slot *s, const struct sc_query *q,
                                                    int64_t *ret_limit, int64_t *ret_free);
/* Whether hosts with these limits (NULL: none) could have it, were nothing claimed there. */
bool sc_storage_could(const struct sc_storage *limits, const struct sc_query *q);

/* The part of a score, 0 to SC_UNIT: for a request with classes, what would be left of the one that would be fullest; and, to keep hosts free for those that need them, the most for hosts
 * that have no class which is not asked for. With `claimed` NULL the most that a host with these limits, or lower ones, can have. */
int32_t sc_storage_part(const struct sc_storage *limits, const int64_t *claimed, const struct sc_query *q);

#endif
