/* Lists of the record in pages: ListContainers, ListOperations, ListHosts, ListEvents.
 *
 * Every text in the SQL is a validated name, or a page key checked for the characters that names and numbers have; so nothing needs quoting. */
#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "core/pages.h"
#include "core/validate.h"
#include "core/watch.h"
#include "grpc/status.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "harpoon/v1/operation_service.pb-c.h"
#include "shell/gateway.h"
#include "shell/metrics.h"
#include "shell/reads.h"
#include "shell/rows.h"
#include "wire/codec.h"

enum { SQL_MAX = 2 << 20, SCAN_PAGE = 1000, SCAN_MAX = 20000 };

/* One call. */
struct list_call {
    struct hp_db_job job;
    struct hp_rpc_call *rpc;                /* NULL once the client has gone */
    const ProtobufCMessageDescriptor *body; /* of a row: columns are body, key */
    struct hp_buf sql;
    size_t page_size;
    uint64_t question;        /* for the page token */
    ProtobufCMessage **items; /* results; page_size places */
    size_t count, bytes;
    char last[GW_PAGE_KEY_MAX]; /* key of the last item */
    bool more;                  /* there are items after it */
    /* ListEvents */
    struct gw_filter filter;
    char region[64];
    int64_t after, since_ns;
};

static void free_list_call(struct list_call *l)
{
    for (size_t i = 0; i < l->count; i++)
        hp_unpacked_free(l->items[i]);
    free(l->items);
    hp_buf_done(&l->sql);
    gw_filter_done(&l->filter);
    free(l);
}

static struct list_call *new_list(struct hp_rpc_call *call, const ProtobufCMessageDescriptor *body, size_t page_size)
{
    struct list_call *l = calloc(1, sizeof *l);
    if (!l || !(l->items = calloc(page_size, sizeof *l->items))) {
        free(l);
        gw_fail(call, NULL);
        return NULL;
    }
    hp_buf_init(&l->sql, SQL_MAX);
    l->rpc = call;
    l->body = body;
    l->page_size = page_size;
    return l;
}

