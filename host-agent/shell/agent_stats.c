#include "shell/agent_stats.h"

#include "io/metrics.h"

#define GAUGE(name_, help_)                                                                                            \
    {                                                                                                                  \
        .kind = HP_METRIC_GAUGE, .name = "harpoon_agent_" name_, .help = (help_)                                       \
    }
#define COUNTER(name_, labels_, help_)                                                                                 \
    {                                                                                                                  \
        .kind = HP_METRIC_COUNTER, .name = "harpoon_agent_" name_, .labels = (labels_), .help = (help_)                \
    }

enum {
    ATTACHED,
    NO_ROOM,
    OVERLOADED,
    CONTAINERS,
    RUNNING,
    QUARANTINED,
    TOMBSTONES,
    REPORTS,
    MEMORY,
    COMMANDS,
    DROPPED,
    STALE,
    REFUSED,
    FAILED,
    RESTARTS,
    COUNT,
};

static struct hp_metric metrics[COUNT] = {
    [ATTACHED] = GAUGE("attached", "1 while a router serves this host."),
    [NO_ROOM] = GAUGE("disk_full", "1 while the disk has less room than disk_reserve: new containers are refused."),
    [OVERLOADED] =
        GAUGE("overloaded", "Resources (cpu, memory, io, network) for which new work is refused at present."),
    [CONTAINERS] = GAUGE("containers", "Containers in the journal."),
    [RUNNING] = GAUGE("containers_running", "Containers with a process."),
    [QUARANTINED] = GAUGE("containers_quarantined", "Containers that are left alone until they are removed."),
    [TOMBSTONES] = GAUGE("tombstones", "Removed containers that are remembered."),
    [REPORTS] = GAUGE("reports_unconfirmed", "Results and observations that the broker does not have yet."),
    [MEMORY] = GAUGE("memory_claimed_bytes", "Memory limits of all containers."),
    [COMMANDS] = COUNTER("commands_total", NULL, "Commands received."),
    [DROPPED] = COUNTER("commands_left_total", "reason=\"dropped\"", "Commands that were not carried out."),
    [STALE] = COUNTER("commands_left_total", "reason=\"stale\"", "Commands that were not carried out."),
    [REFUSED] = COUNTER("commands_left_total", "reason=\"refused\"", "Commands that were not carried out."),
    [FAILED] = COUNTER("commands_failed_total", NULL, "Commands that were tried and failed."),
    [RESTARTS] = COUNTER("restarts_total", NULL, "Restarts by policy or health check."),
};

void ha_stats_register(void)
{
    for (int i = 0; i < COUNT; i++)
        hp_metric_register(&metrics[i]);
}

/* The core counts from its start, as the metric does. */
static void count(int which, uint64_t total)
{
    static uint64_t before[COUNT];
    hp_metric_add(&metrics[which], (int64_t)(total - before[which]));
    before[which] = total;
}

void ha_stats_set(const struct ha_core_stats *s, bool attached, bool no_room, int overloaded)
{
    hp_metric_set(&metrics[OVERLOADED], overloaded);
    hp_metric_set(&metrics[NO_ROOM], no_room);
    hp_metric_set(&metrics[ATTACHED], attached);
    hp_metric_set(&metrics[CONTAINERS], s->containers);
    hp_metric_set(&metrics[RUNNING], s->running);
    hp_metric_set(&metrics[QUARANTINED], s->quarantined);
    hp_metric_set(&metrics[TOMBSTONES], s->tombstones);
    hp_metric_set(&metrics[REPORTS], s->reports);
    hp_metric_set(&metrics[MEMORY], s->memory_bytes_claimed);
    count(COMMANDS, s->commands);
    count(DROPPED, s->dropped);
    count(STALE, s->stale);
    count(REFUSED, s->refused);
    count(FAILED, s->failed);
    count(RESTARTS, s->restarts);
}
