/* images.h — which hosts have which images, and which image a reference means.
 *
 * Hosts tell digests of manifests; requests name references. A reference that holds the digest of a manifest needs no explanation; what others mean is learned from containers that
 * run: the reference of their spec and the digest that their host has found for it, the latest for each. An image is known while a host has it.
 *
 * A digest is kept once for the region: 2 bytes for each image at the host, and 4 to 5 for each host at the image. One thread; no I/O. */
#ifndef SC_CORE_IMAGES_H
#define SC_CORE_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"

enum {
    SC_HOST_IMAGES_MAX = 32,        /* of one host; those that it names after them do not count */
    SC_IMAGES_MAX = 65535,          /* of all; more are not remembered */
    SC_IMAGE_REFERENCES_MAX = 65535 /* learned; more are not remembered */
};

/* What one host has; embedded in its owner, zero: none. */
struct sc_image_set {
    uint16_t *ids; /* as told */
    uint16_t count;
};

struct sc_image {
    const char *digest;   /* the key in the map */
    uint32_t *hosts;      /* slots, in rising order */
    uint32_t count, room; /* of hosts */
    uint16_t id;
    struct sc_image_reference *references;
};

struct sc_images {
    struct hp_map digests, references; /* struct sc_image; struct sc_image_reference by its text */
    struct sc_image **items;           /* by id; NULL: free */
    uint32_t count, room;              /* ids in use and below; of items */
};

/* Allocates nothing. `seed`: of the maps. */
void sc_images_init(struct sc_images *x, uint64_t seed);
/* Sets need not be dropped before. */
void sc_images_done(struct sc_images *x);
/* The host has just these, the last used first. What is no digest is passed over. `ret_changed`: not what it had (in any order). HP_ENOMEM: it has some of them. */
int sc_images_set(struct sc_images *x, struct sc_image_set *set, uint32_t slot, char *const *digests, size_t count,
                  bool *ret_changed) HP_MUST_CHECK;
/* The host has this one, too. HP_ENOMEM. */
int sc_images_add(struct sc_images *x, struct sc_image_set *set, uint32_t slot, const char *digest,
                  bool *ret_changed) HP_MUST_CHECK;
/* The reference means this image. HP_ENOMEM. */
int sc_images_learn(struct sc_images *x, const char *reference, const char *digest) HP_MUST_CHECK;
/* The image that the reference means; NULL: no host is known to have it. */
const struct sc_image *sc_images_find(const struct sc_images *x, const char *reference);
const char *sc_images_digest(const struct sc_images *x, uint16_t id);
/* Whether the host has it. */
bool sc_image_on(const uint32_t *hosts, size_t count, uint32_t slot);
/* Asserts that hosts and images agree on this host; for tests and simulations. */
void sc_images_check(const struct sc_images *x, const struct sc_image_set *set, uint32_t slot);

#endif
