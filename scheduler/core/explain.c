/* explain.c — the answer to "why this host, why not that one", from the functions that place. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/placement.h"

struct ranked {
    const struct sc_slot *slot;
    enum sc_filter filter;
    struct sc_score score;
};

static int by_rank(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    if ((a->filter == SC_FITS) != (b->filter == SC_FITS))
        return a->filter == SC_FITS ? -1 : 1;
    if (a->filter == SC_FITS && a->score.total != b->score.total)
        return a->score.total > b->score.total ? -1 : 1;
    return strcmp(a->slot->info->name, b->slot->info->name);
}

static void detail(const struct ranked *r, const struct sc_query *q, char *out, size_t size)
{
    const struct sc_slot *s = r->slot;
    const struct sc_slot_info *i = s->info;
    switch (r->filter) {
    case SC_FILTER_CPU:
        snprintf(out, size, "needs %" PRId64 " cpu_millis, %" PRId64 " of %" PRId64 " are free", q->need.cpu_millis,
                 s->free.cpu_millis, i->limit.cpu_millis);
        break;
    case SC_FILTER_MEMORY:
        snprintf(out, size, "needs %" PRId64 " bytes of memory, %" PRId64 " of %" PRId64 " are free",
                 q->need.memory_bytes, s->free.memory_bytes, i->limit.memory_bytes);
        break;
    case SC_FILTER_DISK:
        snprintf(out, size, "needs %" PRId64 " bytes of disk, %" PRId64 " of %" PRId64 " are free", q->need.disk_bytes,
                 s->free.disk_bytes, i->limit.disk_bytes);
        break;
    case SC_FILTER_STATE:
        snprintf(out, size, "%s", *i->pb->router ? "does not answer" : "is not attached");
        break;
    case SC_FILTER_ZONE:
        snprintf(out, size, "is in zone \"%s\"", i->pb->zone);
        break;
    case SC_FITS:
        snprintf(out, size,
                 "claimed: %" PRId64 " of %" PRId64 " cpu_millis, %" PRId64 " of %" PRId64 " bytes of memory",
                 i->claimed.cpu_millis, i->limit.cpu_millis, i->claimed.memory_bytes, i->limit.memory_bytes);
        break;
    case SC_FILTER_CORDONED:
        snprintf(out, size, "takes no new containers");
        break;
    case SC_FILTER_EXCLUDED:
        snprintf(out, size, "refused this operation before");
        break;
    case SC_FILTER_HOST:
        snprintf(out, size, "host \"%s\" was asked for", q->spec->host);
        break;
    case SC_FILTER_LABELS:
        snprintf(out, size, "lacks a label that was asked for");
        break;
    case SC_FILTER_ANTI_AFFINITY:
        snprintf(out, size, "has a container of group \"%s\"", q->spec->anti_affinity_group);
        break;
    case SC_FILTER_COUNT:
        assert(!"not a filter");
    }
}

static int add_parts(Harpoon__V1__HostVerdict *v, const struct sc_score *score)
{
    const struct {
        const char *name;
        double value;
    } parts[] = {{"cpu", score->cpu},
                 {"memory", score->memory},
                 {"disk", score->disk},
                 {"balance", score->balance},
                 {"load", score->load}};
    size_t n = sizeof parts / sizeof *parts;
    v->parts = calloc(n, sizeof *v->parts);
    if (!v->parts)
        return HP_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        Harpoon__V1__HostVerdict__PartsEntry *p = malloc(sizeof *p);
        if (!p)
            return HP_ENOMEM;
        harpoon__v1__host_verdict__parts_entry__init(p);
        v->parts[v->n_parts++] = p;
        p->key = strdup(parts[i].name);
        p->value = parts[i].value;
        if (!p->key)
            return HP_ENOMEM;
    }
    return 0;
}

static int add_host(Harpoon__V1__ExplainResponse *out, const struct ranked *r, const struct sc_query *q,
                    const char *region)
{
    char name[256], text[256] = "";
    Harpoon__V1__HostVerdict *v = malloc(sizeof *v);
    if (!v)
        return HP_ENOMEM;
    harpoon__v1__host_verdict__init(v);
    out->hosts[out->n_hosts++] = v;
    snprintf(name, sizeof name, "regions/%s/hosts/%s", region, r->slot->info->name);
    detail(r, q, text, sizeof text);
    v->host = strdup(name);
    v->rejected_by = strdup(sc_filter_name(r->filter));
    v->detail = strdup(text);
    v->score = r->filter == SC_FITS ? r->score.total : 0;
    if (!v->host || !v->rejected_by || !v->detail)
        return HP_ENOMEM;
    return r->filter == SC_FITS ? add_parts(v, &r->score) : 0;
}

static int add_rejected(Harpoon__V1__ExplainResponse *out, const int *rejected)
{
    out->rejected = calloc(SC_FILTER_COUNT, sizeof *out->rejected);
    if (!out->rejected)
        return HP_ENOMEM;
    for (int f = 1; f < SC_FILTER_COUNT; f++) {
        if (!rejected[f])
            continue;
        Harpoon__V1__ExplainResponse__RejectedEntry *x = malloc(sizeof *x);
        if (!x)
            return HP_ENOMEM;
        harpoon__v1__explain_response__rejected_entry__init(x);
        out->rejected[out->n_rejected++] = x;
        x->key = strdup(sc_filter_name((enum sc_filter)f));
        x->value = rejected[f];
        if (!x->key)
            return HP_ENOMEM;
    }
    return 0;
}

int sc_place_explain(const struct sc_slot *slots, size_t count, const struct sc_query *q, const char *region,
                     size_t hosts_max, Harpoon__V1__ExplainResponse **ret)
{
    int rejected[SC_FILTER_COUNT] = {0};
    struct ranked *all = calloc(count ? count : 1, sizeof *all);
    Harpoon__V1__ExplainResponse *out = malloc(sizeof *out);
    int r = HP_ENOMEM;
    if (out)
        harpoon__v1__explain_response__init(out);
    if (!all || !out)
        goto done;
    for (size_t i = 0; i < count; i++) {
        all[i].slot = &slots[i];
        all[i].filter = sc_slot_check(&slots[i], q);
        rejected[all[i].filter]++;
        if (all[i].filter == SC_FITS)
            sc_slot_score(&slots[i], q, &all[i].score);
    }
    qsort(all, count, sizeof *all, by_rank);
    if (hosts_max > count)
        hosts_max = count;
    out->feasible_count = rejected[SC_FITS];
    out->host_count = (int32_t)count;
    out->hosts = calloc(hosts_max ? hosts_max : 1, sizeof *out->hosts);
    r = out->hosts ? 0 : HP_ENOMEM;
    for (size_t i = 0; i < hosts_max && !r; i++)
        r = add_host(out, &all[i], q, region);
    if (!r)
        r = add_rejected(out, rejected);
done:
    free(all);
    if (r && out) {
        harpoon__v1__explain_response__free_unpacked(out, NULL);
        out = NULL;
    }
    if (!r)
        *ret = out;
    return r;
}
