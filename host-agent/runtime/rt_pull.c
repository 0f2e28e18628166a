/* rt_pull.c — brings an image here. From a registry: skopeo reads the manifest, we choose and check it, skopeo copies the blobs that we do not have into blobs/; from there, or straight
 * from an OCI layout, every blob is verified and every missing layer unpacked; at last the record in images/ is renamed into place. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "rt_fs.h"
#include "rt_image.h"
#include "rt_proc.h"

#define SKOPEO "/usr/bin/skopeo"

/* One pull under way. */
struct pull {
    struct ha_images *s;
    const struct hp_image_ref *ref;
    int64_t end_ms; /* CLOCK_MONOTONIC */
    bool insecure;  /* the registry speaks no TLS */
    int blobs;      /* directory with sha256/HEX */
    char *manifest; /* as the source has it; owned */
    size_t manifest_size;
    char *config; /* owned */
    size_t config_size;
    char outer[HA_DIGEST_SIZE]; /* the index in which the manifest was found; "" none */
    struct ha_image image;
};

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int left_ms(const struct pull *p)
{
    int64_t left = p->end_ms - now_ms();
    return left < 1 ? 1 : left > 86400000 ? 86400000 : (int)left;
}

/* Environment of skopeo: what points it to proxies and credentials, nothing else of ours. */
static const char *const *skopeo_env(char (*room)[1024], const char **list)
{
    static const char *const names[] = {"HTTP_PROXY",   "HTTPS_PROXY", "NO_PROXY",           "http_proxy",
                                        "https_proxy",  "no_proxy",    "REGISTRY_AUTH_FILE", "SSL_CERT_FILE",
                                        "SSL_CERT_DIR", "HOME"};
    size_t n = 0;
    list[n++] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (!value || strlen(value) > 900)
            continue;
        snprintf(room[n], sizeof room[n], "%s=%s", names[i], value);
        list[n] = room[n];
        n++;
    }
    list[n] = NULL;
    return list;
}

/* argv[0] and the policy are put in front of `args`. */
static int skopeo(struct pull *p, const char *const *args, int out, struct hp_error *e)
{
    const char *argv[16] = {SKOPEO}, *env[16];
    char room[16][1024];
    size_t n = 1;
    if (p->s->policy) {
        argv[n++] = "--policy";
        argv[n++] = p->s->policy;
    } else if (access("/etc/containers/policy.json", R_OK) != 0) {
        argv[n++] = "--insecure-policy";
    }
    while (*args && n < 15)
        argv[n++] = *args++;
    argv[n] = NULL;
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    spawn.envp = skopeo_env(room, env);
    spawn.out = out;
    HA_FREE struct ha_output *output = calloc(1, sizeof *output);
    if (!output)
        return hp_fail(e, HP_ENOMEM, "run %s", SKOPEO);
    return ha_proc_run(&spawn, NULL, output, left_ms(p), p->s->cancel_fd, e);
}

