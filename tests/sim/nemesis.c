/* nemesis.c — accidents, one kind at a time, and their end. Each says whether it hit anything: only those count. */
#include "sim/sim.h"

enum { RESTORES_PERCENT = 15 }; /* of the nights' seeds */
#define SECONDS(us_) ((double)(us_) / 1e6)

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

/* ---- Processes, and their connections to the broker ---- */

struct actor {
    const char *name;
    size_t count; /* offset in struct sim_size */
    uint64_t away_least, sleep_most;
    bool (*kill)(struct sim_world *w, int i, uint64_t restart_after);
    struct sim_process *(*process)(struct sim_world *w, int i);
    bool (*sever)(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay);
    struct sim_connection *(*connection)(struct sim_world *w, int i);
};

enum { SCHEDULER, ROUTER, GATEWAY, AGENT };

static const struct actor actors[] = {
    {"scheduler", offsetof(struct sim_size, schedulers), 100 * SIM_MS, 15 * SIM_S, sim_scheduler_kill,
     sim_scheduler_process, sim_scheduler_sever, sim_scheduler_connection},
    {"router", offsetof(struct sim_size, routers), 50 * SIM_MS, 15 * SIM_S, sim_router_kill, sim_router_process,
     sim_router_sever, sim_router_connection},
    {"gateway", offsetof(struct sim_size, gateways), 50 * SIM_MS, 8 * SIM_S, sim_gateway_kill, sim_gateway_process,
     sim_gateway_sever, sim_gateway_connection},
    {"agent", offsetof(struct sim_size, hosts), 20 * SIM_MS, 15 * SIM_S, sim_host_kill, sim_host_process, NULL, NULL},
};

static int any_of(struct sim_world *w, const struct actor *a)
{
    return any(w, *(const int *)(const void *)((const char *)&w->size + a->count));
}

static bool die(struct sim_world *w, const struct actor *a)
{
    int i = any_of(w, a);
    sim_trace(w, "ACCIDENT: %s %d dies", a->name, i);
    return a->kill(w, i, sim_between(w, a->away_least, 5 * SIM_S));
}

static bool fall_asleep(struct sim_world *w, const struct actor *a)
{
    int i = any_of(w, a);
    uint64_t length = sim_between(w, 100 * SIM_MS, a->sleep_most);
    sim_trace(w, "ACCIDENT: %s %d sleeps for %.3f s", a->name, i, SECONDS(length));
    if (!sim_process_pause(w, a->process(w, i), length))
        return false;
    /* A scheduler sleeps on while the broker takes its token away, and wakes up as if nothing had happened. */
    if (a == &actors[SCHEDULER] && sim_chance(w, 70))
        (void)a->sever(w, i, length + sim_between(w, 0, SIM_S), sim_between(w, 0, length));
    return true;
}

static bool lose_broker(struct sim_world *w, const struct actor *a)
{
    uint64_t client, broker;
    int i = any_of(w, a);
    delays(w, &client, &broker);
    sim_trace(w, "ACCIDENT: %s %d loses the broker in %.3f s, the broker it in %.3f s", a->name, i, SECONDS(client),
              SECONDS(broker));
    return a->sever(w, i, client, broker);
}

static bool kill_scheduler(struct sim_world *w)
{
    return die(w, &actors[SCHEDULER]);
}

static bool pause_scheduler(struct sim_world *w)
{
    return fall_asleep(w, &actors[SCHEDULER]);
}

static bool sever_scheduler(struct sim_world *w)
{
    return lose_broker(w, &actors[SCHEDULER]);
}

static bool kill_router(struct sim_world *w)
{
    return die(w, &actors[ROUTER]);
}

static bool drain_router(struct sim_world *w)
{
    int i = any(w, w->size.routers);
    sim_trace(w, "ACCIDENT: router %d drains", i);
    return sim_router_drain(w, i);
}

static bool pause_router(struct sim_world *w)
{
    return fall_asleep(w, &actors[ROUTER]);
}

static bool sever_router(struct sim_world *w)
{
    return lose_broker(w, &actors[ROUTER]);
}

static bool kill_gateway(struct sim_world *w)
{
    return die(w, &actors[GATEWAY]);
}

static bool pause_gateway(struct sim_world *w)
{
    return fall_asleep(w, &actors[GATEWAY]);
}

static bool sever_gateway(struct sim_world *w)
{
    return lose_broker(w, &actors[GATEWAY]);
}

static bool kill_agent(struct sim_world *w)
{
    return die(w, &actors[AGENT]);
}

static bool pause_agent(struct sim_world *w)
{
    return fall_asleep(w, &actors[AGENT]);
}

