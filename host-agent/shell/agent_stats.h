/* agent_stats.h — what the agent shows to Prometheus of itself. */
#ifndef HA_SHELL_AGENT_STATS_H
#define HA_SHELL_AGENT_STATS_H

#include <stdbool.h>

#include "core/agent_core.h"

void ha_stats_register(void);
void ha_stats_set(const struct ha_core_stats *s, bool attached, bool no_room, int overloaded);

#endif
