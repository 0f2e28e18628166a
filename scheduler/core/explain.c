/* explain.c — the answer to "why this host, why not that one", from the functions that place. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/network.h"
#include "core/placement.h"

struct ranked {
    const struct sc_slot *slot;
    enum sc_filter filter;
    struct sc_score score;
};

/* Of equals the one that placing would take comes first. */
static int by_rank(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    if ((a->filter == SC_FITS) != (b->filter == SC_FITS))
        return a->filter == SC_FITS ? -1 : 1;
    if (a->filter != SC_FITS)
        return strcmp(a->slot->info->name, b->slot->info->name);
    if (a->score.total != b->score.total)
        return a->score.total > b->score.total ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

/* The first label or expression that does not fit. */
static void labels_detail(const struct ranked *r, const struct sc_query *q, char *out, size_t size)
{
    const Harpoon__V1__Host *pb = r->slot->info->pb;
    for (size_t i = 0; i < q->spec->n_host_labels; i++) {
        Harpoon__V1__PlacementSpec one = HARPOON__V1__PLACEMENT_SPEC__INIT;
        one.host_labels = &q->spec->host_labels[i];
        one.n_host_labels = 1;
        if (sc_labels_fit(&one, pb, NULL))
            continue;
        snprintf(out, size, "lacks label %s=%s", (*one.host_labels)->key, (*one.host_labels)->value);
        return;
    }
    for (size_t i = 0; i < q->spec->n_label_expressions; i++) {
        const Harpoon__V1__LabelExpression *x = q->spec->label_expressions[i];
        const ProtobufCEnumValue *op =
            protobuf_c_enum_descriptor_get_value(&harpoon__v1__label_operator__descriptor, (int)x->operator_);
        const char *word = op ? op->name + sizeof "LABEL_OPERATOR_" - 1 : "?";
        if (sc_expression_fits(x, pb))
            continue;
        if (x->n_values)
            snprintf(out, size, "label %s is not %s %s%s", x->key, word, x->values[0], x->n_values > 1 ? ", …" : "");
        else
            snprintf(out, size, "label %s is not as asked for: %s", x->key, word);
        return;
    }
}

/* What opened it stands in the host. */
static void breaker_detail(const struct ranked *r, char *out, size_t size)
{
    const char *name = hp_resource_name((enum hp_resource)(r->filter - SC_FILTER_BREAKER_CPU));
    const struct sc_slot_info *i = r->slot->info;
    snprintf(out, size, "breaker of %s is open", name);
    for (size_t k = 0; k < i->breaker_count; k++)
        if (!strcmp(i->breakers[k]->resource, name))
            snprintf(out, size, "breaker is open: %s", i->breakers[k]->reason);
}

static void skew_detail(const struct ranked *r, const struct sc_query *q, char *out, size_t size)
{
    static const char *const words[SC_LEVELS] = {"zone", "rack", "host"};
    enum sc_level level = (enum sc_level)(r->filter - SC_FILTER_SPREAD_ZONE);
    const struct sc_topology *t = q->topology;
    snprintf(out, size, "its %s has %" PRId32 " of spread group \"%s\", another has %" PRId32 ": max_skew is %d",
             words[level], sc_topology_members(t, level, sc_topology_domain(t, level, r->slot->info->at)),
             q->spec->spread_group, t->least[level], q->max_skew[level]);
}

static void storage_detail(const struct ranked *r, const struct sc_query *q, char *out, size_t size)
{
    int64_t limit = 0, left = 0;
    const struct sc_storage_item *x = sc_slot_storage_lacks(r->slot, q, &limit, &left);
    assert(x);
    if (limit < 0)
        snprintf(out, size, "has no storage class %s", x->name);
    else
        snprintf(out, size, "needs %" PRId64 " bytes of class %s, %" PRId64 " of %" PRId64 " are free", x->bytes,
                 x->name, left, limit);
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
    case SC_FILTER_FUNCTIONS:
    case SC_FILTER_NETWORK:
    case SC_FILTER_NETWORK_MODE:
        sc_network_detail(s, r->filter, q, out, size);
        break;
    case SC_FILTER_STORAGE:
        storage_detail(r, q, out, size);
        break;
    case SC_FILTER_STATE:
        snprintf(out, size, "%s", s->attached ? "does not answer" : "is not attached");
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
    case SC_FILTER_BREAKER_CPU:
    case SC_FILTER_BREAKER_MEMORY:
    case SC_FILTER_BREAKER_IO:
    case SC_FILTER_BREAKER_NETWORK:
        breaker_detail(r, out, size);
        break;
    case SC_FILTER_EXCLUDED:
        snprintf(out, size, "refused this operation before");
        break;
    case SC_FILTER_HOST:
        snprintf(out, size, "host \"%s\" was asked for", q->spec->host);
        break;
    case SC_FILTER_LABELS:
        labels_detail(r, q, out, size);
        break;
    case SC_FILTER_TAINTS: {
        const Harpoon__V1__Taint *t = sc_taint_against(q->spec, i->pb);
        snprintf(out, size, "has taint %s=%s, which is not tolerated", t->key, t->value);
        break;
    }
    case SC_FILTER_AFFINITY:
        snprintf(out, size, "has no container of affinity group \"%s\", another host has", q->spec->affinity_group);
        break;
    case SC_FILTER_ANTI_AFFINITY:
        snprintf(out, size, "has a container of group \"%s\"", q->spec->anti_affinity_group);
        break;
    case SC_FILTER_SPREAD_ZONE:
    case SC_FILTER_SPREAD_RACK:
    case SC_FILTER_SPREAD_HOST:
        skew_detail(r, q, out, size);
        break;
    case SC_FILTER_COUNT:
        assert(!"not a filter");
    }
}

static int add_parts(Harpoon__V1__HostVerdict *v, const struct sc_query *q, const struct sc_score *score)
{
    const struct {
        const char *name;
        int32_t value;
        bool counts;
    } parts[] = {{"cpu", score->cpu, true},
                 {"memory", score->memory, true},
                 {"disk", score->disk, true},
                 {"balance", score->balance, true},
                 {"load", score->load, true},
                 {"failures", score->failures, true},
                 {"spread", score->spread, q->spread},
                 {"primaries", score->primaries, q->primary},
                 {"image", score->image, q->image},
                 {"network", score->network, q->network},
                 {"preferences", score->preferences, q->spec && q->spec->n_preferences},
                 {"storage", score->storage, q->storage_counts}};
    size_t n = sizeof parts / sizeof *parts;
    v->parts = calloc(n, sizeof *v->parts);
    if (!v->parts)
        return HP_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (!parts[i].counts)
            continue;
        Harpoon__V1__HostVerdict__PartsEntry *p = malloc(sizeof *p);
        if (!p)
            return HP_ENOMEM;
        harpoon__v1__host_verdict__parts_entry__init(p);
        v->parts[v->n_parts++] = p;
        p->key = strdup(parts[i].name);
        p->value = 100.0 * parts[i].value / SC_UNIT;
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
    v->score = r->filter == SC_FITS ? sc_score_percent(&r->score, q) : 0;
    if (!v->host || !v->rejected_by || !v->detail)
        return HP_ENOMEM;
    return r->filter == SC_FITS ? add_parts(v, q, &r->score) : 0;
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
    sc_place_survey(slots, count, q);
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
