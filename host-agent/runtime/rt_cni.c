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

#include <jansson.h>

#include "base/log.h"
#include "rt_fs.h"
#include "rt_ports.h"
#include "rt_proc.h"

#define NSFS_MAGIC_NUMBER 0x6e736673
#define RECORD_MAX (256 << 10)
#define RULE_MS 20000

static int check_options(const struct ha_cni *cni, struct hp_error *e)
{
    char address[64];
    unsigned bits;
    struct in_addr in;
    if (!cni->bridge[0] || strlen(cni->bridge) >= IFNAMSIZ || strpbrk(cni->bridge, "/ :"))
        return hp_fail(e, HP_EINVAL, "bridge '%s' is not an interface name of 1 to %d characters", cni->bridge,
                       IFNAMSIZ - 1);
    if (sscanf(cni->subnet, "%49[0-9.]/%u", address, &bits) != 2 || inet_pton(AF_INET, address, &in) != 1 || bits < 8 ||
        bits > 29)
        return hp_fail(e, HP_EINVAL, "subnet '%s' is not an IPv4 network with 8 to 29 bits, such as 10.88.0.0/16",
                       cni->subnet);
    return 0;
}

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
    snprintf(comment, sizeof comment, "harpoon %s", cni->bridge);
    const char *const argv[] = {access(programs[0], X_OK) == 0 ? programs[0] : programs[1],
                                "-w",
                                "-t",
                                "nat",
                                verb,
                                "POSTROUTING",
                                "-s",
                                cni->subnet,
                                "!",
                                "-d",
                                cni->subnet,
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
    int rc = check_options(cni, e);
    if (rc == 0 && !cni->plugins[0])
        rc = ha_fs_path(cni->plugins, sizeof cni->plugins, e, "/usr/lib/cni");
    if (rc == 0)
        rc = ha_fs_path(cni->data_dir, sizeof cni->data_dir, e, "%s/cni", state_dir);
    if (rc == 0)
        rc = ha_fs_path(cni->netns_dir, sizeof cni->netns_dir, e, "%s/netns", run_dir);
    if (rc == 0)
        rc = ha_fs_mkdirs(cni->data_dir, 0700, e);
    if (rc == 0)
        rc = ha_fs_mkdirs(cni->netns_dir, 0711, e);
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
    if (!cni->netns_dir[0])
        return;
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
    json_t *answer = json_loads(out, 0, NULL);
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
    HA_FREE struct ha_output *out = calloc(1, sizeof *out);
    char *input = json_dumps(conf, JSON_COMPACT);
    rc =
        out && input ? ha_proc_run(&spawn, input, out, c->timeout_ms, -1, e) : hp_fail(e, HP_ENOMEM, "run %s", program);
    free(input);
    if (rc) {
        if (out)
            explain(out->out, e);
        return hp_wrap(e, "network plugin %s, %s", type, command);
    }
    if (ret_result && !(*ret_result = json_loads(out->out, 0, NULL)))
        return hp_fail(e, HP_EPROTO, "network plugin %s, %s: the answer is not JSON: %.100s", type, command, out->out);
    return 0;
}

/* Without the plugin's own masquerading: that is one rule for all containers, made at the start. */
static json_t *bridge_conf(const struct ha_cni *cni, const char *name)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:b,s:b,s:{s:s,s:s,s:[[{s:s}]],s:[{s:s}]}}", "cniVersion", "1.0.0", "name", name,
                     "type", "bridge", "bridge", cni->bridge, "isGateway", 1, "hairpinMode", 1, "ipam", "type",
                     "host-local", "dataDir", cni->data_dir, "ranges", "subnet", cni->subnet, "routes", "dst",
                     "0.0.0.0/0");
}

