/* container.c — containers: what is asked for, what is claimed, where they are, and what is recorded of them. */
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
#include "wire/digest.h"
#include "wire/names.h"

struct sc_container *sc_container_new(struct sc_region *r, const char *name, struct sc_project *project)
{
    struct sc_container *c = sc_alloc(r, sizeof *c);
    if (!c)
        return NULL;
    c->region = r;
    c->project = project;
    c->flight_timer.kind = SC_TIMER_FLIGHT;
    sc_list_init(&c->on_host);
    sc_list_init(&c->queue);
    sc_list_init(&c->dirty_link);
    if (hp_map_put(&r->containers, name, c, NULL)) {
        sc_fail(r, HP_ENOMEM);
        free(c);
        return NULL;
    }
    project->containers++;
    return c;
}

void sc_container_free(struct sc_container *c)
{
    if (!c)
        return;
    if (c->pb)
        harpoon__v1__container__free_unpacked(c->pb, NULL);
    if (c->confirmed)
        harpoon__internal__v1__container_base__free_unpacked(c->confirmed, NULL);
    free(c);
}

static void leave_project(struct sc_region *r, struct sc_project *p)
{
    const struct sc_quota none = {0};
    p->containers--;
    assert(p->containers >= 0);
    if (p->containers || memcmp(&p->quota, &none, sizeof none) != 0)
        return;
    hp_map_remove(&r->projects, p->name);
    free(p);
}

static void leave_group(struct sc_region *r, struct sc_group *g)
{
    if (!g || --g->containers > 0)
        return;
    hp_map_remove(&r->groups, g->key);
    free(g->members);
    free(g);
}

void sc_container_drop(struct sc_region *r, struct sc_container *c)
{
    assert(sc_list_empty(&c->queue) && !c->delete_op);
    sc_container_assign(r, c, NULL);
    sc_container_claim(r, c, &(struct sc_res){0});
    leave_project(r, c->project);
    leave_group(r, c->group);
    sc_timer_cancel(&r->timers, &c->flight_timer);
    sc_list_remove(&c->dirty_link);
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
    snprintf(r->deletes[r->delete_count++].uid, 27, "%s", c->pb->uid);
    hp_map_remove(&r->uids, c->pb->uid);
    hp_map_remove(&r->containers, c->pb->name);
    sc_container_free(c);
}

void sc_container_dirty(struct sc_region *r, struct sc_container *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    sc_list_append(&r->dirty_containers, &c->dirty_link);
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
                         .subject = c->pb->name,
                         .project = c->project->name,
                         .host = c->host ? c->host->name : NULL,
                         .operation = op ? op->name : NULL,
                         .message = message,
                         .severity = severity,
                         .container_data = c->pb,
                     });
    sc_container_dirty(r, c);
}

static void touch(struct sc_region *r, struct sc_container *c)
{
    if (!c->pb->update_time) {
        c->pb->update_time = sc_alloc(r, sizeof *c->pb->update_time);
        if (!c->pb->update_time)
            return;
    }
    sc_timestamp(c->pb->update_time, r->time.wall_ns);
    sc_container_dirty(r, c);
}

void sc_container_bump(struct sc_region *r, struct sc_container *c)
{
    char etag[64];
    c->pb->generation++;
    snprintf(etag, sizeof etag, "%" PRId64 "-%.8s", c->pb->generation, c->pb->uid);
    sc_pb_set(r, &c->pb->etag, etag);
    touch(r, c);
}

void sc_container_state(struct sc_region *r, struct sc_container *c, int state, const char *message)
{
    c->pb->status->state = (Harpoon__V1__ContainerState)state;
    sc_pb_set(r, &c->pb->status->message, message ? message : "");
    sc_container_dirty(r, c);
}

struct sc_res sc_spec_res(const Harpoon__V1__ContainerSpec *spec)
{
    const Harpoon__V1__Resources *x = spec ? spec->resources : NULL;
    return x ? (struct sc_res){x->cpu_millis, x->memory_bytes, x->disk_bytes} : (struct sc_res){0};
}

void sc_container_claim(struct sc_region *r, struct sc_container *c, const struct sc_res *claim)
{
    assert(claim->cpu_millis >= 0 && claim->memory_bytes >= 0 && claim->disk_bytes >= 0);
    struct sc_res old = c->claim;
    if (!memcmp(&old, claim, sizeof old))
        return;
    sc_res_sub(&c->project->used, &old);
    sc_res_add(&c->project->used, claim);
    c->claim = *claim;
    sc_container_dirty(r, c);
    if (!c->host)
        return;
    sc_slot_claim(sc_host_slot(c->host), &old, claim);
    sc_host_dirty(r, c->host, false);
    if (claim->cpu_millis < old.cpu_millis || claim->memory_bytes < old.memory_bytes ||
        claim->disk_bytes < old.disk_bytes)
        sc_pending_freed(r, c->host);
}

void sc_container_assign(struct sc_region *r, struct sc_container *c, struct sc_host *host)
{
    char name[160] = "";
    if (c->host == host)
        return;
    if (c->host) {
        struct sc_host *old = c->host;
        sc_slot_claim(sc_host_slot(old), &c->claim, NULL);
        sc_list_remove(&c->on_host);
        old->container_count--;
        if (c->group)
            sc_group_move(r, c->group, old, -1);
        sc_host_dirty(r, old, false);
        sc_pending_freed(r, old);
        sc_timer_cancel(&r->timers, &c->flight_timer);
        c->flight = SC_WANT_NOTHING;
        c->reported_generation = 0;
        c->reported_desired = c->reported_state = 0;
    }
    c->host = host;
    if (host) {
        sc_slot_claim(sc_host_slot(host), NULL, &c->claim);
        sc_list_append(&host->containers, &c->on_host);
        host->container_count++;
        if (c->group)
            sc_group_move(r, c->group, host, 1);
        sc_host_dirty(r, host, false);
        snprintf(name, sizeof name, "regions/%s/hosts/%s", r->name, host->name);
    }
    sc_pb_set(r, &c->pb->status->host, name);
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
    claim.cpu_millis = c->claim.cpu_millis;
    claim.memory_bytes = c->claim.memory_bytes;
    claim.disk_bytes = c->claim.disk_bytes;
    m.container = c->pb;
    m.restart_serial = c->restart_serial;
    m.operation_id = c->operation_id;
    m.claim = &claim;
    m.deleting = c->deleting;
    m.confirmed = c->confirmed;
    m.cleanup = c->cleanup;
    m.sync = c->sync;
    m.remove_sent = c->remove_sent;
    m.reported_generation = c->reported_generation;
    m.reported_desired = (Harpoon__V1__DesiredState)c->reported_desired;
    m.reported_state = (Harpoon__V1__ContainerState)c->reported_state;
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
