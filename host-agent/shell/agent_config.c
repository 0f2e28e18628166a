#include "shell/agent_config.h"

#include <net/if.h>
#include <stddef.h>
#include <string.h>

#include "io/config_value.h"
#include "wire/names.h"
#include "wire/storage.h"

enum { HA_CLASS_DIR_MAX = 200 };

#define AT(field) offsetof(struct ha_config, field)

const struct hp_config_key ha_config_keys[] = {
    {"agent", "host", HP_CONFIG_STRING, AT(host), NULL, true, 0, 0, "short name of this host, as in its certificate"},
    {"agent", "region", HP_CONFIG_STRING, AT(region), NULL, true, 0, 0, "region that the host belongs to"},
    {"agent", "zone", HP_CONFIG_STRING, AT(zone), "", false, 0, 0, "zone, for placement"},
    {"agent", "rack", HP_CONFIG_STRING, AT(rack), "", false, 0, 0, "rack, for placement"},
    {"agent", "taints", HP_CONFIG_LIST, AT(taints), "", false, 0, 0,
     "key=value, …: only containers that tolerate all of them are placed here; at most 32"},
    {"agent", "labels", HP_CONFIG_LIST, AT(labels), "", false, 0, 0, "key=value, … for placement; at most 32"},
    {"agent", "routers", HP_CONFIG_ADDRESSES, AT(routers), NULL, true, 0, 0,
     "host:port, … of the region's event routers; one is used at a time"},
    {"agent", "state_dir", HP_CONFIG_STRING, AT(state_dir), "/var/lib/harpoon", false, 0, 0,
     "journal, images, root file systems, volumes"},
    {"agent", "run_dir", HP_CONFIG_STRING, AT(run_dir), "/run/harpoon", false, 0, 0,
     "sockets and states that a reboot may forget"},
    {"agent", "bridge", HP_CONFIG_STRING, AT(bridge), "harpoon0", false, 0, 0, "bridge of the containers' network"},
    {"agent", "subnet", HP_CONFIG_SUBNET, AT(subnet), "10.88.0.0/16", false, 0, 0,
     "addresses of containers (IPv4 CIDR)"},
    {"agent", "masquerade", HP_CONFIG_BOOL, AT(masquerade), "yes", false, 0, 0,
     "containers reach other networks under the host's address"},
    {"agent", "runtime", HP_CONFIG_STRING, AT(runtime), "auto", false, 0, 0,
     "OCI runtime: auto, crun, runc, or a path"},
    {"agent", "cgroup_parent", HP_CONFIG_STRING, AT(cgroup_parent), "/harpoon", false, 0, 0,
     "cgroup below which containers are put"},
    {"agent", "cpu_millis", HP_CONFIG_INT, AT(cpu_millis), "0", false, 0, 1024000000,
     "thousandths of a core that containers may have in all; 0: all that there are"},
    {"agent", "memory", HP_CONFIG_SIZE, AT(memory_bytes), "0", false, 0, INT64_MAX,
     "memory that containers may have in all; 0: measured, less a tenth (at most 1G) for the host"},
    {"agent", "disk", HP_CONFIG_SIZE, AT(disk_bytes), "0", false, 0, INT64_MAX,
     "disk that containers may have in all; 0: size of state_dir's file system, less a tenth"},
    {"agent", "disk_reserve", HP_CONFIG_SIZE, AT(disk_reserve_bytes), "64M", false, 0, INT64_MAX,
     "new containers are refused while state_dir's file system has less room than this; 0: no limit"},
    {"agent", "breaker_cpu", HP_CONFIG_INT, AT(breaker_use[0]), "0", false, 0, 100,
     "new containers and larger sizes are refused while so many percent of the machine's cpu stay in use; 0: never for "
     "that"},
    {"agent", "breaker_memory", HP_CONFIG_INT, AT(breaker_use[1]), "97", false, 0, 100, "the same for memory"},
    {"agent", "breaker_io", HP_CONFIG_INT, AT(breaker_use[2]), "0", false, 0, 100,
     "the same for the time that the busiest block device has work"},
    {"agent", "breaker_network", HP_CONFIG_INT, AT(breaker_use[3]), "0", false, 0, 100,
     "the same for the busiest network interface whose speed is known"},
    {"agent", "breaker_cpu_pressure", HP_CONFIG_INT, AT(breaker_pressure[0]), "0", false, 0, 100,
     "and while something waits for cpu during so many percent of the time; 0: never for that"},
    {"agent", "breaker_memory_pressure", HP_CONFIG_INT, AT(breaker_pressure[1]), "20", false, 0, 100,
     "everything waits for memory"},
    {"agent", "breaker_io_pressure", HP_CONFIG_INT, AT(breaker_pressure[2]), "60", false, 0, 100,
     "everything waits for io"},
    {"agent", "breaker_close", HP_CONFIG_INT, AT(breaker_close), "80", false, 1, 99,
     "the refusals end when all figures are below so many percent of their limits"},
    {"agent", "breaker_after", HP_CONFIG_TIME, AT(breaker_after_ms), "15s", false, 0, 3600000,
     "they begin when a limit was reached for so long"},
    {"agent", "breaker_close_after", HP_CONFIG_TIME, AT(breaker_close_after_ms), "30s", false, 1000, 86400000,
     "and end when all was low for so long"},
    {"agent", "load_average", HP_CONFIG_TIME, AT(load_average_ms), "5s", false, 0, 3600000,
     "time constant of the averages of the load"},
    {"agent", "insecure_registries", HP_CONFIG_LIST, AT(insecure_registries), "", false, 0, 0,
     "host:port, … of registries without TLS"},
    {"agent", "container_log_max", HP_CONFIG_SIZE, AT(log_bytes_max), "16M", false, 65536, 1LL << 40,
     "log kept of one container"},
    {"agent", "image_age", HP_CONFIG_TIME, AT(image_age_ms), "24h", false, 0, INT64_MAX,
     "unused images are kept so long"},
    {"agent", "image_space", HP_CONFIG_SIZE, AT(image_bytes_max), "0", false, 0, INT64_MAX,
     "unused images go earlier when all take more than this; 0: no limit"},
    {"agent", "stop_wait", HP_CONFIG_TIME, AT(stop_wait_ms), "10s", false, 0, 600000,
     "at the agent's end, how long work under way is waited for; containers run on"},
    {"agent", "plain", HP_CONFIG_BOOL, AT(plain), "no", false, 0, 0, "no TLS: for tests only"},
    {"network", "bridge", HP_CONFIG_BOOL, AT(network_bridge), "yes", false, 0, 0,
     "containers may be attached to the bridge (mode BRIDGE)"},
    {"network", "macvlan", HP_CONFIG_STRING, AT(macvlan), "", false, 0, 0,
     "interface whose network containers of mode MACVLAN are in; none: the mode is not offered"},
    {"network", "macvlan_subnet", HP_CONFIG_STRING, AT(macvlan_subnet), "", false, 0, 0,
     "addresses of that network (IPv4 CIDR)"},
    {"network", "macvlan_addresses", HP_CONFIG_STRING, AT(macvlan_addresses), "", false, 0, 0,
     "FIRST-LAST: those that are this host's to give; none: all of the subnet"},
    {"network", "macvlan_gateway", HP_CONFIG_STRING, AT(macvlan_gateway), "", false, 0, 0,
     "gateway of containers' default route; none: they have no such route"},
    {"network", "sriov", HP_CONFIG_LIST, AT(sriov), "", false, 0, 0,
     "interfaces (functions of network cards) that are handed to containers of mode SRIOV, one each; none: the mode is "
     "not offered"},
    {"network", "sriov_subnet", HP_CONFIG_STRING, AT(sriov_subnet), "", false, 0, 0,
     "addresses of their network (IPv4 CIDR); none: containers bring their own"},
    {"network", "sriov_addresses", HP_CONFIG_STRING, AT(sriov_addresses), "", false, 0, 0, "as macvlan_addresses"},
    {"network", "sriov_gateway", HP_CONFIG_STRING, AT(sriov_gateway), "", false, 0, 0, "as macvlan_gateway"},
    {"network", "overlay", HP_CONFIG_FILE, AT(overlay), "", false, 0, 0,
     "CNI network configuration list for mode OVERLAY (JSON file); none: the mode is not offered"},
    {"network", "capacity", HP_CONFIG_SIZE, AT(network_bps), "0", false, 0, INT64_C(1) << 50,
     "bytes per second that containers may claim, before overcommit; 0: what the fastest network card can, where it "
     "says so"},
    {"tls", "ca", HP_CONFIG_FILE, AT(tls_ca), "", false, 0, 0, "CA of the routers' certificates (PEM file)"},
    {"tls", "cert", HP_CONFIG_FILE, AT(tls_cert), "", false, 0, 0,
     "this host's certificate, with SAN URI harpoon://regions/R/hosts/H (PEM file)"},
    {"tls", "key", HP_CONFIG_FILE, AT(tls_key), "", false, 0, 0, "its private key (PEM file)"},
    {"storage", "classes", HP_CONFIG_LIST, AT(storage_classes), "", false, 0, 0,
     "NAME=DIRECTORY[:SIZE], … where volumes of storage classes are kept, each on a file system of its own; without a "
     "SIZE all of the file system; at most 8"},
    {0},
};

