/* rt_modes.h — the networks that this host offers, as chains of CNI plugins. */
#ifndef HA_RT_MODES_H
#define HA_RT_MODES_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"
#include "shell/rt.h"

/* Addresses of a network that is not ours alone. */
struct ha_range {
    char subnet[64];          /* CIDR, IPv4; "": none are given */
    char first[64], last[64]; /* "": all of the subnet */
    char gateway[64];         /* of the default route; "": there is none */
};

struct ha_modes {
    unsigned offered; /* bits 1 << NetworkMode, beside NONE */
    char bridge[16];  /* interface name */
    char subnet[64];  /* CIDR, IPv4 */
    char parent[16];  /* MACVLAN: of its interfaces */
    struct ha_range macvlan, sriov;
    const char *const *functions; /* SRIOV: interfaces that are handed out; may be NULL */
    json_t *overlay;              /* CNI network configuration list; NULL none */
};

/* Checks the options, whose strings of `sriov` must outlive it, and reads the list of the overlay. */
int ha_modes_init(struct ha_modes *m, const struct ha_rt_options *o, struct hp_error *e) HP_MUST_CHECK;
void ha_modes_done(struct ha_modes *m);
/* The mode that a specification means. */
Harpoon__V1__NetworkMode ha_mode_of(const Harpoon__V1__ContainerSpec *spec);
/* The chain for one container: an array of plugin configurations. `function`: the interface that it gets (SRIOV). Addresses are kept below `data_dir`. */
json_t *ha_modes_chain(const struct ha_modes *m, const char *data_dir, const Harpoon__V1__ContainerSpec *spec,
                       const char *function);
/* Whether the container gets an address from us. */
bool ha_modes_gives_address(const struct ha_modes *m, const Harpoon__V1__ContainerSpec *spec);
/* Bytes per second of the fastest network card that tells its speed; 0: none does. */
int64_t ha_modes_speed(void);

#endif
