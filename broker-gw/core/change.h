/* change.h — from a public request to what travels to the scheduler: validation, authorisation, operation id, digest, body. */
#ifndef GW_CHANGE_H
#define GW_CHANGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/rng.h"
#include "core/auth.h"
#include "harpoon/internal/v1/request.pb-c.h"
#include "wire/names.h"

/* The regions that this gateway serves. */
struct gw_regions {
    const char *const *names; /* valid segments */
    int count;
};
/* The index, or -1 with NOT_FOUND that lists them in *ret_status. */
int gw_region_find(const struct gw_regions *r, const char *name, Google__Rpc__Status **ret_status);

/* A change ready to be published; gw_prepared_done frees it. */
struct gw_prepared {
    int region_index;                           /* in gw_regions */
    char project[64];                           /* "" for changes of hosts */
    char operation_id[HP_OPERATION_ID_LEN + 1]; /* message-id */
    char operation_name[HP_NAME_MAX + 1];       /* full */
    char request_id[HP_REQUEST_ID_MAX + 1];     /* as given or made */
    char target[HP_NAME_MAX + 1];               /* full name of what changes; "" for a cancel */
    Harpoon__V1__Verb verb;                     /* UNSPECIFIED for a question: explain, host load */
    int64_t accept_ns;                          /* wall time */
    int64_t deadline_s;                         /* after accept_ns; 0: none */
    bool transient;                             /* validate_only or a question: not recorded, needs an answer */
    const char *principal;                      /* borrowed from the gw_principal */
    uint8_t *body;                              /* packed harpoon.internal.v1.Request */
    size_t body_len;                            /* bytes */
};

/* `kind` is the payload's case in Request; `payload` a message of its type. `rng` makes a request_id where there is none. 0; or negative with *ret_status, which
 * is NULL when out of memory. */
int gw_prepare(const struct gw_regions *regions, const struct gw_principal *who,
               Harpoon__Internal__V1__Request__PayloadCase kind, const ProtobufCMessage *payload, int64_t wall_ns,
               struct hp_rng *rng, struct gw_prepared *ret, Google__Rpc__Status **ret_status) HP_MUST_CHECK;
/* The payload's case for a public request; NOT_SET when it is no change. */
Harpoon__Internal__V1__Request__PayloadCase gw_payload_case(const ProtobufCMessageDescriptor *request);
void gw_prepared_done(struct gw_prepared *p);

/* The operation in stage ACCEPTED, for when no verdict has come in time; NULL when out of memory. Free with hp_unpacked_free. */
Harpoon__V1__Operation *gw_accepted_operation(const struct gw_prepared *p);

#endif
