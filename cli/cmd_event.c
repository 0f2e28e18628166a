/* events: the region's log from a sequence, a time or now; -f follows, and resumes from the last sequence when the connection is lost. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "google/rpc/error_details.pb-c.h"
#include "grpc/status.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "io/loop.h"

struct events_state {
    struct cli *c;
    int64_t last; /* last sequence that was shown or passed over; -1 before the first */
    int64_t shown;
};

static void print_event(struct cli *c, const Harpoon__V1__Event *ev)
{
    if (c->format == CLI_JSON || c->format == CLI_JSONL) {
        enum cli_format format = c->format;
        c->format = CLI_JSONL; /* a stream of documents is one a line */
        cli_print_json(c, &ev->base);
        c->format = format;
        return;
    }
    char stamp[40];
    cli_format_time(stamp, ev->time);
    printf("%6lld  %s  %-8s  %-32s  %s%s%s\n", (long long)ev->sequence, stamp,
           cli_enum_name(&harpoon__v1__severity__descriptor, (int)ev->severity), ev->type,
           c->format == CLI_WIDE ? ev->subject : cli_last_segment(ev->subject), *ev->message ? "  " : "", ev->message);
}

static bool on_event(const ProtobufCMessage *m, void *user)
{
    struct events_state *st = user;
    const Harpoon__V1__WatchResponse *r = (const Harpoon__V1__WatchResponse *)m;
    if (r->event) {
        print_event(st->c, r->event);
        fflush(stdout);
        st->shown++;
    }
    st->last = r->sequence;
    return true;
}

static void timestamp_of(Google__Protobuf__Timestamp *ret, int64_t ns)
{
    google__protobuf__timestamp__init(ret);
    ret->seconds = ns / 1000000000;
    ret->nanos = (int32_t)(ns % 1000000000);
}

/* "2026-11-22T02:00:00Z", or a time ago such as "10m". */
static int parse_since(const char *text, Google__Protobuf__Timestamp *ret)
{
    struct tm tm = {0};
    struct hp_error e = {0};
    int64_t ms;
    google__protobuf__timestamp__init(ret);
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest && (strcmp(rest, "Z") == 0 || *rest == '\0')) {
        ret->seconds = (int64_t)timegm(&tm);
        return CLI_OK;
    }
    if (cli_parse_duration(text, &ms, &e))
        return cli_usage("--since %s: must be a time ago such as 10m, or 2026-01-31T12:00:00Z", text);
    timestamp_of(ret, hp_wall_ns() - ms * 1000000);
    return CLI_OK;
}

static int follow(struct cli *c, Harpoon__V1__WatchRequest *req)
{
    struct events_state st = {.c = c, .last = -1};
    Google__Protobuf__Timestamp began;
    uint64_t pause_ms = 200;
    timestamp_of(&began, hp_wall_ns());
    for (;;) {
        Google__Rpc__Status *status = NULL;
        int64_t before = st.last;
        int code = cli_stream(c, "/harpoon.v1.EventService/Watch", &req->base, &harpoon__v1__watch_response__descriptor,
                              on_event, &st, &status);
        if (c->interrupted || !status) {
            if (status)
                google__rpc__status__free_unpacked(status, NULL);
            return c->interrupted ? CLI_INTERRUPTED : code;
        }
        /* The gateway ended it in order (a drain) or went away: go on behind what was seen. A slow reader is told where to resume, which is the same. */
        bool again = status->code == 0 || status->code == HP_CODE_UNAVAILABLE ||
                     (status->code == HP_CODE_RESOURCE_EXHAUSTED && st.last > before);
        if (!again)
            cli_print_status(status);
        else if (c->interactive)
            fprintf(stderr, "harpoon: stream ended (%s); resuming in %llu ms\n", status->message,
                    (unsigned long long)pause_ms);
        google__rpc__status__free_unpacked(status, NULL);
        if (!again)
            return code;
        pause_ms = st.last > before ? 200 : pause_ms < 5000 ? pause_ms * 2 : 5000;
        cli_sleep(c, pause_ms);
        if (st.last >= 0) {
            req->start_case = HARPOON__V1__WATCH_REQUEST__START_AFTER_SEQUENCE;
            req->after_sequence = st.last;
        } else if (req->start_case == HARPOON__V1__WATCH_REQUEST__START__NOT_SET) {
            /* Lost before the first sign of where "now" was. */
            req->start_case = HARPOON__V1__WATCH_REQUEST__START_SINCE;
            req->since = &began;
        }
    }
}

static int list_once(struct cli *c, Harpoon__V1__ListEventsRequest *req, int64_t limit)
{
    char *token = NULL;
    int64_t left = limit;
    json_t *doc = NULL;
    int code = CLI_OK;
    do {
        ProtobufCMessage *m = NULL;
        req->page_token = token ? token : (char *)protobuf_c_empty_string;
        req->page_size = left < 1000 ? (int32_t)left : 1000;
        code = cli_call(c, "/harpoon.v1.EventService/ListEvents", &req->base,
                        &harpoon__v1__list_events_response__descriptor, true, &m);
        free(token);
        token = NULL;
        if (code)
            break;
        const Harpoon__V1__ListEventsResponse *r = (const Harpoon__V1__ListEventsResponse *)m;
        if (c->format == CLI_JSON)
            code = cli_add_page(&doc, "events", m);
        for (size_t i = 0; c->format != CLI_JSON && i < r->n_events; i++)
            print_event(c, r->events[i]);
        left -= (int64_t)r->n_events;
        token = *r->next_page_token && left > 0 ? strdup(r->next_page_token) : NULL;
        protobuf_c_message_free_unpacked(m, NULL);
    } while (token && !code && !c->interrupted);
    free(token);
    if (!code)
        return cli_print_document(doc);
    json_decref(doc);
    return code;
}

