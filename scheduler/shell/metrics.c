#include "shell/metrics.h"

#include <stdio.h>

static void add(struct hp_metric *m, const struct sc_lead_metrics *all, enum hp_metric_kind kind, const char *name,
                const char *help)
{
    m->kind = kind;
    m->name = name;
    m->labels = all->labels;
    m->help = help;
    hp_metric_register(m);
}

void sc_lead_metrics_register(struct sc_lead_metrics *m, const char *region)
{
    snprintf(m->labels, sizeof m->labels, "region=\"%s\"", region);
    add(&m->leading, m, HP_METRIC_GAUGE, "harpoon_scheduler_leading", "1 while this process leads the region");
    add(&m->hosts, m, HP_METRIC_GAUGE, "harpoon_scheduler_hosts", "hosts known");
    add(&m->hosts_attached, m, HP_METRIC_GAUGE, "harpoon_scheduler_hosts_attached", "hosts with a session");
    add(&m->containers, m, HP_METRIC_GAUGE, "harpoon_scheduler_containers", "containers in the record");
    add(&m->operations, m, HP_METRIC_GAUGE, "harpoon_scheduler_operations_active", "operations that have not ended");
    add(&m->pending, m, HP_METRIC_GAUGE, "harpoon_scheduler_pending", "creates that wait for a place");
    add(&m->quarantined, m, HP_METRIC_GAUGE, "harpoon_scheduler_quarantined",
        "containers that hosts have and the record does not know");
    add(&m->breakers, m, HP_METRIC_GAUGE, "harpoon_scheduler_breakers_open",
        "breakers of hosts that are open; a host has one for each of cpu, memory, io, network");
    add(&m->braked, m, HP_METRIC_GAUGE, "harpoon_scheduler_braked",
        "1 while too many hosts are silent at once: none of them is given up");
    add(&m->full, m, HP_METRIC_GAUGE, "harpoon_scheduler_full",
        "1 when hosts were left out, because the region has hosts_max");
    add(&m->victims, m, HP_METRIC_GAUGE, "harpoon_scheduler_victims",
        "containers that are being removed for others of a higher priority");
    add(&m->preempted, m, HP_METRIC_COUNTER, "harpoon_scheduler_preempted_total",
        "containers that had to make room for others");
    add(&m->restored, m, HP_METRIC_GAUGE, "harpoon_scheduler_restored",
        "1 while a restored record is compared with the hosts");
    add(&m->sequence, m, HP_METRIC_GAUGE, "harpoon_scheduler_sequence", "last event's sequence");
    add(&m->watermark, m, HP_METRIC_GAUGE, "harpoon_scheduler_watermark",
        "last sequence that the stream has confirmed");
    add(&m->stream_up, m, HP_METRIC_GAUGE, "harpoon_scheduler_stream_up",
        "0 while the stream of events takes nothing; sequence less watermark says how many wait");
    add(&m->stream_remakes, m, HP_METRIC_COUNTER, "harpoon_scheduler_stream_remakes_total",
        "times that the stream of events was deleted and declared anew");
    add(&m->requests, m, HP_METRIC_COUNTER, "harpoon_scheduler_requests_total", "requests taken in");
    add(&m->reports, m, HP_METRIC_COUNTER, "harpoon_scheduler_reports_total", "reports taken in");
    add(&m->poison, m, HP_METRIC_COUNTER, "harpoon_scheduler_poison_total", "messages dead-lettered");
    add(&m->commits, m, HP_METRIC_COUNTER, "harpoon_scheduler_commits_total", "transactions committed");
    add(&m->rows, m, HP_METRIC_COUNTER, "harpoon_scheduler_rows_total", "rows written");
    add(&m->commit_time, m, HP_METRIC_HISTOGRAM, "harpoon_scheduler_commit_seconds", "time of a transaction");
    add(&m->takeovers, m, HP_METRIC_COUNTER, "harpoon_scheduler_takeovers_total", "reigns begun");
}
