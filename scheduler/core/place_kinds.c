#include "core/place_kinds.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/codec.h"

enum { SIZE_BITS_EXACT = 64, SIZE_BITS_FIRST = 6 };

static void no_free(void *item)
{
}

static void labels_free(void *item)
{
    harpoon__v1__host__free_unpacked(item, NULL);
}

static void class_set_free(void *item)
{
    struct sc_class_set *set = item;
    if (set)
        sc_storage_unref(set->limits);
    free(set);
}

static void facets_init(struct sc_facets *f, void (*item_free)(void *))
{
    *f = (struct sc_facets){.item_free = item_free};
    hp_map_init(&f->ids, SC_TREE_LEAF, 1);
}

static void facets_done(struct sc_facets *f)
{
    for (uint32_t i = 0; i < f->count; i++)
        f->item_free(f->items[i]);
    free(f->items);
    free(f->fits);
    free(f->plus);
    free(f->primaries);
    hp_map_done(&f->ids);
}

void sc_kinds_init(struct sc_index *x)
{
    facets_init(&x->sizes, free);
    facets_init(&x->zones, no_free); /* the map's own key */
    facets_init(&x->labels, labels_free);
    facets_init(&x->storages, class_set_free);
    hp_map_init(&x->kind_ids, SC_TREE_LEAF, 1);
    x->kinds = NULL;
    x->candidates = NULL;
    x->kind_count = x->kind_room = x->kinds_used = 0;
    x->share_count = 0;
    if (!x->size_bits)
        x->size_bits = SIZE_BITS_EXACT;
}

void sc_kinds_done(struct sc_index *x)
{
    facets_done(&x->sizes);
    facets_done(&x->zones);
    facets_done(&x->labels);
    facets_done(&x->storages);
    hp_map_done(&x->kind_ids);
    free(x->kinds);
    free(x->candidates);
}

/* A new id for `text`, whose item the caller sets. */
static int facet_add(struct sc_facets *f, const char *text, uint32_t *ret)
{
    if (f->count == f->room) {
        uint32_t room = f->room ? 2 * f->room : 16;
        void **items = realloc(f->items, room * sizeof *items);
        if (!items)
            return HP_ENOMEM;
        f->items = items;
        unsigned char *fits = realloc(f->fits, room);
        if (!fits)
            return HP_ENOMEM;
        f->fits = fits;
        int64_t *plus = realloc(f->plus, room * sizeof *plus);
        if (!plus)
            return HP_ENOMEM;
        f->plus = plus;
        int64_t *primaries = realloc(f->primaries, room * sizeof *primaries);
        if (!primaries)
            return HP_ENOMEM;
        f->primaries = primaries;
        f->room = room;
    }
    int code = hp_map_put(&f->ids, text, (void *)((uintptr_t)f->count + 1), NULL);
    if (code)
        return code;
    f->items[f->count] = NULL;
    *ret = f->count++;
    return 0;
}

static bool facet_find(const struct sc_facets *f, const char *text, uint32_t *ret)
{
    uintptr_t found = (uintptr_t)hp_map_get(&f->ids, text);
    *ret = (uint32_t)(found - 1);
    return found != 0;
}

static int64_t rounded(int64_t v, int bits)
{
    if (bits >= SIZE_BITS_EXACT || v <= 0)
        return v;
    int length = 64 - __builtin_clzll((uint64_t)v);
    return length > bits ? v >> (length - bits) << (length - bits) : v;
}

static void widen(float *low, float *high, float v)
{
    *low = v < *low ? v : *low;
    *high = v > *high ? v : *high;
}

static int size_id(struct sc_index *x, const struct sc_slot *s, uint32_t *ret)
{
    const struct sc_res *l = &s->info->limit;
    char text[80];
    snprintf(text, sizeof text, "%" PRId64 " %" PRId64 " %" PRId64, rounded(l->cpu_millis, x->size_bits),
             rounded(l->memory_bytes, x->size_bits), rounded(l->disk_bytes, x->size_bits));
    if (!facet_find(&x->sizes, text, ret)) {
        struct sc_size *z = malloc(sizeof *z);
        int code = z ? facet_add(&x->sizes, text, ret) : HP_ENOMEM;
        if (code) {
            free(z);
            return code;
        }
        z->low = z->high = s->inverse;
        x->sizes.items[*ret] = z;
    }
    struct sc_size *z = x->sizes.items[*ret];
    widen(&z->low.cpu, &z->high.cpu, s->inverse.cpu);
    widen(&z->low.memory, &z->high.memory, s->inverse.memory);
    widen(&z->low.disk, &z->high.disk, s->inverse.disk);
    return 0;
}

