/* state.h — the insides of a region, shared by the files of the core and by nobody else. */
#ifndef SC_CORE_STATE_H
#define SC_CORE_STATE_H

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/map.h"
#include "core/container_map.h"
#include "core/images.h"
#include "core/list.h"
#include "core/place_index.h"
#include "core/region.h"
#include "core/share.h"
#include "core/timers.h"
#include "grpc/status.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/event.pb-c.h"

enum {
    SC_HISTORY_MAX = 32,    /* stage changes remembered of one operation */
    SC_EXCLUDED_MAX = 16,   /* hosts that may refuse one operation before it fails */
    SC_QUEUE_MAX = 64,      /* operations waiting on one container */
    SC_PENDING_TRIES = 256, /* waiting creates tried in one go */
    SC_SLOTS_MAX = 64,
    SC_GROUP_KEY_MAX = 512,
    SC_GANG_MAX = 64,                         /* members */
    SC_VICTIMS_MAX = SC_PREEMPT_PARALLEL_MAX, /* containers that may have to go for one create */
    SC_LOOKUP_MAX = 512,                      /* ids in one lookup */
    SC_PAGE_EVENTS_MAX = 1000,                /* events read back from the record at a time */
    SC_MARK_EVERY = 1024,                     /* events between two retention marks */
    SC_MARKS_MAX = 4096,
    SC_STRAYS_MAX = 2048, /* unknown containers of one host; more are not remembered */
    SC_STRAY_BYTES_MAX =
        4 << 20, /* of their specs; what is over is not remembered, and cannot be adopted before others are */
};

struct sc_project {
    char name[64];
    struct sc_res used; /* sum of its containers' claims; those of storage classes are in its disk_bytes */
    int64_t containers; /* in the region */
    struct sc_quota quota;
};

/* Hosts that have containers of one group of one project. */
struct sc_group_member {
    struct sc_host *host;
    int count;
};
struct sc_group {
    struct sc_group_member *members;
    size_t count, room;
    int containers;         /* that name it, placed or not */
    int moving;             /* moves under way of its members: one at a time */
    struct sc_list waiting; /* of a gang: sc_operation.gang of the creates that wait for a place, oldest first */
    size_t waiting_count;
    char key
        []; /* "project/group" of anti-affinity, "+project/group" of affinity, "=project/group" of a spread, "*project/gang" */
};

/* Of a host's last metrics, what its averages do not tell. */
struct sc_sample {
    int64_t memory_bytes, disk_bytes;
    float cpu_millis, rx_bps, tx_bps, read_bps, write_bps;
    int32_t containers_running;
};

/* For the brake. */
enum sc_voice { SC_VOICE_HEARD, SC_VOICE_SILENT, SC_VOICE_COUNT, SC_VOICE_NONE = SC_VOICE_COUNT };

/* Of harpoon.v1.Host, what is a host's own (host_body.c); under the same names. */
struct sc_host_own {
    char *rack, *router; /* words */
    union {
        char *text;       /* NULL: none */
        uint8_t uuid[16]; /* if boot_uuid: it is one, as Linux writes them */
    } boot;               /* id of its facts */
    int64_t session;
    uint8_t state;
    bool cordoned, draining;
    bool boot_uuid;
    uint32_t recorded; /* digest of what the row says of its claims, while the record is loaded */
};

struct sc_host {
    struct sc_region *region;
    struct sc_slot_info info; /* its name is the end of full_name */
    struct sc_host_own pb[1];
    struct sc_make *make; /* what it has in common */
    struct sc_image_set images;
    int64_t attach_ns, update_ns; /* wall; 0 never */
    uint64_t heard_ms;            /* last sign of life */
    struct sc_timer silence, resync;
    struct sc_list containers; /* sc_container.on_host */
    int64_t inventory_id;      /* request under way; 0 none */
    struct sc_list strays;     /* sc_stray.on_host */
    uint32_t stray_count, stray_bytes;
    uint32_t container_count;
    uint8_t voice;  /* enum sc_voice, as counted */
    bool stray : 1; /* it was told to remove or to leave alone something that has no place there: asked again later */
    bool stray_open : 1;      /* … and no inventory has shown since that it was done */
    bool inventory_specs : 1; /* the inventory request asks for specs */
    bool specs_wanted : 1;    /* something unknown was found: ask again, with specs */
    bool settled : 1;         /* an inventory was taken in, in this reign */
    bool inventoried : 1;     /* … and in this session: what earlier ones said is older */
    bool passed_over : 1;     /* an attachment was ignored as older than the one in force */
    bool dirty : 1;           /* to be written */
    bool urgent : 1;          /* … and with the next batch */
    struct hp_load load;
    struct sc_list load_link; /* in region->loads while the load is known */
    struct sc_sample sample;  /* the last one */
    uint64_t written_ms;      /* when last written */
    struct sc_list dirty_link;
    char full_name[];
};

