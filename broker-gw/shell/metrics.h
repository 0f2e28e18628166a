/* metrics.h — what the gateway counts. */
#ifndef GW_METRICS_H
#define GW_METRICS_H

#include "core/verdicts.h"
#include "io/metrics.h"

extern struct hp_metric gw_metric_accept;  /* publish to confirm */
extern struct hp_metric gw_metric_verdict; /* publish to answer */
extern struct hp_metric gw_metric_events, gw_metric_repeats, gw_metric_gaps, gw_metric_bad_events;
extern struct hp_metric gw_metric_watches, gw_metric_waits, gw_metric_pending, gw_metric_reads, gw_metric_streams,
    gw_metric_slow_watches;

void gw_metrics_register(void);
void gw_metrics_published(enum gw_published outcome);

#endif
