#include "core/storage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

/* ---- Classes with sizes ---- */

struct sc_storage *sc_storage_new(const struct sc_storage_item *items, size_t count)
{
    size_t names = 0;
    for (size_t i = 0; i < count; i++)
        names += strlen(items[i].name) + 1;
    struct sc_storage *x = malloc(sizeof *x + count * sizeof *items + names);
    if (!x)
        return NULL;
    x->refs = 1;
    x->count = (uint32_t)count;
    char *at = (char *)&x->items[count];
    for (size_t i = 0; i < count; i++) {
        assert(items[i].bytes >= 0 && items[i].bytes <= HP_STORAGE_BYTES_MAX);
        x->items[i] = (struct sc_storage_item){.name = at, .bytes = items[i].bytes};
        at = stpcpy(at, items[i].name) + 1;
    }
    return x;
}

struct sc_storage *sc_storage_ref(struct sc_storage *x)
{
    if (x)
        x->refs++;
    return x;
}

void sc_storage_unref(struct sc_storage *x)
{
    if (x && --x->refs == 0)
        free(x);
}

static struct sc_storage_item *item_of(struct sc_storage_item *items, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(items[i].name, name))
            return &items[i];
    return NULL;
}

/* Both at most HP_STORAGE_BYTES_MAX. */
static int64_t sum_of(int64_t a, int64_t b)
{
    return a + b < HP_STORAGE_BYTES_MAX ? a + b : HP_STORAGE_BYTES_MAX;
}

static int64_t within(int64_t bytes)
{
    return bytes < 0 ? 0 : bytes < HP_STORAGE_BYTES_MAX ? bytes : HP_STORAGE_BYTES_MAX;
}

size_t sc_storage_needs(const Harpoon__V1__ContainerSpec *spec, struct sc_storage_item ret[SC_STORAGE_NEEDS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; spec && i < spec->n_volumes; i++) {
        const Harpoon__V1__VolumeMount *v = spec->volumes[i];
        struct sc_storage_item *x = item_of(ret, count, v->storage_class);
        if (!*v->storage_class)
            continue;
        if (x)
            x->bytes = sum_of(x->bytes, within(v->size_bytes));
        else if (count < SC_STORAGE_NEEDS_MAX)
            ret[count++] = (struct sc_storage_item){v->storage_class, within(v->size_bytes)};
    }
    return count;
}

int64_t sc_storage_total(const Harpoon__V1__ContainerSpec *spec)
{
    struct sc_storage_item needs[SC_STORAGE_NEEDS_MAX];
    size_t count = sc_storage_needs(spec, needs);
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum = sum_of(sum, needs[i].bytes);
    return sum;
}

/* All of `a` in a class are in `b`, too. */
static bool has_all(const Harpoon__V1__ContainerSpec *a, const Harpoon__V1__ContainerSpec *b)
{
    for (size_t i = 0; i < a->n_volumes; i++) {
        const Harpoon__V1__VolumeMount *v = a->volumes[i];
        bool found = !*v->storage_class;
        for (size_t k = 0; k < b->n_volumes && !found; k++)
            found = !strcmp(b->volumes[k]->volume, v->volume) &&
                    !strcmp(b->volumes[k]->storage_class, v->storage_class) &&
                    b->volumes[k]->size_bytes == v->size_bytes;
        if (!found)
            return false;
    }
    return true;
}

bool sc_storage_same(const Harpoon__V1__ContainerSpec *a, const Harpoon__V1__ContainerSpec *b)
{
    return sc_storage_total(a) == sc_storage_total(b) && has_all(a, b) && has_all(b, a);
}

static int percent_of(const char *name, const struct sc_storage_overcommit *overcommits, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(overcommits[i].name, name))
            return overcommits[i].percent;
    return 100;
}

int sc_storage_limits(const Harpoon__V1__HostFacts *facts, const struct sc_storage_overcommit *overcommits,
                      size_t count, struct sc_storage **ret)
{
    struct sc_storage_item items[HP_STORAGE_CLASSES_MAX];
    size_t n = 0;
    for (size_t i = 0; facts && i < facts->n_storage_classes && n < HP_STORAGE_CLASSES_MAX; i++) {
        const Harpoon__V1__StorageClass *x = facts->storage_classes[i];
        int64_t bytes = within(x->size_bytes), percent = percent_of(x->name, overcommits, count);
        if (!item_of(items, n, x->name))
            items[n++] = (struct sc_storage_item){x->name, within(bytes / 100 * percent + bytes % 100 * percent / 100)};
    }
    struct sc_storage *fresh = n ? sc_storage_new(items, n) : NULL;
    if (n && !fresh)
        return HP_ENOMEM;
    *ret = fresh;
    return 0;
}

