/* container.c — containers: what is asked for, what is claimed, where they are, and what is recorded of them. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/network.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/digest.h"
#include "wire/names.h"

struct sc_container *sc_container_new(struct sc_region *r, struct sc_project *project, Harpoon__V1__Container *body)
{
    size_t room = strlen(body->name) + 1;
    struct sc_container *c = r->containers.count < r->config.containers_max ? calloc(1, sizeof *c + room) : NULL;
    if (!c) {
        sc_fail(r, HP_ENOMEM);
        harpoon__v1__container__free_unpacked(body, NULL);
        return NULL;
    }
    assert(strlen(body->uid) < sizeof c->uid);
    memcpy(c->name, body->name, room);
    strcpy(c->uid, body->uid);
    c->region = r;
    c->generation = body->generation;
    sc_list_init(&c->on_host);
    sc_list_init(&c->queue);
    sc_list_init(&c->order);
    sc_list_append(&r->all, &c->order);
    if (sc_open_new(c, body) || sc_container_map_add(&r->containers, c) || sc_container_map_add(&r->uids, c)) {
        sc_fail(r, HP_ENOMEM);
        sc_container_free(c);
        return NULL;
    }
    c->open->traits.project = project;
    project->containers++;
    return c;
}

void sc_container_free(struct sc_container *c)
{
    sc_container_map_remove(&c->region->containers, c);
    sc_container_map_remove(&c->region->uids, c);
    sc_body_free(c);
    sc_list_remove(&c->order);
    sc_storage_unref(c->storage);
    free(c);
}

struct sc_container *sc_container_find(const struct sc_region *r, const char *name)
{
    return sc_container_map_find(&r->containers, name);
}

struct sc_container *sc_container_of(const struct sc_region *r, const char *uid)
{
    return sc_container_map_find(&r->uids, uid);
}

void sc_project_leave(struct sc_region *r, struct sc_project *p)
{
    const struct sc_quota none = {0};
    p->containers--;
    assert(p->containers >= 0);
    if (p->containers || memcmp(&p->quota, &none, sizeof none) != 0)
        return;
    hp_map_remove(&r->projects, p->name);
    free(p);
}

void sc_group_leave(struct sc_region *r, struct sc_group *g)
{
    if (!g || --g->containers > 0)
        return;
    hp_map_remove(&r->groups, g->key);
    free(g->members);
    free(g);
}

static void drop_row(struct sc_region *r, const char *uid)
{
    if (r->delete_count == r->delete_room) {
        size_t room = r->delete_room ? 2 * r->delete_room : 64;
        struct sc_uid_row *rows = realloc(r->deletes, room * sizeof *rows);
        if (!rows) {
            sc_fail(r, HP_ENOMEM);
            return;
        }
        r->deletes = rows;
        r->delete_room = room;
    }
    snprintf(r->deletes[r->delete_count++].uid, 27, "%s", uid);
}

void sc_container_drop(struct sc_region *r, struct sc_container *c)
{
    assert(sc_list_empty(&c->queue) && !c->delete_op);
    sc_container_assign(r, c, NULL);
    sc_container_unclaim(r, c);
    const struct sc_traits t = *sc_traits(c);
    sc_project_leave(r, t.project);
    sc_group_leave(r, t.group);
    sc_group_leave(r, t.affine);
    sc_group_leave(r, t.spread);
    sc_group_leave(r, t.gang);
    sc_flight_untimed(r, c);
    drop_row(r, c->uid);
    if (!r->failed)
        sc_container_free(c);
}

void sc_container_dirty(struct sc_region *r, struct sc_container *c)
{
    struct sc_open *o = sc_open(c);
    if (c->dirty || r->failed)
        return;
    c->dirty = true;
    sc_list_append(&r->dirty_containers, &o->dirty_link);
}

void sc_container_sync(struct sc_region *r, struct sc_container *c, bool sync)
{
    if (c->sync == sync)
        return;
    c->sync = sync;
    sc_container_dirty(r, c);
}

void sc_container_event(struct sc_region *r, struct sc_container *c, const char *what, Harpoon__V1__Severity severity,
                        const struct sc_operation *op, const char *message)
{
    char type[64];
    snprintf(type, sizeof type, "container.%s", what);
    sc_event_emit(r, &(struct sc_event_args){
                         .type = type,
                         .subject = c->name,
                         .project = sc_traits(c)->project->name,
                         .host = c->host ? c->host->info.name : NULL,
                         .operation = op ? op->name : NULL,
                         .message = message,
                         .severity = severity,
                         .container_data = sc_body_told(c),
                     });
    sc_container_dirty(r, c);
}

static void touch(struct sc_region *r, struct sc_container *c)
{
    if (!sc_body(c)->update_time) {
        sc_body(c)->update_time = sc_alloc(r, sizeof *sc_body(c)->update_time);
        if (!sc_body(c)->update_time)
            return;
    }
    sc_timestamp(sc_body(c)->update_time, r->time.wall_ns);
    sc_container_dirty(r, c);
}

void sc_container_bump(struct sc_region *r, struct sc_container *c)
{
    char etag[64];
    if (r->restored && !c->seen_inventory && !sc_restored_generation(c))
        sc_open(c)->restored_generation = c->generation;
    c->generation++;
    snprintf(etag, sizeof etag, "%" PRId64 "-%.8s", c->generation, c->uid);
    sc_pb_set(r, &sc_body(c)->etag, etag);
    touch(r, c);
}

void sc_container_renumber(struct sc_region *r, struct sc_container *c)
{
    for (struct sc_list *l = c->queue.next; l != &c->queue; l = l->next) {
        struct sc_operation *op = SC_OWNER(l, struct sc_operation, queue);
        sc_container_bump(r, c);
        op->generation = c->generation;
        sc_operation_dirty(r, op);
    }
}

void sc_container_reborn(struct sc_region *r, struct sc_container *c)
{
    char uid[27];
    assert(!c->host && !c->deleting && !c->cleanup && !c->leaving);
    drop_row(r, c->uid);
    sc_container_map_remove(&r->uids, c);
    sc_uid_make(r, uid);
    strcpy(c->uid, uid);
    if (r->failed || sc_container_map_add(&r->uids, c)) {
        sc_fail(r, HP_ENOMEM);
        return;
    }
    for (struct sc_list *l = c->queue.next; l != &c->queue; l = l->next)
        strcpy(SC_OWNER(l, struct sc_operation, queue)->uid, uid);
    /* What was seen of it was of the one that is gone. */
    Harpoon__V1__ContainerStatus *old = sc_body(c)->status, *fresh = sc_alloc(r, sizeof *fresh);
    if (!fresh)
        return;
    harpoon__v1__container_status__init(fresh);
    sc_body(c)->status = fresh;
    harpoon__v1__container_status__free_unpacked(old, NULL);
    c->seen_inventory = 0;
    sc_container_renumber(r, c);
    sc_container_dirty(r, c);
}

