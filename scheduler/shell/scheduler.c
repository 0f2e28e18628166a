#include "shell/scheduler.h"

#include <stdlib.h>

#include "base/log.h"
#include "io/daemon.h"
#include "shell/lead.h"

struct sc_scheduler {
    struct hp_daemon *daemon;
    struct sc_lead *leads[SC_REGIONS_MAX];
    int count, ready, open;
    bool stopping;
};

int sc_scheduler_start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e)
{
    const struct sc_config *c = config;
    struct sc_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    s->daemon = d;
    *ret_state = s;
    for (int i = 0; c->regions[i]; i++) {
        int rc = sc_lead_new(s, hp_daemon_loop(d), c, c->regions[i], &s->leads[i], e);
        if (rc)
            return rc; /* the process ends */
        s->count++;
        s->open++;
    }
    return 0;
}

void sc_scheduler_stop(struct hp_daemon *d, void *state)
{
    struct sc_scheduler *s = state;
    s->stopping = true;
    for (int i = 0; i < s->count; i++)
        sc_lead_close(s->leads[i]);
}

void sc_scheduler_lead_ready(struct sc_scheduler *s)
{
    if (++s->ready == s->count && !s->stopping)
        hp_daemon_ready(s->daemon);
}

void sc_scheduler_lead_closed(struct sc_scheduler *s)
{
    if (--s->open > 0)
        return;
    struct hp_daemon *d = s->daemon;
    free(s);
    hp_daemon_stopped(d);
}
