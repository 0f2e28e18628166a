/* rt_image.c — the image store below the agent's state directory:
 *   images/HEX/manifest, config    one directory for each manifest digest; its time is when it was last used
 *   refs/HEX                       → digest of the manifest; HEX is the digest of a registry reference's text, or of an index
 *   layers/HEX24/diff, diff_id     one directory for each unpacked layer
 *   blobs/sha256/HEX               what came from registries
 *   tmp/                           everything that is not finished; emptied at start */
#include "rt_image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt_fs.h"

int ha_images_init(struct ha_images *s, const char *state_dir, struct hp_error *e)
{
    static const char *const dirs[] = {"images", "refs", "layers", "blobs/sha256", "tmp"};
    int rc = ha_fs_path(s->dir, sizeof s->dir, e, "%s", state_dir);
    char path[768];
    if (rc == 0)
        rc = ha_fs_path(path, sizeof path, e, "%s/tmp", state_dir);
    if (rc == 0)
        rc = ha_fs_remove(path, e);
    for (size_t i = 0; rc == 0 && i < sizeof dirs / sizeof *dirs; i++) {
        rc = ha_fs_path(path, sizeof path, e, "%s/%s", state_dir, dirs[i]);
        if (rc == 0)
            rc = ha_fs_mkdirs(path, 0711, e);
    }
    if (rc)
        return rc;
    if (s->layer_bytes_max == 0)
        s->layer_bytes_max = 64LL << 30;
    pthread_rwlock_init(&s->use, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    return 0;
}

void ha_images_close(struct ha_images *s)
{
    pthread_rwlock_destroy(&s->use);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
}

static int read_in(const struct ha_images *s, const char *digest, const char *file, char **ret, size_t *ret_size,
                   struct hp_error *e)
{
    char path[768];
    int rc = ha_fs_path(path, sizeof path, e, "%s/images/%s/%s", s->dir, digest + 7, file);
    return rc ? rc : ha_fs_read(AT_FDCWD, path, HA_IMAGE_JSON_MAX, ret, ret_size, e);
}

static int load_record(struct ha_images *s, const char *digest, struct ha_image *image, struct hp_error *e)
{
    HA_FREE char *manifest = NULL;
    HA_FREE char *config = NULL;
    size_t manifest_size, config_size;
    int rc = read_in(s, digest, "manifest", &manifest, &manifest_size, e);
    if (rc == 0)
        rc = read_in(s, digest, "config", &config, &config_size, e);
    if (rc == 0)
        rc = ha_image_manifest_parse(manifest, manifest_size, image, e);
    if (rc == 0)
        rc = ha_image_config_parse(config, config_size, image, e);
    if (rc)
        return rc;
    strcpy(image->digest, digest);
    for (size_t i = 0; rc == 0 && i < image->layer_count; i++)
        rc = ha_layer_look(s, image->diff_ids[i], e);
    return rc;
}

int ha_images_load(struct ha_images *s, const char *digest, struct ha_image **ret, struct hp_error *e)
{
    if (!hp_image_digest_valid(digest))
        return hp_fail(e, HP_EINVAL, "image digest '%.80s'", digest);
    struct ha_image *image = calloc(1, sizeof *image);
    if (!image)
        return hp_fail(e, HP_ENOMEM, "image %s", digest);
    int rc = load_record(s, digest, image, e);
    if (rc) {
        ha_image_free(image);
        return rc;
    }
    char path[768];
    if (ha_fs_path(path, sizeof path, NULL, "%s/images/%s", s->dir, digest + 7) == 0)
        (void)utimensat(AT_FDCWD, path, NULL, 0); /* last used now */
    *ret = image;
    return 0;
}

/* The digest that refs/ has under a key; false: none. */
static bool remembered(const struct ha_images *s, const char *key, char ret[HA_DIGEST_SIZE])
{
    char path[768];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error e = {0};
    if (ha_fs_path(path, sizeof path, &e, "%s/refs/%s", s->dir, key + 7) ||
        ha_fs_read(AT_FDCWD, path, 256, &text, &size, &e) || !hp_image_digest_valid(text))
        return false;
    strcpy(ret, text);
    return true;
}

/* Digest of the manifest that an OCI layout has under the reference; reads at most two small files. */
static int layout_digest(const struct hp_image_ref *ref, char ret[HA_DIGEST_SIZE], struct hp_error *e)
{
    HA_CLOSE int dir = open(ref->location, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return hp_fail_errno(e, errno == ENOENT ? HP_ENOTFOUND : HP_EIO, errno, "open OCI layout %s", ref->location);
    struct ha_blob blob = {0};
    HA_FREE char *index = NULL;
    size_t size;
    int rc = 0;
    if (ref->digest[0])
        strcpy(blob.digest, ref->digest);
    else if ((rc = ha_fs_read(dir, "index.json", HA_IMAGE_JSON_MAX, &index, &size, e)) == 0)
        rc = ha_image_index_choose(index, size, ref->tag, &blob, e);
    if (rc)
        return rc;
    strcpy(ret, blob.digest);
    return 0;
}

static int access_record(const struct ha_images *s, const char *digest)
{
    char path[768];
    return ha_fs_path(path, sizeof path, NULL, "%s/images/%s", s->dir, digest + 7) ? -1 : access(path, F_OK);
}

int ha_images_resolve(struct ha_images *s, const struct hp_image_ref *ref, struct ha_image **ret, struct hp_error *e)
{
    char digest[HA_DIGEST_SIZE], key[HA_DIGEST_SIZE];
    if (ref->kind == HP_IMAGE_OCI) {
        int rc = layout_digest(ref, digest, e);
        if (rc)
            return rc;
        strcpy(key, digest);
    } else {
        if (strcmp(ref->tag, "latest") == 0)
            return HP_EAGAIN; /* the registry is asked each time what it is now */
        ha_digest_of(ref->text, strlen(ref->text), key);
    }
    if ((ref->kind == HP_IMAGE_DOCKER || access_record(s, digest) != 0) && !remembered(s, key, digest))
        return HP_EAGAIN;
    struct hp_error why = {0};
    int rc = ha_images_load(s, digest, ret, &why);
    if (rc == 0)
        return 0;
    return rc == HP_ENOMEM ? hp_fail(e, rc, "%s", why.message) : HP_EAGAIN; /* absent or damaged: pulled anew */
}

/* What a collection knows of one image. */
struct record {
    char digest[HA_DIGEST_SIZE];
    time_t used;
    bool keep;
    struct ha_image *image; /* NULL: unreadable */
};

struct records {
    struct record *items;
    size_t count, room;
};

static int by_use(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    return x->used < y->used ? -1 : x->used > y->used;
}

static DIR *open_sub(const struct ha_images *s, const char *sub)
{
    char path[768];
    return ha_fs_path(path, sizeof path, NULL, "%s/%s", s->dir, sub) ? NULL : opendir(path);
}

static int records_load(struct ha_images *s, struct records *all, struct hp_error *e)
{
    DIR *dir = open_sub(s, "images");
    if (!dir)
        return hp_fail_errno(e, HP_EIO, errno, "list images");
    struct dirent *d;
    int rc = 0;
    while (rc == 0 && (d = readdir(dir))) {
        struct record r = {0};
        struct stat st;
        snprintf(r.digest, sizeof r.digest, "sha256:%.64s", d->d_name);
        if (!hp_image_digest_valid(r.digest) || fstatat(dirfd(dir), d->d_name, &st, 0) != 0)
            continue;
        r.used = st.st_mtim.tv_sec;
        if (all->count == all->room) {
            size_t room = all->room ? all->room * 2 : 64;
            struct record *bigger = realloc(all->items, room * sizeof *bigger);
            if (!bigger) {
                rc = hp_fail(e, HP_ENOMEM, "list images");
                break;
            }
            all->items = bigger;
            all->room = room;
        }
        r.image = calloc(1, sizeof *r.image);
        struct hp_error ignored = {0};
        if (r.image && load_record(s, r.digest, r.image, &ignored)) {
            ha_image_free(r.image);
            r.image = NULL;
        }
        all->items[all->count++] = r;
    }
    closedir(dir);
    if (rc == 0 && all->count)
        qsort(all->items, all->count, sizeof *all->items, by_use);
    return rc;
}

static void records_free(struct records *all)
{
    for (size_t i = 0; i < all->count; i++)
        ha_image_free(all->items[i].image);
    free(all->items);
}

static int64_t layer_bytes(const struct ha_images *s, const char *name)
{
    char path[768];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error e = {0};
    if (ha_fs_path(path, sizeof path, &e, "%s/layers/%s/bytes", s->dir, name) ||
        ha_fs_read(AT_FDCWD, path, 64, &text, &size, &e))
        return 0;
    return strtoll(text, NULL, 10);
}

/* Does an image that stays have this layer directory, or this blob? */
static bool layer_wanted(const struct records *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++)
        for (size_t k = 0; all->items[i].keep && all->items[i].image && k < all->items[i].image->layer_count; k++)
            if (strncmp(all->items[i].image->diff_ids[k] + 7, name, HA_LAYER_NAME_SIZE - 1) == 0)
                return true;
    return false;
}

static bool blob_wanted(const struct records *all, const char *hex)
{
    for (size_t i = 0; i < all->count; i++)
        for (size_t k = 0; all->items[i].keep && all->items[i].image && k < all->items[i].image->layer_count; k++)
            if (strcmp(all->items[i].image->layers[k].digest + 7, hex) == 0)
                return true;
    return false;
}

static int64_t bytes_wanted(const struct ha_images *s, const struct records *all)
{
    int64_t sum = 0;
    DIR *dir = open_sub(s, "layers");
    struct dirent *d;
    while (dir && (d = readdir(dir)))
        if (d->d_name[0] != '.' && layer_wanted(all, d->d_name))
            sum += layer_bytes(s, d->d_name);
    if (dir)
        closedir(dir);
    return sum;
}

/* Takes it out of sight by a rename first, so that a crash never leaves half a layer where it is looked for. */
static int discard(const struct ha_images *s, const char *sub, const char *name, struct hp_error *e)
{
    char from[768], to[768];
    int rc = ha_fs_path(from, sizeof from, e, "%s/%s/%s", s->dir, sub, name);
    if (rc == 0)
        rc = ha_fs_path(to, sizeof to, e, "%s/tmp/gone-%ld-%.64s", s->dir, (long)gettid(), name);
    if (rc == 0 && rename(from, to) != 0)
        return errno == ENOENT ? 0 : hp_fail_errno(e, HP_EIO, errno, "rename %s", from);
    return rc ? rc : ha_fs_remove(to, e);
}

static int discard_unwanted(struct ha_images *s, const char *sub, const struct records *all,
                            bool (*wanted)(const struct records *, const char *), int *ret_count, struct hp_error *e)
{
    DIR *dir = open_sub(s, sub);
    if (!dir)
        return hp_fail_errno(e, HP_EIO, errno, "list %s", sub);
    struct dirent *d;
    int rc = 0;
    while (rc == 0 && (d = readdir(dir))) {
        if (d->d_name[0] == '.' || wanted(all, d->d_name))
            continue;
        rc = discard(s, sub, d->d_name, e);
        if (rc == 0)
            (*ret_count)++;
    }
    closedir(dir);
    return rc;
}

/* refs/HEX whose image has gone. */
static bool ref_wanted(const struct ha_images *s, const struct records *all, const char *name)
{
    char path[768];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error e = {0};
    if (ha_fs_path(path, sizeof path, &e, "%s/refs/%s", s->dir, name) ||
        ha_fs_read(AT_FDCWD, path, 256, &text, &size, &e))
        return false;
    for (size_t i = 0; i < all->count; i++)
        if (all->items[i].keep && strcmp(all->items[i].digest, text) == 0)
            return true;
    return false;
}

static void discard_refs(const struct ha_images *s, const struct records *all)
{
    DIR *dir = open_sub(s, "refs");
    struct dirent *d;
    while (dir && (d = readdir(dir)))
        if (d->d_name[0] != '.' && !ref_wanted(s, all, d->d_name))
            (void)unlinkat(dirfd(dir), d->d_name, 0);
    if (dir)
        closedir(dir);
}

static void choose(struct ha_images *s, struct records *all, struct ha_images_gc *gc)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now); /* to compare with the times of directories */
    for (size_t i = 0; i < all->count; i++) {
        struct record *r = &all->items[i];
        r->keep = gc->in_use(gc->user, r->digest) || (r->image && now.tv_sec - r->used < gc->min_age_s);
    }
    gc->bytes_left = bytes_wanted(s, all);
    for (size_t i = 0; gc->bytes_max > 0 && gc->bytes_left > gc->bytes_max && i < all->count; i++) {
        if (!all->items[i].keep || gc->in_use(gc->user, all->items[i].digest))
            continue;
        all->items[i].keep = false;
        gc->bytes_left = bytes_wanted(s, all);
    }
}

