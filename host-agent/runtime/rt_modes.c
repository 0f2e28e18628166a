#include "rt_modes.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rt_fs.h"
#include "wire/json.h"

#define MODE(x) HARPOON__V1__NETWORK_MODE__NETWORK_MODE_##x
#define LIST_BYTES_MAX (256 << 10)

enum { PLUGINS_MAX = 16 };

static bool is_interface(const char *name)
{
    return name[0] && strlen(name) < IFNAMSIZ && !strpbrk(name, "/ :") && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static int check_interface(const char *key, const char *name, struct hp_error *e)
{
    return is_interface(name) ? 0
                              : hp_fail(e, HP_EINVAL, "%s '%s' is not an interface name of 1 to %d characters", key,
                                        name, IFNAMSIZ - 1);
}

static int check_subnet(const char *key, const char *subnet, struct hp_error *e)
{
    char address[64];
    unsigned bits;
    struct in_addr in;
    if (sscanf(subnet, "%49[0-9.]/%u", address, &bits) != 2 || inet_pton(AF_INET, address, &in) != 1 || bits < 8 ||
        bits > 29)
        return hp_fail(e, HP_EINVAL, "%s '%s' is not an IPv4 network with 8 to 29 bits, such as 10.88.0.0/16", key,
                       subnet);
    return 0;
}

static int copy(char *to, size_t size, const char *text, struct hp_error *e)
{
    return ha_fs_path(to, size, e, "%s", text ? text : "");
}

static int check_address(const char *key, const char *what, const char *text, struct hp_error *e)
{
    struct in_addr in;
    return inet_pton(AF_INET, text, &in) == 1
               ? 0
               : hp_fail(e, HP_EINVAL, "%s_%s in [network]: '%s' is not an IPv4 address", key, what, text);
}

/* `addresses`: "FIRST-LAST", or empty. */
static int range_init(struct ha_range *r, const char *key, const struct ha_rt_range *o, struct hp_error *e)
{
    char name[64];
    const char *addresses = o->addresses ? o->addresses : "";
    snprintf(name, sizeof name, "%s_subnet in [network]", key);
    int rc = copy(r->subnet, sizeof r->subnet, o->subnet, e);
    if (rc == 0)
        rc = copy(r->gateway, sizeof r->gateway, o->gateway, e);
    if (rc || (!r->subnet[0] && !addresses[0] && !r->gateway[0]))
        return rc;
    rc = check_subnet(name, r->subnet, e);
    if (rc == 0 && r->gateway[0])
        rc = check_address(key, "gateway", r->gateway, e);
    if (rc || !addresses[0])
        return rc;
    if (sscanf(addresses, "%63[0-9.]-%63[0-9.]", r->first, r->last) != 2)
        return hp_fail(e, HP_EINVAL, "%s_addresses in [network]: '%.100s' is not FIRST-LAST", key, addresses);
    rc = check_address(key, "addresses", r->first, e);
    return rc ? rc : check_address(key, "addresses", r->last, e);
}

static int check_functions(const char *const *list, struct hp_error *e)
{
    for (size_t i = 0; list && list[i]; i++) {
        int rc = check_interface("sriov in [network]", list[i], e);
        if (rc)
            return rc;
        for (size_t k = 0; k < i; k++)
            if (strcmp(list[i], list[k]) == 0)
                return hp_fail(e, HP_EINVAL, "sriov in [network]: '%s' is there twice", list[i]);
    }
    return 0;
}

static int read_overlay(const char *path, json_t **ret, struct hp_error *e)
{
    HA_FREE char *text = NULL;
    size_t size;
    json_t *list = NULL;
    int rc = ha_fs_read(AT_FDCWD, path, LIST_BYTES_MAX, &text, &size, e);
    if (rc == 0)
        rc = hp_json_load(text, size, 0, &list, e);
    if (rc)
        return hp_wrap(e, "overlay in [network], %s", path);
    const json_t *plugins = json_object_get(list, "plugins");
    size_t n = json_array_size(plugins);
    if (!json_string_value(json_object_get(list, "name")) || n < 1 || n > PLUGINS_MAX)
        rc = hp_fail(e, HP_EINVAL,
                     "overlay in [network], %s is not a CNI network configuration list: a name and 1 to %d plugins",
                     path, PLUGINS_MAX);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char *type = json_string_value(json_object_get(json_array_get(plugins, i), "type"));
        if (!type || !type[0] || strchr(type, '/'))
            rc = hp_fail(e, HP_EINVAL, "overlay in [network], %s: plugin %zu has no type that is a program's name",
                         path, i);
    }
    if (rc)
        json_decref(list);
    else
        *ret = list;
    return rc;
}

