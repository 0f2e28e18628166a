#include "lib/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/network.h"

#define GIB (1LL << 30)

struct fleet_text {
    char name[24], zone[8], rack[16], disk[8], serial[24];
    Harpoon__V1__Host__LabelsEntry entries[2], *labels[2];
    Harpoon__V1__Taint taint, *taints[1];
    Harpoon__V1__HostFacts facts;
    Harpoon__V1__NetworkMode modes[3];
};

static void *must(void *p)
{
    if (p)
        return p;
    fprintf(stderr, "fleet: out of memory\n");
    exit(1);
}

static void add_label(Harpoon__V1__Host *pb, struct fleet_text *t, const char *key, char *value)
{
    Harpoon__V1__Host__LabelsEntry *e = &t->entries[pb->n_labels];
    harpoon__v1__host__labels_entry__init(e);
    e->key = (char *)key;
    e->value = value;
    t->labels[pb->n_labels++] = e;
    pb->labels = t->labels;
}

static void add_networks(struct fleet *f, Harpoon__V1__Host *pb, struct fleet_text *t, Harpoon__V1__Resources *all)
{
    struct hp_rng *g = &f->rng;
    if (!f->o.sriov_percent)
        return;
    harpoon__v1__host_facts__init(&t->facts);
    t->facts.network_modes = t->modes;
    t->modes[t->facts.n_network_modes++] = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE;
    if (hp_rng_below(g, 100) < (uint64_t)f->o.sriov_percent)
        t->modes[t->facts.n_network_modes++] = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_MACVLAN;
    if (hp_rng_below(g, 100) < (uint64_t)f->o.sriov_percent) {
        t->modes[t->facts.n_network_modes++] = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_SRIOV;
        t->facts.network_functions = 1 + (int)hp_rng_below(g, 8);
    }
    pb->facts = &t->facts;
    all->network_bps = 100000000 * (1 + (int64_t)hp_rng_below(g, 12));
}

static void host_init(struct fleet *f, size_t i)
{
    static const struct {
        int cores, gib, disk;
    } sizes[] = {{16, 64, 500},    {32, 128, 1000}, {64, 256, 2000},  {96, 768, 4000},
                 {128, 512, 8000}, {48, 384, 1000}, {24, 192, 16000}, {64, 1024, 2000}};
    struct fleet_text *t = &f->texts[i];
    Harpoon__V1__Host *pb = &f->pbs[i];
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    int kind = (int)hp_rng_below(&f->rng, (uint64_t)f->o.sizes) % (int)(sizeof sizes / sizeof *sizes);
    int64_t stretch = 1000 + (int64_t)hp_rng_below(&f->rng, 10 * (uint64_t)f->o.stretch_percent + 1);
    harpoon__v1__host__init(pb);
    snprintf(t->name, sizeof t->name, "h%zu", i);
    snprintf(t->zone, sizeof t->zone, "z%d", (int)hp_rng_below(&f->rng, (uint64_t)f->o.zones) % 1000);
    pb->zone = t->zone;
    pb->router = (char *)"er1";
    if (f->o.racks) {
        snprintf(t->rack, sizeof t->rack, "r%d", (int)(i % (size_t)f->o.racks) % 1000000);
        pb->rack = t->rack;
    }
    if (f->o.labels) {
        snprintf(t->disk, sizeof t->disk, "d%d", (int)hp_rng_below(&f->rng, (uint64_t)f->o.labels) % 1000);
        add_label(pb, t, "disk", t->disk);
    }
    if (f->o.serial) {
        snprintf(t->serial, sizeof t->serial, "s%zu", i);
        add_label(pb, t, "serial", t->serial);
    }
    if (hp_rng_below(&f->rng, 100) < (uint64_t)f->o.tainted_percent) {
        harpoon__v1__taint__init(&t->taint);
        t->taint.key = (char *)"only";
        t->taint.value = (char *)"databases";
        t->taints[0] = &t->taint;
        pb->taints = t->taints;
        pb->n_taints = 1;
    }
    all.cpu_millis = sizes[kind].cores * stretch;
    all.memory_bytes = sizes[kind].gib * GIB / 1000 * stretch;
    all.disk_bytes = sizes[kind].disk * GIB / 1000 * stretch;
    add_networks(f, pb, t, &all);
    f->infos[i] = (struct sc_slot_info){.pb = pb, .name = t->name, .at = (uint32_t)i, .trust = 1};
    f->slots[i] = (struct sc_slot){.info = &f->infos[i], .ready = true, .attached = true, .idle = 1};
    sc_slot_set_allocatable(&f->slots[i], &all, &f->overcommit);
}

