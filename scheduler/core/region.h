/* region.h — one region's state and decisions, without I/O: events with the time in them go in, effects come out.
 *
 * Happy path of a create: step(REQUEST) decides in memory → flush hands out one batch (a transaction) → step(COMMITTED), and the next flush hands out what
 * belongs to that batch: the ack of the delivery, the verdict, the events for the stream, the command for the host → step(REPORT) … until the operation has ended.
 * While a batch is under way, further input is decided on top of the state in memory and gathers in the next batch. Nothing leaves before its batch is committed.
 *
 * Failures: a batch that failed, or whose outcome is unknown, ends the reign: the owner frees the region, takes a new epoch, and loads the record
 * anew; what was not acked comes again. Memory that runs out ends the reign likewise (flush returns HP_ENOMEM).
 *
 * All functions: one thread. */
#ifndef SC_CORE_REGION_H
#define SC_CORE_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "core/placement.h"
#include "harpoon/internal/v1/report.pb-c.h"
#include "harpoon/internal/v1/request.pb-c.h"

struct sc_region;

/* How long hosts of a class may be silent. */
struct sc_grace {
    char class[64]; /* value of the label `class_label` */
    uint64_t suspect_ms, unknown_ms;
};
enum { SC_GRACES_MAX = 16, SC_PREEMPT_PARALLEL_MAX = 32 };

struct sc_region_config {
    struct sc_overcommit overcommit;
    struct sc_storage_overcommit storage_overcommits[SC_STORAGE_OVERCOMMITS_MAX];
    size_t storage_overcommit_count;
    struct sc_weights weights;
    struct sc_class classes[SC_CLASSES_MAX];
    size_t class_count;
    struct hp_load_limits load; /* of every host: breakers, and when a load is not believed any more */
    uint64_t failure_half_ms;   /* what has failed on a host counts half as much after so long */
    int brake_percent;          /* more of the hosts SUSPECT at once: none of them is given up; 0: never */
    size_t brake_hosts;         /* and at least so many */
    uint64_t suspect_ms;        /* a host is SUSPECT after so much silence */
    uint64_t unknown_ms;        /* and UNKNOWN after so much */
    char class_label[64];       /* hosts of these classes are given other times */
    struct sc_grace graces[SC_GRACES_MAX];
    size_t grace_count;
    uint64_t dispatch_ms;      /* a command has not been journalled */
    uint64_t running_ms;       /* a journalled command has no result */
    uint64_t resync_ms;        /* an inventory has not come */
    uint64_t republish_ms;     /* pause before events are published again */
    uint64_t settle_ms;        /* pause before watermark and claims are written for their own sake */
    uint64_t restore_ms;       /* after a restore: time for hosts to attach that the record does not know */
    int drain_parallel;        /* moves at a time of a drain that does not say */
    bool preemption;           /* creates that may preempt do */
    int preemptible_below;     /* containers of a lower priority may have to go */
    int preempt_parallel;      /* containers that are removed for others at a time: 1 to SC_PREEMPT_PARALLEL_MAX */
    uint64_t remove_retry_ms;  /* pause before a failed removal that nobody waits for is tried again */
    int64_t events_max;        /* events kept */
    int64_t events_age_ms;     /* and for how long; 0: no limit */
    int64_t operations_age_ms; /* ended operations kept, and request ids remembered; 0: no limit */
    size_t recent_max;         /* ended operations kept in memory */
    size_t known_max;          /* operation ids kept in memory to tell new from old without a look into the record */
    size_t backlog_max;        /* events not yet confirmed by the stream; more: congested, or only in the record */
    size_t publish_max;        /* events that the stream is to confirm at a time */
    size_t hosts_max, containers_max, operations_max; /* of the region; operations: active ones */
    size_t open_max; /* containers on which nothing is under way and which are kept unpacked all the same */
};
void sc_region_config_defaults(struct sc_region_config *c);

struct sc_time {
    uint64_t now_ms; /* monotonic: every timeout */
    int64_t wall_ns; /* since 1970: stamps, and operations' deadlines, which outlive the process */
};

/* Bytes shared by a batch and the messages that leave after it. Counted on the region's thread. */
struct sc_blob {
    int refs;
    size_t len;
    uint8_t bytes[];
};
struct sc_blob *sc_blob_ref(struct sc_blob *b);
void sc_blob_unref(struct sc_blob *b); /* NULL is legal */

/* ---- In ---- */

enum sc_source { SC_SOURCE_REQUESTS, SC_SOURCE_REPORTS, SC_SOURCE_COUNT };

