/* harpoon — the operator's command: finds the command, reads the settings, runs it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli.h"

static const struct cli_command commands[] = {
    {"get", "get containers|hosts|operations|events|container NAME|host NAME|operation NAME",
     "list things, or show one", cli_cmd_get, "Look"},
    {"describe", "describe container|host|operation NAME", "everything about one thing, with its latest operations",
     cli_cmd_describe, "Look"},
    {"events", "events [-f] [--since TIME | --after SEQUENCE] [filters]", "the region's events, in order",
     cli_cmd_events, "Look"},
    {"explain", "explain FILE.json | explain --image IMAGE …",
     "which host a create would choose, and why not the others", cli_cmd_explain, "Look"},
    {"create", "create NAME --image IMAGE --cpu N --memory SIZE [options] | create [NAME] -f FILE.json",
     "make a container", cli_cmd_create, "Change"},
    {"resize", "resize NAME [--cpu N] [--memory SIZE] [--pids N] …", "change limits; the process runs on",
     cli_cmd_resize, "Change"},
    {"update", "update NAME -f FILE.json", "replace labels and spec", cli_cmd_update, "Change"},
    {"start", "start NAME", "start a stopped container", cli_cmd_lifecycle, "Change"},
    {"stop", "stop NAME", "stop a container and keep it", cli_cmd_lifecycle, "Change"},
    {"restart", "restart NAME", "stop and start a container", cli_cmd_lifecycle, "Change"},
    {"move", "move NAME [--to HOST]", "make a stateless container anew on another host", cli_cmd_move, "Change"},
    {"reserve", "reserve NAME --image IMAGE …", "hold a place for a create or a move", cli_cmd_reserve, "Change"},
    {"delete", "delete NAME…", "stop and remove containers", cli_cmd_lifecycle, "Change"},
    {"ops", "ops list|get|wait|cancel [NAME]", "operations: what was asked for, and how far it is", cli_cmd_ops,
     "Follow"},
    {"hosts", "hosts list|get|cordon|uncordon|drain|declare-lost|quarantined|adopt [NAME]",
     "hosts, in and out of service", cli_cmd_hosts, "Operate"},
    {"host", "host …", "the same as hosts", cli_cmd_hosts, NULL},
    {"rebalance", "rebalance [--apply]", "moves that would be worth their while", cli_cmd_rebalance, "Operate"},
    {"dead", "dead list|replay|drop", "messages that no scheduler could take (needs HARPOON_AMQP_URL)", cli_cmd_dead,
     "Operate"},
    {"admin", "admin migrate|migrations|restored", "the record itself (needs HARPOON_MYSQL_SOCKET)", cli_cmd_admin,
     "Operate"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int help_exit_codes(void)
{
    puts("Exit codes:\n"
         "  0    success\n"
         "  1    internal error, or one that fits none of the others\n"
         "  2    usage: wrong command line or settings; nothing was sent\n"
         "  3    not found\n"
         "  4    conflict: exists already, stale etag, request id used with another payload\n"
         "  5    invalid argument, failed precondition, out of range\n"
         "  6    unavailable, or no answer in time: safe to repeat with the same --request-id\n"
         "  7    not authenticated, or not permitted\n"
         "  8    quota or queue full: repeat later\n"
         "  9    the operation was accepted, and ended as REJECTED, FAILED, CANCELLED or EXPIRED (with --wait)\n"
         "  130  interrupted by Ctrl-C; an accepted operation goes on");
    return CLI_OK;
}

static int help(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "exit-codes") == 0)
        return help_exit_codes();
    if (argc > 1) {
        for (int i = 0; i < COMMANDS; i++) {
            if (strcmp(commands[i].name, argv[1]) == 0) {
                char *args[] = {argv[1], (char *)"--help", NULL};
                struct cli none = {0};
                return commands[i].run(&none, 2, args);
            }
        }
        return cli_usage("no command \"%s\"", argv[1]);
    }
    puts("harpoon: containers on a fleet, from the terminal\n\nUsage: harpoon COMMAND [options]");
    const char *group = "";
    for (int i = 0; i < COMMANDS; i++) {
        if (!commands[i].group)
            continue;
        if (strcmp(group, commands[i].group) != 0)
            printf("\n%s:\n", group = commands[i].group);
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    }
    puts("\nOptions of every command:");
    cli_print_global_options(stdout);
    puts("\nThe token comes from HARPOON_TOKEN only, so that it shows in no process list.\n"
         "`harpoon help COMMAND`, `harpoon help exit-codes`, `harpoon version`.");
    return CLI_OK;
}

static void on_sigint(uv_signal_t *s, int signum)
{
    (void)signum;
    struct cli *c = s->data;
    if (c->interrupted)
        _exit(CLI_INTERRUPTED);
    c->interrupted = true;
    if (c->resume_hint)
        fprintf(stderr, "\nharpoon: %s\n", c->resume_hint);
    if (c->on_interrupt)
        c->on_interrupt(c, c->on_interrupt_user);
    uv_stop(&c->loop);
}

static const char system_certificates[] = "/etc/ssl/certs/ca-certificates.crt";

static const char *setting(const char *variable)
{
    const char *v = getenv(variable);
    return v && *v ? v : NULL;
}

static void read_settings(struct cli *c)
{
    c->endpoint = setting("HARPOON_ENDPOINT");
    c->ca = setting("HARPOON_CA");
    if (!c->ca && access(system_certificates, R_OK) == 0)
        c->ca = system_certificates;
    c->cert = setting("HARPOON_CERT");
    c->key = setting("HARPOON_KEY");
    c->token = setting("HARPOON_TOKEN");
    c->project = setting("HARPOON_PROJECT");
    c->region = setting("HARPOON_REGION");
    c->amqp_url = setting("HARPOON_AMQP_URL");
    c->mysql_socket = setting("HARPOON_MYSQL_SOCKET");
    c->mysql_database = setting("HARPOON_MYSQL_DATABASE");
    c->timeout_ms = 15000;
    c->interactive = isatty(STDERR_FILENO);
}

static void on_closed(void *user)
{
    *(bool *)user = true;
}

static void stop_client(struct cli *c)
{
    bool closed = false;
    if (c->client) {
        hp_rpc_client_close(c->client, on_closed, &closed);
        while (!closed)
            uv_run(&c->loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&c->sigint, NULL);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    uv_loop_close(&c->loop);
}

int main(int argc, char **argv)
{
    hp_log_init("harpoon", HP_LOG_ERROR, HP_LOG_LOGFMT);
    if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(argc - 1, argv + 1);
    if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
        puts("harpoon " HP_VERSION);
        return CLI_OK;
    }
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, argv[1]) != 0)
            continue;
        static struct cli c;
        read_settings(&c);
        uv_loop_init(&c.loop);
        uv_signal_init(&c.loop, &c.sigint);
        c.sigint.data = &c;
        uv_signal_start(&c.sigint, on_sigint, SIGINT);
        signal(SIGPIPE, SIG_DFL);
        int code = commands[i].run(&c, argc - 1, argv + 1);
        stop_client(&c);
        cli_keep_free();
        if (fflush(stdout) != 0)
            code = cli_error(CLI_INTERNAL, "standard output cannot be written");
        return code;
    }
    return cli_usage("no command \"%s\"", argv[1]);
}
