/* rt_launch.c — from directories on disk to a running process. The network plugins, the slowest part, run on a thread of their own while the root file system is mounted and the
 * OCI runtime creates the container; they meet before the start. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rt_fs.h"
#include "rt_private.h"
#include "rt_proc.h"
#include "rt_spec.h"
#include "rt_volume.h"
#include "wire/json.h"

/* One launch under way. */
struct launch {
    struct ha_rt *rt;
    const struct ha_meta *meta;
    const struct ha_image *image;
    const Harpoon__V1__ContainerSpec *spec;
    int timeout_ms;
    char bundle[512], upper[512], work[512], log[512], target[512], network[512], netns[640];
    struct ha_rootfs rootfs;
    int netns_fd;
    pid_t pid;
    /* the plugins' thread */
    bool attaching;
    pthread_t thread;
    char address[HA_ADDRESS_SIZE];
    int network_status;
    struct hp_error network_error;
};

static int make_paths(struct launch *l, struct hp_error *e)
{
    const struct ha_store *s = &l->rt->store;
    const char *uid = l->meta->uid;
    int rc = ha_run_path(s, uid, "", l->bundle, sizeof l->bundle, e);
    if (rc == 0)
        rc = ha_run_path(s, uid, "rootfs", l->target, sizeof l->target, e);
    if (rc == 0)
        rc = ha_store_path(s, uid, "upper", l->upper, sizeof l->upper, e);
    if (rc == 0)
        rc = ha_store_path(s, uid, "work", l->work, sizeof l->work, e);
    if (rc == 0)
        rc = ha_store_path(s, uid, "log", l->log, sizeof l->log, e);
    if (rc == 0)
        rc = ha_store_path(s, uid, "network", l->network, sizeof l->network, e);
    if (rc == 0)
        rc = ha_cni_netns_path(&l->rt->cni, uid, l->netns, sizeof l->netns, e);
    if (rc == 0)
        rc = ha_fs_remove(l->bundle, e);
    if (rc == 0)
        rc = ha_fs_mkdirs(l->target, 0711, e);
    if (rc == 0)
        rc = ha_fs_mkdirs(l->upper, 0755, e);
    if (rc == 0)
        rc = ha_fs_mkdirs(l->work, 0700, e);
    return rc;
}

static void *attach_thread(void *p)
{
    struct launch *l = p;
    l->network_status =
        ha_cni_attach(&l->rt->cni, l->meta->uid, l->spec, l->network, HA_PLUGINS_MS, l->address, &l->network_error);
    return NULL;
}

/* Makes sure that there is a namespace; when it needs a network, that is under way when this returns. */
static int begin_network(struct launch *l, struct hp_error *e)
{
    struct ha_cni *cni = &l->rt->cni;
    bool fresh = true;
    if (!l->meta->bridge)
        return access(l->network, F_OK) == 0 || access(l->netns, F_OK) == 0
                   ? ha_cni_detach(cni, l->meta->uid, l->network, HA_PLUGINS_MS, e)
                   : 0;
    bool same = ha_cni_same(cni, l->meta->uid, l->spec, l->network);
    int rc = ha_cni_netns_ensure(cni, l->meta->uid, &l->netns_fd, &fresh, e);
    if (rc)
        return rc;
    if (!fresh && same) {
        ha_cni_address(l->network, l->address);
        return 0;
    }
    int err = pthread_create(&l->thread, NULL, attach_thread, l);
    if (err)
        return hp_fail_errno(e, HP_ENOMEM, err, "start a thread for the network");
    l->attaching = true;
    return 0;
}

static int end_network(struct launch *l, struct hp_error *e)
{
    if (!l->attaching)
        return 0;
    pthread_join(l->thread, NULL);
    l->attaching = false;
    return l->network_status ? hp_fail(e, l->network_status, "network: %s", l->network_error.message) : 0;
}

static int put_file(const struct launch *l, const char *name, const char *text, struct hp_error *e)
{
    char path[640];
    int rc = ha_fs_path(path, sizeof path, e, "%s/%s", l->bundle, name);
    return rc ? rc : ha_fs_write(path, text, strlen(text), 0644, false, e);
}

