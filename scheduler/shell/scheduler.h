/* scheduler.h — the daemon: the regions that it leads or stands by for. */
#ifndef SC_SHELL_SCHEDULER_H
#define SC_SHELL_SCHEDULER_H

#include "base/error.h"

struct hp_daemon;
struct sc_lead;
struct sc_scheduler;

/* For struct hp_daemon_spec. */
int sc_scheduler_start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e);
void sc_scheduler_stop(struct hp_daemon *d, void *state);

/* A region is connected to the broker for the first time. */
void sc_scheduler_lead_ready(struct sc_scheduler *s);
/* A region is closed; the lead is freed by the caller. */
void sc_scheduler_lead_closed(struct sc_scheduler *s);

#endif
