/* harpoon-scheduler: decides for the regions that it leads, and stands by for the others. */
#include "io/daemon.h"
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
    };
    return hp_daemon_main(&spec, argc, argv);
}
