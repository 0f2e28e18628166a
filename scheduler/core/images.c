#include "core/images.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "wire/image_ref.h"

/* Learned of an image. */
struct sc_image_reference {
    struct sc_image *image;
    struct sc_image_reference *next; /* of the same image */
    const char *text;                /* the key in the map */
};

void sc_images_init(struct sc_images *x, uint64_t seed)
{
    *x = (struct sc_images){0};
    hp_map_init(&x->digests, SC_IMAGES_MAX, seed);
    hp_map_init(&x->references, SC_IMAGE_REFERENCES_MAX, seed);
}

void sc_images_done(struct sc_images *x)
{
    for (struct hp_map_node *n = hp_map_first(&x->references); n; n = hp_map_next(n))
        free(n->value);
    for (struct hp_map_node *n = hp_map_first(&x->digests); n; n = hp_map_next(n)) {
        struct sc_image *i = n->value;
        free(i->hosts);
        free(i);
    }
    hp_map_done(&x->references);
    hp_map_done(&x->digests);
    free((void *)x->items);
}

/* ---- Images ---- */

/* The lowest free id; there is one. */
static uint32_t free_id(const struct sc_images *x)
{
    uint32_t id = 0;
    if (x->digests.count == x->count)
        return x->count;
    while (x->items[id])
        id++;
    return id;
}

static int image_new(struct sc_images *x, const char *digest, uint16_t *ret)
{
    uint32_t id = free_id(x);
    if (id == x->room) {
        uint32_t room = x->room ? 2 * x->room : 16;
        struct sc_image **items = (struct sc_image **)realloc((void *)x->items, room * sizeof *items);
        if (!items)
            return HP_ENOMEM;
        x->items = items;
        x->room = room;
    }
    struct sc_image *i = calloc(1, sizeof *i);
    int code = i ? hp_map_put(&x->digests, digest, i, NULL) : HP_ENOMEM;
    if (code) {
        free(i);
        return code;
    }
    i->digest = hp_map_key(&x->digests, digest);
    i->id = (uint16_t)id;
    x->items[id] = i;
    x->count = id < x->count ? x->count : id + 1;
    *ret = (uint16_t)id;
    return 0;
}

static void forget_reference(struct sc_images *x, struct sc_image_reference *ref)
{
    struct sc_image_reference **at = &ref->image->references;
    while (*at != ref)
        at = &(*at)->next;
    *at = ref->next;
    hp_map_remove(&x->references, ref->text);
    free(ref);
}

static void image_free(struct sc_images *x, uint32_t id)
{
    struct sc_image *i = x->items[id];
    assert(!i->count);
    while (i->references)
        forget_reference(x, i->references);
    hp_map_remove(&x->digests, i->digest);
    free(i->hosts);
    free(i);
    x->items[id] = NULL;
    while (x->count && !x->items[x->count - 1])
        x->count--;
}

