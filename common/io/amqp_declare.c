/* How each kind of object of a topology table is declared. */
#include <stdlib.h>
#include <string.h>

#include "io/amqp_conn.h"

static size_t count(const struct hp_amqp_object *objects)
{
    size_t n = 0;
    while (objects && objects[n].name)
        n++;
    return n;
}

static void object_done(struct hp_amqp_object *o)
{
    free((void *)(uintptr_t)o->name);
    free((void *)(uintptr_t)o->exchange);
    free((void *)(uintptr_t)o->dead_letter_queue);
    free((void *)(uintptr_t)o->max_age);
    *o = (struct hp_amqp_object){0};
}

void hp_amqp_objects_free(struct hp_amqp_object *objects)
{
    for (size_t i = 0; objects && objects[i].name; i++)
        object_done(&objects[i]);
    free(objects);
}

static bool copy_text(const char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

struct hp_amqp_object *hp_amqp_objects_copy(const struct hp_amqp_object *objects)
{
    size_t n = count(objects);
    struct hp_amqp_object *copy = calloc(n + 1, sizeof *copy);
    if (!copy)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        struct hp_amqp_object o = objects[i];
        bool ok = copy_text(&o.name, objects[i].name);
        ok = copy_text(&o.exchange, objects[i].exchange) && ok;
        ok = copy_text(&o.dead_letter_queue, objects[i].dead_letter_queue) && ok;
        ok = copy_text(&o.max_age, objects[i].max_age) && ok;
        if (!ok) {
            object_done(&o);
            hp_amqp_objects_free(copy);
            return NULL;
        }
        copy[i] = o;
    }
    return copy;
}

void hp_amqp_object_describe(char out[320], const struct hp_amqp_object *o)
{
    if (o->kind == HP_AMQP_BINDING)
        snprintf(out, 320, "binding of queue \"%s\"", o->name);
    else
        snprintf(out, 320, "%s \"%s\"", o->kind == HP_AMQP_FANOUT ? "exchange" : "queue", o->name);
}

struct arguments {
    amqp_table_entry_t entries[16];
    int n;
};

static void add_text(struct arguments *a, const char *key, const char *value)
{
    a->entries[a->n++] = (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)},
    };
}

static void add_int(struct arguments *a, const char *key, int64_t value)
{
    if (!value)
        return;
    a->entries[a->n++] = (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = value},
    };
}

static int put_queue(struct hp_buf *b, uint16_t channel, const struct hp_amqp_object *o, struct hp_error *e)
{
    struct arguments a = {.n = 0};
    const char *type = o->kind == HP_AMQP_QUEUE_QUORUM   ? "quorum"
                       : o->kind == HP_AMQP_QUEUE_STREAM ? "stream"
                                                         : "classic";
    add_text(&a, "x-queue-type", type);
    add_int(&a, "x-max-length", o->length_max);
    add_int(&a, "x-max-length-bytes", o->bytes_max);
    add_int(&a, "x-delivery-limit", o->delivery_limit);
    add_int(&a, "x-stream-max-segment-size-bytes", o->segment_bytes);
    if (o->max_age)
        add_text(&a, "x-max-age", o->max_age);
    if (o->single_active)
        a.entries[a.n++] = (amqp_table_entry_t){
            .key = amqp_cstring_bytes("x-single-active-consumer"),
            .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1},
        };
    if (o->kind != HP_AMQP_QUEUE_STREAM && (o->reject_publish || o->length_max || o->bytes_max))
        add_text(&a, "x-overflow", o->reject_publish ? "reject-publish" : "drop-head");
    if (o->dead_letter_queue) {
        add_text(&a, "x-dead-letter-exchange", "");
        add_text(&a, "x-dead-letter-routing-key", o->dead_letter_queue);
        if (o->kind == HP_AMQP_QUEUE_QUORUM)
            add_text(&a, "x-dead-letter-strategy", "at-least-once");
    }
    amqp_queue_declare_t m = {
        .queue = amqp_cstring_bytes(o->name),
        .durable = !o->transient,
        .exclusive = o->exclusive,
        .arguments = {a.n, a.entries},
    };
    return hp_amqp_put_method(b, channel, AMQP_QUEUE_DECLARE_METHOD, &m, e);
}

int hp_amqp_put_delete(struct hp_buf *b, uint16_t channel, const struct hp_amqp_object *o, struct hp_error *e)
{
    amqp_queue_delete_t m = {.queue = amqp_cstring_bytes(o->name)};
    return hp_amqp_put_method(b, channel, AMQP_QUEUE_DELETE_METHOD, &m, e);
}

int hp_amqp_put_declare(struct hp_buf *b, uint16_t channel, const struct hp_amqp_object *o, struct hp_error *e)
{
    if (o->kind == HP_AMQP_FANOUT) {
        amqp_exchange_declare_t m = {
            .exchange = amqp_cstring_bytes(o->name),
            .type = amqp_cstring_bytes("fanout"),
            .durable = !o->transient,
        };
        return hp_amqp_put_method(b, channel, AMQP_EXCHANGE_DECLARE_METHOD, &m, e);
    }
    if (o->kind == HP_AMQP_BINDING) {
        amqp_queue_bind_t m = {
            .queue = amqp_cstring_bytes(o->name),
            .exchange = amqp_cstring_bytes(o->exchange),
            .routing_key = amqp_cstring_bytes(""),
        };
        return hp_amqp_put_method(b, channel, AMQP_QUEUE_BIND_METHOD, &m, e);
    }
    return put_queue(b, channel, o, e);
}
