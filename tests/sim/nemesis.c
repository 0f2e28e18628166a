/* nemesis.c — accidents, one kind at a time, and their end. */
#include "sim/sim.h"

static int any(struct sim_world *w, int count)
{
    return (int)sim_below(w, (uint64_t)count);
}

/* Half of the time both ends notice together; otherwise one goes on for a while. */
static void delays(struct sim_world *w, uint64_t *client, uint64_t *broker)
{
    bool half = sim_chance(w, 50);
    *client = sim_between(w, 0, half ? 12 * SIM_S : 2 * SIM_MS);
    *broker = sim_between(w, 0, half ? 12 * SIM_S : 2 * SIM_MS);
}

static void kill_scheduler(struct sim_world *w)
{
    int i = any(w, SIM_SCHEDULERS);
    sim_trace(w, "ACCIDENT: scheduler %d dies", i);
    sim_scheduler_kill(w, i, sim_between(w, 100 * SIM_MS, 5 * SIM_S));
}

/* It sleeps on while the broker takes its token away, and wakes up as if nothing had happened. */
static void pause_scheduler(struct sim_world *w)
{
    int i = any(w, SIM_SCHEDULERS);
    uint64_t length = sim_between(w, 100 * SIM_MS, 15 * SIM_S);
    sim_trace(w, "ACCIDENT: scheduler %d sleeps for %.3f s", i, (double)length / 1e6);
    sim_scheduler_pause(w, i, length);
    if (sim_chance(w, 70))
        sim_scheduler_sever(w, i, length + sim_between(w, 0, SIM_S), sim_between(w, 0, length));
}

static void sever_scheduler(struct sim_world *w)
{
    uint64_t client, broker;
    int i = any(w, SIM_SCHEDULERS);
    delays(w, &client, &broker);
    sim_trace(w, "ACCIDENT: scheduler %d loses the broker in %.3f s, the broker it in %.3f s", i, (double)client / 1e6,
              (double)broker / 1e6);
    sim_scheduler_sever(w, i, client, broker);
}

static void kill_router(struct sim_world *w)
{
    int i = any(w, SIM_ROUTERS);
    sim_trace(w, "ACCIDENT: router %d dies", i);
    sim_router_kill(w, i, sim_between(w, 50 * SIM_MS, 5 * SIM_S));
}

static void drain_router(struct sim_world *w)
{
    int i = any(w, SIM_ROUTERS);
    sim_trace(w, "ACCIDENT: router %d drains", i);
    sim_router_drain(w, i);
}

static void sever_router(struct sim_world *w)
{
    uint64_t client, broker;
    int i = any(w, SIM_ROUTERS);
    delays(w, &client, &broker);
    sim_trace(w, "ACCIDENT: router %d loses the broker", i);
    sim_router_sever(w, i, client, broker);
}

static void kill_agent(struct sim_world *w)
{
    int i = any(w, SIM_HOSTS);
    sim_trace(w, "ACCIDENT: agent %d dies", i);
    sim_host_kill(w, i, sim_between(w, 20 * SIM_MS, 5 * SIM_S));
}

static void cut_link(struct sim_world *w)
{
    int i = any(w, SIM_HOSTS);
    bool half = sim_chance(w, 40);
    sim_trace(w, "ACCIDENT: link of host %d %s", i, half ? "goes silent" : "is reset");
    sim_host_cut(w, i, half);
}

static void stop_record(struct sim_world *w)
{
    w->record->down_until = w->now + sim_between(w, 50 * SIM_MS, 8 * SIM_S);
    sim_trace(w, "ACCIDENT: the record is down until %.3f s", (double)w->record->down_until / 1e6);
}

static void unknown_commits(struct sim_world *w)
{
    w->record->unknown_next = 1 + any(w, 3);
    sim_trace(w, "ACCIDENT: the answers of %d commits will be lost", w->record->unknown_next);
}

static void restart_broker(struct sim_world *w)
{
    uint64_t down = sim_between(w, 100 * SIM_MS, 5 * SIM_S);
    sim_trace(w, "ACCIDENT: the broker restarts, %.3f s", (double)down / 1e6);
    sim_broker_restart(w, down);
}

static void exits(struct sim_world *w)
{
    int n = 1 + any(w, 3);
    sim_trace(w, "ACCIDENT: %d containers exit", n);
    while (n--)
        sim_runtime_exit(w, any(w, SIM_HOSTS));
}

static void failing_runtime(struct sim_world *w)
{
    int i = any(w, SIM_HOSTS);
    sim_host_runtime(w, i)->fail_next = 1 + any(w, 3);
    sim_trace(w, "ACCIDENT: the runtime of host %d fails", i);
}

static void slow_runtime(struct sim_world *w)
{
    int i = any(w, SIM_HOSTS);
    sim_host_runtime(w, i)->slow_until = w->now + sim_between(w, SIM_S, 10 * SIM_S);
    sim_trace(w, "ACCIDENT: the runtime of host %d is slow", i);
}

static void clock_jump(struct sim_world *w)
{
    int64_t jump = ((int64_t)sim_below(w, 240) - 120) * 1000000000;
    w->wall_offset_ns += jump;
    sim_trace(w, "ACCIDENT: the wall clock jumps by %d s", (int)(jump / 1000000000));
}

static void slow_network(struct sim_world *w)
{
    w->slow_until = w->now + sim_between(w, SIM_S, 8 * SIM_S);
    sim_trace(w, "ACCIDENT: the network is slow");
}

static void repeat_commands(struct sim_world *w)
{
    w->repeat_until = w->now + sim_between(w, SIM_S, 6 * SIM_S);
    sim_trace(w, "ACCIDENT: commands come twice, the second time late");
}

static void sever_gateway(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: the gateway loses the broker");
    sim_gateway_sever(w);
}

void sim_accident(struct sim_world *w)
{
    static void (*const kinds[])(struct sim_world *) = {
        kill_scheduler, pause_scheduler, sever_scheduler, kill_router,     drain_router, sever_router,
        kill_agent,     kill_agent,      cut_link,        cut_link,        stop_record,  unknown_commits,
        restart_broker, exits,           failing_runtime, failing_runtime, slow_runtime, clock_jump,
        slow_network,   sever_gateway,   repeat_commands};
    w->faults++;
    kinds[sim_below(w, sizeof kinds / sizeof *kinds)](w);
}

void sim_heal(struct sim_world *w)
{
    sim_trace(w, "HEALED");
    w->healed = true;
    w->slow_until = w->repeat_until = 0;
    w->record->down_until = 0;
    w->record->unknown_next = 0;
    for (int i = 0; i < SIM_HOSTS; i++)
        sim_host_runtime(w, i)->slow_until = 0;
}
