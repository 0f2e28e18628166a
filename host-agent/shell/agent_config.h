/* agent_config.h — the configuration of harpoon-host-agent. */
#ifndef HA_SHELL_AGENT_CONFIG_H
#define HA_SHELL_AGENT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "io/config.h"
#include "shell/rt.h"
#include "wire/load.h"

enum { HA_LABELS_MAX = 32, HA_TAINTS_MAX = 32, HA_ROUTERS_MAX = 64 };

struct ha_config {
    char *host, *region, *zone, *rack;
    char **labels;  /* "key=value" */
    char **taints;  /* the same */
    char **routers; /* "host:port" */
    char *state_dir, *run_dir;
    char *bridge, *subnet, *runtime, *cgroup_parent;
    int64_t cpu_millis, memory_bytes, disk_bytes; /* 0: measured */
    int64_t disk_reserve_bytes;
    int64_t breaker_use[HP_RESOURCE_COUNT], breaker_pressure[HP_RESOURCE_COUNT], breaker_close; /* percent */
    int64_t breaker_after_ms, breaker_close_after_ms, load_average_ms;
    char **insecure_registries;
    bool masquerade;
    bool network_bridge;
    char *macvlan, *macvlan_subnet, *macvlan_addresses, *macvlan_gateway;
    char **sriov;
    char *sriov_subnet, *sriov_addresses, *sriov_gateway;
    char *overlay;
    int64_t network_bps; /* 0: measured */
    int64_t log_bytes_max, image_age_ms, image_bytes_max, stop_wait_ms;
    bool plain;
    char *tls_ca, *tls_cert, *tls_key;
    char **storage_classes; /* "name=directory[:size]" */
};

/* One of storage_classes. HP_EINVAL. */
int ha_config_class(const char *text, struct ha_storage_class *ret, struct hp_error *e) HP_MUST_CHECK;

extern const struct hp_config_key ha_config_keys[];
/* Bridge, subnet, and the other networks; nothing else of the options. Strings stay the configuration's. */
void ha_config_networks(const struct ha_config *c, struct ha_rt_options *ret);
/* Names the key. */
int ha_config_check(const void *config, struct hp_error *e) HP_MUST_CHECK;

#endif