/* What hosts of one make have in common. */
struct sc_make {
    int hosts;
    Harpoon__V1__Host *pb;      /* zone, labels, taints, allocatable, and facts but boot id and images */
    struct sc_storage *storage; /* what may be claimed of its storage classes; NULL: it has none */
    char key[65];
};

/* A container that a host has and the record does not know. */
struct sc_stray {
    struct sc_list link;    /* in region->strays */
    struct sc_list on_host; /* in host->strays */
    struct sc_host *host;
    char uid[27];
    char *name; /* as the host knows it; "" none */
    int64_t generation, restart_serial;
    int state;
    Harpoon__V1__ContainerSpec *spec; /* NULL: not known */
    size_t spec_bytes;                /* packed */
    bool asked;                       /* the host was asked for its spec */
    int64_t seen_inventory;           /* the last inventory that it was in */
};

/* What a container's host shall do next. */
enum sc_want { SC_WANT_NOTHING, SC_WANT_ENSURE, SC_WANT_REMOVE };

/* Whether it may be moved. */
enum sc_stay { SC_MOVES, SC_STAYS_STATE, SC_STAYS_VOLUMES, SC_STAYS_HOST, SC_STAYS_ENDED };

/* What containers of one kind have in common, beside their spec: see sc_traits. */
struct sc_traits {
    struct sc_project *project;
    struct sc_group *group, *affine, *spread, *gang; /* of anti-affinity, of affinity, of a spread; NULL none */
    struct sc_res claim;
    int16_t priority; /* these two are only kept at rest (victims.c) */
    uint8_t stay;     /* enum sc_stay */
};

/* What is known of a container beyond that, while something is under way on it or was lately; at rest it is packed (container_body.c). */
struct sc_open {
    struct sc_list link; /* in region->opened */
    struct sc_container *container;
    struct sc_traits traits;
    Harpoon__V1__Container *
        pb; /* what is asked for, with all accepted changes; status. Its name and uid are the container's own; its generation is set when it is told */
    Harpoon__Internal__V1__ContainerBase *confirmed; /* see ContainerRecord; NULL: same as pb */
    int64_t restored_generation;                     /* see ContainerRecord */
    /* The command under way. */
    int64_t flight_generation;
    int64_t flight_after; /* inventory requests made before it was sent */
    struct sc_timer flight_timer;
    struct sc_list dirty_link;
};

struct sc_container {
    struct sc_region *region;
    struct sc_open *open;       /* NULL: at rest, and then: */
    struct sc_share *common;    /* begins with its traits */
    uint8_t *own;               /* see container_own.h */
    struct sc_list order;       /* in region->all */
    struct sc_host *host;       /* NULL: not placed */
    struct sc_storage *storage; /* claimed of storage classes, wherever its claim is; NULL: nothing, or no more */
    struct sc_list on_host;
    struct sc_list queue;           /* active create and changes, oldest first; the first is being done */
    struct sc_operation *delete_op; /* the active delete */
    int64_t generation, restart_serial;
    int64_t reported_generation; /* last result or observation */
    int64_t reported_id;         /* see ContainerRecord */
    int64_t seen_inventory;      /* the last inventory that it was in */
    int reported_desired, reported_state;
    uint8_t flight; /* enum sc_want: the command under way; NOTHING: none */
    bool flight_journalled;
    bool primary;                              /* counted as one, on its host */
    bool deleting, cleanup, sync, remove_sent; /* see ContainerRecord */
    bool leaving;                              /* the same; the first of the queue is a move */
    bool no_room; /* its drain has found no place for it; until there is more room somewhere */
    bool dirty;
    bool etag_own;         /* at rest: it has an etag that does not follow from its generation */
    char operation_id[33]; /* of the present generation */
    char uid[27];
    struct sc_container *chain[SC_CONTAINER_KEYS]; /* in the maps */
    char name[];
};

