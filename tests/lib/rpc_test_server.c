/* A server of echo.proto for clients that none of us wrote: `rpc-test-server READY_FILE [CERT KEY [CA]]`. Writes its addresses to READY_FILE, ends
 * on SIGTERM in order, toggles health on SIGUSR1. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "grpc/reflection.h"
#include "io/rpc_server.h"
#include "lib/echo_service.h"

extern const struct hp_reflection_data hp_reflection_echo;

static struct hp_rpc_server *server;
static uv_signal_t terminate, toggle;
static bool serving = true;

static void on_closed(void *user)
{
    uv_close((uv_handle_t *)&terminate, NULL);
    uv_close((uv_handle_t *)&toggle, NULL);
}

static void on_terminate(uv_signal_t *handle, int number)
{
    uv_signal_stop(handle);
    hp_rpc_server_close(server, 5000, on_closed, NULL);
}

static void on_toggle(uv_signal_t *handle, int number)
{
    serving = !serving;
    hp_rpc_server_set_serving(server, serving);
}

static void write_ready(const char *file)
{
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.new", file);
    FILE *f = fopen(temporary, "w");
    if (!f)
        exit(1);
    const char *grpc = hp_rpc_server_address(server, "grpc");
    fprintf(f, "{\"pid\":%d,\"grpc\":\"%s\",\"h2c\":\"%s\",\"http\":\"%s\"}\n", (int)getpid(), grpc ? grpc : "",
            hp_rpc_server_address(server, "h2c"), hp_rpc_server_address(server, "http"));
    fclose(f);
    if (rename(temporary, file))
        exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    hp_log_init("rpc-test-server", HP_LOG_DEBUG, HP_LOG_LOGFMT);
    uv_loop_t loop;
    struct echo_service echo;
    struct hp_error e = {0};
    uv_loop_init(&loop);
    echo_service_init(&echo, &loop, getenv("WITH_TOKEN") != NULL);
    const char *read_ms = getenv("READ_MS");
    const struct hp_rpc_server_options o = {
        .service = &echo.rpc,
        .grpc_listen = argc > 3 ? "127.0.0.1:0" : NULL,
        .h2c_listen = "127.0.0.1:0",
        .http_listen = "127.0.0.1:0",
        .cert_file = argc > 3 ? argv[2] : NULL,
        .key_file = argc > 3 ? argv[3] : NULL,
        .client_ca_file = argc > 4 ? argv[4] : NULL,
        .http_read_ms = read_ms ? atoi(read_ms) : 0,
        .allow_origins = "https://console.example",
        .reflection = &hp_reflection_echo,
    };
    if (hp_rpc_server_start(&loop, &o, &server, &e)) {
        hp_err("cannot start", HP_S("error", e.message));
        return 1;
    }
    hp_rpc_server_set_serving(server, true);
    signal(SIGPIPE, SIG_IGN);
    uv_signal_init(&loop, &terminate);
    uv_signal_start(&terminate, on_terminate, SIGTERM);
    uv_signal_init(&loop, &toggle);
    uv_signal_start(&toggle, on_toggle, SIGUSR1);
    write_ready(argv[1]);
    uv_run(&loop, UV_RUN_DEFAULT);
    int calls = echo.calls, rc = uv_loop_close(&loop);
    hp_info("ended", HP_I("calls", calls), HP_I("loop", rc));
    return calls || rc ? 1 : 0;
}