enum sc_ev_kind {
    SC_EV_LEAD,      /* the record is loaded: begin */
    SC_EV_REQUEST,   /* a message of requests.<region> */
    SC_EV_REPORT,    /* a message of reports.<region> */
    SC_EV_METRICS,   /* a message of metrics.<region> */
    SC_EV_COMMITTED, /* the batch is in the record */
    SC_EV_LOOKED_UP, /* the lookup is answered */
    SC_EV_PUBLISHED, /* outcome of an SC_SEND_EVENT */
    SC_EV_STREAM,    /* the stream is away, or there again: meanwhile no SC_SEND_EVENT leaves */
    SC_EV_FETCHED,   /* the page is read */
    SC_EV_RETURNED,  /* an SC_SEND_COMMAND could not be routed: its router is gone */
    SC_EV_TIMER,     /* sc_region_deadline has come */
};

struct sc_ev {
    enum sc_ev_kind kind;
    struct sc_time time;
    union {
        struct {
            Harpoon__Internal__V1__Request *message; /* passes to the region, which frees it by hp_unpacked_free */
            uint64_t tag;                            /* of the delivery; grows */
            const char *reply_to, *correlation_id;   /* NULL: no verdict wanted */
        } request;
        struct {
            const Harpoon__Internal__V1__Report *message; /* borrowed */
            uint64_t tag;
        } report;
        const Harpoon__Internal__V1__MetricsBatch *metrics; /* borrowed */
        struct sc_batch *committed;                         /* passes back */
        struct sc_lookup *looked_up;                        /* passes back */
        struct sc_page *fetched;                            /* passes back */
        bool stream_away;                                   /* LEAD, STREAM */
        struct {
            int64_t sequence;
            bool confirmed; /* else it is published again later */
        } published;
        struct {
            const char *router, *host;
            int64_t session;
        } returned;
    };
};

/* ---- Out ---- */

struct sc_operation_row {
    char id[33];
    bool fresh; /* insert; else it is there already */
    bool active;
    char project[64]; /* "" for hosts */
    char *target;
    int stage; /* harpoon.v1.Stage */
    int64_t serial;
    struct sc_blob *body; /* harpoon.internal.v1.OperationRecord */
};
struct sc_container_row {
    char *name;
    char uid[27];
    char project[64], host[64];
    int64_t generation;
    struct sc_blob *body; /* harpoon.internal.v1.ContainerRecord */
};
struct sc_uid_row {
    char uid[27];
};
struct sc_host_row {
    char name[64];
    struct sc_blob *body; /* harpoon.v1.Host */
};
struct sc_event_row {
    int64_t sequence, time_ns;
    struct sc_blob *body; /* harpoon.v1.Event */
};

enum sc_message_kind {
    SC_SEND_EVENT,    /* to the stream, in order; outcome comes back as SC_EV_PUBLISHED */
    SC_SEND_VERDICT,  /* to queue `key`, with the correlation */
    SC_SEND_COMMAND,  /* RouterCommand to router `key`, mandatory; a return comes back as SC_EV_RETURNED */
    SC_SEND_ANNOUNCE, /* RouterCommand to all routers of the region */
};
struct sc_message {
    struct sc_message *next;
    enum sc_message_kind kind;
    struct sc_blob *body;
    int64_t sequence;  /* EVENT */
    char key[256];     /* VERDICT: queue; COMMAND: id of the router */
    char *correlation; /* VERDICT; heap */
    char host[64];     /* COMMAND */
    int64_t session;   /* COMMAND */
};
void sc_message_free(struct sc_message *m);

/* A list in order; the head's owner frees the messages. */
struct sc_messages {
    struct sc_message *first, *last;
};

struct sc_ack {
    bool set;
    uint64_t tag; /* this and all earlier ones of the source */
};

/* One transaction. First the conditional UPDATE of the region's row that asserts the epoch; then everything else; all or nothing. */
struct sc_batch {
    int64_t epoch;
    int64_t sequence, watermark, oldest; /* of the region's row after it */
    bool restored;                       /* the same: hosts are still being asked after a restore */
    struct sc_operation_row *operations;
    size_t operation_count;
    struct sc_uid_row *deletes; /* containers; before the upserts */
    size_t delete_count;
    struct sc_container_row *containers; /* upserts */
    size_t container_count;
    struct sc_host_row *hosts; /* upserts */
    size_t host_count;
    struct sc_event_row *events;
    size_t event_count;
    int64_t events_below;       /* delete events with a lower sequence; 0: none */
    int64_t operations_below;   /* delete ended operations with a lower serial; 0: none */
    int operations_limit;       /* at most so many */
    int64_t operations_deleted; /* filled in by whoever ran it */
    struct sc_ack acks[SC_SOURCE_COUNT];
    struct sc_messages messages; /* leave after the commit */
};
/* For whoever has a batch when the region is gone. */
void sc_batch_free(struct sc_batch *b);

