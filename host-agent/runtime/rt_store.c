#include "rt_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt_fs.h"
#include "rt_proc.h"
#include "wire/json.h"

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

/* What was built since the last hp_json_memory_watch. */
static int json_put(const char *path, json_t *root, bool durable, struct hp_error *e)
{
    char *text = root ? hp_json_dump(root, JSON_COMPACT) : NULL;
    int rc = text ? ha_fs_write(path, text, strlen(text), 0600, durable, e) : hp_fail(e, HP_ENOMEM, "write %s", path);
    free(text);
    json_decref(root);
    return rc;
}

/* HP_ENOTFOUND also for a record that a crash of the host has left empty or torn. Anything else is no statement about what the record says. */
static int json_get(const char *path, json_t **ret, struct hp_error *e)
{
    HA_FREE char *text = NULL;
    size_t size;
    int rc = ha_fs_read(AT_FDCWD, path, RECORD_MAX, &text, &size, e);
    if (rc == 0)
        rc = hp_json_load(text, size, 0, ret, e);
    return rc == HP_EINVAL ? hp_fail(e, HP_ENOTFOUND, "%s is not readable", path) : rc;
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
    hp_json_memory_watch();
    json_t *volumes = json_array();
    for (size_t i = 0; i < m->volume_count; i++)
        (void)json_array_append_new(volumes, json_pack("{s:s,s:s,s:b}", "name", m->volumes[i].name, "class",
                                                       m->volumes[i].class, "keep", (int)m->volumes[i].keep));
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
    json_t *root = NULL;
    if (rc == 0)
        rc = json_get(path, &root, e);
    if (rc)
        return rc == HP_ENOTFOUND ? hp_fail(e, rc, "container %s is not on this host", uid) : rc;
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
        text(v, "class", m.volumes[m.volume_count].class, sizeof m.volumes[0].class); /* older ones have none */
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
    hp_json_memory_watch();
    return rc ? rc
              : json_put(path,
                         json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "boot_id", s->boot_id, "pid",
                                   (json_int_t)r->pid, "ticks", (json_int_t)r->ticks, "conmon_pid",
                                   (json_int_t)r->conmon_pid, "conmon_ticks", (json_int_t)r->conmon_ticks,
                                   "start_wall_ns", (json_int_t)r->start_wall_ns, "runtime_dev",
                                   (json_int_t)r->runtime.dev, "runtime_ino", (json_int_t)r->runtime.ino),
                         false, e);
}

int ha_run_read(const struct ha_store *s, const char *uid, struct ha_run *ret, struct hp_error *e)
{
    char path[512], boot[40];
    *ret = (struct ha_run){0};
    json_t *root = NULL;
    int rc = ha_run_path(s, uid, "run", path, sizeof path, e);
    if (rc == 0)
        rc = json_get(path, &root, e);
    if (rc)
        return rc == HP_ENOTFOUND ? 0 : rc;
    text(root, "boot_id", boot, sizeof boot);
    if (strcmp(boot, s->boot_id) == 0)
        *ret = (struct ha_run){.pid = integer(root, "pid"),
                               .ticks = integer(root, "ticks"),
                               .conmon_pid = integer(root, "conmon_pid"),
                               .conmon_ticks = integer(root, "conmon_ticks"),
                               .start_wall_ns = integer(root, "start_wall_ns"),
                               .runtime = {integer(root, "runtime_dev"), integer(root, "runtime_ino")}};
    json_decref(root);
    return 0;
}

int ha_exit_write(const struct ha_store *s, const char *uid, const struct ha_exit *x, struct hp_error *e)
{
    char path[512];
    int rc = ha_store_path(s, uid, "exit", path, sizeof path, e);
    hp_json_memory_watch();
    return rc ? rc
              : json_put(path,
                         json_pack("{s:i,s:b,s:I,s:I}", "code", (int)x->code, "oom", (int)x->oom, "start_wall_ns",
                                   (json_int_t)x->start_wall_ns, "finish_wall_ns", (json_int_t)x->finish_wall_ns),
                         false, e);
}

int ha_exit_read(const struct ha_store *s, const char *uid, struct ha_exit *ret, struct hp_error *e)
{
    char path[512];
    json_t *root = NULL;
    int rc = ha_store_path(s, uid, "exit", path, sizeof path, e);
    if (rc == 0)
        rc = json_get(path, &root, e);
    if (rc)
        return rc;
    *ret = (struct ha_exit){(int32_t)integer(root, "code"), json_is_true(json_object_get(root, "oom")),
                            integer(root, "start_wall_ns"), integer(root, "finish_wall_ns")};
    json_decref(root);
    return 0;
}

static int each(const char *dir, void (*fn)(void *user, const char *uid), void *user)
{
    DIR *d = opendir(dir);
    struct dirent *item;
    if (!d)
        return errno == ENOENT ? 0 : HP_EIO;
    while ((errno = 0, item = readdir(d)))
        if (ha_uid_valid(item->d_name))
            fn(user, item->d_name);
    int rc = errno ? HP_EIO : 0;
    closedir(d);
    return rc;
}

int ha_store_each(const struct ha_store *s, void (*fn)(void *user, const char *uid), void *user)
{
    char path[512];
    snprintf(path, sizeof path, "%s/containers", s->state_dir);
    return each(path, fn, user);
}

int ha_run_each(const struct ha_store *s, void (*fn)(void *user, const char *uid), void *user)
{
    char path[512];
    snprintf(path, sizeof path, "%s/c", s->run_dir);
    return each(path, fn, user);
}
