/* stream.c — the stream of the region's events, from which the rest of the region is independent: while it is away events are recorded, numbered, and not told; the watermark stands still.
 *
 *   WORKS ──connection lost, cannot be declared, or nothing confirmed for STALL_MS──▶ AWAY ──a confirm, or up with nothing to tell──▶ WORKS
 *
 * A broker can lose a stream for good (docs/OPERATIONS.md). All that it held is in the record, from which gateways fill what they miss. So a leader that has led without it for stream_remake
 * deletes it, and declares it anew. Before that it proves that nobody else leads (the record takes its epoch) and that the broker's queues work (a majority of its nodes confirms a token): a stream that
 * is away with its nodes is not touched. Nor is one that somebody declared with other arguments. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "io/loop.h"
#include "shell/lead.h"
#include "shell/record.h"

enum {
    STALL_MS = 15000, /* nothing confirmed for so long: connect anew */
    TICK_MS = 1000,
    AGAIN_MS = 10000, /* after a proof that failed */
    EVENTS_BYTES_MAX = 256 << 20,
};

static void tick(uv_timer_t *t);

static void watch(struct sc_lead *l)
{
    struct sc_stream *s = &l->stream;
    if (uv_is_closing((uv_handle_t *)&s->timer) || l->stopping)
        return;
    if (!s->flying && !s->away_since_ms)
        uv_timer_stop(&s->timer);
    else if (!uv_is_active((uv_handle_t *)&s->timer))
        uv_timer_start(&s->timer, tick, TICK_MS, TICK_MS);
}

static void away(struct sc_lead *l, const char *why)
{
    struct sc_stream *s = &l->stream;
    uint64_t now = hp_now_ms();
    if (s->away_since_ms) {
        hp_warn("no connection to the broker", HP_S("region", l->region), HP_S("connection", "events"),
                HP_S("error", why));
    } else {
        hp_warn("the stream of events is away: events are recorded, and told when it is back",
                HP_S("region", l->region), HP_S("error", why));
        s->away_since_ms = now ? now : 1;
        s->remake_ms = now + (uint64_t)l->config->stream_remake_ms;
        hp_metric_set(&l->metrics.stream_up, 0);
    }
    watch(l);
}

static void works(struct sc_lead *l)
{
    struct sc_stream *s = &l->stream;
    if (s->away_since_ms)
        hp_info("the stream of events is back", HP_S("region", l->region),
                HP_I("away_ms", hp_now_ms() - s->away_since_ms));
    s->away_since_ms = 0;
    s->remake = SC_REMAKE_NONE;
    hp_metric_set(&l->metrics.stream_up, 1);
    watch(l);
}

/* ---- Publishing ---- */

void sc_stream_sent(struct sc_lead *l)
{
    if (l->stream.flying++ == 0)
        l->stream.progress_ms = hp_now_ms();
    watch(l);
}

void sc_stream_done(struct sc_lead *l, enum hp_publish_outcome outcome)
{
    struct sc_stream *s = &l->stream;
    s->flying--;
    if (outcome == HP_PUBLISH_RETURNED)
        hp_publisher_reconnect(l->events, "it is gone"); /* to declare it again */
    if (outcome != HP_PUBLISH_CONFIRMED) {
        watch(l);
        return;
    }
    s->progress_ms = hp_now_ms();
    if (s->up && (s->away_since_ms || !s->flying))
        works(l);
}

static void tell_core(struct sc_lead *l)
{
    struct sc_ev ev = {.kind = SC_EV_STREAM, .time = sc_flow_time(), .stream_away = !l->stream.up};
    if (!l->core)
        return;
    if (sc_region_step(l->core, &ev, NULL))
        abort();
    sc_flow_wake(l);
}

static bool nothing_to_tell(const struct sc_lead *l)
{
    struct sc_region_stats s;
    if (!l->core)
        return true;
    sc_region_stats(l->core, &s);
    return s.watermark == s.sequence;
}

static void state_cb(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct sc_lead *l = user;
    l->stream.up = state != HP_AMQP_DOWN;
    l->stream.progress_ms = hp_now_ms();
    if (l->stopping)
        return;
    if (!l->stream.up)
        away(l, e->message);
    else if (state == HP_AMQP_BLOCKED)
        hp_warn("the broker takes nothing in (alarm)", HP_S("region", l->region), HP_S("connection", "events"));
    else if (nothing_to_tell(l))
        works(l);
    tell_core(l);
}

