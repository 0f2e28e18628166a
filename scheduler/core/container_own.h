/* container_own.h — what of a container's body is its own and not likely to be another's: process, addresses, times, message; packed by hand into what a host's report takes on the wire, less the tags. */
#ifndef SC_CORE_CONTAINER_OWN_H
#define SC_CORE_CONTAINER_OWN_H

#include <stdbool.h>
#include <stdint.h>

#include "harpoon/v1/container.pb-c.h"

/* On the heap, without its length; `etag`: with the body's etag. The body has a status. NULL: no memory. */
uint8_t *sc_own_pack(const Harpoon__V1__Container *body, bool etag);
/* Into a body that has none of that; false: no memory, and the body is to be freed. */
bool sc_own_unpack(const uint8_t *own, Harpoon__V1__Container *body, bool etag);
/* Empties that part of a shallow copy of a body and of its status: what is left is in common. */
void sc_own_strip(Harpoon__V1__Container *body, Harpoon__V1__ContainerStatus *status);

#endif
