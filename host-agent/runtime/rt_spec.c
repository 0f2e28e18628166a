#include "rt_spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rt_fs.h"
#include "wire/json.h"
#include "wire/mount_path.h"

#define ENV_MAX 2048
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const char *ha_short_name(const char *container)
{
    const char *slash = strrchr(container, '/');
    return slash ? slash + 1 : container;
}

static const char *image_text(const struct ha_image *image, const char *key)
{
    const char *s = json_string_value(json_object_get(image->process, key));
    return s ? s : "";
}

/* Entrypoint and command: the request's replace the image's; the image's command belongs to the image's entrypoint only. */
static int build_args(const struct ha_spec_input *in, json_t **ret, struct hp_error *e)
{
    const Harpoon__V1__ContainerSpec *s = in->spec;
    const json_t *entry = json_object_get(in->image->process, "Entrypoint"),
                 *cmd = json_object_get(in->image->process, "Cmd");
    json_t *args = json_array();
    for (size_t i = 0; i < s->n_command; i++)
        (void)json_array_append_new(args, json_string(s->command[i]));
    for (size_t i = 0; !s->n_command && i < json_array_size(entry); i++)
        (void)json_array_append(args, json_array_get(entry, i));
    for (size_t i = 0; i < s->n_args; i++)
        (void)json_array_append_new(args, json_string(s->args[i]));
    for (size_t i = 0; !s->n_args && !s->n_command && i < json_array_size(cmd); i++)
        (void)json_array_append(args, json_array_get(cmd, i));
    const char *first = json_string_value(json_array_get(args, 0));
    if (json_array_size(args) < s->n_command + s->n_args) {
        json_decref(args);
        return hp_fail(e, HP_EINVAL, "command or args are not valid UTF-8");
    }
    if (!first || !first[0]) {
        json_decref(args);
        return hp_fail(e, HP_EINVAL, "neither the request nor the image says what to run: set command");
    }
    *ret = args;
    return 0;
}

/* Replaces or appends NAME=VALUE. */
static int put_env(json_t *env, const char *name, size_t name_size, const char *value, bool replace, struct hp_error *e)
{
    size_t i, n = json_array_size(env);
    for (i = 0; i < n; i++) {
        const char *have = json_string_value(json_array_get(env, i));
        if (strncmp(have, name, name_size) == 0 && have[name_size] == '=')
            break;
    }
    if (i < n && !replace)
        return 0;
    if (i == n && n >= ENV_MAX)
        return hp_fail(e, HP_ELIMIT, "more than %d environment variables", ENV_MAX);
    json_t *item = json_sprintf("%.*s=%s", (int)name_size, name, value);
    if (!item)
        return hp_fail(e, HP_EINVAL, "environment variable %.*s is not valid UTF-8", (int)name_size, name);
    return (i < n ? json_array_set_new(env, i, item) : json_array_append_new(env, item))
               ? hp_fail(e, HP_ENOMEM, "environment")
               : 0;
}

static int build_env(const struct ha_spec_input *in, json_t **ret, struct hp_error *e)
{
    const json_t *image = json_object_get(in->image->process, "Env");
    json_t *env = json_array();
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(image); i++) {
        const char *item = json_string_value(json_array_get(image, i)), *equals = strchr(item, '=');
        if (equals && equals != item)
            rc = put_env(env, item, (size_t)(equals - item), equals + 1, true, e);
    }
    if (rc == 0)
        rc = put_env(env, "PATH", 4, DEFAULT_PATH, false, e);
    if (rc == 0)
        rc = put_env(env, "HOME", 4, in->user->home, false, e);
    if (rc == 0)
        rc = put_env(env, "HOSTNAME", 8, ha_short_name(in->container), true, e);
    for (size_t i = 0; rc == 0 && i < in->spec->n_env; i++) {
        const Harpoon__V1__EnvVar *v = in->spec->env[i];
        if (v->name[0] == '\0' || strchr(v->name, '='))
            rc = hp_fail(e, HP_EINVAL, "env[%zu].name '%.64s'", i, v->name);
        else
            rc = put_env(env, v->name, strlen(v->name), v->value, true, e);
    }
    if (rc)
        json_decref(env);
    else
        *ret = env;
    return rc;
}

