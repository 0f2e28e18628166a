#include "grpc/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len;
    int c = memcmp(a, b, n);
    if (c != 0)
        return c;
    return a_len < b_len ? -1 : a_len > b_len;
}

/* Index of the path, or where it belongs. */
static size_t position(const struct hp_rpc_table *t, const char *path, size_t len)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (compare(t->entries[mid].path, t->entries[mid].path_len, path, len) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct hp_rpc_entry *hp_rpc_table_find(const struct hp_rpc_table *t, const char *path, size_t path_len)
{
    size_t i = position(t, path, path_len);
    if (i == t->count || compare(t->entries[i].path, t->entries[i].path_len, path, path_len) != 0)
        return NULL;
    return &t->entries[i];
}

static int add_one(struct hp_rpc_table *t, const struct hp_rpc_method *m, void *context, struct hp_error *e)
{
    if (!m->service || !m->name || !m->request || !m->response || !m->on_message)
        return hp_fail(e, HP_EINVAL, "method %s of service %s is incomplete", m->name ? m->name : "?",
                       m->service ? m->service : "?");
    char *path;
    int len = asprintf(&path, "/%s/%s", m->service, m->name);
    if (len < 0)
        return hp_fail(e, HP_ENOMEM, "no memory for the method table");
    size_t at = position(t, path, (size_t)len);
    if (hp_rpc_table_find(t, path, (size_t)len)) {
        hp_fail(e, HP_EEXISTS, "method %s is there twice", path);
        free(path);
        return HP_EEXISTS;
    }
    struct hp_rpc_entry *grown = realloc(t->entries, (t->count + 1) * sizeof *grown);
    if (!grown) {
        free(path);
        return hp_fail(e, HP_ENOMEM, "no memory for the method table");
    }
    t->entries = grown;
    memmove(&grown[at + 1], &grown[at], (t->count - at) * sizeof *grown);
    grown[at] = (struct hp_rpc_entry){.method = m, .context = context, .path = path, .path_len = (size_t)len};
    t->count++;
    return 0;
}

int hp_rpc_table_add(struct hp_rpc_table *t, const struct hp_rpc_method *const *methods, void *context,
                     struct hp_error *e)
{
    for (; methods && *methods; methods++) {
        int rc = add_one(t, *methods, context, e);
        if (rc)
            return rc;
    }
    return 0;
}

void hp_rpc_table_done(struct hp_rpc_table *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->entries[i].path);
    free(t->entries);
    t->entries = NULL;
    t->count = 0;
}

bool hp_rpc_table_has_service(const struct hp_rpc_table *t, const char *service)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->entries[i].method->service, service) == 0)
            return true;
    return false;
}
