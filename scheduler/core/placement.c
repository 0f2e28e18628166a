#include "core/placement.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/images.h"
#include "core/network.h"

static const char *const filter_names[SC_FILTER_COUNT] = {
    [SC_FITS] = "",
    [SC_FILTER_STATE] = "state",
    [SC_FILTER_CORDONED] = "cordoned",
    [SC_FILTER_BREAKER_CPU] = "breaker_cpu",
    [SC_FILTER_BREAKER_MEMORY] = "breaker_memory",
    [SC_FILTER_BREAKER_IO] = "breaker_io",
    [SC_FILTER_BREAKER_NETWORK] = "breaker_network",
    [SC_FILTER_EXCLUDED] = "excluded",
    [SC_FILTER_NETWORK_MODE] = "network_mode",
    [SC_FILTER_HOST] = "host",
    [SC_FILTER_ZONE] = "zone",
    [SC_FILTER_LABELS] = "labels",
    [SC_FILTER_TAINTS] = "taints",
    [SC_FILTER_AFFINITY] = "affinity",
    [SC_FILTER_ANTI_AFFINITY] = "anti_affinity",
    [SC_FILTER_SPREAD_ZONE] = "spread_zone",
    [SC_FILTER_SPREAD_RACK] = "spread_rack",
    [SC_FILTER_SPREAD_HOST] = "spread_host",
    [SC_FILTER_CPU] = "capacity_cpu",
    [SC_FILTER_MEMORY] = "capacity_memory",
    [SC_FILTER_DISK] = "capacity_disk",
    [SC_FILTER_FUNCTIONS] = "capacity_functions",
    [SC_FILTER_NETWORK] = "capacity_network",
    [SC_FILTER_STORAGE] = "storage_class",
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

static bool overdrawn(const struct sc_slot *s)
{
    return s->free.cpu_millis < 0 || s->free.memory_bytes < 0 || s->free.disk_bytes < 0 || sc_network_overdrawn(s);
}

static void update_free(struct sc_slot *s)
{
    const struct sc_res *limit = &s->info->limit, *claimed = &s->info->claimed;
    s->free.cpu_millis = limit->cpu_millis - claimed->cpu_millis;
    s->free.memory_bytes = limit->memory_bytes - claimed->memory_bytes;
    s->free.disk_bytes = limit->disk_bytes - claimed->disk_bytes;
    s->functions = sc_network_functions(s->info);
    if (!overdrawn(s))
        s->info->smaller = false;
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
        limit->network_bps = scaled(allocatable->network_bps, o->network_percent);
    }
    sc_network_facts(s);
    s->inverse =
        (struct sc_inverse){inverse(limit->cpu_millis), inverse(limit->memory_bytes), inverse(limit->disk_bytes)};
    update_free(s);
    s->info->smaller = overdrawn(s);
}

void sc_slot_claim(struct sc_slot *s, const struct sc_res *old, const struct sc_res *fresh)
{
    struct sc_res *claimed = &s->info->claimed;
    if (old)
        sc_res_sub(claimed, old);
    if (fresh)
        sc_res_add(claimed, fresh);
    assert(claimed->cpu_millis >= 0 && claimed->memory_bytes >= 0 && claimed->disk_bytes >= 0);
    assert(claimed->network_bps >= 0 && claimed->functions >= 0);
    update_free(s);
}

bool sc_zone_fits(const Harpoon__V1__PlacementSpec *p, const char *zone)
{
    for (size_t i = 0; i < p->n_zones; i++)
        if (!strcmp(p->zones[i], zone))
            return true;
    return p->n_zones == 0;
}

/* NULL: it has no such label. */
static const char *label_of(const Harpoon__V1__Host *host, const char *key)
{
    for (size_t i = 0; i < host->n_labels; i++)
        if (!strcmp(host->labels[i]->key, key))
            return host->labels[i]->value;
    return NULL;
}

bool sc_expression_fits(const Harpoon__V1__LabelExpression *x, const Harpoon__V1__Host *host)
{
    const char *value = label_of(host, x->key);
    bool among = false;
    for (size_t i = 0; value && i < x->n_values && !among; i++)
        among = !strcmp(x->values[i], value);
    switch (x->operator_) {
    case HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_IN:
        return among;
    case HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_NOT_IN:
        return !among;
    case HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_EXISTS:
        return value;
    case HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_NOT_EXISTS:
        return !value;
    default: /* of a later version: better nowhere than somewhere wrong */
        return false;
    }
}

