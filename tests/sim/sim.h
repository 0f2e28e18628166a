/* sim.h — the whole system in one process, from one seed: the real cores of gateway, schedulers, routers and agents on a simulated broker, record, network, disk,
 * runtime and clock. Everything happens as an event at a simulated time, in one order; chance comes from one generator. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"
#include "base/rng.h"
#include "core/region.h"

enum { SIM_SCHEDULERS = 2, SIM_ROUTERS = 2, SIM_HOSTS = 4, SIM_NAMES = 14, SIM_TRACE_LINES = 4096, SIM_VIOLATIONS = 8 };
#define SIM_MS 1000ULL
#define SIM_S 1000000ULL

/* Ways to break the simulated surroundings, which stand in for the shells: the checks must notice each. */
enum sim_break {
    SIM_BREAK_NONE,
    SIM_BREAK_EPOCH,   /* the record does not assert the epoch */
    SIM_BREAK_SYNC,    /* the disk says "durable" before it is */
    SIM_BREAK_CONFIRM, /* the broker confirms before it has the message */
    SIM_BREAK_COUNT
};

/* A process: what was arranged for an earlier life of it never happens; while it is paused everything waits. */
struct sim_process {
    const char *name;
    uint32_t life;
    bool alive;
    uint64_t paused_until; /* us */
};

struct sim_world;
typedef void (*sim_fn)(struct sim_world *w, void *arg);

struct sim_event {
    uint64_t at, order;
    sim_fn fn;
    void *arg;
    struct sim_process *process; /* NULL: nobody's */
    uint32_t life;
};

/* What is sent on it arrives in order. */
struct sim_channel {
    uint64_t last; /* us */
};

struct sim_options {
    uint64_t seed, seeds;
    int operations, faults;
    bool trace;
    enum sim_break broken;
};

struct sim_broker;
struct sim_record;
struct sim_scheduler;
struct sim_router;
struct sim_host;
struct sim_gateway;
struct sim_chunk;

struct sim_world {
    const struct sim_options *o;
    uint64_t seed, now; /* us */
    int64_t wall_offset_ns;
    struct hp_rng rng;
    struct sim_event *heap;
    size_t heap_count, heap_room;
    uint64_t order;
    struct sim_chunk *chunks; /* memory of this run */
    uint64_t slow_until;      /* the network */
    uint64_t repeat_until;    /* commands come again, late */
    bool healed;              /* no more accidents */
    int faults, events;
    struct sim_broker *broker;
    struct sim_record *record;
    struct sim_scheduler *schedulers[SIM_SCHEDULERS];
    struct sim_router *routers[SIM_ROUTERS];
    struct sim_host *hosts[SIM_HOSTS];
    struct sim_gateway *gateway;
    char *lines[SIM_TRACE_LINES]; /* ring of the trace; heap */
    size_t line_count;
    int violations;
};

