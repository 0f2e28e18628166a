/* broker.h — what the two halves of the simulated broker share: broker.c (queues, consumers, connections) and publish.c (publishers, the stream). */
#ifndef TESTS_SIM_BROKER_H
#define TESTS_SIM_BROKER_H

#include "sim/sim.h"

enum {
    QUEUES_MAX = 64,
    CONSUMERS_MAX = 32,
    CONNECTIONS_MAX = 512,
    DELIVERY_LIMIT = 20,
    STREAM_SEQUENCES_MAX = 1 << 16,
    STREAM_READERS_MAX = 64,
    REPORT_IDS_MAX = 1 << 14
};

struct consumer {
    struct sim_connection *connection;
    int subscription;
    size_t prefetch; /* 0: no acknowledgements */
};

struct queue {
    char name[64];
    bool durable, full, missing;  /* missing: deleted, and not declared again yet */
    struct sim_connection *owner; /* of an exclusive one */
    struct sim_message *first, *last;
    struct sim_message *unacked, *unacked_last; /* by tag */
    size_t length, unacked_count;
    size_t length_max;                        /* then reject-publish; 0 no */
    struct consumer consumers[CONSUMERS_MAX]; /* the first is active */
    int consumer_count;
    struct sim_channel log;
};

struct sim_broker {
    bool up, alarm; /* alarm: takes nothing from publishers */
    uint32_t reign;
    struct queue queues[QUEUES_MAX];
    size_t queue_count;
    struct sim_connection *connections[CONNECTIONS_MAX];
    size_t connection_count;
    struct sim_publish *held, *held_last; /* arrived during the alarm; by `waiting` */
    struct sim_channel stream_log;
    struct consumer readers[STREAM_READERS_MAX]; /* of the stream */
    int reader_count;
    uint32_t reorder;                     /* so many redeliveries come behind messages that were never delivered */
    struct hp_map requests;               /* ids of operations whose requests were taken in */
    uint8_t stream[STREAM_SEQUENCES_MAX]; /* by sequence: it is in there */
    int64_t stream_highest;
    uint8_t reports[SIM_HOSTS_MAX][REPORT_IDS_MAX];
};

/* Something on its way between a client and the broker. */
struct travel {
    struct sim_connection *connection;
    const char *queue;
    int subscription;
    size_t prefetch;
    uint64_t tag;
    struct sim_message message;
    struct sim_publish *publish;
    enum sim_outcome outcome;
};

struct queue *sim_queue_find(struct sim_world *w, const char *name);
void sim_queue_add(struct sim_world *w, const char *name, bool durable, struct sim_connection *owner);
/* Hands out what may go. */
void sim_queue_pump(struct sim_world *w, struct queue *q);
struct travel *sim_travel(struct sim_world *w, struct sim_connection *c, const char *queue);
/* Every publish under way ends as unknown, or as not sent. */
void sim_publishes_fail(struct sim_world *w, struct sim_connection *c);

#endif