static void sql_add(struct list_call *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void sql_add(struct list_call *l, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert(n >= 0 && (size_t)n < sizeof text);
    if (hp_buf_append(&l->sql, text, (size_t)n) < 0)
        l->sql.len_max = 0; /* noticed when the list is submitted */
}

/* ---- Rows ---- */

static int read_row(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct list_call *l = user;
    if (l->count == l->page_size || (l->count > 0 && l->bytes + lengths[0] > GW_REPLY_BYTES)) {
        l->more = true;
        return 0;
    }
    ProtobufCMessage *body = NULL;
    int rc = gw_unpack_body(l->body, columns[0], lengths[0], &body, e);
    if (rc < 0)
        return rc;
    ProtobufCMessage *item = gw_unwrap(body);
    if (!item)
        return hp_fail(e, HP_ECORRUPT, "a body of type %s holds no resource", l->body->name);
    l->items[l->count++] = item;
    l->bytes += lengths[0];
    snprintf(l->last, sizeof l->last, "%s", columns[1]);
    return 1;
}

static int run_list(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct list_call *l = (struct list_call *)((char *)job - offsetof(struct list_call, job));
    return gw_select(c, (const char *)hp_buf_front(&l->sql), read_row, l, e);
}

/* Takes what matches out of one page of events; false when the answer is full. */
static bool keep_matches(struct list_call *l, struct gw_event_page *p)
{
    size_t bytes;
    for (Harpoon__V1__Event *event; p->at < p->count;) {
        bool full = l->count == l->page_size || (l->count > 0 && l->bytes + p->bytes[p->at] > GW_REPLY_BYTES);
        bool match = gw_filter_match(&l->filter, p->events[p->at]);
        if (match && full)
            return false;
        event = gw_event_page_take(p, &bytes);
        l->after = event->sequence;
        if (match) {
            l->items[l->count++] = &event->base;
            l->bytes += bytes;
        } else {
            hp_unpacked_free(&event->base);
        }
    }
    return true;
}

static int read_number(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    *(int64_t *)user = strtoll(columns[0], NULL, 10);
    return 0;
}

/* The sequence to start after, for `since`; past everything when nothing is as new. */
static int apply_since(struct list_call *l, struct hp_db_conn *c, struct hp_error *e)
{
    char sql[256];
    int64_t first = INT64_MAX;
    snprintf(sql, sizeof sql,
             "SELECT sequence FROM events WHERE region = '%s' AND time_ns >= %lld ORDER BY time_ns, sequence LIMIT 1",
             l->region, (long long)l->since_ns);
    int rc = gw_select(c, sql, read_number, &first, e);
    if (rc == 0 && first - 1 > l->after)
        l->after = first - 1;
    return rc;
}

/* Pages of the record until the answer is full, or enough has been looked at: then it may hold few items, and a token. */
static int run_events(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct list_call *l = (struct list_call *)((char *)job - offsetof(struct list_call, job));
    int rc = l->since_ns ? apply_since(l, c, e) : 0;
    bool room = true;
    l->more = true;
    for (size_t scanned = 0; rc == 0 && room && l->more && scanned < SCAN_MAX;) {
        struct gw_event_page page;
        rc = gw_select_events(c, l->region, l->after, SCAN_PAGE, &page, e);
        if (rc < 0)
            break;
        scanned += page.count;
        l->more = page.more;
        room = keep_matches(l, &page);
        l->more |= !room;
        gw_event_page_done(&page);
    }
    snprintf(l->last, sizeof l->last, "%lld", (long long)l->after);
    return rc;
}

/* ---- Answers ---- */

/* All list responses have one shape: repeated messages, then the token. */
static void reply(struct list_call *l, char *token)
{
    const ProtobufCMessageDescriptor *d = hp_rpc_method_of(l->rpc)->response;
    if (d == &harpoon__v1__list_containers_response__descriptor) {
        Harpoon__V1__ListContainersResponse r = HARPOON__V1__LIST_CONTAINERS_RESPONSE__INIT;
        r.containers = (Harpoon__V1__Container **)(void *)l->items;
        r.n_containers = l->count;
        r.next_page_token = token;
        hp_rpc_reply(l->rpc, &r.base);
    } else if (d == &harpoon__v1__list_operations_response__descriptor) {
        Harpoon__V1__ListOperationsResponse r = HARPOON__V1__LIST_OPERATIONS_RESPONSE__INIT;
        r.operations = (Harpoon__V1__Operation **)(void *)l->items;
        r.n_operations = l->count;
        r.next_page_token = token;
        hp_rpc_reply(l->rpc, &r.base);
    } else if (d == &harpoon__v1__list_hosts_response__descriptor) {
        Harpoon__V1__ListHostsResponse r = HARPOON__V1__LIST_HOSTS_RESPONSE__INIT;
        r.hosts = (Harpoon__V1__Host **)(void *)l->items;
        r.n_hosts = l->count;
        r.next_page_token = token;
        hp_rpc_reply(l->rpc, &r.base);
    } else {
        assert(d == &harpoon__v1__list_events_response__descriptor);
        Harpoon__V1__ListEventsResponse r = HARPOON__V1__LIST_EVENTS_RESPONSE__INIT;
        r.events = (Harpoon__V1__Event **)(void *)l->items;
        r.n_events = l->count;
        r.next_page_token = token;
        hp_rpc_reply(l->rpc, &r.base);
    }
}

static void list_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct list_call *l = (struct list_call *)((char *)job - offsetof(struct list_call, job));
    if (l->rpc) {
        char token[GW_PAGE_TOKEN_MAX] = "";
        hp_rpc_set_user(l->rpc, NULL);
        if (result == 0 && l->more)
            gw_page_token(token, l->question, l->last);
        if (result == 0)
            reply(l, token);
        else
            gw_fail(l->rpc, gw_record_status(result, e));
    }
    free_list_call(l);
}

static void submit(struct list_call *l, int (*run)(struct hp_db_job *, struct hp_db_conn *, struct hp_error *))
{
    struct gw_gateway *gw = gw_of(l->rpc);
    struct hp_error e = {0};
    bool too_long = l->sql.len_max == 0 || hp_buf_append(&l->sql, "", 1) < 0;
    l->job.run = run;
    l->job.done_cb = list_done;
    int rc = too_long ? HP_ENOMEM : gw->stopping ? HP_ECANCELED : hp_db_submit(gw->db, &l->job);
    if (rc < 0) {
        gw_fail(l->rpc, gw->stopping ? gw_stopping_status() : gw_record_status(rc, &e));
        free_list_call(l);
        return;
    }
    hp_metric_add(&gw_metric_reads, 1);
    hp_rpc_set_user(l->rpc, &l->rpc);
}

/* ---- Questions ---- */

