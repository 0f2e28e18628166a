#include "shell/config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "shell/weights.h"
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
    {"scheduler", "class_label", HP_CONFIG_STRING, AT(class_label), "class", false, 0, 0,
     "the label of hosts that names their class"},
    {"scheduler", "grace", HP_CONFIG_LIST, AT(graces), NULL, false, 0, 0,
     "other times for hosts of a class: CLASS=SUSPECT:UNKNOWN in seconds, as in edge=120:1800, lab=10:60"},
    {"scheduler", "brake_percent", HP_CONFIG_INT, AT(brake_percent), "30", false, 0, 100,
     "while more percent of the hosts than this are SUSPECT at once, none of them becomes UNKNOWN; 0: no brake"},
    {"scheduler", "brake_hosts", HP_CONFIG_INT, AT(brake_hosts), "5", false, 1, 1000000, "and at least so many hosts"},
    {"scheduler", "dispatch_timeout", HP_CONFIG_TIME, AT(dispatch_ms), "30s", false, 100, 3600000,
     "a command that is not journalled by then leads to a comparison with the host"},
    {"scheduler", "running_timeout", HP_CONFIG_TIME, AT(running_ms), "15min", false, 1000, 86400000,
     "so does a journalled command without a result"},
    {"scheduler", "settle", HP_CONFIG_TIME, AT(settle_ms), "1s", false, 10, 60000,
     "pause before watermark and claims are written for their own sake"},
    {"scheduler", "remove_retry", HP_CONFIG_TIME, AT(remove_retry_ms), "60s", false, 100, 3600000,
     "pause before a removal that failed is tried again"},
    {"scheduler", "stream_remake", HP_CONFIG_TIME, AT(stream_remake_ms), "60s", false, 0, 86400000,
     "a stream of events that the broker could not serve for so long is deleted and declared anew; 0: never"},
    {"scheduler", "drain_parallel", HP_CONFIG_INT, AT(drain_parallel), "4", false, 1, 100,
     "containers that a drain moves at a time, unless it says otherwise"},
    {"scheduler", "restore_wait", HP_CONFIG_TIME, AT(restore_ms), "60s", false, 10, 86400000,
     "after a restore of the record: time for hosts to attach that it does not know, before creates get a place"},
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
    {"scheduler", "hosts_max", HP_CONFIG_INT, AT(hosts_max), "20000", false, 1, 1000000,
     "hosts of a region; others are left out, and an event says so"},
    {"scheduler", "containers_max", HP_CONFIG_INT, AT(containers_max), "1000000", false, 1, 10000000,
     "containers of a region"},
    {"scheduler", "operations_max", HP_CONFIG_INT, AT(operations_max), "1000000", false, 1, 10000000,
     "operations of a region that have not ended"},
    {"scheduler", "overcommit_cpu", HP_CONFIG_INT, AT(overcommit_cpu), "150", false, 1, 10000,
     "percent of a host's allocatable cpu that containers may claim"},
    {"scheduler", "overcommit_memory", HP_CONFIG_INT, AT(overcommit_memory), "100", false, 1, 10000,
     "the same for memory"},
    {"scheduler", "overcommit_disk", HP_CONFIG_INT, AT(overcommit_disk), "100", false, 1, 10000, "the same for disk"},
    {"scheduler", "overcommit_network", HP_CONFIG_INT, AT(overcommit_network), "150", false, 1, 10000,
     "the same for network bandwidth"},
    {"scheduler", "overcommit_storage", HP_CONFIG_LIST, AT(overcommit_storage), NULL, false, 0, 0,
     "the same for storage classes: CLASS=PERCENT, …; 100 for those that are not named; at most 32"},
    {"scheduler", "breaker_cpu", HP_CONFIG_INT, AT(breaker_use[0]), "95", false, 0, 100,
     "the cpu breaker of a host opens when so many percent of its cpu stay in use; 0: never for that"},
    {"scheduler", "breaker_memory", HP_CONFIG_INT, AT(breaker_use[1]), "95", false, 0, 100, "the same for memory"},
    {"scheduler", "breaker_io", HP_CONFIG_INT, AT(breaker_use[2]), "0", false, 0, 100,
     "the same for the time that the busiest block device has work"},
    {"scheduler", "breaker_network", HP_CONFIG_INT, AT(breaker_use[3]), "90", false, 0, 100,
     "the same for the busiest network interface whose speed is known"},
    {"scheduler", "breaker_cpu_pressure", HP_CONFIG_INT, AT(breaker_pressure[0]), "0", false, 0, 100,
     "the cpu breaker opens when something waits for cpu during so many percent of the time; containers at their own "
     "limit count; 0: never for that"},
    {"scheduler", "breaker_memory_pressure", HP_CONFIG_INT, AT(breaker_pressure[1]), "10", false, 0, 100,
     "the memory breaker opens when everything waits for memory during so many percent of the time"},
    {"scheduler", "breaker_io_pressure", HP_CONFIG_INT, AT(breaker_pressure[2]), "40", false, 0, 100,
     "the same for io"},
    {"scheduler", "breaker_close", HP_CONFIG_INT, AT(breaker_close), "80", false, 1, 99,
     "a breaker closes when all its figures are below so many percent of their limits"},
    {"scheduler", "breaker_after", HP_CONFIG_TIME, AT(breaker_after_ms), "30s", false, 0, 3600000,
     "a breaker opens when a limit was reached for so long"},
    {"scheduler", "breaker_close_after", HP_CONFIG_TIME, AT(breaker_close_after_ms), "60s", false, 1000, 86400000,
     "and closes when all was low for so long"},
    {"scheduler", "load_average", HP_CONFIG_TIME, AT(load_average_ms), "15s", false, 0, 3600000,
     "time constant of the averages of hosts' load, at which breakers look"},
    {"scheduler", "load_stale", HP_CONFIG_TIME, AT(load_stale_ms), "30s", false, 1000, 3600000,
     "a load that is older is not believed: the host counts as neither idle nor busy"},
    {"placement", "strategy", HP_CONFIG_STRING, AT(strategy), "spread", false, 0, 0,
     "spread: the host with most left free; pack: the fullest that fits"},
    {"placement", "preemption", HP_CONFIG_STRING, AT(preemption), "off", false, 0, 0,
     "on: when no host has room for a create that may preempt, containers of lower priority have to go; off: never"},
    {"placement", "preemptible_below", HP_CONFIG_INT, AT(preemptible_below), "0", false, -1000, 1001,
     "only containers of a lower priority than this may have to go"},
    {"placement", "preempt_parallel", HP_CONFIG_INT, AT(preempt_parallel), "4", false, 1, SC_PREEMPT_PARALLEL_MAX,
     "containers that are removed for others at a time, in a region"},
    {"placement", "weight_cpu", HP_CONFIG_INT, AT(weight_cpu), "30", false, 0, SC_WEIGHT_MAX,
     "how much a host's free cpu counts in its score"},
    {"placement", "weight_memory", HP_CONFIG_INT, AT(weight_memory), "30", false, 0, SC_WEIGHT_MAX,
     "the same for free memory"},
    {"placement", "weight_disk", HP_CONFIG_INT, AT(weight_disk), "10", false, 0, SC_WEIGHT_MAX,
     "the same for free disk"},
    {"placement", "weight_balance", HP_CONFIG_INT, AT(weight_balance), "15", false, 0, SC_WEIGHT_MAX,
     "the same for cpu and memory being left in equal parts"},
    {"placement", "weight_load", HP_CONFIG_INT, AT(weight_load), "15", false, 0, SC_WEIGHT_MAX,
     "the same for measured idleness"},
    {"placement", "weight_failures", HP_CONFIG_INT, AT(weight_failures), "20", false, 0, SC_WEIGHT_MAX,
     "the same for nothing having failed on the host of late"},
    {"placement", "weight_spread", HP_CONFIG_INT, AT(weight_spread), "600", false, 0, SC_WEIGHT_ASKED_MAX,
     "how much the spread of its group over zones, racks and hosts counts for a container that has a spread_group"},
    {"placement", "weight_primaries", HP_CONFIG_INT, AT(weight_primaries), "1000", false, 0, SC_WEIGHT_ASKED_MAX,
     "the same for the spread of primaries, for a container that is one"},
    {"placement", "weight_preferences", HP_CONFIG_INT, AT(weight_preferences), "30", false, 0, SC_WEIGHT_ASKED_MAX,
     "the same for the preferences that a host meets, for a container that has some"},
    {"placement", "weight_image", HP_CONFIG_INT, AT(weight_image), "10", false, 0, SC_WEIGHT_ASKED_MAX,
     "the same for hosts that have its image, times the share of the region's hosts that do"},
    {"placement", "weight_network", HP_CONFIG_INT, AT(weight_network), "20", false, 0, SC_WEIGHT_ASKED_MAX,
     "where hosts have network functions (SRIOV): how much it counts that they are left to containers that ask for "
     "one, "
     "and used evenly by these"},
    {"placement", "weight_storage", HP_CONFIG_INT, AT(weight_storage), "10", false, 0, SC_WEIGHT_ASKED_MAX,
     "the same for what would be left of the storage classes that a container's volumes ask for, and, for all "
     "containers, for hosts that have no other class: these stay free for those that ask"},
    {"placement", "weights", HP_CONFIG_LIST, AT(weights), NULL, false, 0, 0,
     "where hosts are weighed in another way: [REGION/][CLASS]:ITEM[:ITEM…], an item being spread, pack, or NAME=N "
     "(cpu, "
     "memory, disk, balance, load, failures, spread, primaries, image, preferences, network, storage); CLASS is the "
     "containers' "
     "placement.workload_class"},
    {"placement", "failure_half_life", HP_CONFIG_TIME, AT(failure_half_ms), "10min", false, 1000, 86400000,
     "what has failed on a host counts half as much after so long"},
    {"scheduler", "requests_prefetch", HP_CONFIG_INT, AT(requests_prefetch), "2000", false, 1, 65535,
     "requests held unacknowledged"},
    {"scheduler", "reports_prefetch", HP_CONFIG_INT, AT(reports_prefetch), "4000", false, 1, 65535,
     "reports held unacknowledged"},
    {"broker", "url", HP_CONFIG_BROKER, AT(broker_url), NULL, true, 0, 0,
     "amqp:// or amqps:// URL of the broker; the nodes of a cluster with commas between"},
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