bool sc_labels_fit(const Harpoon__V1__PlacementSpec *p, const Harpoon__V1__Host *host, const struct hp_map *blurred)
{
    for (size_t i = 0; i < p->n_host_labels; i++) {
        const char *value = label_of(host, p->host_labels[i]->key);
        if (blurred && hp_map_get(blurred, p->host_labels[i]->key))
            continue;
        if (!value || strcmp(value, p->host_labels[i]->value) != 0)
            return false;
    }
    for (size_t i = 0; i < p->n_label_expressions; i++) {
        if (blurred && hp_map_get(blurred, p->label_expressions[i]->key))
            continue;
        if (!sc_expression_fits(p->label_expressions[i], host))
            return false;
    }
    return true;
}

const Harpoon__V1__Taint *sc_taint_against(const Harpoon__V1__PlacementSpec *p, const Harpoon__V1__Host *host)
{
    for (size_t i = 0; i < host->n_taints; i++) {
        bool tolerated = false;
        for (size_t k = 0; p && k < p->n_tolerations && !tolerated; k++)
            tolerated = !strcmp(p->tolerations[k]->key, host->taints[i]->key) &&
                        (!*p->tolerations[k]->value || !strcmp(p->tolerations[k]->value, host->taints[i]->value));
        if (!tolerated)
            return host->taints[i];
    }
    return NULL;
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
    return sc_network_check_room(s, more);
}

static enum sc_filter check_skew(const struct sc_slot *s, const struct sc_query *q)
{
    struct sc_excess x;
    sc_survey_members(q->topology, s->info->at, &x);
    for (int level = 0; level < SC_LEVELS; level++)
        if (q->max_skew[level] && x.at[level] + 1 > q->max_skew[level])
            return (enum sc_filter)(SC_FILTER_SPREAD_ZONE + level);
    return SC_FITS;
}

static enum sc_filter check_spec(const struct sc_slot *s, const struct sc_query *q)
{
    const Harpoon__V1__PlacementSpec *p = q->spec;
    if (*p->host && strcmp(p->host, s->info->name) != 0)
        return SC_FILTER_HOST;
    if (p->n_zones && !sc_zone_fits(p, s->info->pb->zone))
        return SC_FILTER_ZONE;
    if ((p->n_host_labels || p->n_label_expressions) && !sc_labels_fit(p, s->info->pb, NULL))
        return SC_FILTER_LABELS;
    if (sc_taint_against(p, s->info->pb))
        return SC_FILTER_TAINTS;
    if (q->affine && s->affine_stamp != q->stamp)
        return SC_FILTER_AFFINITY;
    if (s->group_stamp == q->stamp)
        return SC_FILTER_ANTI_AFFINITY;
    return q->spread ? check_skew(s, q) : SC_FITS;
}

/* The first open breaker of a set. */
static enum sc_filter breaker_filter(unsigned set)
{
    return (enum sc_filter)(SC_FILTER_BREAKER_CPU + __builtin_ctz(set));
}

enum sc_filter sc_slot_check(const struct sc_slot *s, const struct sc_query *q)
{
    if (!s->ready)
        return SC_FILTER_STATE;
    if (s->cordoned)
        return SC_FILTER_CORDONED;
    if (s->breakers & q->needs)
        return breaker_filter(s->breakers & q->needs);
    if (s->excluded_stamp == q->stamp)
        return SC_FILTER_EXCLUDED;
    if (q->mode & ~s->modes)
        return SC_FILTER_NETWORK_MODE;
    enum sc_filter f = q->spec ? check_spec(s, q) : s->info->pb->n_taints ? SC_FILTER_TAINTS : SC_FITS;
    if (f == SC_FITS)
        f = sc_slot_check_room(s, &q->need);
    return f == SC_FITS && sc_slot_storage_lacks(s, q, NULL, NULL) ? SC_FILTER_STORAGE : f;
}

int32_t sc_part(int64_t x, float inverse)
{
    double v = (double)x * (double)inverse;
    return v <= 0 ? 0 : v >= 1 ? SC_UNIT : (int32_t)(v * SC_UNIT);
}

/* Primaries are spread whatever else counts, as long as a host has room: the least step of their part (a sixth) outweighs all others but the spread of a group. */
const struct sc_weights sc_weights_default = {.cpu = 30,
                                              .memory = 30,
                                              .disk = 10,
                                              .balance = 15,
                                              .load = 15,
                                              .failures = 20,
                                              .spread = 600,
                                              .primaries = 1000,
                                              .image = 10,
                                              .preferences = 30,
                                              .network = 20,
                                              .storage = 10};

/* ---- What is asked for by some containers only ---- */

