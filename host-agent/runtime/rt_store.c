#include "rt_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "rt_fs.h"
#include "rt_proc.h"

#define RECORD_MAX (64 << 10)

bool ha_uid_valid(const char *uid)
{
    size_t n = strlen(uid);
    return n >= 1 && n <= HA_UID_MAX && uid[0] != '-' &&
           strspn(uid, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == n;
}

static int check_dir(const char *name, const char *dir, struct hp_error *e)
{
    if (dir[0] != '/' || strlen(dir) > 200 || strpbrk(dir, ",:\\ \t\n\""))
        return hp_fail(e, HP_EINVAL,
                       "%s '%s' must be an absolute path of at most 200 bytes without ',', ':', '\\', '\"' or spaces",
                       name, dir);
    return 0;
}

int ha_store_init(struct ha_store *s, const char *state_dir, const char *run_dir, struct hp_error *e)
{
    static const char *const dirs[][2] = {{"s", "containers"}, {"s", "volumes"}, {"r", "c"}};
    *s = (struct ha_store){0};
    int rc = check_dir("state_dir", state_dir, e);
    if (rc == 0)
        rc = check_dir("run_dir", run_dir, e);
    if (rc)
        return rc;
    strcpy(s->state_dir, state_dir);
    strcpy(s->run_dir, run_dir);
    for (size_t i = 0; rc == 0 && i < sizeof dirs / sizeof *dirs; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dirs[i][0][0] == 's' ? state_dir : run_dir, dirs[i][1]);
        rc = ha_fs_mkdirs(path, 0711, e);
    }
    HA_FREE char *text = NULL;
    size_t size;
    if (rc == 0)
        rc = ha_fs_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, &size, e);
    if (rc == 0)
        snprintf(s->boot_id, sizeof s->boot_id, "%.36s", text);
    return rc;
}

int ha_store_path(const struct ha_store *s, const char *uid, const char *file, char *buf, size_t size,
                  struct hp_error *e)
{
    return ha_fs_path(buf, size, e, "%s/containers/%s%s%s", s->state_dir, uid, file[0] ? "/" : "", file);
}

int ha_run_path(const struct ha_store *s, const char *uid, const char *file, char *buf, size_t size, struct hp_error *e)
{
    return ha_fs_path(buf, size, e, "%s/c/%s%s%s", s->run_dir, uid, file[0] ? "/" : "", file);
}

static int json_put(const char *path, json_t *root, bool durable, struct hp_error *e)
{
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    int rc = text ? ha_fs_write(path, text, strlen(text), 0600, durable, e) : hp_fail(e, HP_ENOMEM, "write %s", path);
    free(text);
    json_decref(root);
    return rc;
}

static json_t *json_get(const char *path)
{
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    return ha_fs_read(AT_FDCWD, path, RECORD_MAX, &text, &size, &ignored) ? NULL : json_loadb(text, size, 0, NULL);
}

static int64_t integer(const json_t *root, const char *key)
{
    return json_integer_value(json_object_get(root, key));
}

static void text(const json_t *root, const char *key, char *buf, size_t size)
{
    const char *t = json_string_value(json_object_get(root, key));
    snprintf(buf, size, "%s", t ? t : "");
}

int ha_meta_write(const struct ha_store *s, const struct ha_meta *m, bool durable, struct hp_error *e)
{
    char path[512];
    int rc = ha_store_path(s, m->uid, "meta", path, sizeof path, e);
    if (rc)
        return rc;
    json_t *volumes = json_array();
    for (size_t i = 0; i < m->volume_count; i++)
        (void)json_array_append_new(
            volumes, json_pack("{s:s,s:b}", "name", m->volumes[i].name, "keep", (int)m->volumes[i].keep));
    return json_put(path,
                    json_pack("{s:s,s:s,s:I,s:I,s:b,s:s,s:i,s:b,s:o}", "uid", m->uid, "container", m->container,
                              "generation", (json_int_t)m->generation, "spec_digest", (json_int_t)m->spec_digest,
                              "complete", (int)m->complete, "image_digest", m->image_digest, "stop_signal",
                              m->stop_signal, "bridge", (int)m->bridge, "volumes", volumes),
                    durable, e);
}

int ha_meta_read(const struct ha_store *s, const char *uid, struct ha_meta *ret, struct hp_error *e)
{
    char path[512];
    int rc = ha_store_path(s, uid, "meta", path, sizeof path, e);
    json_t *root = rc ? NULL : json_get(path);
    if (!root)
        return hp_fail(e, HP_ENOTFOUND, "container %s is not on this host", uid);
    struct ha_meta m = {.generation = integer(root, "generation"),
                        .spec_digest = (uint64_t)integer(root, "spec_digest"),
                        .stop_signal = (int)integer(root, "stop_signal")};
    snprintf(m.uid, sizeof m.uid, "%s", uid);
    text(root, "container", m.container, sizeof m.container);
    text(root, "image_digest", m.image_digest, sizeof m.image_digest);
    m.complete = json_is_true(json_object_get(root, "complete"));
    m.bridge = json_is_true(json_object_get(root, "bridge"));
    const json_t *volumes = json_object_get(root, "volumes");
    for (size_t i = 0; i < json_array_size(volumes) && m.volume_count < 16; i++) {
        const json_t *v = json_array_get(volumes, i);
        text(v, "name", m.volumes[m.volume_count].name, sizeof m.volumes[0].name);
        m.volumes[m.volume_count++].keep = json_is_true(json_object_get(v, "keep"));
    }
    json_decref(root);
    *ret = m;
    return 0;
}