/* One direction of somebody's connection to the broker stands still; for long, and the heartbeats end it. */
static bool one_way_broker(struct sim_world *w)
{
    bool to = sim_chance(w, 50);
    uint64_t length = sim_between(w, 100 * SIM_MS, 14 * SIM_S);
    const struct actor *a = &actors[any(w, AGENT)];
    int i = any_of(w, a);
    struct sim_connection *c = a->connection(w, i);
    if (!c || !c->client_up)
        return false;
    sim_trace(w, "ACCIDENT: nothing passes %s the broker %s %s %d for %.3f s", to ? "to" : "from", to ? "from" : "to",
              a->name, i, SECONDS(length));
    sim_connection_stall(w, c, to, length);
    if (length > 9 * SIM_S)
        sim_break_connection(w, c, length + sim_between(w, 0, SIM_S), sim_between(w, 8 * SIM_S, length));
    return true;
}

/* ---- The broker ---- */

static bool restart_broker(struct sim_world *w)
{
    uint64_t down = sim_between(w, 100 * SIM_MS, 5 * SIM_S);
    sim_trace(w, "ACCIDENT: the broker restarts, %.3f s", SECONDS(down));
    return sim_broker_restart(w, down);
}

static void alarm_over(struct sim_world *w, void *arg)
{
    sim_trace(w, "broker: the alarm is over");
    sim_broker_alarm(w, false);
}

static bool alarm_broker(struct sim_world *w)
{
    uint64_t length = sim_between(w, 100 * SIM_MS, 8 * SIM_S);
    sim_trace(w, "ACCIDENT: an alarm of the broker, %.3f s", SECONDS(length));
    if (!sim_broker_alarm(w, true))
        return false;
    sim_after(w, length, NULL, alarm_over, NULL);
    return true;
}

static void room_in_requests(struct sim_world *w, void *arg)
{
    sim_broker_limit(w, "requests.r1", 0);
}

static void room_in_reports(struct sim_world *w, void *arg)
{
    sim_broker_limit(w, "reports.r1", 0);
}

static bool full_queue(struct sim_world *w)
{
    bool requests = sim_chance(w, 50);
    const char *queue = requests ? "requests.r1" : "reports.r1";
    sim_trace(w, "ACCIDENT: %s is full", queue);
    sim_broker_limit(w, queue, 1 + sim_below(w, 3));
    sim_after(w, sim_between(w, 200 * SIM_MS, 6 * SIM_S), NULL, requests ? room_in_requests : room_in_reports, NULL);
    return true;
}

static bool delete_queue(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: somebody deletes requests.r1");
    return sim_broker_delete(w, "requests.r1", sim_between(w, 50 * SIM_MS, 3 * SIM_S));
}

static bool stall_stream(struct sim_world *w)
{
    uint64_t length = sim_between(w, 500 * SIM_MS, 8 * SIM_S);
    sim_trace(w, "ACCIDENT: the stream takes nothing in for %.3f s", SECONDS(length));
    sim_stream_stall(w, length);
    return true;
}

static bool reorder(struct sim_world *w)
{
    sim_trace(w, "ACCIDENT: the next redeliveries come out of order");
    sim_broker_reorder(w, 1 + (uint32_t)any(w, 3));
    return true;
}

/* ---- The record ---- */

static bool stop_record(struct sim_world *w)
{
    w->record->down_until = w->now + sim_between(w, 50 * SIM_MS, 8 * SIM_S);
    sim_trace(w, "ACCIDENT: the record is down until %.3f s", SECONDS(w->record->down_until));
    return true;
}

static bool cut_record(struct sim_world *w)
{
    int i = any(w, w->size.schedulers + w->size.gateways);
    bool gateway = i >= w->size.schedulers;
    uint64_t *cut = gateway ? &w->record->cut_gateway[i - w->size.schedulers] : &w->record->cut_scheduler[i];
    *cut = w->now + sim_between(w, 50 * SIM_MS, 8 * SIM_S);
    sim_trace(w, "ACCIDENT: %s %d cannot reach the record until %.3f s", gateway ? "gateway" : "scheduler",
              gateway ? i - w->size.schedulers : i, SECONDS(*cut));
    return true;
}

static bool unknown_commits(struct sim_world *w)
{
    w->record->unknown_next = 1 + any(w, 3);
    sim_trace(w, "ACCIDENT: the answers of %d commits will be lost", w->record->unknown_next);
    return true;
}

static void make_backup(struct sim_world *w, void *arg)
{
    sim_record_back_up(w);
}

static void restore_record(struct sim_world *w, void *arg)
{
    uint64_t down = sim_between(w, 100 * SIM_MS, 3 * SIM_S);
    sim_trace(w, "ACCIDENT: the record is lost; the backup takes its place, in %.3f s", SECONDS(down));
    w->faults += sim_record_restore(w, down);
}

/* ---- Hosts ---- */

