/* hosts: list, get, cordon, uncordon, drain, declare-lost. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "wire/names.h"

static int send_host_change(struct cli *c, const char *path, const ProtobufCMessage *m, const char *name,
                            const char *request_id, bool wait)
{
    struct hp_host_name n;
    struct hp_error e = {0};
    if (hp_host_name_parse("host", name, &n, &e))
        return cli_error(CLI_USAGE, "%s", e.message);
    struct cli_change ch = {
        .path = path, .request = m, .project = "", .region = n.region, .request_id = request_id, .wait = wait};
    return cli_change(c, &ch);
}

static int host_change(struct cli *c, const char *verb, char *name, char *request_id, bool wait)
{
#define SEND(Type, INIT, path)                                                                                         \
    do {                                                                                                               \
        Harpoon__V1__##Type req = INIT;                                                                                \
        req.name = name;                                                                                               \
        req.request_id = request_id;                                                                                   \
        return send_host_change(c, "/harpoon.v1.HostService/" path, &req.base, name, request_id, wait);                \
    } while (0)
    if (strcmp(verb, "cordon") == 0)
        SEND(CordonHostRequest, HARPOON__V1__CORDON_HOST_REQUEST__INIT, "CordonHost");
    if (strcmp(verb, "uncordon") == 0)
        SEND(UncordonHostRequest, HARPOON__V1__UNCORDON_HOST_REQUEST__INIT, "UncordonHost");
    if (strcmp(verb, "drain") == 0)
        SEND(DrainHostRequest, HARPOON__V1__DRAIN_HOST_REQUEST__INIT, "DrainHost");
    if (strcmp(verb, "declare-lost") == 0)
        SEND(DeclareHostLostRequest, HARPOON__V1__DECLARE_HOST_LOST_REQUEST__INIT, "DeclareHostLost");
    return cli_usage("hosts: no verb \"%s\"", verb);
#undef SEND
}

int cli_cmd_hosts(struct cli *c, int argc, char **argv)
{
    bool help = false, wait = false, yes = false;
    const char *request_id = NULL;
    struct cli_args args;
    const struct cli_option table[] = {
        {"wait", 'w', CLI_FLAG, &wait, NULL, "return when the operation has ended"},
        {"request-id", 0, CLI_STRING, &request_id, "ID", "repeat an earlier request safely"},
        {"yes", 'y', CLI_FLAG, &yes, NULL, "declare-lost: do not ask"},
        {"help", 'h', CLI_FLAG, &help, NULL, "this text"},
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("%s: %s", argv[0], e.message);
    if (help) {
        puts("Usage: harpoon hosts list | get HOST | cordon HOST | uncordon HOST | drain HOST | declare-lost "
             "HOST\n\nOptions:");
        cli_print_options(stdout, table);
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    const char *verb = args.count ? args.items[0] : "list";
    if (strcmp(verb, "list") == 0 && args.count < 2)
        return cli_list_hosts(c);
    if (args.count != 2)
        return cli_usage("hosts %s: give one host", verb);
    if (strcmp(verb, "get") == 0) {
        char *get[] = {(char *)"get", (char *)"host", (char *)args.items[1], NULL};
        return cli_cmd_get(c, 3, get);
    }
    char name[256], made[37];
    int code = cli_host_name(c, args.items[1], name);
    if (code)
        return code;
    if (strcmp(verb, "declare-lost") == 0 && !yes) {
        if (!c->interactive)
            return cli_usage("declare-lost gives up every container of %s: confirm with --yes", name);
        fprintf(stderr,
                "Every container of %s becomes LOST and its place is given away. Type the host's short name: ", name);
        char line[80] = "";
        if (!fgets(line, sizeof line, stdin) || strcmp(strtok(line, "\n") ? line : "", cli_last_segment(name)) != 0)
            return cli_error(CLI_USAGE, "not confirmed; nothing was changed");
    }
    cli_new_request_id(made);
    return host_change(c, verb, name, request_id ? (char *)request_id : made, wait);
}
