#include "shell/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/gateway.h"
#include "shell/metrics.h"
#include "wire/codec.h"

int gw_select(struct hp_db_conn *c, const char *sql, gw_row_fn row, void *user, struct hp_error *e)
{
    MYSQL *my = hp_db_mysql(c);
    if (mysql_real_query(my, sql, strlen(sql)) != 0)
        return hp_db_fail(c, e, "read");
    MYSQL_RES *result = mysql_use_result(my);
    if (!result)
        return hp_db_fail(c, e, "read");
    int rc = 1;
    MYSQL_ROW columns;
    while (rc == 1 && (columns = mysql_fetch_row(result)) != NULL)
        rc = row(user, columns, mysql_fetch_lengths(result), e);
    if (rc == 1 && mysql_errno(my) != 0)
        rc = hp_db_fail(c, e, "read");
    mysql_free_result(result); /* reads what is left */
    return rc < 0 ? rc : 0;
}

int gw_unpack_body(const ProtobufCMessageDescriptor *d, const char *bytes, size_t len, ProtobufCMessage **ret,
                   struct hp_error *e)
{
    static const struct hp_unpack_limits limits = {.bytes_max = 16 << 20, .memory_max = 64 << 20};
    int rc = hp_unpack(d, bytes, len, &limits, ret, e);
    if (rc == HP_EINVAL || rc == HP_ELIMIT)
        return hp_fail(e, HP_ECORRUPT, "a body is not a %s", d->name);
    return rc;
}

static int read_bounds(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct gw_bounds *b = user;
    *b = (struct gw_bounds){strtoll(columns[0], NULL, 10), strtoll(columns[1], NULL, 10)};
    return 0;
}

int gw_select_bounds(struct hp_db_conn *c, const char *region, struct gw_bounds *ret, struct hp_error *e)
{
    char sql[256];
    *ret = (struct gw_bounds){1, 0};
    snprintf(sql, sizeof sql, "SELECT oldest, sequence FROM regions WHERE name = '%.63s'", region);
    return gw_select(c, sql, read_bounds, ret, e);
}

struct event_reading {
    struct gw_event_page *page;
    size_t room, bytes;
};

static int read_event(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    struct event_reading *r = user;
    struct gw_event_page *p = r->page;
    if (p->count == r->room || (p->count > 0 && r->bytes + lengths[0] > GW_REPLY_BYTES)) {
        p->more = true;
        return 0;
    }
    ProtobufCMessage *m = NULL;
    int rc = gw_unpack_body(&harpoon__v1__event__descriptor, columns[0], lengths[0], &m, e);
    if (rc < 0)
        return rc;
    r->bytes += lengths[0];
    p->bytes[p->count] = lengths[0];
    p->events[p->count++] = (Harpoon__V1__Event *)m;
    return 1;
}

int gw_select_events(struct hp_db_conn *c, const char *region, int64_t after, size_t count_max,
                     struct gw_event_page *ret, struct hp_error *e)
{
    char sql[256];
    *ret =
        (struct gw_event_page){.events = calloc(count_max, sizeof(void *)), .bytes = calloc(count_max, sizeof(size_t))};
    if (!ret->events || !ret->bytes) {
        gw_event_page_done(ret);
        return hp_fail(e, HP_ENOMEM, "a page of events");
    }
    struct event_reading r = {.page = ret, .room = count_max};
    snprintf(sql, sizeof sql,
             "SELECT body FROM events WHERE region = '%.63s' AND sequence > %lld ORDER BY sequence LIMIT %zu", region,
             (long long)after, count_max + 1);
    int rc = gw_select(c, sql, read_event, &r, e);
    if (rc < 0)
        gw_event_page_done(ret);
    return rc;
}

void gw_event_page_done(struct gw_event_page *p)
{
    for (size_t i = p->at; i < p->count; i++)
        hp_unpacked_free(&p->events[i]->base);
    free(p->events);
    free(p->bytes);
    *p = (struct gw_event_page){0};
}

Harpoon__V1__Event *gw_event_page_take(struct gw_event_page *p, size_t *ret_bytes)
{
    if (p->at == p->count)
        return NULL;
    if (ret_bytes)
        *ret_bytes = p->bytes[p->at];
    return p->events[p->at++];
}
