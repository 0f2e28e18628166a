/* network.c — what a host may attach containers to, and how many of its functions are taken: a command that asks for more is refused before it is begun. */
#include <stdio.h>

#include "core/agent_private.h"

#define SRIOV HARPOON__V1__NETWORK_MODE__NETWORK_MODE_SRIOV

enum { MODES = 8 };

int ha_network_mode(const Harpoon__V1__ContainerSpec *spec)
{
    int mode = spec->network ? (int)spec->network->mode : 0;
    return mode ? mode : HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE;
}

/* Those that the others have, or are about to get. */
static int32_t taken(const struct ha_core *core, const struct ha_container *but)
{
    int32_t n = 0;
    for (struct hp_map_node *i = hp_map_first(&core->containers); i; i = hp_map_next(i)) {
        const struct ha_container *c = i->value;
        n += c != but && (c->a.network_mode == SRIOV || c->intent_network_mode == SRIOV);
    }
    return n;
}

static const char *name_of(int mode)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&harpoon__v1__network_mode__descriptor, mode);
    return v ? v->name + sizeof "NETWORK_MODE_" - 1 : "of a later version";
}

int ha_network_check(const struct ha_core *core, const struct ha_container *c, const Harpoon__V1__ContainerSpec *spec,
                     char *why, size_t size)
{
    int mode = ha_network_mode(spec);
    bool has = c && (c->a.network_mode == mode || c->r.quarantined);
    if (!core->network_modes || has || mode == HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE)
        return 0;
    if (mode < 0 || mode >= MODES || !(core->network_modes & 1U << mode)) {
        snprintf(why, size, "network mode %s: this host does not offer it", name_of(mode));
        return HP_EUNSUPPORTED;
    }
    if (mode != SRIOV || taken(core, c) < core->network_functions)
        return 0;
    snprintf(why, size, "network mode SRIOV: none of the host's %d functions is left", core->network_functions);
    return HP_ELIMIT;
}