static const struct {
    const char *name;
    int gib, asked, asked_seldom; /* on a common host; of most requests, and of the others, at most */
} classes[FLEET_CLASSES_MAX] = {{"fast", 500, 8, 128}, {"bulk", 4000, 64, 1024}, {"cold", 8000, 64, 4096}};

void fleet_storage(struct fleet *f, size_t host)
{
    struct sc_storage_item items[FLEET_CLASSES_MAX];
    size_t count = 0;
    for (int i = 0; i < f->o.storage_classes; i++)
        if (hp_rng_below(&f->rng, 100) < (uint64_t)f->o.storage_percent) {
            int64_t stretch = 1000 + (int64_t)hp_rng_below(&f->rng, 10 * (uint64_t)f->o.stretch_percent + 1);
            items[count++] = (struct sc_storage_item){classes[i].name, classes[i].gib * GIB / 1000 * stretch};
        }
    struct sc_storage *fresh = count ? must(sc_storage_new(items, count)) : NULL;
    if (sc_slot_set_storage(&f->slots[host], fresh))
        must(NULL);
    sc_storage_unref(f->storages[host]);
    f->storages[host] = fresh;
}

void fleet_init(struct fleet *f, const struct fleet_options *o)
{
    *f = (struct fleet){.o = *o, .overcommit = {150, 100, 100, 150}};
    f->o.storage_classes += 2 * !o->storage_classes;
    hp_rng_init(&f->rng, o->seed);
    f->slots = must(calloc(o->hosts, sizeof *f->slots));
    f->infos = must(calloc(o->hosts, sizeof *f->infos));
    f->pbs = must(calloc(o->hosts, sizeof *f->pbs));
    f->texts = must(calloc(o->hosts, sizeof *f->texts));
    f->storages = must(calloc(o->hosts, sizeof *f->storages));
    sc_topology_init(&f->topology, o->seed);
    sc_index_init(&f->index, o->weights ? o->weights : &sc_weights_default, &f->topology);
    if (sc_topology_reserve(&f->topology, o->hosts) || sc_index_reserve(&f->index, o->hosts))
        must(NULL);
    f->groups = must(calloc(FLEET_GROUPS, sizeof *f->groups));
    for (int k = 0; k < FLEET_IMAGES;
         k++) /* the first is on every second host, each of the others on a quarter as many */
        f->images[k] = must(calloc(o->hosts, sizeof **f->images));
    for (size_t i = 0; i < o->hosts; i++) {
        for (int k = 0; k < FLEET_IMAGES; k++)
            if (hp_rng_below(&f->rng, 1ULL << (2 * k)) == 0 && hp_rng_below(&f->rng, 10) < 6)
                f->images[k][f->image_counts[k]++] = (uint32_t)i;
        host_init(f, i);
        if (o->storage_percent)
            fleet_storage(f, i);
        fleet_facts(f, i);
        fleet_metrics(f, i);
    }
}

void fleet_done(struct fleet *f)
{
    sc_index_done(&f->index);
    sc_topology_done(&f->topology);
    for (size_t i = 0; i < f->o.hosts; i++) {
        sc_slot_storage_done(&f->slots[i]);
        sc_storage_unref(f->storages[i]);
    }
    free(f->storages);
    free(f->slots);
    free(f->groups);
    for (int k = 0; k < FLEET_IMAGES; k++)
        free(f->images[k]);
    free(f->infos);
    free(f->pbs);
    free(f->texts);
}

void fleet_facts(struct fleet *f, size_t host)
{
    const Harpoon__V1__Host *pb = f->infos[host].pb;
    struct sc_slot *s = &f->slots[host];
    sc_network_facts(s);
    s->functions = sc_network_functions(s->info);
    s->info->smaller |= sc_network_overdrawn(s);
    if (sc_topology_put(&f->topology, host, pb->zone, pb->rack) ||
        sc_index_facts(&f->index, f->slots, f->o.hosts, host))
        must(NULL);
}

void fleet_metrics(struct fleet *f, size_t host)
{
    if (hp_rng_below(&f->rng, 50) == 0)
        f->infos[host].trust = 1.0F / (1.0F + (float)hp_rng_below(&f->rng, 4));
    f->slots[host].idle = 1 - (float)hp_rng_below(&f->rng, 1000000) / 1e6F * 0.9F;
    sc_index_touch(&f->index, f->slots, host);
}

