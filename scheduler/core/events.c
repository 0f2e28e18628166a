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
    assert(r->leading && !!a->operation_data + !!a->container_data + !!a->host_data <= 1);
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
    } else if (a->host_data) {
        m.data_case = HARPOON__V1__EVENT__DATA_HOST_DATA;
        m.host_data = (Harpoon__V1__Host *)a->host_data;
    }
    struct sc_blob *body = sc_blob_pack(r, &m.base);
    if (body)
        add_row(r, sequence, body);
    sc_mark_add(r, sequence, r->time.wall_ns);
}

void sc_event_region(struct sc_region *r, const char *type, Harpoon__V1__Severity severity, const char *message)
{
    char subject[96];
    snprintf(subject, sizeof subject, "regions/%s", r->name);
    sc_event_emit(r,
                  &(struct sc_event_args){.type = type, .subject = subject, .message = message, .severity = severity});
}

/* ---- What the stream has not confirmed ----
 *
 * In order of sequence: those that fly or are confirmed, then those that wait. While the stream is away all wait; when there are too many, the later ones are let go and form a hole, which is
 * read back from the record when there is room again. What is behind a hole waits until it is filled. */

static struct sc_backlog *append(struct sc_region *r, struct sc_list *before, int64_t sequence, struct sc_blob *body)
{
    struct sc_backlog *b = sc_alloc(r, sizeof *b);
    if (!b)
        return NULL;
    b->sequence = sequence;
    b->body = sc_blob_ref(body);
    b->waits = true;
    sc_list_append(before, &b->link); /* that is: before it */
    r->backlog_count++;
    r->waiting_count++;
    return b;
}

static void fly(struct sc_region *r, struct sc_backlog *b, struct sc_messages *out)
{
    assert(b->waits && !b->confirmed);
    struct sc_message *m = sc_alloc(r, sizeof *m);
    if (!m)
        return;
    m->kind = SC_SEND_EVENT;
    m->sequence = b->sequence;
    m->body = sc_blob_ref(b->body);
    b->waits = false;
    r->waiting_count--;
    r->flying_count++;
    sc_messages_append(out, m);
}

void sc_backlog_add(struct sc_region *r, int64_t sequence, struct sc_blob *body, struct sc_messages *out)
{
    bool in_turn =
        out && !r->stream_away && !r->waiting_count && !r->hole_to && r->flying_count < r->config.publish_max;
    assert(sc_list_empty(&r->backlog) || r->hole_to ||
           SC_OWNER(r->backlog.prev, struct sc_backlog, link)->sequence == sequence - 1);
    if (r->hole_to && !r->closing) {
        assert(r->hole_to == sequence - 1);
        r->hole_to = sequence;
    } else if (!r->hole_to && r->stream_away && r->backlog_count >= r->config.backlog_max) {
        r->hole_after = sequence - 1;
        r->hole_to = sequence;
    } else {
        struct sc_backlog *b = append(r, &r->backlog, sequence, body);
        if (b && in_turn)
            fly(r, b, out);
    }
}

static void trim_backlog(struct sc_region *r)
{
    while (!sc_list_empty(&r->backlog)) {
        struct sc_backlog *b = SC_OWNER(r->backlog.next, struct sc_backlog, link);
        if (!b->confirmed)
            break;
        assert(b->sequence == r->watermark + 1);
        r->watermark = b->sequence;
        if (r->backlog_at == &b->link)
            r->backlog_at = NULL;
        sc_list_remove(&b->link);
        r->backlog_count--;
        sc_blob_unref(b->body);
        free(b);
    }
    if (sc_list_empty(&r->backlog) && r->watermark > r->watermark_recorded && !r->settle.place)
        sc_timer_set(r, &r->settle, r->config.settle_ms);
}

