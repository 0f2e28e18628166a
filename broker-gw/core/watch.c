#include "core/watch.h"

#include <assert.h>
#include <string.h>

#include "wire/codec.h"

int gw_filter_init(struct gw_filter *f, const struct gw_principal *who, const Harpoon__V1__EventFilter *want)
{
    assert(who);
    *f = (struct gw_filter){0};
    if (want && !(f->want = (Harpoon__V1__EventFilter *)hp_message_clone(&want->base)))
        return HP_ENOMEM;
    f->who = gw_principal_ref(who);
    return 0;
}

void gw_filter_done(struct gw_filter *f)
{
    if (f->want)
        hp_unpacked_free(&f->want->base);
    f->want = NULL;
    gw_principal_unref(f->who);
    f->who = NULL;
}

/* Equal, or a prefix that ends in "*"; an empty pattern matches everything. */
static bool matches(const char *pattern, const char *text)
{
    size_t len = strlen(pattern);
    if (len > 0 && pattern[len - 1] == '*')
        return strncmp(pattern, text, len - 1) == 0;
    return len == 0 || strcmp(pattern, text) == 0;
}

bool gw_filter_match(const struct gw_filter *f, const Harpoon__V1__Event *e)
{
    const Harpoon__V1__EventFilter *w = f->want;
    if (!gw_may_read(f->who, e->project))
        return false;
    if (!w)
        return true;
    if (*w->project && strcmp(w->project, e->project) != 0)
        return false;
    if (*w->host && strcmp(w->host, e->host) != 0)
        return false;
    if (e->severity < w->min_severity || !matches(w->subject, e->subject))
        return false;
    for (size_t i = 0; i < w->n_types; i++)
        if (matches(w->types[i], e->type))
            return true;
    return w->n_types == 0;
}

void gw_watch_begin(struct gw_watch *w, int64_t cursor)
{
    assert(w->state == GW_WATCH_STARTING && cursor >= 0);
    w->cursor = cursor;
    w->state = GW_WATCH_CATCHING_UP;
}

enum gw_watch_step gw_watch_next(struct gw_watch *w, const struct gw_feed *f, const Harpoon__V1__Event **ret_event)
{
    assert(w->state != GW_WATCH_STARTING && f->state != GW_FEED_UNKNOWN);
    for (;;) {
        if (w->cursor >= f->last) {
            w->state = GW_WATCH_LIVE;
            return GW_WATCH_WAIT;
        }
        if (w->cursor + 1 < gw_feed_first(f)) {
            if (w->state == GW_WATCH_LIVE && w->blocked)
                return GW_WATCH_OVERRUN;
            w->state = GW_WATCH_CATCHING_UP;
            return GW_WATCH_PAGE;
        }
        w->state = GW_WATCH_LIVE;
        const Harpoon__V1__Event *e = gw_feed_get(f, w->cursor + 1);
        assert(e);
        w->cursor++;
        if (gw_filter_match(&w->filter, e)) {
            *ret_event = e;
            return GW_WATCH_SEND;
        }
    }
}

int gw_watch_from_record(struct gw_watch *w, const Harpoon__V1__Event *e)
{
    assert(w->state == GW_WATCH_CATCHING_UP);
    if (e->sequence <= w->cursor)
        return 0;
    if (e->sequence != w->cursor + 1)
        return HP_ECORRUPT;
    w->cursor++;
    return gw_filter_match(&w->filter, e);
}

bool gw_watch_overrun(const struct gw_watch *w, const struct gw_feed *f)
{
    return w->blocked && w->state == GW_WATCH_LIVE && w->cursor < f->last && w->cursor + 1 < gw_feed_first(f);
}

bool gw_watch_unblock(struct gw_watch *w, const struct gw_feed *f)
{
    if (gw_watch_overrun(w, f))
        return false;
    w->blocked = false;
    return true;
}
