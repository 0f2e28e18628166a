/* metrics.h — counters, gauges and histograms, exposed in Prometheus' text format at http://ADDRESS/metrics; /healthz answers 200. */
#ifndef HP_IO_METRICS_H
#define HP_IO_METRICS_H

#include <stdint.h>
#include <uv.h>

#include "base/error.h"

/* Static objects, registered once before threads start; updates are atomic and from any thread. Names: harpoon_<component>_<what>_<unit>[_total]. */
enum hp_metric_kind { HP_METRIC_COUNTER, HP_METRIC_GAUGE, HP_METRIC_HISTOGRAM };

#define HP_HISTOGRAM_BUCKETS 20 /* upper bounds in seconds: 50 µs doubled each time, then +Inf */

struct hp_metric {
    enum hp_metric_kind kind;
    const char *name;
    const char *labels; /* `result="acked"` or NULL */
    const char *help;
    _Atomic int64_t value;                             /* counter, gauge; histogram: sum in ns */
    _Atomic int64_t buckets[HP_HISTOGRAM_BUCKETS + 1]; /* histogram */
    struct hp_metric *next;                            /* private */
};

void hp_metric_register(struct hp_metric *m);
void hp_metric_add(struct hp_metric *m, int64_t delta);
void hp_metric_set(struct hp_metric *m, int64_t value);
void hp_metric_observe_ns(struct hp_metric *m, uint64_t ns);

/* Everything registered, as one heap text; the caller frees it. NULL when out of memory. */
char *hp_metrics_render(void);

/* The endpoint: GET and HEAD, one request a connection, at most 32 connections, 10 s each. Loop thread. */
struct hp_metrics_server;
int hp_metrics_serve(uv_loop_t *loop, const char *address, struct hp_metrics_server **ret,
                     struct hp_error *e) HP_MUST_CHECK;
const char *hp_metrics_server_address(const struct hp_metrics_server *m);
/* Closes all connections at once; freed on a later turn. NULL is legal. */
void hp_metrics_server_close(struct hp_metrics_server *m);

#endif
