/* host_body.c — what is known of a host, in little memory.
 *
 * A fleet has few makes of hosts: zone, labels, taints, sizes and most facts are those of hundreds of others. They are kept once (struct sc_make, found by the digest of their
 * packed form, counted); racks and routers likewise, word by word; images by number (images.h). What is a host's own is in struct sc_host_own.
 * sc_host_dress makes the message whole for the record and for events. tests/unit/scheduler_memory_test.c holds the limit. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/state.h"
#include "wire/digest.h"

/* ---- Words ---- */

/* The kept copy of a word; "" is nobody's. */
static char *word_take(struct sc_region *r, const char *word)
{
    if (!*word)
        return (char *)protobuf_c_empty_string;
    uintptr_t count = (uintptr_t)hp_map_get(&r->words, word);
    if (hp_map_put(&r->words, word, (void *)(count + 1), NULL)) {
        sc_fail(r, HP_ENOMEM);
        return (char *)protobuf_c_empty_string;
    }
    return (char *)hp_map_key(&r->words, word);
}

static void word_give(struct sc_region *r, const char *word)
{
    if (!*word)
        return;
    uintptr_t count = (uintptr_t)hp_map_get(&r->words, word);
    assert(count > 0);
    if (count == 1)
        hp_map_remove(&r->words, word);
    else if (hp_map_put(&r->words, word, (void *)(count - 1), NULL))
        assert(!"a word that is there takes no memory");
}

static void word_set(struct sc_region *r, char **field, const char *word)
{
    const char *old = *field;
    *field = word_take(r, word);
    word_give(r, old);
}

void sc_host_router(struct sc_region *r, struct sc_host *h, const char *router)
{
    word_set(r, &h->pb->router, router);
}

/* ---- Makes ---- */

static void make_give(struct sc_region *r, struct sc_make *x)
{
    if (!x || --x->hosts > 0)
        return;
    hp_map_remove(&r->makes, x->key);
    harpoon__v1__host__free_unpacked(x->pb, NULL);
    sc_storage_unref(x->storage);
    free(x);
}

static struct sc_make *make_new(struct sc_region *r, const char *key, const uint8_t *packed, size_t len)
{
    struct sc_make *x = sc_alloc(r, sizeof *x);
    if (!x)
        return NULL;
    strcpy(x->key, key);
    x->pb = harpoon__v1__host__unpack(NULL, len, packed);
    const struct sc_region_config *config = &r->config;
    if (x->pb &&
        !sc_storage_limits(x->pb->facts, config->storage_overcommits, config->storage_overcommit_count, &x->storage) &&
        !hp_map_put(&r->makes, key, x, NULL))
        return x;
    sc_fail(r, HP_ENOMEM);
    if (x->pb)
        harpoon__v1__host__free_unpacked(x->pb, NULL);
    sc_storage_unref(x->storage);
    free(x);
    return NULL;
}

static struct sc_make *make_take(struct sc_region *r, const Harpoon__V1__Host *common)
{
    uint8_t hash[HP_SHA256_LEN];
    char key[2 * HP_SHA256_LEN + 1];
    size_t len = harpoon__v1__host__get_packed_size(common);
    uint8_t *packed = sc_alloc(r, len ? len : 1);
    if (!packed)
        return NULL;
    harpoon__v1__host__pack(common, packed);
    hp_sha256(hash, packed, len);
    for (int i = 0; i < HP_SHA256_LEN; i++)
        snprintf(key + (ptrdiff_t)2 * i, 3, "%02x", hash[i]);
    struct sc_make *x = hp_map_get(&r->makes, key);
    if (!x)
        x = make_new(r, key, packed, len);
    if (x)
        x->hosts++;
    free(packed);
    return x;
}

/* ---- Facts ---- */

static const char uuid_form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

/* False: it is not one that uuid_write gives back as it is. */
static bool uuid_read(const char *text, uint8_t ret[16])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    if (strlen(text) != sizeof uuid_form - 1)
        return false;
    for (size_t i = 0; uuid_form[i]; i++) {
        const char *digit = strchr(digits, text[i]);
        if (uuid_form[i] == '-' ? text[i] != '-' : !digit)
            return false;
        if (uuid_form[i] == '-')
            continue;
        ret[n / 2] = (uint8_t)(n % 2 ? ret[n / 2] | (digit - digits) : (digit - digits) << 4);
        n++;
    }
    return true;
}

