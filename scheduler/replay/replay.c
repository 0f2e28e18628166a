/* replay.c — the core between a recording and hosts that obey.
 *
 * From the recording come what clients and hosts did: creates (the first event of a container), resizes (an event with other resources), deletes; hosts that attach, detach, are cordoned and uncordoned. What the
 * recorded scheduler decided is left out: that is what the core decides anew. Every batch is committed at once, every command done at once. */
#include "replay/replay.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/state.h"
#include "wire/codec.h"
#include "wire/names.h"

struct replay {
    struct sc_region *region;
    struct sc_replayed *out;
    struct hp_map digests; /* of images: container's full name → what its host found, borrowed */
    char name[64];         /* of the region */
    uint64_t tag;
    int64_t report_id, session;
    bool leading;
    struct sc_time time;
    struct hp_error *e;
};

static int step(struct replay *x, struct sc_ev *ev)
{
    ev->time = x->time;
    return sc_region_step(x->region, ev, x->e);
}

/* ---- What leaves the core ---- */

static int report(struct replay *x, const char *host, int64_t session, const char *router,
                  Harpoon__Internal__V1__Report *m)
{
    m->region = x->name;
    m->host = (char *)(uintptr_t)host;
    m->session = session;
    m->router = (char *)(uintptr_t)router;
    struct sc_ev ev = {.kind = SC_EV_REPORT, .report = {.message = m, .tag = ++x->tag}};
    return step(x, &ev);
}

static int obey(struct replay *x, const struct sc_message *m)
{
    int code = 0;
    Harpoon__Internal__V1__RouterCommand *c =
        harpoon__internal__v1__router_command__unpack(NULL, m->body->len, m->body->bytes);
    if (!c)
        return hp_fail(x->e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    if (c->body_case == HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_COMMAND) {
        Harpoon__Internal__V1__Report r = HARPOON__INTERNAL__V1__REPORT__INIT;
        Harpoon__Internal__V1__CommandResult result = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
        Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
        const Harpoon__Internal__V1__Command *y = c->command;
        const char *digest = hp_map_get(&x->digests, y->container);
        status.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
        if (digest)
            status.image_digest = (char *)(uintptr_t)digest;
        result.report_id = ++x->report_id;
        result.operation_id = y->operation_id;
        result.uid = y->uid;
        result.generation = y->generation;
        result.epoch = y->epoch;
        result.outcome = HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE;
        result.status = y->verb == HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE ? &status : NULL;
        r.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
        r.result = &result;
        code = report(x, m->host, y->session, m->key, &r);
    }
    harpoon__internal__v1__router_command__free_unpacked(c, NULL);
    return code;
}

static int take_message(struct replay *x, struct sc_message *m)
{
    int code = 0;
    if (m->kind == SC_SEND_COMMAND) {
        code = obey(x, m);
    } else if (m->kind == SC_SEND_EVENT) {
        struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .published = {m->sequence, true}};
        code = step(x, &ev);
    }
    sc_message_free(m);
    return code;
}

static int take_effects(struct replay *x, struct sc_effects *out)
{
    int code = 0;
    for (struct sc_message *m = out->messages.first, *next; m; m = next) {
        next = m->next;
        if (code)
            sc_message_free(m);
        else
            code = take_message(x, m);
    }
    if (out->commit && !code) {
        struct sc_ev ev = {.kind = SC_EV_COMMITTED, .committed = out->commit};
        code = step(x, &ev);
    } else if (out->commit) {
        sc_batch_free(out->commit);
    }
    if (out->lookup && !code) { /* nothing was there before */
        struct sc_ev ev = {.kind = SC_EV_LOOKED_UP, .looked_up = out->lookup};
        code = step(x, &ev);
    } else if (out->lookup) {
        sc_lookup_free(out->lookup);
    }
    if (out->fetch)
        sc_page_free(out->fetch);
    return code;
}

/* Until nothing leaves any more. */
static int settle(struct replay *x)
{
    for (;;) {
        struct sc_effects out = {0};
        int code = sc_region_flush(x->region, x->time, &out, x->e);
        if (!code && !out.messages.first && !out.commit && !out.lookup && !out.fetch) {
            if (sc_region_deadline(x->region) > x->time.now_ms)
                return 0;
            struct sc_ev ev = {.kind = SC_EV_TIMER};
            code = step(x, &ev);
        }
        if (!code)
            code = take_effects(x, &out);
        if (code)
            return code;
    }
}

/* ---- What was asked for ---- */