static int raw_manifest(struct pull *p, const char *digest, struct hp_error *e)
{
    char source[HP_IMAGE_REF_MAX + 200];
    int rc = digest[0] ? ha_fs_path(source, sizeof source, e, "docker://%s@%s", p->ref->location, digest)
                       : ha_fs_path(source, sizeof source, e, "docker://%s:%s", p->ref->location, p->ref->tag);
    if (rc)
        return rc;
    HA_CLOSE int file = open(p->s->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        return hp_fail_errno(e, HP_EIO, errno, "temporary file");
    const char *args[] = {"inspect", "--raw", p->insecure ? "--tls-verify=false" : "--tls-verify=true", source, NULL};
    rc = skopeo(p, args, file, e);
    if (rc)
        return rc;
    if (lseek(file, 0, SEEK_SET) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "temporary file");
    free(p->manifest);
    p->manifest = NULL;
    rc = ha_fs_read_fd(file, "image manifest", HA_IMAGE_JSON_MAX, &p->manifest, &p->manifest_size, e);
    if (rc)
        return rc;
    ha_digest_of(p->manifest, p->manifest_size, p->image.digest);
    if (digest[0] && strcmp(digest, p->image.digest) != 0)
        return hp_fail(e, HP_ECORRUPT, "image %s: the registry sent a manifest with the digest %s", p->ref->text,
                       p->image.digest);
    return 0;
}

/* Opens a blob that has been, or shall be, verified by its digest. */
static int open_blob(const struct pull *p, const char *digest, struct hp_error *e)
{
    char path[100];
    snprintf(path, sizeof path, "sha256/%s", digest + 7);
    int fd = ha_fs_open_beneath(p->blobs, path, O_RDONLY, 0);
    return fd >= 0 ? fd : hp_fail_errno(e, fd == -ENOENT ? HP_ENOTFOUND : HP_EIO, -fd, "blob %s", digest);
}

static int read_blob(const struct pull *p, const struct ha_blob *blob, char **ret, size_t *ret_size, struct hp_error *e)
{
    char found[HA_DIGEST_SIZE];
    if (blob->size > HA_IMAGE_JSON_MAX)
        return hp_fail(e, HP_ELIMIT, "blob %s has %lld bytes, limit %d", blob->digest, (long long)blob->size,
                       HA_IMAGE_JSON_MAX);
    HA_CLOSE int fd = open_blob(p, blob->digest, e);
    if (fd < 0)
        return fd;
    char *text;
    size_t size;
    int rc = ha_fs_read_fd(fd, blob->digest, HA_IMAGE_JSON_MAX, &text, &size, e);
    if (rc)
        return rc;
    ha_digest_of(text, size, found);
    if (strcmp(found, blob->digest) != 0) {
        free(text);
        return hp_fail(e, HP_ECORRUPT, "blob %s is corrupt: its digest is %s", blob->digest, found);
    }
    free(*ret);
    *ret = text;
    *ret_size = size;
    return 0;
}

/* From the registry into blobs/. */
static int fetch(struct pull *p, struct hp_error *e)
{
    char source[HP_IMAGE_REF_MAX + 200], temp[600], target[700], shared[600];
    int rc = raw_manifest(p, p->ref->digest, e);
    if (rc == 0 && ha_image_is_index(p->manifest, p->manifest_size)) {
        struct ha_blob chosen;
        strcpy(p->outer, p->image.digest);
        rc = ha_image_index_choose(p->manifest, p->manifest_size, "", &chosen, e);
        if (rc == 0)
            rc = raw_manifest(p, chosen.digest, e);
    }
    if (rc == 0)
        rc = ha_image_manifest_parse(p->manifest, p->manifest_size, &p->image, e);
    if (rc == 0)
        rc = ha_fs_path(temp, sizeof temp, e, "%s/tmp/pull-XXXXXX", p->s->dir);
    if (rc)
        return rc;
    if (!mkdtemp(temp))
        return hp_fail_errno(e, HP_EIO, errno, "make directory %s", temp);
    rc = ha_fs_path(source, sizeof source, e, "docker://%s@%s", p->ref->location, p->image.digest);
    if (rc == 0)
        rc = ha_fs_path(target, sizeof target, e, "oci:%s:pulled", temp);
    if (rc == 0)
        rc = ha_fs_path(shared, sizeof shared, e, "%s/blobs", p->s->dir);
    const char *args[] = {"copy",
                          "--quiet",
                          p->insecure ? "--src-tls-verify=false" : "--src-tls-verify=true",
                          "--dest-shared-blob-dir",
                          shared,
                          source,
                          target,
                          NULL};
    if (rc == 0)
        rc = skopeo(p, args, -1, e);
    struct hp_error ignored = {0};
    (void)!ha_fs_remove(temp, &ignored);
    if (rc == 0)
        p->blobs = open(shared, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && p->blobs < 0)
        rc = hp_fail_errno(e, HP_EIO, errno, "open %s", shared);
    return rc;
}

/* Manifest from an OCI layout, following one nested index. */
static int from_layout(struct pull *p, struct hp_error *e)
{
    HA_CLOSE int dir = open(p->ref->location, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return hp_fail_errno(e, errno == ENOENT ? HP_ENOTFOUND : HP_EIO, errno, "open OCI layout %s", p->ref->location);
    p->blobs = openat(dir, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->blobs < 0)
        return hp_fail_errno(e, HP_ECORRUPT, errno, "OCI layout %s: blobs", p->ref->location);
    struct ha_blob blob = {0};
    HA_FREE char *index = NULL;
    size_t size;
    int rc = 0;
    if (p->ref->digest[0])
        strcpy(blob.digest, p->ref->digest);
    else if ((rc = ha_fs_read(dir, "index.json", HA_IMAGE_JSON_MAX, &index, &size, e)) == 0)
        rc = ha_image_index_choose(index, size, p->ref->tag, &blob, e);
    if (rc == 0)
        rc = read_blob(p, &blob, &p->manifest, &p->manifest_size, e);
    if (rc == 0 && ha_image_is_index(p->manifest, p->manifest_size)) {
        strcpy(p->outer, blob.digest);
        rc = ha_image_index_choose(p->manifest, p->manifest_size, "", &blob, e);
        if (rc == 0)
            rc = read_blob(p, &blob, &p->manifest, &p->manifest_size, e);
    }
    if (rc)
        return rc;
    strcpy(p->image.digest, blob.digest);
    return ha_image_manifest_parse(p->manifest, p->manifest_size, &p->image, e);
}

static int layers(struct pull *p, struct hp_error *e)
{
    for (size_t i = 0; i < p->image.layer_count; i++) {
        const struct ha_blob *blob = &p->image.layers[i];
        int rc = ha_layer_look(p->s, p->image.diff_ids[i], e);
        if (rc == 0)
            continue;
        if (rc != HP_ENOTFOUND)
            return rc;
        if (now_ms() > p->end_ms)
            return hp_fail(e, HP_ETIMEDOUT, "unpack image: %zu of %zu layers done", i, p->image.layer_count);
        HA_CLOSE int fd = open_blob(p, blob->digest, e);
        rc = fd < 0 ? fd : ha_layer_ensure(p->s, fd, blob, p->image.diff_ids[i], e);
        if (rc == 0)
            continue;
        if (rc == HP_ECORRUPT && p->ref->kind == HP_IMAGE_DOCKER) { /* our own copy is bad: fetch it anew next time */
            char path[100];
            snprintf(path, sizeof path, "sha256/%s", blob->digest + 7);
            (void)unlinkat(p->blobs, path, 0);
        }
        return hp_wrap(e, "layer %zu of %zu", i + 1, p->image.layer_count);
    }
    return 0;
}

static int put(const char *dir, const char *file, const char *data, size_t size, struct hp_error *e)
{
    char path[768];
    int rc = ha_fs_path(path, sizeof path, e, "%s/%s", dir, file);
    return rc ? rc : ha_fs_write(path, data, size, 0644, true, e);
}

static int record(struct pull *p, struct hp_error *e)
{
    char temp[600], final[700];
    int rc = ha_fs_path(temp, sizeof temp, e, "%s/tmp/image-XXXXXX", p->s->dir);
    if (rc == 0)
        rc = ha_fs_path(final, sizeof final, e, "%s/images/%s", p->s->dir, p->image.digest + 7);
    if (rc)
        return rc;
    if (!mkdtemp(temp))
        return hp_fail_errno(e, HP_EIO, errno, "make directory %s", temp);
    rc = put(temp, "manifest", p->manifest, p->manifest_size, e);
    if (rc == 0)
        rc = put(temp, "config", p->config, p->config_size, e);
    struct hp_error ignored = {0};
    /* The same image may have been recorded meanwhile, or be there damaged; the content is the same by its digest. */
    if (rc == 0 && rename(temp, final) != 0 && (errno == EEXIST || errno == ENOTEMPTY)) {
        rc = put(final, "manifest", p->manifest, p->manifest_size, e);
        if (rc == 0)
            rc = put(final, "config", p->config, p->config_size, e);
    } else if (rc == 0 && access(final, F_OK) != 0) {
        rc = hp_fail_errno(e, HP_EIO, errno, "rename %s", temp);
    }
    (void)!ha_fs_remove(temp, &ignored);
    return rc;
}

/* Remembers where `name` (an index's digest, or the digest of a reference's text) leads. */
static int alias(struct pull *p, const char *name, struct hp_error *e)
{
    char path[768];
    int rc = ha_fs_path(path, sizeof path, e, "%s/refs/%s", p->s->dir, name + 7);
    return rc ? rc : ha_fs_write(path, p->image.digest, strlen(p->image.digest), 0644, true, e);
}

static int aliases(struct pull *p, struct hp_error *e)
{
    int rc = p->outer[0] ? alias(p, p->outer, e) : 0;
    if (rc || p->ref->kind == HP_IMAGE_OCI)
        return rc;
    char key[HA_DIGEST_SIZE];
    ha_digest_of(p->ref->text, strlen(p->ref->text), key);
    return alias(p, key, e);
}

static bool is_insecure(const struct ha_images *s, const char *registry)
{
    for (const char *const *r = s->insecure; r && *r; r++)
        if (strcmp(*r, registry) == 0)
            return true;
    return false;
}

int ha_images_pull(struct ha_images *s, const struct hp_image_ref *ref, int timeout_ms, char ret_digest[HA_DIGEST_SIZE],
                   struct hp_error *e)
{
    struct pull *p = calloc(1, sizeof *p);
    if (!p)
        return hp_fail(e, HP_ENOMEM, "pull image");
    p->s = s;
    p->ref = ref;
    p->blobs = -1;
    p->end_ms = now_ms() + timeout_ms;
    p->insecure = is_insecure(s, ref->registry);
    pthread_rwlock_rdlock(&s->use);
    int rc = ref->kind == HP_IMAGE_DOCKER ? fetch(p, e) : from_layout(p, e);
    if (rc == 0)
        rc = read_blob(p, &p->image.config, &p->config, &p->config_size, e);
    if (rc == 0)
        rc = ha_image_config_parse(p->config, p->config_size, &p->image, e);
    if (rc == 0)
        rc = layers(p, e);
    if (rc == 0)
        rc = record(p, e);
    if (rc == 0)
        rc = aliases(p, e);
    pthread_rwlock_unlock(&s->use);
    if (rc == 0)
        strcpy(ret_digest, p->image.digest);
    else
        hp_wrap(e, "image %s", ref->text);
    ha_fs_closep(&p->blobs);
    json_decref(p->image.process);
    free(p->manifest);
    free(p->config);
    free(p);
    return rc;
}
