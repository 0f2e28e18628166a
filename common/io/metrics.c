/* The registry: a list of static objects that only grows. */
#include "io/metrics.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list; values are atomic */
static struct hp_metric *first, *last;

void hp_metric_register(struct hp_metric *m)
{
    assert(m->name && m->help);
    pthread_mutex_lock(&lock);
    for (struct hp_metric *o = first; o; o = o->next) {
        if (o == m) { /* again, by a second instance in one process */
            pthread_mutex_unlock(&lock);
            return;
        }
    }
    m->next = NULL;
    if (last)
        last->next = m;
    else
        first = m;
    last = m;
    pthread_mutex_unlock(&lock);
}

void hp_metric_add(struct hp_metric *m, int64_t delta)
{
    assert(m->kind != HP_METRIC_HISTOGRAM);
    assert(delta >= 0 || m->kind == HP_METRIC_GAUGE);
    atomic_fetch_add_explicit(&m->value, delta, memory_order_relaxed);
}

void hp_metric_set(struct hp_metric *m, int64_t value)
{
    assert(m->kind == HP_METRIC_GAUGE);
    atomic_store_explicit(&m->value, value, memory_order_relaxed);
}

void hp_metric_observe_ns(struct hp_metric *m, uint64_t ns)
{
    assert(m->kind == HP_METRIC_HISTOGRAM);
    int i = 0;
    for (uint64_t bound = 50000; i < HP_HISTOGRAM_BUCKETS && ns > bound; bound *= 2)
        i++;
    atomic_fetch_add_explicit(&m->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->value, (int64_t)ns, memory_order_relaxed);
}

static void render_histogram(FILE *out, struct hp_metric *m)
{
    const char *labels = m->labels ? m->labels : "", *comma = m->labels ? "," : "";
    int64_t count = 0;
    double bound = 50e-6;
    for (int i = 0; i <= HP_HISTOGRAM_BUCKETS; i++, bound *= 2) {
        count += atomic_load_explicit(&m->buckets[i], memory_order_relaxed);
        if (i < HP_HISTOGRAM_BUCKETS)
            fprintf(out, "%s_bucket{%s%sle=\"%g\"} %lld\n", m->name, labels, comma, bound, (long long)count);
        else
            fprintf(out, "%s_bucket{%s%sle=\"+Inf\"} %lld\n", m->name, labels, comma, (long long)count);
    }
    const char *open = m->labels ? "{" : "", *close = m->labels ? "}" : "";
    fprintf(out, "%s_sum%s%s%s %.9f\n", m->name, open, labels, close,
            (double)atomic_load_explicit(&m->value, memory_order_relaxed) / 1e9);
    fprintf(out, "%s_count%s%s%s %lld\n", m->name, open, labels, close, (long long)count);
}

static void render_one(FILE *out, struct hp_metric *m)
{
    if (m->kind == HP_METRIC_HISTOGRAM)
        render_histogram(out, m);
    else
        fprintf(out, "%s%s%s%s %lld\n", m->name, m->labels ? "{" : "", m->labels ? m->labels : "", m->labels ? "}" : "",
                (long long)atomic_load_explicit(&m->value, memory_order_relaxed));
}

/* The text format wants all lines of one name together, below one head. */
static bool head_was_printed(const struct hp_metric *m)
{
    for (const struct hp_metric *o = first; o != m; o = o->next)
        if (strcmp(o->name, m->name) == 0)
            return true;
    return false;
}

char *hp_metrics_render(void)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    pthread_mutex_lock(&lock);
    for (struct hp_metric *m = first; m; m = m->next) {
        if (head_was_printed(m))
            continue;
        fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, kinds[m->kind]);
        for (struct hp_metric *o = m; o; o = o->next)
            if (strcmp(o->name, m->name) == 0)
                render_one(out, o);
    }
    pthread_mutex_unlock(&lock);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
