/* link.h — the agent's connection to a router: dials from a list, says hello, keeps alive, moves to another router without a gap. */
#ifndef HA_SHELL_LINK_H
#define HA_SHELL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "io/stream.h"
#include "shell/timers.h"

struct ha_link;

enum {
    HA_LINK_WELCOME_MS = 15000, /* from the connection to the welcome */
    HA_LINK_BACKOFF_MIN_MS = 500,
    HA_LINK_BACKOFF_MAX_MS = 30000,
    HA_LINK_QUEUE_MAX = 8 << 20, /* unsent bytes; a router that is slower than that is left */
};

struct ha_link_options {
    const char *const *routers; /* "host:port"; borrowed for the life of the link; at least one */
    size_t router_count;
    struct hp_tls_context *tls; /* borrowed until ha_link_free; NULL: plain */
    const char *source_ip;      /* borrowed; NULL: any */
    struct hp_rng *rng;         /* borrowed: jitter */
    struct ha_timers *timers;   /* borrowed */
    uint64_t first_delay_ms;    /* before the first attempt */
};

/* Called on the loop thread, never from inside a function of this header. */
struct ha_link_events {
    /* A connection is open: answer with ha_link_session, now or later. */
    void (*on_session_wanted)(void *user);
    /* Everything of the hello but session and versions; borrowed until the call returns to the loop. */
    void (*fill_hello)(void *user, Harpoon__Internal__V1__AgentHello *hello);
    /* A router said welcome. Comes again without on_down when the link has moved. */
    void (*on_up)(void *user, const char *router);
    void (*on_down)(void *user, const char *reason);
    /* Commands, confirmations, inventory requests; also from a router that is being left. */
    void (*on_message)(void *user, const Harpoon__Internal__V1__RouterMessage *m);
    /* Sends a packed AgentMessage with metrics by ha_link_send. */
    void (*on_metrics_due)(void *user);
};

int ha_link_new(uv_loop_t *loop, const struct ha_link_options *o, const struct ha_link_events *ev, void *user,
                struct ha_link **ret, struct hp_error *e) HP_MUST_CHECK;
/* The number for the hello that waits; without one, nothing happens. */
void ha_link_session(struct ha_link *l, int64_t session);
/* A packed AgentMessage. Dropped when the link is not up; a router that does not take it is left. */
void ha_link_send(struct ha_link *l, const void *body, size_t len);
bool ha_link_is_up(const struct ha_link *l);
/* When a heartbeat is due on a connection that was last sent something at sent_ms. Metrics are a sign of life, too: when they are due within the heartbeat's time, or were asked for
 * a moment ago, the heartbeat gives them an eighth of that time to go out in its place. So it is never later than nine eighths after the last frame. */
uint64_t ha_link_heartbeat_due(uint64_t sent_ms, uint32_t heartbeat_ms, uint64_t metrics_due_ms, uint64_t asked_ms);
/* Says goodbye, closes, frees the link and calls closed_cb (may be NULL), perhaps before it returns. No event comes after this call. */
void ha_link_close(struct ha_link *l, const char *reason, void (*closed_cb)(void *user));

#endif