static size_t list_len(char *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

/* A list of key=value. */
static int check_pairs(const char *what, char **list, size_t max, struct hp_error *e)
{
    if (list_len(list) > max)
        return hp_fail(e, HP_ELIMIT, "%s in [agent]: %zu, at most %zu", what, list_len(list), max);
    for (size_t i = 0; list && list[i]; i++) {
        const char *eq = strchr(list[i], '=');
        if (!eq || eq == list[i] || eq - list[i] > HP_SEGMENT_MAX || strlen(eq + 1) > HP_SEGMENT_MAX)
            return hp_fail(e, HP_EINVAL, "%s in [agent]: \"%s\" is not key=value of at most 63 bytes each", what,
                           list[i]);
    }
    return 0;
}

void ha_config_networks(const struct ha_config *c, struct ha_rt_options *ret)
{
    *ret = (struct ha_rt_options){
        .bridge = c->bridge,
        .subnet = c->subnet,
        .network = {.no_bridge = !c->network_bridge,
                    .macvlan = c->macvlan,
                    .macvlan_range = {c->macvlan_subnet, c->macvlan_addresses, c->macvlan_gateway},
                    .sriov = (const char *const *)c->sriov,
                    .sriov_range = {c->sriov_subnet, c->sriov_addresses, c->sriov_gateway},
                    .overlay = c->overlay}};
}

int ha_config_class(const char *text, struct ha_storage_class *ret, struct hp_error *e)
{
    const struct hp_config_key size = {.section = "storage",
                                       .key = "classes",
                                       .type = HP_CONFIG_SIZE,
                                       .min = HP_VOLUME_BYTES_MIN,
                                       .max = HP_STORAGE_BYTES_MAX};
    const char *eq = strchr(text, '=');
    const char *colon = eq ? strchr(eq, ':') : NULL;
    size_t name = eq ? (size_t)(eq - text) : 0, dir = eq ? colon ? (size_t)(colon - eq - 1) : strlen(eq + 1) : 0;
    *ret = (struct ha_storage_class){0};
    if (name < 1 || name >= sizeof ret->name || dir < 2 || eq[1] != '/')
        return hp_fail(e, HP_EINVAL, "\"%.200s\" is not of the form NAME=DIRECTORY[:SIZE], the directory absolute",
                       text);
    memcpy(ret->name, text, name);
    if (!hp_segment_valid(ret->name))
        return hp_fail(e, HP_EINVAL,
                       "\"%.200s\": \"%s\" is not a name (lower-case letters, digits, dashes; at most 63)", text,
                       ret->name);
    if (dir > HA_CLASS_DIR_MAX || strpbrk(eq, "\\\""))
        return hp_fail(e, HP_EINVAL, "\"%.200s\": the directory has %zu bytes (at most %d), or a \\ or \" in it", text,
                       dir, HA_CLASS_DIR_MAX);
    memcpy(ret->dir, eq + 1, dir);
    while (ret->dir[1] && ret->dir[strlen(ret->dir) - 1] == '/')
        ret->dir[strlen(ret->dir) - 1] = '\0';
    int code = colon ? hp_config_value_set(&size, colon + 1, &ret->size_bytes, e) : 0;
    return code ? hp_wrap(e, "\"%.200s\"", text) : 0;
}

static int check_classes(const struct ha_config *c, struct hp_error *e)
{
    struct ha_storage_class seen[HP_STORAGE_CLASSES_MAX];
    if (list_len(c->storage_classes) > HP_STORAGE_CLASSES_MAX)
        return hp_fail(e, HP_ELIMIT, "classes in [storage]: %zu, at most %d", list_len(c->storage_classes),
                       HP_STORAGE_CLASSES_MAX);
    for (size_t i = 0; c->storage_classes && c->storage_classes[i]; i++) {
        int code = ha_config_class(c->storage_classes[i], &seen[i], e);
        if (code)
            return hp_wrap(e, "classes in [storage]");
        if (!strcmp(seen[i].dir, c->state_dir))
            return hp_fail(e, HP_EINVAL, "classes in [storage]: \"%s\" is the state_dir", seen[i].dir);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(seen[k].name, seen[i].name) || !strcmp(seen[k].dir, seen[i].dir))
                return hp_fail(e, HP_EINVAL, "classes in [storage]: \"%s\" has the name or the directory of \"%s\"",
                               c->storage_classes[i], c->storage_classes[k]);
    }
    return 0;
}