/* The host's resolvers, without those on its loopback, which a container cannot reach. */
static void resolvers(char *buf, size_t size)
{
    static const char *const files[] = {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"};
    for (size_t i = 0; i < 2; i++) {
        char *text = NULL;
        size_t length, n = 0;
        bool found = false;
        struct hp_error ignored = {0};
        buf[0] = '\0';
        if (ha_fs_read(AT_FDCWD, files[i], 65536, &text, &length, &ignored))
            continue;
        char *save = NULL;
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            bool server = strncmp(line, "nameserver", 10) == 0;
            if (line[0] == '#' || line[0] == ';' || (server && (strstr(line, " 127.") || strstr(line, " ::1"))))
                continue;
            found = found || server;
            int more = snprintf(buf + n, size - n, "%s\n", line);
            if (more < 0 || (size_t)more >= size - n)
                break;
            n += (size_t)more;
        }
        free(text);
        if (found)
            return;
    }
}

static int etc_files(const struct launch *l, struct hp_error *e)
{
    char text[4096];
    const char *host = ha_short_name(l->meta->container);
    snprintf(text, sizeof text, "%s\n", host);
    int rc = put_file(l, "hostname", text, e);
    /* On the bridge the name gets the address, as soon as that is known. */
    static const char local[] = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    if (l->meta->bridge)
        snprintf(text, sizeof text, "%s", local);
    else
        snprintf(text, sizeof text, "%s127.0.1.1\t%s\n", local, host);
    if (rc == 0)
        rc = put_file(l, "hosts", text, e);
    resolvers(text, sizeof text);
    return rc ? rc : put_file(l, "resolv.conf", text, e);
}

/* Adds the container's own name; into the same file, for it is bound into the container already. */
static int add_host_line(const struct launch *l, struct hp_error *e)
{
    char path[640], line[400];
    if (!l->meta->bridge)
        return 0;
    const char *address = l->address[0] ? l->address : "127.0.1.1"; /* it brings its own */
    int rc = ha_fs_path(path, sizeof path, e, "%s/hosts", l->bundle);
    if (rc)
        return rc;
    int n = snprintf(line, sizeof line, "%.*s\t%s\n", (int)strcspn(address, "/"), address,
                     ha_short_name(l->meta->container));
    HA_CLOSE int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || write(fd, line, (size_t)n) != n)
        return hp_fail_errno(e, HP_EIO, errno, "write %s", path);
    return 0;
}

static int mount_rootfs(struct launch *l, struct hp_error *e)
{
    const struct ha_rootfs_input in = {.layers = l->rt->layers,
                                       .image = l->image,
                                       .upper = l->upper,
                                       .work = l->work,
                                       .target = l->target,
                                       .netns_fd = l->netns_fd,
                                       .netns_path = l->netns};
    return ha_oci_mount(&l->rt->oci, &in, &l->rootfs, e);
}

static int write_config(struct launch *l, struct hp_error *e)
{
    struct ha_user user;
    char volumes[HA_VOLUMES_MAX][512];
    const char *volume_dirs[HA_VOLUMES_MAX];
    const char *name = l->spec->user[0] ? l->spec->user : json_string_value(json_object_get(l->image->process, "User"));
    int rc = ha_user_resolve(l->rootfs.root_fd, name ? name : "", &user, e);
    if (rc == 0 && l->spec->n_volumes > HA_VOLUMES_MAX)
        rc = hp_fail(e, HP_ELIMIT, "%zu volumes, limit %d", l->spec->n_volumes, HA_VOLUMES_MAX);
    for (size_t i = 0; rc == 0 && i < l->spec->n_volumes; i++) {
        const struct ha_volume v = {l->spec->volumes[i]->volume, l->spec->volumes[i]->storage_class};
        rc = ha_volume_ensure(&l->rt->store, l->meta->container, &v, user.uid, user.gid, volumes[i], sizeof volumes[i],
                              e);
        volume_dirs[i] = volumes[i];
    }
    if (rc)
        return rc;
    const struct ha_spec_input in = {.uid = l->meta->uid,
                                     .container = l->meta->container,
                                     .spec = l->spec,
                                     .image = l->image,
                                     .user = &user,
                                     .cgroups = &l->rt->cgroups,
                                     .etc_dir = l->bundle,
                                     .netns = l->netns_fd >= 0 ? l->netns : NULL,
                                     .volume_dirs = volume_dirs,
                                     .nofile_max = l->rt->nofile_max,
                                     .cgroup_namespace = l->rt->cgroup_namespace,
                                     .net_sysctls = l->rt->net_sysctls};
    json_t *config;
    rc = ha_spec_build(&in, &config, e);
    if (rc)
        return rc;
    char *text = hp_json_dump(config, JSON_COMPACT);
    rc = text ? put_file(l, "config.json", text, e) : hp_fail(e, HP_ENOMEM, "config.json");
    free(text);
    json_decref(config);
    return rc;
}

