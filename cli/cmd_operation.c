/* ops: list, get, wait, cancel. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harpoon/v1/operation_service.pb-c.h"

struct ops_options {
    bool help, active;
    const char *target, *timeout, *limit, *request_id;
};

static int ops_list(struct cli *c, const struct ops_options *o)
{
    char target[256] = "";
    struct hp_error e = {0};
    int64_t limit = 100;
    if (o->limit && cli_parse_int(o->limit, 1, 1000, &limit, &e))
        return cli_usage("--limit: %s", e.message);
    int code = CLI_OK;
    if (o->target && strstr(o->target, "/hosts/"))
        snprintf(target, sizeof target, "%s", o->target);
    else if (o->target)
        code = cli_container_name(c, o->target, target);
    return code ? code : cli_list_operations(c, target, o->active, (int)limit);
}

static int ops_wait(struct cli *c, const struct ops_options *o, const char *text)
{
    char name[256], hint[400];
    int64_t timeout_ms = 0;
    struct hp_error e = {0};
    if (o->timeout && cli_parse_duration(o->timeout, &timeout_ms, &e))
        return cli_usage("--timeout: %s", e.message);
    int code = cli_operation_name(c, text, name);
    if (code)
        return code;
    snprintf(hint, sizeof hint, "interrupted; the operation goes on: harpoon ops wait %s", name);
    c->resume_hint = hint;
    Harpoon__V1__Operation *op = NULL;
    code = cli_wait_operation(c, name, (uint64_t)timeout_ms, &op);
    c->resume_hint = NULL;
    if (op && (c->format == CLI_JSON || c->format == CLI_JSONL))
        cli_print_json(c, &op->base);
    else if (op)
        printf("%s %s\n", name, cli_enum_name(&harpoon__v1__stage__descriptor, (int)op->stage));
    if (op)
        harpoon__v1__operation__free_unpacked(op, NULL);
    return code;
}

static int ops_cancel(struct cli *c, const struct ops_options *o, const char *text)
{
    char name[256], made[37];
    int code = cli_operation_name(c, text, name);
    if (code)
        return code;
    cli_new_request_id(made);
    Harpoon__V1__CancelOperationRequest req = HARPOON__V1__CANCEL_OPERATION_REQUEST__INIT;
    req.name = name;
    req.request_id = o->request_id ? (char *)o->request_id : made;
    ProtobufCMessage *m = NULL;
    code = cli_call(c, "/harpoon.v1.OperationService/CancelOperation", &req.base, &harpoon__v1__operation__descriptor,
                    true, &m);
    if (code)
        return code;
    if (c->format == CLI_JSON || c->format == CLI_JSONL)
        cli_print_json(c, m);
    else
        printf("%s %s\n", name,
               cli_enum_name(&harpoon__v1__stage__descriptor, (int)((Harpoon__V1__Operation *)m)->stage));
    protobuf_c_message_free_unpacked(m, NULL);
    return CLI_OK;
}

int cli_cmd_ops(struct cli *c, int argc, char **argv)
{
    struct ops_options o = {0};
    struct cli_args args;
    const struct cli_option table[] = {
        {"target", 0, CLI_STRING, &o.target, "NAME", "list: only operations on this container or host"},
        {"active", 0, CLI_FLAG, &o.active, NULL, "list: only those that go on"},
        {"limit", 0, CLI_STRING, &o.limit, "N", "list: newest N; default 100, at most 1000"},
        {"timeout", 0, CLI_STRING, &o.timeout, "TIME", "wait: give up after this time; default: never"},
        {"request-id", 0, CLI_STRING, &o.request_id, "ID", "cancel: repeat an earlier request safely"},
        {"help", 'h', CLI_FLAG, &o.help, NULL, "this text"},
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("ops: %s", e.message);
    if (o.help) {
        puts("Usage: harpoon ops list | get NAME | wait NAME | cancel NAME\n\nOptions:");
        cli_print_options(stdout, table);
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    const char *verb = args.count ? args.items[0] : "list";
    if (strcmp(verb, "list") == 0 && args.count < 2)
        return ops_list(c, &o);
    if (args.count != 2)
        return cli_usage("ops %s: give one operation", verb);
    if (strcmp(verb, "wait") == 0)
        return ops_wait(c, &o, args.items[1]);
    if (strcmp(verb, "cancel") == 0)
        return ops_cancel(c, &o, args.items[1]);
    if (strcmp(verb, "get") == 0) {
        char *get[] = {(char *)"get", (char *)"operation", (char *)args.items[1], NULL};
        return cli_cmd_get(c, 3, get);
    }
    return cli_usage("ops: no verb \"%s\"", verb);
}
