/* scenario.c — the main paths, one at a time, without chance: each message takes equally long, and what happens is written down by hand. Their traces are committed (tests/sim/golden/). */
#include <stdio.h>
#include <string.h>

#include "core/agent_core.h"
#include "sim/job.h"

/* Done when its time after the last one has come and its condition holds. */
struct step {
    uint64_t after_ms;
    bool (*when)(struct sim_world *w); /* NULL: at once */
    void (*act)(struct sim_world *w);
};

/* ---- Conditions ---- */

static bool job_under_way(struct sim_world *w)
{
    for (int i = 0; i < w->size.hosts; i++)
        for (const struct sim_job *j = sim_host_runtime(w, i)->jobs; j; j = j->next)
            if (j->job.kind != HA_JOB_INSPECT)
                return true;
    return false;
}

static bool in_stage(struct sim_world *w, int stage)
{
    for (struct hp_map_node *n = hp_map_first(&w->record->tables.operations); n; n = hp_map_next(n)) {
        const struct sim_operation_row *row = n->value;
        if (row->active && row->stage == stage)
            return true;
    }
    return false;
}

static bool dispatched(struct sim_world *w)
{
    return in_stage(w, HARPOON__V1__STAGE__STAGE_DISPATCHED);
}

static bool requested(struct sim_world *w)
{
    return sim_queue_length(w, "requests.r1") > 0;
}

static bool settled(struct sim_world *w)
{
    return !sim_unrest(w);
}

/* ---- What happens ---- */

static void create(struct sim_world *w)
{
    sim_client_create(w, "web", 1000);
}

static void create_too_large(struct sim_world *w)
{
    sim_client_create(w, "web", 100000);
}

static void cancel(struct sim_world *w)
{
    sim_client_cancel_last(w);
}

static void resize(struct sim_world *w)
{
    sim_client_resize(w, "web", 2000);
}

static void update(struct sim_world *w)
{
    sim_client_update(w, "web", "oci:/images:other");
}

static void stop(struct sim_world *w)
{
    sim_client_verb(w, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP, "web");
}

static void start(struct sim_world *w)
{
    sim_client_verb(w, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START, "web");
}

static void restart(struct sim_world *w)
{
    sim_client_verb(w, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART, "web");
}

static void delete (struct sim_world *w)
{
    sim_client_verb(w, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE, "web");
}

static int holder(struct sim_world *w)
{
    for (int i = 0; i < w->size.hosts; i++)
        if (sim_host_runtime(w, i)->containers || sim_host_runtime(w, i)->jobs)
            return i;
    return 0;
}

static void kill_agent(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: the agent of h%d dies", holder(w));
    (void)sim_host_kill(w, holder(w), SIM_S);
}

static void reboot(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: h%d loses its power", holder(w));
    (void)sim_host_reboot(w, holder(w), 3 * SIM_S);
}

static void power_off(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: h%d loses its power for long", holder(w));
    (void)sim_host_reboot(w, holder(w), 60 * SIM_S);
}

static void declare_lost(struct sim_world *w)
{
    sim_client_declare_lost(w, holder(w));
}

static void full_disk(struct sim_world *w)
{
    for (int i = 0; i < w->size.hosts; i++)
        sim_host_disk_full(w, i, 2 * SIM_S);
    sim_trace(w, "ACCIDENT: no space on any disk for 2 s");
}

static void half_open(struct sim_world *w)
{
    for (int i = 0; i < w->size.hosts; i++)
        (void)sim_host_cut(w, i, true);
    sim_trace(w, "ACCIDENT: every link goes silent");
}

static void kill_routers(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: every router dies");
    for (int i = 0; i < w->size.routers; i++)
        (void)sim_router_kill(w, i, SIM_S);
}

static void kill_leader(struct sim_world *w)
{
    for (int i = 0; i < w->size.schedulers; i++)
        if (sim_scheduler_leads(w, i)) {
            sim_trace(w, "ACCIDENT: scheduler %d dies", i);
            (void)sim_scheduler_kill(w, i, 10 * SIM_S);
            return;
        }
}

/* The broker gives its token to another, and it goes on as if nothing had happened. */
static void lose_leader(struct sim_world *w)
{
    for (int i = 0; i < w->size.schedulers; i++)
        if (sim_scheduler_leads(w, i)) {
            sim_trace(w, "ACCIDENT: the broker has lost scheduler %d, which does not know it", i);
            (void)sim_scheduler_sever(w, i, 5 * SIM_S, 0);
            return;
        }
}

