/* topology.h — every queue and exchange of Harpoon, in one place, so that all daemons declare them alike. */
#ifndef HP_IO_TOPOLOGY_H
#define HP_IO_TOPOLOGY_H

#include "io/amqp.h"
#include "wire/names.h"

enum {
    HP_QUEUE_LENGTH_MAX = 1000000, /* requests, reports, dead: then publishes are rejected */
    HP_TOKENS_MAX = 1000,          /* leader: then the oldest token is dropped */
    HP_METRICS_LENGTH_MAX = 1000,  /* then the oldest batch is dropped */
    HP_DELIVERY_LIMIT = 20,        /* deliveries of one message before it is dead */
    HP_TOPOLOGY_MAX = 10,          /* objects of one table, with its end */
};

/* Holds the names that the table points to: neither may outlive the other, nor be moved. */
struct hp_topology {
    struct hp_amqp_object objects[HP_TOPOLOGY_MAX]; /* what hp_publisher_options.topology wants */
    int count;
    char requests[HP_NAME_MAX + 1], reports[HP_NAME_MAX + 1], metrics[HP_NAME_MAX + 1], events[HP_NAME_MAX + 1],
        dead[HP_NAME_MAX + 1], leader[HP_NAME_MAX + 1], routers[HP_NAME_MAX + 1];
    char own[HP_NAME_MAX + 1]; /* router or reply queue */
};

/* The region's shared objects: requests, reports, metrics, dead, leader, and the routers exchange. Every daemon declares them before use. HP_ELIMIT: the name is too long. */
int hp_topology_region(struct hp_topology *t, const char *region, struct hp_error *e) HP_MUST_CHECK;
/* The region's stream of events, and nothing else: for a connection of its own, so that a stream that cannot be declared holds up nothing but events. */
int hp_topology_events(struct hp_topology *t, const char *region, struct hp_error *e) HP_MUST_CHECK;
/* An event-router's consuming connection: the region's objects, and its exclusive queue "router.<id>" bound to the routers exchange. `own` is its name. */
int hp_topology_router(struct hp_topology *t, const char *region, const char *id, struct hp_error *e) HP_MUST_CHECK;
/* A gateway's consuming connection for verdicts: its exclusive queue "reply.<id>" only. `own` is its name. */
int hp_topology_reply(struct hp_topology *t, const char *id, struct hp_error *e) HP_MUST_CHECK;
/* name, "-", and 8 random hex digits: the id of an exclusive queue's owner, new with each start, so that the queue of a dead process is never in the way. */
void hp_topology_id(char out[HP_NAME_MAX + 1], const char *name);

#endif
