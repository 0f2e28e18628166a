/*
 * The router's shell: one loop, one core.
 *
 * Every event goes to the core at once, and its effects are carried out at once; er_core_end_turn runs in a check callback, after the events of a turn, so that publishes and confirms of
 * one turn travel together. Everything ends in er_shell_end_if_done: the core is freed when the last connection, publisher, consumer and handle is closed.
 */
#include "shell/shell.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "io/tls.h"
#include "shell/private.h"

enum { STATS_DELAY_MS = 500 };

static void begin_end(struct er_shell *s);

/* ---- Effects ---- */

static void note(const struct er_core *core, const struct er_effect *f)
{
    const char *host = (const char *)er_core_bytes(core, f->host);
    if (f->reason)
        hp_info(f->text, HP_S("host", host), HP_I("session", f->session), HP_S("reason", f->reason));
    else if (*host)
        hp_info(f->text, HP_S("host", host), HP_I("session", f->session));
    else
        hp_info(f->text);
}

static void carry_out(struct er_shell *s, const struct er_effect *f)
{
    struct er_conn *c = f->link;
    switch (f->kind) {
    case ER_SEND:
        er_agents_send(c, uv_now(s->loop), er_core_bytes(s->core, f->offset), f->len);
        break;
    case ER_CLOSE:
        c->done = true;
        hp_stream_close(c->stream, f->linger_ms);
        break;
    case ER_PAUSE:
        hp_stream_pause(c->stream);
        break;
    case ER_RESUME:
        hp_stream_resume(c->stream);
        break;
    case ER_PUBLISH:
        er_broker_report(s, f->report);
        break;
    case ER_PUBLISH_METRICS:
        er_broker_metrics(s, er_core_bytes(s->core, f->offset), f->len);
        break;
    case ER_NOTE:
        note(s->core, f);
        break;
    case ER_DRAINED:
        begin_end(s);
        break;
    }
}

/* Carrying one out may add more (a host that is too slow); they come at the end. */
void er_shell_apply(struct er_shell *s)
{
    size_t count;
    for (size_t i = 0; (void)er_core_effects(s->core, &count), i < count; i++) {
        struct er_effect f = er_core_effects(s->core, &count)[i];
        carry_out(s, &f);
    }
    er_core_effects_done(s->core);
}

/* ---- Turns and time ---- */

static void nothing(uv_idle_t *idle)
{
    (void)idle;
}

void er_shell_wake(struct er_shell *s)
{
    if (!uv_is_active((uv_handle_t *)&s->wake) && !uv_is_closing((uv_handle_t *)&s->wake))
        uv_idle_start(&s->wake, nothing);
}

static void on_timer(uv_timer_t *timer)
{
    struct er_shell *s = timer->data;
    er_core_tick(s->core, uv_now(s->loop));
    er_shell_apply(s);
    er_shell_wake(s); /* arms the timer again */
}

static void on_stats(uv_timer_t *timer)
{
    er_stats_show(timer->data);
}

static void arm(struct er_shell *s)
{
    uint64_t due = er_core_deadline(s->core), now = uv_now(s->loop);
    if (s->ending)
        return;
    if (due == UINT64_MAX)
        uv_timer_stop(&s->timer);
    else
        uv_timer_start(&s->timer, on_timer, due > now ? due - now : 1, 0);
    if (!uv_is_active((uv_handle_t *)&s->stats))
        uv_timer_start(&s->stats, on_stats, STATS_DELAY_MS, 0);
}

static void on_turn(uv_check_t *check)
{
    struct er_shell *s = check->data;
    if (!uv_is_active((uv_handle_t *)&s->wake))
        return;
    uv_idle_stop(&s->wake);
    er_core_end_turn(s->core, uv_now(s->loop));
    er_shell_apply(s);
    arm(s);
}

/* ---- The end ---- */

static void free_shell(struct er_shell *s)
{
    struct er_shell_events events = s->events;
    er_core_free(s->core);
    hp_tls_context_unref(s->tls);
    free(s);
    if (events.on_end)
        events.on_end(events.user);
}

static void handle_closed(uv_handle_t *handle)
{
    struct er_shell *s = handle->data;
    if (--s->handles_open == 0)
        free_shell(s);
}

