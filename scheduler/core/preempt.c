/* preempt.c — creates that make others go: when no host has room for a create that may preempt, containers of lower priority on one host are moved away for it.
 *
 *   waits ─▶ victims chosen, what is free on their host held ─▶ each victim moves (move.c); what it leaves is added to what is held ─▶ all of the place is held ─▶ PLACED there
 *     ▲                                   │
 *     └───────────────────────────────────┘ the host is given up or cordoned, or a victim stays after all: the place is let go, and another one looked for
 *
 * What is held is never more than what is free, so claims stay within capacity at every moment, and what becomes free there is the create's before anybody else is asked. The create is sent
 * only when each victim's host has confirmed its removal: until then the victim's own claim keeps the place. A victim goes the way of a drain's: by a move that has an operation of its own
 * (preempted_by says for whom), to another place if there is one, else it waits for one; so nothing is lost, and a new reign goes on from the record: the create's held_host, the
 * victims' `leaving`. When the create ends before, they move all the same.
 *
 * It is looked at when an event says that something has changed, and never by the clock: on hosts where a container's last operation has ended or room has come; on all hosts once for each
 * create. At most preempt_parallel containers are being removed for others at a time. With the brake on, or while a restored record is compared, nothing begins. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

enum { LOOKS_MAX = 64, LOOKS_ALL_MAX = 2 }; /* in one go; at all hosts */

static bool is_wanted(const struct sc_region *r, const struct sc_operation *op)
{
    return r->config.preemption && op->verb == HARPOON__V1__VERB__VERB_CREATE &&
           sc_preempts(sc_body(op->container)->spec);
}

void sc_preempt_waits(struct sc_region *r, struct sc_operation *op)
{
    int priority = sc_priority(sc_body(op->container)->spec);
    if (!is_wanted(r, op))
        return;
    struct sc_list *after = r->preemptors.prev;
    while (after != &r->preemptors &&
           sc_priority(sc_body(SC_OWNER(after, struct sc_operation, preemptor)->container)->spec) < priority)
        after = after->prev;
    sc_list_append(after->next, &op->preemptor); /* before the next one */
}

bool sc_preempt_under_way(const struct sc_operation *op)
{
    return op->hold && !sc_list_empty(&op->hold->preemption);
}

void sc_preempt_note(struct sc_region *r, const struct sc_host *h)
{
    if (!sc_list_empty(&r->preemptors))
        sc_slots_add(&r->prey, h);
}

/* ---- The place that grows ---- */

static int64_t least(int64_t want, int64_t have, int64_t more)
{
    int64_t all = have + (more > 0 ? more : 0);
    return want < all ? want : all;
}

/* Of cpu, memory and disk what there is; of what only some hosts have all of it, or nothing. */
static struct sc_res there_is(const struct sc_hold *x)
{
    const struct sc_slot *s = sc_host_slot(x->host);
    const struct sc_res *want = &sc_traits(x->op->container)->claim;
    struct sc_res fresh = *want, more = *want;
    sc_res_sub(&more, &x->res);
    more.cpu_millis = more.memory_bytes = more.disk_bytes = 0;
    if (sc_slot_check_room(s, &more) != SC_FITS)
        fresh = x->res;
    fresh.cpu_millis = least(want->cpu_millis, x->res.cpu_millis, s->free.cpu_millis);
    fresh.memory_bytes = least(want->memory_bytes, x->res.memory_bytes, s->free.memory_bytes);
    fresh.disk_bytes = least(want->disk_bytes, x->res.disk_bytes, s->free.disk_bytes);
    return fresh;
}

static void grow(struct sc_region *r, struct sc_hold *x)
{
    const struct sc_res fresh = there_is(x), old = x->res;
    if (!memcmp(&fresh, &old, sizeof old))
        return;
    sc_host_claim(r, x->host, &old, &fresh);
    sc_host_dirty(r, x->host, false);
    x->res = fresh;
}

static bool is_whole(const struct sc_hold *x)
{
    return !memcmp(&x->res, &sc_traits(x->op->container)->claim, sizeof x->res);
}

void sc_preempt_freed(struct sc_region *r, const struct sc_host *h)
{
    sc_preempt_note(r, h);
    for (struct sc_list *l = r->preemptions.next; l != &r->preemptions; l = l->next) {
        struct sc_hold *x = SC_OWNER(l, struct sc_hold, preemption);
        if (x->host == h)
            grow(r, x);
    }
}

