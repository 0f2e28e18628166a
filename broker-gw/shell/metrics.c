#include "shell/metrics.h"

#define P "harpoon_gateway_"

struct hp_metric gw_metric_accept = {HP_METRIC_HISTOGRAM, P "accept_seconds", NULL,
                                     "From publishing a change to the broker's confirm."};
struct hp_metric gw_metric_verdict = {HP_METRIC_HISTOGRAM, P "verdict_seconds", NULL,
                                      "From publishing a change to the scheduler's answer."};
struct hp_metric gw_metric_events = {HP_METRIC_COUNTER, P "events_total", NULL, "Events taken into the rings."};
struct hp_metric gw_metric_repeats = {HP_METRIC_COUNTER, P "event_repeats_total", NULL,
                                      "Events that had been seen before."};
struct hp_metric gw_metric_gaps = {HP_METRIC_COUNTER, P "event_gaps_total", NULL,
                                   "Holes in a stream, filled from the record."};
struct hp_metric gw_metric_bad_events = {HP_METRIC_COUNTER, P "bad_events_total", NULL,
                                         "Messages of a stream that are no event."};
struct hp_metric gw_metric_watches = {HP_METRIC_GAUGE, P "watches", NULL, "Watch calls under way."};
struct hp_metric gw_metric_streams = {HP_METRIC_GAUGE, P "streams_up", NULL,
                                      "Regions whose stream of events can be followed."};
struct hp_metric gw_metric_slow_watches = {HP_METRIC_COUNTER, P "slow_watches_total", NULL,
                                           "Watch calls ended because the reader was too slow."};
struct hp_metric gw_metric_waits = {HP_METRIC_GAUGE, P "waits", NULL, "WaitOperation calls under way."};
struct hp_metric gw_metric_pending = {HP_METRIC_GAUGE, P "pending_changes", NULL, "Changes that wait for an answer."};
struct hp_metric gw_metric_reads = {HP_METRIC_COUNTER, P "record_reads_total", NULL,
                                    "Jobs given to the database threads."};

static struct hp_metric published[] = {
    [GW_PUBLISHED] = {HP_METRIC_COUNTER, P "published_total", "result=\"confirmed\"", "Changes published, by outcome."},
    [GW_QUEUE_FULL] = {HP_METRIC_COUNTER, P "published_total", "result=\"queue_full\"",
                       "Changes published, by outcome."},
    [GW_NO_QUEUE] = {HP_METRIC_COUNTER, P "published_total", "result=\"no_queue\"", "Changes published, by outcome."},
    [GW_NOT_SENT] = {HP_METRIC_COUNTER, P "published_total", "result=\"not_sent\"", "Changes published, by outcome."},
    [GW_OUTCOME_UNKNOWN] = {HP_METRIC_COUNTER, P "published_total", "result=\"unknown\"",
                            "Changes published, by outcome."},
};

void gw_metrics_register(void)
{
    struct hp_metric *const all[] = {&gw_metric_accept,  &gw_metric_verdict, &gw_metric_events,
                                     &gw_metric_repeats, &gw_metric_gaps,    &gw_metric_bad_events,
                                     &gw_metric_watches, &gw_metric_streams, &gw_metric_slow_watches,
                                     &gw_metric_waits,   &gw_metric_pending, &gw_metric_reads};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        hp_metric_register(all[i]);
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++)
        hp_metric_register(&published[i]);
}

void gw_metrics_published(enum gw_published outcome)
{
    hp_metric_add(&published[outcome], 1);
}
