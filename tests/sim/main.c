/* main.c — runs seeds; a seed that fails is run again with its trace. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/sim.h"

enum { OPERATION_MS = 150, REST_S = 1200, TAIL_LINES = 120 };

static struct sim_options options = {.seed = 1, .seeds = 200, .operations = 100, .faults = 20};
static struct sim_world world;
static uint64_t total_operations, total_faults, total_violations, total_events, seeds_run;

static void act(struct sim_world *w, void *arg)
{
    sim_client_act(w);
}

static void accident(struct sim_world *w, void *arg)
{
    sim_accident(w);
}

static void build(struct sim_world *w)
{
    sim_broker_new(w);
    sim_record_new(w);
    for (int i = 0; i < SIM_SCHEDULERS; i++)
        sim_scheduler_new(w, i);
    for (int i = 0; i < SIM_ROUTERS; i++)
        sim_router_new(w, i);
    for (int i = 0; i < SIM_HOSTS; i++)
        sim_host_new(w, i);
    sim_gateway_new(w);
}

static void destroy(struct sim_world *w)
{
    for (int i = 0; i < SIM_SCHEDULERS; i++)
        sim_scheduler_done(w, i);
    for (int i = 0; i < SIM_ROUTERS; i++)
        sim_router_done(w, i);
    for (int i = 0; i < SIM_HOSTS; i++)
        sim_host_done(w, i);
    sim_gateway_done(w);
    sim_record_done(w);
    sim_world_done(w);
}

/* Runs until everything is at rest, or far too long. */
static void come_to_rest(struct sim_world *w)
{
    uint64_t end = w->now + REST_S * SIM_S, turn = 0, calm = 0;
    const char *why = "?";
    while (w->now < end && !w->violations) {
        uint64_t until = w->now + SIM_S;
        while (sim_step(w, until))
            ;
        w->now = until;
        why = sim_unrest(w);
        calm = why ? 0 : calm + 1;
        if (calm > 3) /* what is written only now and then is written, too */
            return;
        if (++turn % 60 == 30)
            sim_clients_give_up_waiting(w);
    }
    if (!w->violations)
        sim_violation(w, "liveness", "not at rest %d s after the last accident: %s", REST_S, why);
}

static void run(uint64_t seed)
{
    struct sim_world *w = &world;
    sim_world_init(w, &options, seed);
    build(w);
    uint64_t span = (uint64_t)options.operations * OPERATION_MS * SIM_MS;
    for (int i = 0; i < options.operations; i++)
        sim_after(w, SIM_S + sim_below(w, span), NULL, act, NULL);
    for (int i = 0; i < options.faults; i++)
        sim_after(w, SIM_S + sim_below(w, span), NULL, accident, NULL);
    uint64_t until = w->now + span + SIM_S;
    while (!w->violations && sim_step(w, until))
        ;
    if (!w->violations) {
        w->now = until;
        sim_heal(w);
        come_to_rest(w);
    }
    if (!w->violations)
        sim_check_rest(w);
    if (sim_keep_trace)
        return;
    seeds_run++;
    total_operations += (uint64_t)options.operations;
    total_faults += (uint64_t)w->faults;
    total_events += (uint64_t)w->events;
    total_violations += w->violations > 0;
}

static void summary(void)
{
    printf("{\"seeds\":%" PRIu64 ",\"operations\":%" PRIu64 ",\"faults\":%" PRIu64 ",\"violations\":%" PRIu64 "}\n",
           seeds_run, total_operations, total_faults, total_violations);
    fflush(stdout);
}

/* An assertion of a core has failed. */
static void died(int signal_number)
{
    char seed[32];
    signal(signal_number, SIG_DFL);
    if (sim_keep_trace || options.trace) {
        sim_print_tail(&world, TAIL_LINES);
        fflush(stdout);
        _exit(1);
    }
    snprintf(seed, sizeof seed, "%" PRIu64, world.seed);
    printf("VIOLATION assertion seed=%s\n", seed);
    seeds_run++;
    total_violations++;
    fflush(stdout);
    if (fork() == 0) {
        char operations[16], faults[16], broken[16];
        snprintf(operations, sizeof operations, "%d", options.operations);
        snprintf(faults, sizeof faults, "%d", options.faults);
        snprintf(broken, sizeof broken, "%d", (int)options.broken);
        execl("/proc/self/exe", "sim", "--replay", "--seed", seed, "--operations", operations, "--faults", faults,
              "--break", broken, (char *)NULL);
        _exit(1);
    }
    sleep(3);
    summary();
    _exit(1);
}

static void show(uint64_t seed)
{
    struct sim_options o = options;
    options.trace = false;
    sim_keep_trace = true;
    destroy(&world);
    run(seed);
    sim_print_tail(&world, TAIL_LINES);
    sim_keep_trace = false;
    options = o;
}

static const struct option long_options[] = {{"seed", required_argument, NULL, 's'},
                                             {"seeds", required_argument, NULL, 'n'},
                                             {"operations", required_argument, NULL, 'o'},
                                             {"faults", required_argument, NULL, 'f'},
                                             {"trace", no_argument, NULL, 't'},
                                             {"break", required_argument, NULL, 'b'},
                                             {"replay", no_argument, NULL, 'r'},
                                             {"expect", no_argument, NULL, 'e'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

static const char *const breaks[SIM_BREAK_COUNT] = {"none", "epoch", "sync", "confirm"};

static enum sim_break break_of(const char *text)
{
    for (int i = 0; i < SIM_BREAK_COUNT; i++)
        if (!strcmp(text, breaks[i]) || (text[0] == '0' + i && !text[1]))
            return (enum sim_break)i;
    fprintf(stderr, "sim: --break takes epoch, sync or confirm\n");
    exit(2);
}

int main(int argc, char **argv)
{
    bool one = false, many = false, expected = false;
    for (int c; (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        switch (c) {
        case 's':
            options.seed = strtoull(optarg, NULL, 10);
            one = true;
            break;
        case 'n':
            options.seeds = strtoull(optarg, NULL, 10);
            many = true;
            break;
        case 'o':
            options.operations = atoi(optarg);
            break;
        case 'f':
            options.faults = atoi(optarg);
            break;
        case 't':
            options.trace = true;
            break;
        case 'b':
            options.broken = break_of(optarg);
            break;
        case 'e':
            expected = true;
            break;
        case 'r':
            sim_keep_trace = true;
            break;
        default:
            printf("sim [--seed N] [--seeds N] [--operations N] [--faults N] [--trace] [--break "
                   "epoch|sync|confirm [--expect]]\n");
            return c == 'h' ? 0 : 2;
        }
    }
    if (one && !many)
        options.seeds = 1;
    signal(SIGABRT, died);
    signal(SIGSEGV, died);
    for (uint64_t seed = options.seed; seed < options.seed + options.seeds && total_violations < 5; seed++) {
        run(seed);
        if (world.violations && !options.trace)
            show(seed);
        destroy(&world);
    }
    summary();
    return (total_violations > 0) != expected; /* --expect: something is broken on purpose, and must be noticed */
}