/* Outcomes come nearly in order: the search goes on where the last one ended. */
static struct sc_backlog *find(struct sc_region *r, int64_t sequence)
{
    struct sc_list *l = r->backlog_at;
    if (!l || SC_OWNER(l, struct sc_backlog, link)->sequence > sequence)
        l = r->backlog.next;
    for (; l != &r->backlog; l = l->next) {
        struct sc_backlog *b = SC_OWNER(l, struct sc_backlog, link);
        if (b->sequence > sequence)
            break;
        r->backlog_at = l;
        if (b->sequence == sequence)
            return b;
    }
    return NULL;
}

void sc_backlog_published(struct sc_region *r, int64_t sequence, bool confirmed)
{
    struct sc_backlog *found = find(r, sequence);
    if (!found || found->confirmed || found->waits)
        return;
    assert(r->flying_count > 0);
    r->flying_count--;
    found->confirmed = confirmed;
    found->waits = !confirmed;
    r->waiting_count += !confirmed;
    if (confirmed) {
        r->stream_proven = true;
        trim_backlog(r);
        if (r->flying_count <= r->config.publish_max / 2 && !r->republish.place)
            sc_backlog_send(r, &r->released);
    } else if (!r->republish.place && !r->stream_away) {
        sc_timer_set(r, &r->republish, r->config.republish_ms);
    }
}

void sc_backlog_send(struct sc_region *r, struct sc_messages *out)
{
    int64_t last = r->hole_to && r->hole_after < r->committed_sequence ? r->hole_after : r->committed_sequence;
    if (r->stream_away)
        return;
    for (struct sc_list *l = r->backlog.next;
         l != &r->backlog && r->waiting_count && r->flying_count < r->config.publish_max; l = l->next) {
        struct sc_backlog *b = SC_OWNER(l, struct sc_backlog, link);
        if (b->sequence > last)
            return;
        if (b->waits)
            fly(r, b, out);
        if (r->failed)
            return;
    }
}

void sc_backlog_stream(struct sc_region *r, bool away)
{
    r->stream_away = away;
    if (away)
        r->stream_proven = false;
    else
        sc_backlog_send(r, &r->released);
}

struct sc_page *sc_backlog_page(struct sc_region *r)
{
    if (!r->hole_to || r->fetching || r->stream_away || r->backlog_count > r->config.backlog_max / 2)
        return NULL;
    struct sc_page *p = malloc(sizeof *p);
    if (!p)
        return NULL; /* with the next flush, then */
    size_t limit = r->config.backlog_max / 2 + 1;
    *p = (struct sc_page){
        .after = r->hole_after, .to = r->hole_to, .limit = limit < SC_PAGE_EVENTS_MAX ? limit : SC_PAGE_EVENTS_MAX};
    r->fetching = true;
    r->closing = p->to - p->after <= (int64_t)p->limit;
    return p;
}

void sc_backlog_fetched(struct sc_region *r, struct sc_page *p)
{
    struct sc_list *behind = r->backlog.next;
    bool closing = r->closing;
    assert(r->fetching && r->hole_to && p->after == r->hole_after);
    while (behind != &r->backlog && SC_OWNER(behind, struct sc_backlog, link)->sequence <= r->hole_after)
        behind = behind->next;
    for (size_t i = 0; i < p->count && !r->failed && p->rows[i].sequence == r->hole_after + 1; i++) {
        append(r, behind, p->rows[i].sequence, p->rows[i].body);
        r->hole_after++;
    }
    r->fetching = r->closing = false;
    if (!r->failed && (r->hole_after == p->after || (closing && r->hole_after != r->hole_to)))
        sc_fail(r, HP_ECORRUPT); /* the record lacks events that it had */
    if (r->hole_after == r->hole_to)
        r->hole_after = r->hole_to = 0;
    sc_page_free(p);
    if (!r->republish.place)
        sc_backlog_send(r, &r->released);
}

void sc_page_free(struct sc_page *p)
{
    for (size_t i = 0; p && i < p->count; i++)
        sc_blob_unref(p->rows[i].body);
    if (p)
        free(p->rows);
    free(p);
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
