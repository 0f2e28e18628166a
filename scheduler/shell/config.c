#include "shell/config.h"

#include <stddef.h>
#include <string.h>

#include "wire/names.h"

#define AT(member) offsetof(struct sc_config, member)

const struct hp_config_key sc_config_keys[] = {
    {"scheduler", "name", HP_CONFIG_STRING, AT(name), NULL, true, 0, 0,
     "name of this scheduler, unique among its peers"},
    {"scheduler", "regions", HP_CONFIG_LIST, AT(regions), NULL, true, 0, 0, "regions that it leads or stands by for"},
    {"scheduler", "suspect_after", HP_CONFIG_TIME, AT(suspect_ms), "30s", false, 1000, 86400000,
     "a host is SUSPECT after so much silence"},
    {"scheduler", "unknown_after", HP_CONFIG_TIME, AT(unknown_ms), "5min", false, 2000, 864000000,
     "a host is UNKNOWN after so much silence"},
    {"scheduler", "dispatch_timeout", HP_CONFIG_TIME, AT(dispatch_ms), "30s", false, 100, 3600000,
     "a command that is not journalled by then leads to a comparison with the host"},
    {"scheduler", "running_timeout", HP_CONFIG_TIME, AT(running_ms), "15min", false, 1000, 86400000,
     "so does a journalled command without a result"},
    {"scheduler", "settle", HP_CONFIG_TIME, AT(settle_ms), "1s", false, 10, 60000,
     "pause before watermark and claims are written for their own sake"},
    {"scheduler", "remove_retry", HP_CONFIG_TIME, AT(remove_retry_ms), "60s", false, 100, 3600000,
     "pause before a removal that failed is tried again"},
    {"scheduler", "events_max", HP_CONFIG_INT, AT(events_max), "2000000", false, 1000, 1000000000,
     "events kept in the record"},
    {"scheduler", "events_age", HP_CONFIG_TIME, AT(events_age_ms), "7d", false, 0, 0,
     "events older than this are deleted; 0: no limit"},
    {"scheduler", "operations_age", HP_CONFIG_TIME, AT(operations_age_ms), "7d", false, 0, 0,
     "ended operations older than this are deleted, and their request ids may be used again; 0: no limit"},
    {"scheduler", "recent_max", HP_CONFIG_INT, AT(recent_max), "50000", false, 0, 10000000,
     "ended operations kept in memory"},
    {"scheduler", "known_max", HP_CONFIG_INT, AT(known_max), "500000", false, 0, 100000000,
     "operation ids kept in memory; with more, new requests cost a look into the record"},
    {"scheduler", "backlog_max", HP_CONFIG_INT, AT(backlog_max), "200000", false, 1000, 10000000,
     "events that the stream has not confirmed; with more, nothing new is taken in"},
    {"scheduler", "hosts_max", HP_CONFIG_INT, AT(hosts_max), "20000", false, 1, 1000000, "hosts of a region"},
    {"scheduler", "containers_max", HP_CONFIG_INT, AT(containers_max), "1000000", false, 1, 10000000,
     "containers of a region"},
    {"scheduler", "operations_max", HP_CONFIG_INT, AT(operations_max), "1000000", false, 1, 10000000,
     "operations of a region that have not ended"},
    {"scheduler", "overcommit_cpu", HP_CONFIG_INT, AT(overcommit_cpu), "150", false, 1, 10000,
     "percent of a host's allocatable cpu that containers may claim"},
    {"scheduler", "overcommit_memory", HP_CONFIG_INT, AT(overcommit_memory), "100", false, 1, 10000,
     "the same for memory"},
    {"scheduler", "overcommit_disk", HP_CONFIG_INT, AT(overcommit_disk), "100", false, 1, 10000, "the same for disk"},
    {"scheduler", "requests_prefetch", HP_CONFIG_INT, AT(requests_prefetch), "2000", false, 1, 65535,
     "requests held unacknowledged"},
    {"scheduler", "reports_prefetch", HP_CONFIG_INT, AT(reports_prefetch), "4000", false, 1, 65535,
     "reports held unacknowledged"},
    {"broker", "url", HP_CONFIG_BROKER, AT(broker_url), NULL, true, 0, 0, "amqp:// or amqps:// URL of the broker"},
    {"broker", "ca", HP_CONFIG_FILE, AT(broker_ca), NULL, false, 0, 0, "PEM file of the broker's CA (amqps)"},
    {"broker", "cert", HP_CONFIG_FILE, AT(broker_cert), NULL, false, 0, 0, "PEM file of our certificate (amqps)"},
    {"broker", "key", HP_CONFIG_FILE, AT(broker_key), NULL, false, 0, 0, "PEM file of its key"},
    {"database", "socket", HP_CONFIG_STRING, AT(db_socket), NULL, false, 0, 0, "MariaDB's UNIX socket"},
    {"database", "host", HP_CONFIG_STRING, AT(db_host), NULL, false, 0, 0, "MariaDB's host, when there is no socket"},
    {"database", "port", HP_CONFIG_INT, AT(db_port), "3306", false, 1, 65535, "MariaDB's port"},
    {"database", "user", HP_CONFIG_STRING, AT(db_user), NULL, true, 0, 0, "a user who may write the record"},
    {"database", "password", HP_CONFIG_STRING, AT(db_password), NULL, false, 0, 0, "the user's password"},
    {"database", "name", HP_CONFIG_STRING, AT(db_name), "harpoon", false, 0, 0, "database of the record"},
    {"database", "ca", HP_CONFIG_FILE, AT(db_ca), NULL, false, 0, 0, "PEM file of MariaDB's CA: then TLS is used"},
    {"database", "cert", HP_CONFIG_FILE, AT(db_cert), NULL, false, 0, 0, "PEM file of our certificate"},
    {"database", "key", HP_CONFIG_FILE, AT(db_key), NULL, false, 0, 0, "PEM file of its key"},
    {0},
};