/* Writes down who runs, before it may: a crash of ours after the start must not lose it. */
static int record_process(struct launch *l, struct hp_error *e)
{
    char path[640];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    struct ha_run run = {.pid = l->pid,
                         .ticks = ha_proc_start_ticks(l->pid),
                         .start_wall_ns = hp_wall_ns(),
                         .runtime = ha_proc_program(l->pid)};
    int rc = ha_fs_path(path, sizeof path, e, "%s/conmon.pid", l->bundle);
    if (rc == 0 && ha_fs_read(AT_FDCWD, path, 64, &text, &size, &ignored) == 0) {
        run.conmon_pid = strtol(text, NULL, 10);
        run.conmon_ticks = ha_proc_start_ticks((pid_t)run.conmon_pid);
    }
    if (rc == 0 && run.ticks <= 0)
        rc = hp_fail(e, HP_EIO, "the container's process ended before it was started");
    const struct ha_exit running = {.code = -1, .start_wall_ns = run.start_wall_ns};
    if (rc == 0)
        rc = ha_run_write(&l->rt->store, l->meta->uid, &run, e);
    if (rc == 0)
        rc = ha_exit_write(&l->rt->store, l->meta->uid, &running, e);
    return rc;
}

static int create(struct launch *l, struct hp_error *e)
{
    const struct ha_oci_create c = {.uid = l->meta->uid,
                                    .bundle = l->bundle,
                                    .log_path = l->log,
                                    .log_bytes_max = l->rt->log_bytes_max,
                                    .mount_ns = l->rootfs.ns_fd};
    return ha_oci_create(&l->rt->oci, &c, l->timeout_ms < HA_PLUGINS_MS ? l->timeout_ms : HA_PLUGINS_MS, &l->pid, e);
}

int ha_launch(struct ha_rt *rt, const struct ha_meta *meta, const struct ha_image *image,
              const Harpoon__V1__ContainerSpec *spec, int timeout_ms, struct hp_error *e)
{
    struct launch *l = calloc(1, sizeof *l);
    if (!l)
        return hp_fail(e, HP_ENOMEM, "launch %s", meta->uid);
    *l = (struct launch){.rt = rt,
                         .meta = meta,
                         .image = image,
                         .spec = spec,
                         .timeout_ms = timeout_ms,
                         .rootfs = {-1, -1},
                         .netns_fd = -1};
    ha_warm_begin(rt->warm);
    int rc = make_paths(l, e);
    if (rc == 0)
        rc = begin_network(l, e);
    if (rc == 0)
        rc = etc_files(l, e);
    if (rc == 0)
        rc = mount_rootfs(l, e);
    if (rc == 0)
        rc = write_config(l, e);
    if (rc == 0)
        rc = create(l, e);
    ha_warm_end(rt->warm);
    struct hp_error why = {0};
    int attached = end_network(l, &why);
    if (rc == 0 && attached)
        rc = hp_fail(e, attached, "%s", why.message);
    if (rc == 0)
        rc = add_host_line(l, e);
    if (rc == 0)
        rc = record_process(l, e);
    if (rc == 0)
        rc = ha_oci_start(&rt->oci, meta->uid, l->pid, HA_PLUGINS_MS, e);
    ha_rootfs_close(&l->rootfs);
    ha_fs_closep(&l->netns_fd);
    free(l);
    return rc;
}
