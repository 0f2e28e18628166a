/* metrics.h — what a scheduler counts, for each region. */
#ifndef SC_SHELL_METRICS_H
#define SC_SHELL_METRICS_H

#include "io/metrics.h"

struct sc_lead_metrics {
    char labels[96];
    struct hp_metric leading, hosts, hosts_attached, containers, operations, pending, sequence, watermark;
    struct hp_metric quarantined, restored, breakers, braked, full, victims, preempted;
    struct hp_metric stream_up, stream_remakes;
    struct hp_metric requests, reports, poison, commits, rows, commit_time, takeovers;
};
/* The metrics live as long as the process. */
void sc_lead_metrics_register(struct sc_lead_metrics *m, const char *region);

#endif
