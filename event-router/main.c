/* harpoon-event-router: holds the connections of a region's hosts. See README.md. */
#include "io/daemon.h"
#include "shell/shell.h"

static void on_ready(void *user)
{
    hp_daemon_ready(user);
}

static void on_end(void *user)
{
    hp_daemon_stopped(user);
}

static int start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e)
{
    struct er_shell_events events = {.on_ready = on_ready, .on_end = on_end, .user = d};
    struct er_shell *s;
    int rc = er_shell_new(hp_daemon_loop(d), config, &events, &s, e);
    if (rc)
        return rc;
    hp_daemon_address(d, "agents", er_shell_address(s));
    *ret_state = s;
    return 0;
}

static void stop(struct hp_daemon *d, void *state)
{
    (void)d;
    er_shell_drain(state);
}

int main(int argc, char **argv)
{
    static const struct hp_daemon_spec spec = {
        .program = "harpoon-event-router",
        .summary = "holds one connection per host of a region, between agents and broker",
        .keys = er_config_keys,
        .config_size = sizeof(struct er_config),
        .check = er_config_check,
        .start = start,
        .stop = stop,
    };
    return hp_daemon_main(&spec, argc, argv);
}
