/* EventService.Watch: core/watch.h moves the cursor; this sends, reads pages from the record, and beats. */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/validate.h"
#include "core/watch.h"
#include "grpc/status.h"
#include "io/loop.h"
#include "shell/gateway.h"
#include "shell/metrics.h"
#include "shell/rows.h"

enum {
    HEARTBEAT_DEFAULT_MS = 15000,
    HEARTBEAT_MIN_MS = 100,
    HEARTBEAT_MAX_MS = 3600000,
    PAGE_EVENTS = 500,
    SKEW_S = 60,
    TICK_MAX_MS = 15000
};

enum start { START_NOW, START_AFTER, START_SINCE };

/* One call. It lives until the call has ended and no read is under way. */
struct gw_watch_call {
    struct gw_watch_call *next, *before; /* of the region */
    struct hp_rpc_call *rpc;             /* NULL once ended */
    struct gw_region *region;
    struct gw_watch watch;
    enum start start;
    int64_t after, since_ns;               /* as asked */
    uint64_t heartbeat_ms, quiet_since_ms; /* since the last message sent */
    uint64_t blocked_since_ms, opened_ms;
    struct gw_timer timer;     /* heartbeat, stall, and waiting for the feed */
    struct gw_event_page page; /* of the record, while catching up */
    struct hp_db_job job;      /* the read under way */
    bool reading;
    struct gw_bounds bounds; /* results of a read */
    int64_t since_sequence;  /* first at or after since_ns; 0: none */
    struct gw_event_page read;
};

static void pump(struct gw_watch_call *w);
static void end_with_hole(struct gw_watch_call *w);

static void release(struct gw_watch_call *w)
{
    if (w->rpc || w->reading)
        return;
    gw_filter_done(&w->watch.filter);
    gw_event_page_done(&w->page);
    free(w);
}

/* Out of the region's list; afterwards the transport is not touched. */
static struct hp_rpc_call *detach(struct gw_watch_call *w)
{
    struct hp_rpc_call *rpc = w->rpc;
    assert(rpc);
    w->rpc = NULL;
    hp_rpc_set_user(rpc, NULL);
    *(w->before ? &w->before->next : &w->region->watches) = w->next;
    if (w->next)
        w->next->before = w->before;
    gw_timer_disarm(&w->region->gw->timers, &w->timer);
    w->region->gw->watch_count--;
    hp_metric_add(&gw_metric_watches, -1);
    return rpc;
}

/* Ends the call; w may be gone afterwards. */
static void end(struct gw_watch_call *w, Google__Rpc__Status *status)
{
    gw_fail(detach(w), status);
    release(w);
}

static Google__Rpc__Status *add_number(Google__Rpc__Status *s, const char *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return hp_status_add_metadata(s, key, text);
}

static void end_too_slow(struct gw_watch_call *w)
{
    Google__Rpc__Status *s = hp_status_new(
        HP_CODE_RESOURCE_EXHAUSTED, "READER_TOO_SLOW",
        "the reader is too slow for region \"%s\": resume after the last sequence that was read, at most %lld",
        w->region->name, (long long)w->watch.cursor);
    hp_metric_add(&gw_metric_slow_watches, 1);
    end(w, add_number(s, "resume_after", w->watch.cursor));
}

static void end_out_of_range(struct gw_watch_call *w, const char *reason, const char *what, int64_t asked)
{
    Google__Rpc__Status *s =
        hp_status_new(HP_CODE_OUT_OF_RANGE, reason, "%s (%lld); region \"%s\" keeps sequences %lld to %lld", what,
                      (long long)asked, w->region->name, (long long)w->bounds.oldest, (long long)w->bounds.sequence);
    s = add_number(s, "oldest_sequence", w->bounds.oldest);
    end(w, add_number(s, "newest_sequence", w->bounds.sequence));
}

/* ---- Sending ---- */

/* False when the call has ended. */
static bool send_message(struct gw_watch_call *w, const Harpoon__V1__Event *event)
{
    Harpoon__V1__WatchResponse r = HARPOON__V1__WATCH_RESPONSE__INIT;
    r.event = (Harpoon__V1__Event *)(uintptr_t)event;
    r.sequence = w->watch.cursor;
    w->quiet_since_ms = hp_now_ms();
    switch (hp_rpc_send(w->rpc, &r.base)) {
    case 0:
        return true;
    case HP_EAGAIN:
        w->watch.blocked = true;
        w->blocked_since_ms = w->quiet_since_ms;
        return true;
    default:
        if (event)
            w->watch.cursor--; /* this one was not taken */
        end_too_slow(w);
        return false;
    }
}