struct event_options {
    bool help, follow;
    const char *since, *after, *host, *subject, *severity, *limit;
    bool all_projects;
    struct cli_list types;
};

static int fill_filter(struct cli *c, Harpoon__V1__EventFilter *f, struct event_options *o, char subject[256])
{
    harpoon__v1__event_filter__init(f);
    if (o->host)
        f->host = (char *)cli_last_segment(o->host);
    f->types = (char **)o->types.items;
    f->n_types = (size_t)o->types.count;
    if (o->severity) {
        char full[64];
        snprintf(full, sizeof full, "SEVERITY_%s", o->severity);
        for (char *p = full; *p; p++)
            *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
        const ProtobufCEnumValue *v =
            protobuf_c_enum_descriptor_get_value_by_name(&harpoon__v1__severity__descriptor, full);
        if (!v)
            return cli_usage("--severity %s: must be info, warning, error or critical", o->severity);
        f->min_severity = (Harpoon__V1__Severity)v->value;
    }
    if (!o->subject)
        return CLI_OK;
    f->subject = subject;
    if (strchr(o->subject, '/') || strchr(o->subject, '*')) {
        snprintf(subject, 256, "%s", o->subject);
        return CLI_OK;
    }
    return cli_container_name(c, o->subject, subject);
}

int cli_cmd_events(struct cli *c, int argc, char **argv)
{
    struct event_options o = {0};
    struct cli_args args;
    const struct cli_option table[] = {
        {"follow", 'f', CLI_FLAG, &o.follow, NULL, "go on as things happen, until Ctrl-C; resumes by itself"},
        {"since", 0, CLI_STRING, &o.since, "TIME", "from this time: 10m (ago), or 2026-01-31T12:00:00Z"},
        {"after", 0, CLI_STRING, &o.after, "SEQUENCE", "behind this sequence; 0: from the oldest kept"},
        {"host", 0, CLI_STRING, &o.host, "HOST", "only events of this host"},
        {"subject", 's', CLI_STRING, &o.subject, "NAME",
         "only this container (or a full name, or a prefix that ends in *)"},
        {"type", 't', CLI_REPEATED, &o.types, "TYPE", "only this type, or a prefix that ends in *; repeatable"},
        {"severity", 0, CLI_STRING, &o.severity, "LEVEL", "info, warning, error or critical, and higher"},
        {"only-project", 0, CLI_FLAG, &o.all_projects, NULL, "only events of the project set by --project"},
        {"limit", 'n', CLI_STRING, &o.limit, "N", "without -f: at most N events; default 1000"},
        {"help", 'h', CLI_FLAG, &o.help, NULL, "this text"},
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("events: %s", e.message);
    if (o.help) {
        puts("Usage: harpoon events [-f] [--since TIME | --after SEQUENCE] [filters]\n\nOptions:");
        cli_print_options(stdout, table);
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    if (args.count || (o.since && o.after))
        return cli_usage(args.count ? "events: takes no name; use --subject" : "events: --since or --after, not both");
    char parent[256], subject[256];
    Harpoon__V1__EventFilter filter;
    Google__Protobuf__Timestamp since;
    int64_t after = 0, limit = 1000;
    int code = cli_region_parent(c, false, parent);
    if (!code)
        code = fill_filter(c, &filter, &o, subject);
    if (!code && o.since)
        code = parse_since(o.since, &since);
    if (!code && ((o.after && cli_parse_int(o.after, 0, INT64_MAX, &after, &e)) ||
                  (o.limit && cli_parse_int(o.limit, 1, 1000000, &limit, &e))))
        code = cli_usage("events: %s", e.message);
    if (code)
        return code;
    if (o.all_projects && c->project)
        filter.project = (char *)c->project;
    if (!o.follow) {
        Harpoon__V1__ListEventsRequest req = HARPOON__V1__LIST_EVENTS_REQUEST__INIT;
        req.parent = parent;
        req.filter = &filter;
        req.after_sequence = after;
        req.since = o.since ? &since : NULL;
        return list_once(c, &req, limit);
    }
    Harpoon__V1__WatchRequest req = HARPOON__V1__WATCH_REQUEST__INIT;
    req.parent = parent;
    req.filter = &filter;
    if (o.after) {
        req.start_case = HARPOON__V1__WATCH_REQUEST__START_AFTER_SEQUENCE;
        req.after_sequence = after;
    } else if (o.since) {
        req.start_case = HARPOON__V1__WATCH_REQUEST__START_SINCE;
        req.since = &since;
    }
    return follow(c, &req);
}