void sc_preempt_resized(struct sc_region *r, struct sc_operation *op)
{
    struct sc_res old = op->hold->res;
    grow(r, op->hold);
    if (memcmp(&op->hold->res, &old, sizeof old) != 0)
        sc_pending_freed(r, op->hold->host);
}

static bool hold(struct sc_region *r, struct sc_operation *op, struct sc_host *h)
{
    const struct sc_res nothing = {0};
    /* What its volumes claim must be free before anybody goes: who has volumes does not. */
    if (!sc_hold_take(r, op, h, &nothing, op->container->storage, sc_traits(op->container)->group))
        return false;
    sc_list_append(&r->preemptions, &op->hold->preemption);
    return true;
}

void sc_preempt_load(struct sc_region *r, struct sc_operation *op, const char *held)
{
    struct sc_host *h = hp_map_get(&r->hosts, held);
    if (h)
        (void)hold(r, op, h); /* without memory the region has failed */
}

void sc_preempt_lead(struct sc_region *r)
{
    for (struct sc_list *l = r->preemptions.next; l != &r->preemptions; l = l->next)
        grow(r, SC_OWNER(l, struct sc_hold, preemption));
    r->prey.all = true;
}

void sc_preempt_over(struct sc_region *r, struct sc_operation *op)
{
    if (r->preempt_next == &op->preemptor)
        r->preempt_next = op->preemptor.next;
    sc_list_remove(&op->preemptor);
    if (sc_preempt_under_way(op))
        sc_hold_drop(r, op);
}

/* ---- Its course ---- */

static bool is_given_up(const struct sc_host *h)
{
    return h->voice == SC_VOICE_NONE || sc_host_slot(h)->cordoned;
}

/* Whether the host will have room when all that is being removed there is gone. */
static bool is_coming(const struct sc_hold *x)
{
    struct sc_slot slot = *sc_host_slot(x->host);
    struct sc_slot_info info = *slot.info;
    slot.info = &info;
    sc_slot_claim(&slot, &x->res, NULL);
    for (const struct sc_list *l = x->host->containers.next; l != &x->host->containers; l = l->next) {
        const struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (sc_container_removing(c))
            sc_slot_claim(&slot, &sc_traits(c)->claim, NULL);
    }
    return sc_slot_check_room(&slot, &sc_traits(x->op->container)->claim) == SC_FITS;
}

/* It has let its place go, and waits as before. */
static void look_elsewhere(struct sc_region *r, struct sc_operation *op, const struct sc_host *h)
{
    char text[256];
    snprintf(text, sizeof text, "the place on host \"%s\" was let go: another one is looked for", h->info.name);
    sc_operation_reason(r, op, text);
    op->preempt_looked = false;
    sc_preempt_waits(r, op);
    r->freed.all = true; /* also where nobody has to go */
    sc_timer_set(r, &r->pending_timer, 0);
}

static void step(struct sc_region *r, struct sc_hold *x)
{
    struct sc_operation *op = x->op;
    struct sc_host *h = x->host;
    grow(r, x);
    bool whole = is_whole(x);
    if (whole && !r->restored && sc_host_answers(h)) {
        sc_preempt_over(r, op);
        if (r->failed || sc_stray_bars(r, op))
            return;
        if (sc_place_fits(r, op->container, op, h))
            sc_place_on(r, op->container, op, h, "creating");
        else
            look_elsewhere(r, op, h);
    } else if (is_given_up(h) || (!whole && !is_coming(x))) {
        sc_preempt_over(r, op);
        look_elsewhere(r, op, h);
    }
}

/* ---- Its begin ---- */

static void begin(struct sc_region *r, struct sc_operation *op, const struct sc_victims *v)
{
    char victims[800], text[1024];
    struct sc_container *c = op->container;
    sc_victims_text(v, victims, sizeof victims);
    if (v->count)
        snprintf(text, sizeof text, "preempts on host \"%s\": %s", v->host->info.name, victims);
    else
        snprintf(text, sizeof text, "waits for what is being removed on host \"%s\"", v->host->info.name);
    if (!hold(r, op, v->host))
        return;
    grow(r, op->hold);
    op->preempt_looked = false;
    sc_operation_reason(r, op, text);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING, text);
    if (v->count)
        sc_container_event(r, c, "preempting", HARPOON__V1__SEVERITY__SEVERITY_WARNING, op, text);
    for (int i = 0; i < v->count && !r->failed; i++) {
        struct sc_container *victim = v->list[i];
        snprintf(text, sizeof text, "has priority %d, and makes room for \"%s\" of priority %d (operation %s)",
                 sc_priority(sc_body(victim)->spec), c->name, sc_priority(sc_body(c)->spec), op->id);
        sc_container_event(r, victim, "preempted", HARPOON__V1__SEVERITY__SEVERITY_WARNING, op, text);
        r->preempted++;
        sc_move_start(r, victim, op, sc_move_find(r, victim, NULL, NULL, 0));
    }
}

