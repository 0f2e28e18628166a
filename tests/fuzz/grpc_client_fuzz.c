/* Bytes of a hostile server to a client session with three calls. The first byte chooses in what pieces they arrive. */
#include <stdlib.h>

#include "echo.pb-c.h"
#include "fuzz.h"
#include "grpc/client.h"

static int under_way;

static void on_message(struct hp_client_call *call, const ProtobufCMessage *m, void *user)
{
    if (user)
        hp_client_call_cancel(call);
}

static void on_finish(struct hp_client_call *call, const Google__Rpc__Status *status, void *user)
{
    under_way--;
}

static void on_wake(void *user)
{
}

static void pull_all(struct hp_grpc_client *s, uint64_t now_ms)
{
    const uint8_t *data;
    size_t len;
    struct hp_error e = {0};
    while (hp_grpc_client_pull(s, now_ms, &data, &len, &e) == 0 && len > 0)
        continue;
}

static void begin(struct hp_grpc_client *s, uint64_t now_ms, bool cancels, uint64_t deadline_ms)
{
    static const struct hp_client_call_events events = {.on_message = on_message, .on_finish = on_finish};
    const struct hp_grpc_call_options o = {
        .path = "/harpoon.test.v1.EchoService/Chat",
        .response = &harpoon__test__v1__echo_response__descriptor,
        .deadline_ms = deadline_ms,
        .message_max = 4096,
        .events = &events,
        .user = cancels ? s : NULL,
        .wake_cb = on_wake,
    };
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    struct hp_client_call *call;
    struct hp_error e = {0};
    if (hp_grpc_call_new(&o, &call, &e) || hp_grpc_client_attach(s, now_ms, call))
        abort();
    under_way++;
    if (hp_client_call_send(call, &q.base))
        abort();
    if (!cancels)
        hp_client_call_half_close(call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct hp_grpc_client_config config = {
        .scheme = "http", .authority = "x", .keepalive_ms = 1000, .wake_cb = on_wake};
    struct hp_grpc_client *s;
    struct hp_error e = {0};
    uint64_t now_ms = 1000;
    if (len < 1)
        return 0;
    uint8_t choice = *data++;
    len--;
    if (hp_grpc_client_new(&config, now_ms, &s, &e))
        abort();
    under_way = 0;
    begin(s, now_ms, false, UINT64_MAX);
    begin(s, now_ms, true, UINT64_MAX);
    begin(s, now_ms, false, now_ms + 5);
    pull_all(s, now_ms);
    size_t piece = choice & 1 ? (size_t)1 + (choice >> 4) : len;
    for (size_t at = 0; at < len; at += piece) {
        if (hp_grpc_client_receive(s, now_ms, data + at, len - at < piece ? len - at : piece, &e))
            break;
        if (choice & 2)
            pull_all(s, now_ms);
        if (choice & 4 && hp_grpc_client_tick(s, ++now_ms, &e))
            break;
    }
    pull_all(s, now_ms);
    hp_grpc_client_free(s, 14, "end");
    if (under_way != 0)
        abort(); /* every call ends exactly once */
    return 0;
}
