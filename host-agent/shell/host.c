/* Start: journal → runtime → what is on the host → agent. End: agent (waits for jobs) → runtime → journal. */
#include "shell/host.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/log.h"
#include "base/map.h"
#include "base/memory.h"
#include "io/loop.h"
#include "io/tls.h"
#include "shell/agent.h"
#include "shell/agent_stats.h"
#include "shell/journal_files.h"
#include "shell/journal_sqlite.h"
#include "shell/rt.h"
#include "wire/agent_limits.h"
#include "wire/utf8.h"

typedef Harpoon__Internal__V1__AgentHello__LabelsEntry label_pb;

enum {
    STATS_MS = 5000,
    SETTLE_AFTER = 3,       /* times of those without a command, or a change of the link */
    IMAGES_TELL = 3,        /* samples with the images after they have changed: one may be lost on the way */
    IMAGES_TELL_EVERY = 60, /* and one in so many in any case */
    JOURNAL_RESERVE_BYTES = 8 << 20,
    RESERVE_MAX_BYTES = 1 << 30,
    NETWORK_MODES = 8, /* bits */
    LOAD_STALE_MS = 15 * 60 * 1000
};

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
    bool sampling;       /* a sample is under way */
    struct hp_load load; /* of the machine, as the agent judges it */
    struct hp_load_limits load_limits;
    bool no_room;   /* the disk is as good as full */
    unsigned quiet; /* how often STATS_MS have passed since the last command, up to SETTLE_AFTER */
    struct ha_storage_class classes[HP_STORAGE_CLASSES_MAX];
    size_t class_count;
    Harpoon__V1__StorageClass storage[HP_STORAGE_CLASSES_MAX], *storage_at[HP_STORAGE_CLASSES_MAX];
    struct hp_error no_storage; /* what the last command lacks of storage classes */
    /* The hello. */
    Harpoon__Internal__V1__AgentHello self;
    Harpoon__V1__Resources allocatable;
    Harpoon__V1__HostFacts facts;
    label_pb labels[HA_LABELS_MAX], *label_at[HA_LABELS_MAX];
    char *label_text[HA_LABELS_MAX];
    Harpoon__V1__Taint taints[HA_TAINTS_MAX], *taint_at[HA_TAINTS_MAX];
    char *taint_text[HA_TAINTS_MAX];
    char images[HP_AGENT_IMAGES_MAX][72];
    char *image_at[HP_AGENT_IMAGES_MAX];
    Harpoon__V1__NetworkMode network_modes[NETWORK_MODES];
    uint64_t images_mark;               /* of the set of them */
    unsigned images_tell, images_quiet; /* samples still to be sent with them; sent without since the last one with */
};

/* ---- what the host says of itself ---- */

static void fill_images(struct ha_host *h)
{
    h->facts.n_images = ha_rt_images(h->rt, h->images, HP_AGENT_IMAGES_MAX);
    for (size_t i = 0; i < h->facts.n_images; i++)
        h->image_at[i] = h->images[i];
    h->facts.images = h->image_at;
    h->images_mark = 0;
    for (size_t i = 0; i < h->facts.n_images; i++)
        h->images_mark ^= hp_hash(1, h->images[i], strlen(h->images[i]));
}

/* What the router was told with the hello may have changed since. */
static void tell_images(struct ha_host *h, Harpoon__Internal__V1__AgentMetrics *metrics)
{
    uint64_t before = h->images_mark;
    fill_images(h);
    if (h->images_mark != before)
        h->images_tell = IMAGES_TELL;
    else if (++h->images_quiet >= IMAGES_TELL_EVERY && !h->images_tell)
        h->images_tell = 1;
    if (!h->images_tell)
        return;
    h->images_tell--;
    h->images_quiet = 0;
    metrics->images = h->facts.images;
    metrics->n_images = h->facts.n_images;
    metrics->images_told = true;
}

/* Splits key=value, whose form was checked with the configuration, in a copy; returns the value. NULL: no memory. */
static char *split_pair(const char *pair, char **ret_copy)
{
    *ret_copy = strdup(pair);
    char *eq = *ret_copy ? strchr(*ret_copy, '=') : NULL;
    if (!eq)
        return NULL;
    *eq = '\0';
    return eq + 1;
}

static int fill_taints(struct ha_host *h, struct hp_error *e)
{
    size_t n = 0;
    for (; h->config->taints && h->config->taints[n]; n++) {
        assert(n < HA_TAINTS_MAX);
        harpoon__v1__taint__init(&h->taints[n]);
        h->taints[n].value = split_pair(h->config->taints[n], &h->taint_text[n]);
        if (!h->taints[n].value)
            return hp_fail(e, HP_ENOMEM, "taints");
        h->taints[n].key = h->taint_text[n];
        h->taint_at[n] = &h->taints[n];
    }
    h->self.taints = h->taint_at;
    h->self.n_taints = n;
    return 0;
}

