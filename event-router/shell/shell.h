/* shell.h — the router's I/O: agents' connections, the broker, the clock; drives core/core.h. */
#ifndef ER_SHELL_SHELL_H
#define ER_SHELL_SHELL_H

#include <uv.h>

#include "base/error.h"
#include "shell/config.h"

struct er_shell;

struct er_shell_events {
    /* Once: agents can attach, and the broker has been reached. */
    void (*on_ready)(void *user);
    /* After er_shell_drain: everything is closed, and the shell freed. */
    void (*on_end)(void *user);
    void *user;
};

/* `config` stays valid while the shell is. Loop thread, as everything here. */
int er_shell_new(uv_loop_t *loop, const struct er_config *config, const struct er_shell_events *events,
                 struct er_shell **ret, struct hp_error *e) HP_MUST_CHECK;
const char *er_shell_address(const struct er_shell *s);
/* Begins the orderly end; on_end follows. */
void er_shell_drain(struct er_shell *s);

#endif
