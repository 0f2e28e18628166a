/* rt_layer.c — one layer of an image, unpacked once: blob verified, decompressed by a child process, unpacked into tmp/, digest of the content compared, written to disk, and renamed
 * into layers/. A crash at any point leaves only something in tmp/, which the next start removes. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "rt_fs.h"
#include "rt_image.h"
#include "rt_proc.h"
#include "rt_tar.h"

#define LAYER_ENTRIES_MAX (4 << 20)

/* A layer that some thread is unpacking. On that thread's stack. */
struct ha_unpacking {
    const char *diff_id;
    struct ha_unpacking *next;
};

void ha_layer_name(const char *diff_id, char ret[HA_LAYER_NAME_SIZE])
{
    snprintf(ret, HA_LAYER_NAME_SIZE, "%.24s", diff_id + 7);
}

static int layer_path(struct ha_images *s, const char *diff_id, const char *file, char *buf, size_t size,
                      struct hp_error *e)
{
    char name[HA_LAYER_NAME_SIZE];
    ha_layer_name(diff_id, name);
    return ha_fs_path(buf, size, e, "%s/layers/%s%s", s->dir, name, file);
}

int ha_layer_look(struct ha_images *s, const char *diff_id, struct hp_error *e)
{
    char path[768];
    HA_FREE char *text = NULL;
    size_t size;
    int rc = layer_path(s, diff_id, "/diff_id", path, sizeof path, e);
    if (rc == 0)
        rc = ha_fs_read(AT_FDCWD, path, 256, &text, &size, e);
    if (rc == HP_ENOMEM || (rc == 0 && strcmp(text, diff_id) == 0))
        return rc;
    return hp_fail(e, HP_ENOTFOUND, "layer %s is not here", diff_id);
}

static void hex_digest(EVP_MD_CTX *md, char ret[HA_DIGEST_SIZE])
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_DigestFinal_ex(md, sum, &n);
    memcpy(ret, "sha256:", 8);
    for (unsigned i = 0; i < n && 7 + 2 * i + 2 < HA_DIGEST_SIZE; i++)
        snprintf(ret + 7 + 2 * i, 3, "%02x", sum[i]);
}

static int blob_verify(int fd, const struct ha_blob *blob, struct hp_error *e)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return hp_fail(e, HP_ECORRUPT, "blob %s is not a file", blob->digest);
    if (st.st_size != blob->size)
        return hp_fail(e, HP_ECORRUPT, "blob %s has %lld bytes, the manifest says %lld", blob->digest,
                       (long long)st.st_size, (long long)blob->size);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    HA_FREE char *buf = malloc(1 << 18);
    if (!md || !buf || !EVP_DigestInit_ex(md, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(md);
        return hp_fail(e, HP_ENOMEM, "verify blob %s", blob->digest);
    }
    ssize_t n;
    while ((n = read(fd, buf, 1 << 18)) > 0)
        EVP_DigestUpdate(md, buf, (size_t)n);
    int err = n < 0 ? errno : 0;
    char found[HA_DIGEST_SIZE];
    hex_digest(md, found);
    EVP_MD_CTX_free(md);
    if (err)
        return hp_fail_errno(e, HP_EIO, err, "read blob %s", blob->digest);
    if (strcmp(found, blob->digest) != 0)
        return hp_fail(e, HP_ECORRUPT, "blob %s is corrupt: its digest is %s", blob->digest, found);
    return lseek(fd, 0, SEEK_SET) == 0 ? 0 : hp_fail_errno(e, HP_EIO, errno, "rewind blob %s", blob->digest);
}

/* The unpacked stream, hashed as it passes. */
struct stream {
    int fd;
    EVP_MD_CTX *md;
};

static int64_t stream_read(void *source, void *buf, size_t size)
{
    struct stream *st = source;
    for (;;) {
        ssize_t n = read(st->fd, buf, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        EVP_DigestUpdate(st->md, buf, (size_t)n);
        return n;
    }
}

/* The program that decompresses, by the first bytes; NULL: none needed. */
static const char *decompressor(int fd)
{
    unsigned char magic[4] = {0};
    if (pread(fd, magic, sizeof magic, 0) < 4)
        return NULL;
    if (magic[0] == 0x1f && magic[1] == 0x8b)
        return "/usr/bin/gzip";
    if (magic[0] == 0x28 && magic[1] == 0xb5 && magic[2] == 0x2f && magic[3] == 0xfd)
        return "/usr/bin/zstd";
    return NULL;
}

static int unpack_stream(struct ha_images *s, int dirfd, int fd, const char *diff_id, struct ha_tar_totals *totals,
                         struct hp_error *e)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(md);
        return hp_fail(e, HP_ENOMEM, "unpack layer");
    }
    struct stream st = {.fd = fd, .md = md};
    const struct ha_tar_limits limits = {.bytes_max = s->layer_bytes_max, .entries_max = LAYER_ENTRIES_MAX};
    int rc = ha_tar_unpack(dirfd, stream_read, &st, &limits, totals, e);
    char found[HA_DIGEST_SIZE];
    hex_digest(md, found);
    EVP_MD_CTX_free(md);
    if (rc == 0 && strcmp(found, diff_id) != 0)
        rc = hp_fail(e, HP_ECORRUPT, "layer's content has the digest %s, the image's configuration says %s", found,
                     diff_id);
    return rc;
}

