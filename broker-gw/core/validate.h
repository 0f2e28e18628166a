/* validate.h — every limit that proto/harpoon/v1 states, checked before a request travels. */
#ifndef GW_VALIDATE_H
#define GW_VALIDATE_H

#include "core/check.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "wire/image_ref.h"

enum {
    GW_LABELS_MAX = 32,
    GW_LABEL_BYTES_MAX = 63,
    GW_IMAGE_BYTES_MAX = HP_IMAGE_REF_MAX,
    GW_ARGS_MAX = 64,
    GW_ARG_BYTES_MAX = 4096,
    GW_ENV_MAX = 128,
    GW_ENV_NAME_BYTES_MAX = 128,
    GW_ENV_VALUE_BYTES_MAX = 32768,
    GW_PATH_BYTES_MAX = 4095,
    GW_PORTS_MAX = 32,
    GW_VOLUMES_MAX = 16,
    GW_ZONES_MAX = 64,
    GW_CONDITIONS_MAX = 16, /* label expressions, their values, tolerations, preferences */
    GW_PRIORITY_MAX = 1000, /* of a container, and its negative */
    GW_GANG_MAX = 64,       /* members of a gang */
    GW_PAGE_MAX = 1000,
    GW_PAGE_DEFAULT = 100,
    GW_TYPES_MAX = 16,
    GW_DEADLINE_MAX_S = 604800,
    GW_ETAG_BYTES_MAX = 128,
};
#define GW_CPU_MILLIS_MIN 10
#define GW_CPU_MILLIS_MAX 1024000
#define GW_MEMORY_BYTES_MIN (INT64_C(4) << 20)
#define GW_MEMORY_BYTES_MAX (INT64_C(64) << 40)
#define GW_DISK_BYTES_MAX (INT64_C(1) << 50)
#define GW_PIDS_MAX 4194304
#define GW_IO_MAX (INT64_C(1) << 50)
#define GW_NETWORK_BPS_MIN 8192
#define GW_NETWORK_BPS_MAX (INT64_C(1) << 40)

/* A container's spec as a create or an update brings it; `field` is its path, "container.spec". */
void gw_validate_spec(struct gw_check *c, const char *field, const Harpoon__V1__ContainerSpec *spec);
/* `whole`: cpu_millis and memory_bytes must be set; otherwise 0 means unchanged, and one value at least must be set. */
void gw_validate_resources(struct gw_check *c, const char *field, const Harpoon__V1__Resources *r, bool whole);
/* A map on the wire may hold a key twice; such a one is refused, as JSON's is, since no two readers need agree on what it means. */
void gw_validate_labels(struct gw_check *c, const char *field, Harpoon__V1__Container__LabelsEntry **entries,
                        size_t count);
/* 1 to 128 printable ASCII characters, or empty. */
void gw_validate_request_id(struct gw_check *c, const char *field, const char *id);
void gw_validate_etag(struct gw_check *c, const char *etag);
void gw_validate_filter(struct gw_check *c, const Harpoon__V1__EventFilter *f);
/* The page size to use. */
int gw_validate_page_size(struct gw_check *c, int32_t page_size);

/* Parts of validate_spec.c, for its own two files. */
void gw_validate_image(struct gw_check *c, const char *field, const char *image);
void gw_validate_runtime(struct gw_check *c, const char *field, const Harpoon__V1__ContainerSpec *spec);

#endif