int ha_images_collect(struct ha_images *s, struct ha_images_gc *gc, struct hp_error *e)
{
    if (pthread_rwlock_trywrlock(&s->use) != 0)
        return hp_fail(e, HP_EAGAIN, "images are being used");
    struct records all = {0};
    int rc = records_load(s, &all, e), blobs = 0;
    if (rc == 0)
        choose(s, &all, gc);
    for (size_t i = 0; rc == 0 && i < all.count; i++) {
        if (all.items[i].keep)
            continue;
        rc = discard(s, "images", all.items[i].digest + 7, e);
        if (rc == 0)
            gc->removed_images++;
    }
    if (rc == 0)
        discard_refs(s, &all);
    if (rc == 0)
        rc = discard_unwanted(s, "layers", &all, layer_wanted, &gc->removed_layers, e);
    if (rc == 0)
        rc = discard_unwanted(s, "blobs/sha256", &all, blob_wanted, &blobs, e);
    records_free(&all);
    pthread_rwlock_unlock(&s->use);
    return rc;
}

struct listed {
    char digest[HA_DIGEST_SIZE];
    struct timespec used;
};

static int by_last_use(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec > y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec)
        return x->used.tv_nsec > y->used.tv_nsec ? -1 : 1;
    return strcmp(x->digest, y->digest);
}

size_t ha_images_list(struct ha_images *s, char (*ret)[HA_DIGEST_SIZE], size_t max)
{
    enum { LIST_MAX = 4096 };
    DIR *dir = open_sub(s, "images");
    struct listed *all = dir ? malloc(LIST_MAX * sizeof *all) : NULL;
    struct dirent *d;
    size_t n = 0;
    while (all && n < LIST_MAX && (d = readdir(dir))) {
        struct stat st;
        snprintf(all[n].digest, sizeof all[n].digest, "sha256:%.64s", d->d_name);
        if (!hp_image_digest_valid(all[n].digest) || fstatat(dirfd(dir), d->d_name, &st, 0) != 0)
            continue;
        all[n++].used = st.st_mtim;
    }
    if (dir)
        closedir(dir);
    if (n)
        qsort(all, n, sizeof *all, by_last_use);
    if (n > max)
        n = max;
    for (size_t i = 0; i < n; i++)
        memcpy(ret[i], all[i].digest, sizeof all[i].digest);
    free(all);
    return n;
}