/* False: it has to wait until fewer are being removed. */
static bool look(struct sc_region *r, struct sc_operation *op, bool all)
{
    char text[512];
    struct sc_query q;
    struct sc_victims v;
    struct sc_container *c = op->container;
    if (sc_stray_bars(r, op))
        return true;
    sc_query_of(r, &q, c, op);
    ptrdiff_t best = sc_places_best(r, &q);
    if (best >= 0) {
        sc_place_on(r, c, op, r->slots[best].info->host, "creating");
        return true;
    }
    sc_place_survey(r->slots, r->slot_count, &q);
    sc_victims_find(r, &q, sc_priority(sc_body(c)->spec), all ? NULL : &r->preyed, &v);
    if (r->failed)
        return false;
    if (v.host && (r->victims + v.count > r->config.preempt_parallel ||
                   r->active_count + (size_t)v.count > r->config.operations_max))
        return false;
    if (v.host) {
        begin(r, op, &v);
        return true;
    }
    if (all && !op->preempt_looked && op->reason && !strstr(op->reason, "nobody to preempt")) {
        snprintf(text, sizeof text, "%.400s; nobody to preempt makes room", op->reason);
        sc_operation_reason(r, op, text);
        sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING, text);
    }
    op->preempt_looked |= all;
    return true;
}

static bool may_begin(const struct sc_region *r)
{
    return r->config.preemption && !r->restored && !r->braked && r->victims < r->config.preempt_parallel &&
           !sc_list_empty(&r->preemptors);
}

/* False: it waits for something to happen. */
static bool look_round(struct sc_region *r)
{
    int looks = 0, wide = 0;
    for (; r->preempt_next != &r->preemptors && looks < LOOKS_MAX && wide < LOOKS_ALL_MAX && may_begin(r); looks++) {
        struct sc_operation *op = SC_OWNER(r->preempt_next, struct sc_operation, preemptor);
        struct sc_list *next = op->preemptor.next;
        bool all = r->preyed.all || !op->preempt_looked;
        if (sc_preempt_under_way(op) || (!all && !r->preyed.count)) {
            r->preempt_next = next;
            continue;
        }
        wide += all;
        if (!look(r, op, all) || r->failed)
            return false; /* here it goes on */
        r->preempt_next = next;
    }
    if (r->preempt_next == &r->preemptors)
        r->preempt_next = NULL;
    return true;
}

/* One that came since, or let its place go, has not looked anywhere. */
static bool is_new(const struct sc_region *r)
{
    for (const struct sc_list *l = r->preemptors.next; l != &r->preemptors; l = l->next) {
        const struct sc_operation *op = SC_OWNER(l, struct sc_operation, preemptor);
        if (!op->preempt_looked && !sc_preempt_under_way(op))
            return true;
    }
    return false;
}

/* There is somebody to look for, or somewhere to look. */
static bool is_due(const struct sc_region *r)
{
    return may_begin(r) && (r->preempt_next || r->prey.all || r->prey.count || is_new(r));
}

void sc_preempt_try(struct sc_region *r)
{
    for (struct sc_list *l = r->preemptions.next, *next; l != &r->preemptions && !r->failed; l = next) {
        next = l->next;
        step(r, SC_OWNER(l, struct sc_hold, preemption));
    }
    if (sc_list_empty(&r->preemptors))
        r->prey = (struct sc_slots){0};
    if (r->failed || !is_due(r))
        return;
    if (!r->preempt_next) {
        r->preyed = r->prey;
        r->prey = (struct sc_slots){0};
        r->preempt_next = r->preemptors.next;
    }
    if (!look_round(r) || r->failed)
        return;
    if (is_due(r))
        sc_timer_set(r, &r->pending_timer, 0);
}
