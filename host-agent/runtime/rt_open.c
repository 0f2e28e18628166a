/* rt_open.c — the runtime's beginning and end, and what is found on the host. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "rt_fs.h"
#include "rt_functions.h"
#include "rt_private.h"
#include "rt_volume.h"

#define WORK_THREADS 8
#define PULL_THREADS 4
#define PROBE_THREADS 4
#define LOG_BYTES_DEFAULT (16 << 20)
#define IMAGE_AGE_DEFAULT_S 86400

static void find_facts(struct ha_rt *rt)
{
    struct ha_rt_facts *f = &rt->facts;
    struct utsname uts;
    struct statvfs fs;
    HA_FREE char *meminfo = NULL;
    size_t size;
    struct hp_error ignored = {0};
    snprintf(f->runtime, sizeof f->runtime, "%s", rt->oci.version);
    snprintf(f->cgroup_mode, sizeof f->cgroup_mode, "%s", ha_cg_mode_name(rt->cgroups.mode));
    snprintf(f->boot_id, sizeof f->boot_id, "%s", rt->store.boot_id);
    if (uname(&uts) == 0)
        snprintf(f->kernel, sizeof f->kernel, "%s", uts.release);
    f->cpu_millis = sysconf(_SC_NPROCESSORS_ONLN) * 1000;
    if (ha_fs_read(AT_FDCWD, "/proc/meminfo", 1 << 20, &meminfo, &size, &ignored) == 0)
        f->memory_bytes = ha_meminfo(meminfo, "MemTotal");
    if (statvfs(rt->store.state_dir, &fs) == 0)
        f->disk_bytes = (int64_t)(fs.f_blocks * fs.f_frsize);
    f->network_bps = ha_modes_speed();
    f->network_modes = rt->cni.modes.offered;
    f->functions = (int)ha_function_count(rt->cni.data_dir, rt->cni.modes.functions);
}

static void find_abilities(struct ha_rt *rt)
{
    struct rlimit nofile;
    rt->nofile_max = getrlimit(RLIMIT_NOFILE, &nofile) == 0 ? nofile.rlim_max : 1024;
    rt->cgroup_namespace = access("/proc/self/ns/cgroup", F_OK) == 0;
    rt->net_sysctls = access("/proc/sys/net/ipv4/ip_unprivileged_port_start", F_OK) == 0 &&
                      access("/proc/sys/net/ipv4/ping_group_range", F_OK) == 0;
}

static int copy_options(struct ha_rt *rt, const struct ha_rt_options *o, struct hp_error *e)
{
    int rc = ha_modes_init(&rt->cni.modes, o, e);
    if (rc == 0)
        rc = ha_fs_path(rt->cni.plugins, sizeof rt->cni.plugins, e, "%s", o->cni_dir ? o->cni_dir : "/usr/lib/cni");
    if (rc == 0 && o->image_policy)
        rc = ha_fs_path(rt->image_policy, sizeof rt->image_policy, e, "%s", o->image_policy);
    assert(o->class_count <= HP_STORAGE_CLASSES_MAX);
    rt->store.class_count = o->class_count;
    for (size_t i = 0; i < o->class_count; i++)
        rt->store.classes[i] = o->classes[i];
    rt->cni.masquerade = o->masquerade;
    rt->images.insecure = o->insecure_registries;
    rt->images.policy = o->image_policy ? rt->image_policy : NULL;
    rt->images.cancel_fd = rt->cancel_fd;
    rt->log_bytes_max = o->log_bytes_max ? o->log_bytes_max : LOG_BYTES_DEFAULT;
    rt->image_age_s = o->image_age_s ? o->image_age_s : IMAGE_AGE_DEFAULT_S;
    rt->image_bytes_max = o->image_bytes_max;
    return rc;
}

static int open_parts(struct ha_rt *rt, const struct ha_rt_options *o, struct hp_error *e)
{
    int rc = ha_store_init(&rt->store, o->state_dir, o->run_dir, e);
    if (rc == 0)
        rc = copy_options(rt, o, e);
    if (rc == 0)
        rc = ha_cg_init(&rt->cgroups, o->cgroup_parent ? o->cgroup_parent : "/harpoon", rt->store.state_dir, e);
    if (rc == 0) {
        rc = ha_images_init(&rt->images, rt->store.state_dir, e);
        rt->images_open = rc == 0;
    }
    if (rc == 0)
        rc = ha_cni_init(&rt->cni, rt->store.state_dir, rt->store.run_dir, e);
    if (rc == 0)
        rc = ha_oci_init(&rt->oci, o->runtime ? o->runtime : "auto", rt->store.run_dir, rt->cni.netns_dir, &rt->cgroups,
                         e);
    if (rc == 0)
        rc = ha_fs_path(rt->layers, sizeof rt->layers, e, "%s/layers", rt->store.state_dir);
    if (rc == 0)
        rc = ha_metrics_new(&rt->cgroups, rt->store.state_dir, &rt->metrics, e);
    if (rc)
        return rc;
    find_abilities(rt);
    find_facts(rt);
    return 0;
}

static int open_threads(struct ha_rt *rt, struct hp_error *e)
{
    int rc = hp_mailbox_new(rt->loop, &rt->mailbox, e);
    if (rc == 0)
        rc = ha_pool_new(WORK_THREADS, HA_QUEUE_MAX, &rt->work, e);
    if (rc == 0)
        rc = ha_pool_new(PULL_THREADS, HA_QUEUE_MAX, &rt->pull, e);
    if (rc == 0)
        rc = ha_pool_new(PROBE_THREADS, HA_QUEUE_MAX, &rt->probe, e);
    if (rc == 0)
        rc = ha_warm_new(&rt->cgroups, &rt->warm, e);
    return rc;
}

static void free_all(struct ha_rt *rt)
{
    ha_pool_free(rt->work);
    ha_pool_free(rt->pull);
    ha_pool_free(rt->probe);
    ha_warm_free(rt->warm);
    if (rt->mailbox)
        hp_mailbox_close(rt->mailbox);
    ha_metrics_free(rt->metrics);
    ha_oci_close(&rt->oci);
    ha_cni_close(&rt->cni);
    ha_cg_remove_parent(&rt->cgroups);
    if (rt->images_open)
        ha_images_close(&rt->images);
    for (struct hp_map_node *n = hp_map_first(&rt->entries); n; n = hp_map_next(n))
        ha_entry_free(n->value);
    hp_map_done(&rt->entries);
    hp_map_done(&rt->pulls);
    ha_fs_closep(&rt->cancel_fd);
    free(rt);
}

int ha_rt_new(uv_loop_t *loop, const struct ha_rt_options *options, struct ha_rt **ret, struct hp_error *e)
{
    struct ha_rt *rt = calloc(1, sizeof *rt);
    if (!rt)
        return hp_fail(e, HP_ENOMEM, "container runtime");
    rt->loop = loop;
    rt->base.submit = ha_rt_submit;
    rt->collect_after_ms = hp_now_ms() + 60000; /* the start is busy enough */
    rt->oci.base_ns = -1;
    rt->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    hp_map_init(&rt->entries, HA_ENTRIES_MAX, 0);
    hp_map_init(&rt->pulls, HA_ENTRIES_MAX, 0);
    int rc = rt->cancel_fd < 0 ? hp_fail_errno(e, HP_EIO, errno, "eventfd") : open_parts(rt, options, e);
    if (rc == 0)
        rc = open_threads(rt, e);
    if (rc) {
        free_all(rt);
        return hp_wrap(e, "container runtime");
    }
    *ret = rt;
    return 0;
}