/* CLASS=SUSPECT:UNKNOWN. */
static int parse_grace(const char *text, struct sc_grace *ret, struct hp_error *e)
{
    enum { SECONDS_MAX = 864000 };
    unsigned suspect = 0, unknown = 0;
    int used = 0;
    *ret = (struct sc_grace){0};
    if (sscanf(text, "%63[^=]=%6u:%6u%n", ret->class, &suspect, &unknown, &used) != 3 || text[used])
        return hp_fail(e, HP_EINVAL, "[scheduler] grace: \"%s\" is not of the form CLASS=SUSPECT:UNKNOWN in seconds",
                       text);
    if (suspect < 1 || unknown <= suspect || unknown > SECONDS_MAX)
        return hp_fail(e, HP_EINVAL,
                       "[scheduler] grace: \"%s\": SUSPECT is at least 1, UNKNOWN more than that and at most %d", text,
                       SECONDS_MAX);
    ret->suspect_ms = suspect * 1000ULL;
    ret->unknown_ms = unknown * 1000ULL;
    return 0;
}

static int check_graces(char **graces, struct hp_error *e)
{
    struct sc_grace seen[SC_GRACES_MAX];
    for (int i = 0; graces && graces[i]; i++) {
        if (i == SC_GRACES_MAX)
            return hp_fail(e, HP_EINVAL, "[scheduler] grace: more than %d classes", SC_GRACES_MAX);
        int code = parse_grace(graces[i], &seen[i], e);
        if (code)
            return code;
        for (int k = 0; k < i; k++)
            if (!strcmp(seen[k].class, seen[i].class))
                return hp_fail(e, HP_EINVAL, "[scheduler] grace: class \"%s\" is there twice", seen[i].class);
    }
    return 0;
}

