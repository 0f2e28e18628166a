/* preempt.c — in a quarter of the seeds hosts are small, containers differ in priority, and those with a higher one may preempt: who is told to go, and whether there was room for all that was made. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "sim/sim.h"
#include "wire/codec.h"

enum { SMALL_CPU_MILLIS = 2200, CPU_MILLIS = 8000 };

bool sim_preempts(const struct sim_world *w)
{
    return !w->o->scenario && w->seed % 4 == 2;
}

int64_t sim_preempt_cpu(const struct sim_world *w)
{
    return sim_preempts(w) ? SMALL_CPU_MILLIS : CPU_MILLIS;
}

bool sim_preempt_placement(const struct sim_world *w, const char *name, Harpoon__V1__PlacementSpec *ret)
{
    static const int priorities[] = {-8, 7, -3, 5, -5};
    int number = atoi(name + 1);
    if (!sim_preempts(w))
        return false;
    harpoon__v1__placement_spec__init(ret);
    ret->priority = priorities[number % 5];
    ret->may_preempt = number % 5 == 1 || number % 2;
    if (number % 7 == 3)
        ret->role = HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY;
    return true;
}

/* What the record has of it; NULL: nothing. */
static Harpoon__Internal__V1__ContainerRecord *recorded(const struct sim_world *w, const char *name)
{
    const struct sim_row *row = hp_map_get(&w->record->tables.containers, name);
    if (!row || row->gone)
        return NULL;
    return sim_unpack(&harpoon__internal__v1__container_record__descriptor, row->body->bytes, row->body->len);
}

void sim_preempt_check(struct sim_world *w, const Harpoon__V1__Operation *move)
{
    Harpoon__Internal__V1__ContainerRecord *victim = recorded(w, move->target), *by = recorded(w, move->preempted_by);
    const Harpoon__V1__PlacementSpec *p = victim ? victim->container->spec->placement : NULL,
                                     *q = by ? by->container->spec->placement : NULL;
    if (p) {
        sim_check(w, p->role != HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY, "preemption",
                  "%s is a primary, and has to go for %s", move->target, move->preempted_by);
        sim_check(w, p->priority < 0, "preemption", "%s of priority %d has to go", move->target, p->priority);
        sim_check(w, victim->container->spec->stateless, "preemption", "%s may not move, and has to go", move->target);
    }
    if (p && q) {
        sim_check(w, q->may_preempt, "preemption", "%s may not preempt, and %s has to go for it", move->preempted_by,
                  move->target);
        sim_check(w, p->priority < q->priority, "preemption", "%s of priority %d has to go for %s of priority %d",
                  move->target, p->priority, move->preempted_by, q->priority);
    }
    if (victim)
        hp_unpacked_free(&victim->base);
    if (by)
        hp_unpacked_free(&by->base);
}

/* I7, where it counts: a container is started for the first time when there is room for it. A host that was given up, or that an older record knows, has what nobody counts. */
void sim_preempt_made(struct sim_world *w, int host)
{
    int64_t sum = 0;
    if (w->record->restored || sim_host_given_up(w, host))
        return;
    for (const struct sim_container *c = sim_host_runtime(w, host)->containers; c; c = c->next)
        sum += c->running ? c->cpu_millis : 0; /* what does not run gets its limits when it does */
    sim_check(w, sum <= sim_preempt_cpu(w) * 3 / 2, "I7",
              "h%d has containers of %" PRId64 " cpu_millis, and room for %d", host, sum,
              (int)(sim_preempt_cpu(w) * 3 / 2));
}