static int check_regions(char **regions, struct hp_error *e)
{
    int count = 0;
    for (; regions && regions[count]; count++) {
        if (!hp_segment_valid(regions[count]))
            return hp_fail(e, HP_EINVAL, "[scheduler] regions: \"%s\" is not a region's name", regions[count]);
        for (int i = 0; i < count; i++)
            if (!strcmp(regions[i], regions[count]))
                return hp_fail(e, HP_EINVAL, "[scheduler] regions: \"%s\" is there twice", regions[i]);
    }
    if (count == 0 || count > SC_REGIONS_MAX)
        return hp_fail(e, HP_EINVAL, "[scheduler] regions: %d regions; allowed are 1 to %d", count, SC_REGIONS_MAX);
    return 0;
}

int sc_config_check(const void *config, struct hp_error *e)
{
    const struct sc_config *c = config;
    if (!hp_segment_valid(c->name))
        return hp_fail(e, HP_EINVAL, "[scheduler] name: \"%s\" is not of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?",
                       c->name);
    if (c->unknown_ms <= c->suspect_ms)
        return hp_fail(e, HP_EINVAL, "[scheduler] unknown_after must be longer than suspect_after");
    if (!c->db_socket && !c->db_host)
        return hp_fail(e, HP_EINVAL, "[database] socket or host must be set");
    return check_regions(c->regions, e);
}

void sc_config_region(const struct sc_config *c, struct sc_region_config *ret)
{
    sc_region_config_defaults(ret);
    ret->overcommit =
        (struct sc_overcommit){(int)c->overcommit_cpu, (int)c->overcommit_memory, (int)c->overcommit_disk};
    ret->suspect_ms = (uint64_t)c->suspect_ms;
    ret->unknown_ms = (uint64_t)c->unknown_ms;
    ret->dispatch_ms = (uint64_t)c->dispatch_ms;
    ret->running_ms = (uint64_t)c->running_ms;
    ret->settle_ms = (uint64_t)c->settle_ms;
    ret->remove_retry_ms = (uint64_t)c->remove_retry_ms;
    ret->events_max = c->events_max;
    ret->events_age_ms = c->events_age_ms;
    ret->operations_age_ms = c->operations_age_ms;
    ret->recent_max = (size_t)c->recent_max;
    ret->known_max = (size_t)c->known_max;
    ret->backlog_max = (size_t)c->backlog_max;
    ret->hosts_max = (size_t)c->hosts_max;
    ret->containers_max = (size_t)c->containers_max;
    ret->operations_max = (size_t)c->operations_max;
}
