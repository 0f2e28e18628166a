/* table.h — the methods of a server by path, shared by all its connections and both transports. */
#ifndef HP_GRPC_TABLE_H
#define HP_GRPC_TABLE_H

#include "base/error.h"
#include "grpc/rpc.h"

struct hp_rpc_entry {
    const struct hp_rpc_method *method;
    void *context; /* what hp_rpc_context gives */
    char *path;    /* "/package.Service/Method" */
    size_t path_len;
};

struct hp_rpc_table {
    struct hp_rpc_entry *entries; /* sorted by path */
    size_t count;
};

/* Adds a NULL-terminated list (borrowed for the table's life). HP_EEXISTS for a path that is there already, HP_EINVAL for a method without names or descriptors. */
int hp_rpc_table_add(struct hp_rpc_table *t, const struct hp_rpc_method *const *methods, void *context,
                     struct hp_error *e) HP_MUST_CHECK;
void hp_rpc_table_done(struct hp_rpc_table *t);
/* NULL when there is none. */
const struct hp_rpc_entry *hp_rpc_table_find(const struct hp_rpc_table *t, const char *path, size_t path_len);
bool hp_rpc_table_has_service(const struct hp_rpc_table *t, const char *service);

#endif