struct ha_runtime *ha_rt_runtime(struct ha_rt *rt)
{
    return &rt->base;
}

void ha_rt_storage(const struct ha_rt *rt, int64_t ret[HP_STORAGE_CLASSES_MAX])
{
    for (size_t i = 0; i < rt->store.class_count; i++)
        ret[i] = ha_class_bytes(&rt->store.classes[i]);
}

int ha_rt_storage_check(const struct ha_rt *rt, const char *container, const Harpoon__V1__ContainerSpec *spec,
                        struct hp_error *e)
{
    return ha_volume_room(&rt->store, container, spec, e);
}

const struct ha_rt_facts *ha_rt_facts(const struct ha_rt *rt)
{
    return &rt->facts;
}

size_t ha_rt_images(struct ha_rt *rt, char (*ret)[72], size_t max)
{
    return ha_images_list(&rt->images, ret, max);
}

void ha_rt_check_closed(struct ha_rt *rt)
{
    if (!atomic_load(&rt->closing) || rt->under_way > 0 || rt->close_timer_open)
        return;
    /* From the timer, for the caller may be one of our own callbacks. */
    rt->close_timer_open = true;
    (void)uv_timer_start(&rt->close_timer, rt->close_fn, 0, 0);
}

static void close_last(uv_handle_t *h)
{
    struct ha_rt *rt = h->data;
    void (*closed_cb)(void *user) = rt->closed_cb;
    void *user = rt->closed_user;
    free_all(rt);
    closed_cb(user);
}

