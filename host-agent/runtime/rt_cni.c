/* rt_cni.c — the record is written twice: the configuration before the first plugin runs, so that a crash in between can be undone, and the result after the last one. */
#include "rt_cni.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "rt_cni_lock.h"
#include "rt_fs.h"
#include "rt_functions.h"
#include "rt_ports.h"
#include "rt_proc.h"
#include "rt_qdisc.h"
#include "wire/json.h"

#define NSFS_MAGIC_NUMBER 0x6e736673
#define RECORD_MAX (256 << 10)
#define RULE_MS 20000
#define SRIOV HARPOON__V1__NETWORK_MODE__NETWORK_MODE_SRIOV

static bool is_mount_point(const char *path)
{
    char parent[640];
    snprintf(parent, sizeof parent, "%s/..", path);
    struct statx a, b;
    if (statx(AT_FDCWD, path, 0, STATX_MNT_ID, &a) != 0 || statx(AT_FDCWD, parent, 0, STATX_MNT_ID, &b) != 0)
        return false;
    return (a.stx_mask & STATX_MNT_ID) && a.stx_mnt_id != b.stx_mnt_id;
}

/* The rule that gives containers the host's address on other networks. `verb`: -C, -A or -D. */
static int masquerade(const struct ha_cni *cni, const char *verb, struct hp_error *e)
{
    static const char *const programs[] = {"/usr/sbin/iptables", "/sbin/iptables"};
    char comment[32];
    snprintf(comment, sizeof comment, "harpoon %s", cni->modes.bridge);
    const char *const argv[] = {access(programs[0], X_OK) == 0 ? programs[0] : programs[1],
                                "-w",
                                "-t",
                                "nat",
                                verb,
                                "POSTROUTING",
                                "-s",
                                cni->modes.subnet,
                                "!",
                                "-d",
                                cni->modes.subnet,
                                "-m",
                                "comment",
                                "--comment",
                                comment,
                                "-j",
                                "MASQUERADE",
                                NULL};
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    return ha_proc_run(&spawn, NULL, NULL, RULE_MS, -1, e);
}

static void begin_masquerade(const struct ha_cni *cni)
{
    struct hp_error e = {0};
    if (masquerade(cni, "-C", &e) == 0)
        return;
    if (masquerade(cni, "-A", &e))
        hp_warn("containers do not reach other networks under the host's address", HP_S("error", e.message));
}

int ha_cni_init(struct ha_cni *cni, const char *state_dir, const char *run_dir, struct hp_error *e)
{
    int rc = 0;
    cni->lock_fd = -1;
    if (!cni->plugins[0])
        rc = ha_fs_path(cni->plugins, sizeof cni->plugins, e, "/usr/lib/cni");
    if (rc == 0)
        rc = ha_fs_path(cni->data_dir, sizeof cni->data_dir, e, "%s/cni", state_dir);
    if (rc == 0)
        rc = ha_fs_path(cni->netns_dir, sizeof cni->netns_dir, e, "%s/netns", run_dir);
    if (rc == 0)
        rc = ha_fs_mkdirs(cni->data_dir, 0700, e);
    if (rc == 0)
        rc = ha_fs_mkdirs(cni->netns_dir, 0711, e);
    if (rc == 0)
        rc = ha_cni_lock(cni->data_dir, &cni->lock_fd, e);
    if (rc)
        return rc;
    /* Shared, so that unpinning is seen by every mount namespace that was copied from ours meanwhile: else a copy would keep the network alive. */
    if (!is_mount_point(cni->netns_dir) && mount(cni->netns_dir, cni->netns_dir, NULL, MS_BIND, NULL) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "mount %s", cni->netns_dir);
    if (mount(NULL, cni->netns_dir, NULL, MS_SHARED, NULL) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "share the mount %s", cni->netns_dir);
    if (cni->masquerade)
        begin_masquerade(cni);
    return 0;
}

