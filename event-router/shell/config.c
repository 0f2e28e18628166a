#include "shell/config.h"

#include "wire/names.h"

#define AT(field) offsetof(struct er_config, field)

const struct hp_config_key er_config_keys[] = {
    {"router", "name", HP_CONFIG_STRING, AT(name), NULL, true, 0, 0, "name of this router, such as er-1"},
    {"router", "region", HP_CONFIG_STRING, AT(region), NULL, true, 0, 0, "region whose hosts attach here"},
    {"router", "listen", HP_CONFIG_ADDRESS, AT(listen), NULL, true, 0, 0, "address:port for agents; port 0: any"},
    {"router", "heartbeat", HP_CONFIG_TIME, AT(heartbeat_ms), "5s", false, 100, 600000,
     "agents are heard from this often; after three times that a host counts as lost"},
    {"router", "metrics_interval", HP_CONFIG_TIME, AT(metrics_ms), "5s", false, 100, 600000,
     "how often agents send metrics"},
    {"router", "window", HP_CONFIG_INT, AT(window), "32", false, 1, 1000, "commands without a result per host"},
    {"router", "drain", HP_CONFIG_TIME, AT(drain_ms), "10s", false, 0, 600000,
     "at the end, how long agents have to move to another router"},
    {"router", "sessions_max", HP_CONFIG_INT, AT(sessions_max), "20000", false, 1, 200000, "connections of agents"},
    {"router", "attaches_max", HP_CONFIG_INT, AT(attaches_max), "2000", false, 1, 200000,
     "attachments under way to the scheduler; further agents are told to come back"},
    {"router", "handshakes_max", HP_CONFIG_INT, AT(handshakes_max), "256", false, 1, 100000,
     "TLS handshakes at a time"},
    {"router", "write_queue", HP_CONFIG_SIZE, AT(write_queue_bytes), "8M", false, 2 << 20, 1 << 30,
     "bytes that may wait for a host; more: it is cut off as too slow"},
    {"router", "plain", HP_CONFIG_BOOL, AT(plain), "no", false, 0, 0, "no TLS and no identities: for tests only"},
    {"tls", "ca", HP_CONFIG_FILE, AT(tls_ca), "", false, 0, 0, "CA of the agents' certificates (PEM file)"},
    {"tls", "cert", HP_CONFIG_FILE, AT(tls_cert), "", false, 0, 0, "certificate of this router (PEM file)"},
    {"tls", "key", HP_CONFIG_FILE, AT(tls_key), "", false, 0, 0, "its private key (PEM file)"},
    {"broker", "url", HP_CONFIG_BROKER, AT(broker_url), NULL, true, 0, 0,
     "amqp:// or amqps:// URL of the broker; the nodes of a cluster with commas between"},
    {"broker", "ca", HP_CONFIG_FILE, AT(broker_ca), "", false, 0, 0, "amqps: CA (PEM file)"},
    {"broker", "cert", HP_CONFIG_FILE, AT(broker_cert), "", false, 0, 0, "amqps: client certificate (PEM file)"},
    {"broker", "key", HP_CONFIG_FILE, AT(broker_key), "", false, 0, 0, "amqps: its private key (PEM file)"},
    {0},
};

int er_config_check(const void *config, struct hp_error *e)
{
    const struct er_config *c = config;
    if (!hp_segment_valid(c->name))
        return hp_fail(e, HP_EINVAL,
                       "name in [router]: \"%s\" is not a name (lower-case letters, digits, dashes; at most 63)",
                       c->name);
    if (!hp_segment_valid(c->region))
        return hp_fail(e, HP_EINVAL, "region in [router]: \"%s\" is not a region's name", c->region);
    if (!c->plain && (!*c->tls_ca || !*c->tls_cert || !*c->tls_key))
        return hp_fail(e, HP_EINVAL, "ca, cert and key in [tls] must be set (or plain in [router], for tests)");
    return 0;
}
