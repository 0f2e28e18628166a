/* What all changes do: request_id and operation name are printed before anything is sent, so that Ctrl-C is safe; then the call, then, with --wait, the operation's life. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "harpoon/v1/operation_service.pb-c.h"
#include "io/loop.h"
#include "wire/names.h"

bool cli_stage_ended(Harpoon__V1__Stage s)
{
    return s >= HARPOON__V1__STAGE__STAGE_SUCCEEDED;
}

static void print_progress(struct cli *c, const Harpoon__V1__Operation *op, Harpoon__V1__Stage *last)
{
    if (!c->interactive || op->stage == *last)
        return;
    *last = op->stage;
    fprintf(stderr, "  %s%s%s%s%s\n", cli_enum_name(&harpoon__v1__stage__descriptor, (int)op->stage),
            *op->host ? " on " : "", *op->host ? cli_last_segment(op->host) : "", *op->reason ? ": " : "", op->reason);
}

/* Ends of operations: the error is printed; SUCCEEDED is the only good one. */
static int exit_of_operation(const Harpoon__V1__Operation *op)
{
    if (op->stage == HARPOON__V1__STAGE__STAGE_SUCCEEDED)
        return CLI_OK;
    const char *why = op->error && *op->error->message ? op->error->message : op->reason;
    return cli_error(CLI_OPERATION_FAILED, "%s ended as %s%s%s", op->name,
                     cli_enum_name(&harpoon__v1__stage__descriptor, (int)op->stage), *why ? ": " : "", why);
}

int cli_wait_operation(struct cli *c, const char *name, uint64_t timeout_ms, Harpoon__V1__Operation **ret)
{
    uint64_t end = timeout_ms ? hp_now_ms() + timeout_ms : UINT64_MAX;
    Harpoon__V1__Stage last = HARPOON__V1__STAGE__STAGE_UNSPECIFIED;
    uint64_t call_timeout = c->timeout_ms;
    for (;;) {
        uint64_t now = hp_now_ms(), left = now < end ? end - now : 0;
        uint64_t hold = left < 60000 ? left : 60000;
        Google__Protobuf__Duration timeout = GOOGLE__PROTOBUF__DURATION__INIT;
        timeout.seconds = (int64_t)(hold / 1000);
        timeout.nanos = (int32_t)(hold % 1000) * 1000000;
        Harpoon__V1__WaitOperationRequest req = HARPOON__V1__WAIT_OPERATION_REQUEST__INIT;
        req.name = (char *)name;
        req.timeout = &timeout;
        ProtobufCMessage *answer = NULL;
        c->timeout_ms = hold + 30000; /* a gateway that restarts meanwhile is waited for */
        int code = cli_call(c, "/harpoon.v1.OperationService/WaitOperation", &req.base,
                            &harpoon__v1__operation__descriptor, true, &answer);
        c->timeout_ms = call_timeout;
        if (code)
            return code;
        Harpoon__V1__Operation *op = (Harpoon__V1__Operation *)answer;
        print_progress(c, op, &last);
        bool ended = cli_stage_ended(op->stage);
        if (ended || hp_now_ms() >= end) {
            code = ended ? exit_of_operation(op)
                         : cli_error(CLI_UNAVAILABLE, "%s is still %s after %llu s%s%s", name,
                                     cli_enum_name(&harpoon__v1__stage__descriptor, (int)op->stage),
                                     (unsigned long long)timeout_ms / 1000, *op->reason ? ": " : "", op->reason);
            if (ret)
                *ret = op;
            else
                protobuf_c_message_free_unpacked(answer, NULL);
            return code;
        }
        protobuf_c_message_free_unpacked(answer, NULL);
    }
}

static void print_operation(struct cli *c, const Harpoon__V1__Operation *op)
{
    if (c->format == CLI_JSON || c->format == CLI_JSONL) {
        cli_print_json(c, &op->base);
        return;
    }
    printf("%s %s %s%s%s%s%s\n", cli_last_segment(op->target),
           cli_enum_name(&harpoon__v1__verb__descriptor, (int)op->verb),
           cli_enum_name(&harpoon__v1__stage__descriptor, (int)op->stage), *op->host ? " on " : "",
           *op->host ? cli_last_segment(op->host) : "", *op->reason ? ": " : "", op->reason);
}

int cli_change(struct cli *c, const struct cli_change *ch)
{
    char id[HP_OPERATION_ID_LEN + 1], name[HP_NAME_MAX + 1], hint[HP_NAME_MAX + 128];
    hp_operation_id(id, ch->project, ch->request_id);
    hp_operation_name_format(name, *ch->project ? ch->project : "-", ch->region, id);
    if (!ch->validate_only) {
        fprintf(stderr, "request_id %s\noperation  %s\n", ch->request_id, name);
        snprintf(hint, sizeof hint, "interrupted; if it was accepted it goes on: harpoon ops wait %s", name);
        c->resume_hint = hint;
    }
    ProtobufCMessage *answer = NULL;
    int code = cli_call(c, ch->path, ch->request, &harpoon__v1__operation__descriptor, true, &answer);
    Harpoon__V1__Operation *op = (Harpoon__V1__Operation *)answer;
    if (!code && ch->validate_only) {
        puts("valid; nothing was changed");
    } else if (!code) {
        if (ch->wait && !cli_stage_ended(op->stage)) {
            Harpoon__V1__Operation *final = NULL;
            code = cli_wait_operation(c, op->name, ch->wait_ms, &final);
            if (final) {
                harpoon__v1__operation__free_unpacked(op, NULL);
                op = final;
            }
        } else if (cli_stage_ended(op->stage)) {
            code = exit_of_operation(op);
        }
        print_operation(c, op);
    }
    if (op)
        harpoon__v1__operation__free_unpacked(op, NULL);
    c->resume_hint = NULL;
    return code;
}
