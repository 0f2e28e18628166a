/* harpoon-broker-gw: the public API of Harpoon. */
#include "io/daemon.h"
#include "shell/config.h"
#include "shell/gateway.h"

int main(int argc, char **argv)
{
    static const struct hp_daemon_spec spec = {
        .program = "harpoon-broker-gw",
        .summary = "Serves Harpoon's API: takes changes durably, and shows what happens.",
        .keys = gw_config_keys,
        .config_size = sizeof(struct gw_config),
        .check = gw_config_check,
        .start = gw_gateway_start,
        .stop = gw_gateway_stop,
    };
    return hp_daemon_main(&spec, argc, argv);
}