/* A place on a host that is taken for what is not there yet. */
struct sc_hold {
    struct sc_list link; /* in region->holds */
    struct sc_list
        preemption; /* in region->preemptions: of a create that preempts; `res` is what there is so far, never more than is free */
    struct sc_operation *op;
    struct sc_host *host;
    struct sc_res res;
    struct sc_storage *storage; /* NULL: nothing */
    struct sc_group *group;     /* of anti-affinity: it counts as one of its members there; NULL none */
};

struct sc_operation {
    char id[33];
    char *name, *request_id, *principal, *target;
    char project[64]; /* "" for hosts */
    int verb, stage;
    char uid[27];
    int64_t generation;
    char host[64]; /* short */
    Google__Rpc__Status *error;
    char *reason;
    int attempts;
    int64_t create_ns, update_ns, deadline_ns; /* wall */
    struct {
        int stage;
        int64_t time_ns;
    } history[SC_HISTORY_MAX];
    int history_count;
    uint8_t digest[32];
    char (*excluded)[64];
    size_t excluded_count;
    uint32_t
        excluded_passing; /* bits of `excluded`: refused for their load, and may be tried again when no breaker of theirs is open */
    uint8_t *change; /* packed Request with the payload only */
    size_t change_len;
    int64_t restart_serial;
    struct sc_res need; /* resources that the change names; 0: it leaves them */
    int64_t serial;
    bool active, fresh, dirty;
    bool pending;                   /* in region->pending */
    struct sc_container *container; /* while active, and the verb is of containers */
    struct sc_list queue;           /* in container->queue */
    struct sc_list gang;            /* in group->waiting: a create of a gang, while it is pending */
    struct sc_list
        wait; /* in region->pending, or, a drain, in region->drains, while active, in region->recent afterwards */
    struct sc_hold *hold;        /* NULL none */
    struct sc_list preemptor;    /* in region->preemptors: a create that waits and may preempt */
    bool preempt_looked;         /* it found nobody to preempt, on any host */
    char *preempted_by;          /* move: name of the container that its own has to make room for; NULL none */
    char *wanted_host;           /* move: NULL any */
    char parent[33];             /* move: id of the drain, or of the create that preempts, that asked for it; "" none */
    int parallel, moved, moving; /* drain: moves at a time; that have succeeded; under way */
    struct sc_list dirty_link;
    struct sc_timer expiry;
};

/* A request that waits for its turn. */
struct sc_intake {
    struct sc_list link;
    Harpoon__Internal__V1__Request *message;
    uint64_t tag;
    char *reply_to, *correlation; /* NULL none */
    int verb, deadline_s;
    char target[256];       /* full name of container, host, or (cancel) operation */
    char target_id[33];     /* cancel: id of that operation */
    size_t row, target_row; /* place in the lookup under way + 1; 0: not in it */
    bool answered;          /* the record was asked: what is not below is not there */
    Harpoon__Internal__V1__OperationRecord *found, *found_target;
};

/* An event that the stream has not confirmed. */
struct sc_backlog {
    struct sc_list link;
    int64_t sequence;
    struct sc_blob *body;
    bool confirmed, waits; /* neither: it flies */
};

/* Operation ids seen, folded to 8 bytes. */
struct sc_known {
    uint64_t *slots; /* 0: free */
    size_t room, count;
    bool complete; /* what is not here is not in the record */
};

/* A few indices of slots, or all of them. */
struct sc_slots {
    uint32_t index[SC_SLOTS_MAX];
    size_t count;
    bool all;
    bool skew; /* all for those with a limit to their skew: it may allow others now */
};

struct sc_mark {
    int64_t sequence, time_ns;
};

struct sc_region {
    struct sc_region_config config;
    char name[64];
    int64_t epoch;
    uint64_t seed, uid_count;
    struct sc_time time; /* of the event being taken in */
    bool leading;
    int failed; /* HP_E…: the reign is over */

