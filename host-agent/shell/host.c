/* Start: journal → runtime → what is on the host → agent. End: agent (waits for jobs) → runtime → journal. */
#include "shell/host.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/log.h"
#include "io/loop.h"
#include "io/tls.h"
#include "shell/agent.h"
#include "shell/agent_stats.h"
#include "shell/journal_sqlite.h"
#include "shell/rt.h"

typedef Harpoon__Internal__V1__AgentHello__LabelsEntry label_pb;

enum { STATS_MS = 5000, IMAGES_MAX = 256, RESERVE_MAX_BYTES = 1 << 30 };

struct ha_host {
    const struct ha_config *config;
    struct ha_host_events events;
    struct ha_env env;
    struct ha_sqlite *journal;
    struct ha_rt *rt;
    struct ha_agent *agent; /* NULL: closed */
    struct hp_tls_context *tls;
    struct ha_timer stats_timer;
    bool rt_closing, rt_closed;
    bool sampling; /* a sample is under way */
    /* The hello. */
    Harpoon__Internal__V1__AgentHello self;
    Harpoon__V1__Resources allocatable;
    Harpoon__V1__HostFacts facts;
    label_pb labels[HA_LABELS_MAX], *label_at[HA_LABELS_MAX];
    char *label_text[HA_LABELS_MAX];
    char images[IMAGES_MAX][72];
    char *image_at[IMAGES_MAX];
};

/* ---- what the host says of itself ---- */

static void fill_images(struct ha_host *h)
{
    h->facts.n_images = ha_rt_images(h->rt, h->images, IMAGES_MAX);
    for (size_t i = 0; i < h->facts.n_images; i++)
        h->image_at[i] = h->images[i];
    h->facts.images = h->image_at;
}

static int fill_labels(struct ha_host *h, struct hp_error *e)
{
    size_t n = 0;
    for (; h->config->labels && h->config->labels[n]; n++) {
        assert(n < HA_LABELS_MAX); /* checked with the configuration */
        char *text = strdup(h->config->labels[n]);
        if (!text)
            return hp_fail(e, HP_ENOMEM, "labels");
        char *eq = strchr(text, '=');
        *eq = '\0';
        h->label_text[n] = text;
        harpoon__internal__v1__agent_hello__labels_entry__init(&h->labels[n]);
        h->labels[n].key = text;
        h->labels[n].value = eq + 1;
        h->label_at[n] = &h->labels[n];
    }
    h->self.labels = h->label_at;
    h->self.n_labels = n;
    return 0;
}

/* A tenth stays with the host. */
static int64_t less_reserve(int64_t bytes, int64_t reserve_max)
{
    int64_t reserve = bytes / 10 < reserve_max ? bytes / 10 : reserve_max;
    return bytes - reserve;
}

static int fill_self(struct ha_host *h, struct hp_error *e)
{
    const struct ha_rt_facts *f = ha_rt_facts(h->rt);
    const struct ha_config *c = h->config;
    harpoon__internal__v1__agent_hello__init(&h->self);
    harpoon__v1__resources__init(&h->allocatable);
    harpoon__v1__host_facts__init(&h->facts);
    h->self.zone = c->zone;
    h->self.rack = c->rack;
    h->self.allocatable = &h->allocatable;
    h->self.facts = &h->facts;
    h->allocatable.cpu_millis = c->cpu_millis ? c->cpu_millis : f->cpu_millis;
    h->allocatable.memory_bytes = c->memory_bytes ? c->memory_bytes : less_reserve(f->memory_bytes, RESERVE_MAX_BYTES);
    h->allocatable.disk_bytes = c->disk_bytes ? c->disk_bytes : less_reserve(f->disk_bytes, INT64_MAX);
    h->facts.agent_version = (char *)HP_VERSION;
    h->facts.kernel = (char *)f->kernel;
    h->facts.runtime = (char *)f->runtime;
    h->facts.cgroup_mode = (char *)f->cgroup_mode;
    h->facts.boot_id = (char *)f->boot_id;
    h->facts.cpu_millis = f->cpu_millis;
    h->facts.memory_bytes = f->memory_bytes;
    h->facts.disk_bytes = f->disk_bytes;
    fill_images(h);
    return fill_labels(h, e);
}

/* ---- the agent's wishes ---- */