/* ---- world.c ---- */
extern bool sim_keep_trace; /* the ring is filled although nothing is printed */
void sim_world_init(struct sim_world *w, const struct sim_options *o, uint64_t seed);
void sim_world_done(struct sim_world *w);
/* Zeroed; lives as long as the world. */
void *sim_alloc(struct sim_world *w, size_t size);
void *sim_copy(struct sim_world *w, const void *data, size_t len);
char *sim_text(struct sim_world *w, const char *text);
/* After so long, unless `p` (may be NULL) has died meanwhile. */
void sim_after(struct sim_world *w, uint64_t delay, struct sim_process *p, sim_fn fn, void *arg);
void sim_send(struct sim_world *w, struct sim_channel *c, uint64_t delay, struct sim_process *p, sim_fn fn, void *arg);
/* One event; false: there is none before `until`. */
bool sim_step(struct sim_world *w, uint64_t until);
uint64_t sim_below(struct sim_world *w, uint64_t limit);
bool sim_chance(struct sim_world *w, unsigned percent);
/* Uniform, both included; us. */
uint64_t sim_between(struct sim_world *w, uint64_t least, uint64_t most);
/* A message's way through the network. */
uint64_t sim_delay(struct sim_world *w);
struct sc_time sim_time(const struct sim_world *w);
void sim_trace(struct sim_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* `check` names the promise, such as "I5". */
void sim_violation(struct sim_world *w, const char *check, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define sim_check(w_, ok_, check_, ...) ((ok_) ? (void)0 : sim_violation((w_), (check_), __VA_ARGS__))
void sim_print_tail(struct sim_world *w, size_t lines);
void sim_process_die(struct sim_process *p);

/* ---- broker.c ---- */
enum sim_outcome { SIM_CONFIRMED, SIM_RETURNED, SIM_UNKNOWN };
struct sim_message {
    struct sim_message *next;
    const uint8_t *body;
    size_t len;
    const char *reply_to, *correlation; /* NULL none */
    uint64_t tag;                       /* of its last delivery */
    int deliveries;
};
struct sim_connection;
struct sim_publish {
    struct sim_connection *connection;
    struct sim_publish *next, *prev; /* under way */
    char queue[64];
    struct sim_message message;
    bool mandatory, settled, fanout;
    int64_t sequence; /* of an event for the stream; 0 no */
    uint32_t reign;   /* of the broker, when it arrived */
    void (*done_cb)(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome);
    void *user;
    uint64_t number;
};
struct sim_connection {
    struct sim_process *process;
    uint32_t life;
    bool client_up, broker_up;
    struct sim_channel to, from;
    struct sim_publish *under_way;
    uint64_t tags;
    void (*deliver_cb)(struct sim_world *w, struct sim_connection *c, int subscription, const struct sim_message *m);
    void (*down_cb)(struct sim_world *w, struct sim_connection *c);
    void *user;
};
void sim_broker_new(struct sim_world *w);
bool sim_broker_is_up(const struct sim_world *w);
/* NULL while the broker is down. Open at once. */
struct sim_connection *sim_connect(struct sim_world *w, struct sim_process *p, void *user);
void sim_publish(struct sim_world *w, struct sim_connection *c, struct sim_publish *p);
void sim_declare(struct sim_world *w, struct sim_connection *c, const char *queue);
void sim_consume(struct sim_world *w, struct sim_connection *c, const char *queue, int subscription, size_t prefetch);
void sim_cancel(struct sim_world *w, struct sim_connection *c, const char *queue);
void sim_ack(struct sim_world *w, struct sim_connection *c, const char *queue, uint64_t tag);
/* Each side notices after its own delay; what is on its way then is lost. */
void sim_break_connection(struct sim_world *w, struct sim_connection *c, uint64_t client_delay, uint64_t broker_delay);
/* The process has died: what it sent arrives, then the broker sees the end. */
void sim_abandon_connection(struct sim_world *w, struct sim_connection *c);
void sim_broker_restart(struct sim_world *w, uint64_t down);
bool sim_stream_has(const struct sim_world *w, int64_t sequence);
/* Has a message of reports.r1 with this id of this host ever been taken in? */
bool sim_broker_has_report(const struct sim_world *w, int host, int64_t report_id);
size_t sim_queue_length(const struct sim_world *w, const char *queue);

/* ---- record.c ---- */
enum sim_commit { SIM_COMMIT_DONE, SIM_COMMIT_FENCED, SIM_COMMIT_DOWN, SIM_COMMIT_LOST_ANSWER };
struct sim_operation_row {
    char id[33];
    int64_t serial;
    bool active;
    int stage, verb, ends;
    char uid[27], host[64];
    int64_t generation;
    struct sc_blob *body;
};
struct sim_row {
    char key[256];
    char uid[27];
    struct sc_blob *body;
    bool gone;
};
struct sim_event_row {
    int64_t sequence, time_ns;
    struct sc_blob *body;
};
struct sim_record {
    int64_t epoch, sequence, watermark, oldest;
    struct hp_map operations, containers, hosts, uids; /* uids: uid → highest generation recorded */
    struct sim_event_row *events;                      /* by sequence - 1 */
    size_t event_count, event_room;
    uint64_t down_until;
    int unknown_next; /* so many commits' answers will be lost */
    int64_t commits, fenced;
};
void sim_record_new(struct sim_world *w);
void sim_record_done(struct sim_world *w);
bool sim_record_is_down(const struct sim_world *w);
/* The whole transaction. */
enum sim_commit sim_record_commit(struct sim_world *w, const struct sc_batch *b);
/* Raises the epoch and loads; NULL: down. */
struct sc_region *sim_record_take_over(struct sim_world *w, const struct sc_region_config *c, uint64_t seed);
void sim_record_look_up(struct sim_world *w, struct sc_lookup *l);

/* ---- scheduler.c ---- */
void sim_scheduler_new(struct sim_world *w, int i);
void sim_scheduler_kill(struct sim_world *w, int i, uint64_t restart_after);
void sim_scheduler_pause(struct sim_world *w, int i, uint64_t length);
void sim_scheduler_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay);
void sim_scheduler_done(struct sim_world *w, int i);
bool sim_scheduler_leads(const struct sim_world *w, int i);

/* ---- router.c ---- */
struct sim_link;
void sim_router_new(struct sim_world *w, int i);
void sim_router_kill(struct sim_world *w, int i, uint64_t restart_after);
void sim_router_drain(struct sim_world *w, int i);
void sim_router_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay);
void sim_router_done(struct sim_world *w, int i);
/* A new connection from a host, which hears by sim_host_opened, sim_host_frame, sim_host_closed. */
struct sim_link *sim_link_dial(struct sim_world *w, int host, int router);
void sim_link_up(struct sim_world *w, struct sim_link *l, const uint8_t *body, size_t len);
/* Closed by the host, or with its process. */
void sim_link_hang_up(struct sim_world *w, struct sim_link *l);
void sim_link_reset(struct sim_world *w, struct sim_link *l);
/* Nothing gets through any more, and nobody is told. */
void sim_link_half_open(struct sim_world *w, struct sim_link *l);

