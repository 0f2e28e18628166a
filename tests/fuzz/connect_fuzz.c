/* The whole gateway over Connect on HTTP/1.1, with broker and record made up (fake_io.h): requests of every method as protobuf and as JSON, bodies and headers of any bytes, and what the broker brings it: events
 * of the stream, verdicts, outcomes of publishes.
 *
 * Asserted: every call is answered, with a status of the Connect protocol; an error is JSON with a code; an answer unpacks as its method's type; the same request in JSON and in protobuf gets the same status; the
 * gateway survives every event and verdict. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "base/log.h"
#include "fuzz/fake_io.h"
#include "fuzz/script.h"
#include "harpoon/internal/v1/request.pb-c.h"
#include "harpoon/v1/event.pb-c.h"
#include "io/loop.h"
#include "shell/gateway.h"
#include "wire/codec.h"
#include "wire/json.h"

/* All of gw_methods. */
enum { METHODS = 28, EVENT = METHODS, VERDICT, OUTCOME, BODY, RAW, ANSWER_MAX = 1 << 20 };

#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "harpoon/v1/operation_service.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"

const struct fuzz_kind fuzz_kinds[] = {
    {"CreateContainer", &harpoon__v1__create_container_request__descriptor},
    {"GetContainer", &harpoon__v1__get_container_request__descriptor},
    {"ListContainers", &harpoon__v1__list_containers_request__descriptor},
    {"ResizeContainer", &harpoon__v1__resize_container_request__descriptor},
    {"UpdateContainer", &harpoon__v1__update_container_request__descriptor},
    {"StartContainer", &harpoon__v1__start_container_request__descriptor},
    {"StopContainer", &harpoon__v1__stop_container_request__descriptor},
    {"RestartContainer", &harpoon__v1__restart_container_request__descriptor},
    {"DeleteContainer", &harpoon__v1__delete_container_request__descriptor},
    {"GetOperation", &harpoon__v1__get_operation_request__descriptor},
    {"ListOperations", &harpoon__v1__list_operations_request__descriptor},
    {"WaitOperation", &harpoon__v1__wait_operation_request__descriptor},
    {"CancelOperation", &harpoon__v1__cancel_operation_request__descriptor},
    {"ListEvents", &harpoon__v1__list_events_request__descriptor},
    {"GetHost", &harpoon__v1__get_host_request__descriptor},
    {"ListHosts", &harpoon__v1__list_hosts_request__descriptor},
    {"CordonHost", &harpoon__v1__cordon_host_request__descriptor},
    {"UncordonHost", &harpoon__v1__uncordon_host_request__descriptor},
    {"DrainHost", &harpoon__v1__drain_host_request__descriptor},
    {"DeclareHostLost", &harpoon__v1__declare_host_lost_request__descriptor},
    {"Explain", &harpoon__v1__explain_request__descriptor},
    {"Watch", &harpoon__v1__watch_request__descriptor},
    {"Submit", &harpoon__v1__submit_request__descriptor},
    {"GetHostLoad", &harpoon__v1__get_host_load_request__descriptor},
    {"AdoptContainer", &harpoon__v1__adopt_container_request__descriptor},
    {"MoveContainer", &harpoon__v1__move_container_request__descriptor},
    {"Reserve", &harpoon__v1__reserve_request__descriptor},
    {"ProposeMoves", &harpoon__v1__propose_moves_request__descriptor},
    [EVENT] = {"event", &harpoon__v1__event__descriptor},
    [VERDICT] = {"verdict", &harpoon__internal__v1__verdict__descriptor},
    [OUTCOME] = {"outcome", NULL},
    [BODY] = {"body", NULL},
    [RAW] = {"raw", NULL},
};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {"r1",
                                  "-",
                                  "p",
                                  "h1",
                                  "c1",
                                  "1",
                                  "regions/r1",
                                  "regions/r1/hosts/h1",
                                  "projects/p/regions/r1",
                                  "projects/-/regions/r1",
                                  "projects/p/regions/r1/containers/c1",
                                  "projects/p/regions/r1/operations/00000000000000000000000000000001",
                                  "harpoon.container.*",
                                  "harpoon.operation.succeeded",
                                  "oci:/images:busybox",
                                  NULL};

