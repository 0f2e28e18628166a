/* harpoon-host-agent: runs a host's containers. See README.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/daemon.h"
#include "shell/host.h"

static bool quarantine_journal;

static void on_failed(void *user, const struct hp_error *e)
{
    hp_daemon_fail(user, e);
}

static void on_end(void *user)
{
    hp_daemon_stopped(user);
}

static int start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e)
{
    struct ha_host_events events = {.on_failed = on_failed, .on_end = on_end, .user = d};
    struct ha_host *h;
    int rc = ha_host_new(hp_daemon_loop(d), config, quarantine_journal, &events, &h, e);
    if (rc)
        return rc;
    *ret_state = h;
    hp_daemon_ready(d);
    return 0;
}

static void stop(struct hp_daemon *d, void *state)
{
    (void)d;
    ha_host_close(state);
}

/* The one option that only this daemon has; taken out of argv. */
static bool take_quarantine_option(int *argc, char **argv)
{
    bool found = false;
    int to = 1;
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--quarantine-journal") == 0)
            found = true;
        else
            argv[to++] = argv[i];
    }
    if (found)
        argv[to] = NULL;
    *argc = to;
    return found;
}

int main(int argc, char **argv)
{
    static const struct hp_daemon_spec spec = {
        .program = "harpoon-host-agent",
        .summary =
            "runs the containers of a host. One more option: --quarantine-journal moves a damaged journal aside first",
        .keys = ha_config_keys,
        .config_size = sizeof(struct ha_config),
        .check = ha_config_check,
        .start = start,
        .stop = stop,
    };
    quarantine_journal = take_quarantine_option(&argc, argv);
    return hp_daemon_main(&spec, argc, argv);
}