void ha_cni_close(struct ha_cni *cni)
{
    struct hp_error ignored = {0};
    ha_modes_done(&cni->modes);
    if (!cni->netns_dir[0])
        return;
    ha_fs_closep(&cni->lock_fd);
    /* Fails while something is pinned in it; then containers are still attached, and the rule stays as well. */
    bool last = umount2(cni->netns_dir, 0) == 0;
    if (last && cni->masquerade)
        (void)!masquerade(cni, "-D", &ignored);
}

/* --- network namespaces --- */

int ha_cni_netns_path(const struct ha_cni *cni, const char *uid, char *buf, size_t size, struct hp_error *e)
{
    return ha_fs_path(buf, size, e, "%s/%s", cni->netns_dir, uid);
}

static int netns_child(void *p)
{
    const char *path = p;
    if (unshare(CLONE_NEWNET) != 0)
        return -errno;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int rc = ioctl(fd, SIOCSIFFLAGS, &lo) != 0 ? -errno : 0;
    close(fd);
    return rc == 0 && mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) != 0 ? -errno : rc;
}

static int netns_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct statfs fs;
    if (fd < 0)
        return -errno;
    if (fstatfs(fd, &fs) == 0 && fs.f_type == NSFS_MAGIC_NUMBER)
        return fd;
    close(fd);
    return -ENOENT; /* a plain file: the mount was lost by a reboot */
}

int ha_cni_netns_ensure(const struct ha_cni *cni, const char *uid, int *ret_fd, bool *ret_new, struct hp_error *e)
{
    char path[640];
    int rc = ha_cni_netns_path(cni, uid, path, sizeof path, e);
    if (rc)
        return rc;
    int fd = netns_open(path);
    *ret_new = fd < 0;
    if (fd < 0) {
        HA_CLOSE int file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);
        if (file < 0)
            return hp_fail_errno(e, HP_EIO, errno, "create %s", path);
        rc = ha_proc_in_child(netns_child, path);
        if (rc)
            return hp_fail_errno(e, HP_EIO, -rc, "make a network namespace");
        fd = netns_open(path);
    }
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, -fd, "open %s", path);
    *ret_fd = fd;
    return 0;
}

static int netns_remove(const struct ha_cni *cni, const char *uid, struct hp_error *e)
{
    char path[640];
    int rc = ha_cni_netns_path(cni, uid, path, sizeof path, e);
    if (rc)
        return rc;
    if (umount2(path, MNT_DETACH) != 0 && errno != EINVAL && errno != ENOENT)
        return hp_fail_errno(e, HP_EIO, errno, "unmount %s", path);
    if (unlink(path) != 0 && errno != ENOENT)
        return hp_fail_errno(e, HP_EIO, errno, "remove %s", path);
    return 0;
}

/* --- plugins --- */

/* What one plugin run needs. */
struct call {
    const struct ha_cni *cni;
    const char *uid, *netns;
    const char *mark; /* path of the namespace, also when there is none any more */
    const char *ip;   /* asked for; "" any */
    int timeout_ms;
};

/* A plugin that fails says why in JSON on its standard output. */
static void explain(const char *out, struct hp_error *e)
{
    json_t *answer = NULL;
    struct hp_error ignored = {0};
    (void)!hp_json_load(out, strlen(out), 0, &answer, &ignored);
    const char *text = json_string_value(json_object_get(answer, "msg"));
    const char *more = json_string_value(json_object_get(answer, "details"));
    if (text)
        hp_fail(e, HP_EIO, "%s%s%s", text, more && more[0] ? ": " : "", more ? more : "");
    json_decref(answer);
}