static void tick(struct gw_timer *t, uint64_t now_ms)
{
    struct gw_watch_call *w = (struct gw_watch_call *)((char *)t - offsetof(struct gw_watch_call, timer));
    bool starting = w->watch.state == GW_WATCH_STARTING;
    gw_refresh_tokens(w->region->gw);
    if (w->watch.filter.who->revoked) {
        end(w, gw_revoked_status(w->watch.filter.who));
        return;
    }
    if (starting && now_ms - w->opened_ms >= GW_START_MS) {
        end(w, hp_status_add_retry(hp_status_new(HP_CODE_UNAVAILABLE, "FEED_UNAVAILABLE",
                                                 "the events of region \"%s\" cannot be followed at present",
                                                 w->region->name),
                                   1000));
        return;
    }
    if (w->watch.blocked && now_ms - w->blocked_since_ms >= GW_STALL_MS) {
        end_too_slow(w);
        return;
    }
    bool due = now_ms - w->quiet_since_ms >= w->heartbeat_ms;
    if (due && !starting && !w->watch.blocked && w->region->connected && !send_message(w, NULL))
        return;
    uint64_t next = w->quiet_since_ms + w->heartbeat_ms;
    if (next <= now_ms)
        next = now_ms + w->heartbeat_ms;
    if (next > now_ms + TICK_MAX_MS)
        next = now_ms + TICK_MAX_MS; /* so that a stalled reader is noticed */
    if (starting && next > w->opened_ms + GW_START_MS)
        next = w->opened_ms + GW_START_MS;
    if (gw_timer_arm(&w->region->gw->timers, &w->timer, next) < 0)
        end(w, NULL);
}

/* ---- Reads of the record ---- */

static int read_number(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    *(int64_t *)user = columns[0] ? strtoll(columns[0], NULL, 10) : 0;
    return 0;
}

static int run_start(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct gw_watch_call *w = (struct gw_watch_call *)((char *)job - offsetof(struct gw_watch_call, job));
    int rc = gw_select_bounds(c, w->region->name, &w->bounds, e);
    if (rc < 0 || w->start != START_SINCE)
        return rc;
    char sql[256];
    snprintf(
        sql, sizeof sql,
        "SELECT sequence FROM events WHERE region = '%.63s' AND time_ns >= %lld ORDER BY time_ns, sequence LIMIT 1",
        w->region->name, (long long)w->since_ns);
    w->since_sequence = 0;
    return gw_select(c, sql, read_number, &w->since_sequence, e);
}

static int run_page(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct gw_watch_call *w = (struct gw_watch_call *)((char *)job - offsetof(struct gw_watch_call, job));
    int rc = gw_select_events(c, w->region->name, w->watch.cursor, PAGE_EVENTS, &w->read, e);
    if (rc == 0 && (w->read.count == 0 || w->read.events[0]->sequence != w->watch.cursor + 1)) {
        rc = gw_select_bounds(c, w->region->name, &w->bounds, e);
        if (rc < 0)
            gw_event_page_done(&w->read);
    }
    return rc;
}

static void begin(struct gw_watch_call *w, int64_t cursor)
{
    gw_watch_begin(&w->watch, cursor);
    if (send_message(w, NULL)) /* says where it starts */
        pump(w);
}

static void start_known(struct gw_watch_call *w)
{
    const struct gw_bounds *b = &w->bounds;
    int64_t newest = b->sequence > w->region->feed.last ? b->sequence : w->region->feed.last;
    if (w->start == START_AFTER && w->after == 0)
        begin(w, b->oldest - 1);
    else if (w->start == START_AFTER && w->after > newest)
        end_out_of_range(w, "SEQUENCE_AHEAD", "the sequence is ahead of the present", w->after);
    else if (w->start == START_AFTER && w->after + 1 < b->oldest)
        end_out_of_range(w, "SEQUENCE_TOO_OLD", "the events after this sequence are no longer kept", w->after);
    else if (w->start == START_AFTER)
        begin(w, w->after);
    else if (w->since_sequence == 0)
        begin(w, newest);
    else if (w->since_sequence <= b->oldest && b->oldest > 1)
        end_out_of_range(w, "TIME_TOO_OLD", "events since then are no longer kept; the first kept is this sequence",
                         b->oldest);
    else
        begin(w, w->since_sequence - 1);
}

