/* The texts by which clients point at things: resource names, page tokens, filters of watches, places in the stream of events. The first byte chooses.
 *
 * Asserted: a name that parses, formats to the same text; a token is taken for its own question and for no other, and gives the place that it was made for; a watch gets every event that matches, each once and in
 * order, whatever the ring holds, repeats, skips and forgets; whoever may not read a project sees none of its events. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/pages.h"
#include "core/validate.h"
#include "core/watch.h"
#include "fuzz/fuzz.h"
#include "wire/codec.h"
#include "wire/names.h"

enum { NAMES, TOKENS, WATCHES, KINDS, EVENTS = 64 };

static void names(const char *text)
{
    struct hp_error e = {0};
    struct hp_container_name c;
    struct hp_operation_name o;
    struct hp_host_name h;
    struct hp_parent_name p;
    char out[HP_NAME_MAX + 1], region[64];
    if (hp_container_name_parse("name", text, &c, &e) == 0) {
        hp_container_name_format(out, c.project, c.region, c.container);
        assert(strcmp(out, text) == 0);
        assert(hp_segment_valid(c.project) && hp_segment_valid(c.region) && hp_segment_valid(c.container));
    }
    if (hp_operation_name_parse("name", text, &o, &e) == 0) {
        hp_operation_name_format(out, o.project, o.region, o.operation);
        assert(strcmp(out, text) == 0);
    }
    if (hp_host_name_parse("name", text, &h, &e) == 0) {
        hp_host_name_format(out, h.region, h.host);
        assert(strcmp(out, text) == 0);
    }
    if (hp_parent_name_parse("parent", text, false, &p, &e) == 0) {
        assert(hp_segment_valid(p.project) && hp_segment_valid(p.region));
        struct hp_parent_name wild;
        int rc = hp_parent_name_parse("parent", text, true, &wild, &e);
        assert(rc == 0 && strcmp(wild.project, p.project) == 0);
    }
    if (hp_region_name_parse("parent", text, true, region, &e) == 0)
        assert(strcmp(region, "-") == 0 || hp_segment_valid(region));
}

static void tokens(const char *text)
{
    char token[GW_PAGE_TOKEN_MAX], key[GW_PAGE_KEY_MAX], short_text[GW_PAGE_KEY_MAX];
    uint64_t question = gw_page_question("List", "projects/p/regions/r1", NULL),
             other = gw_page_question("List", "x", NULL);
    assert(question != other);
    if (gw_page_key(key, question, text) == 0 && *key) { /* one that a client made up */
        gw_page_token(token, question, key);
        int rc = gw_page_key(short_text, question, token);
        assert(rc == 0 && strcmp(key, short_text) == 0);
    }
    if (!*text)
        return;
    snprintf(short_text, sizeof short_text, "%.*s", GW_PAGE_KEY_MAX - 1, text);
    gw_page_token(token, question, short_text);
    int rc = gw_page_key(key, question, token);
    assert(rc == 0 && strcmp(key, short_text) == 0);
    rc = gw_page_key(key, other, token);
    assert(rc == HP_EINVAL);
}

/* ---- Watches ---- */

static Harpoon__V1__Event *event(int64_t sequence)
{
    static const char *const types[] = {"harpoon.container.running", "harpoon.operation.placed",
                                        "harpoon.host.attached"};
    Harpoon__V1__Event m = HARPOON__V1__EVENT__INIT;
    m.sequence = sequence;
    m.region = (char *)(uintptr_t) "r1";
    m.project = (char *)(uintptr_t)(sequence % 3 == 0 ? "" : sequence % 3 == 1 ? "p" : "q");
    m.type = (char *)(uintptr_t)types[sequence % 3];
    m.host = (char *)(uintptr_t)(sequence % 2 ? "h1" : "h2");
    m.subject = (char *)(uintptr_t)(sequence % 5 ? "projects/p/regions/r1/containers/c1" : "regions/r1/hosts/h1");
    m.severity = (Harpoon__V1__Severity)(sequence % 5);
    return (Harpoon__V1__Event *)hp_message_clone(&m.base);
}

struct reader {
    struct gw_watch watch;
    struct gw_filter filter; /* the same again: what it should have seen */
    int64_t seen;            /* last event that was due to it and came */
    bool over;
};

static void took(struct reader *r, const Harpoon__V1__Event *e)
{
    assert(gw_filter_match(&r->filter, e) && e->sequence > r->seen);
    assert(*e->project ? gw_may_read(r->filter.who, e->project) : gw_may_read(r->filter.who, ""));
    for (int64_t s = r->seen + 1; s < e->sequence; s++) {
        Harpoon__V1__Event *skipped = event(s);
        assert(!gw_filter_match(&r->filter, skipped));
        hp_unpacked_free(&skipped->base);
    }
    r->seen = e->sequence;
}

