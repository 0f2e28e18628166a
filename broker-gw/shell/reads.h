/* reads.h — reads of the record that several handlers share. */
#ifndef GW_READS_H
#define GW_READS_H

#include "google/rpc/status.pb-c.h"
#include "harpoon/v1/operation.pb-c.h"
#include "io/db.h"
#include "wire/names.h"

/* On a database thread. *ret is NULL when it is not recorded, or recorded for another project; free with hp_unpacked_free. */
int gw_select_operation(struct hp_db_conn *c, const struct hp_operation_name *name, Harpoon__V1__Operation **ret,
                        struct hp_error *e) HP_MUST_CHECK;
Google__Rpc__Status *gw_operation_not_found(const char *name);

/* The resource inside a body of the record, taken out of it: the rest is freed. NULL when it is absent. */
ProtobufCMessage *gw_unwrap(ProtobufCMessage *body);

#endif