/* Finds operations of the region by id. */
struct sc_lookup_row {
    char id[33];
    bool found;
    uint8_t *body; /* OperationRecord; heap, owned */
    size_t body_len;
};
struct sc_lookup {
    size_t count;
    struct sc_lookup_row rows[];
};
void sc_lookup_free(struct sc_lookup *l);

/* Events that only the record has: sequences above `after`, up to `to`, at most `limit`, in order. */
struct sc_page {
    int64_t after, to;
    size_t limit;
    struct sc_event_row *rows; /* heap; room for `limit` */
    size_t count;
};
void sc_page_free(struct sc_page *p);

/* Zero-initialise; everything in it passes to the caller. */
struct sc_effects {
    struct sc_batch *commit;  /* run it, and give it back by SC_EV_COMMITTED; none other comes before */
    struct sc_lookup *lookup; /* answer it after the batches handed out so far, and give it back by SC_EV_LOOKED_UP */
    struct sc_page *fetch;    /* as the lookup; give it back by SC_EV_FETCHED */
    struct sc_ack acks[SC_SOURCE_COUNT];
    struct sc_messages messages;
};

/* ---- Life ---- */

/* `seed` is random: it makes uids unique. HP_ENOMEM. */
int sc_region_new(const struct sc_region_config *config, const char *region, int64_t epoch, uint64_t seed,
                  struct sc_region **ret) HP_MUST_CHECK;
void sc_region_free(struct sc_region *r);

/* The record, before SC_EV_LEAD: state, projects, hosts, containers (by name), operations (active ones, by serial), then the rest. HP_ECORRUPT names the row. */
void sc_region_load_state(struct sc_region *r, int64_t sequence, int64_t watermark, int64_t oldest);
/* After the state: the record was restored from a backup, and is to be compared with every host. */
void sc_region_load_restored(struct sc_region *r);
struct sc_quota {
    struct sc_res res;  /* 0: none */
    int64_t containers; /* 0: none */
};
int sc_region_load_project(struct sc_region *r, const char *name, const struct sc_quota *quota,
                           struct hp_error *e) HP_MUST_CHECK;
int sc_region_load_host(struct sc_region *r, const char *name, const void *body, size_t len,
                        struct hp_error *e) HP_MUST_CHECK;
int sc_region_load_container(struct sc_region *r, const char *name, const void *body, size_t len,
                             struct hp_error *e) HP_MUST_CHECK;
int sc_region_load_operation(struct sc_region *r, const char *id, int64_t serial, const void *body, size_t len,
                             struct hp_error *e) HP_MUST_CHECK;
/* Events behind the watermark, in order: they are published at SC_EV_LEAD. At most backlog_max. */
int sc_region_load_event(struct sc_region *r, int64_t sequence, const void *body, size_t len,
                         struct hp_error *e) HP_MUST_CHECK;
/* There are more of them, which the region asks for later. */
void sc_region_load_events_more(struct sc_region *r);
/* Ids of recorded operations; `complete` says that there are no others. */
int sc_region_load_known(struct sc_region *r, const char *id) HP_MUST_CHECK;
void sc_region_load_known_done(struct sc_region *r, bool complete);
/* A kept event's sequence and time, for retention by age; in order. */
void sc_region_load_mark(struct sc_region *r, int64_t sequence, int64_t time_ns);

/* Takes one event in. HP_EINVAL: a request or report that no one could ever handle (*e says why): dead-letter it. */
int sc_region_step(struct sc_region *r, struct sc_ev *ev, struct hp_error *e) HP_MUST_CHECK;
/* Hands out what may leave now. Call when the waiting input has been taken in. HP_ENOMEM, HP_ELIMIT: the reign is over. */
int sc_region_flush(struct sc_region *r, struct sc_time time, struct sc_effects *out, struct hp_error *e) HP_MUST_CHECK;
/* Monotonic ms at which SC_EV_TIMER is due; UINT64_MAX: never. */
uint64_t sc_region_deadline(const struct sc_region *r);
/* Too much waits for a stream that works: take no further requests and reports in until false. */
bool sc_region_congested(const struct sc_region *r);

struct sc_region_stats {
    int64_t sequence, watermark, backlog, hosts, hosts_attached, containers, operations_active, pending;
    int64_t breakers_open;
    bool braked;                /* too many hosts are silent: none is given up */
    bool full;                  /* hosts were left out: there are hosts_max */
    int64_t quarantined;        /* containers that hosts have and the record does not know */
    bool restored;              /* hosts are still being asked after a restore */
    int64_t victims, preempted; /* containers that are being removed for others; and have been, in this reign */
};
void sc_region_stats(const struct sc_region *r, struct sc_region_stats *ret);
/* Walks everything and asserts what must hold: claims, lists, stages. For tests and simulations. */
void sc_region_check(const struct sc_region *r);

#endif
