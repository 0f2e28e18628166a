#include "rt_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "rt_fs.h"

#define MOUNTINFO_MAX (16 << 20)

const char *ha_cg_mode_name(enum ha_cg_mode mode)
{
    return mode == HA_CG_V1 ? "v1" : mode == HA_CG_HYBRID ? "hybrid" : "v2";
}

static const char *const controller_names[HA_CG_CONTROLLERS] = {"cpu", "cpuacct", "memory", "pids", "blkio", "freezer"};

static bool has_option(const char *options, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = options; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0' || p[n] == '\n'))
            return true;
    return false;
}

/* One line of mountinfo: "id parent dev root POINT options … - TYPE source SUPEROPTIONS". */
static void mount_line(char *line, struct ha_cgroups *cg, char *v2_root, size_t v2_root_size)
{
    char *dash = strstr(line, " - "), *save = NULL, *point = NULL;
    if (!dash)
        return;
    *dash = '\0';
    int field = 0;
    for (char *t = strtok_r(line, " ", &save); t; t = strtok_r(NULL, " ", &save))
        if (++field == 5)
            point = t;
    char *type = strtok_r(dash + 3, " ", &save);
    (void)strtok_r(NULL, " ", &save);
    char *options = strtok_r(NULL, " ", &save);
    if (!point || !type || !options || strlen(point) >= sizeof cg->unified)
        return;
    if (strcmp(type, "cgroup2") == 0) {
        if (strcmp(point, "/sys/fs/cgroup") == 0)
            snprintf(v2_root, v2_root_size, "%s", point);
        else if (!cg->unified[0])
            strcpy(cg->unified, point);
    }
    for (int c = 0; strcmp(type, "cgroup") == 0 && c < HA_CG_CONTROLLERS; c++)
        if (!cg->mount[c][0] && has_option(options, controller_names[c]))
            strcpy(cg->mount[c], point);
}

int ha_cg_detect(const char *mountinfo, struct ha_cgroups *cg, struct hp_error *e)
{
    HA_FREE char *copy = strdup(mountinfo);
    char v2_root[256] = "";
    if (!copy)
        return hp_fail(e, HP_ENOMEM, "read mounts");
    char *save = NULL;
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        mount_line(line, cg, v2_root, sizeof v2_root);
    if (v2_root[0]) {
        cg->mode = HA_CG_V2;
        cg->unified[0] = '\0';
        for (int c = 0; c < HA_CG_CONTROLLERS; c++)
            strcpy(cg->mount[c], v2_root);
        return 0;
    }
    if (!cg->mount[HA_CG_MEMORY][0] || !cg->mount[HA_CG_CPU][0] || !cg->mount[HA_CG_PIDS][0])
        return hp_fail(e, HP_EUNSUPPORTED, "this host has no cgroup controllers for cpu, memory and pids");
    cg->mode = cg->unified[0] ? HA_CG_HYBRID : HA_CG_V1;
    return 0;
}

/* The device of a mount whose st_dev is anonymous (btrfs): the longest mount point above `dir` that has a block device as its source. */
static dev_t source_device(const char *mountinfo, const char *dir)
{
    dev_t found = 0;
    size_t best = 0;
    for (const char *line = mountinfo; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        char point[512], type[64], source[512];
        const char *dash = strstr(line, " - ");
        struct stat st;
        if (!dash || sscanf(line, "%*s %*s %*s %*s %511s", point) != 1 ||
            sscanf(dash, " - %63s %511s", type, source) != 2)
            continue;
        size_t n = strlen(point);
        if (n < best || strncmp(dir, point, n) != 0 || (n > 1 && dir[n] != '/' && dir[n] != '\0'))
            continue;
        if (stat(source, &st) == 0 && S_ISBLK(st.st_mode)) {
            best = n;
            found = st.st_rdev;
        }
    }
    return found;
}