static int fill_labels(struct ha_host *h, struct hp_error *e)
{
    size_t n = 0;
    for (; h->config->labels && h->config->labels[n]; n++) {
        assert(n < HA_LABELS_MAX);
        harpoon__internal__v1__agent_hello__labels_entry__init(&h->labels[n]);
        h->labels[n].value = split_pair(h->config->labels[n], &h->label_text[n]);
        if (!h->labels[n].value)
            return hp_fail(e, HP_ENOMEM, "labels");
        h->labels[n].key = h->label_text[n];
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

/* NONE is not told: every host has it. A host that offers nothing else says that, for silence means BRIDGE. */
static void fill_networks(struct ha_host *h)
{
    const struct ha_rt_facts *f = ha_rt_facts(h->rt);
    for (int mode = 1; mode < NETWORK_MODES; mode++)
        if (f->network_modes & 1U << mode)
            h->network_modes[h->facts.n_network_modes++] = (Harpoon__V1__NetworkMode)mode;
    if (!h->facts.n_network_modes)
        h->network_modes[h->facts.n_network_modes++] = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    h->facts.network_modes = h->network_modes;
    h->facts.network_functions = f->functions;
    h->allocatable.network_bps = h->config->network_bps ? h->config->network_bps : f->network_bps;
    size_t wanted = 0;
    while (h->config->sriov && h->config->sriov[wanted])
        wanted++;
    if ((size_t)f->functions < wanted)
        hp_warn("network functions of the configuration are missing; they count when they are there at a start",
                HP_I("configured", wanted), HP_I("found", f->functions));
}

/* The classes whose directories are there: what is not cannot be promised to anybody. */
static void fill_storage(struct ha_host *h)
{
    int64_t bytes[HP_STORAGE_CLASSES_MAX];
    size_t n = 0;
    ha_rt_storage(h->rt, bytes);
    for (size_t i = 0; i < h->class_count; i++) {
        if (bytes[i] < 0) {
            hp_warn("storage class is not told: its directory cannot be read; read again at the next start",
                    HP_S("storage_class", h->classes[i].name), HP_S("directory", h->classes[i].dir));
            continue;
        }
        harpoon__v1__storage_class__init(&h->storage[n]);
        h->storage[n].name = h->classes[i].name;
        h->storage[n].size_bytes = bytes[i];
        h->storage_at[n] = &h->storage[n];
        n++;
    }
    h->facts.storage_classes = h->storage_at;
    h->facts.n_storage_classes = n;
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
    fill_networks(h);
    fill_storage(h);
    fill_images(h);
    int code = fill_labels(h, e);
    return code ? code : fill_taints(h, e);
}

/* ---- the agent's wishes ---- */

/* The agent's own breakers, beside the scheduler's: while one is open nothing new that needs the resource is begun, whoever asks. */
static void judge_load(struct ha_host *h, const Harpoon__V1__HostMetrics *m)
{
    struct hp_load_sample s;
    char texts[HP_RESOURCE_COUNT][128];
    const char *at[HP_RESOURCE_COUNT] = {0};
    hp_load_sample(m, &h->facts, &h->allocatable, &s);
    unsigned turned = hp_load_take(&h->load, &s, &h->load_limits, hp_now_ms()), open = hp_load_open_set(&h->load);
    if (!turned && !open)
        return;
    for (int r = 0; r < HP_RESOURCE_COUNT; r++) {
        hp_load_text(&h->load, &h->load_limits, r, texts[r], sizeof texts[r]);
        at[r] = open & 1U << r ? texts[r] : NULL;
        if (!(turned & 1U << r))
            continue;
        if (at[r])
            hp_warn("overloaded; new containers that need it, and larger sizes, are refused until it passes",
                    HP_S("load", texts[r]));
        else
            hp_info("no longer overloaded", HP_S("load", texts[r]));
    }
    ha_agent_set_overload(h->agent, at);
}

static void send_metrics(struct ha_host *h, Harpoon__Internal__V1__AgentMetrics *metrics)
{
    char *overloaded[HP_RESOURCE_COUNT];
    Harpoon__V1__HostMetrics *m = metrics->host;
    judge_load(h, m);
    m->overloaded = overloaded;
    for (int r = 0; r < HP_RESOURCE_COUNT; r++)
        if (hp_load_open_set(&h->load) & 1U << r)
            overloaded[m->n_overloaded++] = (char *)hp_resource_name(r);
    tell_images(h, metrics);
    ha_agent_send_metrics(h->agent, metrics);
    m->overloaded = NULL; /* borrowed */
    m->n_overloaded = 0;
    metrics->images = NULL;
    metrics->n_images = 0;
}

static void on_sampled(void *user, Harpoon__Internal__V1__AgentMetrics *metrics)
{
    struct ha_host *h = user;
    h->sampling = false;
    if (!metrics)
        return;
    if (h->agent)
        send_metrics(h, metrics);
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
    ha_stats_set(&s, ha_agent_is_up(h->agent), h->no_room, __builtin_popcount(hp_load_open_set(&h->load)));
}

/* Less room on the disk than is kept back: what would need some is refused before it is begun, while there is enough to write that down. */
static void look_for_room(struct ha_host *h)
{
    const struct ha_config *c = h->config;
    char why[256];
    struct statvfs fs;
    if (!h->agent || statvfs(c->state_dir, &fs))
        return;
    bool no_room = fs.f_bavail * fs.f_frsize < (uint64_t)c->disk_reserve_bytes;
    if (no_room == h->no_room)
        return;
    h->no_room = no_room;
    snprintf(why, sizeof why, "the file system of %.150s has less than %lld bytes left (disk_reserve)", c->state_dir,
             (long long)c->disk_reserve_bytes);
    if (no_room) {
        hp_warn("disk full; new containers are refused until there is room, the others run on", HP_S("reason", why));
    } else {
        hp_info("there is room on the disk again");
        ha_sqlite_reserve(h->journal, JOURNAL_RESERVE_BYTES);
    }
    ha_agent_set_room(h->agent, no_room ? why : NULL);
}

/* Room for what the command asks for in storage classes. */
static const char *look_for_storage(void *user, const Harpoon__Internal__V1__Command *cmd)
{
    struct ha_host *h = user;
    h->no_storage = (struct hp_error){0};
    if (!cmd->spec || !ha_rt_storage_check(h->rt, cmd->container, cmd->spec, &h->no_storage))
        return NULL;
    hp_utf8_mend(h->no_storage.message); /* may be cut within a character */
    return h->no_storage.message;
}

static void before_command(void *user)
{
    struct ha_host *h = user;
    h->quiet = 0;
    look_for_room(h);
}

static void on_stats_due(struct ha_timer *t)
{
    struct ha_host *h = (struct ha_host *)((char *)t - offsetof(struct ha_host, stats_timer));
    look_for_room(h);
    set_stats(h);
    if (h->quiet < SETTLE_AFTER && ++h->quiet == SETTLE_AFTER)
        hp_memory_settle();
    ha_timer_set(h->env.timers, &h->stats_timer, hp_now_ms() + STATS_MS);
}

static void on_link(void *user, bool up)
{
    struct ha_host *h = user;
    h->quiet = 0;
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
    for (size_t i = 0; i < HA_TAINTS_MAX; i++)
        free(h->taint_text[i]);
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
        rc = ha_journal_quarantine(path, aside, e);
        if (rc == 0)
            hp_warn("journal moved aside; what runs is quarantined until the scheduler adopts or removes it",
                    HP_S("from", path), HP_S("to", aside));
        if (rc == HP_ENOTFOUND)
            rc = 0;
    }
    if (!rc)
        rc = ha_sqlite_open(loop, path, &h->journal, image, e);
    if (!rc)
        ha_sqlite_reserve(h->journal, JOURNAL_RESERVE_BYTES);
    return rc;
}

static int open_runtime(struct ha_host *h, uv_loop_t *loop, struct hp_error *e)
{
    const struct ha_config *c = h->config;
    for (; c->storage_classes && c->storage_classes[h->class_count]; h->class_count++) {
        int rc = ha_config_class(c->storage_classes[h->class_count], &h->classes[h->class_count], e);
        if (rc)
            return rc;
    }
    struct ha_rt_options o;
    ha_config_networks(c, &o);
    o.state_dir = c->state_dir;
    o.run_dir = c->run_dir;
    o.runtime = c->runtime;
    o.cgroup_parent = c->cgroup_parent;
    o.insecure_registries = (const char *const *)c->insecure_registries;
    o.masquerade = c->masquerade;
    o.log_bytes_max = c->log_bytes_max;
    o.image_age_s = c->image_age_ms / 1000;
    o.image_bytes_max = c->image_bytes_max;
    o.classes = h->classes;
    o.class_count = h->class_count;
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
                 .network_modes =
                     ha_rt_facts(h->rt)->network_modes | 1U << HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE,
                 .network_functions = ha_rt_facts(h->rt)->functions,
                 .seed = seed},
        .link = {.routers = (const char *const *)h->config->routers, .router_count = routers, .tls = h->tls},
        .self = &h->self,
        .journal = ha_sqlite_journal(h->journal),
        .runtime = ha_rt_runtime(h->rt),
        .on_metrics_due = on_metrics_due,
        .on_failed = on_failed,
        .on_link = on_link,
        .before_command = before_command,
        .storage_lacks = look_for_storage,
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

static void fill_limits(struct ha_host *h)
{
    const struct ha_config *c = h->config;
    for (int r = 0; r < HP_RESOURCE_COUNT; r++) {
        h->load_limits.use[r] = (int)c->breaker_use[r];
        h->load_limits.pressure[r] = (int)c->breaker_pressure[r];
    }
    h->load_limits.close_percent = (int)c->breaker_close;
    h->load_limits.after_ms = (uint64_t)c->breaker_after_ms;
    h->load_limits.close_after_ms = (uint64_t)c->breaker_close_after_ms;
    h->load_limits.average_ms = (uint64_t)c->load_average_ms;
    h->load_limits.stale_ms = LOAD_STALE_MS;
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
    fill_limits(h);
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
