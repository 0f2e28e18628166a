/* pressure.c — the live load of hosts: samples become averages, averages open and close breakers, and what was not heard of for long is not believed.
 *
 * A breaker is open when the figures have stayed at a limit (wire/load.h), or when the host itself says that it takes nothing more; it is in the host's row and in
 * an event, and so outlives the reign. The figures do not: they come again within seconds. */
#include <stdlib.h>
#include <string.h>

#include "core/hosts.h"
#include "core/state.h"

/* ---- Breakers of a host ---- */

static void breaker_add(struct sc_region *r, struct sc_host *h, enum hp_resource x, const char *reason)
{
    struct sc_slot_info *i = &h->info;
    Harpoon__V1__Breaker *b = sc_alloc(r, sizeof *b), **list = NULL;
    Google__Protobuf__Timestamp *t = sc_alloc(r, sizeof *t);
    if (b && t)
        list = realloc(i->breakers, (i->breaker_count + 1) * sizeof *list);
    if (!list) {
        sc_fail(r, HP_ENOMEM);
        free(b);
        free(t);
        return;
    }
    harpoon__v1__breaker__init(b);
    sc_timestamp(t, r->time.wall_ns);
    b->open_time = t;
    i->breakers = list;
    i->breakers[i->breaker_count++] = b;
    sc_pb_set(r, &b->resource, hp_resource_name(x));
    sc_pb_set(r, &b->reason, reason);
}

static void breaker_remove(struct sc_host *h, enum hp_resource x)
{
    struct sc_slot_info *i = &h->info;
    size_t kept = 0;
    for (size_t k = 0; k < i->breaker_count; k++) {
        if (strcmp(i->breakers[k]->resource, hp_resource_name(x)) != 0)
            i->breakers[kept++] = i->breakers[k];
        else
            harpoon__v1__breaker__free_unpacked(i->breakers[k], NULL);
    }
    i->breaker_count = (uint8_t)kept;
}

static void turned(struct sc_region *r, struct sc_host *h, enum hp_resource x, const char *reason)
{
    bool open = h->load.breakers[x].open;
    breaker_remove(h, x);
    if (open)
        breaker_add(r, h, x, reason);
    r->breaker_count += open ? 1 : (size_t)-1;
    sc_host_refresh(r, h);
    if (!r->failed)
        sc_host_event(r, h, open ? "breaker_opened" : "breaker_closed",
                      open ? HARPOON__V1__SEVERITY__SEVERITY_WARNING : HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL,
                      reason);
}

void sc_pressure_load(struct sc_region *r, struct sc_host *h)
{
    struct sc_slot_info *i = &h->info;
    size_t kept = 0;
    for (size_t k = 0; k < i->breaker_count; k++) {
        enum hp_resource x = hp_resource_find(i->breakers[k]->resource);
        if (x != HP_RESOURCE_COUNT && hp_load_open(&h->load, x)) {
            i->breakers[kept++] = i->breakers[k];
            r->breaker_count++;
        } else {
            harpoon__v1__breaker__free_unpacked(i->breakers[k], NULL);
        }
    }
    i->breaker_count = (uint8_t)kept;
}

/* ---- Samples ---- */

/* What the host says of itself: it stays open as long as it says so. */
static unsigned take_overloaded(struct sc_host *h, char *const *names, size_t count)
{
    unsigned set = 0;
    for (size_t i = 0; i < count; i++) {
        enum hp_resource x = hp_resource_find(names[i]);
        if (x != HP_RESOURCE_COUNT && hp_load_open(&h->load, x))
            set |= 1U << x;
    }
    return set;
}

/* Hosts are in the list in the order of their last samples. */
static void seen(struct sc_region *r, struct sc_host *h)
{
    sc_list_remove(&h->load_link);
    sc_list_append(&r->loads, &h->load_link);
    if (!r->stale_timer.place)
        sc_timer_set(r, &r->stale_timer, r->config.load.stale_ms + 1);
}

