/* Calls that block the command: the loop runs until the answer is there. A lost connection is tried again with back-off while the call's timeout lasts. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "google/rpc/error_details.pb-c.h"
#include "grpc/status.h"
#include "io/loop.h"

struct waiting {
    struct cli *cli;
    const ProtobufCMessageDescriptor *response;
    bool (*message_cb)(const ProtobufCMessage *m, void *user); /* streams */
    void *user;
    struct hp_client_call *call;
    ProtobufCMessage *answer; /* unary */
    Google__Rpc__Status *status;
    bool finished, ended_by_us;
};

int cli_error(int exit_code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("harpoon: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return exit_code;
}

int cli_usage(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("harpoon: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs(" (see `harpoon help`)\n", stderr);
    va_end(ap);
    return CLI_USAGE;
}

int cli_exit_of_code(int code)
{
    switch (code) {
    case HP_CODE_OK:
        return CLI_OK;
    case HP_CODE_NOT_FOUND:
        return CLI_NOT_FOUND;
    case HP_CODE_ALREADY_EXISTS:
    case HP_CODE_ABORTED:
        return CLI_CONFLICT;
    case HP_CODE_INVALID_ARGUMENT:
    case HP_CODE_FAILED_PRECONDITION:
    case HP_CODE_OUT_OF_RANGE:
        return CLI_INVALID;
    case HP_CODE_UNAVAILABLE:
    case HP_CODE_DEADLINE_EXCEEDED:
        return CLI_UNAVAILABLE;
    case HP_CODE_PERMISSION_DENIED:
    case HP_CODE_UNAUTHENTICATED:
        return CLI_DENIED;
    case HP_CODE_RESOURCE_EXHAUSTED:
        return CLI_EXHAUSTED;
    case HP_CODE_CANCELLED:
        return CLI_INTERRUPTED;
    default:
        return CLI_INTERNAL;
    }
}

/* The violations, unless the message says the only one already. */
static void print_fields(const Google__Protobuf__Any *any, const char *message)
{
    static const char type[] = "google.rpc.BadRequest";
    const char *name = any->type_url ? cli_last_segment(any->type_url) : "";
    if (strcmp(name, type) != 0)
        return;
    Google__Rpc__BadRequest *b = google__rpc__bad_request__unpack(NULL, any->value.len, any->value.data);
    bool said = b && b->n_field_violations == 1 && strstr(message, b->field_violations[0]->description);
    for (size_t i = 0; b && !said && i < b->n_field_violations; i++)
        fprintf(stderr, "  %s: %s\n", b->field_violations[i]->field, b->field_violations[i]->description);
    if (b)
        google__rpc__bad_request__free_unpacked(b, NULL);
}

static const char *hint_of(int code)
{
    switch (code) {
    case HP_CODE_UNAVAILABLE:
        return "nothing is lost: run it again with the same --request-id once the gateway and its broker answer";
    case HP_CODE_UNAUTHENTICATED:
        return "set HARPOON_TOKEN to a token that the gateway knows";
    case HP_CODE_ABORTED:
        return "read it again, and send the new etag";
    case HP_CODE_RESOURCE_EXHAUSTED:
        return "wait, then try again with the same --request-id";
    default:
        return NULL;
    }
}

int cli_print_status(const Google__Rpc__Status *s)
{
    fprintf(stderr, "harpoon: %s: %s\n", hp_code_name(s->code), s->message);
    for (size_t i = 0; i < s->n_details; i++)
        print_fields(s->details[i], s->message);
    const char *hint = hint_of(s->code);
    if (hint)
        fprintf(stderr, "  (%s)\n", hint);
    return cli_exit_of_code(s->code);
}

int cli_connect(struct cli *c)
{
    if (c->client)
        return CLI_OK;
    if (!c->endpoint || !*c->endpoint)
        return cli_usage("no gateway: set HARPOON_ENDPOINT or --endpoint to https://host:port");
    struct hp_rpc_client_options o = {
        .endpoint = c->endpoint, .ca_file = c->ca, .cert_file = c->cert, .key_file = c->key, .token = c->token};
    struct hp_error e = {0};
    if (hp_rpc_client_new(&c->loop, &o, &c->client, &e))
        return cli_error(CLI_USAGE, "%s", e.message);
    return CLI_OK;
}

static ProtobufCMessage *copy_message(const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *buf = malloc(n ? n : 1);
    if (!buf)
        return NULL;
    protobuf_c_message_pack(m, buf);
    ProtobufCMessage *copy = protobuf_c_message_unpack(m->descriptor, NULL, n, buf);
    free(buf);
    return copy;
}

static void on_message(struct hp_client_call *call, const ProtobufCMessage *response, void *user)
{
    struct waiting *w = user;
    if (!w->message_cb) {
        if (!w->answer)
            w->answer = copy_message(response);
    } else if (!w->ended_by_us && !w->message_cb(response, w->user)) {
        w->ended_by_us = true;
        hp_client_call_cancel(call);
    }
}

static void on_finish(struct hp_client_call *call, const Google__Rpc__Status *status, void *user)
{
    (void)call;
    struct waiting *w = user;
    w->status = (Google__Rpc__Status *)copy_message(&status->base);
    w->finished = true;
    uv_stop(&w->cli->loop);
}

static void cancel_call(struct cli *c, void *user)
{
    (void)c;
    struct waiting *w = user;
    if (!w->finished)
        hp_client_call_cancel(w->call);
}

/* One attempt, to its end. Non-zero only when it could not begin. */
static int run_call(struct cli *c, const char *path, const ProtobufCMessage *request, uint64_t timeout_ms,
                    struct waiting *w)
{
    static const struct hp_client_call_events events = {.on_message = on_message, .on_finish = on_finish};
    struct hp_error e = {0};
    int r = hp_client_call_start(c->client, path, w->response, timeout_ms, &events, w, &w->call, &e);
    if (r)
        return cli_error(CLI_INTERNAL, "%s", e.message);
    r = hp_client_call_send(w->call, request);
    if (r == HP_ELIMIT) {
        hp_client_call_cancel(w->call);
        cli_error(CLI_INVALID, "the request is too large to send");
    }
    hp_client_call_half_close(w->call);
    c->on_interrupt = cancel_call;
    c->on_interrupt_user = w;
    while (!w->finished)
        uv_run(&c->loop, UV_RUN_DEFAULT);
    c->on_interrupt = NULL;
    return w->status ? CLI_OK : cli_error(CLI_INTERNAL, "out of memory");
}

static void free_status(struct waiting *w)
{
    if (w->status)
        google__rpc__status__free_unpacked(w->status, NULL);
    w->status = NULL;
    w->finished = false;
}

int cli_call(struct cli *c, const char *path, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *response, bool retry, ProtobufCMessage **ret)
{
    int code = cli_connect(c);
    if (code)
        return code;
    uint64_t end = hp_now_ms() + c->timeout_ms, pause_ms = 100;
    struct waiting w = {.cli = c, .response = response};
    for (;;) {
        uint64_t now = hp_now_ms();
        code = run_call(c, path, request, end > now ? end - now : 1, &w);
        if (code)
            return code;
        if (w.status->code != HP_CODE_UNAVAILABLE || !retry || c->interrupted || hp_now_ms() + pause_ms >= end)
            break;
        free_status(&w);
        cli_sleep(c, pause_ms);
        pause_ms = pause_ms < 1600 ? pause_ms * 2 : 1600;
    }
    if (c->interrupted)
        code = CLI_INTERRUPTED;
    else if (w.status->code == 0 && !w.answer)
        code = cli_error(CLI_INTERNAL, "%s: the gateway answered without a message", path);
    else if (w.status->code)
        code = cli_print_status(w.status);
    free_status(&w);
    if (code && w.answer)
        protobuf_c_message_free_unpacked(w.answer, NULL);
    else
        *ret = w.answer;
    return code;
}

int cli_stream(struct cli *c, const char *path, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *response, bool (*message_cb)(const ProtobufCMessage *m, void *user),
               void *user, Google__Rpc__Status **ret_status)
{
    int code = cli_connect(c);
    if (code)
        return code;
    struct waiting w = {.cli = c, .response = response, .message_cb = message_cb, .user = user};
    code = run_call(c, path, request, 0, &w);
    if (code)
        return code;
    if (!w.ended_by_us)
        code = c->interrupted ? CLI_INTERRUPTED : cli_exit_of_code(w.status->code);
    if (ret_status)
        *ret_status = w.status;
    else
        free_status(&w);
    return code;
}

static void on_timer(uv_timer_t *t)
{
    *(bool *)t->data = true;
    uv_stop(t->loop);
}

static void on_timer_closed(uv_handle_t *h)
{
    *(bool *)h->data = true;
    uv_stop(h->loop);
}

void cli_sleep(struct cli *c, uint64_t ms)
{
    bool done = false, closed = false;
    uv_timer_t timer;
    uv_timer_init(&c->loop, &timer);
    timer.data = &done;
    uv_timer_start(&timer, on_timer, ms, 0);
    while (!done && !c->interrupted)
        uv_run(&c->loop, UV_RUN_DEFAULT);
    timer.data = &closed;
    uv_close((uv_handle_t *)&timer, on_timer_closed);
    while (!closed)
        uv_run(&c->loop, UV_RUN_DEFAULT);
}
