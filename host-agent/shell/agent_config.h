/* agent_config.h — the configuration of harpoon-host-agent. */
#ifndef HA_SHELL_AGENT_CONFIG_H
#define HA_SHELL_AGENT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "io/config.h"

enum { HA_LABELS_MAX = 32, HA_ROUTERS_MAX = 64 };

struct ha_config {
    char *host, *region, *zone, *rack;
    char **labels;  /* "key=value" */
    char **routers; /* "host:port" */
    char *state_dir, *run_dir;
    char *bridge, *subnet, *runtime, *cgroup_parent;
    int64_t cpu_millis, memory_bytes, disk_bytes; /* 0: measured */
    char **insecure_registries;
    bool masquerade;
    int64_t log_bytes_max, image_age_ms, image_bytes_max, stop_wait_ms;
    bool plain;
    char *tls_ca, *tls_cert, *tls_key;
};

extern const struct hp_config_key ha_config_keys[];
/* Names the key. */
int ha_config_check(const void *config, struct hp_error *e) HP_MUST_CHECK;

#endif