static struct sockaddr_in server;

/* A method that this knows nothing of is one that is not fuzzed. */
static void check_methods(void)
{
    for (int i = 0; gw_methods[i]; i++) {
        int kind = 0;
        while (kind < METHODS && strcmp(fuzz_kinds[kind].name, gw_methods[i]->name) != 0)
            kind++;
        assert(kind < METHODS && fuzz_kinds[kind].type == gw_methods[i]->request);
    }
}

static void start(void)
{
    static char *regions[] = {(char *)(uintptr_t) "r1", NULL};
    static char tokens[64];
    static const char text[] =
        "[token ann]\nsha256 = 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\nprojects = *\nrole = "
        "admin\n";
    static struct gw_config config = {.name = (char *)(uintptr_t) "gw",
                                      .regions = regions,
                                      .http_listen = (char *)(uintptr_t) "127.0.0.1:0",
                                      .verdict_timeout_ms = 1,
                                      .tokens_file = tokens};
    struct hp_error e = {0};
    void *state;
    check_methods();
    snprintf(tokens, sizeof tokens, "/dev/shm/harpoon-fuzz-XXXXXX");
    int fd = mkstemp(tokens);
    if (fd < 0 || write(fd, text, sizeof text - 1) < 0)
        abort();
    close(fd);
    hp_log_set_level(HP_LOG_ERROR);
    int rc = gw_gateway_start(NULL, &config, &state, &e);
    assert(rc == 0);
    unlink(tokens);
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons((uint16_t)atoi(strrchr(fake_address(), ':') + 1));
}

static void turn(void)
{
    uv_run(fake_loop(), UV_RUN_NOWAIT);
    while (fake_turn())
        continue;
}

/* ---- One connection, one request ---- */

static size_t talk(const void *request, size_t len, char *answer, uint64_t wait_ms)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct linger reset = {1, 0}; /* no port is left in TIME_WAIT */
    size_t sent = 0, got = 0;
    uint64_t end = hp_now_ms() + wait_ms;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset))
        abort();
    if (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        abort();
    do {
        ssize_t n = sent < len ? send(fd, (const char *)request + sent, len - sent, MSG_NOSIGNAL) : 0;
        sent += n > 0 ? (size_t)n : 0;
        turn();
        n = recv(fd, answer + got, ANSWER_MAX - got - 1, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != ENOTCONN))
            break;
        got += n > 0 ? (size_t)n : 0;
    } while (hp_now_ms() < end && got < ANSWER_MAX - 1);
    close(fd);
    turn();
    answer[got] = '\0';
    return got;
}

static const struct hp_rpc_method *method_of(const char *name)
{
    for (int i = 0; gw_methods[i]; i++)
        if (strcmp(gw_methods[i]->name, name) == 0)
            return gw_methods[i];
    abort();
}

static void check_error(const char *body, size_t len)
{
    static const char *const codes[] = {
        "canceled", "unknown",      "invalid_argument",  "deadline_exceeded",  "not_found",           "already_exists",
        "aborted",  "out_of_range", "permission_denied", "resource_exhausted", "failed_precondition", "unimplemented",
        "internal", "unavailable",  "data_loss",         "unauthenticated"};
    json_error_t error;
    json_t *root = json_loadb(body, len, 0, &error);
    const char *code = json_string_value(json_object_get(root, "code"));
    bool known = false;
    assert(code);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        known |= strcmp(code, codes[i]) == 0;
    assert(known && strcmp(code, "internal") != 0);
    json_decref(root);
}