/* Throttling works on whole disks: a partition's disk is asked of sysfs. */
static void find_device(struct ha_cgroups *cg, const char *mountinfo, const char *data_dir)
{
    struct stat st;
    if (stat(data_dir, &st) != 0)
        return;
    dev_t dev = major(st.st_dev) ? st.st_dev : source_device(mountinfo, data_dir);
    if (!dev)
        return;
    char path[128];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    cg->dev_major = major(dev);
    cg->dev_minor = minor(dev);
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/partition", cg->dev_major, cg->dev_minor);
    if (access(path, F_OK) != 0)
        return;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../dev", cg->dev_major, cg->dev_minor);
    if (ha_fs_read(AT_FDCWD, path, 64, &text, &size, &ignored) == 0)
        (void)!sscanf(text, "%u:%u", &cg->dev_major, &cg->dev_minor);
}

int ha_cg_init(struct ha_cgroups *cg, const char *parent, const char *data_dir, struct hp_error *e)
{
    HA_FREE char *mountinfo = NULL;
    size_t size;
    *cg = (struct ha_cgroups){0};
    int rc = ha_fs_path(cg->parent, sizeof cg->parent, e, "%s%s", parent[0] == '/' ? "" : "/", parent);
    if (rc == 0 && (strstr(cg->parent, "..") || cg->parent[1] == '\0'))
        rc = hp_fail(e, HP_EINVAL, "cgroup parent '%s' must be a path below the root, without '..'", parent);
    if (rc == 0)
        rc = ha_fs_read(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_MAX, &mountinfo, &size, e);
    if (rc == 0)
        rc = ha_cg_detect(mountinfo, cg, e);
    if (rc)
        return rc;
    char path[640];
    snprintf(path, sizeof path, "%s/memory.memsw.limit_in_bytes", cg->mount[HA_CG_MEMORY]);
    cg->swap = cg->mode == HA_CG_V2 ? access("/proc/swaps", F_OK) == 0 : access(path, F_OK) == 0;
    find_device(cg, mountinfo, data_dir);
    return 0;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

struct ha_cg_limits ha_cg_limits_of(const Harpoon__V1__Resources *r)
{
    static const Harpoon__V1__Resources none = HARPOON__V1__RESOURCES__INIT;
    if (!r)
        r = &none;
    int64_t shares = clamp(r->cpu_millis * 1024 / 1000, 2, 262144);
    return (struct ha_cg_limits){
        .cpu_quota_us = r->cpu_millis > 0 ? clamp(r->cpu_millis * (HA_CG_PERIOD_US / 1000), 1000, INT64_MAX) : -1,
        .cpu_shares = r->cpu_millis > 0 ? shares : 1024,
        .cpu_weight = r->cpu_millis > 0 ? 1 + ((shares - 2) * 9999) / 262142 : 100,
        .memory_bytes = r->memory_bytes > 0 ? r->memory_bytes : -1,
        .pids_max = r->pids_max > 0 ? r->pids_max : 4096,
        .io_read_bps = r->io_read_bps,
        .io_write_bps = r->io_write_bps,
        .io_read_iops = r->io_read_iops,
        .io_write_iops = r->io_write_iops,
    };
}

static int file_path(const struct ha_cgroups *cg, enum ha_cg_controller c, const char *uid, const char *file, char *buf,
                     size_t size)
{
    return cg->mount[c][0]
               ? ha_fs_path(buf, size, NULL, "%s%s/%s%s%s", cg->mount[c], cg->parent, uid, file[0] ? "/" : "", file)
               : HP_EUNSUPPORTED;
}

static char *file_text(const struct ha_cgroups *cg, enum ha_cg_controller c, const char *uid, const char *file)
{
    char path[1024];
    char *text;
    size_t size;
    struct hp_error e = {0};
    return file_path(cg, c, uid, file, path, sizeof path) || ha_fs_read(AT_FDCWD, path, 1 << 20, &text, &size, &e)
               ? NULL
               : text;
}

/* A file with one number; "max" is -1, as is what cannot be read. */
static int64_t file_number(const struct ha_cgroups *cg, enum ha_cg_controller c, const char *uid, const char *file)
{
    HA_FREE char *text = file_text(cg, c, uid, file);
    return text && text[0] >= '0' && text[0] <= '9' ? strtoll(text, NULL, 10) : -1;
}

/* The number after `key` at the start of a line; -1: none. */
static int64_t field(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
        if (strncmp(p, key, n) == 0 && p[n] == ' ')
            return strtoll(p + n, NULL, 10);
    return -1;
}

int ha_cg_check_io(const struct ha_cgroups *cg, const struct ha_cg_limits *want, struct hp_error *e)
{
    bool limited = want->io_read_bps > 0 || want->io_write_bps > 0 || want->io_read_iops > 0 || want->io_write_iops > 0;
    if (!limited || cg->dev_major)
        return 0;
    return hp_fail(e, HP_EUNSUPPORTED,
                   "io_read_bps, io_write_bps, io_read_iops and io_write_iops cannot be kept on this host: its data "
                   "directory is on no block device that can be throttled");
}

static void io_v1(const char *text, struct ha_cg_usage *u)
{
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
        char op[16];
        long long n;
        if (sscanf(p, "%*u:%*u %15s %lld", op, &n) != 2)
            continue;
        if (strcmp(op, "Read") == 0)
            u->io_read_bytes += n;
        else if (strcmp(op, "Write") == 0)
            u->io_write_bytes += n;
    }
}

