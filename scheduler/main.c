/* harpoon-scheduler: decides for the regions that it leads, and stands by for the others. */
#include <string.h>

#include "io/daemon.h"
#include "replay/replay.h"
#include "shell/config.h"
#include "shell/scheduler.h"

int main(int argc, char **argv)
{
    static const struct hp_daemon_spec spec = {
        .program = "harpoon-scheduler",
        .summary = "Places containers, keeps the record, and follows every operation to its end.",
        .keys = sc_config_keys,
        .config_size = sizeof(struct sc_config),
        .check = sc_config_check,
        .start = sc_scheduler_start,
        .stop = sc_scheduler_stop,
        .alive = sc_scheduler_alive,
    };
    if (argc > 1 && !strcmp(argv[1], "replay"))
        return sc_replay_main(argc - 1, argv + 1);
    return hp_daemon_main(&spec, argc, argv);
}