static int plugin(const struct call *c, const char *command, const json_t *conf, json_t **ret_result,
                  struct hp_error *e)
{
    const char *type = json_string_value(json_object_get(conf, "type"));
    char program[512], env[7][700];
    if (!type)
        return hp_fail(e, HP_ENOMEM, "configuration of a network plugin");
    int rc = ha_fs_path(program, sizeof program, e, "%s/%s", c->cni->plugins, type);
    if (rc)
        return rc;
    snprintf(env[0], sizeof env[0], "CNI_COMMAND=%s", command);
    snprintf(env[1], sizeof env[1], "CNI_CONTAINERID=%s", c->uid);
    snprintf(env[2], sizeof env[2], "CNI_NETNS=%s", c->netns);
    snprintf(env[3], sizeof env[3], "CNI_IFNAME=eth0");
    snprintf(env[4], sizeof env[4], "CNI_PATH=%s", c->cni->plugins);
    snprintf(env[5], sizeof env[5], "CNI_ARGS=IgnoreUnknown=1%s%s", c->ip[0] ? ";IP=" : "", c->ip);
    const char *const envp[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                env[0],
                                env[1],
                                env[2],
                                env[3],
                                env[4],
                                env[5],
                                NULL};
    const char *const argv[] = {program, c->mark,
                                NULL}; /* plugins read no arguments: it is for whoever looks for them */
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    spawn.envp = envp;
    spawn.pass = c->cni->lock_fd;
    HA_FREE struct ha_output *out = calloc(1, sizeof *out);
    char *input = hp_json_dump(conf, JSON_COMPACT);
    rc =
        out && input ? ha_proc_run(&spawn, input, out, c->timeout_ms, -1, e) : hp_fail(e, HP_ENOMEM, "run %s", program);
    free(input);
    if (rc) {
        if (out)
            explain(out->out, e);
        return hp_wrap(e, "network plugin %s, %s", type, command);
    }
    rc = ret_result ? hp_json_load(out->out, strlen(out->out), 0, ret_result, e) : 0;
    if (rc == HP_EINVAL)
        return hp_fail(e, HP_EPROTO, "network plugin %s, %s: the answer is not JSON: %.100s", type, command, out->out);
    return rc;
}

static int record_write(const char *record, const json_t *chain, const json_t *result, const char *ip, bool durable,
                        struct hp_error *e)
{
    json_t *root = json_pack("{s:O,s:s}", "chain", chain, "ip", ip);
    if (root && result)
        (void)json_object_set(root, "result", (json_t *)result);
    char *text = root ? hp_json_dump(root, JSON_COMPACT) : NULL;
    int rc = text ? ha_fs_write(record, text, strlen(text), 0600, durable, e) : hp_fail(e, HP_ENOMEM, "network record");
    free(text);
    json_decref(root);
    return rc;
}

/* NULL when there is no record, or none that could be read since a crash of the host; then it is gone with the network. Fails when that cannot be told. */
static int record_read(const char *record, json_t **ret, struct hp_error *e)
{
    HA_FREE char *text = NULL;
    size_t size;
    *ret = NULL;
    int rc = ha_fs_read(AT_FDCWD, record, RECORD_MAX, &text, &size, e);
    if (rc == 0)
        rc = hp_json_load(text, size, 0, ret, e);
    return rc == HP_ENOTFOUND || rc == HP_EINVAL ? 0 : rc;
}

static const char *result_address(const json_t *result)
{
    const char *a = json_string_value(json_object_get(json_array_get(json_object_get(result, "ips"), 0), "address"));
    return a && strlen(a) < HA_ADDRESS_SIZE ? a : "";
}

void ha_cni_address(const char *record, char ret_address[HA_ADDRESS_SIZE])
{
    json_t *root = NULL;
    struct hp_error ignored = {0};
    (void)!record_read(record, &root, &ignored);
    snprintf(ret_address, HA_ADDRESS_SIZE, "%s", result_address(json_object_get(root, "result")));
    json_decref(root);
}

/* With the interface that it has, where it needs one. */
static json_t *chain_of(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec)
{
    char function[HA_INTERFACE_SIZE] = "";
    if (ha_mode_of(spec) == SRIOV)
        ha_function_of(cni->data_dir, uid, function);
    return ha_modes_chain(&cni->modes, cni->data_dir, spec, function);
}

