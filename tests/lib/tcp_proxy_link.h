/* tcp_proxy_link.h — links and their connections: what the control of tcp_proxy.h commands. Loop thread. */
#ifndef TESTS_TCP_PROXY_LINK_H
#define TESTS_TCP_PROXY_LINK_H

#include <stdbool.h>
#include <uv.h>

#include "base/error.h"

enum tp_mode { TP_PASS, TP_DROP, TP_REFUSE, TP_RESET, TP_HALF_OPEN, TP_MODES };
enum tp_direction { TP_UP = 1, TP_DOWN = 2, TP_BOTH = 3 };

struct tp_state {
    enum tp_mode mode;
    unsigned directions; /* of drop, delay and rate; enum tp_direction */
    uint64_t delay_ms;
    uint64_t bytes_per_s; /* 0: no limit */
};

struct tp_counters {
    uint64_t accepted, refused, failed, cut, faulted;
    uint64_t bytes_up, bytes_down;
};

struct tp_link {
    struct tp_link *next;
    uv_loop_t *loop;
    char name[128], listen[32], target[32];
    struct sockaddr_in to;
    struct tp_state state;
    struct tp_counters counters;
    uv_tcp_t listener;
    struct tp_conn *conns;
    size_t open;   /* connections with at least one end */
    size_t *total; /* of all links */
    bool pending;  /* a connection waits in front of a drop */
    bool closing;
};

/* `total` counts the connections of all links that share it. */
int tp_link_new(uv_loop_t *loop, const char *name, const char *listen, const char *target, size_t *total,
                struct tp_link **ret, struct hp_error *e) HP_MUST_CHECK;
void tp_link_set(struct tp_link *l, const struct tp_state *s);
/* Resets every open connection; gives their number. */
size_t tp_link_cut(struct tp_link *l);
/* With a reset of every connection; the link is freed when the loop has closed all of it. Not in a list any more. */
void tp_link_close(struct tp_link *l);

#endif
