#include "core/network.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/state.h"

#define BRIDGE HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE
#define NONE HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE
#define SRIOV HARPOON__V1__NETWORK_MODE__NETWORK_MODE_SRIOV

enum { MODES = 8 }; /* bits of a slot; bit 0 is nobody's */

uint8_t sc_network_modes(const Harpoon__V1__Host *host)
{
    unsigned modes = 1U << NONE;
    const Harpoon__V1__HostFacts *f = host->facts;
    if (!f || !f->n_network_modes)
        return (uint8_t)(modes | 1U << BRIDGE);
    for (size_t i = 0; i < f->n_network_modes; i++)
        if ((int)f->network_modes[i] > 0 && (int)f->network_modes[i] < MODES)
            modes |= 1U << f->network_modes[i];
    return (uint8_t)modes;
}

static int mode_of(const Harpoon__V1__ContainerSpec *spec)
{
    int mode = spec->network ? (int)spec->network->mode : BRIDGE;
    return mode ? mode : BRIDGE;
}

uint8_t sc_network_need(const Harpoon__V1__ContainerSpec *spec)
{
    if (!spec)
        return 0;
    int mode = mode_of(spec);
    return mode > 0 && mode < MODES ? (uint8_t)(1U << mode) : 1;
}

bool sc_network_wants_function(const Harpoon__V1__ContainerSpec *spec)
{
    return spec && mode_of(spec) == SRIOV;
}

void sc_network_facts(struct sc_slot *s)
{
    const Harpoon__V1__HostFacts *f = s->info->pb->facts;
    int64_t functions = f && f->network_functions > 0 ? f->network_functions : 0;
    s->modes = sc_network_modes(s->info->pb);
    s->info->limit.functions = functions < SC_FUNCTIONS_MAX ? functions : SC_FUNCTIONS_MAX;
}

uint8_t sc_network_functions(const struct sc_slot_info *i)
{
    int64_t all = i->limit.functions, left = all - i->claimed.functions;
    return left > 0 ? (uint8_t)((left * SC_FUNCTIONS_PARTS + all - 1) / all) : 0;
}

int64_t sc_network_free(const struct sc_slot_info *i)
{
    return i->limit.network_bps - i->claimed.network_bps;
}

bool sc_network_overdrawn(const struct sc_slot *s)
{
    return sc_network_free(s->info) < 0 || s->info->claimed.functions > s->info->limit.functions;
}

bool sc_network_more(const struct sc_slot *s, const struct sc_slot *old, const struct sc_res *old_limit)
{
    return s->modes & ~old->modes || s->info->limit.functions > old_limit->functions ||
           s->info->limit.network_bps > old_limit->network_bps;
}

enum sc_filter sc_network_check_room(const struct sc_slot *s, const struct sc_res *more)
{
    const struct sc_slot_info *i = s->info;
    if (more->functions > 0 && more->functions > i->limit.functions - i->claimed.functions)
        return SC_FILTER_FUNCTIONS;
    if (more->network_bps > 0 && more->network_bps > sc_network_free(i))
        return SC_FILTER_NETWORK;
    return SC_FITS;
}

int32_t sc_network_room(int64_t bps)
{
    if (bps < 0)
        return -1;
    int64_t n = (bps >> SC_NETWORK_ROOM_SHIFT) + ((bps & ((1 << SC_NETWORK_ROOM_SHIFT) - 1)) != 0);
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

int32_t sc_network_part(uint8_t functions, const struct sc_query *q)
{
    assert(functions <= SC_FUNCTIONS_PARTS);
    return SC_UNIT / SC_FUNCTIONS_PARTS * (q->need.functions > 0 ? functions : SC_FUNCTIONS_PARTS - functions);
}

static const char *mode_name(unsigned bit)
{
    const ProtobufCEnumValue *v =
        protobuf_c_enum_descriptor_get_value(&harpoon__v1__network_mode__descriptor, __builtin_ctz(bit));
    return v && v->value ? v->name + sizeof "NETWORK_MODE_" - 1 : "of a later version";
}

void sc_network_detail(const struct sc_slot *s, enum sc_filter f, const struct sc_query *q, char *out, size_t size)
{
    const struct sc_slot_info *i = s->info;
    if (f == SC_FILTER_NETWORK_MODE)
        snprintf(out, size, "does not offer network mode %s", mode_name(q->mode));
    else if (f == SC_FILTER_FUNCTIONS)
        snprintf(out, size, "needs a network function, %" PRId64 " of %" PRId64 " are free",
                 i->limit.functions - i->claimed.functions, i->limit.functions);
    else if (!i->limit.network_bps)
        snprintf(out, size, "needs %" PRId64 " bytes per second of network, its capacity is not known",
                 q->need.network_bps);
    else
        snprintf(out, size, "needs %" PRId64 " bytes per second of network, %" PRId64 " of %" PRId64 " are free",
                 q->need.network_bps, sc_network_free(i), i->limit.network_bps);
}

static Google__Rpc__Status *check_mode(const struct sc_host *h, uint8_t need)
{
    if (!(need & ~sc_host_slot(h)->modes))
        return NULL;
    return hp_status_add_metadata(hp_status_new(HP_CODE_FAILED_PRECONDITION, "NETWORK_MODE_NOT_OFFERED",
                                                "host \"%s\" does not offer network mode %s", h->info.name,
                                                mode_name(need)),
                                  "host", h->full_name);
}

Google__Rpc__Status *sc_network_check_update(const struct sc_container *c, const Harpoon__V1__ContainerSpec *spec)
{
    const struct sc_operation *head = sc_container_head(c);
    Google__Rpc__Status *s = c->host ? check_mode(c->host, sc_network_need(spec)) : NULL;
    return !s && head && head->hold ? check_mode(head->hold->host, sc_network_need(spec)) : s;
}