void sc_container_state(struct sc_region *r, struct sc_container *c, int state, const char *message)
{
    sc_body(c)->status->state = (Harpoon__V1__ContainerState)state;
    sc_pb_set(r, &sc_body(c)->status->message, message ? message : "");
    sc_container_dirty(r, c);
}

struct sc_res sc_resources_res(const Harpoon__V1__Resources *x)
{
    return x ? (struct sc_res){x->cpu_millis, x->memory_bytes, x->disk_bytes, x->network_bps} : (struct sc_res){0};
}

struct sc_res sc_spec_res(const Harpoon__V1__ContainerSpec *spec)
{
    struct sc_res res = sc_resources_res(spec ? spec->resources : NULL);
    res.functions = sc_network_wants_function(spec);
    return res;
}

void sc_container_claim(struct sc_region *r, struct sc_container *c, const struct sc_res *claim)
{
    assert(claim->cpu_millis >= 0 && claim->memory_bytes >= 0 && claim->disk_bytes >= 0);
    assert(claim->network_bps >= 0 && claim->functions >= 0);
    struct sc_res old = sc_traits(c)->claim;
    if (!memcmp(&old, claim, sizeof old))
        return;
    sc_res_sub(&sc_traits(c)->project->used, &old);
    sc_res_add(&sc_traits(c)->project->used, claim);
    sc_open(c)->traits.claim = *claim;
    sc_container_dirty(r, c);
    struct sc_operation *head = sc_container_head(c);
    if (head && head->hold)
        sc_hold_resize(r, head, claim);
    if (!c->host)
        return;
    sc_host_claim(r, c->host, &old, claim);
    sc_host_dirty(r, c->host, false);
    if (claim->cpu_millis < old.cpu_millis || claim->memory_bytes < old.memory_bytes ||
        claim->disk_bytes < old.disk_bytes || claim->network_bps < old.network_bps || claim->functions < old.functions)
        sc_pending_freed(r, c->host);
}

void sc_container_unclaim(struct sc_region *r, struct sc_container *c)
{
    assert(!c->host);
    sc_container_claim(r, c, &(struct sc_res){0});
    sc_storage_leave(c);
}

void sc_container_count(struct sc_region *r, const struct sc_container *c, const struct sc_host *host, int delta)
{
    sc_storage_count(host, c->storage, delta);
    const struct sc_res *claim = &sc_traits(c)->claim;
    sc_host_claim(r, host, delta > 0 ? NULL : claim, delta > 0 ? claim : NULL);
}

void sc_container_join(struct sc_region *r, struct sc_container *c)
{
    const Harpoon__V1__PlacementSpec *p = sc_body(c)->spec->placement;
    struct sc_traits *t = &sc_open(c)->traits;
    const char *project = t->project->name;
    sc_storage_join(r, c);
    assert(!t->group && !t->affine && !t->spread && !t->gang && !c->host);
    if (p && *p->anti_affinity_group)
        t->group = sc_group_get(r, "", project, p->anti_affinity_group);
    if (p && *p->affinity_group)
        t->affine = sc_group_get(r, "+", project, p->affinity_group);
    if (p && *p->spread_group)
        t->spread = sc_group_get(r, "=", project, p->spread_group);
    if (p && p->gang && *p->gang->name)
        t->gang = sc_group_get(r, "*", project, p->gang->name);
    struct sc_group *all[] = {t->group, t->affine, t->spread, t->gang};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i])
            all[i]->containers++;
}