int ha_modes_init(struct ha_modes *m, const struct ha_rt_options *o, struct hp_error *e)
{
    const struct ha_rt_network *n = &o->network;
    int rc = copy(m->bridge, sizeof m->bridge, o->bridge, e);
    if (rc == 0)
        rc = copy(m->subnet, sizeof m->subnet, o->subnet, e);
    if (rc == 0)
        rc = check_interface("bridge", m->bridge, e);
    if (rc == 0)
        rc = check_subnet("subnet", m->subnet, e);
    if (rc == 0 && n->macvlan && n->macvlan[0]) {
        rc = check_interface("macvlan in [network]", n->macvlan, e);
        if (rc == 0)
            rc = copy(m->parent, sizeof m->parent, n->macvlan, e);
        if (rc == 0)
            rc = range_init(&m->macvlan, "macvlan", &n->macvlan_range, e);
        if (rc == 0 && !m->macvlan.subnet[0])
            rc = hp_fail(e, HP_EINVAL, "macvlan in [network] needs macvlan_subnet");
        m->offered |= 1U << MODE(MACVLAN);
    }
    if (rc == 0)
        rc = check_functions(n->sriov, e);
    if (rc == 0 && n->sriov && n->sriov[0]) {
        rc = range_init(&m->sriov, "sriov", &n->sriov_range, e);
        m->functions = n->sriov;
        m->offered |= 1U << MODE(SRIOV);
    }
    if (rc == 0 && n->overlay && n->overlay[0]) {
        rc = read_overlay(n->overlay, &m->overlay, e);
        m->offered |= 1U << MODE(OVERLAY);
    }
    if (!n->no_bridge)
        m->offered |= 1U << MODE(BRIDGE);
    return rc;
}

int ha_rt_check_networks(const struct ha_rt_options *options, struct hp_error *e)
{
    struct ha_modes m = {0};
    int rc = ha_modes_init(&m, options, e);
    ha_modes_done(&m);
    return rc;
}

void ha_modes_done(struct ha_modes *m)
{
    json_decref(m->overlay);
    m->overlay = NULL;
}

Harpoon__V1__NetworkMode ha_mode_of(const Harpoon__V1__ContainerSpec *spec)
{
    return spec->network && spec->network->mode != MODE(UNSPECIFIED) ? spec->network->mode : MODE(BRIDGE);
}

/* ---- Chains ---- */

/* Without the plugin's own masquerading: that is one rule for all containers, made at the start. */
static json_t *bridge_conf(const struct ha_modes *m, const char *data_dir, const char *name)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:b,s:b,s:{s:s,s:s,s:[[{s:s}]],s:[{s:s}]}}", "cniVersion", "1.0.0", "name", name,
                     "type", "bridge", "bridge", m->bridge, "isGateway", 1, "hairpinMode", 1, "ipam", "type",
                     "host-local", "dataDir", data_dir, "ranges", "subnet", m->subnet, "routes", "dst", "0.0.0.0/0");
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

/* Bits per second, and bits that may come at once: what passes in 100 ms, at least 64 KiB and at most what the plugin takes. */
static json_t *bandwidth_conf(const char *name, int64_t bps)
{
    int64_t burst = bps / 10;
    burst = burst < 65536 ? 65536 : burst > (256 << 20) ? 256 << 20 : burst;
    const json_int_t rate = bps * 8, bits = burst * 8;
    return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "cniVersion", "1.0.0", "name", name, "type", "bandwidth",
                     "ingressRate", rate, "ingressBurst", bits, "egressRate", rate, "egressBurst", bits);
}

