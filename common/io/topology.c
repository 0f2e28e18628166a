#include "io/topology.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "io/loop.h"

#define EVENTS_BYTES_MAX ((int64_t)20 << 30)
#define EVENTS_SEGMENT_BYTES ((int64_t)100 << 20)
#define EVENTS_AGE_MAX "7D"

static void add(struct hp_topology *t, struct hp_amqp_object o)
{
    assert(t->count < HP_TOPOLOGY_MAX - 1);
    t->objects[t->count++] = o;
}

/* A quorum queue with one writer's consumer, whose poison goes to the region's dead letters. */
static struct hp_amqp_object inbox(const struct hp_topology *t, const char *name)
{
    return (struct hp_amqp_object){
        .kind = HP_AMQP_QUEUE_QUORUM,
        .name = name,
        .single_active = true,
        .length_max = HP_QUEUE_LENGTH_MAX,
        .reject_publish = true,
        .delivery_limit = HP_DELIVERY_LIMIT,
        .dead_letter_queue = t->dead,
    };
}

static int set_names(struct hp_topology *t, const char *region, struct hp_error *e)
{
    *t = (struct hp_topology){0};
    if (hp_queue_name(t->requests, "requests", region) || hp_queue_name(t->reports, "reports", region) ||
        hp_queue_name(t->metrics, "metrics", region) || hp_queue_name(t->events, "events", region) ||
        hp_queue_name(t->dead, "dead", region) || hp_queue_name(t->leader, "leader", region) ||
        hp_queue_name(t->routers, "routers", region))
        return hp_fail(e, HP_ELIMIT, "region \"%s\": its queue names would be over %d bytes", region, HP_NAME_MAX);
    return 0;
}

int hp_topology_region(struct hp_topology *t, const char *region, struct hp_error *e)
{
    int rc = set_names(t, region, e);
    if (rc)
        return rc;
    /* What others refer to comes first. */
    add(t,
        (struct hp_amqp_object){
            .kind = HP_AMQP_QUEUE_QUORUM, .name = t->dead, .length_max = HP_QUEUE_LENGTH_MAX, .reject_publish = true});
    add(t, inbox(t, t->requests));
    add(t, inbox(t, t->reports));
    add(t, (struct hp_amqp_object){
               .kind = HP_AMQP_QUEUE_QUORUM, .name = t->leader, .single_active = true, .length_max = HP_TOKENS_MAX});
    add(t, (struct hp_amqp_object){.kind = HP_AMQP_QUEUE_CLASSIC,
                                   .name = t->metrics,
                                   .single_active = true,
                                   .transient = true,
                                   .length_max = HP_METRICS_LENGTH_MAX});
    add(t, (struct hp_amqp_object){.kind = HP_AMQP_FANOUT, .name = t->routers});
    return 0;
}

int hp_topology_events(struct hp_topology *t, const char *region, struct hp_error *e)
{
    int rc = set_names(t, region, e);
    if (rc)
        return rc;
    add(t, (struct hp_amqp_object){.kind = HP_AMQP_QUEUE_STREAM,
                                   .name = t->events,
                                   .bytes_max = EVENTS_BYTES_MAX,
                                   .segment_bytes = EVENTS_SEGMENT_BYTES,
                                   .max_age = EVENTS_AGE_MAX});
    return 0;
}

static int add_own(struct hp_topology *t, const char *kind, const char *id, struct hp_error *e)
{
    if (hp_queue_name(t->own, kind, id))
        return hp_fail(e, HP_ELIMIT, "name \"%s\": its queue name would be over %d bytes", id, HP_NAME_MAX);
    add(t,
        (struct hp_amqp_object){.kind = HP_AMQP_QUEUE_CLASSIC, .name = t->own, .exclusive = true, .transient = true});
    return 0;
}

int hp_topology_router(struct hp_topology *t, const char *region, const char *id, struct hp_error *e)
{
    int rc = hp_topology_region(t, region, e);
    if (!rc)
        rc = add_own(t, "router", id, e);
    if (!rc)
        add(t, (struct hp_amqp_object){.kind = HP_AMQP_BINDING, .name = t->own, .exchange = t->routers});
    return rc;
}

int hp_topology_reply(struct hp_topology *t, const char *id, struct hp_error *e)
{
    *t = (struct hp_topology){0};
    return add_own(t, "reply", id, e);
}

void hp_topology_id(char out[HP_NAME_MAX + 1], const char *name)
{
    uint32_t random = (uint32_t)hp_now_ns();
    (void)!getrandom(&random, sizeof random, GRND_NONBLOCK);
    snprintf(out, HP_NAME_MAX + 1, "%.200s-%08x", name, random);
}