static bool cut_link(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    bool half = sim_chance(w, 40);
    sim_trace(w, "ACCIDENT: link of host %d %s", i, half ? "goes silent" : "is reset");
    return sim_host_cut(w, i, half);
}

static bool one_way_link(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    bool up = sim_chance(w, 50);
    uint64_t length = sim_between(w, 100 * SIM_MS, 25 * SIM_S);
    sim_trace(w, "ACCIDENT: nothing passes %s host %d for %.3f s", up ? "from" : "to", i, SECONDS(length));
    return sim_host_stall(w, i, up, length);
}

/* The others reach both. */
static bool partition(struct sim_world *w)
{
    int h = any(w, w->size.hosts), r = any(w, w->size.routers);
    uint64_t length = sim_between(w, SIM_S, 20 * SIM_S);
    w->cut[h][r] = w->now + length;
    sim_trace(w, "ACCIDENT: host %d and router %d are apart for %.3f s", h, r, SECONDS(length));
    (void)sim_host_part(w, h, r);
    return true;
}

static bool full_disk(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    uint64_t length = sim_between(w, 100 * SIM_MS, 6 * SIM_S);
    sim_trace(w, "ACCIDENT: no space on the disk of host %d for %.3f s", i, SECONDS(length));
    sim_host_disk_full(w, i, length);
    return true;
}

static bool disk_error(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    sim_trace(w, "ACCIDENT: the next write to the disk of host %d fails", i);
    sim_host_disk_error(w, i);
    return true;
}

static bool slow_disk(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    uint64_t length = sim_between(w, SIM_S, 6 * SIM_S);
    sim_trace(w, "ACCIDENT: the disk of host %d is slow for %.3f s", i, SECONDS(length));
    sim_host_disk_slow(w, i, length);
    return true;
}

static bool reboot(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    sim_trace(w, "ACCIDENT: host %d loses its power", i);
    return sim_host_reboot(w, i, sim_between(w, 500 * SIM_MS, 8 * SIM_S));
}

/* Its disk was replaced, or an operator has put a damaged journal aside. */
static bool lose_journal(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    bool all = sim_chance(w, 50);
    if (w->record->backup)
        return false; /* what was removed after a backup, and is not remembered as removed, is made again (docs/OPERATIONS.md) */
    sim_trace(w, "ACCIDENT: agent %d dies and loses its journal%s", i, all ? ", and all its containers" : "");
    return sim_host_lose_journal(w, i, sim_between(w, 20 * SIM_MS, 8 * SIM_S), all);
}

static void declare(struct sim_world *w, void *arg)
{
    const int *i = arg;
    sim_client_declare_lost(w, *i);
}

/* The operator knows that the machine is off. */
static bool lose_host(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    uint64_t down = sim_between(w, 5 * SIM_S, 20 * SIM_S);
    sim_trace(w, "ACCIDENT: host %d loses its power, and an operator will give it up", i);
    if (!sim_host_reboot(w, i, down))
        return false;
    sim_after(w, sim_between(w, SIM_S, down), NULL, declare, sim_copy(w, &i, sizeof i));
    return true;
}

/* The operator takes it for dead: it is cut off, and runs on. */
static bool lose_running_host(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    uint64_t length = sim_between(w, 5 * SIM_S, 30 * SIM_S);
    if (!sim_host_process(w, i)->alive)
        return false;
    sim_trace(w, "ACCIDENT: host %d is cut off for %.3f s and runs on; an operator will give it up", i,
              SECONDS(length));
    for (int r = 0; r < w->size.routers; r++) {
        w->cut[i][r] = w->now + length;
        (void)sim_host_part(w, i, r);
    }
    sim_after(w, sim_between(w, SIM_S, length), NULL, declare, sim_copy(w, &i, sizeof i));
    return true;
}

static bool by_hand(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    sim_trace(w, "ACCIDENT: agent %d dies", i);
    return sim_host_kill(w, i, sim_between(w, 20 * SIM_MS, 5 * SIM_S)) && sim_runtime_by_hand(w, i);
}

static bool exits(struct sim_world *w)
{
    int n = 1 + any(w, 3), hit = 0;
    sim_trace(w, "ACCIDENT: %d containers exit", n);
    while (n--)
        hit += sim_runtime_exit(w, any(w, w->size.hosts));
    return hit > 0;
}

static bool failing_runtime(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    sim_host_runtime(w, i)->fail_next = 1 + any(w, 3);
    sim_trace(w, "ACCIDENT: the runtime of host %d fails", i);
    return true;
}

static bool hanging_runtime(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    sim_host_runtime(w, i)->hang_next = 1;
    sim_trace(w, "ACCIDENT: the next job on host %d hangs", i);
    return true;
}

