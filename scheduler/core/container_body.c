/* container_body.c — what is known of a container, in little memory.
 *
 * A container on which nothing is under way is at rest: of its body, what is likely to be the same for others of its kind (labels, spec, image, limits, state) is packed, kept once for all that
 * have it (share.h), and counted; what is its own (process, addresses, times) is packed apart. Its name, uid, generation, claim, place and what its host's digest counts stay in struct sc_container,
 * so that hosts attach, digests are compared and places are found without a look into the body. Whoever asks for more opens it (sc_open); what is under way keeps it open, and the last
 * few stay open for a while. At the end of a flush the others are laid to rest again.
 *
 *   new, loaded ──▶ open ──▶ at rest: nothing under way, nothing to be written, and too many are open
 *                    ▲          │ sc_open, sc_body
 *                    └──────────┘
 *
 * tests/unit/scheduler_memory_test.c holds the limit. */
#include <stdlib.h>
#include <string.h>

#include "core/container_own.h"
#include "core/containers.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/codec.h"

enum { TRIES = 64 }; /* looked at for rest in one flush, on top of twice as many as were opened since */

/* ---- Open ---- */

/* Takes `body`; NULL: no memory. */
static struct sc_open *open_make(Harpoon__V1__Container *body)
{
    struct sc_open *o = body ? calloc(1, sizeof *o) : NULL;
    if (!o) {
        if (body)
            harpoon__v1__container__free_unpacked(body, NULL);
        return NULL;
    }
    sc_list_init(&o->link);
    sc_list_init(&o->dirty_link);
    o->flight_timer.kind = SC_TIMER_FLIGHT;
    o->pb = body;
    return o;
}

static void open_free(struct sc_open *o)
{
    if (!o)
        return;
    o->pb->name = o->pb->uid = (char *)protobuf_c_empty_string; /* the container's */
    harpoon__v1__container__free_unpacked(o->pb, NULL);
    if (o->confirmed)
        harpoon__internal__v1__container_base__free_unpacked(o->confirmed, NULL);
    sc_list_remove(&o->dirty_link);
    sc_list_remove(&o->link);
    free(o);
}

static void adopt(struct sc_container *c, struct sc_open *o)
{
    assert(!c->open);
    o->container = c;
    o->pb->name = c->name;
    o->pb->uid = c->uid;
    c->open = o;
    sc_list_append(&c->region->opened, &o->link);
    c->region->opened_count++;
    c->region->opened_since++;
}

static void free_string(char *s)
{
    if (s != (char *)protobuf_c_empty_string)
        free(s);
}

int sc_open_new(struct sc_container *c, Harpoon__V1__Container *body)
{
    struct sc_open *o = open_make(body);
    if (!o)
        return HP_ENOMEM;
    free_string(o->pb->name);
    free_string(o->pb->uid);
    adopt(c, o);
    return 0;
}

static void etag_format(const struct sc_container *c, char *out, size_t size)
{
    snprintf(out, size, "%" PRId64 "-%.8s", c->generation, c->uid);
}

static Harpoon__V1__Container *unpack_common(const struct sc_container *c)
{
    const struct sc_share *x = c->common;
    assert(x->len >= sizeof(struct sc_traits));
    return harpoon__v1__container__unpack(NULL, x->len - sizeof(struct sc_traits), x->bytes + sizeof(struct sc_traits));
}

/* The whole body, on the heap; NULL: no memory. */
static Harpoon__V1__Container *unpack(const struct sc_container *c)
{
    char etag[64];
    Harpoon__V1__Container *body = unpack_common(c);
    char *host = c->host ? strdup(c->host->full_name) : NULL, *tag = NULL;
    bool good = body && (!c->host || host) && sc_own_unpack(c->own, body, c->etag_own);
    if (good && !c->etag_own) {
        etag_format(c, etag, sizeof etag);
        tag = strdup(etag);
    }
    if (!good || (!c->etag_own && !tag)) {
        if (body)
            harpoon__v1__container__free_unpacked(body, NULL);
        free(host);
        return NULL;
    }
    if (host)
        body->status->host = host;
    if (tag)
        body->etag = tag;
    return body;
}

static void rest_drop(struct sc_container *c)
{
    sc_share_give(&c->region->shares, c->common);
    free(c->own);
    c->common = NULL;
    c->own = NULL;
}

struct sc_open *sc_open_again(struct sc_container *c)
{
    struct sc_region *r = c->region;
    assert(!c->open && c->common && c->own);
    /* Once there was no memory, there is none: what was begun with the one must not go on with the other. */
    struct sc_open *o = r->failed ? NULL : open_make(unpack(c));
    if (!o) {
        sc_fail(r, HP_ENOMEM);
        return r->spare;
    }
    o->traits = *sc_traits(c);
    rest_drop(c);
    adopt(c, o);
    return o;
}