    struct hp_map hosts, operations, projects, groups;
    struct sc_container_map containers, uids;
    struct sc_list all;                /* sc_container.order, as they came */
    struct sc_list opened;             /* sc_open.link, those that were opened last at the end */
    size_t opened_count, opened_since; /* of these; since some were laid to rest */
    struct sc_open *spare;   /* what is seen when there is no memory to open another, and the region has failed */
    struct sc_shares shares; /* of containers at rest */
    struct hp_map makes,
        words; /* struct sc_make by digest; racks and routers of hosts, with their counts (host_body.c) */
    struct sc_slot *slots;
    size_t slot_count, slot_room;
    struct sc_images images;                     /* of the hosts */
    struct sc_topology topology;                 /* of the slots */
    struct sc_index indexes[SC_CLASSES_MAX + 1]; /* of the slots; the first by the region's weights (places.c) */
    size_t index_count;
    uint8_t class_index[SC_CLASSES_MAX]; /* of each class of the configuration */
    size_t attached_count;               /* hosts */
    size_t function_hosts;               /* those that have network functions */
    uint32_t stamp;                      /* of the last placement query */
    uint32_t *only;                      /* slots of the query's affinity group */
    size_t only_room;
    struct sc_storage_item needs[SC_STORAGE_NEEDS_MAX]; /* of the query */
    size_t storage_hosts;                               /* that have storage classes */
    struct sc_timers timers;
    struct sc_timer republish, settle, pending_timer, restore_timer, stale_timer;
    struct sc_list loads;          /* sc_host.load_link, the oldest sample first */
    size_t breaker_count;          /* open, of all hosts */
    size_t voices[SC_VOICE_COUNT]; /* hosts, by their voice */
    bool braked;
    bool full; /* in this reign hosts were left out, for there are hosts_max */
    bool restored,
        restored_changed;  /* the record was restored, and hosts are still being asked; this is to be written */
    struct sc_list strays; /* sc_stray.link */
    size_t stray_count;

    struct sc_list pending; /* creates that wait for a place, oldest first */
    size_t pending_count;
    struct sc_list holds;       /* sc_hold.link */
    struct hp_map reservations; /* their operations, by the container's full name */
    struct sc_list preemptors;  /* sc_operation.preemptor, the highest priority first */
    struct sc_list preemptions; /* sc_hold.preemption, oldest first; at most one of a host */
    int64_t victims, preempted; /* being removed to make room; and in this reign so far */
    struct sc_slots prey,
        preyed; /* hosts where there may be other victims: since the last look; in the one under way */
    struct sc_list *preempt_next;     /* where the look goes on; NULL: none is under way */
    struct sc_container **candidates; /* scratch of victims.c */
    size_t candidate_room;
    struct sc_list drains;        /* active ones, oldest first */
    int64_t drain_sequence;       /* when they were looked at last */
    bool more_room;               /* since then */
    struct sc_slots freed, tried; /* hosts with more room than before: since the last try; in the try under way */
    struct sc_list *pending_next; /* where the try goes on; NULL: none is under way */
    struct sc_list recent;        /* ended operations, oldest first */
    size_t recent_count;
    size_t active_count;
    struct sc_known known;

    struct sc_list intake; /* sc_intake, in order of arrival */
    bool looking_up;
    size_t answered_count; /* of the intake: the record has told what it had */
    int64_t cut_sequence;  /* of the last batch handed out: later lookups see up to there */
    int64_t seen_sequence; /* that of the oldest lookup that is under way, or whose answers are still in the intake */

    int64_t sequence, watermark, oldest;
    int64_t watermark_recorded;
    int64_t operations_floor; /* ended operations below this serial are deleted already */
    struct sc_mark *marks;
    size_t mark_count;
    int64_t mark_every;
    struct sc_list backlog;
    size_t backlog_count, flying_count, waiting_count;
    struct sc_list *backlog_at; /* where the last outcome was found; NULL: nowhere */
    int64_t committed_sequence; /* of the last batch that is in the record */
    bool stream_away;           /* nothing is published */
    bool stream_proven;         /* it has confirmed something since it was away */
    int64_t hole_after,
        hole_to;            /* events of the backlog that only the record has, first less one and last; 0, 0: none */
    bool fetching, closing; /* a page of the hole is being read; the last one */
    int64_t inventory_ids;
    uint64_t announced_ms; /* when a router was last asked to announce its sessions */

    /* The next batch. */
    struct sc_list dirty_operations, dirty_containers, dirty_hosts;
    struct sc_event_row *events;
    size_t event_count, event_room;
    struct sc_uid_row *deletes;
    size_t delete_count, delete_room;
    struct sc_ack acks[SC_SOURCE_COUNT];
    struct sc_messages verdicts, commands;
    bool settle_due;                              /* the settle timer has fired */
    bool committing;                              /* a batch is under way */
    struct sc_ack released_acks[SC_SOURCE_COUNT]; /* committed: for the next flush */
    struct sc_messages released;
};