int ha_run_write(const struct ha_store *s, const char *uid, const struct ha_run *r, struct hp_error *e)
{
    char path[512];
    int rc = ha_run_path(s, uid, "run", path, sizeof path, e);
    return rc ? rc
              : json_put(path,
                         json_pack("{s:s,s:I,s:I,s:I,s:I,s:I}", "boot_id", s->boot_id, "pid", (json_int_t)r->pid,
                                   "ticks", (json_int_t)r->ticks, "conmon_pid", (json_int_t)r->conmon_pid,
                                   "conmon_ticks", (json_int_t)r->conmon_ticks, "start_wall_ns",
                                   (json_int_t)r->start_wall_ns),
                         false, e);
}

void ha_run_read(const struct ha_store *s, const char *uid, struct ha_run *ret)
{
    char path[512], boot[40];
    *ret = (struct ha_run){0};
    json_t *root = ha_run_path(s, uid, "run", path, sizeof path, NULL) ? NULL : json_get(path);
    text(root, "boot_id", boot, sizeof boot);
    if (root && strcmp(boot, s->boot_id) == 0)
        *ret = (struct ha_run){integer(root, "pid"), integer(root, "ticks"), integer(root, "conmon_pid"),
                               integer(root, "conmon_ticks"), integer(root, "start_wall_ns")};
    json_decref(root);
}

int ha_exit_write(const struct ha_store *s, const char *uid, const struct ha_exit *x, struct hp_error *e)
{
    char path[512];
    int rc = ha_store_path(s, uid, "exit", path, sizeof path, e);
    return rc ? rc
              : json_put(path,
                         json_pack("{s:i,s:b,s:I,s:I}", "code", (int)x->code, "oom", (int)x->oom, "start_wall_ns",
                                   (json_int_t)x->start_wall_ns, "finish_wall_ns", (json_int_t)x->finish_wall_ns),
                         false, e);
}

bool ha_exit_read(const struct ha_store *s, const char *uid, struct ha_exit *ret)
{
    char path[512];
    json_t *root = ha_store_path(s, uid, "exit", path, sizeof path, NULL) ? NULL : json_get(path);
    if (!root)
        return false;
    *ret = (struct ha_exit){(int32_t)integer(root, "code"), json_is_true(json_object_get(root, "oom")),
                            integer(root, "start_wall_ns"), integer(root, "finish_wall_ns")};
    json_decref(root);
    return true;
}

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

int ha_volume_check(const char *name, struct hp_error *e)
{
    size_t n = strlen(name);
    if (n < 1 || n > 63 || name[0] == '-' || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return hp_fail(e, HP_EINVAL, "volume '%.64s' must be 1 to 63 of a-z, 0-9 and '-'", name);
    return 0;
}

/* Opens STATE/volumes/PROJECT, made when missing. */
static int open_project(const struct ha_store *s, const char *container, char *project, size_t size, bool make,
                        struct hp_error *e)
{
    char path[512];
    int rc = project_of(container, project, size, e);
    if (rc == 0)
        rc = ha_fs_path(path, sizeof path, e, "%s/volumes", s->state_dir);
    if (rc)
        return rc;
    HA_CLOSE int top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0)
        return hp_fail_errno(e, HP_EIO, errno, "open %s", path);
    if (make && mkdirat(top, project, 0711) != 0 && errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "make volumes of project %s", project);
    int fd = ha_fs_open_beneath(top, project, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    return fd >= 0 ? fd
                   : hp_fail_errno(e, fd == -ENOENT ? HP_ENOTFOUND : HP_EIO, -fd, "volumes of project %s", project);
}

int ha_volume_ensure(const struct ha_store *s, const char *container, const char *name, uint32_t uid, uint32_t gid,
                     char *buf, size_t size, struct hp_error *e)
{
    char project[80];
    int rc = ha_volume_check(name, e);
    if (rc)
        return rc;
    HA_CLOSE int dir = open_project(s, container, project, sizeof project, true, e);
    if (dir < 0)
        return dir;
    bool made = mkdirat(dir, name, 0755) == 0;
    if (!made && errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "make volume %s", name);
    HA_CLOSE int fd = ha_fs_open_beneath(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, -fd, "open volume %s", name);
    if (made && fchown(fd, uid, gid) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "give volume %s to user %u", name, uid);
    return ha_fs_path(buf, size, e, "%s/volumes/%s/%s", s->state_dir, project, name);
}

int ha_volume_remove(const struct ha_store *s, const char *container, const char *name, struct hp_error *e)
{
    char project[80], path[512];
    int rc = ha_volume_check(name, e);
    if (rc == 0)
        rc = project_of(container, project, sizeof project, e);
    if (rc == 0)
        rc = ha_fs_path(path, sizeof path, e, "%s/volumes/%s/%s", s->state_dir, project, name);
    if (rc == 0)
        rc = ha_fs_remove(path, e);
    if (rc == 0) {
        *strrchr(path, '/') = '\0';
        (void)rmdir(path);
    }
    return rc;
}

static void each(const char *dir, void (*fn)(void *user, const char *uid), void *user)
{
    DIR *d = opendir(dir);
    struct dirent *item;
    while (d && (item = readdir(d)))
        if (ha_uid_valid(item->d_name))
            fn(user, item->d_name);
    if (d)
        closedir(d);
}

void ha_store_each(const struct ha_store *s, void (*fn)(void *user, const char *uid), void *user)
{
    char path[512];
    snprintf(path, sizeof path, "%s/containers", s->state_dir);
    each(path, fn, user);
}

void ha_run_each(const struct ha_store *s, void (*fn)(void *user, const char *uid), void *user)
{
    char path[512];
    snprintf(path, sizeof path, "%s/c", s->run_dir);
    each(path, fn, user);
}