/* Where the host is among them, or would be. */
static size_t place_of(const uint32_t *hosts, size_t count, uint32_t slot)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (hosts[middle] < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool sc_image_on(const uint32_t *hosts, size_t count, uint32_t slot)
{
    size_t at = place_of(hosts, count, slot);
    return at < count && hosts[at] == slot;
}

static int host_put(struct sc_image *i, uint32_t slot)
{
    if (i->count == i->room) {
        uint32_t room = i->room + i->room / 4 + 2;
        uint32_t *hosts = realloc(i->hosts, room * sizeof *hosts);
        if (!hosts)
            return HP_ENOMEM;
        i->hosts = hosts;
        i->room = room;
    }
    size_t at = place_of(i->hosts, i->count, slot);
    assert(at == i->count || i->hosts[at] != slot);
    memmove(&i->hosts[at + 1], &i->hosts[at], (i->count - at) * sizeof *i->hosts);
    i->hosts[at] = slot;
    i->count++;
    return 0;
}

static void host_take(struct sc_images *x, uint32_t id, uint32_t slot)
{
    struct sc_image *i = x->items[id];
    size_t at = place_of(i->hosts, i->count, slot);
    assert(at < i->count && i->hosts[at] == slot);
    i->count--;
    memmove(&i->hosts[at], &i->hosts[at + 1], (i->count - at) * sizeof *i->hosts);
    if (!i->count)
        image_free(x, id);
}

/* ---- What hosts have ---- */

static bool has(const uint16_t *ids, size_t count, uint16_t id)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* The id of a digest. HP_ELIMIT: there are too many. */
static int id_of(struct sc_images *x, const char *digest, uint16_t *ret)
{
    const struct sc_image *known = hp_map_get(&x->digests, digest);
    if (!known)
        return image_new(x, digest, ret);
    *ret = known->id;
    return 0;
}

static int keep(struct sc_image_set *set, const uint16_t *ids, size_t count)
{
    assert(count <= SC_HOST_IMAGES_MAX);
    if (!count) {
        free(set->ids);
        *set = (struct sc_image_set){0};
        return 0;
    }
    uint16_t *copy = realloc(set->ids, count * sizeof *copy);
    if (!copy)
        return HP_ENOMEM;
    memcpy(copy, ids, count * sizeof *copy);
    *set = (struct sc_image_set){copy, (uint16_t)count};
    return 0;
}

/* Adds it to the list, and the host to the image's, unless there is no room. */
static int take_in(struct sc_images *x, const struct sc_image_set *set, uint32_t slot, const char *digest,
                   uint16_t *ids, size_t *count)
{
    uint16_t id;
    if (!hp_image_digest_valid(digest) || *count == SC_HOST_IMAGES_MAX)
        return 0;
    int code = id_of(x, digest, &id);
    if (code || has(ids, *count, id))
        return code == HP_ELIMIT ? 0 : code;
    if (!has(set->ids, set->count, id))
        code = host_put(x->items[id], slot);
    if (code && !x->items[id]->count)
        image_free(x, id);
    if (!code)
        ids[(*count)++] = id;
    return code;
}

int sc_images_set(struct sc_images *x, struct sc_image_set *set, uint32_t slot, char *const *digests, size_t count,
                  bool *ret_changed)
{
    uint16_t ids[SC_HOST_IMAGES_MAX];
    size_t n = 0;
    int code = 0;
    bool changed = false;
    for (size_t i = 0; i < count && !code; i++)
        code = take_in(x, set, slot, digests[i], ids, &n);
    for (size_t i = 0; i < n; i++)
        changed |= !has(set->ids, set->count, ids[i]);
    struct sc_image_set old = *set;
    *set = (struct sc_image_set){0};
    int kept = keep(set, ids, n);
    size_t left = kept ? 0 : n; /* without memory for the list the host has none */
    for (size_t i = left; i < n; i++)
        if (!has(old.ids, old.count, ids[i]))
            host_take(x, ids[i], slot);
    for (size_t i = 0; i < old.count; i++)
        if (!has(ids, left, old.ids[i])) {
            host_take(x, old.ids[i], slot);
            changed = true;
        }
    free(old.ids);
    *ret_changed = changed;
    return code ? code : kept;
}

int sc_images_add(struct sc_images *x, struct sc_image_set *set, uint32_t slot, const char *digest, bool *ret_changed)
{
    uint16_t ids[SC_HOST_IMAGES_MAX];
    size_t n = set->count;
    *ret_changed = false;
    if (n)
        memcpy(ids, set->ids, n * sizeof *ids);
    int code = take_in(x, set, slot, digest, ids, &n);
    if (code || n == set->count)
        return code;
    code = keep(set, ids, n);
    if (code)
        host_take(x, ids[n - 1], slot);
    *ret_changed = !code;
    return code;
}

/* ---- What references mean ---- */

int sc_images_learn(struct sc_images *x, const char *reference, const char *digest)
{
    struct sc_image *image = hp_map_get(&x->digests, digest);
    struct sc_image_reference *ref = hp_map_get(&x->references, reference);
    if (!image || (ref && ref->image == image))
        return 0;
    if (ref)
        forget_reference(x, ref);
    ref = malloc(sizeof *ref);
    int code = ref ? hp_map_put(&x->references, reference, ref, NULL) : HP_ENOMEM;
    if (code) {
        free(ref);
        return code == HP_ELIMIT ? 0 : code;
    }
    *ref = (struct sc_image_reference){image, image->references, hp_map_key(&x->references, reference)};
    image->references = ref;
    return 0;
}

const struct sc_image *sc_images_find(const struct sc_images *x, const char *reference)
{
    const struct sc_image_reference *ref = hp_map_get(&x->references, reference);
    const char *digest = strrchr(reference, '@');
    if (ref)
        return ref->image;
    return digest ? hp_map_get(&x->digests, digest + 1) : NULL;
}

const char *sc_images_digest(const struct sc_images *x, uint16_t id)
{
    assert(id < x->count && x->items[id]);
    return x->items[id]->digest;
}

void sc_images_check(const struct sc_images *x, const struct sc_image_set *set, uint32_t slot)
{
    size_t on = 0;
    assert(set->count <= SC_HOST_IMAGES_MAX);
    for (uint32_t id = 0; id < x->count; id++) {
        const struct sc_image *i = x->items[id];
        bool here = i && sc_image_on(i->hosts, i->count, slot);
        assert(here == has(set->ids, set->count, (uint16_t)id));
        assert(!i || (i->count && i->count <= i->room && hp_map_get(&x->digests, i->digest) == i));
        on += here;
    }
    assert(on == set->count);
}