void fleet_claim(struct fleet *f, size_t host, const struct sc_res *old, const struct sc_res *fresh)
{
    sc_slot_claim(&f->slots[host], old, fresh);
    sc_index_touch(&f->index, f->slots, host);
}

void fleet_claim_storage(struct fleet *f, size_t host, const struct sc_storage_item *items, size_t count, int sign)
{
    sc_slot_claim_storage(&f->slots[host], items, count, sign);
    sc_index_touch(&f->index, f->slots, host);
}

static void want_label(struct fleet *f, struct fleet_request *r)
{
    harpoon__v1__placement_spec__host_labels_entry__init(&r->label);
    snprintf(r->label_text, sizeof r->label_text, "d%d", (int)hp_rng_below(&f->rng, (uint64_t)f->o.labels) % 1000);
    r->label.key = (char *)"disk";
    r->label.value = r->label_text;
    r->labels[0] = &r->label;
    uint64_t form = hp_rng_below(&f->rng, 3);
    if (form == 0) {
        r->spec.host_labels = r->labels;
        r->spec.n_host_labels = 1;
        return;
    }
    harpoon__v1__label_expression__init(&r->expression);
    r->expression.key = r->label.key;
    r->expression.operator_ =
        form == 1 ? HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_IN : HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_NOT_IN;
    r->values[0] = r->label_text;
    r->expression.values = r->values;
    r->expression.n_values = 1;
    r->expressions[0] = &r->expression;
    r->spec.label_expressions = r->expressions;
    r->spec.n_label_expressions = 1;
}

static void tolerate(struct fleet_request *r)
{
    harpoon__v1__toleration__init(&r->toleration);
    r->toleration.key = (char *)"only";
    r->tolerations[0] = &r->toleration;
    r->spec.tolerations = r->tolerations;
    r->spec.n_tolerations = 1;
}

void fleet_request(struct fleet *f, int constrained_percent, struct fleet_request *ret)
{
    struct hp_rng *g = &f->rng;
    ret->group = -1;
    ret->query = (struct sc_query){
        .weights = &f->index.weights, .stamp = 1, .topology = &f->topology, .network = f->o.sriov_percent > 0};
    ret->query.need = (struct sc_res){
        .cpu_millis = 10 + (int64_t)hp_rng_below(g, hp_rng_below(g, 10) ? 1000 : 8000),
        .memory_bytes = (16 + (int64_t)hp_rng_below(g, hp_rng_below(g, 10) ? 2048 : 32768)) << 20,
        .disk_bytes = (int64_t)hp_rng_below(g, 8) * GIB,
    };
    ret->query.storage_counts = f->o.storage_percent > 0;
    if (hp_rng_below(g, 100) >= (uint64_t)constrained_percent)
        return;
    uint64_t what = hp_rng_below(g, 3);
    harpoon__v1__placement_spec__init(&ret->spec);
    ret->query.spec = &ret->spec;
    if (what != 1) {
        snprintf(ret->zone_text, sizeof ret->zone_text, "z%d", (int)hp_rng_below(g, (uint64_t)f->o.zones) % 1000);
        ret->zones[0] = ret->zone_text;
        ret->spec.zones = ret->zones;
        ret->spec.n_zones = 1;
    }
    if (what != 0 && f->o.labels)
        want_label(f, ret);
    if (hp_rng_below(g, 100) < (uint64_t)f->o.tainted_percent)
        tolerate(ret);
}

static void ask_spread(struct fleet *f, bool skew, struct fleet_request *r)
{
    struct hp_rng *g = &f->rng;
    r->group = (int)hp_rng_below(g, FLEET_GROUPS);
    r->query.spread = true;
    for (int level = 0; skew && level < SC_LEVELS; level++) {
        Harpoon__V1__SpreadConstraint *x = &r->skews[level];
        harpoon__v1__spread_constraint__init(x);
        x->topology = (Harpoon__V1__Topology)(HARPOON__V1__TOPOLOGY__TOPOLOGY_ZONE + level);
        x->max_skew = hp_rng_below(g, 2) ? 0 : 1 + (int)hp_rng_below(g, 3);
        r->skews_at[level] = x;
        r->query.max_skew[level] = x->max_skew;
    }
}

