/* config.h — the gateway's configuration. */
#ifndef GW_CONFIG_H
#define GW_CONFIG_H

#include "base/error.h"
#include "io/config.h"

struct gw_config {
    char *name;                                                   /* of this gateway, in queue and connection names */
    char **regions;                                               /* served */
    char *grpc_listen, *h2c_listen, *http_listen, *allow_origins; /* NULL: not */
    int64_t verdict_timeout_ms;
    char *tokens_file;
    char *broker_url, *broker_ca, *broker_cert, *broker_key;
    char *tls_ca, *tls_cert, *tls_key;
    char *db_socket, *db_host, *db_user, *db_password, *db_name;
    int64_t db_port, db_connections;
};

extern const struct hp_config_key gw_config_keys[];
/* Cross-checks, for struct hp_daemon_spec. Reads the tokens file too. */
int gw_config_check(const void *config, struct hp_error *e);

#endif
