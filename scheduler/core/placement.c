#include "core/placement.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const filter_names[SC_FILTER_COUNT] = {
    [SC_FITS] = "",
    [SC_FILTER_STATE] = "state",
    [SC_FILTER_CORDONED] = "cordoned",
    [SC_FILTER_EXCLUDED] = "excluded",
    [SC_FILTER_HOST] = "host",
    [SC_FILTER_ZONE] = "zone",
    [SC_FILTER_LABELS] = "labels",
    [SC_FILTER_ANTI_AFFINITY] = "anti_affinity",
    [SC_FILTER_CPU] = "capacity_cpu",
    [SC_FILTER_MEMORY] = "capacity_memory",
    [SC_FILTER_DISK] = "capacity_disk",
};

const char *sc_filter_name(enum sc_filter f)
{
    assert(f >= SC_FITS && f < SC_FILTER_COUNT);
    return filter_names[f];
}

static int64_t scaled(int64_t value, int percent)
{
    assert(percent >= 0);
    if (value <= 0)
        return 0;
    return value > INT64_MAX / 1000 ? INT64_MAX / 1000 : value / 100 * percent + value % 100 * percent / 100;
}

static void update_free(struct sc_slot *s)
{
    s->free = s->info->limit;
    sc_res_sub(&s->free, &s->info->claimed);
}

static float inverse(int64_t limit)
{
    return limit > 0 ? (float)(1.0 / (double)limit) : 0;
}

void sc_slot_set_allocatable(struct sc_slot *s, const Harpoon__V1__Resources *allocatable,
                             const struct sc_overcommit *o)
{
    struct sc_res *limit = &s->info->limit;
    *limit = (struct sc_res){0};
    if (allocatable) {
        limit->cpu_millis = scaled(allocatable->cpu_millis, o->cpu_percent);
        limit->memory_bytes = scaled(allocatable->memory_bytes, o->memory_percent);
        limit->disk_bytes = scaled(allocatable->disk_bytes, o->disk_percent);
    }
    s->cpu_inverse = inverse(limit->cpu_millis);
    s->memory_inverse = inverse(limit->memory_bytes);
    s->disk_inverse = inverse(limit->disk_bytes);
    update_free(s);
}

void sc_slot_claim(struct sc_slot *s, const struct sc_res *old, const struct sc_res *fresh)
{
    struct sc_res *claimed = &s->info->claimed;
    if (old)
        sc_res_sub(claimed, old);
    if (fresh)
        sc_res_add(claimed, fresh);
    assert(claimed->cpu_millis >= 0 && claimed->memory_bytes >= 0 && claimed->disk_bytes >= 0);
    update_free(s);
}

static bool zone_matches(const Harpoon__V1__PlacementSpec *p, const char *zone)
{
    for (size_t i = 0; i < p->n_zones; i++)
        if (!strcmp(p->zones[i], zone))
            return true;
    return p->n_zones == 0;
}

static bool labels_match(const Harpoon__V1__PlacementSpec *p, const Harpoon__V1__Host *host)
{
    for (size_t i = 0; i < p->n_host_labels; i++) {
        bool found = false;
        for (size_t k = 0; k < host->n_labels && !found; k++)
            found = !strcmp(p->host_labels[i]->key, host->labels[k]->key) &&
                    !strcmp(p->host_labels[i]->value, host->labels[k]->value);
        if (!found)
            return false;
    }
    return true;
}

enum sc_filter sc_slot_check_room(const struct sc_slot *s, const struct sc_res *more)
{
    /* What shrinks or stays always fits, even on a host that has become smaller. */
    if (more->cpu_millis > 0 && more->cpu_millis > s->free.cpu_millis)
        return SC_FILTER_CPU;
    if (more->memory_bytes > 0 && more->memory_bytes > s->free.memory_bytes)
        return SC_FILTER_MEMORY;
    if (more->disk_bytes > 0 && more->disk_bytes > s->free.disk_bytes)
        return SC_FILTER_DISK;
    return SC_FITS;
}

