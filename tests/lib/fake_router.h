/* fake_router.h — a router for tests of agents' links: accepts plain connections, says welcome, keeps what it hears, sends what it is told. */
#ifndef TESTS_LIB_FAKE_ROUTER_H
#define TESTS_LIB_FAKE_ROUTER_H

#include <uv.h>

#include "harpoon/internal/v1/agent.pb-c.h"

enum { FR_SESSIONS_MAX = 16, FR_REPORTS_MAX = 256 };

struct fr_session {
    struct fake_router *router;
    struct hp_stream *stream; /* NULL: closed */
    void *reader;
    char host[64];
    int64_t session; /* 0: no hello yet */
    bool goodbye;
    int heartbeats, metrics;
};

struct fake_router {
    struct hp_listener *listener;
    char address[64];
    struct fr_session sessions[FR_SESSIONS_MAX];
    size_t session_count;
    /* What to do. */
    bool refuse, mute, no_confirm; /* mute: does not answer hellos */
    bool echo_heartbeats;
    int32_t heartbeat_ms, metrics_ms;
    /* What was heard, in order. */
    Harpoon__Internal__V1__AgentMessage *heard[FR_REPORTS_MAX]; /* results, observations, inventories */
    size_t heard_count;
    int hellos, open;
    uint64_t last_digest;
};

void fake_router_open(struct fake_router *r, uv_loop_t *loop);
/* Closes listener and connections; the loop must run on until `open` is 0. */
void fake_router_close(struct fake_router *r);
void fake_router_stop_listening(struct fake_router *r);
/* To the last session that said hello and is open. */
void fake_router_send(struct fake_router *r, const Harpoon__Internal__V1__RouterMessage *m);
void fake_router_command(struct fake_router *r, const Harpoon__Internal__V1__Command *c);
void fake_router_drain(struct fake_router *r);
void fake_router_send_raw(struct fake_router *r, const void *data, size_t len);
/* Cuts all connections. */
void fake_router_cut(struct fake_router *r);
void fake_router_forget(struct fake_router *r);

#endif
