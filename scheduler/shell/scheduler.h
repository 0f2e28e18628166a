/* scheduler.h — the daemon: the regions that it leads or stands by for. */
#ifndef SC_SHELL_SCHEDULER_H
#define SC_SHELL_SCHEDULER_H

#include <stdbool.h>

#include "base/error.h"

struct hp_daemon;
struct sc_part;

/* For struct hp_daemon_spec. */
int sc_scheduler_start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e);
void sc_scheduler_stop(struct hp_daemon *d, void *state);
/* True when every region's loop has turned since the call before. */
bool sc_scheduler_alive(struct hp_daemon *d, void *state);

/* ---- From a region, on its thread ---- */
/* It is connected to the broker for the first time. */
void sc_scheduler_lead_ready(struct sc_part *p);
/* It is closed. */
void sc_scheduler_lead_closed(struct sc_part *p);

#endif
