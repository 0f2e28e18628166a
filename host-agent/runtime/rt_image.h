/* rt_image.h — images on this host: references, records, layers unpacked once and shared by all containers, and their collection. */
#ifndef HA_RT_IMAGE_H
#define HA_RT_IMAGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"
#include "wire/image_ref.h"

#define HA_DIGEST_SIZE HP_IMAGE_DIGEST_SIZE
#define HA_LAYERS_MAX 120           /* what overlayfs takes in one page of mount options */
#define HA_LAYER_NAME_SIZE 25       /* first 24 hex digits of the diff id + NUL: keeps those options short */
#define HA_IMAGE_JSON_MAX (4 << 20) /* index, manifest, configuration; the limit that registries have */

struct ha_blob {
    char digest[HA_DIGEST_SIZE];
    int64_t size;
};

/* One image: what its manifest and its configuration say. Owned by the caller; ha_image_free. */
struct ha_image {
    char digest[HA_DIGEST_SIZE]; /* of the manifest */
    struct ha_blob config;
    size_t layer_count;
    struct ha_blob layers[HA_LAYERS_MAX];         /* bottom first */
    char diff_ids[HA_LAYERS_MAX][HA_DIGEST_SIZE]; /* digests of the unpacked layers */
    json_t *
        process; /* the configuration's "config" object: Env, Entrypoint, Cmd, User, WorkingDir, StopSignal; never NULL */
};
void ha_image_free(struct ha_image *image);
void ha_image_freep(struct ha_image **image);

/* Parsers of hostile JSON; `text` has at most HA_IMAGE_JSON_MAX bytes. */
/* Chooses the manifest for this machine from an index, or finds the one that `tag` names ("" any: there must be just one). */
int ha_image_index_choose(const char *text, size_t size, const char *tag, struct ha_blob *ret,
                          struct hp_error *e) HP_MUST_CHECK;
/* True when it is an index (manifest list), false when it is a manifest. */
bool ha_image_is_index(const char *text, size_t size);
int ha_image_manifest_parse(const char *text, size_t size, struct ha_image *image, struct hp_error *e) HP_MUST_CHECK;
int ha_image_config_parse(const char *text, size_t size, struct ha_image *image, struct hp_error *e) HP_MUST_CHECK;

/* "sha256:…" of a buffer. */
void ha_digest_of(const void *data, size_t size, char ret[HA_DIGEST_SIZE]);

/* The store. All functions below may be called on any thread. */
struct ha_images {
    char dir[512];               /* the agent's state directory */
    const char *const *insecure; /* registries without TLS, NULL-terminated; may be NULL */
    const char *policy;          /* skopeo policy file; NULL: the system's, and any image when it has none */
    int64_t layer_bytes_max;     /* unpacked size of one layer */
    int cancel_fd;               /* readable: give up pulls */
    pthread_rwlock_t use;        /* read: an image is being used or made; write: collection */
    pthread_mutex_t lock;        /* guards unpacking */
    pthread_cond_t changed;
    struct ha_unpacking *unpacking; /* layers under way */
};

/* Makes the directories and throws away what a crash left in tmp/. */
int ha_images_init(struct ha_images *s, const char *state_dir, struct hp_error *e) HP_MUST_CHECK;
void ha_images_close(struct ha_images *s);

/* Finds an image that is here, without starting any process. HP_EAGAIN when it must be pulled first (e is clear then). The caller holds s->use for reading. */
int ha_images_resolve(struct ha_images *s, const struct hp_image_ref *ref, struct ha_image **ret,
                      struct hp_error *e) HP_MUST_CHECK;
int ha_images_load(struct ha_images *s, const char *digest, struct ha_image **ret, struct hp_error *e) HP_MUST_CHECK;

/* Brings it here: copies it from its registry when it is in one, verifies every digest, unpacks the layers that are not here. Slow; may be called for the same image by
 * several threads. */
int ha_images_pull(struct ha_images *s, const struct hp_image_ref *ref, int timeout_ms, char ret_digest[HA_DIGEST_SIZE],
                   struct hp_error *e) HP_MUST_CHECK;

/* Makes one layer available from an open blob. */
int ha_layer_ensure(struct ha_images *s, int blob_fd, const struct ha_blob *blob, const char *diff_id,
                    struct hp_error *e) HP_MUST_CHECK;
/* layers/NAME of a diff id. */
void ha_layer_name(const char *diff_id, char ret[HA_LAYER_NAME_SIZE]);
/* HP_ENOTFOUND: not here, or not whole. HP_ENOMEM: not known. */
int ha_layer_look(struct ha_images *s, const char *diff_id, struct hp_error *e) HP_MUST_CHECK;

struct ha_images_gc {
    bool (*in_use)(void *user, const char *digest); /* does a container on this host have it? */
    void *user;
    int64_t min_age_s; /* younger images stay, unless there are too many bytes */
    int64_t bytes_max; /* 0: no limit */
    int removed_images, removed_layers;
    int64_t bytes_left; /* of the layers that stay */
};
/* Removes images that no container has, then layers and blobs that no image has. HP_EAGAIN when images are being used this moment. */
int ha_images_collect(struct ha_images *s, struct ha_images_gc *gc, struct hp_error *e) HP_MUST_CHECK;

/* Digests of the images here, the last used first; at most `max`. Returns how many. */
size_t ha_images_list(struct ha_images *s, char (*ret)[HA_DIGEST_SIZE], size_t max);

#endif