static void read_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct gw_watch_call *w = (struct gw_watch_call *)((char *)job - offsetof(struct gw_watch_call, job));
    w->reading = false;
    if (!w->rpc) {
        gw_event_page_done(&w->read);
        release(w);
    } else if (result < 0) {
        end(w, add_number(gw_record_status(result, e), "resume_after", w->watch.cursor));
    } else if (w->watch.state == GW_WATCH_STARTING) {
        start_known(w);
    } else {
        gw_event_page_done(&w->page);
        w->page = w->read;
        w->read = (struct gw_event_page){0};
        if (w->page.count > 0)
            pump(w);
        else
            end_with_hole(w); /* the ring holds later ones, so there were some */
    }
}

static void start_read(struct gw_watch_call *w, int (*run)(struct hp_db_job *, struct hp_db_conn *, struct hp_error *))
{
    assert(!w->reading);
    w->job = (struct hp_db_job){.run = run, .done_cb = read_done};
    int rc = hp_db_submit(w->region->gw->db, &w->job);
    if (rc < 0) {
        struct hp_error e = {0};
        end(w, gw_record_status(rc, &e));
        return;
    }
    w->reading = true;
    hp_metric_add(&gw_metric_reads, 1);
}

/* ---- Moving on ---- */

/* Nothing that the record holds connects to the cursor. */
static void end_with_hole(struct gw_watch_call *w)
{
    if (w->watch.cursor + 1 < w->bounds.oldest)
        end_out_of_range(w, "SEQUENCE_TOO_OLD", "the events after this sequence are no longer kept", w->watch.cursor);
    else
        end(w, hp_status_new(HP_CODE_DATA_LOSS, "EVENTS_MISSING", "the record lacks the event after sequence %lld",
                             (long long)w->watch.cursor));
}

/* Sends from the page read; false when the call has ended. */
static bool pump_page(struct gw_watch_call *w)
{
    while (w->page.at < w->page.count && !w->watch.blocked) {
        const Harpoon__V1__Event *e = w->page.events[w->page.at];
        int rc = gw_watch_from_record(&w->watch, e);
        if (rc < 0) {
            end_with_hole(w);
            return false;
        }
        if (rc == 1 && !send_message(w, e))
            return false;
        Harpoon__V1__Event *used = gw_event_page_take(&w->page, NULL);
        protobuf_c_message_free_unpacked(&used->base, NULL);
    }
    if (w->page.at == w->page.count)
        gw_event_page_done(&w->page);
    return true;
}

static void pump(struct gw_watch_call *w)
{
    const struct gw_feed *feed = &w->region->feed;
    if (w->reading || feed->state == GW_FEED_UNKNOWN)
        return;
    if (w->watch.filter.who->revoked) {
        end(w, gw_revoked_status(w->watch.filter.who));
        return;
    }
    if (w->watch.state == GW_WATCH_STARTING) {
        if (w->start == START_NOW)
            begin(w, feed->last);
        else if (w->start == START_AFTER && w->after + 1 >= gw_feed_first(feed) && w->after <= feed->last &&
                 (w->after > 0 || gw_feed_first(feed) == 1))
            begin(w, w->after);
        else
            start_read(w, run_start);
        return;
    }
    if (gw_watch_overrun(&w->watch, feed)) {
        end_too_slow(w);
        return;
    }
    if (w->page.count > 0 && !pump_page(w))
        return;
    while (!w->watch.blocked) {
        const Harpoon__V1__Event *event;
        switch (gw_watch_next(&w->watch, feed, &event)) {
        case GW_WATCH_SEND:
            if (!send_message(w, event))
                return;
            break;
        case GW_WATCH_WAIT:
            return;
        case GW_WATCH_PAGE:
            start_read(w, run_page);
            return;
        case GW_WATCH_OVERRUN:
            end_too_slow(w);
            return;
        }
    }
}

void gw_watches_advance(struct gw_region *r)
{
    for (struct gw_watch_call *w = r->watches, *next; w; w = next) {
        next = w->next;
        pump(w);
    }
}

/* ---- The call ---- */

static bool valid_time(const Google__Protobuf__Timestamp *t)
{
    return t->seconds >= 0 && t->seconds < INT64_MAX / 1000000000 && t->nanos >= 0 && t->nanos < 1000000000;
}

static void check_request(struct gw_check *c, const Harpoon__V1__WatchRequest *r)
{
    gw_validate_filter(c, r->filter);
    if (r->heartbeat_ms != 0)
        gw_check_range(c, "heartbeat_ms", r->heartbeat_ms, HEARTBEAT_MIN_MS, HEARTBEAT_MAX_MS);
    if (r->start_case == HARPOON__V1__WATCH_REQUEST__START_AFTER_SEQUENCE)
        gw_check_range(c, "after_sequence", r->after_sequence, 0, INT64_MAX - 1);
    if (r->start_case == HARPOON__V1__WATCH_REQUEST__START_SINCE && !valid_time(r->since))
        gw_violation(c, "since", "is not a time between 1970 and 2262");
}

