/* rt_functions.h — which container has which of the interfaces that are handed out whole (mode SRIOV): one small file for each, so that two never get the same. */
#ifndef HA_RT_FUNCTIONS_H
#define HA_RT_FUNCTIONS_H

#include <stddef.h>

#include "base/error.h"

#define HA_INTERFACE_SIZE 16

/* Takes one of the interfaces for `uid`: the one that it has, else the first that is there and nobody has. HP_ELIMIT when none is left. `dir` exists and outlives a reboot. Any thread. */
int ha_function_take(const char *dir, const char *uid, const char *const *interfaces, char ret[HA_INTERFACE_SIZE],
                     struct hp_error *e) HP_MUST_CHECK;
/* The one that it has; "" none. */
void ha_function_of(const char *dir, const char *uid, char ret[HA_INTERFACE_SIZE]);
int ha_function_release(const char *dir, const char *uid, struct hp_error *e) HP_MUST_CHECK;
/* How many of the interfaces are there, or a container has. */
size_t ha_function_count(const char *dir, const char *const *interfaces);

#endif