static int unpack_blob(struct ha_images *s, int dirfd, int blob_fd, const char *diff_id, struct ha_tar_totals *totals,
                       struct hp_error *e)
{
    const char *program = decompressor(blob_fd);
    if (!program)
        return unpack_stream(s, dirfd, blob_fd, diff_id, totals, e);
    if (access(program, X_OK) != 0)
        return hp_fail(e, HP_EUNSUPPORTED, "layer needs %s, which this host does not have", program);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "pipe");
    HA_CLOSE int out = ends[0];
    HA_CLOSE int in = ends[1];
    (void)fcntl(in, F_SETPIPE_SZ, 1 << 20);
    const char *const argv[] = {program, "-dc", NULL};
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    spawn.in = blob_fd;
    spawn.out = in;
    pid_t pid;
    HA_CLOSE int pidfd = -1;
    int rc = ha_proc_spawn(&spawn, &pid, &pidfd, e);
    if (rc)
        return rc;
    ha_fs_closep(&in);
    rc = unpack_stream(s, dirfd, out, diff_id, totals, e);
    ha_fs_closep(&out); /* after a failure the program dies of the closed pipe */
    if (rc)
        (void)ha_proc_signal(pidfd, SIGKILL);
    int code = 0;
    struct hp_error ignored = {0};
    int waited = ha_proc_wait(pidfd, -1, -1, &code, rc ? &ignored : e);
    if (rc || waited)
        return rc ? rc : waited;
    return code ? hp_fail(e, HP_ECORRUPT, "layer does not decompress: %s exited with %d", program, code) : 0;
}

static int note(const char *dir, const char *file, const char *text, struct hp_error *e)
{
    char path[1024];
    int rc = ha_fs_path(path, sizeof path, e, "%s/%s", dir, file);
    return rc ? rc : ha_fs_write(path, text, strlen(text), 0644, false, e);
}

/* Renames a finished layer to its place, where only the remains of a removal may be. */
static int layer_place(const char *temp, const char *final, struct hp_error *e)
{
    char path[1024];
    HA_FREE char *other = NULL;
    size_t size;
    struct hp_error ignored = {0};
    int rc = ha_fs_path(path, sizeof path, e, "%s/diff_id", final);
    if (rc)
        return rc;
    if (ha_fs_read(AT_FDCWD, path, 256, &other, &size, &ignored) == 0)
        return hp_fail(e, HP_ECONFLICT, "layer %s has the same short name as %s", temp, other);
    rc = ha_fs_remove(final, e);
    if (rc == 0 && rename(temp, final) != 0)
        rc = hp_fail_errno(e, HP_EIO, errno, "rename %s", temp);
    return rc;
}

static int layer_make(struct ha_images *s, int blob_fd, const struct ha_blob *blob, const char *diff_id,
                      struct hp_error *e)
{
    char temp[768], final[768], diff[1024], bytes[32];
    int rc = blob_verify(blob_fd, blob, e);
    if (rc == 0)
        rc = ha_fs_path(temp, sizeof temp, e, "%s/tmp/layer-XXXXXX", s->dir);
    if (rc == 0)
        rc = layer_path(s, diff_id, "", final, sizeof final, e);
    if (rc)
        return rc;
    if (!mkdtemp(temp))
        return hp_fail_errno(e, HP_EIO, errno, "make directory %s", temp);
    struct ha_tar_totals totals = {0};
    HA_CLOSE int dirfd = -1;
    rc = ha_fs_path(diff, sizeof diff, e, "%s/diff", temp);
    if (rc == 0 && (mkdir(diff, 0755) != 0 || (dirfd = open(diff, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0))
        rc = hp_fail_errno(e, HP_EIO, errno, "make directory %s", diff);
    if (rc == 0)
        rc = unpack_blob(s, dirfd, blob_fd, diff_id, &totals, e);
    snprintf(bytes, sizeof bytes, "%lld", (long long)totals.bytes);
    if (rc == 0)
        rc = note(temp, "bytes", bytes, e);
    if (rc == 0)
        rc = note(temp, "diff_id", diff_id, e);
    if (rc == 0 && syncfs(dirfd) != 0)
        rc = hp_fail_errno(e, HP_EIO, errno, "write layer to disk");
    if (rc == 0)
        rc = layer_place(temp, final, e);
    if (rc) {
        struct hp_error ignored = {0};
        (void)!ha_fs_remove(temp, &ignored);
    }
    return rc;
}

static bool under_way(const struct ha_images *s, const char *diff_id)
{
    for (const struct ha_unpacking *u = s->unpacking; u; u = u->next)
        if (strcmp(u->diff_id, diff_id) == 0)
            return true;
    return false;
}

int ha_layer_ensure(struct ha_images *s, int blob_fd, const struct ha_blob *blob, const char *diff_id,
                    struct hp_error *e)
{
    pthread_mutex_lock(&s->lock);
    while (under_way(s, diff_id))
        pthread_cond_wait(&s->changed, &s->lock);
    int rc = ha_layer_look(s, diff_id, e);
    if (rc != HP_ENOTFOUND) {
        pthread_mutex_unlock(&s->lock);
        return rc;
    }
    struct ha_unpacking mine = {.diff_id = diff_id, .next = s->unpacking};
    s->unpacking = &mine;
    pthread_mutex_unlock(&s->lock);
    rc = layer_make(s, blob_fd, blob, diff_id, e);
    pthread_mutex_lock(&s->lock);
    struct ha_unpacking **at = &s->unpacking;
    while (*at != &mine)
        at = &(*at)->next;
    *at = mine.next;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return rc;
}