/* CLASS=PERCENT, …; `count` is how many are in `ret` when it is done. */
static int parse_overcommits(char *const *list, struct sc_storage_overcommit *ret, size_t *ret_count,
                             struct hp_error *e)
{
    enum { PERCENT_MAX = 10000 };
    size_t n = 0;
    for (; list && list[n]; n++) {
        int used = 0;
        if (n == SC_STORAGE_OVERCOMMITS_MAX)
            return hp_fail(e, HP_ELIMIT, "[scheduler] overcommit_storage: more than %d classes",
                           SC_STORAGE_OVERCOMMITS_MAX);
        ret[n] = (struct sc_storage_overcommit){0};
        if (sscanf(list[n], "%63[^=]=%6d%n", ret[n].name, &ret[n].percent, &used) != 2 || list[n][used] ||
            !hp_segment_valid(ret[n].name))
            return hp_fail(e, HP_EINVAL, "[scheduler] overcommit_storage: \"%s\" is not of the form CLASS=PERCENT",
                           list[n]);
        if (ret[n].percent < 1 || ret[n].percent > PERCENT_MAX)
            return hp_fail(e, HP_EINVAL, "[scheduler] overcommit_storage: \"%s\": the percentage is 1 to %d", list[n],
                           PERCENT_MAX);
        for (size_t k = 0; k < n; k++)
            if (!strcmp(ret[k].name, ret[n].name))
                return hp_fail(e, HP_EINVAL, "[scheduler] overcommit_storage: class \"%s\" is there twice",
                               ret[n].name);
    }
    *ret_count = n;
    return 0;
}

static void fill_weights(const struct sc_config *c, struct sc_weights *ret)
{
    *ret = (struct sc_weights){.cpu = (int)c->weight_cpu,
                               .memory = (int)c->weight_memory,
                               .disk = (int)c->weight_disk,
                               .balance = (int)c->weight_balance,
                               .load = (int)c->weight_load,
                               .failures = (int)c->weight_failures,
                               .spread = (int)c->weight_spread,
                               .primaries = (int)c->weight_primaries,
                               .preferences = (int)c->weight_preferences,
                               .image = (int)c->weight_image,
                               .network = (int)c->weight_network,
                               .storage = (int)c->weight_storage,
                               .pack = !strcmp(c->strategy, "pack")};
}