static json_t *portmap_conf(const char *name, const Harpoon__V1__NetworkSpec *network)
{
    json_t *ports = json_array();
    for (size_t i = 0; i < network->n_ports; i++) {
        const Harpoon__V1__PortMapping *p = network->ports[i];
        (void)json_array_append_new(ports,
                                    json_pack("{s:i,s:i,s:s}", "hostPort", p->host_port, "containerPort",
                                              p->container_port, "protocol", p->protocol[0] ? p->protocol : "tcp"));
    }
    return json_pack("{s:s,s:s,s:s,s:b,s:{s:b},s:{s:o}}", "cniVersion", "1.0.0", "name", name, "type", "portmap",
                     "snat", 1, "capabilities", "portMappings", 1, "runtimeConfig", "portMappings", ports);
}

static json_t *chain_conf(const struct ha_cni *cni, const Harpoon__V1__NetworkSpec *network)
{
    char name[64];
    snprintf(name, sizeof name, "harpoon-%s", cni->bridge);
    json_t *chain = json_array();
    (void)json_array_append_new(chain, bridge_conf(cni, name));
    if (network && network->n_ports)
        (void)json_array_append_new(chain, portmap_conf(name, network));
    return chain;
}

static int record_write(const char *record, const json_t *chain, const json_t *result, const char *ip, bool durable,
                        struct hp_error *e)
{
    json_t *root = json_pack("{s:O,s:s}", "chain", chain, "ip", ip);
    if (root && result)
        (void)json_object_set(root, "result", (json_t *)result);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    int rc = text ? ha_fs_write(record, text, strlen(text), 0600, durable, e) : hp_fail(e, HP_ENOMEM, "network record");
    free(text);
    json_decref(root);
    return rc;
}

static json_t *record_read(const char *record)
{
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    return ha_fs_read(AT_FDCWD, record, RECORD_MAX, &text, &size, &ignored) ? NULL : json_loadb(text, size, 0, NULL);
}

static const char *result_address(const json_t *result)
{
    const char *a = json_string_value(json_object_get(json_array_get(json_object_get(result, "ips"), 0), "address"));
    return a && strlen(a) < HA_ADDRESS_SIZE ? a : "";
}

void ha_cni_address(const char *record, char ret_address[HA_ADDRESS_SIZE])
{
    json_t *root = record_read(record);
    snprintf(ret_address, HA_ADDRESS_SIZE, "%s", result_address(json_object_get(root, "result")));
    json_decref(root);
}

bool ha_cni_same(const struct ha_cni *cni, const Harpoon__V1__NetworkSpec *network, const char *record)
{
    json_t *root = record_read(record), *chain = chain_conf(cni, network);
    bool same = root && json_object_get(root, "result") && json_equal(json_object_get(root, "chain"), chain);
    json_decref(chain);
    json_decref(root);
    return same;
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
        int rc = plugin(c, "DEL", conf, NULL, &why);
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

int ha_cni_attach(const struct ha_cni *cni, const char *uid, const Harpoon__V1__NetworkSpec *network,
                  const char *record, int timeout_ms, char ret_address[HA_ADDRESS_SIZE], struct hp_error *e)
{
    char netns[640], ip[64] = "";
    int rc = ha_cni_netns_path(cni, uid, netns, sizeof netns, e);
    if (rc)
        return rc;
    struct call call = {.cni = cni, .uid = uid, .netns = netns, .mark = netns, .ip = ip, .timeout_ms = timeout_ms};
    json_t *old = record_read(record), *result = NULL, *chain = chain_conf(cni, network);
    if (old) { /* before a reboot, or before a crash: the address is still taken in our name */
        earlier_ip(old, ip, sizeof ip);
        struct hp_error ignored = {0};
        (void)chain_del(&call, old, &ignored);
        json_decref(old);
    }
    rc = record_write(record, chain, NULL, ip, false, e);
    if (rc == 0)
        rc = ha_ports_take(cni->data_dir, uid, network, e);
    if (rc == 0)
        rc = add_again(&call, chain, ip, &result, e);
    if (rc == 0 && !result_address(result)[0])
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

int ha_cni_detach(const struct ha_cni *cni, const char *uid, const char *record, int timeout_ms, struct hp_error *e)
{
    char netns[640];
    int rc = ha_cni_netns_path(cni, uid, netns, sizeof netns, e);
    json_t *old = rc ? NULL : record_read(record);
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
        (void)unlink(record);
    return rc;
}