static int request(struct replay *x, const Harpoon__Internal__V1__Request *asked)
{
    Harpoon__Internal__V1__Request q = *asked;
    char id[33], request_id[40];
    uint8_t digest[32] = {0};
    snprintf(id, sizeof id, "%032" PRIx64, ++x->tag);
    snprintf(request_id, sizeof request_id, "replay-%" PRIu64, x->tag);
    q.operation_id = id;
    q.request_id = request_id;
    q.region = x->name;
    q.principal = (char *)(uintptr_t) "replay";
    q.payload_digest.data = digest;
    q.payload_digest.len = sizeof digest;
    struct sc_ev ev = {
        .kind = SC_EV_REQUEST,
        .request = {.message = (Harpoon__Internal__V1__Request *)(void *)hp_message_clone(&q.base), .tag = x->tag}};
    if (!ev.request.message)
        return hp_fail(x->e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    int code = step(x, &ev);
    return code ? code : settle(x);
}

static const struct sc_container *find(const struct replay *x, const char *name)
{
    return sc_container_find(x->region, name);
}

static int note_place(struct replay *x, const struct sc_container *c, bool had_image)
{
    struct sc_replayed *out = x->out;
    if ((out->creates & (out->creates - 1)) == 0) { /* a power of two: room for twice as many */
        void *more = realloc(out->places, (size_t)(out->creates ? 2 * out->creates : 1) * sizeof *out->places);
        if (!more)
            return hp_fail(x->e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
        out->places = more;
    }
    snprintf(out->places[out->creates], sizeof *out->places, "%s", c && c->host ? c->host->info.name : "");
    out->creates++;
    out->refused += !c;
    out->placed += c && c->host;
    out->with_image += had_image;
    return 0;
}

static int create(struct replay *x, const Harpoon__V1__Container *m, const struct hp_container_name *n)
{
    char parent[160];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest r = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container body = HARPOON__V1__CONTAINER__INIT;
    snprintf(parent, sizeof parent, "projects/%s/regions/%s", n->project, n->region);
    body.labels = m->labels;
    body.n_labels = m->n_labels;
    body.spec = m->spec;
    r.parent = parent;
    r.container_id = (char *)(uintptr_t)n->container;
    r.container = &body;
    q.project = (char *)(uintptr_t)n->project;
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE;
    q.create = &r;
    /* Who has the image, before this one is there. */
    const struct sc_image *image = sc_images_find(&x->region->images, m->spec->image);
    size_t count = image ? image->count : 0;
    uint32_t *hosts = count ? malloc(count * sizeof *hosts) : NULL;
    if (count && !hosts)
        return hp_fail(x->e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    if (hosts)
        memcpy(hosts, image->hosts, count * sizeof *hosts);
    int code = request(x, &q);
    const struct sc_container *c = code ? NULL : find(x, m->name);
    if (!code)
        code = note_place(x, c, c && c->host && hosts && sc_image_on(hosts, count, c->host->info.at));
    free(hosts);
    return code;
}

static int erase(struct replay *x, const struct sc_container *c, const struct hp_container_name *n)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__DeleteContainerRequest r = HARPOON__V1__DELETE_CONTAINER_REQUEST__INIT;
    r.name = (char *)c->name;
    q.project = (char *)(uintptr_t)n->project;
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE;
    q.delete_ = &r;
    x->out->deletes++;
    return request(x, &q);
}

static int resize(struct replay *x, const struct sc_container *c, const Harpoon__V1__Resources *to,
                  const struct hp_container_name *n)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__ResizeContainerRequest r = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
    int64_t before = c->generation;
    r.name = (char *)c->name;
    r.resources = (Harpoon__V1__Resources *)(uintptr_t)to;
    q.project = (char *)(uintptr_t)n->project;
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE;
    q.resize = &r;
    int code = request(x, &q);
    x->out->resizes++;
    x->out->resizes_refused += !code && c->generation == before;
    return code;
}

static bool same_size(const Harpoon__V1__Resources *a, const Harpoon__V1__Resources *b)
{
    return a->cpu_millis == b->cpu_millis && a->memory_bytes == b->memory_bytes && a->disk_bytes == b->disk_bytes &&
           a->network_bps == b->network_bps;
}

static int of_container(struct replay *x, const char *type, const Harpoon__V1__Container *m)
{
    struct hp_container_name n;
    if (hp_container_name_parse("name", m->name, &n, x->e))
        return HP_EINVAL;
    if (!m->spec || !m->spec->resources)
        return hp_fail(x->e, HP_EINVAL, "container \"%s\" has no spec with resources", m->name);
    const struct sc_container *c = find(x, m->name);
    bool ends = !strcmp(type, "harpoon.container.deleted") || !strcmp(type, "harpoon.container.deleting");
    if (ends)
        return c && !c->deleting ? erase(x, c, &n) : 0;
    if (!c)
        return create(x, m, &n);
    return same_size(sc_body(c)->spec->resources, m->spec->resources) ? 0 : resize(x, c, m->spec->resources, &n);
}

/* ---- What hosts did ---- */

static int attach(struct replay *x, const Harpoon__V1__Host *m, const char *name)
{
    Harpoon__Internal__V1__Report r = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest digest = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    const struct sc_host *h = hp_map_get(&x->region->hosts, name);
    if (h) /* it has what it is thought to have */
        sc_inventory_digest(h, &digest.count, &digest.digest);
    hello.session = h && h->pb->session >= x->session ? h->pb->session + 1 : x->session + 1;
    x->session = hello.session;
    hello.zone = m->zone;
    hello.rack = m->rack;
    hello.labels = (Harpoon__Internal__V1__AgentHello__LabelsEntry **)(void *)m->labels; /* entries of the same shape */
    hello.n_labels = m->n_labels;
    hello.taints = m->taints;
    hello.n_taints = m->n_taints;
    hello.allocatable = m->allocatable;
    hello.facts = m->facts;
    hello.digest = &digest;
    r.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    r.attach = &hello;
    int code = report(x, name, hello.session, "replay", &r);
    return code ? code : settle(x);
}

static int detach(struct replay *x, const char *name)
{
    Harpoon__Internal__V1__Report r = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Detach d = HARPOON__INTERNAL__V1__DETACH__INIT;
    const struct sc_host *h = hp_map_get(&x->region->hosts, name);
    if (!h || !sc_host_attached(h))
        return 0;
    d.reason = (char *)(uintptr_t) "goodbye";
    r.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_DETACH;
    r.detach = &d;
    int code = report(x, name, h->pb->session, h->pb->router, &r);
    return code ? code : settle(x);
}

static int cordon(struct replay *x, const Harpoon__V1__Host *m, bool on)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CordonHostRequest c = HARPOON__V1__CORDON_HOST_REQUEST__INIT;
    Harpoon__V1__UncordonHostRequest u = HARPOON__V1__UNCORDON_HOST_REQUEST__INIT;
    c.name = u.name = m->name;
    q.payload_case =
        on ? HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON : HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UNCORDON;
    if (on)
        q.cordon = &c;
    else
        q.uncordon = &u;
    return request(x, &q);
}