int sc_config_check(const void *config, struct hp_error *e)
{
    const struct sc_config *c = config;
    if (!hp_segment_valid(c->name))
        return hp_fail(e, HP_EINVAL, "[scheduler] name: \"%s\" is not of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?",
                       c->name);
    if (c->unknown_ms <= c->suspect_ms)
        return hp_fail(e, HP_EINVAL, "[scheduler] unknown_after must be longer than suspect_after");
    if (strlen(c->class_label) >= sizeof((struct sc_region_config *)0)->class_label)
        return hp_fail(e, HP_EINVAL, "[scheduler] class_label: longer than 63 bytes");
    struct sc_storage_overcommit overcommits[SC_STORAGE_OVERCOMMITS_MAX];
    size_t count;
    int code = check_graces(c->graces, e);
    if (!code)
        code = parse_overcommits(c->overcommit_storage, overcommits, &count, e);
    if (code)
        return code;
    if (!c->db_socket && !c->db_host)
        return hp_fail(e, HP_EINVAL, "[database] socket or host must be set");
    if (strcmp(c->strategy, "spread") != 0 && strcmp(c->strategy, "pack") != 0)
        return hp_fail(e, HP_EINVAL, "[placement] strategy: \"%s\" is neither spread nor pack", c->strategy);
    if (strcmp(c->preemption, "on") != 0 && strcmp(c->preemption, "off") != 0)
        return hp_fail(e, HP_EINVAL, "[placement] preemption: \"%s\" is neither on nor off", c->preemption);
    if (c->weight_cpu + c->weight_memory + c->weight_disk + c->weight_balance + c->weight_load + c->weight_failures ==
        0)
        return hp_fail(e, HP_EINVAL, "[placement] every weight is 0: one at least must count");
    code = check_regions(c->regions, e);
    for (int i = 0; !code && c->regions[i]; i++) {
        struct sc_region_config region = {0};
        fill_weights(c, &region.weights);
        code = sc_weights_apply(c->weights, c->regions[i], &region, e);
    }
    return code;
}

static void fill_load(const struct sc_config *c, struct hp_load_limits *ret)
{
    for (int r = 0; r < HP_RESOURCE_COUNT; r++) {
        ret->use[r] = (int)c->breaker_use[r];
        ret->pressure[r] = (int)c->breaker_pressure[r];
    }
    ret->close_percent = (int)c->breaker_close;
    ret->after_ms = (uint64_t)c->breaker_after_ms;
    ret->close_after_ms = (uint64_t)c->breaker_close_after_ms;
    ret->average_ms = (uint64_t)c->load_average_ms;
    ret->stale_ms = (uint64_t)c->load_stale_ms;
}

void sc_config_region(const struct sc_config *c, const char *region, struct sc_region_config *ret)
{
    sc_region_config_defaults(ret);
    ret->overcommit = (struct sc_overcommit){(int)c->overcommit_cpu, (int)c->overcommit_memory, (int)c->overcommit_disk,
                                             (int)c->overcommit_network};
    if (parse_overcommits(c->overcommit_storage, ret->storage_overcommits, &ret->storage_overcommit_count, NULL))
        ret->storage_overcommit_count = 0; /* sc_config_check has seen it */
    fill_load(c, &ret->load);
    ret->brake_percent = (int)c->brake_percent;
    ret->brake_hosts = (size_t)c->brake_hosts;
    fill_weights(c, &ret->weights);
    if (sc_weights_apply(c->weights, region, ret, NULL))
        ret->class_count = 0; /* sc_config_check has seen it */
    ret->failure_half_ms = (uint64_t)c->failure_half_ms;
    ret->suspect_ms = (uint64_t)c->suspect_ms;
    ret->unknown_ms = (uint64_t)c->unknown_ms;
    snprintf(ret->class_label, sizeof ret->class_label, "%s", c->class_label);
    for (; c->graces && c->graces[ret->grace_count]; ret->grace_count++)
        if (parse_grace(c->graces[ret->grace_count], &ret->graces[ret->grace_count], NULL))
            break; /* sc_config_check has seen it */
    ret->dispatch_ms = (uint64_t)c->dispatch_ms;
    ret->running_ms = (uint64_t)c->running_ms;
    ret->settle_ms = (uint64_t)c->settle_ms;
    ret->restore_ms = (uint64_t)c->restore_ms;
    ret->drain_parallel = (int)c->drain_parallel;
    ret->preemption = !strcmp(c->preemption, "on");
    ret->preemptible_below = (int)c->preemptible_below;
    ret->preempt_parallel = (int)c->preempt_parallel;
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