static void io_v2(const char *text, struct ha_cg_usage *u)
{
    for (const char *p = text; (p = strstr(p, "bytes=")); p += 6) {
        int64_t n = strtoll(p + 6, NULL, 10);
        if (p[-1] == 'r')
            u->io_read_bytes += n;
        else if (p[-1] == 'w')
            u->io_write_bytes += n;
    }
}

int ha_cg_usage(const struct ha_cgroups *cg, const char *uid, struct ha_cg_usage *ret, struct hp_error *e)
{
    bool v2 = cg->mode == HA_CG_V2;
    char path[1024];
    if (file_path(cg, HA_CG_MEMORY, uid, "", path, sizeof path) || access(path, F_OK) != 0)
        return hp_fail(e, HP_ENOTFOUND, "cgroup of %s", uid);
    struct ha_cg_usage u = {0};
    HA_FREE char *stat = file_text(cg, HA_CG_MEMORY, uid, "memory.stat");
    HA_FREE char *oom = file_text(cg, HA_CG_MEMORY, uid, v2 ? "memory.events" : "memory.oom_control");
    HA_FREE char *io = file_text(cg, HA_CG_BLKIO, uid, v2 ? "io.stat" : "blkio.throttle.io_service_bytes_recursive");
    HA_FREE char *cpu = v2 ? file_text(cg, HA_CG_CPU, uid, "cpu.stat") : NULL;
    u.memory_bytes = file_number(cg, HA_CG_MEMORY, uid, v2 ? "memory.current" : "memory.usage_in_bytes");
    u.pids = file_number(cg, HA_CG_PIDS, uid, "pids.current");
    int64_t cache = stat ? field(stat, v2 ? "inactive_file" : "total_inactive_file") : 0;
    u.memory_working_set = cache > 0 && cache < u.memory_bytes ? u.memory_bytes - cache : u.memory_bytes;
    u.oom_kills = oom ? field(oom, "oom_kill") : -1;
    if (v2) {
        int64_t us = cpu ? field(cpu, "usage_usec") : -1;
        u.cpu_ns = us < 0 ? -1 : us * 1000;
        io_v2(io ? io : "", &u);
    } else {
        u.cpu_ns = file_number(cg, HA_CG_CPUACCT, uid, "cpuacct.usage");
        io_v1(io ? io : "", &u);
    }
    *ret = u;
    return 0;
}

