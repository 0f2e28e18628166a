/* rt_sample.c — work of the runtime that belongs to no container: measuring, and removing images that nothing uses. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "rt_private.h"

/* Removes do not collect more often than this: it keeps creates waiting while it looks. */
#define COLLECT_PAUSE_MS 60000

struct sample {
    struct ha_work work;
    struct hp_mail mail;
    struct ha_rt *rt;
    char **uids;
    size_t count;
    Harpoon__Internal__V1__AgentMetrics *metrics;
    void (*sample_cb)(void *user, Harpoon__Internal__V1__AgentMetrics *metrics);
    void *user;
    bool real; /* it may use rt->metrics */
};

static void sample_run(struct ha_work *work)
{
    struct sample *s = (struct sample *)work;
    struct hp_error e = {0};
    if (ha_metrics_sample(s->rt->metrics, s->uids, s->count, hp_now_ns(), &s->metrics, &e))
        hp_warn("cannot measure; tried again at the next interval", HP_S("error", e.message));
    hp_mailbox_post(s->rt->mailbox, &s->mail);
}

static void sample_deliver(struct hp_mail *mail)
{
    struct sample *s = (struct sample *)((char *)mail - offsetof(struct sample, mail));
    struct ha_rt *rt = s->rt;
    if (s->real)
        rt->sampling = false;
    s->sample_cb(s->user, s->metrics);
    for (size_t i = 0; i < s->count; i++)
        free(s->uids[i]);
    free(s->uids);
    free(s);
    rt->under_way--;
    ha_rt_check_closed(rt);
}

static void sample_uids(struct sample *s)
{
    s->uids = calloc(s->rt->entries.count + 1, sizeof *s->uids);
    for (struct hp_map_node *n = s->uids ? hp_map_first(&s->rt->entries) : NULL; n; n = hp_map_next(n)) {
        struct ha_entry *en = n->value;
        char *uid = en->watch ? strdup(en->uid) : NULL;
        if (uid)
            s->uids[s->count++] = uid;
    }
}

void ha_rt_sample(struct ha_rt *rt, void (*sample_cb)(void *user, Harpoon__Internal__V1__AgentMetrics *metrics),
                  void *user)
{
    struct sample *s = calloc(1, sizeof *s);
    if (!s)
        abort(); /* the promise to call back cannot be kept */
    *s = (struct sample){.work = {.run = sample_run},
                         .mail = {.deliver = sample_deliver},
                         .rt = rt,
                         .sample_cb = sample_cb,
                         .user = user};
    rt->under_way++;
    s->real = !rt->sampling && !atomic_load(&rt->closing);
    if (s->real) {
        rt->sampling = true;
        sample_uids(s);
    }
    if (!s->real || ha_pool_submit(rt->probe, &s->work))
        hp_mailbox_post(rt->mailbox, &s->mail);
}

struct collection {
    struct ha_work work;
    struct hp_mail mail;
    struct ha_rt *rt;
    int64_t age_s;
    int removed;
    void (*done_cb)(void *user, int removed);
    void *user;
};

static void collection_run(struct ha_work *work)
{
    struct collection *c = (struct collection *)work;
    struct ha_rt *rt = c->rt;
    struct hp_error e = {0};
    struct ha_images_gc gc = {.in_use = ha_image_in_use,
                              .user = rt,
                              .min_age_s = c->age_s < 0 ? rt->image_age_s : c->age_s,
                              .bytes_max = rt->image_bytes_max};
    int rc = ha_images_collect(&rt->images, &gc, &e);
    if (rc && rc != HP_EAGAIN)
        hp_warn("cannot remove unused images; tried again after the next remove", HP_S("error", e.message));
    c->removed = gc.removed_images;
    hp_mailbox_post(rt->mailbox, &c->mail);
}

static void collection_deliver(struct hp_mail *mail)
{
    struct collection *c = (struct collection *)((char *)mail - offsetof(struct collection, mail));
    struct ha_rt *rt = c->rt;
    rt->collecting = false;
    if (c->done_cb)
        c->done_cb(c->user, c->removed);
    free(c);
    rt->under_way--;
    ha_rt_check_closed(rt);
}

void ha_rt_collect_images(struct ha_rt *rt, int64_t age_s, void (*done_cb)(void *user, int removed), void *user)
{
    if (!done_cb && (rt->collecting || atomic_load(&rt->closing) || hp_now_ms() < rt->collect_after_ms))
        return;
    rt->collect_after_ms = hp_now_ms() + COLLECT_PAUSE_MS;
    struct collection *c = calloc(1, sizeof *c);
    if (!c && !done_cb)
        return;
    if (!c)
        abort(); /* the promise to call back cannot be kept */
    *c = (struct collection){.work = {.run = collection_run},
                             .mail = {.deliver = collection_deliver},
                             .rt = rt,
                             .age_s = age_s,
                             .done_cb = done_cb,
                             .user = user};
    rt->under_way++;
    rt->collecting = true;
    if (ha_pool_submit(rt->probe, &c->work))
        hp_mailbox_post(rt->mailbox, &c->mail);
}