int ha_config_check(const void *config, struct hp_error *e)
{
    const struct ha_config *c = config;
    if (!hp_segment_valid(c->host))
        return hp_fail(e, HP_EINVAL,
                       "host in [agent]: \"%s\" is not a name (lower-case letters, digits, dashes; at most 63)",
                       c->host);
    if (!hp_segment_valid(c->region))
        return hp_fail(e, HP_EINVAL, "region in [agent]: \"%s\" is not a region's name", c->region);
    if (c->state_dir[0] != '/' || c->run_dir[0] != '/')
        return hp_fail(e, HP_EINVAL, "state_dir and run_dir in [agent] must be absolute paths");
    if (!c->bridge[0] || strlen(c->bridge) >= IF_NAMESIZE)
        return hp_fail(e, HP_EINVAL, "bridge in [agent]: \"%s\" is not an interface's name (at most %d bytes)",
                       c->bridge, IF_NAMESIZE - 1);
    if (c->cgroup_parent[0] != '/')
        return hp_fail(e, HP_EINVAL, "cgroup_parent in [agent]: \"%s\" does not begin with /", c->cgroup_parent);
    if (list_len(c->routers) > HA_ROUTERS_MAX)
        return hp_fail(e, HP_ELIMIT, "routers in [agent]: %zu, at most %d", list_len(c->routers), HA_ROUTERS_MAX);
    if (!c->plain && (!c->tls_ca[0] || !c->tls_cert[0] || !c->tls_key[0]))
        return hp_fail(e, HP_EINVAL, "ca, cert and key in [tls] must be set (or plain in [agent], for tests)");
    struct ha_rt_options o;
    ha_config_networks(c, &o);
    int code = ha_rt_check_networks(&o, e);
    if (!code)
        code = check_pairs("labels", c->labels, HA_LABELS_MAX, e);
    if (!code)
        code = check_pairs("taints", c->taints, HA_TAINTS_MAX, e);
    return code ? code : check_classes(c, e);
}