int ha_cg_limits_read(const struct ha_cgroups *cg, const char *uid, struct ha_cg_limits *ret, struct hp_error *e)
{
    bool v2 = cg->mode == HA_CG_V2;
    char path[1024];
    if (file_path(cg, HA_CG_MEMORY, uid, "", path, sizeof path) || access(path, F_OK) != 0)
        return hp_fail(e, HP_ENOTFOUND, "cgroup of %s", uid);
    struct ha_cg_limits l = {0};
    l.memory_bytes = file_number(cg, HA_CG_MEMORY, uid, v2 ? "memory.max" : "memory.limit_in_bytes");
    l.pids_max = file_number(cg, HA_CG_PIDS, uid, "pids.max");
    if (v2) {
        l.cpu_quota_us = file_number(cg, HA_CG_CPU, uid, "cpu.max");
        l.cpu_weight = file_number(cg, HA_CG_CPU, uid, "cpu.weight");
    } else {
        l.cpu_quota_us = file_number(cg, HA_CG_CPU, uid, "cpu.cfs_quota_us");
        l.cpu_shares = file_number(cg, HA_CG_CPU, uid, "cpu.shares");
    }
    *ret = l;
    return 0;
}

static void kill_members(const char *dir)
{
    char path[1100];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    snprintf(path, sizeof path, "%s/cgroup.procs", dir);
    if (ha_fs_read(AT_FDCWD, path, 1 << 20, &text, &size, &ignored))
        return;
    char *save = NULL;
    for (char *t = strtok_r(text, "\n", &save); t; t = strtok_r(NULL, "\n", &save)) {
        long pid = strtol(t, NULL, 10);
        if (pid > 1)
            kill((pid_t)pid, SIGKILL);
    }
}

int ha_cg_remove(const struct ha_cgroups *cg, const char *uid, struct hp_error *e)
{
    static const char *const also[] = {"devices", "cpuset",  "net_cls", "net_prio", "perf_event",
                                       "hugetlb", "systemd", "misc",    "rdma"};
    char dirs[HA_CG_CONTROLLERS + 10][1024];
    size_t n = 0;
    for (int c = 0; c < (cg->mode == HA_CG_V2 ? 1 : HA_CG_CONTROLLERS); c++)
        if (file_path(cg, (enum ha_cg_controller)c, uid, "", dirs[n], sizeof dirs[n]) == 0)
            n++;
    for (size_t i = 0; cg->mode != HA_CG_V2 && i < sizeof also / sizeof *also; i++)
        snprintf(dirs[n++], sizeof dirs[0], "/sys/fs/cgroup/%s%s/%s", also[i], cg->parent, uid);
    if (cg->mode == HA_CG_HYBRID)
        snprintf(dirs[n++], sizeof dirs[0], "%s%s/%s", cg->unified, cg->parent, uid);
    for (int tries = 0; tries < 40; tries++) {
        int err = 0;
        for (size_t i = 0; i < n; i++) {
            if (rmdir(dirs[i]) == 0 || errno == ENOENT)
                continue;
            err = errno;
            if (tries == 0)
                kill_members(dirs[i]);
        }
        if (!err)
            return 0;
        if (err != EBUSY)
            return hp_fail_errno(e, HP_EIO, err, "remove the cgroup of %s", uid);
        const struct timespec pause = {0, 5000000}; /* killed processes leave their cgroup a moment after the signal */
        nanosleep(&pause, NULL);
    }
    return hp_fail(e, HP_ETIMEDOUT, "cgroup of %s has processes that do not end", uid);
}

void ha_cg_remove_parent(const struct ha_cgroups *cg)
{
    static const char *const also[] = {"devices", "cpuset",  "net_cls", "net_prio", "perf_event",
                                       "hugetlb", "systemd", "misc",    "rdma"};
    char path[1024];
    for (int c = 0; c < HA_CG_CONTROLLERS; c++) {
        snprintf(path, sizeof path, "%s%s", cg->mount[c], cg->parent);
        if (cg->mount[c][0])
            (void)rmdir(path);
    }
    for (size_t i = 0; cg->mode != HA_CG_V2 && i < sizeof also / sizeof *also; i++) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s%s", also[i], cg->parent);
        (void)rmdir(path);
    }
    snprintf(path, sizeof path, "%s%s", cg->unified, cg->parent);
    if (cg->unified[0])
        (void)rmdir(path);
}
