/* publishing.h — one change on its way to requests.<region>. */
#ifndef GW_PUBLISHING_H
#define GW_PUBLISHING_H

#include "core/verdicts.h"
#include "shell/gateway.h"

/* Embedded in its owner, which must stay until done_cb has run. */
struct gw_publishing {
    struct hp_publish publish;
    struct gw_gateway *gw;
    uint64_t start_ns;
    /* Exactly once, never from inside gw_publish. */
    void (*done_cb)(struct gw_publishing *p, enum gw_published outcome);
};

/* `correlation` NULL: no verdict is wanted. */
void gw_publish(struct gw_gateway *gw, struct gw_publishing *p, const struct gw_prepared *change,
                const char *correlation, void (*done_cb)(struct gw_publishing *p, enum gw_published outcome));
const char *gw_region_name(const struct gw_gateway *gw, const struct gw_prepared *change);

#endif
