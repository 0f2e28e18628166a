/* load.h — what a host's metrics say of its load: shares of what the host has, their averages, and breakers that open when they stay too high. Shared by the scheduler,
 * which keeps one for each host, and the agent, which keeps its own. No clock: monotonic times are passed in. */
#ifndef HP_WIRE_LOAD_H
#define HP_WIRE_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "harpoon/v1/container.pb-c.h"
#include "harpoon/v1/host.pb-c.h"

/* Each has a breaker. As bits (1 << resource) in sets. */
enum hp_resource { HP_RESOURCE_CPU, HP_RESOURCE_MEMORY, HP_RESOURCE_IO, HP_RESOURCE_NETWORK, HP_RESOURCE_COUNT };
/* "cpu", "memory", "io", "network". */
const char *hp_resource_name(enum hp_resource r);
/* HP_RESOURCE_COUNT for what is none. */
enum hp_resource hp_resource_find(const char *name);

/* The first four are the use of the resources, in their order; the others are pressure stall information (docs.kernel.org/accounting/psi.html). */
enum hp_measure {
    HP_MEASURE_CPU_USE,
    HP_MEASURE_MEMORY_USE,
    HP_MEASURE_IO_USE,
    HP_MEASURE_NETWORK_USE,
    HP_MEASURE_CPU_SOME,
    HP_MEASURE_MEMORY_SOME,
    HP_MEASURE_MEMORY_FULL,
    HP_MEASURE_IO_SOME,
    HP_MEASURE_IO_FULL,
    HP_MEASURE_COUNT
};
/* "cpu_use", "memory_full" and so on. */
const char *hp_measure_name(enum hp_measure m);

/* What a new container needs beside its claim: everything takes cpu and memory; io what asks for disk, for a rate of io, or for volumes; network what is attached to one. NULL needs
 * cpu and memory. */
unsigned hp_spec_needs(const Harpoon__V1__ContainerSpec *spec);

/* Shares 0 to 1; below 0: not known. */
struct hp_load_sample {
    float share[HP_MEASURE_COUNT];
};
/* Use of cpu and memory is measured against `facts`, or, where they do not tell, against `allocatable`; either may be NULL. */
void hp_load_sample(const Harpoon__V1__HostMetrics *m, const Harpoon__V1__HostFacts *facts,
                    const Harpoon__V1__Resources *allocatable, struct hp_load_sample *ret);

struct hp_load_limits {
    int use[HP_RESOURCE_COUNT];      /* percent; 0: the use opens nothing */
    int pressure[HP_RESOURCE_COUNT]; /* percent of time: cpu's some, memory's and io's full; 0: opens nothing */
    int close_percent;               /* a breaker closes when everything is below so many percent of its limit */
    uint64_t after_ms;               /* opens when a limit was reached for so long */
    uint64_t close_after_ms;         /* closes when everything was low for so long */
    uint64_t average_ms;             /* time constant of the averages */
    uint64_t stale_ms;               /* a host whose last sample is older is not known */
};

enum { HP_LOAD_HISTORY = 8, HP_LOAD_HISTORY_MS = 60 * 1000, HP_LOAD_UNKNOWN = 255 };

struct hp_breaker {
    uint32_t since_ms; /* counting: since when; the lower half of the time */
    bool open;
    bool counting; /* closed: a limit is reached; open: everything is low */
};

/* Zero-initialised: nothing is known, everything is closed. */
struct hp_load {
    uint64_t seen_ms;                                   /* the last sample */
    uint32_t minute : 31;                               /* that of history[0] */
    uint32_t seen : 1;                                  /* there was a sample */
    float average[HP_MEASURE_COUNT];                    /* exponentially weighted; below 0: not known */
    uint8_t history[HP_LOAD_HISTORY][HP_MEASURE_COUNT]; /* percent, the highest sample of each minute, this one first */
    struct hp_breaker breakers[HP_RESOURCE_COUNT];
};

/* Takes a sample in. Times never fall. A sample after a pause of more than stale_ms begins anew: the averages from it, and what breakers counted from now. Bits of the breakers that
 * have opened or closed. */
unsigned hp_load_take(struct hp_load *l, const struct hp_load_sample *s, const struct hp_load_limits *limits,
                      uint64_t now_ms);
/* Opens one from outside (the host has refused for it); it closes as the others do, from now. False: it is open already. */
bool hp_load_open(struct hp_load *l, enum hp_resource r);
/* Bits of those that are open. */
unsigned hp_load_open_set(const struct hp_load *l);
/* Nothing was heard for longer than stale_ms, or ever. */
bool hp_load_stale(const struct hp_load *l, const struct hp_load_limits *limits, uint64_t now_ms);
/* How idle the host is: 1 minus the highest average of cpu's and memory's use, and of the time lost for want of memory and io. A half while it is not known, or what it was when that is less. */
float hp_load_idle(const struct hp_load *l, const struct hp_load_limits *limits, uint64_t now_ms);
/* What a breaker looks at, with its limits: "cpu: use 97.0 % (limit 95 %)". */
void hp_load_text(const struct hp_load *l, const struct hp_load_limits *limits, enum hp_resource r, char *out,
                  size_t size);

#endif