static bool slow_runtime(struct sim_world *w)
{
    int i = any(w, w->size.hosts);
    sim_host_runtime(w, i)->slow_until = w->now + sim_between(w, SIM_S, 10 * SIM_S);
    sim_trace(w, "ACCIDENT: the runtime of host %d is slow", i);
    return true;
}

/* ---- Clocks and the network ---- */

static bool clock_jump(struct sim_world *w)
{
    int64_t jump = ((int64_t)sim_below(w, 240) - 120) * 1000000000;
    int i = sim_chance(w, 50) ? any(w, w->size.hosts) : -1;
    if (i < 0)
        w->wall_offset_ns += jump;
    else
        sim_host_clock(w, i, jump);
    sim_trace(w, "ACCIDENT: the wall clock of %s jumps by %d s", i < 0 ? "everybody" : sim_host_process(w, i)->name,
              (int)(jump / 1000000000));
    return jump != 0;
}

static bool slow_network(struct sim_world *w)
{
    w->slow_until = w->now + sim_between(w, SIM_S, 8 * SIM_S);
    sim_trace(w, "ACCIDENT: the network is slow");
    return true;
}

static bool repeat_commands(struct sim_world *w)
{
    w->repeat_until = w->now + sim_between(w, SIM_S, 6 * SIM_S);
    sim_trace(w, "ACCIDENT: commands come twice, the second time late");
    return true;
}

static bool (*const kinds[])(struct sim_world *) = {kill_scheduler,
                                                    pause_scheduler,
                                                    sever_scheduler,
                                                    kill_router,
                                                    drain_router,
                                                    pause_router,
                                                    sever_router,
                                                    kill_gateway,
                                                    pause_gateway,
                                                    sever_gateway,
                                                    kill_agent,
                                                    kill_agent,
                                                    pause_agent,
                                                    one_way_broker,
                                                    restart_broker,
                                                    alarm_broker,
                                                    full_queue,
                                                    reorder,
                                                    stop_record,
                                                    cut_record,
                                                    unknown_commits,
                                                    cut_link,
                                                    cut_link,
                                                    one_way_link,
                                                    partition,
                                                    full_disk,
                                                    disk_error,
                                                    slow_disk,
                                                    reboot,
                                                    lose_host,
                                                    exits,
                                                    failing_runtime,
                                                    failing_runtime,
                                                    hanging_runtime,
                                                    slow_runtime,
                                                    clock_jump,
                                                    slow_network,
                                                    repeat_commands,
                                                    delete_queue,
                                                    stall_stream,
                                                    lose_running_host,
                                                    by_hand,
                                                    lose_journal};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* Each seed has its own choice of kinds, so that some kinds meet often. */
void sim_nemesis_new(struct sim_world *w, uint64_t span)
{
    _Static_assert(KINDS <= 64, "one bit a kind");
    uint64_t chosen = hp_rng_next(&w->rng), also = hp_rng_next(&w->rng);
    w->kinds = sim_chance(w, 25) ? UINT64_MAX : chosen | (also & (also >> 1)); /* 62 of 100 */
    if (!w->o->night || !sim_chance(w, RESTORES_PERCENT))
        return;
    uint64_t back_up = sim_below(w, span), after = sim_between(w, 100 * SIM_MS, span);
    sim_after(w, back_up, NULL, make_backup, NULL);
    if (back_up + after < span)
        sim_after(w, back_up + after, NULL, restore_record, NULL);
}

void sim_accident(struct sim_world *w)
{
    for (int tries = 0; tries < 100; tries++) {
        uint64_t kind = sim_below(w, KINDS);
        if (!(w->kinds >> kind & 1) && tries < 90)
            continue;
        if (!kinds[kind](w))
            continue;
        w->faults++;
        return;
    }
}

void sim_heal(struct sim_world *w)
{
    sim_trace(w, "HEALED");
    w->healed = true;
    w->slow_until = w->repeat_until = 0;
    sim_broker_alarm(w, false);
    sim_broker_limit(w, "requests.r1", 0);
    sim_broker_limit(w, "reports.r1", 0);
    sim_broker_reorder(w, 0);
    sim_broker_declare(w, "requests.r1");
    sim_stream_stall(w, 0);
    w->record->down_until = 0;
    w->record->unknown_next = 0;
    for (int i = 0; i < SIM_SCHEDULERS_MAX; i++)
        w->record->cut_scheduler[i] = 0;
    for (int i = 0; i < SIM_GATEWAYS_MAX; i++)
        w->record->cut_gateway[i] = 0;
    for (int i = 0; i < w->size.hosts; i++) {
        sim_host_runtime(w, i)->slow_until = 0;
        sim_host_runtime(w, i)->hang_next = 0;
        sim_host_disk_heal(w, i);
        for (int r = 0; r < w->size.routers; r++)
            w->cut[i][r] = 0;
        if (!w->o->scenario)
            sim_client_uncordon(w, i);
    }
}
