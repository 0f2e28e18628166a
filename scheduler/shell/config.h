/* config.h — the scheduler's configuration. */
#ifndef SC_SHELL_CONFIG_H
#define SC_SHELL_CONFIG_H

#include "core/region.h"
#include "io/config.h"

enum { SC_REGIONS_MAX = 64 };

struct sc_config {
    char *name;     /* of this scheduler, in connection names and as holder of its regions */
    char **regions; /* that it may lead */
    char *broker_url, *broker_ca, *broker_cert, *broker_key;
    char *db_socket, *db_host, *db_user, *db_password, *db_name, *db_ca, *db_cert, *db_key;
    int64_t db_port;
    char *class_label, **graces;
    int64_t suspect_ms, unknown_ms, dispatch_ms, running_ms, settle_ms, remove_retry_ms, restore_ms, stream_remake_ms,
        drain_parallel;
    int64_t events_max, events_age_ms, operations_age_ms;
    int64_t recent_max, known_max, backlog_max, hosts_max, containers_max, operations_max;
    int64_t overcommit_cpu, overcommit_memory, overcommit_disk, overcommit_network; /* percent */
    char **overcommit_storage;                                                      /* "class=percent" */
    char *strategy, **weights;
    int64_t weight_cpu, weight_memory, weight_disk, weight_balance, weight_load, weight_failures, weight_spread,
        weight_primaries, weight_preferences, weight_image, weight_network, weight_storage, failure_half_ms;
    char *preemption;
    int64_t preemptible_below, preempt_parallel;
    int64_t brake_percent, brake_hosts;
    int64_t breaker_use[HP_RESOURCE_COUNT], breaker_pressure[HP_RESOURCE_COUNT], breaker_close; /* percent */
    int64_t breaker_after_ms, breaker_close_after_ms, load_average_ms, load_stale_ms;
    int64_t requests_prefetch, reports_prefetch;
};

extern const struct hp_config_key sc_config_keys[];
/* Cross-checks, for struct hp_daemon_spec. */
int sc_config_check(const void *config, struct hp_error *e);
/* The core's part of it, for one of its regions. */
void sc_config_region(const struct sc_config *c, const char *region, struct sc_region_config *ret);

#endif