/* ---- Hosts ---- */

int sc_slot_set_storage(struct sc_slot *s, const struct sc_storage *limits)
{
    int64_t *claimed = limits ? calloc(limits->count, sizeof *claimed) : NULL;
    if (limits && !claimed)
        return HP_ENOMEM;
    free(s->info->storage_claimed);
    s->info->storage = limits;
    s->info->storage_claimed = claimed;
    s->info->storage_smaller = false;
    return 0;
}

void sc_slot_storage_done(struct sc_slot *s)
{
    free(s->info->storage_claimed);
    s->info->storage = NULL;
    s->info->storage_claimed = NULL;
}

bool sc_slot_storage_overdrawn(const struct sc_slot *s)
{
    const struct sc_storage *limits = s->info->storage;
    for (size_t i = 0; limits && i < limits->count; i++)
        if (s->info->storage_claimed[i] > limits->items[i].bytes)
            return true;
    return false;
}

/* The place of a class in the limits; -1: the host does not have it. */
static int place_of(const struct sc_storage *limits, const char *name)
{
    for (size_t i = 0; limits && i < limits->count; i++)
        if (!strcmp(limits->items[i].name, name))
            return (int)i;
    return -1;
}

void sc_slot_claim_storage(struct sc_slot *s, const struct sc_storage_item *items, size_t count, int sign)
{
    assert(sign == 1 || sign == -1);
    for (size_t i = 0; i < count; i++) {
        int at = place_of(s->info->storage, items[i].name);
        if (at < 0)
            continue;
        s->info->storage_claimed[at] += sign * items[i].bytes;
        assert(s->info->storage_claimed[at] >= 0);
    }
    if (s->info->storage_smaller && !sc_slot_storage_overdrawn(s))
        s->info->storage_smaller = false;
}

const struct sc_storage_item *sc_slot_storage_lacks(const struct sc_slot *s, const struct sc_query *q,
                                                    int64_t *ret_limit, int64_t *ret_free)
{
    for (size_t i = 0; i < q->storage_count; i++) {
        int at = place_of(s->info->storage, q->storage[i].name);
        int64_t limit = at < 0 ? -1 : s->info->storage->items[at].bytes;
        int64_t left = at < 0 ? -1 : limit - s->info->storage_claimed[at];
        if (at >= 0 && q->storage[i].bytes <= left)
            continue;
        if (ret_limit)
            *ret_limit = limit;
        if (ret_free)
            *ret_free = left;
        return &q->storage[i];
    }
    return NULL;
}

bool sc_storage_could(const struct sc_storage *limits, const struct sc_query *q)
{
    for (size_t i = 0; i < q->storage_count; i++) {
        int at = place_of(limits, q->storage[i].name);
        if (at < 0 || q->storage[i].bytes > limits->items[at].bytes)
            return false;
    }
    return true;
}

/* In floating point, rounded down: all numbers are exact, so that it never falls when the limit grows. */
static int32_t share(int64_t left, int64_t limit)
{
    if (left <= 0 || limit <= 0)
        return 0;
    return (int32_t)((double)left / (double)limit * SC_UNIT);
}

int32_t sc_storage_part(const struct sc_storage *limits, const int64_t *claimed, const struct sc_query *q)
{
    int32_t least = SC_UNIT;
    for (size_t i = 0; i < q->storage_count; i++) {
        int at = place_of(limits, q->storage[i].name);
        int64_t limit = at < 0 ? 0 : limits->items[at].bytes;
        int32_t left = share(limit - (claimed && at >= 0 ? claimed[at] : 0) - q->storage[i].bytes, limit);
        least = left < least ? left : least;
    }
    /* What is asked for is all there, or it would not fit; what there is more is not asked for. */
    int32_t kept = !limits || limits->count <= q->storage_count ? SC_UNIT : 0;
    return q->storage_count ? (least + kept) / 2 : kept;
}

/* ---- The region ---- */

void sc_storage_join(struct sc_region *r, struct sc_container *c)
{
    struct sc_storage_item needs[SC_STORAGE_NEEDS_MAX];
    const Harpoon__V1__ContainerSpec *spec = sc_body(c)->spec;
    size_t count = sc_storage_needs(spec, needs);
    assert(!c->storage && !c->host);
    if (!count)
        return;
    c->storage = sc_storage_new(needs, count);
    if (!c->storage)
        sc_fail(r, HP_ENOMEM);
    else
        sc_traits(c)->project->used.disk_bytes += sc_storage_total(spec);
}