static void close_now(uv_timer_t *timer)
{
    uv_close((uv_handle_t *)timer, close_last);
}

void ha_rt_close(struct ha_rt *rt, void (*closed_cb)(void *user), void *user)
{
    rt->closed_cb = closed_cb;
    rt->closed_user = user;
    rt->close_fn = close_now;
    (void)uv_timer_init(rt->loop, &rt->close_timer);
    rt->close_timer.data = rt;
    atomic_store(&rt->closing, true);
    const uint64_t one = 1;
    if (write(rt->cancel_fd, &one, sizeof one) != (ssize_t)sizeof one)
        hp_warn("cannot cancel pulls; they end by themselves");
    ha_rt_cancel(rt);
    ha_rt_check_closed(rt);
}

/* --- what is on the host --- */

struct listing {
    struct ha_rt *rt;
    struct ha_rt_item *items;
    size_t count, room;
    bool failed;
};

static void list_uid(void *user, const char *uid)
{
    struct listing *l = user;
    struct ha_meta meta;
    struct hp_error ignored = {0};
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->items[i].uid, uid) == 0)
            return;
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        struct ha_rt_item *bigger = realloc(l->items, room * sizeof *bigger);
        if (!bigger) {
            l->failed = true;
            return;
        }
        l->items = bigger;
        l->room = room;
    }
    struct ha_rt_item *item = &l->items[l->count];
    *item = (struct ha_rt_item){0};
    snprintf(item->uid, sizeof item->uid, "%s", uid);
    int rc = ha_observe(l->rt, uid, &item->state, &ignored);
    if (rc == 0)
        rc = ha_meta_read(&l->rt->store, uid, &meta, &ignored);
    if (rc && rc != HP_ENOTFOUND)
        l->failed = true;
    if (rc == 0)
        snprintf(item->container, sizeof item->container, "%s", meta.container);
    if (item->state.exists)
        l->count++;
}

static void list_dir(struct listing *l, const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *d;
    if (!dir && errno != ENOENT)
        l->failed = true;
    while (dir && (d = readdir(dir)))
        if (ha_uid_valid(d->d_name))
            list_uid(l, d->d_name);
    if (dir)
        closedir(dir);
}

int ha_rt_list(struct ha_rt *rt, struct ha_rt_item **ret, size_t *ret_count, struct hp_error *e)
{
    struct listing l = {.rt = rt};
    if (ha_store_each(&rt->store, list_uid, &l) || ha_run_each(&rt->store, list_uid, &l))
        l.failed = true;
    list_dir(&l, rt->oci.root);
    list_dir(&l, rt->cni.netns_dir);
    if (l.failed) {
        free(l.items);
        return hp_fail(e, HP_EIO, "it cannot be told which containers are on the host (no memory or no descriptors)");
    }
    for (size_t i = 0; i < l.count; i++)
        if (l.items[i].state.running)
            ha_rt_watch(rt, l.items[i].uid, &l.items[i].state);
    *ret = l.items;
    *ret_count = l.count;
    return 0;
}
