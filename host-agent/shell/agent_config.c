#include "shell/agent_config.h"

#include <net/if.h>
#include <stddef.h>
#include <string.h>

#include "wire/names.h"

#define AT(field) offsetof(struct ha_config, field)

const struct hp_config_key ha_config_keys[] = {
    {"agent", "host", HP_CONFIG_STRING, AT(host), NULL, true, 0, 0, "short name of this host, as in its certificate"},
    {"agent", "region", HP_CONFIG_STRING, AT(region), NULL, true, 0, 0, "region that the host belongs to"},
    {"agent", "zone", HP_CONFIG_STRING, AT(zone), "", false, 0, 0, "zone, for placement"},
    {"agent", "rack", HP_CONFIG_STRING, AT(rack), "", false, 0, 0, "rack, for placement"},
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
    {"tls", "ca", HP_CONFIG_FILE, AT(tls_ca), "", false, 0, 0, "CA of the routers' certificates (PEM file)"},
    {"tls", "cert", HP_CONFIG_FILE, AT(tls_cert), "", false, 0, 0,
     "this host's certificate, with SAN URI harpoon://regions/R/hosts/H (PEM file)"},
    {"tls", "key", HP_CONFIG_FILE, AT(tls_key), "", false, 0, 0, "its private key (PEM file)"},
    {0},
};

static size_t list_len(char *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

static int check_labels(const struct ha_config *c, struct hp_error *e)
{
    if (list_len(c->labels) > HA_LABELS_MAX)
        return hp_fail(e, HP_ELIMIT, "labels in [agent]: %zu, at most %d", list_len(c->labels), HA_LABELS_MAX);
    for (size_t i = 0; c->labels && c->labels[i]; i++) {
        const char *eq = strchr(c->labels[i], '=');
        if (!eq || eq == c->labels[i] || eq - c->labels[i] > HP_SEGMENT_MAX || strlen(eq + 1) > HP_SEGMENT_MAX)
            return hp_fail(e, HP_EINVAL, "labels in [agent]: \"%s\" is not key=value of at most 63 bytes each",
                           c->labels[i]);
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
    return check_labels(c, e);
}
