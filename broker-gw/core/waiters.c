#include "core/waiters.h"

#include <assert.h>
#include <string.h>

void gw_waiters_init(struct gw_waiters *ws, size_t count_max, uint64_t seed)
{
    *ws = (struct gw_waiters){.count_max = count_max};
    hp_map_init(&ws->by_operation, count_max, seed);
}

void gw_waiters_done(struct gw_waiters *ws)
{
    hp_map_done(&ws->by_operation);
}

int gw_waiters_add(struct gw_waiters *ws, struct gw_waiter *w, const char *operation)
{
    assert(!w->waiting && strlen(operation) <= HP_NAME_MAX);
    if (ws->count >= ws->count_max)
        return HP_ELIMIT;
    struct gw_waiter *first = hp_map_get(&ws->by_operation, operation);
    int rc = hp_map_put(&ws->by_operation, operation, w, NULL);
    if (rc < 0)
        return rc;
    memmove(w->key, operation, strlen(operation) + 1);
    w->before = NULL;
    w->next = first;
    if (first)
        first->before = w;
    w->waiting = true;
    ws->count++;
    return 0;
}

void gw_waiters_remove(struct gw_waiters *ws, struct gw_waiter *w)
{
    if (!w->waiting)
        return;
    assert(ws->count > 0);
    if (w->before)
        w->before->next = w->next;
    else if (!w->next)
        hp_map_remove(&ws->by_operation, w->key);
    else {
        int rc = hp_map_put(&ws->by_operation, w->key, w->next, NULL);
        assert(rc == 0); /* replacing allocates nothing */
    }
    if (w->next)
        w->next->before = w->before;
    w->next = w->before = NULL;
    w->waiting = false;
    ws->count--;
}

struct gw_waiter *gw_waiters_take(struct gw_waiters *ws, const char *operation)
{
    struct gw_waiter *w = hp_map_get(&ws->by_operation, operation);
    if (w)
        gw_waiters_remove(ws, w);
    return w;
}

bool gw_stage_terminal(Harpoon__V1__Stage stage)
{
    switch ((int)stage) {
    case HARPOON__V1__STAGE__STAGE_SUCCEEDED:
    case HARPOON__V1__STAGE__STAGE_REJECTED:
    case HARPOON__V1__STAGE__STAGE_FAILED:
    case HARPOON__V1__STAGE__STAGE_CANCELLED:
    case HARPOON__V1__STAGE__STAGE_EXPIRED:
        return true;
    default:
        return false;
    }
}

const Harpoon__V1__Operation *gw_event_ends(const Harpoon__V1__Event *e)
{
    if (e->data_case != HARPOON__V1__EVENT__DATA_OPERATION_DATA || !e->operation_data)
        return NULL;
    return gw_stage_terminal(e->operation_data->stage) ? e->operation_data : NULL;
}
