/* private.h — the inside of the router's shell. */
#ifndef ER_SHELL_PRIVATE_H
#define ER_SHELL_PRIVATE_H

#include "core/core.h"
#include "io/amqp.h"
#include "io/stream.h"
#include "io/topology.h"
#include "shell/shell.h"
#include "wire/frame.h"

/* One agent's connection. */
struct er_conn {
    struct er_shell *shell;
    struct er_conn *next, *prev; /* of the shell */
    struct hp_stream *stream;
    struct er_session *session; /* NULL: not open yet, or refused for lack of room */
    struct hp_frame_reader reader;
    bool done; /* the core has ended the session: what still arrives is ignored */
};

struct er_shell {
    uv_loop_t *loop;
    const struct er_config *config;
    struct er_shell_events events;
    struct er_core *core;
    struct hp_tls_context *tls; /* NULL: plain */
    struct hp_listener *listener;
    struct er_conn *conns;               /* all that are not closed */
    char router[HP_NAME_MAX + 1];        /* id: the configured name and the hex digits of this process */
    struct hp_topology consume, publish; /* names of queues */
    struct hp_publisher *publisher;
    struct hp_consumer *consumer;
    bool publisher_up, consumer_up, was_ready;
    uv_timer_t timer;                   /* for er_core_deadline */
    uv_timer_t stats;                   /* brings counters to the metrics a little after something has happened */
    uv_check_t turn;                    /* after the events of a turn of the loop */
    uv_idle_t wake;                     /* active when a turn is owed: the loop must not wait before it */
    int handles_open;                   /* of the four above */
    bool draining, ending;              /* ending: ER_DRAINED was seen */
    uint64_t complaints_ms, complaints; /* of failed handshakes: a few a second are logged */
    struct er_stats shown;              /* what the metrics say */
};

/* shell.c */
void er_shell_wake(struct er_shell *s);  /* er_core_end_turn soon */
void er_shell_apply(struct er_shell *s); /* carries out the core's effects */
void er_shell_end_if_done(struct er_shell *s);

/* agents.c */
int er_agents_listen(struct er_shell *s, struct hp_error *e) HP_MUST_CHECK;
void er_agents_send(struct er_conn *c, uint64_t now_ms, const uint8_t *frame, size_t len);

/* broker.c */
int er_broker_start(struct er_shell *s, struct hp_error *e) HP_MUST_CHECK;
void er_broker_report(struct er_shell *s, struct er_report *r);
void er_broker_metrics(struct er_shell *s, const uint8_t *body, size_t len);
void er_broker_stop(struct er_shell *s);

/* stats.c */
void er_stats_register(void);
void er_stats_show(struct er_shell *s);

#endif