static void set_start(struct gw_watch_call *w, const Harpoon__V1__WatchRequest *r)
{
    if (r->start_case == HARPOON__V1__WATCH_REQUEST__START_AFTER_SEQUENCE) {
        w->start = START_AFTER;
        w->after = r->after_sequence;
    } else if (r->start_case == HARPOON__V1__WATCH_REQUEST__START_SINCE) {
        w->start = START_SINCE;
        w->since_ns = r->since->seconds * 1000000000 + r->since->nanos;
    }
    w->heartbeat_ms = r->heartbeat_ms ? (uint64_t)r->heartbeat_ms : HEARTBEAT_DEFAULT_MS;
}

static void add_watch(struct hp_rpc_call *call, struct gw_region *r, const Harpoon__V1__WatchRequest *request)
{
    struct gw_gateway *gw = r->gw;
    struct gw_watch_call *w = calloc(1, sizeof *w);
    if (!w || gw_filter_init(&w->watch.filter, gw_caller(call), request->filter) < 0) {
        free(w);
        gw_fail(call, NULL);
        return;
    }
    w->rpc = call;
    w->region = r;
    w->timer.fire_cb = tick;
    w->opened_ms = w->quiet_since_ms = hp_now_ms();
    set_start(w, request);
    w->next = r->watches;
    if (w->next)
        w->next->before = w;
    r->watches = w;
    gw->watch_count++;
    hp_metric_add(&gw_metric_watches, 1);
    hp_rpc_set_user(call, w);
    _Static_assert((int)GW_START_MS <= (int)TICK_MAX_MS, "the first tick is in time for both");
    uint64_t first = w->heartbeat_ms < GW_START_MS ? w->heartbeat_ms : GW_START_MS;
    if (gw_timer_arm(&gw->timers, &w->timer, w->opened_ms + first) < 0)
        end(w, NULL);
    else
        pump(w);
}

void gw_on_watch(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const Harpoon__V1__WatchRequest *request = (const Harpoon__V1__WatchRequest *)message;
    struct gw_gateway *gw = gw_of(call);
    struct gw_check check = {0};
    struct hp_error e = {0};
    char name[64];
    Google__Rpc__Status *status = NULL;
    hp_rpc_set_user(call, NULL);
    if (hp_region_name_parse("parent", request->parent, false, name, &e) < 0) {
        gw_fail_field(call, "parent", &e);
        return;
    }
    check_request(&check, request);
    if (check.count > 0) {
        gw_fail(call, check.status);
        return;
    }
    struct gw_region *r = gw_region_of(call, name);
    if (!r)
        return;
    if (request->filter && *request->filter->project &&
        !gw_allow_read(gw_caller(call), request->filter->project, &status)) {
        gw_fail(call, status);
        return;
    }
    if (request->start_case == HARPOON__V1__WATCH_REQUEST__START_SINCE &&
        request->since->seconds > hp_wall_ns() / 1000000000 + SKEW_S) {
        gw_fail(call, hp_status_new(HP_CODE_OUT_OF_RANGE, "TIME_AHEAD", "since: is ahead of the present"));
        return;
    }
    if (gw->stopping || gw->watch_count >= GW_WATCHES_MAX) {
        gw_fail(call, gw->stopping ? gw_stopping_status()
                                   : hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "WATCHES_FULL",
                                                   "this gateway serves %d watches already", GW_WATCHES_MAX));
        return;
    }
    add_watch(call, r, request);
}

void gw_on_watch_writable(struct hp_rpc_call *call)
{
    struct gw_watch_call *w = hp_rpc_user(call);
    if (!w || !w->rpc)
        return;
    if (gw_watch_unblock(&w->watch, &w->region->feed))
        pump(w);
    else
        end_too_slow(w);
}

void gw_on_watch_cancel(struct hp_rpc_call *call)
{
    struct gw_watch_call *w = hp_rpc_user(call);
    if (!w || !w->rpc)
        return;
    (void)detach(w);
    release(w);
}

void gw_watches_stop(struct gw_gateway *gw)
{
    for (int i = 0; i < gw->regions.count; i++)
        while (gw->region[i].watches) {
            struct gw_watch_call *w = gw->region[i].watches;
            end(w, add_number(gw_stopping_status(), "resume_after", w->watch.cursor));
        }
}
