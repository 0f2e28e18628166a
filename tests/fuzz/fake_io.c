#include "fuzz/fake_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/db.h"

enum { CONSUMERS_MAX = 8 };

struct hp_publisher {
    void (*state_cb)(enum hp_amqp_state state, const struct hp_error *e, void *user);
    void *user;
    bool up;
    struct hp_publish *first, **last;
};
struct hp_consumer {
    char queue[256];
    void (*message_cb)(struct hp_delivery *d, void *user);
    void (*state_cb)(enum hp_amqp_state state, const struct hp_error *e, void *user);
    void *user;
    bool up;
    uint64_t tag;
};
struct hp_db {
    struct hp_db_job *first, **last;
};
struct delivery {
    struct hp_delivery base;
    char type[256], correlation[256];
    uint8_t body[];
};

static struct hp_publisher *publisher;
static struct hp_consumer *consumers[CONSUMERS_MAX];
static int consumer_count;
static struct hp_db *db;
static enum hp_publish_outcome outcome_now;
static char last_correlation[256], address[128];
static uv_loop_t loop;

void fake_outcome(enum hp_publish_outcome outcome)
{
    outcome_now = outcome;
}

const char *fake_correlation(void)
{
    return last_correlation;
}

/* ---- The daemon's frame ---- */

uv_loop_t *fake_loop(void)
{
    static bool ready;
    if (!ready)
        uv_loop_init(&loop);
    ready = true;
    return &loop;
}

uv_loop_t *hp_daemon_loop(struct hp_daemon *d)
{
    return fake_loop();
}

void hp_daemon_address(struct hp_daemon *d, const char *name, const char *text)
{
    snprintf(address, sizeof address, "%s", text);
}

const char *fake_address(void)
{
    return address;
}

void hp_daemon_ready(struct hp_daemon *d)
{
}

void hp_daemon_stopped(struct hp_daemon *d)
{
}

void hp_daemon_fail(struct hp_daemon *d, const struct hp_error *e)
{
    abort();
}

/* ---- Publishing ---- */

int hp_publisher_new(uv_loop_t *l, const struct hp_publisher_options *o, struct hp_publisher **ret, struct hp_error *e)
{
    publisher = calloc(1, sizeof *publisher);
    *publisher = (struct hp_publisher){.state_cb = o->state_cb, .user = o->user};
    publisher->last = &publisher->first;
    *ret = publisher;
    return 0;
}

void hp_publish(struct hp_publisher *p, struct hp_publish *m)
{
    snprintf(last_correlation, sizeof last_correlation, "%s", m->correlation_id ? m->correlation_id : "");
    m->next_ = NULL;
    *p->last = m;
    p->last = &m->next_;
}

enum hp_amqp_state hp_publisher_state(const struct hp_publisher *p)
{
    return p->up ? HP_AMQP_UP : HP_AMQP_DOWN;
}

void hp_publisher_close(struct hp_publisher *p, uint64_t linger_ms, void (*closed_cb)(void *user), void *user)
{
    abort(); /* the shell is never taken down */
}

static bool publisher_turn(void)
{
    struct hp_publisher *p = publisher;
    if (!p)
        return false;
    if (!p->up) {
        p->up = true;
        p->state_cb(HP_AMQP_UP, NULL, p->user);
        return true;
    }
    struct hp_publish *m = p->first;
    if (!m)
        return false;
    p->first = m->next_;
    if (!p->first)
        p->last = &p->first;
    m->done_cb(m, outcome_now);
    return true;
}

/* ---- Consuming ---- */

int hp_consumer_new(uv_loop_t *l, const struct hp_consumer_options *o, struct hp_consumer **ret, struct hp_error *e)
{
    struct hp_consumer *c = calloc(1, sizeof *c);
    if (!c || consumer_count == CONSUMERS_MAX)
        abort();
    snprintf(c->queue, sizeof c->queue, "%s", o->subscriptions[0].queue);
    c->message_cb = o->message_cb;
    c->state_cb = o->state_cb;
    c->user = o->user;
    consumers[consumer_count++] = *ret = c;
    return 0;
}

void hp_consumer_ack(struct hp_consumer *c, int subscription, uint64_t tag, bool multiple)
{
}

void hp_consumer_reject(struct hp_consumer *c, int subscription, uint64_t tag)
{
}

void hp_consumer_resume(struct hp_consumer *c, int subscription)
{
}

void hp_consumer_pause(struct hp_consumer *c, int subscription)
{
}

void hp_consumer_close(struct hp_consumer *c, void (*closed_cb)(void *user), void *user)
{
    abort();
}

void hp_delivery_free(struct hp_delivery *d)
{
    free(d);
}

void fake_deliver(const char *queue, const void *body, size_t len, const char *type, const char *correlation_id)
{
    for (int i = 0; i < consumer_count; i++) {
        struct hp_consumer *c = consumers[i];
        if (strncmp(c->queue, queue, strlen(queue)) != 0)
            continue;
        struct delivery *d = calloc(1, sizeof *d + len);
        d->base = (struct hp_delivery){.consumer = c, .tag = ++c->tag, .body = d->body, .body_len = len};
        d->base.stream_offset = (int64_t)c->tag;
        if (len)
            memcpy(d->body, body, len);
        snprintf(d->type, sizeof d->type, "%s", type ? type : "");
        snprintf(d->correlation, sizeof d->correlation, "%s", correlation_id ? correlation_id : "");
        d->base.type = type ? d->type : NULL;
        d->base.correlation_id = correlation_id ? d->correlation : NULL;
        c->message_cb(&d->base, c->user);
        return;
    }
}

static bool consumers_turn(void)
{
    for (int i = 0; i < consumer_count; i++)
        if (!consumers[i]->up) {
            consumers[i]->up = true;
            consumers[i]->state_cb(HP_AMQP_UP, NULL, consumers[i]->user);
            return true;
        }
    return false;
}

/* ---- The record: not there ---- */

int hp_db_new(uv_loop_t *l, const struct hp_db_options *o, struct hp_db **ret, struct hp_error *e)
{
    db = calloc(1, sizeof *db);
    db->last = &db->first;
    *ret = db;
    return 0;
}

int hp_db_submit(struct hp_db *d, struct hp_db_job *job)
{
    job->next_ = NULL;
    *d->last = job;
    d->last = &job->next_;
    return 0;
}

void hp_db_close(struct hp_db *d, void (*closed_cb)(void *user), void *user)
{
    abort();
}

static bool db_turn(void)
{
    struct hp_db_job *job = db ? db->first : NULL;
    if (!job)
        return false;
    struct hp_error e = {HP_EUNAVAILABLE, "made up: no record"};
    db->first = job->next_;
    if (!db->first)
        db->last = &db->first;
    job->done_cb(job, HP_EUNAVAILABLE, &e);
    return true;
}

bool fake_turn(void)
{
    bool any = consumers_turn();
    any |= publisher_turn();
    any |= db_turn();
    return any;
}