static void move_in_groups(struct sc_region *r, const struct sc_traits *t, struct sc_host *host, int delta)
{
    struct sc_group *all[] = {t->group, t->affine, t->gang, t->spread};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i])
            sc_group_move(r, all[i], host, delta);
    if (t->spread)
        sc_pending_skewed(r);
}

void sc_container_try(struct sc_region *r, struct sc_container *c, struct sc_host *host, int delta)
{
    const Harpoon__V1__PlacementSpec *p = sc_body(c)->spec->placement;
    assert(!c->host && (delta == 1 || delta == -1));
    sc_container_count(r, c, host, delta);
    move_in_groups(r, sc_traits(c), host, delta);
    if (p && p->role == HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY)
        sc_places_primaries(r, host, delta);
}

static void count_primary(struct sc_region *r, struct sc_container *c, bool primary)
{
    if (c->primary == primary)
        return;
    c->primary = primary;
    sc_places_primaries(r, c->host, primary ? 1 : -1);
}

void sc_container_role(struct sc_region *r, struct sc_container *c)
{
    const Harpoon__V1__PlacementSpec *p = sc_body(c)->spec ? sc_body(c)->spec->placement : NULL;
    if (c->host)
        count_primary(r, c, p && p->role == HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY);
}

void sc_container_assign(struct sc_region *r, struct sc_container *c, struct sc_host *host)
{
    char name[160] = "";
    if (c->host == host)
        return;
    const struct sc_traits *t = &sc_open(c)->traits;
    if (c->host) {
        struct sc_host *old = c->host;
        count_primary(r, c, false);
        sc_container_count(r, c, old, -1);
        sc_list_remove(&c->on_host);
        old->container_count--;
        move_in_groups(r, t, old, -1);
        sc_host_dirty(r, old, false);
        sc_pending_freed(r, old);
        sc_flight_untimed(r, c);
        c->flight = SC_WANT_NOTHING;
        c->reported_generation = 0;
        c->reported_desired = c->reported_state = 0;
        c->reported_id = 0;
    }
    c->host = host;
    if (host) {
        sc_container_count(r, c, host, 1);
        sc_list_append(&host->containers, &c->on_host);
        host->container_count++;
        move_in_groups(r, t, host, 1);
        sc_container_role(r, c);
        sc_host_dirty(r, host, false);
        snprintf(name, sizeof name, "regions/%s/hosts/%s", r->name, host->info.name);
    }
    sc_pb_set(r, &sc_body(c)->status->host, name);
    sc_container_dirty(r, c);
}

struct sc_operation *sc_container_head(const struct sc_container *c)
{
    return sc_list_empty(&c->queue) ? NULL : SC_OWNER(c->queue.next, struct sc_operation, queue);
}

struct sc_blob *sc_container_pack(struct sc_region *r, struct sc_container *c)
{
    Harpoon__Internal__V1__ContainerRecord m = HARPOON__INTERNAL__V1__CONTAINER_RECORD__INIT;
    Harpoon__V1__Resources claim = HARPOON__V1__RESOURCES__INIT;
    claim.cpu_millis = sc_traits(c)->claim.cpu_millis;
    claim.memory_bytes = sc_traits(c)->claim.memory_bytes;
    claim.disk_bytes = sc_traits(c)->claim.disk_bytes;
    claim.network_bps = sc_traits(c)->claim.network_bps;
    m.container = sc_body_told(c);
    m.restart_serial = c->restart_serial;
    m.operation_id = c->operation_id;
    m.claim = &claim;
    m.claim_functions = (int32_t)sc_traits(c)->claim.functions;
    m.deleting = c->deleting;
    m.confirmed = sc_confirmed(c);
    m.cleanup = c->cleanup;
    m.sync = c->sync;
    m.remove_sent = c->remove_sent;
    m.leaving = c->leaving;
    m.reported_generation = c->reported_generation;
    m.reported_desired = (Harpoon__V1__DesiredState)c->reported_desired;
    m.reported_state = (Harpoon__V1__ContainerState)c->reported_state;
    m.reported_id = c->reported_id;
    m.restored_generation = sc_open(c)->restored_generation;
    return sc_blob_pack(r, &m.base);
}

void sc_uid_make(struct sc_region *r, char uid[27])
{
    char text[256];
    uint8_t hash[HP_SHA256_LEN];
    /* Unique within the record by epoch and count; apart from any other record's (one that was restored, or lost) by the seed. */
    int n = snprintf(text, sizeof text, "harpoon uid %s/%" PRId64 "/%" PRIu64 "/%" PRIx64, r->name, r->epoch,
                     ++r->uid_count, r->seed);
    assert(n > 0 && (size_t)n < sizeof text);
    hp_sha256(hash, text, (size_t)n);
    hp_uid_format(uid, hash);
}
