/* daemon.h — the frame of every daemon's main: options, configuration, logs, signals, readiness, metrics endpoint. */
#ifndef HP_IO_DAEMON_H
#define HP_IO_DAEMON_H

#include <stdbool.h>
#include <uv.h>

#include "base/error.h"
#include "io/config.h"

struct hp_daemon;

/* Options of every daemon: --config FILE, --set section.key=value (repeatable), --check-config, --help-config, --ready-file FILE, --version, --help.
 * Sections known everywhere: [log] level, format; [metrics] listen ("" none). */
struct hp_daemon_spec {
    const char *program;              /* "harpoon-scheduler" */
    const char *summary;              /* one sentence for --help */
    const struct hp_config_key *keys; /* the daemon's own keys */
    size_t config_size;               /* of the structure behind them */
    /* After loading: cross-checks; also run by --check-config. May be NULL. */
    int (*check)(const void *config, struct hp_error *e);
    /* Starts everything on the loop. `*ret_state` is given to stop. */
    int (*start)(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e);
    /* SIGTERM or SIGINT (once): begin an orderly end and call hp_daemon_stopped when done. A second signal exits at once. */
    void (*stop)(struct hp_daemon *d, void *state);
    /* For a daemon with more loops than this one: asked a few times in each period of systemd's watchdog, which is told only when the answer is true. May be NULL. */
    bool (*alive)(struct hp_daemon *d, void *state);
};

/* The whole of main(). Returns the exit code: 0 ended in order, 1 failed, 2 usage or configuration. */
int hp_daemon_main(const struct hp_daemon_spec *spec, int argc, char **argv);

uv_loop_t *hp_daemon_loop(struct hp_daemon *d);
/* Adds an address to the ready file, such as ("grpc", "127.0.0.1:4443"). Before hp_daemon_ready. */
void hp_daemon_address(struct hp_daemon *d, const char *name, const char *address);
/* Writes the ready file {"pid":…,"name":"address",…} atomically, tells systemd READY=1. */
void hp_daemon_ready(struct hp_daemon *d);
/* The orderly end is done: the loop is left. */
void hp_daemon_stopped(struct hp_daemon *d);
/* Something that cannot be repaired: logs e, stops, exit code 1. */
void hp_daemon_fail(struct hp_daemon *d, const struct hp_error *e);

#endif