void sc_pressure_take(struct sc_region *r, struct sc_host *h, const Harpoon__V1__HostMetrics *m)
{
    struct hp_load_sample s;
    char text[192], reason[256];
    hp_load_sample(m, sc_host_facts(h), h->info.pb->allocatable, &s);
    unsigned told = take_overloaded(h, m->overloaded, m->n_overloaded);
    seen(r, h);
    unsigned set = told | hp_load_take(&h->load, &s, &r->config.load, r->time.now_ms);
    h->sample = (struct sc_sample){.memory_bytes = m->memory_bytes_used,
                                   .disk_bytes = m->disk_bytes_used,
                                   .cpu_millis = (float)m->cpu_millis_used,
                                   .rx_bps = (float)m->network_rx_bps,
                                   .tx_bps = (float)m->network_tx_bps,
                                   .read_bps = (float)m->io_read_bps,
                                   .write_bps = (float)m->io_write_bps,
                                   .containers_running = m->containers_running};
    sc_host_idle(r, h);
    for (int x = 0; x < HP_RESOURCE_COUNT && !r->failed; x++) {
        if (!(set & 1U << x))
            continue;
        hp_load_text(&h->load, &r->config.load, x, text, sizeof text);
        snprintf(reason, sizeof reason, "%s%s", text, told & 1U << x ? "; the host takes nothing more" : "");
        turned(r, h, x, reason);
    }
}

bool sc_pressure_refused(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__CommandResult *m)
{
    bool known = false;
    for (size_t i = 0; i < m->n_overloaded; i++)
        known |= hp_resource_find(m->overloaded[i]) != HP_RESOURCE_COUNT;
    unsigned set = take_overloaded(h, m->overloaded, m->n_overloaded);
    for (int x = 0; x < HP_RESOURCE_COUNT && !r->failed; x++)
        if (set & 1U << x)
            turned(r, h, x, m->error && *m->error->message ? m->error->message : "the host has refused for it");
    return known;
}

void sc_pressure_stale(struct sc_region *r)
{
    uint64_t stale_ms = r->config.load.stale_ms;
    while (!sc_list_empty(&r->loads)) {
        struct sc_host *h = SC_OWNER(r->loads.next, struct sc_host, load_link);
        uint64_t age = r->time.now_ms - h->load.seen_ms;
        if (age <= stale_ms) {
            sc_timer_set(r, &r->stale_timer, stale_ms - age + 1);
            return;
        }
        sc_list_remove(&h->load_link);
        sc_host_idle(r, h);
    }
}

/* ---- For people ---- */

static void fill_measure(const struct hp_load *l, enum hp_measure x, Harpoon__V1__LoadMeasure *m, int32_t *history)
{
    harpoon__v1__load_measure__init(m);
    m->measure = (char *)hp_measure_name(x);
    m->average = (double)(int)(l->average[x] * 1000 + 0.5F) / 10; /* a tenth of a percent is enough */
    m->history = history;
    m->n_history = HP_LOAD_HISTORY;
    for (int i = 0; i < HP_LOAD_HISTORY; i++)
        history[i] = l->history[i][x] == HP_LOAD_UNKNOWN ? -1 : l->history[i][x];
}

/* A figure of a peer may be anything. */
static int64_t whole(float v)
{
    return v >= 0 && v < 9e18F ? (int64_t)v : 0;
}

/* Pressure is told averaged. */
static void fill_metrics(const struct sc_sample *x, Harpoon__V1__HostMetrics *m)
{
    harpoon__v1__host_metrics__init(m);
    m->cpu_millis_used = whole(x->cpu_millis);
    m->memory_bytes_used = x->memory_bytes;
    m->disk_bytes_used = x->disk_bytes;
    m->network_rx_bps = whole(x->rx_bps);
    m->network_tx_bps = whole(x->tx_bps);
    m->io_read_bps = whole(x->read_bps);
    m->io_write_bps = whole(x->write_bps);
    m->containers_running = x->containers_running;
}

Harpoon__V1__HostLoad *sc_pressure_message(const struct sc_region *r, const struct sc_host *h,
                                           struct sc_pressure_scratch *s)
{
    const struct hp_load *l = &h->load;
    harpoon__v1__host_load__init(&s->m);
    s->m.age_ms = l->seen ? (int64_t)(r->time.now_ms - l->seen_ms) : -1;
    s->m.stale = hp_load_stale(l, &r->config.load, r->time.now_ms);
    fill_metrics(&h->sample, &s->metrics);
    s->m.metrics = l->seen ? &s->metrics : NULL;
    s->m.measures = s->list;
    for (int x = 0; l->seen && x < HP_MEASURE_COUNT; x++) {
        size_t n = s->m.n_measures;
        if (l->average[x] < 0)
            continue;
        s->list[n] = &s->measures[n];
        fill_measure(l, x, s->list[n], s->history[n]);
        s->m.n_measures++;
    }
    return &s->m;
}