void er_shell_end_if_done(struct er_shell *s)
{
    if (!s->ending || s->conns || s->publisher || s->consumer || uv_is_closing((uv_handle_t *)&s->turn))
        return;
    er_stats_show(s);
    uv_close((uv_handle_t *)&s->turn, handle_closed);
    uv_close((uv_handle_t *)&s->wake, handle_closed);
    uv_close((uv_handle_t *)&s->timer, handle_closed);
    uv_close((uv_handle_t *)&s->stats, handle_closed);
}

/* ER_DRAINED: nothing more is to be said to agents or broker. Connections that are still lingering end by themselves. */
static void begin_end(struct er_shell *s)
{
    assert(!s->ending);
    s->ending = true;
    uv_timer_stop(&s->timer);
    hp_listener_close(s->listener);
    for (struct er_conn *c = s->conns; c; c = c->next)
        if (!c->session)
            hp_stream_close(c->stream, 0);
    er_broker_stop(s);
    er_shell_end_if_done(s);
}

void er_shell_drain(struct er_shell *s)
{
    if (s->draining)
        return;
    s->draining = true;
    er_core_drain(s->core, uv_now(s->loop));
    er_shell_apply(s);
    er_shell_wake(s);
}

/* ---- The beginning ---- */

static int make_core(struct er_shell *s, struct hp_error *e)
{
    const struct er_config *c = s->config;
    struct er_options o = {
        .router = s->router,
        .region = c->region,
        .heartbeat_ms = (uint32_t)c->heartbeat_ms,
        .metrics_ms = (uint32_t)c->metrics_ms,
        .window = (uint32_t)c->window,
        .sessions_max = (uint32_t)c->sessions_max,
        .attaches_max = (uint32_t)c->attaches_max,
        .drain_ms = (uint32_t)c->drain_ms,
        .check_identity = !c->plain,
    };
    if (getrandom(&o.seed, sizeof o.seed, 0) != sizeof o.seed)
        return hp_fail(e, HP_EIO, "no random numbers");
    return er_core_new(&o, uv_now(s->loop), &s->core, e);
}

static int make_tls(struct er_shell *s, struct hp_error *e)
{
    const struct er_config *c = s->config;
    struct hp_tls_options o = {.role = HP_TLS_SERVER,
                               .ca_file = c->tls_ca,
                               .cert_file = c->tls_cert,
                               .key_file = c->tls_key,
                               .require_peer = true};
    return c->plain ? 0 : hp_tls_context_new(&o, &s->tls, e);
}

static void open_handles(struct er_shell *s)
{
    uv_timer_init(s->loop, &s->timer);
    uv_timer_init(s->loop, &s->stats);
    uv_check_init(s->loop, &s->turn);
    uv_idle_init(s->loop, &s->wake);
    s->timer.data = s->stats.data = s->turn.data = s->wake.data = s;
    s->handles_open = 4;
    uv_check_start(&s->turn, on_turn);
}

int er_shell_new(uv_loop_t *loop, const struct er_config *config, const struct er_shell_events *events,
                 struct er_shell **ret, struct hp_error *e)
{
    struct er_shell *s = calloc(1, sizeof *s);
    if (!s)
        return hp_fail(e, HP_ENOMEM, "router: out of memory");
    s->loop = loop;
    s->config = config;
    s->events = *events;
    hp_topology_id(s->router, config->name);
    er_stats_register();
    int rc = make_core(s, e);
    if (!rc)
        rc = make_tls(s, e);
    if (rc) {
        er_core_free(s->core);
        free(s);
        return rc;
    }
    open_handles(s);
    rc = er_agents_listen(s, e);
    if (!rc)
        rc = er_broker_start(s, e);
    if (rc) {
        s->events.on_end = NULL; /* the caller has the error */
        begin_end(s);
        return rc;
    }
    hp_info("listening for agents", HP_S("address", er_shell_address(s)), HP_S("router", s->router),
            HP_S("tls", s->tls ? "yes" : "no"));
    *ret = s;
    return 0;
}

const char *er_shell_address(const struct er_shell *s)
{
    return hp_listener_address(s->listener);
}