static int zone_id(struct sc_index *x, const struct sc_slot *s, uint32_t *ret)
{
    const char *zone = s->info->pb->zone;
    if (facet_find(&x->zones, zone, ret))
        return 0;
    int code = facet_add(&x->zones, zone, ret);
    if (!code)
        x->zones.items[*ret] = x->zones.ids.last->key;
    return code;
}

static int by_key(const void *a, const void *b)
{
    const Harpoon__V1__Host__LabelsEntry *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

/* The host's labels that tell kinds apart, in order, and its taints, in a host of nothing else; *text is heap. */
static int labels_text(const struct sc_index *x, const Harpoon__V1__Host *host, Harpoon__V1__Host *ret, char **text)
{
    size_t length = 1;
    ret->labels = malloc((host->n_labels + 1) * sizeof *ret->labels);
    if (!ret->labels)
        return HP_ENOMEM;
    for (size_t i = 0; i < host->n_labels; i++)
        if (!hp_map_get(&x->blurred, host->labels[i]->key)) {
            ret->labels[ret->n_labels++] = host->labels[i];
            length += strlen(host->labels[i]->key) + strlen(host->labels[i]->value) + 2 * 21;
        }
    qsort(ret->labels, ret->n_labels, sizeof *ret->labels, by_key);
    for (size_t i = 0; i < host->n_taints; i++)
        length += strlen(host->taints[i]->key) + strlen(host->taints[i]->value) + 2 * 21 + 1;
    ret->taints = host->taints;
    ret->n_taints = host->n_taints;
    char *at = *text = malloc(length);
    if (!at)
        return HP_ENOMEM;
    *at = '\0';
    for (size_t i = 0; i < ret->n_labels; i++)
        at += sprintf(at, "%zu %s%zu %s", strlen(ret->labels[i]->key), ret->labels[i]->key,
                      strlen(ret->labels[i]->value), ret->labels[i]->value);
    for (size_t i = 0; i < ret->n_taints; i++)
        at += sprintf(at, "!%zu %s%zu %s", strlen(ret->taints[i]->key), ret->taints[i]->key,
                      strlen(ret->taints[i]->value), ret->taints[i]->value);
    return 0;
}

static int labels_id(struct sc_index *x, const struct sc_slot *s, uint32_t *ret)
{
    Harpoon__V1__Host own = HARPOON__V1__HOST__INIT;
    char *text = NULL;
    int code = labels_text(x, s->info->pb, &own, &text);
    if (!code && !facet_find(&x->labels, text, ret)) {
        ProtobufCMessage *copy = hp_message_clone(&own.base);
        code = copy ? facet_add(&x->labels, text, ret) : HP_ENOMEM;
        if (code && copy)
            protobuf_c_message_free_unpacked(copy, NULL);
        else if (!code)
            x->labels.items[*ret] = copy;
    }
    free((void *)own.labels);
    free(text);
    return code;
}

/* A class a line, with its limit. */
static void storage_text(const struct sc_index *x, const struct sc_storage *limits, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (uint32_t i = 0; limits && i < limits->count; i++) {
        int more = snprintf(out + n, size - n, "%s %" PRId64 "\n", limits->items[i].name,
                            rounded(limits->items[i].bytes, x->size_bits));
        n += (size_t)more;
        assert(more > 0 && n < size);
    }
}

/* Where offers tell what is left of the class; SC_SHARES: nowhere, there are too many. */
static uint8_t column_of(struct sc_index *x, const char *name)
{
    for (int i = 0; i < x->share_count; i++)
        if (!strcmp(x->shares[i], name))
            return (uint8_t)i;
    if (x->share_count == SC_SHARES || strlen(name) >= sizeof x->shares[0])
        return SC_SHARES;
    strcpy(x->shares[x->share_count], name);
    return (uint8_t)x->share_count++;
}

static struct sc_class_set *class_set_new(struct sc_index *x, const struct sc_storage *limits)
{
    struct sc_class_set *set = calloc(1, sizeof *set);
    if (!set || !limits)
        return set;
    set->limits = sc_storage_new(limits->items, limits->count);
    if (!set->limits) {
        free(set);
        return NULL;
    }
    for (uint32_t i = 0; i < limits->count; i++)
        set->column[i] = column_of(x, limits->items[i].name);
    return set;
}

static int storage_id(struct sc_index *x, const struct sc_slot *s, uint32_t *ret)
{
    const struct sc_storage *limits = s->info->storage;
    char text[HP_STORAGE_CLASSES_MAX * 96];
    storage_text(x, limits, text, sizeof text);
    if (!facet_find(&x->storages, text, ret)) {
        struct sc_class_set *fresh = class_set_new(x, limits);
        int code = fresh ? facet_add(&x->storages, text, ret) : HP_ENOMEM;
        if (code) {
            class_set_free(fresh);
            return code;
        }
        x->storages.items[*ret] = fresh;
    }
    struct sc_class_set *set = x->storages.items[*ret];
    for (uint32_t i = 0; limits && i < limits->count; i++)
        if (limits->items[i].bytes > set->limits->items[i].bytes)
            set->limits->items[i].bytes = limits->items[i].bytes;
    return 0;
}

void sc_kinds_check_storage(const struct sc_index *x, uint32_t kind, const struct sc_storage *limits)
{
    const struct sc_storage *own = ((const struct sc_class_set *)x->storages.items[x->kinds[kind].storage])->limits;
    assert(!own == !limits && (!own || own->count == limits->count));
    for (uint32_t i = 0; own && i < own->count; i++)
        assert(!strcmp(own->items[i].name, limits->items[i].name) && own->items[i].bytes >= limits->items[i].bytes);
}

static int kind_add(struct sc_index *x, const char *text, const struct sc_kind *k, uint32_t *ret)
{
    if (x->kind_count == x->kind_room) {
        uint32_t room = x->kind_room ? 2 * x->kind_room : 64;
        struct sc_kind *kinds = realloc(x->kinds, room * sizeof *kinds);
        if (!kinds)
            return HP_ENOMEM;
        x->kinds = kinds;
        struct sc_candidate *candidates = realloc(x->candidates, room * sizeof *candidates);
        if (!candidates)
            return HP_ENOMEM;
        x->candidates = candidates;
        x->kind_room = room;
    }
    int code = hp_map_put(&x->kind_ids, text, (void *)((uintptr_t)x->kind_count + 1), NULL);
    if (code)
        return code;
    x->kinds[x->kind_count] = *k;
    *ret = x->kind_count++;
    return 0;
}

int sc_kinds_of(struct sc_index *x, const struct sc_slot *s, uint32_t *ret)
{
    char text[80];
    struct sc_kind k = {.root = SC_TREE_NONE, .breakers = s->breakers};
    int code = size_id(x, s, &k.size);
    if (!code)
        code = zone_id(x, s, &k.zone);
    if (!code)
        code = labels_id(x, s, &k.labels);
    if (!code)
        code = storage_id(x, s, &k.storage);
    if (code)
        return code;
    snprintf(text, sizeof text, "%u %u %u %u %u", k.size, k.zone, k.labels, k.storage, k.breakers);
    uintptr_t found = (uintptr_t)hp_map_get(&x->kind_ids, text);
    if (!found)
        return kind_add(x, text, &k, ret);
    *ret = (uint32_t)(found - 1);
    return 0;
}

/* The key with most values among the kinds' labels; NULL: none has two. Out of memory counts as none. */
static const char *busiest_key(const struct sc_index *x)
{
    struct hp_map pairs, keys;
    const char *best = NULL;
    uintptr_t most = 1;
    hp_map_init(&pairs, SC_TREE_LEAF, 1);
    hp_map_init(&keys, SC_TREE_LEAF, 1);
    for (uint32_t i = 0; i < x->labels.count; i++) {
        const Harpoon__V1__Host *h = x->labels.items[i];
        for (size_t k = 0; k < h->n_labels; k++) {
            char pair[512];
            snprintf(pair, sizeof pair, "%s\n%s", h->labels[k]->key, h->labels[k]->value);
            if (hp_map_get(&pairs, pair) || hp_map_put(&pairs, pair, (void *)1, NULL))
                continue;
            uintptr_t values = (uintptr_t)hp_map_get(&keys, h->labels[k]->key) + 1;
            if (!hp_map_put(&keys, h->labels[k]->key, (void *)values, NULL) && values > most) {
                most = values;
                best = h->labels[k]->key;
            }
        }
    }
    hp_map_done(&pairs);
    hp_map_done(&keys);
    return best;
}

bool sc_kinds_blur(struct sc_index *x, int *ret_code)
{
    const char *key = x->labels.count > x->sizes.count || x->size_bits == 1 ? busiest_key(x) : NULL;
    *ret_code = 0;
    if (key) {
        *ret_code = hp_map_put(&x->blurred, key, (void *)1, NULL);
        return true;
    }
    if (x->size_bits == 1)
        return false;
    x->size_bits = x->size_bits == SIZE_BITS_EXACT ? SIZE_BITS_FIRST : x->size_bits - 1;
    return true;
}
