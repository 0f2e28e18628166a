/* reader.c — those who follow the events, and those who wait for an operation. I9 is held against every event that arrives: a watch that is resumed, at whichever gateway, goes on exactly, or is told
 * that it cannot. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/gateway.h"

enum { READERS = 3 };

struct reader {
    int index;
    bool started, only_operations;
    int64_t last; /* sequence */
    int unread;   /* since the gateway was told that all is taken */
    struct sim_watch *watch;
};

struct sim_readers {
    struct reader readers[READERS];
    int waiting; /* waits without an answer */
};

static void watch(struct sim_world *w, void *arg);

/* ---- Watches ---- */

static void begun(struct sim_world *w, struct sim_watch *x, int64_t cursor)
{
    struct reader *r = x->user;
    if (x->now)
        r->last = cursor;
    else if (x->after)
        sim_check(w, cursor == x->after, "I9", "a watch behind %" PRId64 " begins behind %" PRId64, x->after, cursor);
    else
        r->last = cursor;
    r->started = true;
}

/* Does this reader want to see it? */
static bool wanted(const struct sim_world *w, const struct reader *r, int64_t sequence)
{
    const Harpoon__V1__Event *e = w->record->events[sequence - 1].event;
    return e && (!r->only_operations || !strncmp(e->type, "harpoon.operation.", 18));
}

static void event(struct sim_world *w, struct sim_watch *x, int64_t sequence)
{
    struct reader *r = x->user;
    if (r->watch != x)
        return;
    bool known = sequence > 0 && sequence <= w->record->sequence;
    sim_check(w, known, "I9", "reader %d got event %" PRId64 ", which is not recorded", r->index, sequence);
    sim_check(w, sequence > r->last, "I9", "reader %d got event %" PRId64 " behind %" PRId64, r->index, sequence,
              r->last);
    if (!known)
        return;
    for (int64_t s = r->last + 1; s < sequence; s++)
        sim_check(w, !wanted(w, r, s), "I9", "reader %d was not given event %" PRId64 ", but %" PRId64, r->index, s,
                  sequence);
    sim_check(w, wanted(w, r, sequence), "I9", "reader %d was given event %" PRId64 " against its filter", r->index,
              sequence);
    r->last = sequence;
    if (++r->unread >= 4 && sim_chance(w, w->healed ? 100 : 40)) {
        r->unread = 0;
        sim_watch_taken(w, x);
    }
}

static void ended(struct sim_world *w, struct sim_watch *x, enum sim_watch_end why, int64_t oldest)
{
    struct reader *r = x->user;
    if (r->watch != x)
        return;
    r->watch = NULL;
    sim_check(w, why != SIM_WATCH_HOLE, "I9", "the record lacks the event behind %" PRId64, x->watch.cursor);
    if (why == SIM_WATCH_OUT_OF_RANGE) {
        sim_trace(w, "reader %d: out of range, the oldest is %" PRId64, r->index, oldest);
        sim_check(w, oldest > r->last + 1 && oldest <= w->record->oldest, "I9",
                  "reader %d is at %" PRId64 " and was told that the oldest is %" PRId64 "; it is %" PRId64, r->index,
                  r->last, oldest, w->record->oldest);
        r->last = oldest - 1;
    }
    sim_after(w, sim_between(w, 10 * SIM_MS, 2 * SIM_S), NULL, watch, r);
}

static void stalled(struct sim_world *w, void *arg)
{
    struct sim_watch *x = arg;
    const struct reader *r = x->user;
    if (r->watch == x)
        sim_watch_taken(w, x); /* a slow one */
    if (r->watch == x)
        sim_after(w, 3 * SIM_S, NULL, stalled, x);
}

static void watch(struct sim_world *w, void *arg)
{
    struct reader *r = arg;
    struct sim_watch *x = r->watch = sim_alloc(w, sizeof *x);
    x->user = r;
    x->now = !r->started && r->index == 1;
    x->after = r->last;
    x->only_operations = r->only_operations;
    x->begun_cb = begun;
    x->event_cb = event;
    x->end_cb = ended;
    r->unread = 0;
    sim_gateway_watch(w, (int)sim_below(w, (uint64_t)w->size.gateways), x);
    sim_after(w, 3 * SIM_S, NULL, stalled, x);
}

/* ---- Waits ---- */

static void wait_for(struct sim_world *w, void *arg);

static void waited(struct sim_world *w, struct sim_wait *x)
{
    const char *id = strrchr(x->operation, '/') + 1;
    if (sim_client_was_forgotten(w, id)) {
        w->readers->waiting--;
        return;
    }
    if (x->stage < 0 || !gw_stage_terminal((Harpoon__V1__Stage)x->stage)) {
        sim_after(w, sim_between(w, 100 * SIM_MS, 2 * SIM_S), NULL, wait_for, x->user);
        return;
    }
    const struct sim_operation_row *row = hp_map_get(&w->record->tables.operations, id);
    sim_check(w, (row && !row->active && row->stage == x->stage) || x->restored != w->record->restored, "I10",
              "a wait for %s was answered with stage %d; the record has %d", id, x->stage, row ? row->stage : -1);
    w->readers->waiting--;
}

static void wait_for(struct sim_world *w, void *arg)
{
    struct sim_wait *x = sim_alloc(w, sizeof *x);
    x->operation = x->user = arg;
    x->answer_cb = waited;
    x->restored = w->record->restored;
    sim_gateway_wait(w, (int)sim_below(w, (uint64_t)w->size.gateways), x);
}

void sim_reader_wait(struct sim_world *w, const char *operation)
{
    w->readers->waiting++;
    wait_for(w, sim_text(w, operation));
}

/* ---- Life ---- */

void sim_readers_new(struct sim_world *w)
{
    w->readers = sim_alloc(w, sizeof *w->readers);
    for (int i = 0; i < READERS; i++) {
        struct reader *r = &w->readers->readers[i];
        r->index = i;
        r->only_operations = i == 2;
        sim_after(w, w->o->scenario ? 0 : sim_between(w, 0, 5 * SIM_S), NULL, watch, r);
    }
}

const char *sim_readers_unrest(const struct sim_world *w)
{
    static char why[100];
    if (w->readers->waiting)
        return "a wait has no answer";
    for (int i = 0; i < READERS; i++) {
        const struct reader *r = &w->readers->readers[i];
        for (int64_t s = r->last + 1; s <= w->record->sequence; s++)
            if (wanted(w, r, s)) {
                snprintf(why, sizeof why, "reader %d has not been given event %" PRId64, i, s);
                return why;
            }
    }
    return NULL;
}
