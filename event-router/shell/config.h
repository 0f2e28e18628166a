/* config.h — the event-router's configuration. */
#ifndef ER_SHELL_CONFIG_H
#define ER_SHELL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "io/config.h"

struct er_config {
    char *name, *region, *listen;
    int64_t heartbeat_ms, metrics_ms, drain_ms;
    int64_t window, sessions_max, attaches_max, handshakes_max, write_queue_bytes;
    bool plain;
    char *tls_ca, *tls_cert, *tls_key;
    char *broker_url, *broker_ca, *broker_cert, *broker_key;
};

extern const struct hp_config_key er_config_keys[];
/* Cross-checks: struct hp_daemon_spec.check. */
int er_config_check(const void *config, struct hp_error *e);

#endif