static void on_sampled(void *user, Harpoon__Internal__V1__AgentMetrics *metrics)
{
    struct ha_host *h = user;
    h->sampling = false;
    if (!metrics)
        return;
    if (h->agent)
        ha_agent_send_metrics(h->agent, metrics);
    harpoon__internal__v1__agent_metrics__free_unpacked(metrics, NULL);
}

static void on_metrics_due(void *user)
{
    struct ha_host *h = user;
    if (h->sampling || h->rt_closing)
        return;
    h->sampling = true;
    ha_rt_sample(h->rt, on_sampled, h);
}

static void set_stats(struct ha_host *h)
{
    struct ha_core_stats s;
    ha_core_stats(ha_agent_core(h->agent), &s);
    ha_stats_set(&s, ha_agent_is_up(h->agent));
}

static void on_stats_due(struct ha_timer *t)
{
    struct ha_host *h = (struct ha_host *)((char *)t - offsetof(struct ha_host, stats_timer));
    set_stats(h);
    ha_timer_set(h->env.timers, &h->stats_timer, hp_now_ms() + STATS_MS);
}

static void on_link(void *user, bool up)
{
    struct ha_host *h = user;
    if (up)
        hp_info("attached to a router", HP_S("host", h->config->host));
    else
        fill_images(h); /* for the next hello */
    if (h->agent)
        set_stats(h);
}

static void on_failed(void *user, const struct hp_error *e)
{
    struct ha_host *h = user;
    h->events.on_failed(h->events.user, e);
}

/* ---- the end ---- */

static void host_free(struct ha_host *h)
{
    for (size_t i = 0; i < HA_LABELS_MAX; i++)
        free(h->label_text[i]);
    hp_tls_context_unref(h->tls);
    free(h);
}

static void maybe_ended(struct ha_host *h)
{
    if (h->agent || !h->rt_closed)
        return;
    void (*on_end)(void *) = h->events.on_end;
    void *user = h->events.user;
    ha_sqlite_close(h->journal);
    ha_env_close(&h->env);
    host_free(h);
    on_end(user);
}

static void on_rt_closed(void *user)
{
    struct ha_host *h = user;
    h->rt_closed = true;
    maybe_ended(h);
}

static void close_rt(struct ha_host *h)
{
    if (h->rt_closing)
        return;
    h->rt_closing = true;
    ha_rt_close(h->rt, on_rt_closed, h);
}

static void cancel_jobs(void *user)
{
    close_rt(user); /* calls back what is under way */
}

static void on_agent_closed(void *user)
{
    struct ha_host *h = user;
    h->agent = NULL;
    close_rt(h);
    maybe_ended(h);
}

void ha_host_close(struct ha_host *h)
{
    ha_timer_set(h->env.timers, &h->stats_timer, UINT64_MAX);
    ha_agent_close(h->agent, "the agent stops; containers run on", (uint64_t)h->config->stop_wait_ms, on_agent_closed);
}

/* ---- the start ---- */

static int make_dir(const char *path, struct hp_error *e)
{
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part)
        return hp_fail(e, HP_EINVAL, "%s: path longer than %zu bytes", path, sizeof part - 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) && errno != EEXIST)
            return hp_fail_errno(e, HP_EIO, errno, "making %s", part);
    }
    return 0;
}

static int open_journal(struct ha_host *h, uv_loop_t *loop, bool quarantine, struct ha_image *image, struct hp_error *e)
{
    char path[4096], aside[4096];
    snprintf(path, sizeof path, "%s/journal.db", h->config->state_dir);
    int rc = make_dir(h->config->state_dir, e);
    if (!rc && quarantine) {
        rc = ha_sqlite_quarantine(path, aside, e);
        if (rc == 0)
            hp_warn("journal moved aside; what runs is quarantined until the scheduler adopts or removes it",
                    HP_S("from", path), HP_S("to", aside));
        if (rc == HP_ENOTFOUND)
            rc = 0;
    }
    if (!rc)
        rc = ha_sqlite_open(loop, path, &h->journal, image, e);
    return rc;
}

static int open_runtime(struct ha_host *h, uv_loop_t *loop, struct hp_error *e)
{
    const struct ha_config *c = h->config;
    struct ha_rt_options o = {.state_dir = c->state_dir,
                              .run_dir = c->run_dir,
                              .bridge = c->bridge,
                              .subnet = c->subnet,
                              .runtime = c->runtime,
                              .cgroup_parent = c->cgroup_parent,
                              .insecure_registries = (const char *const *)c->insecure_registries,
                              .masquerade = c->masquerade,
                              .log_bytes_max = c->log_bytes_max,
                              .image_age_s = c->image_age_ms / 1000,
                              .image_bytes_max = c->image_bytes_max};
    return ha_rt_new(loop, &o, &h->rt, e);
}

