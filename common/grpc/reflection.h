/* reflection.h — grpc.reflection.v1 and v1alpha, answered from a table that proto/reflection_table.py makes at build time. */
#ifndef HP_GRPC_REFLECTION_H
#define HP_GRPC_REFLECTION_H

#include <stddef.h>

#include "grpc/rpc.h"
#include "grpc/table.h"

/* One .proto file: its FileDescriptorProto, packed. */
struct hp_reflection_file {
    const char *name; /* "harpoon/v1/container.proto" */
    const unsigned char *data;
    size_t len;
    const unsigned short *needs; /* indexes of the files that it imports */
    size_t need_count;
};
struct hp_reflection_symbol {
    const char *name; /* "harpoon.v1.Container", "….name", "….ContainerService.GetContainer" */
    unsigned short file;
};
struct hp_reflection_data {
    const struct hp_reflection_file *files;
    size_t file_count;
    const struct hp_reflection_symbol *symbols; /* sorted by bytes */
    size_t symbol_count;
};
/* harpoon.v1, google.rpc's details, health and reflection. */
extern const struct hp_reflection_data hp_reflection_harpoon;

/* Context of the methods. Both borrowed. */
struct hp_rpc_reflection {
    const struct hp_reflection_data *data;
    const struct hp_rpc_table *table; /* list_services lists its services */
};
extern const struct hp_rpc_method *const hp_rpc_reflection_methods[];

#endif
