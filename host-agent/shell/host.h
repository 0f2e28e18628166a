/* host.h — the agent of a real host: journal on disk, real containers, one link. What main.c starts and stops. */
#ifndef HA_SHELL_HOST_H
#define HA_SHELL_HOST_H

#include <uv.h>

#include "shell/agent_config.h"

struct ha_host;

struct ha_host_events {
    void (*on_failed)(void *user, const struct hp_error *e); /* it cannot go on: close it */
    void (*on_end)(void *user);                              /* closed and freed */
    void *user;
};

/* Opens the journal, finds what runs, and begins to attach. Blocks for some milliseconds. `config` borrowed for the host's life. `quarantine_journal`: move the journal
 * aside first. */
int ha_host_new(uv_loop_t *loop, const struct ha_config *config, bool quarantine_journal,
                const struct ha_host_events *events, struct ha_host **ret, struct hp_error *e) HP_MUST_CHECK;
/* Leaves the router; containers run on; on_end follows. */
void ha_host_close(struct ha_host *h);

#endif
