/* main.c — runs seeds; a seed that fails is run again with its trace. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/sim.h"

enum {
    OPERATION_MS = 150,
    REST_S = 1200,
    CALM_S = 11 /* what was lost on its way is asked for again after 10 */,
    TAIL_LINES = 120
};

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

static void build(struct sim_world *w, uint64_t span)
{
    sim_nemesis_new(w, span);
    sim_broker_new(w);
    sim_record_new(w);
    for (int i = 0; i < w->size.schedulers; i++)
        sim_scheduler_new(w, i);
    for (int i = 0; i < w->size.routers; i++)
        sim_router_new(w, i);
    for (int i = 0; i < w->size.hosts; i++)
        sim_host_new(w, i);
    for (int i = 0; i < w->size.gateways; i++)
        sim_gateway_new(w, i);
    sim_clients_new(w);
    sim_readers_new(w);
}

static void destroy(struct sim_world *w)
{
    for (int i = 0; i < w->size.schedulers; i++)
        sim_scheduler_done(w, i);
    for (int i = 0; i < w->size.routers; i++)
        sim_router_done(w, i);
    for (int i = 0; i < w->size.hosts; i++)
        sim_host_done(w, i);
    for (int i = 0; i < w->size.gateways; i++)
        sim_gateway_done(w, i);
    sim_clients_free(w);
    sim_broker_done(w);
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
        if (calm > CALM_S) /* what is written only now and then is written, too */
            return;
        if (++turn % 60 == 30)
            sim_clients_give_up_waiting(w);
    }
    if (!w->violations)
        sim_violation(w, strncmp(why, "I6: ", 4) ? "liveness" : "I6", "not at rest %d s after the last accident: %s",
                      REST_S, why);
}

/* Nights have worlds of every size, and more of everything. */
static void grow(struct sim_world *w)
{
    w->size = (struct sim_size){2 + (int)sim_below(w, SIM_SCHEDULERS_MAX - 1),
                                2 + (int)sim_below(w, SIM_ROUTERS_MAX - 1), 4 + (int)sim_below(w, SIM_HOSTS_MAX - 3),
                                2 + (int)sim_below(w, SIM_GATEWAYS_MAX - 1), 10 + (int)sim_below(w, 50)};
    options.operations = 100 + (int)sim_below(w, 900);
    options.faults = options.operations / (2 + (int)sim_below(w, 4));
}

static void run(uint64_t seed)
{
    struct sim_world *w = &world;
    sim_world_init(w, &options, seed);
    if (options.night)
        grow(w);
    uint64_t span = (uint64_t)options.operations * OPERATION_MS * SIM_MS;
    build(w, span);
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
    sim_check(w, w->violations || sim_clients_operations(w) >= options.operations, "count", "only %d operations",
              sim_clients_operations(w));
    sim_check(w, w->violations || w->faults >= options.faults, "count", "only %d accidents hit anything", w->faults);
    if (sim_keep_trace)
        return;
    seeds_run++;
    total_operations += (uint64_t)sim_clients_operations(w);
    total_faults += (uint64_t)w->faults;
    total_events += (uint64_t)w->events;
    total_violations += w->violations > 0;
}

/* One path without chance; its trace. */
static int scenario(const char *name)
{
    struct sim_world *w = &world;
    options.scenario = name;
    options.trace = true;
    sim_world_init(w, &options, 1);
    w->size = (struct sim_size){2, 2, 2, 1, 1};
    build(w, 0);
    if (!sim_scenario_run(w, name)) {
        fprintf(stderr, "sim: there is no scenario \"%s\"\n", name);
        return 2;
    }
    sim_heal(w);
    come_to_rest(w);
    if (!w->violations)
        sim_check_rest(w);
    int failed = w->violations > 0;
    destroy(w);
    return failed;
}

static void list_scenarios(void)
{
    const char *name;
    for (size_t i = 0; sim_scenario_name(i, &name); i++)
        printf("%s\n", name);
}

static void summary(void)
{
    printf("{\"seeds\":%" PRIu64 ",\"operations\":%" PRIu64 ",\"faults\":%" PRIu64 ",\"violations\":%" PRIu64 "}\n",
           seeds_run, total_operations, total_faults, total_violations);
    fflush(stdout);
}

static const char *const breaks[SIM_BREAK_COUNT] = {"none",     "epoch", "sync", "confirm", "mandatory", "requeue",
                                                    "register", "retry", "ack",  "unknown", "returned",  "persistent"};

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
        char operations[16], faults[16];
        snprintf(operations, sizeof operations, "%d", options.operations);
        snprintf(faults, sizeof faults, "%d", options.faults);
        execl("/proc/self/exe", "sim", "--replay", "--seed", seed, "--seeds", "1", "--operations", operations,
              "--faults", faults, "--break", breaks[options.broken], options.night ? "--night" : (char *)NULL,
              (char *)NULL);
        _exit(1);
    }
    sleep(3);
    summary();
    _exit(1);
}

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    stopped = true;
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
                                             {"night", no_argument, NULL, 'N'},
                                             {"scenario", required_argument, NULL, 'c'},
                                             {"scenarios", no_argument, NULL, 'l'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

static const char help[] =
    "sim [--seed N] [--seeds N]      seeds from N on; one when only --seed is given\n"
    "    [--operations N] [--faults N]  at least so many in each (100, 20)\n"
    "    [--night]                   worlds of every size, more of everything; without --seeds until it is stopped,\n"
    "                                or five seeds have failed\n"
    "    [--trace]                   what happens, line by line\n"
    "    [--break WHAT [--expect]]   a server or a shell makes a mistake (README.md); --expect: it must be noticed\n"
    "sim --scenario NAME, sim --scenarios    one path without chance, and their names\n"
    "A seed that fails is printed with the promise that it breaks, and run again for the end of its trace.\n"
    "The last line: {\"seeds\":...,\"operations\":...,\"faults\":...,\"violations\":...}\n";

static enum sim_break break_of(const char *text)
{
    for (int i = 0; i < SIM_BREAK_COUNT; i++)
        if (!strcmp(text, breaks[i]))
            return (enum sim_break)i;
    fprintf(stderr, "sim: --break does not take \"%s\"; see --help\n", text);
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
        case 'N':
            options.night = true;
            break;
        case 'c':
            return scenario(optarg);
        case 'l':
            list_scenarios();
            return 0;
        case 'r':
            sim_keep_trace = true;
            break;
        default:
            fputs(help, stdout);
            return c == 'h' ? 0 : 2;
        }
    }
    if (!many)
        options.seeds = options.trace || (one && !options.night) ? 1 : options.night ? UINT64_MAX / 2 : options.seeds;
    signal(SIGABRT, died);
    signal(SIGSEGV, died);
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    for (uint64_t seed = options.seed; seed < options.seed + options.seeds && total_violations < 5 && !stopped;
         seed++) {
        run(seed);
        if (world.violations && !options.trace)
            show(seed);
        destroy(&world);
    }
    summary();
    return (total_violations > 0) != expected; /* --expect: something is broken on purpose, and must be noticed */
}