bool ha_cni_same(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec, const char *record)
{
    json_t *root = NULL;
    struct hp_error ignored = {0};
    (void)!record_read(record, &root, &ignored);
    json_t *chain = chain_of(cni, uid, spec);
    bool same = root && json_object_get(root, "result") && json_equal(json_object_get(root, "chain"), chain);
    json_decref(chain);
    json_decref(root);
    return same;
}

static bool is_type(const json_t *conf, const char *type)
{
    const char *t = json_string_value(json_object_get(conf, "type"));
    return t && strcmp(t, type) == 0;
}

static int lacks_device(void *p)
{
    HA_CLOSE int fd = netns_open(p);
    if (fd < 0)
        return 0;
    if (setns(fd, CLONE_NEWNET) != 0)
        return -errno;
    return if_nametoindex("eth0") ? -EEXIST : 0;
}

/* The interface goes back to the host. The plugin takes it for an error when it is there already, and does not look at addresses when the namespace is gone: these are given back first. */
static int return_device(const struct call *c, json_t *conf, struct hp_error *e)
{
    int rc = 0;
    if (json_object_get(conf, "ipam")) {
        json_t *addresses = json_copy(conf);
        (void)json_object_set(addresses, "type", json_object_get(json_object_get(conf, "ipam"), "type"));
        rc = plugin(c, "DEL", addresses, NULL, e);
        json_decref(addresses);
    }
    if (rc || !c->netns[0])
        return rc;
    rc = plugin(c, "DEL", conf, NULL, e);
    return rc && ha_proc_in_child(lacks_device, (void *)(uintptr_t)c->netns) == 0 ? 0 : rc;
}

/* DEL in reverse order, with the last result as prevResult. All are run; the first failure is returned. */
static int chain_del(const struct call *c, const json_t *record, struct hp_error *e)
{
    const json_t *chain = json_object_get(record, "chain");
    json_t *result = json_object_get(record, "result");
    int first = 0;
    for (size_t i = json_array_size(chain); i-- > 0;) {
        json_t *conf = json_copy(json_array_get(chain, i));
        if (result)
            (void)json_object_set(conf, "prevResult", result);
        struct hp_error why = {0};
        int rc = is_type(conf, "host-device") ? return_device(c, conf, &why) : plugin(c, "DEL", conf, NULL, &why);
        if (rc && !first)
            first = hp_fail(e, rc, "%s", why.message);
        json_decref(conf);
    }
    return first;
}

static int chain_add(const struct call *c, const json_t *chain, json_t **ret_result, struct hp_error *e)
{
    json_t *result = NULL;
    for (size_t i = 0; i < json_array_size(chain); i++) {
        json_t *conf = json_copy(json_array_get(chain, i)), *next = NULL;
        if (result)
            (void)json_object_set(conf, "prevResult", result);
        int rc = plugin(c, "ADD", conf, &next, e);
        json_decref(conf);
        json_decref(result);
        if (rc)
            return rc;
        result = next;
    }
    *ret_result = result;
    return 0;
}

/* The address without its prefix length that an earlier attachment had. */
static void earlier_ip(const json_t *record, char *ip, size_t size)
{
    const char *known = json_string_value(json_object_get(record, "ip"));
    snprintf(ip, size, "%s", known ? known : "");
    struct in_addr in;
    if (inet_pton(AF_INET, ip, &in) != 1)
        ip[0] = '\0';
}

/* Once with the address that it had; if that cannot be had any more, with another. */
static int add_again(struct call *call, const json_t *chain, char *ip, json_t **ret_result, struct hp_error *e)
{
    struct hp_error first = {0}, ignored = {0};
    int rc = chain_add(call, chain, ret_result, &first);
    if (rc == 0 || !ip[0])
        return rc ? hp_fail(e, rc, "%s", first.message) : 0;
    json_t *half = json_pack("{s:O}", "chain", chain);
    (void)chain_del(call, half, &ignored);
    json_decref(half);
    hp_warn("an earlier address cannot be had again; taking another", HP_S("uid", call->uid), HP_S("address", ip),
            HP_S("error", first.message));
    ip[0] = '\0';
    return chain_add(call, chain, ret_result, e);
}