Harpoon__V1__Container *sc_body_told(const struct sc_container *c)
{
    Harpoon__V1__Container *pb = sc_body(c);
    pb->generation = c->generation;
    return pb;
}

void sc_confirmed_set(const struct sc_container *c, Harpoon__Internal__V1__ContainerBase *base)
{
    if (!base && !c->open)
        return;
    struct sc_open *o = sc_open(c);
    if (o->confirmed)
        harpoon__internal__v1__container_base__free_unpacked(o->confirmed, NULL);
    o->confirmed = base;
}

void sc_flight_untimed(struct sc_region *r, const struct sc_container *c)
{
    if (c->open)
        sc_timer_cancel(&r->timers, &c->open->flight_timer);
}

/* ---- At rest ---- */

static bool may_rest(const struct sc_container *c)
{
    const struct sc_open *o = c->open;
    return !c->dirty && sc_list_empty(&c->queue) && !c->delete_op && c->flight == SC_WANT_NOTHING && !o->confirmed &&
           !o->flight_timer.place && !o->restored_generation;
}

/* What it is likely to have in common with others, behind its traits. */
static struct sc_share *pack_common(const struct sc_container *c)
{
    struct hp_packing p;
    Harpoon__V1__Container common = *c->open->pb;
    Harpoon__V1__ContainerStatus status = *common.status;
    sc_own_strip(&common, &status);
    common.name = common.uid = status.host = (char *)protobuf_c_empty_string;
    common.generation = 0;
    common.status = &status;
    hp_packing_init(&p, &common.base);
    uint8_t *bytes = malloc(sizeof(struct sc_traits) + p.len);
    if (!bytes)
        return NULL;
    sc_victims_trait(c, &c->open->traits);
    memcpy(bytes, &c->open->traits, sizeof(struct sc_traits));
    hp_packing_write(&p, bytes + sizeof(struct sc_traits));
    struct sc_share *x = sc_share_take(&c->region->shares, bytes, sizeof(struct sc_traits) + p.len);
    free(bytes);
    return x;
}

void sc_container_rest(struct sc_container *c)
{
    char etag[64];
    struct sc_region *r = c->region;
    struct sc_open *o = c->open;
    if (!o || !may_rest(c))
        return;
    assert(!strcmp(o->pb->status->host, c->host ? c->host->full_name : ""));
    etag_format(c, etag, sizeof etag);
    c->etag_own = strcmp(o->pb->etag, etag) != 0;
    c->common = pack_common(c);
    c->own = sc_own_pack(o->pb, c->etag_own);
    if (!c->common || !c->own) {
        rest_drop(c); /* it stays open */
        return;
    }
    open_free(o);
    c->open = NULL;
    r->opened_count--;
}

void sc_containers_rest(struct sc_region *r)
{
    size_t tries = 2 * r->opened_since + TRIES;
    tries = tries < r->opened_count ? tries : r->opened_count;
    for (; tries > 0 && r->opened_count > r->config.open_max; tries--) {
        struct sc_open *o = SC_OWNER(r->opened.next, struct sc_open, link);
        struct sc_container *c = o->container;
        sc_container_rest(c);
        if (!c->open)
            continue;
        sc_list_remove(&o->link); /* its turn comes again */
        sc_list_append(&r->opened, &o->link);
    }
    r->opened_since = 0;
}

Harpoon__V1__Container *sc_body_peek(const struct sc_container *c)
{
    assert(!c->open);
    return unpack_common(c);
}

/* ---- All of them ---- */

void sc_body_free(struct sc_container *c)
{
    if (c->open) {
        open_free(c->open);
        c->open = NULL;
        c->region->opened_count--;
    }
    rest_drop(c);
}

static struct sc_open *spare_new(void)
{
    Harpoon__V1__Container m = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
    Harpoon__V1__PlacementSpec placement = HARPOON__V1__PLACEMENT_SPEC__INIT;
    m.spec = &spec;
    m.status = &status;
    spec.placement = &placement;
    return open_make((Harpoon__V1__Container *)(void *)hp_message_clone(&m.base));
}

int sc_containers_init(struct sc_region *r)
{
    sc_list_init(&r->all);
    sc_list_init(&r->opened);
    sc_container_map_init(&r->containers, SC_BY_NAME, r->seed);
    sc_container_map_init(&r->uids, SC_BY_UID, r->seed);
    sc_shares_init(&r->shares, r->seed);
    r->spare = spare_new();
    return r->spare ? 0 : HP_ENOMEM;
}

void sc_containers_done(struct sc_region *r)
{
    while (!sc_list_empty(&r->all))
        sc_container_free(SC_OWNER(r->all.next, struct sc_container, order));
    sc_container_map_done(&r->containers);
    sc_container_map_done(&r->uids);
    sc_shares_done(&r->shares);
    open_free(r->spare);
    r->spare = NULL;
}
