/* stray.c — containers that hosts have and the record does not know: they stay in quarantine until somebody decides, and may be adopted.
 *
 * They are found by inventories, kept with their host's row, hold their names against creates, and go when their host no longer has them. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/names.h"

struct sc_stray *sc_stray_find(const struct sc_host *h, const char *uid)
{
    for (struct sc_list *l = h->strays.next; l != &h->strays; l = l->next) {
        struct sc_stray *s = SC_OWNER(l, struct sc_stray, on_host);
        if (!strcmp(s->uid, uid))
            return s;
    }
    return NULL;
}

const struct sc_stray *sc_stray_named(const struct sc_region *r, const char *name)
{
    for (struct sc_list *l = r->strays.next; l != &r->strays; l = l->next) {
        const struct sc_stray *s = SC_OWNER(l, struct sc_stray, link);
        if (!strcmp(s->name, name))
            return s;
    }
    return NULL;
}

bool sc_stray_bars(struct sc_region *r, struct sc_operation *op)
{
    const struct sc_stray *s = sc_stray_named(r, op->target);
    assert(sc_operation_places(op));
    if (!s)
        return false;
    sc_operation_abort(
        r, op, HARPOON__V1__STAGE__STAGE_FAILED,
        hp_status_new(HP_CODE_ALREADY_EXISTS, "CONTAINER_QUARANTINED",
                      "host \"%s\" has it already (uid %s), under quarantine: delete it, then adopt that",
                      s->host->info.name, s->uid));
    return true;
}

static void drop_spec(struct sc_stray *s)
{
    if (s->spec)
        harpoon__v1__container_spec__free_unpacked(s->spec, NULL);
    s->spec = NULL;
    s->host->stray_bytes -= s->spec_bytes;
    s->spec_bytes = 0;
}

void sc_stray_drop(struct sc_region *r, struct sc_stray *s)
{
    sc_host_dirty(r, s->host, true);
    drop_spec(s);
    s->host->stray_count--;
    r->stray_count--;
    sc_list_remove(&s->on_host);
    sc_list_remove(&s->link);
    free(s->name);
    free(s);
}

void sc_stray_drop_all(struct sc_region *r, struct sc_host *h)
{
    while (!sc_list_empty(&h->strays))
        sc_stray_drop(r, SC_OWNER(h->strays.next, struct sc_stray, on_host));
}

void sc_stray_free_all(struct sc_region *r)
{
    while (!sc_list_empty(&r->strays)) {
        struct sc_stray *s = SC_OWNER(r->strays.next, struct sc_stray, link);
        drop_spec(s);
        sc_list_remove(&s->on_host);
        sc_list_remove(&s->link);
        free(s->name);
        free(s);
    }
}

static struct sc_stray *add(struct sc_region *r, struct sc_host *h, const char *uid, const char *name)
{
    if (h->stray_count >= SC_STRAYS_MAX)
        return NULL; /* more than a host can have */
    struct sc_stray *s = sc_alloc(r, sizeof *s);
    char *copy = sc_strdup(r, name);
    if (!s || !copy) {
        free(s);
        free(copy);
        return NULL;
    }
    s->host = h;
    s->name = copy;
    strcpy(s->uid, uid);
    sc_list_append(&h->strays, &s->on_host);
    sc_list_append(&r->strays, &s->link);
    h->stray_count++;
    r->stray_count++;
    return s;
}

/* A spec that cannot be read, or that there is no room for, is not known. */
static void set_spec(struct sc_region *r, struct sc_stray *s, const ProtobufCBinaryData *packed)
{
    drop_spec(s);
    if (!packed->len || s->host->stray_bytes + packed->len > SC_STRAY_BYTES_MAX)
        return;
    s->spec = sc_pb_unpack(r, &harpoon__v1__container_spec__descriptor, packed->data, packed->len);
    if (!s->spec)
        return;
    s->spec_bytes = packed->len;
    s->host->stray_bytes += packed->len;
}

