/* rt_ports.h — which container has which port of the host: one small file for each, so that two never get the same. */
#ifndef HA_RT_PORTS_H
#define HA_RT_PORTS_H

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"

/* Takes the host ports of `network` (may be NULL) for `uid`, and gives back those that it had before and wants no more. HP_ECONFLICT names the port and who has it: another container, or a
 * process of the host. `dir` exists and outlives a reboot. Any thread. */
int ha_ports_take(const char *dir, const char *uid, const Harpoon__V1__NetworkSpec *network,
                  struct hp_error *e) HP_MUST_CHECK;
int ha_ports_release(const char *dir, const char *uid, struct hp_error *e) HP_MUST_CHECK;

#endif