static void restart_broker(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: the broker restarts");
    (void)sim_broker_restart(w, 2 * SIM_S);
}

static void raise_alarm(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: an alarm of the broker");
    (void)sim_broker_alarm(w, true);
}

static void end_alarm(struct sim_world *w)
{
    sim_trace(w, "broker: the alarm is over");
    (void)sim_broker_alarm(w, false);
}

static void fill_queue(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: requests.r1 is full");
    sim_broker_full(w, "requests.r1", true);
}

static void empty_queue(struct sim_world *w)
{
    sim_trace(w, "broker: requests.r1 has room");
    sim_broker_full(w, "requests.r1", false);
}

static void unknown_commit(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: the answer of the next commit will be lost");
    w->record->unknown_next = 1;
}

static void stop_record(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: the record is down for 3 s");
    w->record->down_until = w->now + 3 * SIM_S;
}

static void repeat_commands(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: commands come twice, the second time late");
    w->repeat_until = w->now + 10 * SIM_S;
}

/* ---- The scenarios ---- */

enum { STEPS_MAX = 12 };

static const struct scenario {
    const char *name;
    struct step steps[STEPS_MAX];
} scenarios[] = {
    {"create", {{1000, NULL, create}}},
    {"resize", {{1000, NULL, create}, {1000, settled, resize}, {1000, settled, update}}},
    {"delete", {{1000, NULL, create}, {1000, settled, delete}}},
    {"stop-start-restart",
     {{1000, NULL, create}, {1000, settled, stop}, {1000, settled, start}, {1000, settled, restart}}},
    {"cancel", {{1000, NULL, create_too_large}, {1000, NULL, cancel}}},
    {"agent-restart-in-create", {{1000, NULL, create}, {0, job_under_way, kill_agent}}},
    {"agent-restart-in-delete", {{1000, NULL, create}, {1000, settled, delete}, {0, job_under_way, kill_agent}}},
    {"host-reboot", {{1000, NULL, create}, {1000, settled, reboot}}},
    {"host-lost", {{1000, NULL, create}, {1000, settled, power_off}, {40000, NULL, declare_lost}}},
    {"disk-full", {{1000, NULL, full_disk}, {0, NULL, create}}},
    {"link-half-open", {{1000, NULL, half_open}, {0, NULL, create}}},
    {"router-loss", {{1000, NULL, create}, {0, dispatched, kill_routers}}},
    {"scheduler-takeover", {{1000, NULL, create}, {0, dispatched, kill_leader}}},
    {"scheduler-fenced", {{1000, NULL, lose_leader}, {100, NULL, create}, {1000, NULL, resize}}},
    {"broker-outage", {{1000, NULL, create}, {0, requested, restart_broker}}},
    {"broker-alarm", {{1000, NULL, raise_alarm}, {100, NULL, create}, {7000, NULL, end_alarm}}},
    {"queue-full", {{1000, NULL, fill_queue}, {100, NULL, create}, {2000, NULL, empty_queue}}},
    {"unknown-commit", {{1000, NULL, unknown_commit}, {0, NULL, create}}},
    {"record-outage", {{1000, NULL, stop_record}, {0, NULL, create}}},
    {"late-repeats", {{1000, NULL, repeat_commands}, {0, NULL, create}, {300, NULL, delete}}},
};

bool sim_scenario_name(size_t i, const char **ret)
{
    if (i >= sizeof scenarios / sizeof *scenarios)
        return false;
    *ret = scenarios[i].name;
    return true;
}

bool sim_scenario_run(struct sim_world *w, const char *name)
{
    size_t i = 0;
    while (i < sizeof scenarios / sizeof *scenarios && strcmp(scenarios[i].name, name) != 0)
        i++;
    if (i == sizeof scenarios / sizeof *scenarios)
        return false;
    uint64_t due = w->now, end = w->now + 600 * SIM_S;
    for (const struct step *s = scenarios[i].steps; s < scenarios[i].steps + STEPS_MAX && s->act; s++) {
        due += s->after_ms * SIM_MS;
        while (sim_step(w, due))
            ;
        w->now = due;
        while (s->when && !s->when(w) && w->now < end && sim_step(w, end))
            ;
        sim_check(w, !s->when || s->when(w), "liveness", "the scenario does not go on");
        s->act(w);
        due = w->now;
    }
    while (sim_step(w, due + 5 * SIM_S))
        ;
    w->now = due + 5 * SIM_S;
    return true;
}
