#include "lib/grpc_pipe.h"

#include <stdlib.h>

static void on_wake(void *user)
{
    struct grpc_pipe *p = user;
    p->wakes++;
}

void grpc_pipe_open(struct grpc_pipe *p, bool with_client)
{
    struct hp_error e = {0};
    p->now_ms = 1000000;
    if (p->budget.max_bytes == 0)
        p->budget.max_bytes = 64 << 20;
    int rc = hp_rpc_table_add(&p->table, p->service.methods, p->service.context, &e);
    const struct hp_grpc_server_config server = {
        .table = &p->table,
        .service = &p->service,
        .budget = &p->budget,
        .peer = {.address = "pipe"},
        .keepalive_ms = 60000,
        .idle_ms = 1800000,
        .wake_cb = on_wake,
        .user = p,
    };
    if (rc == 0)
        rc = hp_grpc_server_new(&server, p->now_ms, &p->server, &e);
    const struct hp_grpc_client_config client = {
        .scheme = "http", .authority = "pipe", .token = "secret", .keepalive_ms = 30000, .wake_cb = on_wake, .user = p};
    if (rc == 0 && with_client)
        rc = hp_grpc_client_new(&client, p->now_ms, &p->client, &e);
    if (rc)
        abort();
}

void grpc_pipe_close(struct grpc_pipe *p)
{
    hp_grpc_client_free(p->client, 14, "the pipe was closed");
    hp_grpc_server_free(p->server);
    hp_rpc_table_done(&p->table);
    if (p->budget.used_bytes != 0)
        abort();
    p->client = NULL;
    p->server = NULL;
}

typedef int (*pull_fn)(void *session, uint64_t now_ms, const uint8_t **data, size_t *len, struct hp_error *e);
typedef int (*receive_fn)(void *session, uint64_t now_ms, const uint8_t *data, size_t len, struct hp_error *e);

static int server_pull(void *s, uint64_t now_ms, const uint8_t **data, size_t *len, struct hp_error *e)
{
    return hp_grpc_server_pull(s, now_ms, data, len, e);
}

static int server_receive(void *s, uint64_t now_ms, const uint8_t *data, size_t len, struct hp_error *e)
{
    return hp_grpc_server_receive(s, now_ms, data, len, e);
}

static int client_pull(void *s, uint64_t now_ms, const uint8_t **data, size_t *len, struct hp_error *e)
{
    return hp_grpc_client_pull(s, now_ms, data, len, e);
}

static int client_receive(void *s, uint64_t now_ms, const uint8_t *data, size_t len, struct hp_error *e)
{
    return hp_grpc_client_receive(s, now_ms, data, len, e);
}

/* Returns whether bytes moved. */
static bool move(struct grpc_pipe *p, void *from, pull_fn pull, int *from_error, void *to, receive_fn receive,
                 int *to_error)
{
    const uint8_t *data;
    size_t len;
    struct hp_error e = {0};
    int rc = pull(from, p->now_ms, &data, &len, &e);
    if (rc) {
        *from_error = rc;
        return false;
    }
    size_t step = p->chunk ? p->chunk : len;
    for (size_t at = 0; to && at < len && !*to_error; at += step) {
        rc = receive(to, p->now_ms, data + at, len - at < step ? len - at : step, &e);
        if (rc) {
            *to_error = rc;
            p->server_message = e;
        }
    }
    return len > 0;
}

void grpc_pipe_pump(struct grpc_pipe *p)
{
    bool moved;
    do {
        moved =
            p->client && move(p, p->client, client_pull, &p->client_error, p->server, server_receive, &p->server_error);
        moved |= move(p, p->server, server_pull, &p->server_error, p->client, client_receive, &p->client_error);
    } while (moved);
}

void grpc_pipe_pass(struct grpc_pipe *p, uint64_t ms)
{
    p->now_ms += ms;
    struct hp_error e = {0};
    int rc = hp_grpc_server_tick(p->server, p->now_ms, &e);
    if (rc)
        p->server_error = rc;
    rc = p->client ? hp_grpc_client_tick(p->client, p->now_ms, &e) : 0;
    if (rc)
        p->client_error = rc;
    grpc_pipe_pump(p);
}

struct hp_client_call *grpc_pipe_call(struct grpc_pipe *p, const char *path, const ProtobufCMessageDescriptor *response,
                                      uint64_t timeout_ms, const struct hp_client_call_events *events, void *user)
{
    const struct hp_grpc_call_options o = {
        .path = path,
        .response = response,
        .deadline_ms = timeout_ms ? p->now_ms + timeout_ms : UINT64_MAX,
        .message_max = 16 << 20,
        .events = events,
        .user = user,
        .wake_cb = on_wake,
        .wake_user = p,
    };
    struct hp_client_call *call;
    struct hp_error e = {0};
    if (hp_grpc_call_new(&o, &call, &e) || hp_grpc_client_attach(p->client, p->now_ms, call))
        abort();
    return call;
}
