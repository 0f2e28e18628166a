/* network.h — networks as placement sees them: the modes that a host offers, the functions of its cards that it hands out one by one, its bandwidth. */
#ifndef SC_CORE_NETWORK_H
#define SC_CORE_NETWORK_H

#include "core/placement.h"

/* Of one container. */
#define SC_NETWORK_BPS_MAX (INT64_C(1) << 40)

enum {
    SC_FUNCTIONS_PARTS = 4,    /* in so many parts it is told how much of a host's functions is left */
    SC_FUNCTIONS_MAX = 4096,   /* of one host; what it tells beyond is not used */
    SC_NETWORK_ROOM_SHIFT = 16 /* the index counts bandwidth in units of 64 KiB/s */
};

struct sc_container;

/* Bits 1 << mode of what a host offers. NONE always is; BRIDGE when it does not say. */
uint8_t sc_network_modes(const Harpoon__V1__Host *host);
/* The bit that a container needs; one that no host has for a mode of a later version. NULL needs nothing. */
uint8_t sc_network_need(const Harpoon__V1__ContainerSpec *spec);
bool sc_network_wants_function(const Harpoon__V1__ContainerSpec *spec);

/* Takes modes and functions from what its host says; the caller works out what is free. */
void sc_network_facts(struct sc_slot *s);
/* How much of its functions is left: 0 none (or it has none) to SC_FUNCTIONS_PARTS all; a part begun is a part. */
uint8_t sc_network_functions(const struct sc_slot_info *i);
int64_t sc_network_free(const struct sc_slot_info *i); /* bytes per second */
bool sc_network_overdrawn(const struct sc_slot *s);
/* It offers or has more than before, by its slot and limits then. */
bool sc_network_more(const struct sc_slot *s, const struct sc_slot *old, const struct sc_res *old_limit);
/* The part of sc_slot_check_room that is about networks. */
enum sc_filter sc_network_check_room(const struct sc_slot *s, const struct sc_res *more);
/* Bandwidth as the index counts it, rounded up. */
int32_t sc_network_room(int64_t bps);
/* 0 to SC_UNIT: what is left of the functions for who asks for one, what is taken for all others: they are to leave them alone. */
int32_t sc_network_part(uint8_t functions, const struct sc_query *q);
/* For people: why a filter of networks has removed the host. */
void sc_network_detail(const struct sc_slot *s, enum sc_filter f, const struct sc_query *q, char *out, size_t size);
/* Whether the container can be attached as `spec` says where it is, and where it is moving to; NULL: it can. Functions are counted with the claims. */
Google__Rpc__Status *sc_network_check_update(const struct sc_container *c, const Harpoon__V1__ContainerSpec *spec);

#endif
