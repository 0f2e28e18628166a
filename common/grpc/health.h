/* health.h — grpc.health.v1 over the methods of a table: https://github.com/grpc/grpc/blob/master/doc/health-checking.md */
#ifndef HP_GRPC_HEALTH_H
#define HP_GRPC_HEALTH_H

#include <sys/queue.h>

#include "grpc/rpc.h"
#include "grpc/table.h"

struct hp_rpc_watcher;

struct hp_rpc_health {
    const struct hp_rpc_table *table; /* which services there are; borrowed */
    bool serving;
    LIST_HEAD(, hp_rpc_watcher) watchers; /* Watch calls under way: bounded by the calls of all connections */
};
/* The methods to be added to the table, with the health object as their context. */
extern const struct hp_rpc_method *const hp_rpc_health_methods[];

void hp_rpc_health_init(struct hp_rpc_health *h, const struct hp_rpc_table *table);
/* Tells the watchers when it changes. */
void hp_rpc_health_set(struct hp_rpc_health *h, bool serving);
/* Ends the watches with UNAVAILABLE, so that they do not hold up the end of the server. */
void hp_rpc_health_end_watches(struct hp_rpc_health *h);

#endif
