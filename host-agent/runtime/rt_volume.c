/* rt_volume.c — volumes, and whether there is room for new ones. */
#include "rt_volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "rt_fs.h"
#include "wire/names.h"
#include "wire/storage.h"

/* "projects/P/…" → P; containers without a project share one that no project can be called. */
static int project_of(const char *container, char *buf, size_t size, struct hp_error *e)
{
    if (strncmp(container, "projects/", 9) != 0)
        return ha_fs_path(buf, size, e, "_");
    size_t n = strcspn(container + 9, "/");
    if (n == 0 || container[9] == '.' || n >= size)
        return hp_fail(e, HP_EINVAL, "container '%s' names no project", container);
    return ha_fs_path(buf, size, e, "%.*s", (int)n, container + 9);
}

int ha_volume_check(const struct ha_volume *v, struct hp_error *e)
{
    size_t n = strlen(v->name);
    if (n < 1 || n > 63 || v->name[0] == '-' || strspn(v->name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return hp_fail(e, HP_EINVAL, "volume '%.64s' must be 1 to 63 of a-z, 0-9 and '-'", v->name);
    if (*v->class && !hp_segment_valid(v->class))
        return hp_fail(e, HP_EINVAL, "volume '%.64s': '%.64s' is not a storage class's name", v->name, v->class);
    return 0;
}

static const struct ha_storage_class *class_of(const struct ha_store *s, const char *name)
{
    for (size_t i = 0; i < s->class_count; i++)
        if (!strcmp(s->classes[i].name, name))
            return &s->classes[i];
    return NULL;
}

/* BASE/volumes. */
static int top_of(const struct ha_store *s, const char *class, char *buf, size_t size, struct hp_error *e)
{
    const struct ha_storage_class *c = *class ? class_of(s, class) : NULL;
    if (*class && !c)
        return hp_fail(e, HP_ENOTFOUND, "the host has no storage class %s", class);
    return ha_fs_path(buf, size, e, "%s/volumes", c ? c->dir : s->state_dir);
}

/* Opens BASE/volumes/PROJECT, made when missing; never BASE itself, which may be where a disk is to be mounted. */
static int open_project(const char *top, const char *project, bool make, struct hp_error *e)
{
    if (make && mkdir(top, 0711) != 0 && errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "make %s", top);
    HA_CLOSE int dir = open(top, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return hp_fail_errno(e, errno == ENOENT ? HP_ENOTFOUND : HP_EIO, errno, "open %s", top);
    if (make && mkdirat(dir, project, 0711) != 0 && errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "make volumes of project %s", project);
    int fd = ha_fs_open_beneath(dir, project, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    return fd >= 0 ? fd
                   : hp_fail_errno(e, fd == -ENOENT ? HP_ENOTFOUND : HP_EIO, -fd, "volumes of project %s", project);
}

int ha_volume_ensure(const struct ha_store *s, const char *container, const struct ha_volume *v, uint32_t uid,
                     uint32_t gid, char *buf, size_t size, struct hp_error *e)
{
    char project[80], top[512];
    int rc = ha_volume_check(v, e);
    if (rc == 0)
        rc = project_of(container, project, sizeof project, e);
    if (rc == 0)
        rc = top_of(s, v->class, top, sizeof top, e);
    if (rc)
        return rc;
    HA_CLOSE int dir = open_project(top, project, true, e);
    if (dir < 0)
        return dir;
    bool made = mkdirat(dir, v->name, 0755) == 0;
    if (!made && errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "make volume %s", v->name);
    HA_CLOSE int fd = ha_fs_open_beneath(dir, v->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, -fd, "open volume %s", v->name);
    if (made && fchown(fd, uid, gid) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "give volume %s to user %u", v->name, uid);
    return ha_fs_path(buf, size, e, "%s/%s/%s", top, project, v->name);
}

int ha_volume_remove(const struct ha_store *s, const char *container, const struct ha_volume *v, struct hp_error *e)
{
    char project[80], top[512], path[640];
    int rc = ha_volume_check(v, e);
    if (rc == 0)
        rc = project_of(container, project, sizeof project, e);
    if (rc == 0 && *v->class && !class_of(s, v->class)) {
        hp_warn("volume stays where it is: its storage class is not in the configuration any more",
                HP_S("container", container), HP_S("volume", v->name), HP_S("storage_class", v->class));
        return 0;
    }
    if (rc == 0)
        rc = top_of(s, v->class, top, sizeof top, e);
    if (rc == 0)
        rc = ha_fs_path(path, sizeof path, e, "%s/%s/%s", top, project, v->name);
    if (rc == 0)
        rc = ha_fs_remove(path, e);
    if (rc == 0) {
        *strrchr(path, '/') = '\0';
        (void)rmdir(path);
    }
    return rc;
}

/* ---- Room ---- */

int64_t ha_class_bytes(const struct ha_storage_class *c)
{
    struct statvfs fs;
    if (statvfs(c->dir, &fs))
        return -1;
    int64_t bytes = (int64_t)((fs.f_blocks - (fs.f_bfree - fs.f_bavail)) * fs.f_frsize);
    bytes = bytes < HP_STORAGE_BYTES_MAX ? bytes : HP_STORAGE_BYTES_MAX;
    return c->size_bytes && c->size_bytes < bytes ? c->size_bytes : bytes;
}

/* It was there before: what it needs it has. */
static bool is_there(const struct ha_store *s, const char *project, const Harpoon__V1__VolumeMount *v)
{
    char top[512], path[640];
    struct hp_error ignored = {0};
    return top_of(s, v->storage_class, top, sizeof top, &ignored) == 0 &&
           ha_fs_path(path, sizeof path, &ignored, "%s/%s/%s", top, project, v->volume) == 0 && access(path, F_OK) == 0;
}

static int class_room(const struct ha_storage_class *c, int64_t wanted, struct hp_error *e)
{
    struct statvfs fs;
    if (statvfs(c->dir, &fs))
        return hp_fail_errno(e, HP_ENOTFOUND, errno, "storage class %s: %s", c->name, c->dir);
    int64_t left = (int64_t)(fs.f_bavail * fs.f_frsize);
    if (wanted <= left)
        return 0;
    return hp_fail(e, HP_ELIMIT, "storage class %s: %lld bytes of new volumes, but its file system has %lld left",
                   c->name, (long long)wanted, (long long)left);
}

int ha_volume_room(const struct ha_store *s, const char *container, const Harpoon__V1__ContainerSpec *spec,
                   struct hp_error *e)
{
    int64_t wanted[HP_STORAGE_CLASSES_MAX] = {0};
    char project[80];
    int rc = project_of(container, project, sizeof project, e);
    for (size_t i = 0; !rc && i < spec->n_volumes; i++) {
        const Harpoon__V1__VolumeMount *v = spec->volumes[i];
        const struct ha_volume name = {v->volume, v->storage_class};
        if (!*v->storage_class)
            continue;
        const struct ha_storage_class *c = class_of(s, v->storage_class);
        rc = ha_volume_check(&name, e);
        if (!rc && !c)
            rc = hp_fail(e, HP_ENOTFOUND, "the host has no storage class %s", v->storage_class);
        if (!rc && !is_there(s, project, v) &&
            __builtin_add_overflow(wanted[c - s->classes], v->size_bytes, &wanted[c - s->classes]))
            rc = hp_fail(e, HP_ELIMIT, "storage class %s: more than there can be", c->name);
    }
    for (size_t i = 0; !rc && i < s->class_count; i++)
        rc = wanted[i] ? class_room(&s->classes[i], wanted[i], e) : 0;
    return rc;
}
