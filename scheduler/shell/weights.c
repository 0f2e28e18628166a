#include "shell/weights.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "wire/names.h"

static const struct {
    const char *name;
    size_t at;
    int max;
} parts[] = {
    {"cpu", offsetof(struct sc_weights, cpu), SC_WEIGHT_MAX},
    {"memory", offsetof(struct sc_weights, memory), SC_WEIGHT_MAX},
    {"disk", offsetof(struct sc_weights, disk), SC_WEIGHT_MAX},
    {"balance", offsetof(struct sc_weights, balance), SC_WEIGHT_MAX},
    {"load", offsetof(struct sc_weights, load), SC_WEIGHT_MAX},
    {"failures", offsetof(struct sc_weights, failures), SC_WEIGHT_MAX},
    {"spread", offsetof(struct sc_weights, spread), SC_WEIGHT_ASKED_MAX},
    {"primaries", offsetof(struct sc_weights, primaries), SC_WEIGHT_ASKED_MAX},
    {"image", offsetof(struct sc_weights, image), SC_WEIGHT_ASKED_MAX},
    {"preferences", offsetof(struct sc_weights, preferences), SC_WEIGHT_ASKED_MAX},
    {"network", offsetof(struct sc_weights, network), SC_WEIGHT_ASKED_MAX},
    {"storage", offsetof(struct sc_weights, storage), SC_WEIGHT_ASKED_MAX},
};

/* Whose an entry is; `items` is what follows. */
struct scope {
    char region[64], class[64];
    const char *items;
};

static int take_name(const char *entry, const char *from, size_t len, char ret[64], struct hp_error *e)
{
    if (len >= 64)
        return hp_fail(e, HP_EINVAL, "[placement] weights: \"%.100s\": a name of %zu bytes (at most 63)", entry, len);
    memcpy(ret, from, len);
    ret[len] = '\0';
    return 0;
}

static int parse_scope(const char *entry, struct scope *ret, struct hp_error *e)
{
    const char *colon = strchr(entry, ':');
    if (!colon)
        return hp_fail(e, HP_EINVAL, "[placement] weights: \"%.100s\" is not of the form [REGION/][CLASS]:NAME=N[:…]",
                       entry);
    const char *slash = memchr(entry, '/', (size_t)(colon - entry));
    const char *class = slash ? slash + 1 : entry;
    *ret = (struct scope){.items = colon + 1};
    int code = slash ? take_name(entry, entry, (size_t)(slash - entry), ret->region, e) : 0;
    if (!code && slash && !hp_segment_valid(ret->region))
        return hp_fail(e, HP_EINVAL, "[placement] weights: \"%.100s\": \"%s\" is not a region's name", entry,
                       ret->region);
    return code ? code : take_name(entry, class, (size_t)(colon - class), ret->class, e);
}

static int apply_item(const char *entry, const char *item, size_t len, struct sc_weights *w, struct hp_error *e)
{
    if ((len == 4 && !memcmp(item, "pack", len)) || (len == 6 && !memcmp(item, "spread", len))) {
        w->pack = len == 4;
        return 0;
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t n = strlen(parts[i].name);
        if (len <= n || memcmp(item, parts[i].name, n) || item[n] != '=')
            continue;
        char *end;
        errno = 0;
        long value = strtol(item + n + 1, &end, 10);
        if (end != item + len || end == item + n + 1 || errno || value < 0 || value > parts[i].max)
            return hp_fail(e, HP_EINVAL, "[placement] weights: \"%.100s\": %.*s is not a number from 0 to %d", entry,
                           (int)len, item, parts[i].max);
        *(int *)(void *)((char *)w + parts[i].at) = (int)value;
        return 0;
    }
    return hp_fail(
        e, HP_EINVAL,
        "[placement] weights: \"%.100s\": \"%.*s\" is neither spread, pack, nor NAME=N with one of cpu, memory, "
        "disk, balance, load, failures, spread, primaries, image, preferences, network, storage",
        entry, len < 63 ? (int)len : 63, item);
}

static int apply_items(const char *entry, const char *items, struct sc_weights *w, struct hp_error *e)
{
    int code = 0;
    for (const char *at = items; !code;) {
        size_t len = strcspn(at, ":");
        code = apply_item(entry, at, len, w, e);
        if (!at[len])
            break;
        at += len + 1;
    }
    if (!code && w->cpu + w->memory + w->disk + w->balance + w->load + w->failures == 0)
        return hp_fail(e, HP_EINVAL,
                       "[placement] weights: \"%.100s\": every weight of a host is 0: one at least must count", entry);
    return code;
}

/* Its weights, made when there are none. NULL: too many. */
static struct sc_weights *weights_of(struct sc_region_config *c, const char *class)
{
    if (!*class)
        return &c->weights;
    for (size_t i = 0; i < c->class_count; i++)
        if (!strcmp(c->classes[i].name, class))
            return &c->classes[i].weights;
    if (c->class_count == SC_CLASSES_MAX)
        return NULL;
    struct sc_class *fresh = &c->classes[c->class_count++];
    memcpy(fresh->name, class, strlen(class) + 1);
    fresh->weights = c->weights;
    return &fresh->weights;
}

/* The entries of the region itself, or of its classes; for all regions, or for this one. */
static int apply_round(char *const *entries, bool classes, const char *region, struct sc_region_config *ret,
                       struct hp_error *e)
{
    struct scope s;
    for (size_t i = 0; entries[i]; i++) {
        int code = parse_scope(entries[i], &s, e);
        if (code)
            return code;
        if ((*s.class != '\0') != classes || strcmp(s.region, region) != 0)
            continue;
        struct sc_weights *w = weights_of(ret, s.class);
        if (!w)
            return hp_fail(e, HP_EINVAL, "[placement] weights: \"%.100s\": more than %d classes in a region",
                           entries[i], SC_CLASSES_MAX);
        code = apply_items(entries[i], s.items, w, e);
        if (code)
            return code;
    }
    return 0;
}

static int check_twice(char *const *entries, struct hp_error *e)
{
    struct scope a, b;
    for (size_t i = 0; entries[i]; i++)
        for (size_t k = 0; k < i; k++) {
            int code = parse_scope(entries[i], &a, e);
            if (!code)
                code = parse_scope(entries[k], &b, e);
            if (code)
                return code;
            if (!strcmp(a.region, b.region) && !strcmp(a.class, b.class))
                return hp_fail(e, HP_EINVAL, "[placement] weights: \"%.*s\" is there twice",
                               (int)(a.items - entries[i] - 1), entries[i]);
        }
    return 0;
}

int sc_weights_apply(char *const *entries, const char *region, struct sc_region_config *ret, struct hp_error *e)
{
    if (!entries)
        return 0;
    int code = check_twice(entries, e);
    for (int classes = 0; classes < 2 && !code; classes++) {
        code = apply_round(entries, classes, "", ret, e);
        if (!code)
            code = apply_round(entries, classes, region, ret, e);
    }
    return code;
}