/* What it needs beside the plugins: an interface of its own, ports of the host. */
static int take_things(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec,
                       char function[HA_INTERFACE_SIZE], struct hp_error *e)
{
    if (!(cni->modes.offered & 1U << ha_mode_of(spec)))
        return hp_fail(e, HP_EUNSUPPORTED, "this host does not offer network mode %d", (int)ha_mode_of(spec));
    return ha_mode_of(spec) == SRIOV ? ha_function_take(cni->data_dir, uid, cni->modes.functions, function, e)
                                     : ha_function_release(cni->data_dir, uid, e);
}

/* Before a reboot, before a crash, or another network: its address is still taken in our name. What it had of the host goes back before anything else is taken. */
static int forget(struct call *call, const char *record, char *ip, size_t ip_size, struct hp_error *e)
{
    json_t *old = NULL;
    struct hp_error ignored = {0};
    int rc = record_read(record, &old, e);
    if (rc || !old)
        return rc;
    earlier_ip(old, ip, ip_size);
    (void)chain_del(call, old, &ignored);
    json_decref(old);
    return 0;
}

int ha_cni_attach(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec, const char *record,
                  int timeout_ms, char ret_address[HA_ADDRESS_SIZE], struct hp_error *e)
{
    char netns[640], ip[64] = "", function[HA_INTERFACE_SIZE] = "";
    int rc = ha_cni_netns_path(cni, uid, netns, sizeof netns, e);
    if (rc)
        return rc;
    struct call call = {.cni = cni, .uid = uid, .netns = netns, .mark = netns, .ip = ip, .timeout_ms = timeout_ms};
    json_t *chain = NULL, *result = NULL;
    hp_json_memory_watch(); /* looked at before each plugin runs and each record is written */
    rc = forget(&call, record, ip, sizeof ip, e);
    if (rc)
        return rc;
    rc = take_things(cni, uid, spec, function, e);
    if (rc == 0) {
        chain = ha_modes_chain(&cni->modes, cni->data_dir, spec, function);
        rc = record_write(record, chain, NULL, ip, false, e);
    }
    if (rc == 0)
        rc = ha_ports_take(cni->data_dir, uid, spec->network, e);
    if (rc == 0)
        rc = add_again(&call, chain, ip, &result, e);
    if (rc == 0 && !result_address(result)[0] && ha_modes_gives_address(&cni->modes, spec))
        rc = hp_fail(e, HP_EPROTO, "the network plugins gave no address");
    if (rc == 0) {
        snprintf(ret_address, HA_ADDRESS_SIZE, "%s", result_address(result));
        snprintf(ip, sizeof ip, "%.*s", (int)strcspn(ret_address, "/"), ret_address);
        rc = record_write(record, chain, result, ip, false, e);
    }
    json_decref(result);
    json_decref(chain);
    if (rc) {
        struct hp_error ignored = {0};
        (void)!ha_cni_detach(cni, uid, record, timeout_ms, &ignored);
    }
    return rc;
}

/* The host's end of the container's pair of interfaces; NULL: it has none. */
static const char *host_end(const json_t *result)
{
    const json_t *interfaces = json_object_get(result, "interfaces");
    for (size_t i = 0; i < json_array_size(interfaces); i++) {
        const json_t *x = json_array_get(interfaces, i);
        const char *name = json_string_value(json_object_get(x, "name"));
        const char *sandbox = json_string_value(json_object_get(x, "sandbox"));
        if (name && strncmp(name, "veth", 4) == 0 && (!sandbox || !sandbox[0]))
            return name;
    }
    return NULL;
}