bool sc_slot_eligible(const struct sc_slot *s, const struct sc_query *q)
{
    const Harpoon__V1__PlacementSpec *p = q->spec;
    if (!s->ready || s->cordoned || q->mode & ~s->modes || sc_taint_against(p, s->info->pb))
        return false;
    return !p || (sc_zone_fits(p, s->info->pb->zone) && sc_labels_fit(p, s->info->pb, NULL));
}

void sc_place_survey(const struct sc_slot *slots, size_t count, const struct sc_query *q)
{
    struct sc_topology *t = q->topology;
    if (!q->spread && !q->primary)
        return;
    sc_survey_begin(t);
    for (size_t i = 0; i < count; i++)
        if (sc_slot_eligible(&slots[i], q))
            sc_survey_see(t, sc_topology_domain(t, SC_LEVEL_RACK, i), t->levels[SC_LEVEL_HOST].items[i].primaries,
                          sc_topology_members(t, SC_LEVEL_HOST, (uint32_t)i));
    sc_survey_end(t);
}

/* x / (x + 1) of SC_UNIT: most are small, and a search asks for thousands. */
static int64_t excess_part(int32_t x)
{
#define PART(n) ((int64_t)SC_UNIT * (n) / ((n) + 1))
    static const int64_t small[] = {PART(0), PART(1), PART(2), PART(3), PART(4), PART(5), PART(6), PART(7)};
    return x >= 0 && x < 8 ? small[x] : PART((int64_t)x);
#undef PART
}

int32_t sc_spread_part(const struct sc_excess *x)
{
    int64_t cost = 0;
    for (int level = 0; level < SC_LEVELS; level++)
        cost += excess_part(x->at[level]);
    return (int32_t)(SC_UNIT - cost / SC_LEVELS);
}

int32_t sc_preferences_part(const struct sc_query *q, const Harpoon__V1__Host *host, const struct hp_map *blurred)
{
    int64_t sum = 0, had = 0;
    for (size_t i = 0; i < q->spec->n_preferences; i++) {
        const Harpoon__V1__LabelPreference *x = q->spec->preferences[i];
        if (!x->expression || x->weight <= 0)
            continue;
        sum += x->weight;
        if ((blurred && hp_map_get(blurred, x->expression->key)) || sc_expression_fits(x->expression, host))
            had += x->weight;
    }
    return sum ? (int32_t)(SC_UNIT * had / sum) : 0;
}

static bool prefers(const struct sc_query *q)
{
    return q->spec && q->spec->n_preferences;
}

static void score_asked(const struct sc_slot *s, const struct sc_query *q, struct sc_score *ret)
{
    struct sc_excess x;
    if (q->spread) {
        sc_survey_members(q->topology, s->info->at, &x);
        ret->spread = sc_spread_part(&x);
    }
    if (q->primary) {
        sc_survey_primaries(q->topology, s->info->at, &x);
        ret->primaries = sc_spread_part(&x);
    }
    if (q->image && sc_image_on(q->image_hosts, q->image_count, s->info->at))
        ret->image = q->image_part;
    if (prefers(q))
        ret->preferences = sc_preferences_part(q, s->info->pb, NULL);
    if (q->network)
        ret->network = sc_network_part(s->functions, q);
    if (q->storage_counts)
        ret->storage = sc_storage_part(s->info->storage, s->info->storage_claimed, q);
    const struct sc_weights *w = q->weights;
    ret->total += (int64_t)w->spread * ret->spread + (int64_t)w->primaries * ret->primaries +
                  (int64_t)w->image * ret->image + (int64_t)w->preferences * ret->preferences +
                  (int64_t)w->network * ret->network + (int64_t)w->storage * ret->storage;
}

/* ---- Scores ---- */

/* The parts that are free now. */
static struct sc_score free_parts(const struct sc_slot *s)
{
    return (struct sc_score){
        .cpu = sc_part(s->free.cpu_millis, s->inverse.cpu),
        .memory = sc_part(s->free.memory_bytes, s->inverse.memory),
        .disk = sc_part(s->free.disk_bytes, s->inverse.disk),
        .load = (int32_t)(s->idle * SC_UNIT),
        .failures = (int32_t)(s->info->trust * SC_UNIT),
    };
}

void sc_slot_parts(const struct sc_slot *s, const struct sc_weights *w, struct sc_host_parts *ret)
{
    struct sc_score x = free_parts(s);
    ret->skew = x.cpu - x.memory;
    int64_t room = (int64_t)w->cpu * x.cpu + (int64_t)w->memory * x.memory + (int64_t)w->disk * x.disk;
    if (w->pack)
        room = (int64_t)(w->cpu + w->memory + w->disk) * SC_UNIT - room;
    ret->base = room + (int64_t)w->balance * SC_UNIT + (int64_t)w->load * x.load + (int64_t)w->failures * x.failures;
}