/* ---- region.c: memory and small things ---- */
void sc_fail(struct sc_region *r, int code);
/* NULL when out of memory, which ends the reign. */
void *sc_alloc(struct sc_region *r, size_t size); /* zeroed */
char *sc_strdup(struct sc_region *r, const char *s);
struct sc_blob *sc_blob_pack(struct sc_region *r, const ProtobufCMessage *m);
/* Replaces a string field of a heap message. */
void sc_pb_set(struct sc_region *r, char **field, const char *value);
/* A deep copy on the plain heap; NULL ends the reign. */
void *sc_pb_clone(struct sc_region *r, const ProtobufCMessage *m);
/* What we wrote ourselves, or have received as part of a message, whose limits hold. NULL when it is no message of the kind, and when there is no memory: then the region has failed. */
void *sc_pb_unpack(struct sc_region *r, const ProtobufCMessageDescriptor *d, const void *body, size_t len);
void sc_timer_set(struct sc_region *r, struct sc_timer *t, uint64_t after_ms);
void sc_timestamp(Google__Protobuf__Timestamp *t, int64_t ns);
int64_t sc_timestamp_ns(const Google__Protobuf__Timestamp *t); /* 0 for NULL */
void sc_messages_append(struct sc_messages *list, struct sc_message *m);
struct sc_project *sc_project_get(struct sc_region *r, const char *name);
/* `kind`: "" of anti-affinity, "+" of affinity, "=" of a spread, "*": a gang. Find: NULL when there is none. */
struct sc_group *sc_group_find(const struct sc_region *r, const char *kind, const char *project, const char *group);
struct sc_group *sc_group_get(struct sc_region *r, const char *kind, const char *project, const char *group);
/* One less names it, or belongs to it; it may be freed. */
void sc_group_leave(struct sc_region *r, struct sc_group *g); /* NULL is legal */
void sc_project_leave(struct sc_region *r, struct sc_project *p);
void sc_group_move(struct sc_region *r, struct sc_group *g, struct sc_host *host, int delta);
bool sc_known_has(const struct sc_known *k, const char *id);
void sc_known_add(struct sc_region *r, const char *id);
void sc_known_drop(struct sc_known *k);

/* ---- events.c ---- */
struct sc_event_args {
    const char *type;                                           /* without "harpoon." */
    const char *subject, *project, *host, *operation, *message; /* NULL: "" */
    Harpoon__V1__Severity severity;
    const Harpoon__V1__Operation *operation_data;
    const Harpoon__V1__Container *container_data;
    const Harpoon__V1__Host *host_data;
};
/* Takes the next sequence, packs, and adds to the next batch. */
void sc_event_emit(struct sc_region *r, const struct sc_event_args *a);
/* One of the region itself. */
void sc_event_region(struct sc_region *r, const char *type, Harpoon__V1__Severity severity, const char *message);
/* Behind all others. It is published with `out`, unless it must wait; NULL: it waits. */
void sc_backlog_add(struct sc_region *r, int64_t sequence, struct sc_blob *body, struct sc_messages *out);
void sc_backlog_published(struct sc_region *r, int64_t sequence, bool confirmed);
/* Publishes what waits and is committed, as many as the stream is to confirm at a time. */
void sc_backlog_send(struct sc_region *r, struct sc_messages *out);
void sc_backlog_stream(struct sc_region *r, bool away);
/* The next page of what only the record has; NULL: none, or not now. */
struct sc_page *sc_backlog_page(struct sc_region *r);
void sc_backlog_fetched(struct sc_region *r, struct sc_page *p);
void sc_mark_add(struct sc_region *r, int64_t sequence, int64_t time_ns);
/* The first sequence that is younger than `age_ms`. */
int64_t sc_mark_before(const struct sc_region *r, int64_t age_ms);

/* ---- load.c ---- */
/* The record is loaded: nothing of it is to be written, timers run from now. */
void sc_load_done(struct sc_region *r);

/* ---- batch.c ---- */
int sc_batch_cut(struct sc_region *r, struct sc_effects *out);
void sc_batch_committed(struct sc_region *r, struct sc_batch *b);

#endif