static json_t *capabilities(const struct ha_user *user)
{
    static const char *const names[] = {"CAP_CHOWN",   "CAP_DAC_OVERRIDE",     "CAP_FOWNER",    "CAP_FSETID",
                                        "CAP_KILL",    "CAP_NET_BIND_SERVICE", "CAP_SETFCAP",   "CAP_SETGID",
                                        "CAP_SETPCAP", "CAP_SETUID",           "CAP_SYS_CHROOT"};
    json_t *bounding = json_array();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        (void)json_array_append_new(bounding, json_string(names[i]));
    /* Only root has them in effect; another user could get no more by a set-uid program, for there are no new privileges. */
    json_t *effective = user->uid == 0 ? json_deep_copy(bounding) : json_array(),
           *permitted = json_deep_copy(effective);
    return json_pack("{s:o,s:o,s:o,s:[],s:[]}", "bounding", bounding, "effective", effective, "permitted", permitted,
                     "inheritable", "ambient");
}

static int build_process(const struct ha_spec_input *in, json_t **ret, struct hp_error *e)
{
    json_t *args = NULL, *env = NULL, *groups = json_array();
    const char *cwd = in->spec->working_dir[0] ? in->spec->working_dir : image_text(in->image, "WorkingDir");
    int rc = build_args(in, &args, e);
    if (rc == 0)
        rc = build_env(in, &env, e);
    if (rc == 0 && cwd[0] && cwd[0] != '/')
        rc = hp_fail(e, HP_EINVAL, "working_dir '%.200s' is not an absolute path", cwd);
    if (rc) {
        json_decref(args);
        json_decref(env);
        json_decref(groups);
        return rc;
    }
    for (size_t i = 0; i < in->user->group_count; i++)
        (void)json_array_append_new(groups, json_integer(in->user->groups[i]));
    uint64_t hard = in->nofile_max < 1048576 ? in->nofile_max : 1048576, soft = hard < 65536 ? hard : 65536;
    *ret = json_pack("{s:b,s:{s:I,s:I,s:o},s:o,s:o,s:s,s:o,s:[{s:s,s:I,s:I}],s:b,s:i}", "terminal", 0, "user", "uid",
                     (json_int_t)in->user->uid, "gid", (json_int_t)in->user->gid, "additionalGids", groups, "args",
                     args, "env", env, "cwd", cwd[0] ? cwd : "/", "capabilities", capabilities(in->user), "rlimits",
                     "type", "RLIMIT_NOFILE", "hard", (json_int_t)hard, "soft", (json_int_t)soft, "noNewPrivileges", 1,
                     "oomScoreAdj", 0);
    return *ret ? 0 : hp_fail(e, HP_EINVAL, "working_dir is not valid UTF-8");
}

static void add_mount(json_t *mounts, const char *to, const char *type, const char *from, const char *options)
{
    json_t *list = json_array();
    char copy[256], *save = NULL;
    snprintf(copy, sizeof copy, "%s", options);
    for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save))
        (void)json_array_append_new(list, json_string(t));
    (void)json_array_append_new(
        mounts, json_pack("{s:s,s:s,s:s,s:o}", "destination", to, "type", type, "source", from, "options", list));
}