static int open_tls(struct ha_host *h, struct hp_error *e)
{
    const struct ha_config *c = h->config;
    struct hp_tls_options o = {
        .role = HP_TLS_CLIENT, .ca_file = c->tls_ca, .cert_file = c->tls_cert, .key_file = c->tls_key};
    return c->plain ? 0 : hp_tls_context_new(&o, &h->tls, e);
}

static int find(struct ha_host *h, struct ha_found **ret, struct ha_rt_item **ret_items, size_t *ret_count,
                struct hp_error *e)
{
    int rc = ha_rt_list(h->rt, ret_items, ret_count, e);
    if (rc)
        return hp_wrap(e, "looking for containers");
    *ret = calloc(*ret_count + 1, sizeof **ret);
    if (!*ret)
        return hp_fail(e, HP_ENOMEM, "containers found");
    for (size_t i = 0; i < *ret_count; i++)
        (*ret)[i] = (struct ha_found){
            .uid = (*ret_items)[i].uid, .name = (*ret_items)[i].container, .state = (*ret_items)[i].state};
    return 0;
}

static int start_agent(struct ha_host *h, struct ha_image *image, struct hp_error *e)
{
    struct ha_rt_item *items = NULL;
    struct ha_found *found = NULL;
    size_t count = 0, routers = 0;
    uint64_t seed = 0;
    while (h->config->routers[routers])
        routers++;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = hp_now_ns();
    struct ha_agent_options o = {
        .core = {.region = h->config->region,
                 .host = h->config->host,
                 .memory_bytes = h->allocatable.memory_bytes,
                 .seed = seed},
        .link = {.routers = (const char *const *)h->config->routers, .router_count = routers, .tls = h->tls},
        .self = &h->self,
        .journal = ha_sqlite_journal(h->journal),
        .runtime = ha_rt_runtime(h->rt),
        .on_metrics_due = on_metrics_due,
        .on_failed = on_failed,
        .on_link = on_link,
        .cancel_jobs = cancel_jobs,
        .user = h};
    int rc = find(h, &found, &items, &count, e);
    if (rc) {
        ha_image_done(image);
    } else {
        hp_info("journal read", HP_S("host", h->config->host), HP_I("containers", image->record_count),
                HP_I("found_on_host", count), HP_I("reports_unconfirmed", image->report_count),
                HP_I("tombstones", image->tombstone_count));
        rc = ha_agent_new(&h->env, &o, image, found, count, &h->agent, e);
    }
    free(items);
    free(found);
    return rc;
}

static void on_undone(void *user)
{
    host_free(user);
}

/* After a start that failed half-way. */
static void undo(struct ha_host *h)
{
    if (h->journal)
        ha_sqlite_close(h->journal);
    if (h->env.timers)
        ha_env_close(&h->env);
    if (h->rt)
        ha_rt_close(h->rt, on_undone, h);
    else
        host_free(h);
}

int ha_host_new(uv_loop_t *loop, const struct ha_config *config, bool quarantine_journal,
                const struct ha_host_events *events, struct ha_host **ret, struct hp_error *e)
{
    struct ha_image image = {0};
    struct ha_host *h = calloc(1, sizeof *h);
    if (!h)
        return hp_fail(e, HP_ENOMEM, "agent");
    h->config = config;
    h->events = *events;
    h->stats_timer.fire_cb = on_stats_due;
    int rc = open_tls(h, e);
    if (!rc)
        rc = ha_env_init(&h->env, loop, hp_now_ns(), e);
    if (!rc && ha_timers_reserve(h->env.timers, 1))
        rc = hp_fail(e, HP_ENOMEM, "agent");
    if (!rc)
        rc = open_journal(h, loop, quarantine_journal, &image, e);
    if (!rc)
        rc = open_runtime(h, loop, e);
    if (!rc)
        rc = fill_self(h, e);
    if (!rc)
        rc = start_agent(h, &image, e);
    else
        ha_image_done(&image);
    if (rc) {
        undo(h);
        return rc;
    }
    ha_stats_register();
    on_stats_due(&h->stats_timer);
    *ret = h;
    return 0;
}