static json_t *ipam_conf(const struct ha_range *r, const char *data_dir)
{
    json_t *range = json_pack("{s:s}", "subnet", r->subnet);
    if (range && r->first[0]) {
        (void)json_object_set_new(range, "rangeStart", json_string(r->first));
        (void)json_object_set_new(range, "rangeEnd", json_string(r->last));
    }
    if (range && r->gateway[0])
        (void)json_object_set_new(range, "gateway", json_string(r->gateway));
    json_t *ipam = json_pack("{s:s,s:s,s:[[o]]}", "type", "host-local", "dataDir", data_dir, "ranges", range);
    if (ipam && r->gateway[0])
        (void)json_object_set_new(ipam, "routes", json_pack("[{s:s}]", "dst", "0.0.0.0/0"));
    return ipam;
}

static json_t *alone_conf(const char *name, const char *type, const char *key, const char *interface,
                          const struct ha_range *r, const char *data_dir)
{
    json_t *conf = json_pack("{s:s,s:s,s:s,s:s}", "cniVersion", "1.0.0", "name", name, "type", type, key, interface);
    if (conf && r->subnet[0])
        (void)json_object_set_new(conf, "ipam", ipam_conf(r, data_dir));
    return conf;
}

static void overlay_chain(const struct ha_modes *m, json_t *chain)
{
    const json_t *plugins = json_object_get(m->overlay, "plugins");
    json_t *version = json_object_get(m->overlay, "cniVersion");
    for (size_t i = 0; i < json_array_size(plugins); i++) {
        json_t *conf = json_deep_copy(json_array_get(plugins, i));
        (void)json_object_set_new(conf, "name", json_string(json_string_value(json_object_get(m->overlay, "name"))));
        (void)json_object_set_new(conf, "cniVersion",
                                  json_string(json_string_value(version) ? json_string_value(version) : "1.0.0"));
        (void)json_array_append_new(chain, conf);
    }
}

json_t *ha_modes_chain(const struct ha_modes *m, const char *data_dir, const Harpoon__V1__ContainerSpec *spec,
                       const char *function)
{
    char name[64];
    json_t *chain = json_array();
    switch (ha_mode_of(spec)) {
    case MODE(MACVLAN):
        snprintf(name, sizeof name, "harpoon-macvlan-%s", m->parent);
        (void)json_array_append_new(chain, alone_conf(name, "macvlan", "master", m->parent, &m->macvlan, data_dir));
        break;
    case MODE(SRIOV):
        snprintf(name, sizeof name, "harpoon-sriov-%s", m->bridge);
        (void)json_array_append_new(chain, alone_conf(name, "host-device", "device", function, &m->sriov, data_dir));
        break;
    case MODE(OVERLAY):
        overlay_chain(m, chain);
        break;
    default:
        snprintf(name, sizeof name, "harpoon-%s", m->bridge);
        (void)json_array_append_new(chain, bridge_conf(m, data_dir, name));
        if (spec->network && spec->network->n_ports)
            (void)json_array_append_new(chain, portmap_conf(name, spec->network));
        if (spec->resources && spec->resources->network_bps > 0)
            (void)json_array_append_new(chain, bandwidth_conf(name, spec->resources->network_bps));
    }
    return chain;
}

bool ha_modes_gives_address(const struct ha_modes *m, const Harpoon__V1__ContainerSpec *spec)
{
    Harpoon__V1__NetworkMode mode = ha_mode_of(spec);
    return mode == MODE(SRIOV) ? m->sriov.subnet[0] != '\0' : mode != MODE(OVERLAY);
}

/* ---- Speed ---- */

/* Virtual interfaces tell speeds that mean nothing. */
static bool is_card(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "/sys/class/net/%s/device", name);
    if (access(path, F_OK) == 0)
        return true;
    snprintf(path, sizeof path, "/sys/class/net/%s/bonding", name);
    return access(path, F_OK) == 0;
}

int64_t ha_modes_speed(void)
{
    DIR *d = opendir("/sys/class/net");
    int64_t best = 0;
    for (struct dirent *item; d && (item = readdir(d));) {
        char path[300];
        HA_FREE char *text = NULL;
        size_t size;
        struct hp_error ignored = {0};
        snprintf(path, sizeof path, "/sys/class/net/%s/speed", item->d_name);
        if (item->d_name[0] == '.' || !is_card(item->d_name) || ha_fs_read(AT_FDCWD, path, 64, &text, &size, &ignored))
            continue;
        int64_t mbit = strtoll(text, NULL, 10);
        best = mbit * 125000 > best && mbit < 10000000 ? mbit * 125000 : best;
    }
    if (d)
        closedir(d);
    return best;
}