static int build_mounts(const struct ha_spec_input *in, json_t **ret, struct hp_error *e)
{
    static const char *const files[] = {"hostname", "hosts", "resolv.conf"};
    json_t *m = json_array();
    add_mount(m, "/proc", "proc", "proc", "nosuid,noexec,nodev");
    add_mount(m, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
    add_mount(m, "/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
    add_mount(m, "/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k");
    add_mount(m, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
    add_mount(m, "/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro");
    add_mount(m, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char from[1024], to[64];
        snprintf(from, sizeof from, "%s/%s", in->etc_dir, files[i]);
        snprintf(to, sizeof to, "/etc/%s", files[i]);
        add_mount(m, to, "bind", from, "bind,rprivate,nosuid,nodev");
    }
    for (size_t i = 0; i < in->spec->n_volumes; i++) {
        const Harpoon__V1__VolumeMount *v = in->spec->volumes[i];
        if (hp_mount_path_check(v->path, e)) {
            json_decref(m);
            return hp_wrap(e, "volumes[%zu].path", i);
        }
        add_mount(m, v->path, "bind", in->volume_dirs[i],
                  v->read_only ? "rbind,rprivate,nosuid,nodev,ro" : "rbind,rprivate,nosuid,nodev,rw");
    }
    *ret = m;
    return 0;
}

static json_t *throttle(const struct ha_cgroups *cg, int64_t rate)
{
    return rate > 0 ? json_pack("[{s:i,s:i,s:I}]", "major", (int)cg->dev_major, "minor", (int)cg->dev_minor, "rate",
                                (json_int_t)rate)
                    : json_array();
}

static json_t *resources(const struct ha_spec_input *in)
{
    struct ha_cg_limits l = ha_cg_limits_of(in->spec->resources);
    json_t *memory = json_object(),
           *cpu = json_pack("{s:I,s:i}", "shares", (json_int_t)l.cpu_shares, "period", HA_CG_PERIOD_US);
    if (l.memory_bytes > 0)
        (void)json_object_set_new(memory, "limit", json_integer(l.memory_bytes));
    if (l.memory_bytes > 0 && in->cgroups->swap) /* the same for both: no swap */
        (void)json_object_set_new(memory, "swap", json_integer(l.memory_bytes));
    if (l.cpu_quota_us > 0)
        (void)json_object_set_new(cpu, "quota", json_integer(l.cpu_quota_us));
    json_t *r = json_pack("{s:[{s:b,s:s}],s:o,s:o,s:{s:I}}", "devices", "allow", 0, "access", "rwm", "memory", memory,
                          "cpu", cpu, "pids", "limit", (json_int_t)l.pids_max);
    if (in->cgroups->dev_major && (l.io_read_bps || l.io_write_bps || l.io_read_iops || l.io_write_iops))
        (void)json_object_set_new(r, "blockIO",
                                  json_pack("{s:o,s:o,s:o,s:o}", "throttleReadBpsDevice",
                                            throttle(in->cgroups, l.io_read_bps), "throttleWriteBpsDevice",
                                            throttle(in->cgroups, l.io_write_bps), "throttleReadIOPSDevice",
                                            throttle(in->cgroups, l.io_read_iops), "throttleWriteIOPSDevice",
                                            throttle(in->cgroups, l.io_write_iops)));
    return r;
}

static json_t *namespaces(const struct ha_spec_input *in)
{
    json_t *list = json_pack("[{s:s},{s:s},{s:s},{s:s}]", "type", "pid", "type", "ipc", "type", "uts", "type", "mount");
    json_t *net = json_pack("{s:s}", "type", "network");
    if (in->netns)
        (void)json_object_set_new(net, "path", json_string(in->netns));
    (void)json_array_append_new(list, net);
    if (in->cgroup_namespace)
        (void)json_array_append_new(list, json_pack("{s:s}", "type", "cgroup"));
    return list;
}

static json_t *build_linux(const struct ha_spec_input *in)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", in->cgroups->parent, in->uid);
    json_t *l = json_pack("{s:s,s:o,s:o,s:[s,s,s,s,s,s,s,s,s,s,s],s:[s,s,s,s,s]}", "cgroupsPath", path, "namespaces",
                          namespaces(in), "resources", resources(in), "maskedPaths", "/proc/acpi", "/proc/asound",
                          "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                          "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
                          "readonlyPaths", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger");
    json_t *seccomp = ha_seccomp_profile();
    if (seccomp)
        (void)json_object_set_new(l, "seccomp", seccomp);
    if (in->net_sysctls)
        (void)json_object_set_new(l, "sysctl",
                                  json_pack("{s:s,s:s}", "net.ipv4.ping_group_range", "0 2147483647",
                                            "net.ipv4.ip_unprivileged_port_start", "0"));
    return l;
}

int ha_spec_build(const struct ha_spec_input *in, json_t **ret, struct hp_error *e)
{
    json_t *process = NULL, *mounts = NULL;
    hp_json_memory_watch(); /* below, nothing looks whether a member was really added: a container without its limits or its filter must not come of it */
    if (in->spec->n_volumes > HA_VOLUMES_MAX)
        return hp_fail(e, HP_ELIMIT, "%zu volumes, limit %d", in->spec->n_volumes, HA_VOLUMES_MAX);
    const struct ha_cg_limits limits = ha_cg_limits_of(in->spec->resources);
    int rc = ha_cg_check_io(in->cgroups, &limits, e);
    if (rc == 0)
        rc = build_process(in, &process, e);
    if (rc == 0)
        rc = build_mounts(in, &mounts, e);
    if (rc) {
        json_decref(process);
        return hp_json_memory_failed() ? hp_fail(e, HP_ENOMEM, "configuration of %s", in->uid) : rc;
    }
    *ret =
        json_pack("{s:s,s:o,s:{s:s,s:b},s:s,s:o,s:{s:s,s:s},s:o}", "ociVersion", "1.0.2", "process", process, "root",
                  "path", "rootfs", "readonly", 0, "hostname", ha_short_name(in->container), "mounts", mounts,
                  "annotations", "harpoon.uid", in->uid, "harpoon.container", in->container, "linux", build_linux(in));
    if (*ret && !hp_json_memory_failed())
        return 0;
    json_decref(*ret);
    return hp_fail(e, HP_ENOMEM, "configuration of %s", in->uid);
}