static int of_host(struct replay *x, const char *type, const Harpoon__V1__Host *m)
{
    struct hp_host_name n;
    if (hp_host_name_parse("name", m->name, &n, x->e))
        return HP_EINVAL;
    const struct sc_host *h = hp_map_get(&x->region->hosts, n.host);
    bool in_service = *m->router && (m->state == HARPOON__V1__HOST_STATE__HOST_STATE_READY ||
                                     m->state == HARPOON__V1__HOST_STATE__HOST_STATE_DRAINING);
    int code = 0;
    if (in_service && (!h || !sc_host_attached(h) || !strcmp(type, "harpoon.host.attached")))
        code = attach(x, m, n.host);
    else if (!in_service)
        code = detach(x, n.host);
    h = hp_map_get(&x->region->hosts, n.host);
    bool out = m->cordoned || m->draining;
    return !code && h && out != (h->pb->cordoned || h->pb->draining) ? cordon(x, m, out) : code;
}

/* ---- What there was at first ---- */

static int load_host(struct replay *x, Harpoon__V1__Host *m)
{
    struct hp_host_name n;
    if (hp_host_name_parse("name", m->name, &n, x->e))
        return HP_EINVAL;
    size_t len = harpoon__v1__host__get_packed_size(m);
    uint8_t *packed = malloc(len + 1);
    if (!packed)
        return hp_fail(x->e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    harpoon__v1__host__pack(m, packed);
    int code = sc_region_load_host(x->region, n.host, packed, len, x->e);
    free(packed);
    return code;
}

static int load_container(struct replay *x, Harpoon__V1__Container *c)
{
    Harpoon__Internal__V1__ContainerRecord m = HARPOON__INTERNAL__V1__CONTAINER_RECORD__INIT;
    if (!c->spec || !c->spec->resources || !c->status || !*c->status->host)
        return hp_fail(x->e, HP_EINVAL, "container \"%s\" has no resources, or no host: what waits is to be left out",
                       c->name);
    m.container = c;
    m.claim = c->spec->resources;
    m.reported_generation = c->generation;
    m.reported_desired = c->spec->desired_state;
    m.reported_state = c->status->state;
    size_t len = harpoon__internal__v1__container_record__get_packed_size(&m);
    uint8_t *packed = malloc(len + 1);
    if (!packed)
        return hp_fail(x->e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    harpoon__internal__v1__container_record__pack(&m, packed);
    int code = sc_region_load_container(x->region, c->name, packed, len, x->e);
    free(packed);
    return code;
}

static int lead(struct replay *x)
{
    struct sc_ev ev = {.kind = SC_EV_LEAD};
    x->leading = true;
    int code = step(x, &ev);
    return code ? code : settle(x);
}

static int take(struct replay *x, const struct sc_recorded *r)
{
    if (x->leading && !r->event)
        return hp_fail(x->e, HP_EINVAL, "a host or a container after an event");
    if (r->host)
        return load_host(x, r->host);
    if (r->container)
        return load_container(x, r->container);
    int code = x->leading ? 0 : lead(x);
    if (code)
        return code;
    if (r->event->data_case == HARPOON__V1__EVENT__DATA_CONTAINER_DATA)
        return of_container(x, r->event->type, r->event->container_data);
    if (r->event->data_case == HARPOON__V1__EVENT__DATA_HOST_DATA)
        return of_host(x, r->event->type, r->event->host_data);
    return 0;
}

/* ---- What has come of it ---- */

static double share(int64_t used, int64_t limit)
{
    return limit > 0 ? 100.0 * (double)used / (double)limit : 0;
}

static void measure(const struct replay *x)
{
    const struct sc_region *r = x->region;
    struct sc_replayed *out = x->out;
    double sum = 0, squares = 0;
    out->waiting = (int)r->pending_count;
    for (size_t i = 0; i < r->slot_count; i++) {
        const struct sc_slot_info *info = r->slots[i].info;
        if (!r->slots[i].ready || r->slots[i].cordoned)
            continue;
        double cpu = share(info->claimed.cpu_millis, info->limit.cpu_millis);
        double memory = share(info->claimed.memory_bytes, info->limit.memory_bytes);
        double use = cpu > memory ? cpu : memory;
        int primaries = r->topology.levels[SC_LEVEL_HOST].items[i].primaries;
        sum += use;
        squares += use * use;
        out->fullest = use > out->fullest ? use : out->fullest;
        out->primaries_most = !out->hosts || primaries > out->primaries_most ? primaries : out->primaries_most;
        out->primaries_least = !out->hosts || primaries < out->primaries_least ? primaries : out->primaries_least;
        out->hosts++;
        out->hosts_empty += info->host->container_count == 0;
    }
    double mean = out->hosts ? sum / out->hosts : 0, variance = out->hosts ? squares / out->hosts - mean * mean : 0;
    out->imbalance = variance > 0 ? sqrt(variance) : 0;
}

/* The region that it is of, and what hosts will say of images. */
static int survey(struct replay *x, const struct sc_recording *in)
{
    struct hp_host_name n;
    struct hp_error ignored = {0};
    for (size_t i = 0; i < in->count; i++) {
        const struct sc_recorded *r = &in->items[i];
        const Harpoon__V1__Container *c = r->event && r->event->data_case == HARPOON__V1__EVENT__DATA_CONTAINER_DATA
                                              ? r->event->container_data
                                              : NULL;
        const Harpoon__V1__Host *h =
            r->event && r->event->data_case == HARPOON__V1__EVENT__DATA_HOST_DATA ? r->event->host_data : r->host;
        if (h && !*x->name && !hp_host_name_parse("name", h->name, &n, &ignored))
            snprintf(x->name, sizeof x->name, "%s", n.region);
        if (c && c->status && *c->status->image_digest &&
            hp_map_put(&x->digests, c->name, c->status->image_digest, NULL))
            return hp_fail(x->e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    }
    return *x->name ? 0 : hp_fail(x->e, HP_EINVAL, "there is no host");
}

int sc_replay_run(const struct sc_recording *in, const struct sc_region_config *config, struct sc_replayed *ret,
                  struct hp_error *e)
{
    struct replay x = {.out = ret, .e = e, .time = {1000, 1700000000000000000}};
    *ret = (struct sc_replayed){0};
    hp_map_init(&x.digests, SC_RECORDING_MAX, 1);
    int code = survey(&x, in);
    if (!code && (code = sc_region_new(config, x.name, 1, 1, &x.region)))
        code = hp_fail(e, code, "%s", hp_strerror(code));
    if (!code)
        sc_region_load_known_done(x.region, true);
    for (size_t i = 0; i < in->count && !code; i++)
        if ((code = take(&x, &in->items[i])))
            code = hp_wrap(e, "object %zu", i + 1);
    if (!code && !x.leading)
        code = lead(&x);
    if (!code)
        measure(&x);
    sc_region_free(x.region);
    hp_map_done(&x.digests);
    return code;
}