bool sc_stray_take(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryItem *x)
{
    assert(strlen(x->uid) == HP_UID_LEN && !sc_container_of(r, x->uid));
    struct sc_stray *s = sc_stray_find(h, x->uid);
    int state = x->status ? (int)x->status->state : 0;
    bool fresh = !s;
    if (fresh && !(s = add(r, h, x->uid, strlen(x->container) <= HP_NAME_MAX ? x->container : "")))
        return false;
    if (fresh || s->generation != x->generation || s->state != state)
        sc_host_dirty(r, h, true);
    if (s->generation != x->generation)
        s->asked = false;
    s->generation = x->generation;
    s->restart_serial = x->restart_serial;
    s->state = state;
    s->seen_inventory = h->inventory_id;
    if (h->inventory_specs && !s->asked) {
        s->asked = true;
        set_spec(r, s, &x->spec);
        sc_host_dirty(r, h, true);
    }
    h->specs_wanted |= !s->asked;
    return fresh;
}

void sc_stray_sweep(struct sc_region *r, struct sc_host *h)
{
    for (struct sc_list *l = h->strays.next, *next; l != &h->strays; l = next) {
        struct sc_stray *s = SC_OWNER(l, struct sc_stray, on_host);
        next = l->next;
        if (s->seen_inventory != h->inventory_id)
            sc_stray_drop(r, s);
    }
}

/* ---- The host's row ---- */

struct sc_blob *sc_stray_pack_host(struct sc_region *r, struct sc_host *h, Harpoon__V1__Host *m)
{
    typedef Harpoon__V1__QuarantinedContainer row_t;
    size_t n = h->stray_count, i = 0;
    if (!n)
        return sc_blob_pack(r, &m->base);
    row_t *rows = sc_alloc(r, n * (sizeof *rows + sizeof(row_t *)));
    if (!rows)
        return NULL;
    row_t **at = (row_t **)(void *)(rows + n);
    for (struct sc_list *l = h->strays.next; l != &h->strays; l = l->next, i++) {
        struct sc_stray *s = SC_OWNER(l, struct sc_stray, on_host);
        assert(i < n);
        harpoon__v1__quarantined_container__init(&rows[i]);
        rows[i].name = s->name;
        rows[i].uid = s->uid;
        rows[i].generation = s->generation;
        rows[i].spec = s->spec;
        rows[i].state = (Harpoon__V1__ContainerState)s->state;
        rows[i].restart_serial = s->restart_serial;
        at[i] = &rows[i];
    }
    m->quarantined = at;
    m->n_quarantined = n;
    struct sc_blob *b = sc_blob_pack(r, &m->base);
    m->quarantined = NULL;
    m->n_quarantined = 0;
    free(rows);
    return b;
}

void sc_stray_load(struct sc_region *r, struct sc_host *h, const Harpoon__V1__Host *m)
{
    for (size_t i = 0; i < m->n_quarantined; i++) {
        Harpoon__V1__QuarantinedContainer *x = m->quarantined[i];
        struct sc_stray *s = strlen(x->uid) == HP_UID_LEN ? add(r, h, x->uid, x->name) : NULL;
        if (s) {
            s->generation = x->generation;
            s->restart_serial = x->restart_serial;
            s->state = x->state;
            s->asked = true;
            s->spec = x->spec;
            s->spec_bytes = x->spec ? harpoon__v1__container_spec__get_packed_size(x->spec) : 0;
            h->stray_bytes += s->spec_bytes;
            x->spec = NULL;
        }
    }
}

/* ---- Adopting ---- */

static Google__Rpc__Status *refuse(int code, const char *reason, const struct sc_stray *s, const char *text)
{
    return hp_status_add_metadata(hp_status_new(code, reason, "container \"%s\" (uid %s) on host \"%s\" %s", s->name,
                                                s->uid, s->host->info.name, text),
                                  "container", s->name);
}

static Google__Rpc__Status *check_room(const struct sc_region *r, const struct sc_stray *s, const char *project)
{
    struct sc_storage_item needs[SC_STORAGE_NEEDS_MAX];
    const struct sc_query volumes = {.storage = needs, .storage_count = sc_storage_needs(s->spec, needs)};
    struct sc_res need = sc_spec_res(s->spec), with_volumes = need;
    const struct sc_project *p = hp_map_get(&r->projects, project);
    Google__Rpc__Status *e = sc_resources_check(s->spec->resources, true);
    with_volumes.disk_bytes += sc_storage_total(s->spec);
    if (!e)
        e = sc_storage_wrong(s->spec);
    if (e || (p && (e = sc_quota_check(p, &with_volumes, 1))))
        return e;
    enum sc_filter f = sc_slot_check_room(sc_host_slot(s->host), &need);
    if (f == SC_FITS && sc_slot_storage_lacks(sc_host_slot(s->host), &volumes, NULL, NULL))
        f = SC_FILTER_STORAGE;
    if (f == SC_FITS)
        return NULL;
    return hp_status_add_metadata(hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "HOST_FULL",
                                                "host \"%s\" has no room left for it: %s", s->host->info.name,
                                                sc_filter_name(f)),
                                  "filter", sc_filter_name(f));
}

