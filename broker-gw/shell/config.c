#include "shell/config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "shell/gateway.h"
#include "wire/names.h"

#define AT(member) offsetof(struct gw_config, member)

const struct hp_config_key gw_config_keys[] = {
    {"gateway", "name", HP_CONFIG_STRING, AT(name), NULL, true, 0, 0, "name of this gateway, unique among its peers"},
    {"gateway", "regions", HP_CONFIG_LIST, AT(regions), NULL, true, 0, 0, "regions that are served"},
    {"gateway", "grpc_listen", HP_CONFIG_ADDRESS, AT(grpc_listen), NULL, false, 0, 0,
     "address:port for gRPC over TLS; port 0: any"},
    {"gateway", "h2c_listen", HP_CONFIG_ADDRESS, AT(h2c_listen), NULL, false, 0, 0,
     "loopback address:port for gRPC without TLS"},
    {"gateway", "http_listen", HP_CONFIG_ADDRESS, AT(http_listen), NULL, false, 0, 0,
     "address:port for Connect over HTTPS (HTTP/1.1)"},
    {"gateway", "verdict_timeout", HP_CONFIG_TIME, AT(verdict_timeout_ms), "2s", false, 1, 60000,
     "how long a change waits for the scheduler's answer before it is answered as ACCEPTED"},
    {"gateway", "allow_origins", HP_CONFIG_STRING, AT(allow_origins), NULL, false, 0, 0,
     "browser origins that may call http_listen, comma-separated"},
    {"gateway", "tokens_file", HP_CONFIG_FILE, AT(tokens_file), NULL, false, 0, 0,
     "INI file of [token NAME] sections; without it every call is UNAUTHENTICATED"},
    {"broker", "url", HP_CONFIG_BROKER, AT(broker_url), NULL, true, 0, 0,
     "amqp:// or amqps:// URL of the broker; the nodes of a cluster with commas between"},
    {"broker", "ca", HP_CONFIG_FILE, AT(broker_ca), NULL, false, 0, 0, "PEM file of the broker's CA (amqps)"},
    {"broker", "cert", HP_CONFIG_FILE, AT(broker_cert), NULL, false, 0, 0, "PEM file of our certificate (amqps)"},
    {"broker", "key", HP_CONFIG_FILE, AT(broker_key), NULL, false, 0, 0, "PEM file of its key"},
    {"tls", "ca", HP_CONFIG_FILE, AT(tls_ca), NULL, false, 0, 0, "PEM file of the CA of clients' certificates"},
    {"tls", "cert", HP_CONFIG_FILE, AT(tls_cert), NULL, false, 0, 0, "PEM file of the server's certificate chain"},
    {"tls", "key", HP_CONFIG_FILE, AT(tls_key), NULL, false, 0, 0, "PEM file of its key"},
    {"database", "socket", HP_CONFIG_STRING, AT(db_socket), NULL, false, 0, 0, "MariaDB's UNIX socket"},
    {"database", "host", HP_CONFIG_STRING, AT(db_host), NULL, false, 0, 0, "MariaDB's host, when there is no socket"},
    {"database", "port", HP_CONFIG_INT, AT(db_port), "3306", false, 1, 65535, "MariaDB's port"},
    {"database", "user", HP_CONFIG_STRING, AT(db_user), NULL, true, 0, 0, "a user who may read the record"},
    {"database", "password", HP_CONFIG_STRING, AT(db_password), NULL, false, 0, 0, "the user's password"},
    {"database", "name", HP_CONFIG_STRING, AT(db_name), "harpoon", false, 0, 0, "database of the record"},
    {"database", "connections", HP_CONFIG_INT, AT(db_connections), "2", false, 1, 32, "readers"},
    {0},
};

static int check_regions(char **regions, struct hp_error *e)
{
    int count = 0;
    for (; regions && regions[count]; count++) {
        if (!hp_segment_valid(regions[count]))
            return hp_fail(e, HP_EINVAL, "[gateway] regions: \"%s\" is not a region's name", regions[count]);
        for (int i = 0; i < count; i++)
            if (strcmp(regions[i], regions[count]) == 0)
                return hp_fail(e, HP_EINVAL, "[gateway] regions: \"%s\" is there twice", regions[i]);
    }
    if (count == 0 || count > GW_REGIONS_MAX)
        return hp_fail(e, HP_EINVAL, "[gateway] regions: %d regions; allowed are 1 to %d", count, GW_REGIONS_MAX);
    return 0;
}

int gw_config_check(const void *config, struct hp_error *e)
{
    const struct gw_config *c = config;
    if (!hp_segment_valid(c->name))
        return hp_fail(e, HP_EINVAL, "[gateway] name: \"%s\" is not of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?",
                       c->name);
    int rc = check_regions(c->regions, e);
    if (rc < 0)
        return rc;
    if (!c->grpc_listen && !c->h2c_listen && !c->http_listen)
        return hp_fail(e, HP_EINVAL, "[gateway] none of grpc_listen, h2c_listen and http_listen is set");
    if ((c->grpc_listen || c->http_listen) && (!c->tls_cert || !c->tls_key))
        return hp_fail(e, HP_EINVAL, "[tls] cert and key must be set for grpc_listen and http_listen");
    if (!c->db_socket && !c->db_host)
        return hp_fail(e, HP_EINVAL, "[database] socket or host must be set");
    if (!c->tokens_file)
        return 0;
    struct hp_file_mark mark;
    struct gw_principals ps;
    gw_principals_init(&ps, 0);
    rc = gw_tokens_load(c->tokens_file, &mark, &ps, e);
    gw_principals_done(&ps);
    return rc;
}