static void ask_preference(struct fleet *f, struct fleet_request *r)
{
    harpoon__v1__label_preference__init(&r->preference);
    harpoon__v1__label_expression__init(&r->liking);
    snprintf(r->liked_text, sizeof r->liked_text, "d%d", (int)hp_rng_below(&f->rng, (uint64_t)f->o.labels) % 1000);
    r->liking.key = (char *)"disk";
    r->liking.operator_ = HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_IN;
    r->liked[0] = r->liked_text;
    r->liking.values = r->liked;
    r->liking.n_values = 1;
    r->preference.expression = &r->liking;
    r->preference.weight = 10;
    r->preferences[0] = &r->preference;
    r->spec.preferences = r->preferences;
    r->spec.n_preferences = 1;
}

static void ask_network(struct fleet *f, struct fleet_request *r)
{
    static const Harpoon__V1__NetworkMode modes[] = {
        HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE, HARPOON__V1__NETWORK_MODE__NETWORK_MODE_MACVLAN,
        HARPOON__V1__NETWORK_MODE__NETWORK_MODE_SRIOV, HARPOON__V1__NETWORK_MODE__NETWORK_MODE_SRIOV};
    Harpoon__V1__NetworkSpec network = HARPOON__V1__NETWORK_SPEC__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    network.mode = modes[hp_rng_below(&f->rng, 4)];
    spec.network = &network;
    r->query.mode = sc_network_need(&spec);
    r->query.need.functions = sc_network_wants_function(&spec);
    if (hp_rng_below(&f->rng, 2))
        r->query.need.network_bps = 8192 + (int64_t)hp_rng_below(&f->rng, 50000000);
}

static void ask_storage(const struct fleet *f, struct hp_rng *g, struct fleet_request *r)
{
    uint64_t which = 1 + hp_rng_below(g, (1U << f->o.storage_classes) - 1);
    r->query.storage = r->storage;
    for (int i = 0; i < f->o.storage_classes; i++)
        if (which >> i & 1) {
            uint64_t most = (uint64_t)(hp_rng_below(g, 10) ? classes[i].asked : classes[i].asked_seldom);
            r->storage[r->query.storage_count++] =
                (struct sc_storage_item){classes[i].name, (1 + (int64_t)hp_rng_below(g, most)) * GIB};
        }
}

void fleet_ask(struct fleet *f, unsigned what, struct fleet_request *r)
{
    struct hp_rng *g = &f->rng;
    if (!r->query.spec)
        harpoon__v1__placement_spec__init(&r->spec);
    r->query.spec = &r->spec;
    if (what & (FLEET_SPREAD | FLEET_SKEW))
        ask_spread(f, what & FLEET_SKEW, r);
    r->query.primary = (what & FLEET_PRIMARY) != 0;
    if (what & FLEET_IMAGE) {
        int k = (int)hp_rng_below(g, FLEET_IMAGES);
        r->query.image = true;
        r->query.image_hosts = f->images[k];
        r->query.image_count = f->image_counts[k];
        r->query.image_part = SC_UNIT;
    }
    if (what & FLEET_PREFER && f->o.labels)
        ask_preference(f, r);
    if (what & FLEET_NETWORK && f->o.sriov_percent)
        ask_network(f, r);
    if (what & FLEET_STORAGE && f->o.storage_percent)
        ask_storage(f, g, r);
}

void fleet_mark(struct fleet *f, const struct fleet_request *r)
{
    sc_topology_clear(&f->topology);
    for (uint32_t i = 0; r->group >= 0 && i < f->groups[r->group].count; i++)
        sc_topology_mark(&f->topology, f->groups[r->group].hosts[i], 1);
}

void fleet_join(struct fleet *f, const struct fleet_request *r, size_t host)
{
    if (r->group >= 0) {
        struct fleet_group *g = &f->groups[r->group];
        if (g->count == FLEET_MEMBERS_MAX)
            g->count = 0; /* begins anew */
        g->hosts[g->count++] = (uint32_t)host;
    }
    if (r->query.primary) {
        sc_topology_primaries(&f->topology, host, 1);
        sc_index_primaries(&f->index, host, 1);
    }
}

void fleet_leave(struct fleet *f, int group, bool primary, size_t host)
{
    if (primary) {
        sc_topology_primaries(&f->topology, host, -1);
        sc_index_primaries(&f->index, host, -1);
    }
    if (group < 0)
        return;
    struct fleet_group *g = &f->groups[group];
    for (uint32_t i = 0; i < g->count; i++)
        if (g->hosts[i] == host) {
            g->hosts[i] = g->hosts[--g->count];
            return;
        }
}
