#include "wire/load.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define NEUTRAL 0.5F

_Static_assert(sizeof(struct hp_load) <= 160, "a scheduler keeps one of each host");

static const char *const resource_names[HP_RESOURCE_COUNT] = {"cpu", "memory", "io", "network"};
static const char *const measure_names[HP_MEASURE_COUNT] = {
    "cpu_use", "memory_use", "io_use", "network_use", "cpu_some", "memory_some", "memory_full", "io_some", "io_full"};
/* What each breaker looks at beside the use. */
static const int pressure_of[HP_RESOURCE_COUNT] = {HP_MEASURE_CPU_SOME, HP_MEASURE_MEMORY_FULL, HP_MEASURE_IO_FULL, -1};

const char *hp_resource_name(enum hp_resource r)
{
    assert((unsigned)r < HP_RESOURCE_COUNT);
    return resource_names[r];
}

enum hp_resource hp_resource_find(const char *name)
{
    enum hp_resource r = HP_RESOURCE_CPU;
    while (r < HP_RESOURCE_COUNT && strcmp(name, resource_names[r]) != 0)
        r++;
    return r;
}

const char *hp_measure_name(enum hp_measure m)
{
    assert((unsigned)m < HP_MEASURE_COUNT);
    return measure_names[m];
}

unsigned hp_spec_needs(const Harpoon__V1__ContainerSpec *spec)
{
    unsigned needs = 1U << HP_RESOURCE_CPU | 1U << HP_RESOURCE_MEMORY;
    if (!spec)
        return needs;
    const Harpoon__V1__Resources *x = spec->resources;
    if (spec->n_volumes ||
        (x && (x->disk_bytes || x->io_read_bps || x->io_write_bps || x->io_read_iops || x->io_write_iops)))
        needs |= 1U << HP_RESOURCE_IO;
    if (!spec->network || spec->network->mode != HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE)
        needs |= 1U << HP_RESOURCE_NETWORK;
    return needs;
}

/* ---- Samples ---- */

static float share(int64_t used, int64_t of)
{
    if (used < 0 || of <= 0)
        return -1;
    return used >= of ? 1 : (float)((double)used / (double)of);
}

static int64_t whole(int64_t fact, int64_t allocatable)
{
    return fact > 0 ? fact : allocatable;
}

void hp_load_sample(const Harpoon__V1__HostMetrics *m, const Harpoon__V1__HostFacts *facts,
                    const Harpoon__V1__Resources *allocatable, struct hp_load_sample *ret)
{
    int64_t cpu = whole(facts ? facts->cpu_millis : 0, allocatable ? allocatable->cpu_millis : 0);
    int64_t memory = whole(facts ? facts->memory_bytes : 0, allocatable ? allocatable->memory_bytes : 0);
    ret->share[HP_MEASURE_CPU_USE] = share(m->cpu_millis_used, cpu);
    ret->share[HP_MEASURE_MEMORY_USE] = share(m->memory_bytes_used, memory);
    ret->share[HP_MEASURE_IO_USE] = share(m->io_use, 10000);
    ret->share[HP_MEASURE_NETWORK_USE] = share(m->network_use, 10000);
    ret->share[HP_MEASURE_CPU_SOME] = share(m->psi_cpu_some, 10000);
    ret->share[HP_MEASURE_MEMORY_SOME] = share(m->psi_memory_some, 10000);
    ret->share[HP_MEASURE_MEMORY_FULL] = share(m->psi_memory_full, 10000);
    ret->share[HP_MEASURE_IO_SOME] = share(m->psi_io_some, 10000);
    ret->share[HP_MEASURE_IO_FULL] = share(m->psi_io_full, 10000);
}

/* ---- Averages and history ---- */

static uint8_t percent(float v)
{
    return v < 0 ? HP_LOAD_UNKNOWN : v >= 1 ? 100 : (uint8_t)((v * 200 + 1) / 2);
}

static void shift_history(struct hp_load *l, uint64_t now_ms)
{
    uint32_t minute = (uint32_t)(now_ms / HP_LOAD_HISTORY_MS) & INT32_MAX, passed = minute - l->minute;
    size_t n = l->seen && passed < HP_LOAD_HISTORY ? (size_t)passed : HP_LOAD_HISTORY;
    memmove(l->history[n], l->history[0], (HP_LOAD_HISTORY - n) * sizeof l->history[0]);
    memset(l->history[0], HP_LOAD_UNKNOWN, n * sizeof l->history[0]);
    l->minute = minute;
}