void sc_slot_score(const struct sc_slot *s, const struct sc_query *q, struct sc_score *ret)
{
    const struct sc_weights *w = q->weights;
    *ret = free_parts(s);
    ret->cpu -= sc_part(q->need.cpu_millis, s->inverse.cpu);
    ret->memory -= sc_part(q->need.memory_bytes, s->inverse.memory);
    ret->disk -= sc_part(q->need.disk_bytes, s->inverse.disk);
    assert(ret->cpu >= 0 && ret->memory >= 0 && ret->disk >= 0); /* it fits */
    /* A host that runs out of one resource first wastes the other. */
    int32_t skew = ret->cpu - ret->memory;
    ret->balance = SC_UNIT - (skew < 0 ? -skew : skew);
    if (w->pack) {
        ret->cpu = SC_UNIT - ret->cpu;
        ret->memory = SC_UNIT - ret->memory;
        ret->disk = SC_UNIT - ret->disk;
    }
    ret->total = (int64_t)w->cpu * ret->cpu + (int64_t)w->memory * ret->memory + (int64_t)w->disk * ret->disk +
                 (int64_t)w->balance * ret->balance + (int64_t)w->load * ret->load +
                 (int64_t)w->failures * ret->failures;
    if (q->spread || q->primary || q->image || q->network || q->storage_counts || prefers(q))
        score_asked(s, q, ret);
}

double sc_score_percent(const struct sc_score *score, const struct sc_query *q)
{
    const struct sc_weights *w = q->weights;
    int sum = w->cpu + w->memory + w->disk + w->balance + w->load + w->failures;
    sum += (q->spread ? w->spread : 0) + (q->primary ? w->primaries : 0) + (q->image ? w->image : 0) +
           (prefers(q) ? w->preferences : 0) + (q->network ? w->network : 0) + (q->storage_counts ? w->storage : 0);
    return 100.0 * (double)score->total / SC_UNIT / sum;
}

ptrdiff_t sc_place_best(const struct sc_slot *slots, size_t count, const struct sc_query *q)
{
    ptrdiff_t best = -1;
    int64_t best_total = -1;
    sc_place_survey(slots, count, q);
    for (size_t i = 0; i < count; i++) {
        struct sc_score score;
        if (sc_slot_check(&slots[i], q) != SC_FITS)
            continue;
        sc_slot_score(&slots[i], q, &score);
        if (score.total > best_total) {
            best_total = score.total;
            best = (ptrdiff_t)i;
        }
    }
    return best;
}

void sc_place_count(const struct sc_slot *slots, size_t count, const struct sc_query *q, int *rejected)
{
    memset(rejected, 0, SC_FILTER_COUNT * sizeof *rejected);
    sc_place_survey(slots, count, q);
    for (size_t i = 0; i < count; i++)
        rejected[sc_slot_check(&slots[i], q)]++;
}

void sc_place_reason(const int *rejected, size_t host_count, char *out, size_t size)
{
    static const char *const words[SC_FILTER_COUNT] = {
        [SC_FILTER_STATE] = "not ready",
        [SC_FILTER_CORDONED] = "cordoned",
        [SC_FILTER_BREAKER_CPU] = "overloaded in cpu",
        [SC_FILTER_BREAKER_MEMORY] = "overloaded in memory",
        [SC_FILTER_BREAKER_IO] = "overloaded in io",
        [SC_FILTER_BREAKER_NETWORK] = "overloaded in network",
        [SC_FILTER_EXCLUDED] = "refused it",
        [SC_FILTER_NETWORK_MODE] = "without the network mode",
        [SC_FILTER_HOST] = "not the host asked for",
        [SC_FILTER_ZONE] = "in another zone",
        [SC_FILTER_LABELS] = "without the labels",
        [SC_FILTER_TAINTS] = "with a taint that is not tolerated",
        [SC_FILTER_AFFINITY] = "not where the affinity group is",
        [SC_FILTER_ANTI_AFFINITY] = "taken by the anti-affinity group",
        [SC_FILTER_SPREAD_ZONE] = "in a zone that has too many of the spread group",
        [SC_FILTER_SPREAD_RACK] = "in a rack that has too many of the spread group",
        [SC_FILTER_SPREAD_HOST] = "that have too many of the spread group",
        [SC_FILTER_CPU] = "short of cpu",
        [SC_FILTER_MEMORY] = "short of memory",
        [SC_FILTER_DISK] = "short of disk",
        [SC_FILTER_FUNCTIONS] = "without a network function left",
        [SC_FILTER_NETWORK] = "short of network bandwidth",
        [SC_FILTER_STORAGE] = "short of a storage class",
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