/* ---- agent.c ---- */
void sim_host_new(struct sim_world *w, int i);
void sim_host_done(struct sim_world *w, int i);
void sim_host_kill(struct sim_world *w, int i, uint64_t restart_after);
void sim_host_cut(struct sim_world *w, int i, bool half_open);
void sim_host_opened(struct sim_world *w, int i, struct sim_link *l, bool ok);
void sim_host_frame(struct sim_world *w, int i, struct sim_link *l, const uint8_t *body, size_t len);
void sim_host_closed(struct sim_world *w, int i, struct sim_link *l);
bool sim_host_at_rest(struct sim_world *w, int i);
/* What its journal durably knows of uid: the generation applied or entombed; -1 nothing. */
int64_t sim_host_durable_generation(struct sim_world *w, int i, const char *uid);

/* ---- runtime.c ---- */
struct sim_container {
    struct sim_container *next;
    char uid[64], name[256];
    bool exists, complete, running, ran;
    int64_t generation, pid, ticks;
    uint64_t spec_digest;
    int32_t exit_code;
    int64_t memory_bytes, cpu_millis;
    int64_t start_ns, finish_ns;
    int64_t applied;                                      /* highest generation of a job that took effect */
    int64_t removed;                                      /* generation of the removal for good; 0 no */
    int creates, starts, stops, restarts, resizes, exits; /* in `applied` */
};
struct sim_job;
struct sim_runtime {
    struct sim_container *containers;
    int64_t pids;
    struct sim_job *jobs; /* under way */
    int fail_next;        /* so many jobs will fail */
    uint64_t slow_until;  /* us */
};
struct sim_job;
struct ha_effect;
struct ha_rt_state;
/* The host's runtime outlives its agent. */
struct sim_runtime *sim_host_runtime(struct sim_world *w, int i);
void sim_runtime_submit(struct sim_world *w, int host, struct sim_process *p, const struct ha_effect *f);
/* The agent has died: jobs under way took effect, in part, or not at all. */
void sim_runtime_agent_died(struct sim_world *w, int host);
void sim_runtime_exit(struct sim_world *w, int host);
void sim_runtime_state(const struct sim_container *c, struct ha_rt_state *ret);
void sim_host_job_done(struct sim_world *w, int host, struct sim_job *j);
void sim_host_exited(struct sim_world *w, int host, const struct sim_container *c, const struct ha_rt_state *s);

/* ---- client.c ---- */
void sim_gateway_new(struct sim_world *w);
void sim_gateway_sever(struct sim_world *w);
/* The next operation. */
void sim_client_act(struct sim_world *w);
/* Every operation was accepted, and answered. */
bool sim_clients_done(const struct sim_world *w);
void sim_clients_check(struct sim_world *w);
/* Gives up what waits for a place that will never be there. */
void sim_clients_give_up_waiting(struct sim_world *w);
void sim_gateway_done(struct sim_world *w);

/* ---- nemesis.c ---- */
void sim_accident(struct sim_world *w);
/* Ends every outage. */
void sim_heal(struct sim_world *w);

/* ---- check.c ---- */
/* NULL: at rest; otherwise what is not. */
const char *sim_unrest(struct sim_world *w);
void sim_check_rest(struct sim_world *w);
void sim_check_live(struct sim_world *w);

#endif