static void uuid_write(const uint8_t uuid[16], char ret[37])
{
    size_t n = 0;
    for (size_t i = 0; uuid_form[i]; i++) {
        uint8_t digit = n % 2 ? uuid[n / 2] & 15 : uuid[n / 2] >> 4;
        ret[i] = uuid_form[i];
        if (ret[i] == '-')
            continue;
        ret[i] = "0123456789abcdef"[digit];
        n++;
    }
    ret[36] = '\0';
}

static void take_boot_id(struct sc_region *r, struct sc_host *h, const Harpoon__V1__HostFacts *facts)
{
    struct sc_host_own *pb = h->pb;
    if (!pb->boot_uuid)
        free(pb->boot.text);
    memset(&pb->boot, 0, sizeof pb->boot);
    pb->boot_uuid = facts && uuid_read(facts->boot_id, pb->boot.uuid);
    if (!pb->boot_uuid)
        pb->boot.text = facts && *facts->boot_id ? sc_strdup(r, facts->boot_id) : NULL;
}

const Harpoon__V1__HostFacts *sc_host_facts(const struct sc_host *h)
{
    return h->make ? h->make->pb->facts : NULL;
}

void sc_host_images(struct sc_region *r, struct sc_host *h, char *const *digests, size_t count)
{
    bool changed;
    if (sc_images_set(&r->images, &h->images, h->info.at, digests, count, &changed))
        sc_fail(r, HP_ENOMEM);
    if (changed)
        sc_host_dirty(r, h, false);
}

void sc_host_image_seen(struct sc_region *r, struct sc_container *c)
{
    const char *digest = sc_body(c)->status->image_digest;
    bool changed;
    if (!c->host || !*digest)
        return;
    if (sc_images_add(&r->images, &c->host->images, c->host->info.at, digest, &changed) ||
        sc_images_learn(&r->images, sc_body(c)->spec->image, digest))
        sc_fail(r, HP_ENOMEM);
    if (changed)
        sc_host_dirty(r, c->host, false);
}

void sc_host_describe(struct sc_region *r, struct sc_host *h, const Harpoon__V1__Host *m)
{
    Harpoon__V1__Host common = HARPOON__V1__HOST__INIT;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    common.zone = m->zone;
    common.labels = m->labels;
    common.n_labels = m->n_labels;
    common.taints = m->taints;
    common.n_taints = m->n_taints;
    common.allocatable = m->allocatable;
    if (m->facts) {
        facts = *m->facts;
        facts.boot_id = (char *)protobuf_c_empty_string;
        facts.images = NULL;
        facts.n_images = 0;
        common.facts = &facts;
    }
    struct sc_make *old = h->make, *fresh = make_take(r, &common);
    if (!fresh)
        return;
    h->make = fresh;
    h->info.pb = fresh->pb;
    sc_storage_describe(r, h);
    make_give(r, old);
    word_set(r, &h->pb->rack, m->rack);
    take_boot_id(r, h, m->facts);
    sc_host_images(r, h, m->facts ? m->facts->images : NULL, m->facts ? m->facts->n_images : 0);
}

/* ---- The whole message ---- */

static uint32_t digest_of(const struct sc_res *claimed, int64_t containers, const int64_t *storage, size_t count)
{
    const int64_t all[] = {claimed->cpu_millis,  claimed->memory_bytes, claimed->disk_bytes,
                           claimed->network_bps, claimed->functions,    containers};
    return (uint32_t)hp_hash(hp_hash(1, all, sizeof all), storage, count * sizeof *storage);
}

/* Of what a row says. */
static uint32_t digest_said(const Harpoon__V1__Host *m)
{
    const Harpoon__V1__Resources *said = m->claimed;
    int64_t storage[HP_STORAGE_CLASSES_MAX];
    size_t count = m->n_storage_claimed < HP_STORAGE_CLASSES_MAX ? m->n_storage_claimed : HP_STORAGE_CLASSES_MAX;
    for (size_t i = 0; i < count; i++)
        storage[i] = m->storage_claimed[i]->size_bytes;
    return digest_of(said ? &(struct sc_res){said->cpu_millis, said->memory_bytes, said->disk_bytes, said->network_bps,
                                             m->network_functions_claimed}
                          : &(struct sc_res){0},
                     m->container_count, storage, count);
}

void sc_host_body_load(struct sc_region *r, struct sc_host *h, Harpoon__V1__Host *from)
{
    struct sc_host_own *pb = h->pb;
    sc_host_describe(r, h, from);
    sc_host_router(r, h, from->router);
    pb->state = (uint8_t)from->state;
    pb->session = from->session;
    pb->cordoned = from->cordoned;
    pb->draining = from->draining;
    pb->recorded = digest_said(from);
    h->attach_ns = sc_timestamp_ns(from->attach_time);
    h->update_ns = sc_timestamp_ns(from->update_time);
    if (from->n_breakers > UINT8_MAX)
        return; /* no row of ours: there are four */
    h->info.breakers = from->breakers;
    h->info.breaker_count = (uint8_t)from->n_breakers;
    from->breakers = NULL;
    from->n_breakers = 0;
}