/* The HTTP status; the answer has been looked at. */
static int call(const struct hp_rpc_method *m, bool json, const void *body, size_t len)
{
    static char request[ANSWER_MAX], answer[ANSWER_MAX];
    bool streaming = m->client_streaming || m->server_streaming,
         waits = streaming || strcmp(m->name, "WaitOperation") == 0;
    int head = snprintf(request, sizeof request,
                        "POST /%s/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nConnection: close\r\n"
                        "Connect-Protocol-Version: 1\r\nConnect-Timeout-Ms: %d\r\nContent-Type: application/%s%s\r\n"
                        "Content-Length: %zu\r\n\r\n",
                        m->service, m->name, waits ? 10 : 10000, streaming ? "connect+" : "", json ? "json" : "proto",
                        len + (streaming ? 5 : 0));
    size_t n = (size_t)head;
    if (streaming) {
        const uint8_t envelope[5] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
        memcpy(request + n, envelope, 5);
        n += 5;
    }
    if (n + len > sizeof request)
        return 0;
    memcpy(request + n, body, len);
    size_t got = talk(request, n + len, answer, 10000);
    int status = 0;
    assert(sscanf(answer, "HTTP/1.1 %d ", &status) == 1);
    const char *start_of_body = strstr(answer, "\r\n\r\n");
    assert(start_of_body && status >= 200 && status < 600 && status != 500);
    start_of_body += 4;
    size_t body_len = got - (size_t)(start_of_body - answer);
    if (streaming)
        return status;
    if (status != 200) {
        check_error(start_of_body, body_len);
        return status;
    }
    ProtobufCMessage *message;
    struct hp_error e = {0};
    int rc = json ? hp_json_parse_message(start_of_body, body_len, m->response, &message, &e)
                  : hp_unpack(m->response, start_of_body, body_len, NULL, &message, &e);
    assert(rc == 0);
    protobuf_c_message_free_unpacked(message, NULL);
    return status;
}

/* False: a map has a key twice, which JSON cannot say. */
static bool says_all(const ProtobufCMessage *message, const char *text)
{
    ProtobufCMessage *back;
    struct hp_error e = {0};
    if (hp_json_parse_message(text, strlen(text), message->descriptor, &back, &e))
        return true;
    bool all = protobuf_c_message_get_packed_size(back) == protobuf_c_message_get_packed_size(message);
    protobuf_c_message_free_unpacked(back, NULL);
    return all;
}

static void both(const struct fuzz_kind *kind, const struct fuzz_step *s)
{
    const struct hp_rpc_method *m = method_of(kind->name);
    ProtobufCMessage *message;
    struct hp_error e = {0};
    int status = call(m, false, s->data, s->len);
    if (hp_unpack(kind->type, s->data, s->len, NULL, &message, &e)) {
        assert(m->client_streaming || m->server_streaming || status != 200);
        return;
    }
    char *text = fuzz_has_unknown(message) ? NULL : hp_json_print_message(message, JSON_COMPACT, &e);
    if (text && says_all(message, text)) {
        int again = call(m, true, text, strlen(text));
        assert(again == status);
    }
    free(text);
    hp_unpacked_free(message);
}

static void step(const struct fuzz_step *s)
{
    static char answer[ANSWER_MAX];
    const struct fuzz_kind *kind = &fuzz_kinds[s->kind];
    uint8_t first = fuzz_byte(s, 0);
    switch (s->kind) {
    case EVENT:
        fake_deliver("events.", s->data, s->len, NULL, NULL);
        break;
    case VERDICT:
        fake_deliver("reply.", s->data, s->len, NULL, fake_correlation());
        break;
    case OUTCOME:
        fake_outcome((enum hp_publish_outcome)(first % 5));
        break;
    case BODY: /* a method, an encoding, a body that is nothing */
        if (s->len > 1)
            (void)call(method_of(fuzz_kinds[s->data[0] % METHODS].name), s->data[1] & 1, s->data + 2, s->len - 2);
        break;
    case RAW:
        (void)talk(s->data, s->len, answer, 3);
        break;
    default:
        both(kind, s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fuzz_step s;
    if (!server.sin_port)
        start();
    fake_outcome(HP_PUBLISH_CONFIRMED);
    for (int i = 0; i < 8 && fuzz_next(&data, &len, &s); i++) {
        step(&s);
        turn();
    }
    return 0;
}
