/* The core's counters as Prometheus metrics. */
#include <stddef.h>

#include "io/metrics.h"
#include "shell/private.h"

struct shown_counter {
    struct hp_metric metric;
    size_t offset; /* in struct er_stats */
};

#define COUNTER(field_, name_, labels_, help_)                                                                         \
    {                                                                                                                  \
        {.kind = HP_METRIC_COUNTER, .name = "harpoon_router_" name_, .labels = labels_, .help = help_},                \
            offsetof(struct er_stats, field_)                                                                          \
    }
#define GAUGE(field_, name_, help_)                                                                                    \
    {                                                                                                                  \
        {.kind = HP_METRIC_GAUGE, .name = "harpoon_router_" name_, .help = help_}, offsetof(struct er_stats, field_)   \
    }

static struct shown_counter table[] = {
    COUNTER(attached, "attachments_total", "result=\"attached\"", "Hellos by result."),
    COUNTER(refused, "attachments_total", "result=\"refused\"", "Hellos by result."),
    COUNTER(detached[ER_DETACH_GOODBYE], "detachments_total", "reason=\"goodbye\"", "Sessions that ended, by reason."),
    COUNTER(detached[ER_DETACH_CONNECTION_LOST], "detachments_total", "reason=\"connection_lost\"",
            "Sessions that ended, by reason."),
    COUNTER(detached[ER_DETACH_HEARTBEAT_MISSED], "detachments_total", "reason=\"heartbeat_missed\"",
            "Sessions that ended, by reason."),
    COUNTER(detached[ER_DETACH_REPLACED], "detachments_total", "reason=\"replaced\"",
            "Sessions that ended, by reason."),
    COUNTER(detached[ER_DETACH_ROUTER_DRAINING], "detachments_total", "reason=\"router_draining\"",
            "Sessions that ended, by reason."),
    COUNTER(detached[ER_DETACH_PROTOCOL_ERROR], "detachments_total", "reason=\"protocol_error\"",
            "Sessions that ended, by reason."),
    COUNTER(detached[ER_DETACH_TOO_SLOW], "detachments_total", "reason=\"too_slow\"",
            "Sessions that ended, by reason."),
    COUNTER(commands, "commands_received_total", NULL, "Commands from the scheduler."),
    COUNTER(commands_sent, "commands_total", "result=\"sent\"",
            "Commands by what became of them; a held one may be sent later."),
    COUNTER(commands_held, "commands_total", "result=\"held\"",
            "Commands by what became of them; a held one may be sent later."),
    COUNTER(commands_expired, "commands_total", "result=\"expired\"",
            "Commands by what became of them; a held one may be sent later."),
    COUNTER(undelivered, "commands_total", "result=\"undelivered\"",
            "Commands by what became of them; a held one may be sent later."),
    COUNTER(commands_bad, "commands_total", "result=\"bad\"",
            "Commands by what became of them; a held one may be sent later."),
    COUNTER(reports, "reports_total", NULL, "Reports taken in for the broker."),
    COUNTER(reports_confirmed, "report_publishes_total", "result=\"confirmed\"", "Publishes of reports by outcome."),
    COUNTER(reports_failed, "report_publishes_total", "result=\"failed\"", "Publishes of reports by outcome."),
    COUNTER(reports_dropped, "reports_dropped_total", NULL, "Own reports dropped at a limit."),
    COUNTER(metrics_batches, "metrics_batches_total", NULL, "Batches of metrics published."),
    COUNTER(samples, "samples_total", "result=\"batched\"", "Samples of hosts."),
    COUNTER(samples_dropped, "samples_total", "result=\"dropped\"", "Samples of hosts."),
    COUNTER(protocol_errors, "protocol_errors_total", NULL, "Broken or unexpected frames."),
    GAUGE(sessions_now, "connections", "Open connections of agents."),
    GAUGE(attached_now, "sessions", "Attached hosts."),
    GAUGE(reports_waiting_now, "own_reports_waiting", "Detach and undelivered reports that wait for the broker."),
    GAUGE(publishing_now, "publishing", "Reports under way to the broker."),
    GAUGE(held_bytes_now, "held_bytes", "Commands that wait for a window."),
    GAUGE(report_bytes_now, "report_bytes", "Reports that are not confirmed."),
    GAUGE(paused_now, "paused_sessions", "Hosts that are not read from until the broker confirms."),
};

void er_stats_register(void)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        hp_metric_register(&table[i].metric);
}

void er_stats_show(struct er_shell *s)
{
    struct er_stats now;
    er_core_stats(s->core, &now);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uint64_t value = *(uint64_t *)((char *)&now + table[i].offset);
        uint64_t before = *(uint64_t *)((char *)&s->shown + table[i].offset);
        if (table[i].metric.kind == HP_METRIC_GAUGE)
            hp_metric_set(&table[i].metric, (int64_t)value);
        else
            hp_metric_add(&table[i].metric, (int64_t)(value - before));
    }
    s->shown = now;
}