void sc_host_body_done(struct sc_host *h)
{
    for (size_t i = 0; i < h->info.breaker_count; i++)
        harpoon__v1__breaker__free_unpacked(h->info.breakers[i], NULL);
    free((void *)h->info.breakers);
    if (!h->pb->boot_uuid)
        free(h->pb->boot.text);
    free(h->info.storage_claimed);
    free(h->images.ids);
}

void sc_host_bodies_free(struct sc_region *r)
{
    for (struct hp_map_node *n = hp_map_first(&r->makes); n; n = hp_map_next(n)) {
        struct sc_make *x = n->value;
        harpoon__v1__host__free_unpacked(x->pb, NULL);
        sc_storage_unref(x->storage);
        free(x);
    }
    hp_map_done(&r->makes);
    hp_map_done(&r->words);
    sc_images_done(&r->images);
}

static void dress_facts(const struct sc_region *r, const struct sc_host *h, struct sc_host_dress *d)
{
    const Harpoon__V1__HostFacts *common = sc_host_facts(h);
    if (!common)
        return;
    d->facts = *common;
    d->m.facts = &d->facts;
    for (size_t i = 0; i < h->images.count; i++)
        d->images[i] = (char *)sc_images_digest(&r->images, h->images.ids[i]);
    d->facts.images = d->images;
    d->facts.n_images = h->images.count;
    if (h->pb->boot_uuid) {
        uuid_write(h->pb->boot.uuid, d->boot_id);
        d->facts.boot_id = d->boot_id;
    } else if (h->pb->boot.text) {
        d->facts.boot_id = h->pb->boot.text;
    }
}

static void dress_storage(const struct sc_host *h, struct sc_host_dress *d)
{
    const struct sc_storage *limits = h->info.storage;
    for (size_t i = 0; limits && i < limits->count; i++) {
        harpoon__v1__storage_class__init(&d->storage[i]);
        d->storage[i].name = (char *)limits->items[i].name;
        d->storage[i].size_bytes = h->info.storage_claimed[i];
        d->storage_list[i] = &d->storage[i];
    }
    d->m.storage_claimed = d->storage_list;
    d->m.n_storage_claimed = limits ? limits->count : 0;
}

void sc_host_dress(struct sc_region *r, struct sc_host *h, struct sc_host_dress *d)
{
    const struct sc_host_own *pb = h->pb;
    harpoon__v1__resources__init(&d->claimed);
    d->claimed.cpu_millis = h->info.claimed.cpu_millis;
    d->claimed.memory_bytes = h->info.claimed.memory_bytes;
    d->claimed.disk_bytes = h->info.claimed.disk_bytes;
    d->claimed.network_bps = h->info.claimed.network_bps;
    sc_timestamp(&d->attach, h->attach_ns);
    sc_timestamp(&d->update, h->update_ns);
    d->m = *h->info.pb;
    d->m.name = h->full_name;
    d->m.state = (Harpoon__V1__HostState)pb->state;
    d->m.rack = pb->rack;
    d->m.router = pb->router;
    d->m.session = pb->session;
    d->m.cordoned = pb->cordoned;
    d->m.draining = pb->draining;
    d->m.breakers = h->info.breakers;
    d->m.n_breakers = h->info.breaker_count;
    d->m.claimed = &d->claimed;
    d->m.network_functions_claimed = (int32_t)h->info.claimed.functions;
    d->m.container_count = (int32_t)h->container_count;
    d->m.attach_time = h->attach_ns ? &d->attach : NULL;
    d->m.update_time = h->update_ns ? &d->update : NULL;
    dress_facts(r, h, d);
    dress_storage(h, d);
}

struct sc_blob *sc_host_pack(struct sc_region *r, struct sc_host *h)
{
    struct sc_host_dress d;
    sc_host_dress(r, h, &d);
    return sc_stray_pack_host(r, h, &d.m);
}

void sc_host_recount(struct sc_region *r, struct sc_host *h)
{
    const struct sc_storage *limits = h->info.storage;
    if (h->pb->recorded !=
        digest_of(&h->info.claimed, h->container_count, h->info.storage_claimed, limits ? limits->count : 0))
        sc_host_dirty(r, h, false);
}