static Google__Rpc__Status *check(const struct sc_region *r, const struct sc_stray *s, struct hp_container_name *ret)
{
    if (hp_container_name_parse("name", s->name, ret, NULL) || strcmp(ret->region, r->name) != 0)
        return refuse(HP_CODE_FAILED_PRECONDITION, "NAME_UNUSABLE", s, "has no name of this region");
    if (!s->spec || !s->spec->resources)
        return refuse(HP_CODE_FAILED_PRECONDITION, "SPEC_UNKNOWN", s,
                      "cannot be adopted: the host does not know what was asked for");
    if (sc_container_find(r, s->name))
        return refuse(HP_CODE_ALREADY_EXISTS, "CONTAINER_EXISTS", s,
                      "cannot be adopted while the record has another of this name: delete that first");
    if (r->containers.count >= r->config.containers_max)
        return refuse(HP_CODE_RESOURCE_EXHAUSTED, "REGION_FULL", s, "cannot be adopted: the region is full");
    return check_room(r, s, ret->project);
}

static Harpoon__V1__Container *new_body(struct sc_region *r, const struct sc_stray *s)
{
    Google__Protobuf__Timestamp now;
    Harpoon__V1__Container m = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
    sc_timestamp(&now, r->time.wall_ns);
    m.name = s->name;
    m.uid = (char *)s->uid;
    m.generation = s->generation > 0 ? s->generation : 1;
    m.spec = s->spec;
    m.status = &status;
    status.state = (Harpoon__V1__ContainerState)s->state;
    m.create_time = m.update_time = &now;
    return sc_pb_clone(r, &m.base);
}

static void adopt(struct sc_region *r, struct sc_stray *s, struct sc_operation *op, const char *project)
{
    struct sc_host *h = s->host;
    struct sc_project *p = sc_project_get(r, project);
    Harpoon__V1__Container *body = p ? new_body(r, s) : NULL;
    struct sc_container *c = body ? sc_container_new(r, p, body) : NULL;
    if (!c)
        return;
    sc_container_join(r, c);
    struct sc_res need = sc_spec_res(sc_body(c)->spec);
    sc_container_claim(r, c, &need);
    sc_container_assign(r, c, h);
    c->restart_serial = s->restart_serial;
    c->seen_inventory = s->seen_inventory;
    memcpy(c->operation_id, op->id, sizeof c->operation_id);
    sc_container_bump(r, c); /* a command that the host has not had yet takes it out of quarantine */
    sc_container_sync(r, c, true);
    strcpy(op->host, h->info.name);
    strcpy(op->uid, s->uid);
    op->generation = c->generation;
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    sc_container_event(r, c, "adopted", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, NULL);
    sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
    sc_stray_drop(r, s);
    sc_container_next(r, c);
}

Google__Rpc__Status *sc_adopt_decide(struct sc_region *r, struct sc_operation *op,
                                     const Harpoon__Internal__V1__Request *q, bool dry_run)
{
    struct hp_container_name n;
    const char *slash = strrchr(op->target, '/');
    const struct sc_host *h = slash ? hp_map_get(&r->hosts, slash + 1) : NULL;
    if (!h)
        return hp_status_add_metadata(
            hp_status_new(HP_CODE_NOT_FOUND, "HOST_NOT_FOUND", "host \"%s\" does not exist", op->target), "host",
            op->target);
    struct sc_stray *s = sc_stray_find(h, q->adopt->uid);
    if (!s)
        return hp_status_new(HP_CODE_NOT_FOUND, "CONTAINER_NOT_QUARANTINED",
                             "host \"%s\" has no container with uid \"%.64s\" under quarantine", op->target,
                             q->adopt->uid);
    Google__Rpc__Status *e = check(r, s, &n);
    if (!e && !dry_run)
        adopt(r, s, op, n.project);
    return e;
}