static enum sc_filter check_spec(const struct sc_slot *s, const struct sc_query *q)
{
    const Harpoon__V1__PlacementSpec *p = q->spec;
    if (*p->host && strcmp(p->host, s->info->name) != 0)
        return SC_FILTER_HOST;
    if (p->n_zones && !zone_matches(p, s->info->pb->zone))
        return SC_FILTER_ZONE;
    if (p->n_host_labels && !labels_match(p, s->info->pb))
        return SC_FILTER_LABELS;
    return s->group_stamp == q->stamp ? SC_FILTER_ANTI_AFFINITY : SC_FITS;
}

enum sc_filter sc_slot_check(const struct sc_slot *s, const struct sc_query *q)
{
    if (!s->ready)
        return SC_FILTER_STATE;
    if (s->cordoned)
        return SC_FILTER_CORDONED;
    if (s->excluded_stamp == q->stamp)
        return SC_FILTER_EXCLUDED;
    enum sc_filter f = q->spec ? check_spec(s, q) : SC_FITS;
    return f == SC_FITS ? sc_slot_check_room(s, &q->need) : f;
}

/* The part of a resource that would be left. */
static double left(int64_t free, int64_t need, float inverse_limit)
{
    double v = (double)(free - need) * (double)inverse_limit;
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

void sc_slot_score(const struct sc_slot *s, const struct sc_query *q, struct sc_score *ret)
{
    ret->cpu = left(s->free.cpu_millis, q->need.cpu_millis, s->cpu_inverse);
    ret->memory = left(s->free.memory_bytes, q->need.memory_bytes, s->memory_inverse);
    ret->disk = left(s->free.disk_bytes, q->need.disk_bytes, s->disk_inverse);
    /* A host that runs out of one resource first wastes the other. */
    double skew = ret->cpu - ret->memory;
    ret->balance = 1.0 - (skew < 0 ? -skew : skew);
    ret->load = (double)s->idle;
    ret->total = 30 * ret->cpu + 30 * ret->memory + 10 * ret->disk + 15 * ret->balance + 15 * ret->load;
    assert(ret->total >= 0 && ret->total <= 100.0001);
}

ptrdiff_t sc_place_best(const struct sc_slot *slots, size_t count, const struct sc_query *q, int *rejected)
{
    ptrdiff_t best = -1;
    double best_total = -1;
    if (rejected)
        memset(rejected, 0, SC_FILTER_COUNT * sizeof *rejected);
    for (size_t i = 0; i < count; i++) {
        enum sc_filter f = sc_slot_check(&slots[i], q);
        if (rejected)
            rejected[f]++;
        if (f != SC_FITS)
            continue;
        struct sc_score score;
        sc_slot_score(&slots[i], q, &score);
        if (score.total > best_total) {
            best_total = score.total;
            best = (ptrdiff_t)i;
        }
    }
    return best;
}

void sc_place_reason(const int *rejected, size_t host_count, char *out, size_t size)
{
    static const char *const words[SC_FILTER_COUNT] = {
        [SC_FILTER_STATE] = "not ready",
        [SC_FILTER_CORDONED] = "cordoned",
        [SC_FILTER_EXCLUDED] = "refused it",
        [SC_FILTER_HOST] = "not the host asked for",
        [SC_FILTER_ZONE] = "in another zone",
        [SC_FILTER_LABELS] = "without the labels",
        [SC_FILTER_ANTI_AFFINITY] = "taken by the anti-affinity group",
        [SC_FILTER_CPU] = "short of cpu",
        [SC_FILTER_MEMORY] = "short of memory",
        [SC_FILTER_DISK] = "short of disk",
    };
    assert(size > 0);
    if (!host_count) {
        snprintf(out, size, "waits for a host: none is known");
        return;
    }
    int n = snprintf(out, size, "waits for a host: none of %zu fits", host_count);
    const char *mark = " (";
    for (int f = 1; f < SC_FILTER_COUNT && n > 0 && (size_t)n < size; f++) {
        if (!rejected[f])
            continue;
        n += snprintf(out + n, size - (size_t)n, "%s%d %s", mark, rejected[f], words[f]);
        mark = ", ";
    }
    if (n > 0 && (size_t)n + 1 < size && mark[0] == ',')
        memcpy(out + n, ")", 2);
}
