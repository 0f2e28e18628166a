/* events.c — events: numbered here, written with their batch, published after it, kept until the stream has confirmed them. */
#include <stdlib.h>
#include <string.h>

#include "core/state.h"

static void add_row(struct sc_region *r, int64_t sequence, struct sc_blob *body)
{
    if (r->event_count == r->event_room) {
        size_t room = r->event_room ? 2 * r->event_room : 64;
        struct sc_event_row *rows = realloc(r->events, room * sizeof *rows);
        if (!rows) {
            sc_fail(r, HP_ENOMEM);
            sc_blob_unref(body);
            return;
        }
        r->events = rows;
        r->event_room = room;
    }
    r->events[r->event_count++] = (struct sc_event_row){sequence, r->time.wall_ns, body};
}

void sc_event_emit(struct sc_region *r, const struct sc_event_args *a)
{
    char id[96], source[96], type[64];
    Google__Protobuf__Timestamp time;
    Harpoon__V1__Event m = HARPOON__V1__EVENT__INIT;
    assert(r->leading && !!a->operation_data + !!a->container_data + !!a->host_data == 1);
    int64_t sequence = ++r->sequence;
    snprintf(id, sizeof id, "%s-%" PRId64, r->name, sequence);
    snprintf(source, sizeof source, "//harpoon/regions/%s", r->name);
    snprintf(type, sizeof type, "harpoon.%s", a->type);
    sc_timestamp(&time, r->time.wall_ns);
    m.id = id;
    m.source = source;
    m.type = type;
    m.subject = (char *)(a->subject ? a->subject : "");
    m.time = &time;
    m.sequence = sequence;
    m.region = r->name;
    m.project = (char *)(a->project ? a->project : "");
    m.host = (char *)(a->host ? a->host : "");
    m.severity = a->severity;
    m.operation = (char *)(a->operation ? a->operation : "");
    m.message = (char *)(a->message ? a->message : "");
    if (a->operation_data) {
        m.data_case = HARPOON__V1__EVENT__DATA_OPERATION_DATA;
        m.operation_data = (Harpoon__V1__Operation *)a->operation_data;
    } else if (a->container_data) {
        m.data_case = HARPOON__V1__EVENT__DATA_CONTAINER_DATA;
        m.container_data = (Harpoon__V1__Container *)a->container_data;
    } else {
        m.data_case = HARPOON__V1__EVENT__DATA_HOST_DATA;
        m.host_data = (Harpoon__V1__Host *)a->host_data;
    }
    struct sc_blob *body = sc_blob_pack(r, &m.base);
    if (body)
        add_row(r, sequence, body);
    sc_mark_add(r, sequence, r->time.wall_ns);
}

/* ---- What the stream has not confirmed ---- */

void sc_backlog_add(struct sc_region *r, int64_t sequence, struct sc_blob *body)
{
    struct sc_backlog *b = sc_alloc(r, sizeof *b);
    if (!b)
        return;
    assert(sc_list_empty(&r->backlog) || SC_OWNER(r->backlog.prev, struct sc_backlog, link)->sequence == sequence - 1);
    b->sequence = sequence;
    b->body = sc_blob_ref(body);
    sc_list_append(&r->backlog, &b->link);
    r->backlog_count++;
}

static void trim_backlog(struct sc_region *r)
{
    while (!sc_list_empty(&r->backlog)) {
        struct sc_backlog *b = SC_OWNER(r->backlog.next, struct sc_backlog, link);
        if (!b->confirmed)
            break;
        assert(b->sequence == r->watermark + 1);
        r->watermark = b->sequence;
        sc_list_remove(&b->link);
        r->backlog_count--;
        sc_blob_unref(b->body);
        free(b);
    }
    if (sc_list_empty(&r->backlog) && r->watermark > r->watermark_recorded && !r->settle.place)
        sc_timer_set(r, &r->settle, r->config.settle_ms);
}

void sc_backlog_published(struct sc_region *r, int64_t sequence, bool confirmed)
{
    /* Confirms come nearly in order: the search is short. */
    struct sc_backlog *found = NULL;
    for (struct sc_list *l = r->backlog.next; l != &r->backlog && !found; l = l->next) {
        struct sc_backlog *b = SC_OWNER(l, struct sc_backlog, link);
        if (b->sequence == sequence)
            found = b;
        else if (b->sequence > sequence)
            return;
    }
    if (!found || found->confirmed)
        return;
    found->confirmed = confirmed;
    found->failed = !confirmed;
    if (confirmed)
        trim_backlog(r);
    else if (!r->republish.place)
        sc_timer_set(r, &r->republish, r->config.republish_ms);
}

void sc_backlog_resend(struct sc_region *r, struct sc_messages *out, bool all)
{
    for (struct sc_list *l = r->backlog.next; l != &r->backlog; l = l->next) {
        struct sc_backlog *b = SC_OWNER(l, struct sc_backlog, link);
        if (b->confirmed || !(b->failed || all))
            continue;
        struct sc_message *m = sc_alloc(r, sizeof *m);
        if (!m)
            return;
        m->kind = SC_SEND_EVENT;
        m->sequence = b->sequence;
        m->body = sc_blob_ref(b->body);
        b->failed = false;
        sc_messages_append(out, m);
    }
}

/* ---- When which sequence was: for retention by age ---- */

void sc_mark_add(struct sc_region *r, int64_t sequence, int64_t time_ns)
{
    if (!r->marks) {
        r->marks = sc_alloc(r, SC_MARKS_MAX * sizeof *r->marks);
        if (!r->marks)
            return;
    }
    if (r->mark_count && sequence < r->marks[r->mark_count - 1].sequence + r->mark_every)
        return;
    if (r->mark_count == SC_MARKS_MAX) {
        for (size_t i = 0; i < SC_MARKS_MAX / 2; i++)
            r->marks[i] = r->marks[2 * i];
        r->mark_count = SC_MARKS_MAX / 2;
        r->mark_every *= 2;
    }
    r->marks[r->mark_count++] = (struct sc_mark){sequence, time_ns};
}

int64_t sc_mark_before(const struct sc_region *r, int64_t age_ms)
{
    int64_t limit_ns = r->time.wall_ns - age_ms * 1000000;
    int64_t first = 0;
    if (age_ms <= 0 || age_ms > INT64_MAX / 1000000)
        return 0;
    for (size_t i = 0; i < r->mark_count && r->marks[i].time_ns < limit_ns; i++)
        first = r->marks[i].sequence;
    return first;
}
