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
#include "harpoon/v1/event.pb-c.h"

enum {
    SIM_SCHEDULERS_MAX = 3,
    SIM_ROUTERS_MAX = 4,
    SIM_HOSTS_MAX = 16,
    SIM_GATEWAYS_MAX = 3,
    SIM_TRACE_LINES = 4096,
    SIM_VIOLATIONS = 8
};
#define SIM_MS 1000ULL
#define SIM_S 1000000ULL

/* Ways to break the simulated surroundings, which stand in for the shells: the checks must notice each. */
enum sim_break {
    SIM_BREAK_NONE,
    SIM_BREAK_EPOCH,      /* the record does not assert the epoch */
    SIM_BREAK_SYNC,       /* the disk says "durable" before it is */
    SIM_BREAK_CONFIRM,    /* the broker confirms before it has the message */
    SIM_BREAK_MANDATORY,  /* gateways publish without "mandatory" */
    SIM_BREAK_REQUEUE,    /* a scheduler that cannot take more gives messages back instead of holding them */
    SIM_BREAK_REGISTER,   /* a gateway reads how far the record is before its stream is heard */
    SIM_BREAK_RETRY,      /* a commit of unknown outcome is tried again */
    SIM_BREAK_ACK,        /* a scheduler acknowledges what it has not committed */
    SIM_BREAK_UNKNOWN,    /* a gateway takes an unknown outcome for an acceptance */
    SIM_BREAK_RETURNED,   /* … and a message that came back */
    SIM_BREAK_PERSISTENT, /* requests do not survive a restart of the broker */
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

/* What is sent on it arrives in order, and not before the end of a stall: one direction of a connection, as TCP keeps it. */
struct sim_channel {
    uint64_t last, stalled_until; /* us */
};

/* How many there are of each. */
struct sim_size {
    int schedulers, routers, hosts, gateways, names;
};

struct sim_options {
    uint64_t seed, seeds;
    int operations, faults; /* at least, a seed */
    bool trace, night;
    enum sim_break broken;
    const char *scenario; /* NULL: chance */
};

struct sim_broker;
struct sim_record;
struct sim_scheduler;
struct sim_router;
struct sim_host;
struct sim_gateway;
struct sim_clients;
struct sim_readers;
struct sim_chunk;

struct sim_world {
    const struct sim_options *o;
    struct sim_size size;
    uint64_t seed, now; /* us */
    int64_t wall_offset_ns;
    struct hp_rng rng;
    struct sim_event *heap;
    size_t heap_count, heap_room;
    uint64_t order;
    struct sim_chunk *chunks;                     /* memory of this run */
    uint64_t slow_until;                          /* the network */
    uint64_t repeat_until;                        /* commands come again, late */
    uint64_t kinds;                               /* of accidents in this run */
    uint64_t cut[SIM_HOSTS_MAX][SIM_ROUTERS_MAX]; /* us; until then nothing passes between them */
    bool healed;                                  /* no more accidents */
    int faults, events;
    struct sim_broker *broker;
    struct sim_record *record;
    struct sim_scheduler *schedulers[SIM_SCHEDULERS_MAX];
    struct sim_router *routers[SIM_ROUTERS_MAX];
    struct sim_host *hosts[SIM_HOSTS_MAX];
    struct sim_gateway *gateways[SIM_GATEWAYS_MAX];
    struct sim_clients *clients;
    struct sim_readers *readers;
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
char *sim_join(struct sim_world *w, const char *a, const char *b);
/* A message that one of the real cores packed; free with hp_unpacked_free. */
void *sim_unpack(const ProtobufCMessageDescriptor *d, const uint8_t *bytes, size_t len);
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
/* Does anybody read it? */
bool sim_tracing(const struct sim_world *w);
void sim_trace(struct sim_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* `check` names the promise, such as "I5". */
void sim_violation(struct sim_world *w, const char *check, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define sim_check(w_, ok_, check_, ...) ((ok_) ? (void)0 : sim_violation((w_), (check_), __VA_ARGS__))
void sim_print_tail(struct sim_world *w, size_t lines);
void sim_process_die(struct sim_process *p);
/* False: it is dead, or sleeps already. */
bool sim_process_pause(struct sim_world *w, struct sim_process *p, uint64_t length);

/* ---- broker.c ---- */
enum sim_outcome {
    SIM_CONFIRMED,
    SIM_REJECTED, /* the queue is full */
    SIM_RETURNED,
    SIM_UNAVAILABLE, /* not sent */
    SIM_UNKNOWN
};
struct sim_message {
    struct sim_message *next;
    const uint8_t *body;
    size_t len;
    const char *id, *reply_to, *correlation; /* NULL none */
    int64_t sequence;                        /* of an event of the stream; 0 none */
    uint64_t tag;                            /* of its last delivery */
    int deliveries;
};
struct sim_connection;
struct sim_publish {
    struct sim_connection *connection;
    struct sim_publish *newer, *older; /* under way on the connection */
    struct sim_publish *waiting;       /* next of those that the broker holds during an alarm */
    const char *queue;
    struct sim_message message;
    bool mandatory, settled, fanout, unsent;
    uint64_t deadline; /* us */
    uint32_t reign;    /* of the broker, when it arrived */
    void (*done_cb)(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome);
    void *user;
    uint64_t number;
};
struct sim_connection {
    struct sim_process *process;
    uint32_t life;
    bool client_up, broker_up;
    bool blocked; /* the client has heard of an alarm */
    bool expiry;  /* an event for the deadline of the oldest is arranged */
    struct sim_channel to, from;
    struct sim_publish *newest, *oldest; /* under way */
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
/* False: it is down already. */
bool sim_broker_restart(struct sim_world *w, uint64_t down);
/* One direction stands still for so long. */
void sim_connection_stall(struct sim_world *w, struct sim_connection *c, bool to, uint64_t length);
/* While it is on, the broker takes nothing from publishers. */
bool sim_broker_alarm(struct sim_world *w, bool on);
/* A queue that is longer refuses publishes; 0: none does. */
void sim_broker_limit(struct sim_world *w, const char *queue, size_t length_max);
void sim_broker_full(struct sim_world *w, const char *queue, bool full);
/* Somebody deletes a queue that is empty; it is declared anew after so long. False: it is not empty. */
bool sim_broker_delete(struct sim_world *w, const char *queue, uint64_t length);
void sim_broker_declare(struct sim_world *w, const char *queue);
/* Back to the front of the queue, to be delivered once more. */
void sim_requeue(struct sim_world *w, struct sim_connection *c, const char *queue, uint64_t tag);
/* The next redeliveries to another consumer come behind newer messages. */
void sim_broker_reorder(struct sim_world *w, uint32_t times);
/* From now on what is appended to the stream; an empty message says from when. */
void sim_read_stream(struct sim_world *w, struct sim_connection *c, int subscription);
/* It takes nothing in for so long; the queues do. */
void sim_stream_stall(struct sim_world *w, uint64_t length);
bool sim_stream_has(const struct sim_world *w, int64_t sequence);
/* The host counts its reports from the beginning again. */
void sim_broker_forget_reports(struct sim_world *w, int host);
/* Has a message of reports.r1 with this id of this host ever been taken in? */
bool sim_broker_has_report(const struct sim_world *w, int host, int64_t report_id);
/* Has a request of this operation ever been taken in? */
bool sim_broker_has_request(const struct sim_world *w, const char *operation_id);
void sim_broker_done(struct sim_world *w);
size_t sim_queue_length(const struct sim_world *w, const char *queue);

/* ---- record.c ---- */
enum sim_commit { SIM_COMMIT_DONE, SIM_COMMIT_FENCED, SIM_COMMIT_DOWN, SIM_COMMIT_LOST_ANSWER };
struct sim_operation_row {
    char id[33];
    int64_t serial;
    bool active;
    int stage, verb, ends;
    char uid[27], host[64], target[256];
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
    Harpoon__V1__Event *event; /* the same, for all who read it */
};
struct sim_tables {
    struct hp_map operations, containers, hosts;
};
struct sim_record {
    int64_t epoch, sequence, watermark, oldest;
    struct sim_tables tables;
    struct hp_map uids;           /* uid → highest generation recorded */
    struct sim_tables *backup;    /* NULL: none yet; when it has been restored, what was lost by that */
    bool restored, comparing;     /* comparing: as the last commit says */
    int64_t begin;                /* of the log of events, after the restore: what was told before is not in it */
    struct sim_event_row *events; /* by sequence - 1; without a body where sequences were skipped */
    size_t event_count, event_room;
    uint64_t down_until, cut_scheduler[SIM_SCHEDULERS_MAX], cut_gateway[SIM_GATEWAYS_MAX]; /* us */
    int unknown_next; /* so many commits' answers will be lost */
    int64_t commits, fenced;
};
void sim_record_new(struct sim_world *w);
void sim_tables_init(struct sim_tables *t);
/* A backup has taken its place: the log of events goes on so far above what was used, and what was recorded of uids is not known any more. */
void sim_record_begin_anew(struct sim_world *w, int64_t beyond);
void sim_record_done(struct sim_world *w);
bool sim_record_is_down(const struct sim_world *w);
/* For scheduler i. */
bool sim_record_is_away(const struct sim_world *w, int i);
/* The whole transaction, by scheduler i. */
enum sim_commit sim_record_commit(struct sim_world *w, int i, const struct sc_batch *b);
/* Raises the epoch and loads; NULL: down. */
struct sc_region *sim_record_take_over(struct sim_world *w, int i, const struct sc_region_config *c, uint64_t seed);
/* Does the record say that this container is on this host? */
bool sim_record_places(const struct sim_world *w, const char *name, const char *uid, int host);
/* How many operations can have restarted it. */
int sim_record_restarts(const struct sim_world *w, const char *uid);
void sim_record_look_up(struct sim_world *w, struct sc_lookup *l);
/* A committed event, with what the stream says of it; it stays the record's. */
Harpoon__V1__Event *sim_record_event(struct sim_world *w, int64_t sequence, const uint8_t *bytes, size_t len);

/* ---- restore.c ---- */
void sim_record_back_up(struct sim_world *w);
/* The backup takes the record's place, which is down for so long. False: there is none, or it was done before. */
bool sim_record_restore(struct sim_world *w, uint64_t down);
/* Somebody has asked for this since. */
void sim_restore_asked(struct sim_world *w, const struct sim_operation_row *op);

/* ---- scheduler.c ---- Those that answer say whether there was anything to do it to. */
void sim_scheduler_new(struct sim_world *w, int i);
bool sim_scheduler_kill(struct sim_world *w, int i, uint64_t restart_after);
bool sim_scheduler_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay);
struct sim_process *sim_scheduler_process(struct sim_world *w, int i);
/* NULL: none. */
struct sim_connection *sim_scheduler_connection(struct sim_world *w, int i);
void sim_scheduler_done(struct sim_world *w, int i);
bool sim_scheduler_leads(const struct sim_world *w, int i);

/* ---- router.c ---- */
struct sim_link;
void sim_router_new(struct sim_world *w, int i);
bool sim_router_kill(struct sim_world *w, int i, uint64_t restart_after);
bool sim_router_drain(struct sim_world *w, int i);
bool sim_router_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay);
struct sim_process *sim_router_process(struct sim_world *w, int i);
struct sim_connection *sim_router_connection(struct sim_world *w, int i);
void sim_router_done(struct sim_world *w, int i);
/* A new connection from a host, which hears by sim_host_opened, sim_host_frame, sim_host_closed. */
struct sim_link *sim_link_dial(struct sim_world *w, int host, int router);
void sim_link_up(struct sim_world *w, struct sim_link *l, const uint8_t *body, size_t len);
/* Closed by the host, or with its process. */
void sim_link_hang_up(struct sim_world *w, struct sim_link *l);
void sim_link_reset(struct sim_world *w, struct sim_link *l);
/* Nothing gets through any more, and nobody is told. */
void sim_link_half_open(struct sim_world *w, struct sim_link *l);
bool sim_link_is_sound(const struct sim_world *w, const struct sim_link *l);
/* One direction stands still for so long. */
void sim_link_stall(struct sim_world *w, struct sim_link *l, bool up, uint64_t length);

/* ---- agent.c ---- */
void sim_host_new(struct sim_world *w, int i);
void sim_host_done(struct sim_world *w, int i);
bool sim_host_kill(struct sim_world *w, int i, uint64_t restart_after);
/* Of the storage classes: all hosts have "bulk", those of an even number "fast", too. */
#define SIM_BULK_BYTES (25LL << 30)
#define SIM_FAST_BYTES (10LL << 30)
/* The power goes: the agent, every container, and what the disk had not made durable. */
bool sim_host_reboot(struct sim_world *w, int i, uint64_t down);
/* It was declared lost at some time: what it ran may run elsewhere, too, until it has been cleaned. */
void sim_host_give_up(struct sim_world *w, int i);
bool sim_host_given_up(const struct sim_world *w, int i);
/* The agent dies and finds its journal gone; `all`: and its containers, as on a new disk. */
bool sim_host_lose_journal(struct sim_world *w, int i, uint64_t down, bool all);
struct sim_process *sim_host_process(struct sim_world *w, int i);
bool sim_host_cut(struct sim_world *w, int i, bool half_open);
bool sim_host_stall(struct sim_world *w, int i, bool up, uint64_t length);
/* Its link to that router, if it has one, carries nothing while they are apart. */
bool sim_host_part(struct sim_world *w, int i, int router);
void sim_host_clock(struct sim_world *w, int i, int64_t jump_ns);
void sim_host_disk_full(struct sim_world *w, int i, uint64_t length);
void sim_host_disk_error(struct sim_world *w, int i);
void sim_host_disk_slow(struct sim_world *w, int i, uint64_t length);
void sim_host_disk_heal(struct sim_world *w, int i);
void sim_host_opened(struct sim_world *w, int i, struct sim_link *l, bool ok);
void sim_host_frame(struct sim_world *w, int i, struct sim_link *l, const uint8_t *body, size_t len);
void sim_host_closed(struct sim_world *w, int i, struct sim_link *l);
bool sim_host_at_rest(struct sim_world *w, int i);
/* With that number, and over a link that carries everything. */
bool sim_host_is_attached(struct sim_world *w, int i, int64_t session);
/* What its journal, or one that was lost, durably knew of uid: the generation applied or entombed; -1 nothing. */
int64_t sim_host_durable_generation(struct sim_world *w, int i, const char *uid);

/* ---- runtime.c ---- */
struct sim_container {
    struct sim_container *next;
    char uid[64], name[256];
    bool exists, complete, running, ran;
    bool entombed; /* removed before the record was restored: it must not come back */
    bool spared;   /* the record was restored, and nobody has asked for anything that ends it */
    int64_t generation, pid, ticks;
    uint64_t spec_digest;
    int32_t exit_code;
    int64_t memory_bytes, cpu_millis;
    int64_t start_ns, finish_ns;
    int64_t applied;                                      /* highest generation of a job that took effect */
    int64_t removed;                                      /* generation of the removal for good; 0 no */
    int creates, starts, stops, restarts, resizes, exits; /* in `applied` */
    int restarts_ever;
};
struct sim_job;
struct sim_runtime {
    struct sim_container *containers;
    int64_t starts;       /* of processes */
    struct sim_job *jobs; /* under way */
    int fail_next;        /* so many jobs will fail */
    int hang_next;        /* so many will take until their deadline */
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
/* False: nothing runs there. */
bool sim_runtime_exit(struct sim_world *w, int host);
/* Another process takes the place of one, without the agent, which must be off. */
bool sim_runtime_by_hand(struct sim_world *w, int host);
/* Nothing runs any more. */
void sim_runtime_power_off(struct sim_world *w, int host);
/* Nothing is there any more, and nothing tells what was. */
void sim_runtime_wipe(struct sim_world *w, int host);
void sim_runtime_state(const struct sim_container *c, struct ha_rt_state *ret);
void sim_host_job_done(struct sim_world *w, int host, struct sim_job *j);
void sim_host_exited(struct sim_world *w, int host, const struct sim_container *c, const struct ha_rt_state *s);

/* ---- gateway.c ---- */
void sim_gateway_new(struct sim_world *w, int i);
bool sim_gateway_kill(struct sim_world *w, int i, uint64_t restart_after);
bool sim_gateway_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay);
struct sim_process *sim_gateway_process(struct sim_world *w, int i);
struct sim_connection *sim_gateway_connection(struct sim_world *w, int i);
void sim_gateway_done(struct sim_world *w, int i);

/* ---- client.c ---- */
void sim_clients_new(struct sim_world *w);
/* The next operation. */
void sim_client_act(struct sim_world *w);
void sim_client_declare_lost(struct sim_world *w, int host);
void sim_client_uncordon(struct sim_world *w, int host);
void sim_client_create(struct sim_world *w, const char *name, int64_t cpu);
void sim_client_resize(struct sim_world *w, const char *name, int64_t cpu);
void sim_client_update(struct sim_world *w, const char *name, const char *image);
/* A payload's case: start, stop, restart, delete. */
void sim_client_verb(struct sim_world *w, int kind, const char *name);
void sim_client_cancel_last(struct sim_world *w);
/* A backup takes the record's place. */
void sim_clients_forgotten(struct sim_world *w, const struct sim_tables *last, const struct sim_tables *backup);
/* It was recorded after the backup, and answered perhaps: nobody knows of it any more. */
bool sim_client_was_forgotten(const struct sim_world *w, const char *operation_id);
/* Every call was answered. */
bool sim_clients_done(const struct sim_world *w);
void sim_clients_check(struct sim_world *w);
/* How many were asked for: each has to come to its end once. */
int sim_clients_operations(const struct sim_world *w);
/* Gives up what waits for a place that will never be there. */
void sim_clients_give_up_waiting(struct sim_world *w);
void sim_clients_free(struct sim_world *w);

/* ---- reader.c ---- */
void sim_readers_new(struct sim_world *w);
/* Somebody wants to know how it ends. */
void sim_reader_wait(struct sim_world *w, const char *operation);
/* NULL: everybody has been told everything. */
const char *sim_readers_unrest(const struct sim_world *w);

/* ---- nemesis.c ---- */
/* The accidents come within this time. */
void sim_nemesis_new(struct sim_world *w, uint64_t span);
/* One that hits something. */
void sim_accident(struct sim_world *w);
/* Ends every outage. */
void sim_heal(struct sim_world *w);

/* ---- preempt.c ---- */
/* Whether it is on in this run. */
bool sim_preempts(const struct sim_world *w);
/* What a host has. */
int64_t sim_preempt_cpu(const struct sim_world *w);
/* What the container of this name asks for; false: nothing. */
bool sim_preempt_placement(const struct sim_world *w, const char *name, Harpoon__V1__PlacementSpec *ret);
/* A move was recorded that makes room for another container. */
void sim_preempt_check(struct sim_world *w, const Harpoon__V1__Operation *move);
/* A container was made there. */
void sim_preempt_made(struct sim_world *w, int host);

/* ---- scenario.c ---- */
/* False: no scenario has this name. */
bool sim_scenario_run(struct sim_world *w, const char *name);
bool sim_scenario_name(size_t i, const char **ret);

/* ---- check.c ---- */
/* NULL: at rest; otherwise what is not. */
const char *sim_unrest(struct sim_world *w);
void sim_check_rest(struct sim_world *w);
void sim_check_live(struct sim_world *w);

#endif
