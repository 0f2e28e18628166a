/* drain.c — a host is emptied: what may move is moved, a few at a time, and of each group one at a time.
 *
 * A drain is an operation that stays RECORDED until nothing is left to move; its reason tells how far it is. What it does next follows from the host's containers and from the
 * moves that name it as theirs, so a new reign goes on with it. It is looked at again whenever an event says that anything has changed, and when there is more room
 * somewhere; never by the clock. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

enum { STAYS_MAX = 8 };

/* What a look at the host finds. */
struct tally {
    int busy;    /* may move, and waits for its turn, or goes by itself */
    int no_room; /* may move, and fits nowhere */
    int stays;
    struct {
        const char *why;
        int count;
    } why[STAYS_MAX];
};

struct sc_operation *sc_drain_of(const struct sc_region *r, const struct sc_host *h)
{
    for (struct sc_list *l = r->drains.next; l != &r->drains; l = l->next) {
        struct sc_operation *op = SC_OWNER(l, struct sc_operation, wait);
        if (!strcmp(op->host, h->info.name))
            return op;
    }
    return NULL;
}

void sc_drain_begin(struct sc_region *r, struct sc_host *h, struct sc_operation *op)
{
    assert(op->verb == HARPOON__V1__VERB__VERB_DRAIN && !sc_drain_of(r, h));
    if (op->parallel <= 0)
        op->parallel = r->config.drain_parallel;
    sc_list_append(&r->drains, &op->wait);
    r->more_room = true; /* it is looked at with the next flush */
}

static void note_stay(struct tally *t, const char *why)
{
    t->stays++;
    for (int i = 0; i < STAYS_MAX; i++) {
        if (t->why[i].why && strcmp(t->why[i].why, why) != 0)
            continue;
        t->why[i].why = why;
        t->why[i].count++;
        return;
    }
}

static bool may_start(const struct sc_region *r, const struct sc_operation *op, const struct sc_container *c)
{
    return !r->restored && sc_list_empty(&c->queue) && !sc_container_removing(c) && !sc_move_group_busy(c) &&
           op->moving < op->parallel && sc_host_answers(c->host) && r->active_count < r->config.operations_max;
}

static void look_at(struct sc_region *r, struct sc_operation *op, struct sc_container *c, struct tally *t)
{
    const struct sc_operation *head = sc_container_head(c);
    const char *why = sc_move_stays(c);
    if (head && head->verb == HARPOON__V1__VERB__VERB_MOVE && !strcmp(head->parent, op->id))
        return; /* counted as moving */
    if (why && !sc_container_removing(c)) {
        note_stay(t, why);
        return;
    }
    c->no_room &= !r->more_room;
    if (c->no_room) {
        t->no_room++;
        return;
    }
    struct sc_host *to = may_start(r, op, c) ? sc_move_find(r, c, NULL, NULL, 0) : NULL;
    if (to) {
        sc_move_start(r, c, op, to);
    } else if (may_start(r, op, c)) {
        c->no_room = true;
        t->no_room++;
    } else {
        t->busy++;
    }
}

static void say(const struct tally *t, const struct sc_operation *op, char *out, size_t size)
{
    size_t n =
        (size_t)snprintf(out, size, "%d moved, %d moving, %d to move", op->moved, op->moving, t->busy + t->no_room);
    if (t->no_room && n < size)
        n += (size_t)snprintf(out + n, size - n, " (%d find no place)", t->no_room);
    if (n < size)
        n += (size_t)snprintf(out + n, size - n, "; %d stay", t->stays);
    for (int i = 0; i < STAYS_MAX && t->why[i].why && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%d %s", i ? ", " : ": ", t->why[i].count, t->why[i].why);
}

static void step(struct sc_region *r, struct sc_operation *op)
{
    char text[512];
    struct tally t = {0};
    struct sc_host *h = hp_map_get(&r->hosts, op->host);
    assert(h && op->active);
    for (struct sc_list *l = h->containers.next, *next; l != &h->containers && !r->failed; l = next) {
        next = l->next;
        look_at(r, op, SC_OWNER(l, struct sc_container, on_host), &t);
    }
    say(&t, op, text, sizeof text);
    if (op->moving || t.busy || t.no_room) {
        sc_operation_reason(r, op, text);
        return;
    }
    if (!t.stays) {
        sc_host_event(r, h, "drained", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, text);
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
        return;
    }
    sc_host_event(r, h, "drain_incomplete", HARPOON__V1__SEVERITY__SEVERITY_WARNING, op, text);
    sc_operation_end(
        r, op, HARPOON__V1__STAGE__STAGE_FAILED,
        hp_status_new(HP_CODE_FAILED_PRECONDITION, "DRAIN_INCOMPLETE", "host \"%s\": %s", h->info.name, text));
}

void sc_drain_try(struct sc_region *r)
{
    if (sc_list_empty(&r->drains)) {
        r->more_room = false;
        return;
    }
    if (r->drain_sequence == r->sequence && !r->more_room)
        return;
    for (struct sc_list *l = r->drains.next, *next; l != &r->drains && !r->failed; l = next) {
        next = l->next;
        step(r, SC_OWNER(l, struct sc_operation, wait));
    }
    r->drain_sequence = r->sequence;
    r->more_room = false;
}
