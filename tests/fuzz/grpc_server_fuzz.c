/* Bytes of a hostile client to a server session. The first byte chooses: whether the preface is sent for it, in what pieces the rest arrives, and
 * whether time passes in between. */
#include <stdlib.h>
#include <string.h>

#include "echo.pb-c.h"
#include "fuzz.h"
#include "lib/grpc_pipe.h"

static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
static struct hp_rpc_call *kept; /* a call that is answered later, or never */

static void answer(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    Harpoon__Test__V1__EchoResponse r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    r.text = q->text;
    r.data = q->data;
    r.n_items = q->n_items;
    r.items = q->items;
    int rc = hp_rpc_send(call, &r.base);
    (void)rc;
}

static void on_unary(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    if (q->hang && !kept) {
        kept = call;
        return;
    }
    answer(call, m);
    hp_rpc_finish(call, q->fail_code ? hp_status_new(q->fail_code, "R", "%s", q->text) : NULL);
}

static void on_chat(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    answer(call, m);
    if (q->hang)
        hp_rpc_pause(call);
    if (q->fail_code)
        hp_rpc_finish(call, NULL);
}

static void on_half_close(struct hp_rpc_call *call)
{
    hp_rpc_finish(call, NULL);
}

static void on_cancel(struct hp_rpc_call *call)
{
    if (kept == call)
        kept = NULL;
}

static const struct hp_rpc_method echo = {.service = "harpoon.test.v1.EchoService",
                                          .name = "Echo",
                                          .request = &harpoon__test__v1__echo_request__descriptor,
                                          .response = &harpoon__test__v1__echo_response__descriptor,
                                          .on_message = on_unary,
                                          .on_cancel = on_cancel};
static const struct hp_rpc_method chat = {.service = "harpoon.test.v1.EchoService",
                                          .name = "Chat",
                                          .request = &harpoon__test__v1__echo_request__descriptor,
                                          .response = &harpoon__test__v1__echo_response__descriptor,
                                          .client_streaming = true,
                                          .server_streaming = true,
                                          .on_message = on_chat,
                                          .on_half_close = on_half_close,
                                          .on_cancel = on_cancel};
static const struct hp_rpc_method *const methods[] = {&echo, &chat, NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct grpc_pipe p = {
        .service = {.methods = methods, .message_max = 4096, .call_buffer_max = 8192, .calls_max = 8}};
    struct hp_error e = {0};
    if (len < 1)
        return 0;
    kept = NULL;
    uint8_t choice = *data++;
    len--;
    grpc_pipe_open(&p, false);
    int rc = choice & 1 ? hp_grpc_server_receive(p.server, p.now_ms, preface, sizeof preface - 1, &e) : 0;
    size_t piece = choice & 2 ? (size_t)1 + (choice >> 4) : len;
    for (size_t at = 0; at < len && rc == 0; at += piece) {
        rc = hp_grpc_server_receive(p.server, p.now_ms, data + at, len - at < piece ? len - at : piece, &e);
        if (choice & 4)
            grpc_pipe_pump(&p);
        if (choice & 8)
            grpc_pipe_pass(&p, 1000);
    }
    grpc_pipe_pump(&p);
    if (kept)
        hp_rpc_finish(kept, NULL);
    grpc_pipe_pass(&p, 100000);
    grpc_pipe_close(&p); /* aborts when a byte of the budget is not given back */
    return 0;
}