static void average(struct hp_load *l, const struct hp_load_sample *s, uint64_t passed_ms, uint64_t average_ms,
                    bool anew)
{
    for (int i = 0; i < HP_MEASURE_COUNT; i++) {
        float v = s->share[i], *a = &l->average[i];
        uint8_t p = percent(v), *best = &l->history[0][i];
        if (p != HP_LOAD_UNKNOWN && (*best == HP_LOAD_UNKNOWN || p > *best))
            *best = p;
        if (anew || v < 0 || *a < 0)
            *a = v;
        else if (passed_ms + average_ms > 0)
            *a += (v - *a) * (float)passed_ms / (float)(passed_ms + average_ms);
    }
}

/* ---- Breakers ---- */

static bool reached(float v, int limit_percent, int of_percent)
{
    return limit_percent > 0 && v >= 0 && v * 10000 >= (float)(limit_percent * of_percent);
}

static bool any(const struct hp_load *l, const struct hp_load_limits *limits, enum hp_resource r, int of_percent)
{
    return reached(l->average[r], limits->use[r], of_percent) ||
           (pressure_of[r] >= 0 && reached(l->average[pressure_of[r]], limits->pressure[r], of_percent));
}

/* True: it has opened or closed. What counts must hold without a break, at every sample. */
static bool turn(struct hp_breaker *b, bool holds, uint64_t for_ms, uint64_t now_ms)
{
    if (!holds) {
        b->counting = false;
        return false;
    }
    if (!b->counting) {
        b->counting = true;
        b->since_ms = (uint32_t)now_ms;
    }
    if ((uint32_t)now_ms - b->since_ms < for_ms)
        return false;
    b->open = !b->open;
    b->counting = false;
    return true;
}

unsigned hp_load_take(struct hp_load *l, const struct hp_load_sample *s, const struct hp_load_limits *limits,
                      uint64_t now_ms)
{
    bool anew = hp_load_stale(l, limits, now_ms);
    unsigned turned = 0;
    assert(!l->seen || now_ms >= l->seen_ms);
    shift_history(l, now_ms);
    average(l, s, l->seen ? now_ms - l->seen_ms : 0, limits->average_ms, anew);
    l->seen = true;
    l->seen_ms = now_ms;
    for (int r = 0; r < HP_RESOURCE_COUNT; r++) {
        struct hp_breaker *b = &l->breakers[r];
        if (anew)
            b->counting = false;
        bool holds = b->open ? !any(l, limits, r, limits->close_percent) : any(l, limits, r, 100);
        turned |= (unsigned)turn(b, holds, b->open ? limits->close_after_ms : limits->after_ms, now_ms) << r;
    }
    return turned;
}

bool hp_load_open(struct hp_load *l, enum hp_resource r)
{
    assert((unsigned)r < HP_RESOURCE_COUNT);
    struct hp_breaker *b = &l->breakers[r];
    bool was = b->open;
    b->open = true;
    b->counting = false;
    return !was;
}

unsigned hp_load_open_set(const struct hp_load *l)
{
    unsigned set = 0;
    for (int r = 0; r < HP_RESOURCE_COUNT; r++)
        set |= (unsigned)l->breakers[r].open << r;
    return set;
}

/* ---- What others see ---- */

bool hp_load_stale(const struct hp_load *l, const struct hp_load_limits *limits, uint64_t now_ms)
{
    return !l->seen || (now_ms > l->seen_ms && now_ms - l->seen_ms > limits->stale_ms);
}

float hp_load_idle(const struct hp_load *l, const struct hp_load_limits *limits, uint64_t now_ms)
{
    static const int counts[] = {HP_MEASURE_CPU_USE, HP_MEASURE_MEMORY_USE, HP_MEASURE_MEMORY_FULL, HP_MEASURE_IO_FULL};
    float highest = -1;
    for (size_t i = 0; l->seen && i < sizeof counts / sizeof *counts; i++)
        if (l->average[counts[i]] > highest)
            highest = l->average[counts[i]];
    float idle = highest < 0 ? NEUTRAL : 1 - highest;
    return hp_load_stale(l, limits, now_ms) && idle > NEUTRAL ? NEUTRAL : idle;
}

void hp_load_text(const struct hp_load *l, const struct hp_load_limits *limits, enum hp_resource r, char *out,
                  size_t size)
{
    char use[64] = "", pressure[64] = "";
    assert((unsigned)r < HP_RESOURCE_COUNT && size > 0);
    if (l->seen && limits->use[r] && l->average[r] >= 0)
        snprintf(use, sizeof use, "use %.1f %% (limit %d %%)", (double)l->average[r] * 100, limits->use[r]);
    if (l->seen && limits->pressure[r] && pressure_of[r] >= 0 && l->average[pressure_of[r]] >= 0)
        snprintf(pressure, sizeof pressure, "pressure %.1f %% (limit %d %%)", (double)l->average[pressure_of[r]] * 100,
                 limits->pressure[r]);
    snprintf(out, size, "%s: %s%s%s", resource_names[r], use, *use && *pressure ? ", " : "",
             *use || *pressure ? pressure : "not measured");
}