/* The plugin cannot change a limit: it is taken away whole, and put on anew. */
static int change_limit(struct call *call, const json_t *old, json_t *chain, struct hp_error *e)
{
    const json_t *before = json_object_get(old, "chain"), *result = json_object_get(old, "result");
    json_t *had = json_array_get(before, json_array_size(before) - 1), *next = NULL;
    json_t *want = json_array_get(chain, json_array_size(chain) - 1);
    const char *interface = host_end(result);
    if (!interface)
        return hp_fail(e, HP_EPROTO, "the network's record names no interface of the host");
    int rc = is_type(had, "bandwidth") ? plugin(call, "DEL", had, NULL, e) : 0;
    if (rc == 0)
        rc = ha_qdisc_clear(interface, e);
    if (rc == 0 && is_type(want, "bandwidth")) {
        json_t *conf = json_copy(want);
        (void)json_object_set(conf, "prevResult", (json_t *)(uintptr_t)result);
        rc = plugin(call, "ADD", conf, &next, e);
        json_decref(conf);
        json_decref(next);
    }
    return rc;
}

/* Whether they are the same but for a limit at their end. */
static bool same_but_limit(const json_t *a, const json_t *b)
{
    size_t n = json_array_size(a), k = json_array_size(b);
    n -= n && is_type(json_array_get(a, n - 1), "bandwidth");
    k -= k && is_type(json_array_get(b, k - 1), "bandwidth");
    bool same = n == k;
    for (size_t i = 0; i < n && same; i++)
        same = json_equal(json_array_get(a, i), json_array_get(b, i));
    return same;
}

int ha_cni_resize(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec, const char *record,
                  int timeout_ms, struct hp_error *e)
{
    char netns[640];
    json_t *old = NULL;
    int rc = ha_cni_netns_path(cni, uid, netns, sizeof netns, e);
    if (rc == 0)
        rc = record_read(record, &old, e);
    if (rc || !old)
        return rc;
    struct call call = {.cni = cni, .uid = uid, .netns = netns, .mark = netns, .ip = "", .timeout_ms = timeout_ms};
    hp_json_memory_watch();
    json_t *chain = chain_of(cni, uid, spec), *before = json_object_get(old, "chain");
    /* What differs in another way gets its network at the next start. */
    if (json_object_get(old, "result") && same_but_limit(before, chain) && !json_equal(before, chain)) {
        char ip[64];
        earlier_ip(old, ip, sizeof ip);
        rc = change_limit(&call, old, chain, e);
        if (rc == 0)
            rc = record_write(record, chain, json_object_get(old, "result"), ip, false, e);
    }
    json_decref(chain);
    json_decref(old);
    return rc;
}

int ha_cni_detach(const struct ha_cni *cni, const char *uid, const char *record, int timeout_ms, struct hp_error *e)
{
    char netns[640];
    int rc = ha_cni_netns_path(cni, uid, netns, sizeof netns, e);
    json_t *old = NULL;
    if (rc == 0)
        rc = record_read(record, &old, e);
    if (rc)
        return rc; /* without its record the plugins' part would stay for ever */
    hp_json_memory_watch();
    if (old) {
        int fd = netns_open(netns);
        struct call call = {
            .cni = cni, .uid = uid, .netns = fd >= 0 ? netns : "", .mark = netns, .ip = "", .timeout_ms = timeout_ms};
        ha_fs_closep(&fd);
        rc = chain_del(&call, old, e);
        json_decref(old);
    }
    struct hp_error second = {0};
    int unpinned = netns_remove(cni, uid, &second);
    if (rc == 0 && unpinned)
        rc = hp_fail(e, unpinned, "%s", second.message);
    if (rc == 0)
        rc = ha_ports_release(cni->data_dir, uid, e);
    if (rc == 0)
        rc = ha_function_release(cni->data_dir, uid, e);
    if (rc == 0)
        (void)unlink(record);
    return rc;
}