static int64_t total_of(const struct sc_storage *x)
{
    int64_t sum = 0;
    for (size_t i = 0; i < x->count; i++)
        sum = sum_of(sum, x->items[i].bytes);
    return sum;
}

void sc_storage_leave(struct sc_container *c)
{
    assert(!c->host);
    if (!c->storage)
        return;
    struct sc_project *p = sc_traits(c)->project;
    p->used.disk_bytes -= total_of(c->storage);
    assert(p->used.disk_bytes >= 0);
    sc_storage_unref(c->storage);
    c->storage = NULL;
}

void sc_storage_count(const struct sc_host *h, const struct sc_storage *x, int sign)
{
    if (x)
        sc_slot_claim_storage(sc_host_slot(h), x->items, x->count, sign);
}

void sc_storage_describe(struct sc_region *r, struct sc_host *h)
{
    struct sc_slot *s = sc_host_slot(h);
    const struct sc_storage *old = h->info.storage, *fresh = h->make->storage;
    if (old == fresh)
        return;
    if (sc_slot_set_storage(s, fresh)) {
        sc_fail(r, HP_ENOMEM);
        return;
    }
    r->storage_hosts += (size_t)(fresh != NULL) - (size_t)(old != NULL);
    for (const struct sc_list *l = h->containers.next; l != &h->containers; l = l->next)
        sc_storage_count(h, SC_OWNER(l, struct sc_container, on_host)->storage, 1);
    for (const struct sc_list *l = r->holds.next; l != &r->holds; l = l->next) {
        const struct sc_hold *x = SC_OWNER(l, struct sc_hold, link);
        if (x->host == h)
            sc_storage_count(h, x->storage, 1);
    }
    h->info.storage_smaller = sc_slot_storage_overdrawn(s);
    sc_pending_freed(r, h);
}

void sc_storage_check(const struct sc_host *h)
{
    const struct sc_storage *limits = h->info.storage;
    int64_t sums[HP_STORAGE_CLASSES_MAX] = {0};
    struct sc_slot_info info = {.storage = limits, .storage_claimed = sums};
    struct sc_slot copy = {.info = &info};
    assert(!h->make || h->make->storage == limits);
    for (const struct sc_list *l = h->containers.next; l != &h->containers; l = l->next) {
        const struct sc_storage *x = SC_OWNER(l, struct sc_container, on_host)->storage;
        if (x)
            sc_slot_claim_storage(&copy, x->items, x->count, 1);
    }
    for (const struct sc_list *l = h->region->holds.next; l != &h->region->holds; l = l->next) {
        const struct sc_hold *x = SC_OWNER(l, struct sc_hold, link);
        if (x->host == h && x->storage)
            sc_slot_claim_storage(&copy, x->storage->items, x->storage->count, 1);
    }
    for (size_t i = 0; limits && i < limits->count; i++) {
        assert(h->info.storage_claimed[i] == sums[i]);
        assert(h->info.storage_smaller || sums[i] <= limits->items[i].bytes);
    }
}

void sc_storage_check_claim(const struct sc_container *c, const Harpoon__V1__ContainerSpec *spec)
{
    struct sc_storage_item needs[SC_STORAGE_NEEDS_MAX];
    size_t count = c->host ? sc_storage_needs(spec, needs) : 0;
    assert(!c->host || count == (c->storage ? c->storage->count : 0));
    for (size_t i = 0; i < count; i++) {
        const struct sc_storage_item *x = item_of(c->storage->items, count, needs[i].name);
        assert(x && x->bytes == needs[i].bytes);
    }
}

/* ---- What requests ask for ---- */

static Google__Rpc__Status *wrong(const char *field, const char *text)
{
    return hp_status_add_field(hp_status_new(HP_CODE_INVALID_ARGUMENT, "INVALID_FIELD", "%s: %s", field, text), field,
                               text);
}

Google__Rpc__Status *sc_storage_wrong(const Harpoon__V1__ContainerSpec *spec)
{
    char field[96], text[64];
    if (spec->n_volumes > SC_STORAGE_NEEDS_MAX) {
        snprintf(text, sizeof text, "%zu of them (at most %d)", spec->n_volumes, SC_STORAGE_NEEDS_MAX);
        return wrong("container.spec.volumes", text);
    }
    for (size_t i = 0; i < spec->n_volumes; i++) {
        struct hp_error e = {0};
        const char *part;
        if (!hp_volume_storage_check(spec->volumes[i], &part, &e))
            continue;
        snprintf(field, sizeof field, "container.spec.volumes[%zu].%s", i, part);
        return wrong(field, e.message);
    }
    return NULL;
}