/* The size and the key of the page; false with the call ended. */
static bool read_page(struct hp_rpc_call *call, int32_t page_size, const char *token, uint64_t question,
                      size_t *ret_size, char key[GW_PAGE_KEY_MAX])
{
    struct gw_check check = {0};
    *ret_size = (size_t)gw_validate_page_size(&check, page_size);
    if (gw_page_key(key, question, token) < 0 || strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789/.-") != strlen(key))
        gw_violation(&check, "page_token", "is not a token that this list has given for the same question");
    if (check.count > 0)
        gw_fail(call, check.status);
    return check.count == 0;
}

/* "region IN (…)" for one region or all that are served. */
static void add_regions(struct list_call *l, const char *region)
{
    const struct gw_regions *all = &gw_of(l->rpc)->regions;
    if (strcmp(region, "-") != 0 || all->count == 1) {
        sql_add(l, "region = '%s'", strcmp(region, "-") == 0 ? all->names[0] : region);
        return;
    }
    sql_add(l, "region IN (");
    for (int i = 0; i < all->count; i++)
        sql_add(l, "%s'%s'", i ? "," : "", all->names[i]);
    sql_add(l, ")");
}

/* One project, or all that the caller may read. */
static void add_projects(struct list_call *l, const char *project)
{
    const struct gw_principal *who = gw_caller(l->rpc);
    if (strcmp(project, "-") != 0) {
        sql_add(l, " AND project = '%s'", project);
    } else if (!who->all_projects) {
        sql_add(l, " AND project IN (");
        for (size_t i = 0; i < who->project_count; i++)
            sql_add(l, "%s'%s'", i ? "," : "", who->projects[i]);
        sql_add(l, ")");
    }
}

/* Parses and authorises a parent with wildcards; false with the call ended. */
static bool read_parent(struct hp_rpc_call *call, const char *text, struct hp_parent_name *ret)
{
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    hp_rpc_set_user(call, NULL);
    if (hp_parent_name_parse("parent", text, true, ret, &e) < 0) {
        gw_fail_field(call, "parent", &e);
        return false;
    }
    if (strcmp(ret->project, "-") != 0 && !gw_allow_read(gw_caller(call), ret->project, &status)) {
        gw_fail(call, status);
        return false;
    }
    return strcmp(ret->region, "-") == 0 || gw_region_of(call, ret->region);
}

void gw_on_list_containers(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const Harpoon__V1__ListContainersRequest *r = (const Harpoon__V1__ListContainersRequest *)message;
    struct hp_parent_name parent;
    char key[GW_PAGE_KEY_MAX];
    size_t page_size;
    uint64_t question = gw_page_question("containers", r->parent, NULL);
    if (!read_parent(call, r->parent, &parent) ||
        !read_page(call, r->page_size, r->page_token, question, &page_size, key))
        return;
    struct list_call *l = new_list(call, &harpoon__internal__v1__container_record__descriptor, page_size);
    if (!l)
        return;
    l->question = question;
    sql_add(l, "SELECT body, name FROM containers WHERE ");
    add_regions(l, parent.region);
    add_projects(l, parent.project);
    if (strcmp(parent.project, "-") !=
        0) /* lets the primary key serve all regions of a project in order; '0' follows '/' */
        sql_add(l, " AND name < 'projects/%s0'", parent.project);
    sql_add(l, " AND name > '%s' ORDER BY name LIMIT %zu", key, page_size + 1);
    submit(l, run_list);
}

void gw_on_list_hosts(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const Harpoon__V1__ListHostsRequest *r = (const Harpoon__V1__ListHostsRequest *)message;
    char region[64], key[GW_PAGE_KEY_MAX];
    size_t page_size;
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    uint64_t question = gw_page_question("hosts", r->parent, NULL);
    hp_rpc_set_user(call, NULL);
    if (hp_region_name_parse("parent", r->parent, true, region, &e) < 0) {
        gw_fail_field(call, "parent", &e);
        return;
    }
    if (!gw_allow_read(gw_caller(call), "", &status)) {
        gw_fail(call, status);
        return;
    }
    if ((strcmp(region, "-") != 0 && !gw_region_of(call, region)) ||
        !read_page(call, r->page_size, r->page_token, question, &page_size, key))
        return;
    struct list_call *l = new_list(call, &harpoon__v1__host__descriptor, page_size);
    if (!l)
        return;
    l->question = question;
    const char *slash = strchr(key, '/'); /* the key is region/host */
    sql_add(l, "SELECT body, CONCAT(region, '/', name) FROM hosts WHERE ");
    add_regions(l, region);
    if (slash)
        sql_add(l, " AND (region > '%.*s' OR (region = '%.*s' AND name > '%s'))", (int)(slash - key), key,
                (int)(slash - key), key, slash + 1);
    sql_add(l, " ORDER BY region, name LIMIT %zu", page_size + 1);
    submit(l, run_list);
}

/* The full name of a container or a host; "" is none. */
static bool target_valid(const char *target, struct hp_error *e)
{
    struct hp_container_name container;
    struct hp_host_name host;
    return !*target || hp_host_name_parse("target", target, &host, NULL) == 0 ||
           hp_container_name_parse("target", target, &container, e) == 0;
}

/* One region's part: serials are unique in it, so an index gives the newest. The key is "serial/region" of the last item listed; equal serials of several regions are listed by
 * region. */
static void add_operations_of(struct list_call *l, const char *region, const struct hp_parent_name *parent,
                              const Harpoon__V1__ListOperationsRequest *r, const char *key, size_t limit)
{
    char *end;
    long long serial = strtoll(key, &end, 10);
    sql_add(l,
            "(SELECT body, CONCAT(serial, '/', region), serial AS s, region AS r FROM operations WHERE region = '%s'",
            region);
    add_projects(l, parent->project);
    if (*r->target)
        sql_add(l, " AND target = '%s'", r->target);
    if (r->active_only)
        sql_add(l, " AND active = 1");
    if (*end == '/')
        sql_add(l, " AND serial %s %lld", strcmp(region, end + 1) > 0 ? "<=" : "<", serial);
    sql_add(l, " ORDER BY serial DESC LIMIT %zu)", limit);
}

void gw_on_list_operations(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const Harpoon__V1__ListOperationsRequest *r = (const Harpoon__V1__ListOperationsRequest *)message;
    struct hp_parent_name parent;
    struct hp_error e = {0};
    char key[GW_PAGE_KEY_MAX];
    size_t page_size;
    const char *active = r->active_only ? "active" : "all";
    uint64_t question = gw_page_question("operations", r->parent, r->target, active, NULL);
    if (!read_parent(call, r->parent, &parent))
        return;
    if (!target_valid(r->target, &e)) {
        gw_fail_field(call, "target", &e);
        return;
    }
    if (!read_page(call, r->page_size, r->page_token, question, &page_size, key))
        return;
    struct list_call *l = new_list(call, &harpoon__internal__v1__operation_record__descriptor, page_size);
    if (!l)
        return;
    l->question = question;
    const struct gw_regions *all = &gw_of(call)->regions;
    bool one = strcmp(parent.region, "-") != 0;
    for (int i = 0; i < (one ? 1 : all->count); i++) {
        if (i > 0)
            sql_add(l, " UNION ALL ");
        add_operations_of(l, one ? parent.region : all->names[i], &parent, r, key, page_size + 1);
    }
    sql_add(l, " ORDER BY s DESC, r LIMIT %zu", page_size + 1);
    submit(l, run_list);
}

static bool check_events(struct hp_rpc_call *call, const Harpoon__V1__ListEventsRequest *r)
{
    struct gw_check check = {0};
    Google__Rpc__Status *status = NULL;
    gw_validate_filter(&check, r->filter);
    gw_check_range(&check, "after_sequence", r->after_sequence, 0, INT64_MAX - 1);
    const Google__Protobuf__Timestamp *t = r->since;
    if (t && (t->seconds < 0 || t->seconds >= INT64_MAX / 1000000000 || t->nanos < 0 || t->nanos > 999999999))
        gw_violation(&check, "since", "is not a time between 1970 and 2262");
    if (check.count > 0) {
        gw_fail(call, check.status);
        return false;
    }
    if (r->filter && *r->filter->project && !gw_allow_read(gw_caller(call), r->filter->project, &status)) {
        gw_fail(call, status);
        return false;
    }
    return true;
}

/* Everything in the request but the page: texts and numbers alike. */
static uint64_t events_question(const Harpoon__V1__ListEventsRequest *r)
{
    Harpoon__V1__ListEventsRequest copy = *r;
    uint8_t *bytes;
    size_t len;
    char hash[24] = "";
    copy.page_size = 0;
    copy.page_token = (char *)(uintptr_t)protobuf_c_empty_string;
    if (hp_pack(&copy.base, &bytes, &len, NULL) == 0) {
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hp_hash(0, bytes, len));
        free(bytes);
    }
    return gw_page_question("events", hash, NULL);
}

void gw_on_list_events(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const Harpoon__V1__ListEventsRequest *r = (const Harpoon__V1__ListEventsRequest *)message;
    char region[64], key[GW_PAGE_KEY_MAX];
    size_t page_size;
    struct hp_error e = {0};
    hp_rpc_set_user(call, NULL);
    if (hp_region_name_parse("parent", r->parent, false, region, &e) < 0) {
        gw_fail_field(call, "parent", &e);
        return;
    }
    uint64_t question = events_question(r);
    if (!gw_region_of(call, region) || !check_events(call, r) ||
        !read_page(call, r->page_size, r->page_token, question, &page_size, key))
        return;
    struct list_call *l = new_list(call, &harpoon__v1__event__descriptor, page_size);
    if (!l)
        return;
    if (gw_filter_init(&l->filter, gw_caller(call), r->filter) < 0) {
        free_list_call(l);
        gw_fail(call, NULL);
        return;
    }
    l->question = question;
    memcpy(l->region, region, sizeof region);
    l->after = *key ? strtoll(key, NULL, 10) : r->after_sequence;
    l->since_ns = r->since ? r->since->seconds * 1000000000 + r->since->nanos : 0;
    submit(l, run_events);
}