static void from_record(struct reader *r, int64_t committed)
{
    for (int64_t s = r->watch.cursor + 1; s <= committed; s++) {
        Harpoon__V1__Event *e = event(s);
        int rc = gw_watch_from_record(&r->watch, e);
        assert(rc >= 0);
        if (rc)
            took(r, e);
        hp_unpacked_free(&e->base);
    }
}

static void read_on(struct reader *r, const struct gw_feed *f, int64_t committed)
{
    const Harpoon__V1__Event *e;
    for (int turn = 0; f->state != GW_FEED_UNKNOWN && !r->over && !r->watch.blocked && turn < 2 * EVENTS; turn++) {
        switch (gw_watch_next(&r->watch, f, &e)) {
        case GW_WATCH_SEND:
            took(r, e);
            break;
        case GW_WATCH_WAIT:
            return;
        case GW_WATCH_PAGE:
            from_record(r, committed);
            break;
        case GW_WATCH_OVERRUN:
            r->over = true;
        }
    }
}

/* What the stream does: a byte a time. */
static void stream(struct gw_feed *f, struct reader *r, uint8_t byte, int64_t *committed)
{
    int64_t after, to, sequence = *committed + 1;
    if (byte < 128 && *committed < EVENTS) {
        sequence = *committed = *committed + 1 + (byte % 16 == 0); /* the next, or the one after it */
    } else if (byte < 160) {
        sequence = 1 + byte % (*committed ? *committed : 1); /* a repeat */
    } else if (byte < 176) {
        (void)gw_feed_head(f, *committed);
        return;
    } else if (byte < 208) {
        if (gw_feed_missing(f, &after, &to)) {
            for (int64_t s = after + 1; s <= to && s <= *committed; s++) {
                Harpoon__V1__Event *e = event(s);
                if (gw_feed_filled(f, e, 100) != GW_FEED_APPENDED)
                    hp_unpacked_free(&e->base);
            }
        }
        return;
    } else if (byte < 224) {
        r->watch.blocked = true;
        return;
    } else if (byte < 240) {
        r->over |= r->watch.blocked && !gw_watch_unblock(&r->watch, f);
        return;
    } else {
        if (byte > 252 && f->state == GW_FEED_BEHIND)
            gw_feed_give_up(f);
        return;
    }
    if (sequence > *committed)
        return;
    Harpoon__V1__Event *e = event(sequence);
    if (gw_feed_arrived(f, e, 100) != GW_FEED_APPENDED)
        hp_unpacked_free(&e->base);
}

/* The reader's rights, the length of its filter, the filter (packed), the stream. */
static void watches(const uint8_t *data, size_t len)
{
    static char *projects[] = {(char *)(uintptr_t) "p"};
    struct gw_principal who = {.refs = 1, .name = (char *)(uintptr_t) "ann", .projects = projects, .project_count = 1};
    struct gw_feed feed;
    struct reader r = {.seen = 0};
    struct gw_check check = {0};
    struct hp_error e = {0};
    ProtobufCMessage *filter;
    if (len < 3)
        return;
    size_t n = data[1] < len - 2 ? data[1] : len - 2;
    who.all_projects = data[0] & 1;
    if (hp_unpack(&harpoon__v1__event_filter__descriptor, data + 2, n, NULL, &filter, &e))
        return;
    gw_validate_filter(&check, (Harpoon__V1__EventFilter *)filter);
    if (check.status)
        google__rpc__status__free_unpacked(check.status, NULL);
    int rc = gw_feed_init(&feed, 8, 600);
    rc |= gw_filter_init(&r.watch.filter, &who, (Harpoon__V1__EventFilter *)filter);
    rc |= gw_filter_init(&r.filter, &who, (Harpoon__V1__EventFilter *)filter);
    assert(rc == 0);
    int64_t committed = data[0] >> 1 & 7;
    gw_watch_begin(&r.watch, 0);
    for (size_t i = 2 + n; i < len && check.count == 0; i++) {
        stream(&feed, &r, data[i], &committed);
        assert(feed.count <= 8 && feed.known >= feed.last);
        r.over |= gw_watch_overrun(&r.watch, &feed);
        read_on(&r, &feed, committed);
    }
    gw_filter_done(&r.filter);
    gw_filter_done(&r.watch.filter);
    gw_feed_done(&feed);
    hp_unpacked_free(filter);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1)
        return 0;
    char *text = strndup((const char *)data + 1, len - 1);
    if (data[0] % KINDS == NAMES)
        names(text);
    else if (data[0] % KINDS == TOKENS)
        tokens(text);
    else
        watches(data + 1, len - 1);
    free(text);
    return 0;
}