/* ---- Making it anew ---- */

void sc_stream_lead(struct sc_lead *l)
{
    /* While nobody led, the broker was not there either: what comes back with it is given the whole time. */
    l->stream.remake_ms = hp_now_ms() + (uint64_t)l->config->stream_remake_ms;
}

struct check {
    struct sc_assert assert;
    struct sc_lead *lead;
    uint64_t reign;
};

static void again_later(struct sc_lead *l, const char *why)
{
    hp_warn("the stream of events is not made anew yet", HP_S("region", l->region), HP_S("error", why),
            HP_I("retry_in_ms", AGAIN_MS));
    l->stream.remake = SC_REMAKE_NONE;
    l->stream.remake_ms = hp_now_ms() + AGAIN_MS;
}

static void epoch_asserted(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct check *x = (struct check *)(void *)job;
    struct sc_lead *l = x->lead;
    bool stale = x->reign != l->reign || l->state != SC_LEAD_LEADING || l->stream.remake != SC_REMAKE_EPOCH;
    free(x);
    l->jobs--;
    if (stale) {
        l->stream.remake = SC_REMAKE_NONE;
    } else if (result) {
        again_later(l, e->message);
        sc_lead_failed(l, result, e);
    } else {
        l->stream.remake = SC_REMAKE_BROKER;
        sc_lead_send_token(l);
    }
    sc_lead_settled(l);
}

static void begin_remake(struct sc_lead *l)
{
    struct check *x = calloc(1, sizeof *x);
    if (!x) {
        again_later(l, hp_strerror(HP_ENOMEM));
        return;
    }
    sc_assert_init(&x->assert, l->region, l->token_epoch);
    x->assert.job.done_cb = epoch_asserted;
    x->lead = l;
    x->reign = l->reign;
    int rc = hp_db_submit(l->db, &x->assert.job);
    if (rc) {
        free(x);
        again_later(l, hp_strerror(rc));
        return;
    }
    l->jobs++;
    l->stream.remake = SC_REMAKE_EPOCH;
}

void sc_stream_token(struct sc_lead *l, bool confirmed)
{
    struct sc_stream *s = &l->stream;
    if (s->remake != SC_REMAKE_BROKER || l->state != SC_LEAD_LEADING || l->stopping) {
        s->remake = SC_REMAKE_NONE;
        return;
    }
    if (!confirmed) {
        again_later(l, "the broker's queues do not confirm either");
        return;
    }
    s->remake = SC_REMAKE_NONE;
    s->remake_ms = hp_now_ms() + (uint64_t)l->config->stream_remake_ms;
    if (!hp_publisher_remake_streams(l->events))
        return; /* nothing that deleting it would mend */
    hp_warn("the stream of events is deleted and declared anew: the broker cannot serve it", HP_S("region", l->region),
            HP_I("away_ms", hp_now_ms() - s->away_since_ms));
    hp_metric_add(&l->metrics.stream_remakes, 1);
}

static void tick(uv_timer_t *t)
{
    struct sc_lead *l = t->data;
    struct sc_stream *s = &l->stream;
    uint64_t now = hp_now_ms();
    if (hp_publisher_state(l->events) == HP_AMQP_BLOCKED) {
        s->progress_ms = now; /* an alarm holds up everything */
        return;
    }
    if (s->up && s->flying && now - s->progress_ms >= STALL_MS) {
        hp_publisher_reconnect(l->events, "it confirms nothing");
        return;
    }
    if (s->away_since_ms && l->config->stream_remake_ms && now >= s->remake_ms && s->remake == SC_REMAKE_NONE &&
        l->state == SC_LEAD_LEADING)
        begin_remake(l);
}

/* ---- Life ---- */

int sc_stream_start(struct sc_lead *l, const struct hp_amqp_options *amqp, struct hp_error *e)
{
    int rc = hp_topology_events(&l->stream_topology, l->region, e);
    if (rc)
        return rc;
    struct sc_region_config region;
    sc_config_region(l->config, l->region, &region);
    uv_timer_init(l->loop, &l->stream.timer);
    l->stream.timer.data = l;
    const struct hp_publisher_options o = {
        .amqp = *amqp,
        .topology = l->stream_topology.objects,
        .state_cb = state_cb,
        .user = l,
        .window_max = 2 * (size_t)region.publish_max,
        .window_bytes_max = EVENTS_BYTES_MAX,
    };
    return hp_publisher_new(l->loop, &o, &l->events, e);
}
