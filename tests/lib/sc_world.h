/* sc_world.h — a scheduler's core with a record, a stream and routers made of memory, and a trace of everything that leaves it. */
#ifndef TESTS_SC_WORLD_H
#define TESTS_SC_WORLD_H

#include <stdbool.h>
#include <stdio.h>

#include "core/region.h"

enum { SCW_ROWS_MAX = 4096, SCW_TRACE_MAX = 1 << 16, SCW_COMMANDS_MAX = 4096 };

struct scw_row {
    char key[256];  /* operation id, container name, host name */
    char uid[27];   /* container */
    int64_t serial; /* operation; event: sequence */
    bool active;    /* operation */
    int stage;      /* operation */
    struct sc_blob *body;
};

struct scw_table {
    struct scw_row rows[SCW_ROWS_MAX];
    size_t count;
};

/* A command that left, as a router would see it. */
struct scw_command {
    char router[64], host[64], uid[27], container[256];
    int verb; /* harpoon.internal.v1.CommandVerb; 0: inventory request */
    int64_t generation, session, request_id, restart_serial;
    int64_t cpu_millis, memory_bytes;
    int desired;
};

/* What a backup holds. */
struct scw_dump {
    struct scw_table operations, containers, hosts;
};

struct scw {
    struct sc_region *region;
    struct sc_region_config config;
    struct sc_time time;
    int64_t epoch;
    uint64_t tag;
    uint32_t request_count;
    bool hold_commits; /* keep the batch in `held` instead of committing it at once */
    bool mute_stream;  /* publishes stay unanswered */
    bool mute_trace;
    void (*enter)(void),
        (*leave)(void); /* around each call of the core, so that its allocations can be made to fail; NULL none */
    bool over;          /* the core ran out of memory: the reign has ended, call scw_takeover */
    struct sc_batch *held;
    /* The record. */
    int64_t sequence, watermark, oldest, commits, lookups, pages;
    bool restored;
    struct scw_dump *dump;
    struct scw_table operations, containers, hosts, events;
    struct sc_quota quota;               /* of project "p", when set */
    const Harpoon__V1__HostFacts *facts; /* that hosts say when they attach; NULL: none */
    bool known_complete;                 /* what a takeover says of the ids it loaded */
    /* What left. */
    char trace[SCW_TRACE_MAX];
    size_t trace_len;
    struct scw_command commands[SCW_COMMANDS_MAX];
    size_t command_count;
    int64_t published, sent; /* last sequence confirmed; highest that left */
    int64_t skips, repeats;  /* events that left before an earlier one, or again */
    int verdict_code;        /* of the last verdict; -1 none */
    char verdict_reason[64];
    char verdict_operation[64]; /* id */
    int verdict_stage;
};

struct scw *scw_new(const struct sc_region_config *config); /* NULL: defaults; begins the first reign */
void scw_free(struct scw *w);
/* Ends the reign without a trace, loads the record and begins the next one; `over` says whether that one has ended already. */
void scw_takeover(struct scw *w);
/* Keeps a copy of the record; makes the record that again, declares it restored, and begins a reign. */
void scw_dump(struct scw *w);
void scw_restore(struct scw *w);
/* Fails unless the trace since the last call is exactly this. */
void scw_expect_at(struct scw *w, const char *expected, const char *file, int line);
#define scw_expect(w_, expected_) scw_expect_at((w_), (expected_), __FILE__, __LINE__)
void scw_clear(struct scw *w);
void scw_advance(struct scw *w, uint64_t ms); /* fires timers on the way */
void scw_flush(struct scw *w);
void scw_commit(struct scw *w); /* the held batch */
const struct scw_row *scw_find(const struct scw_table *t, const char *key);
void scw_step(struct scw *w, struct sc_ev *ev); /* at the present time */

/* Requests. `id` numbers the request id: the same number is the same operation. They answer to queue "q". */
void scw_create(struct scw *w, unsigned id, const char *name, int64_t cpu, int64_t memory_mib);
void scw_create_spec(struct scw *w, unsigned id, const char *name, Harpoon__V1__ContainerSpec *spec, int deadline_s);
/* Creates c<id>, small, with this placement; NULL: any. */
void scw_place(struct scw *w, unsigned id, Harpoon__V1__PlacementSpec *placement);
void scw_resize(struct scw *w, unsigned id, const char *name, int64_t cpu, int64_t memory_mib, const char *etag);
void scw_verb(struct scw *w, unsigned id, Harpoon__Internal__V1__Request__PayloadCase verb, const char *name,
              const char *etag);
void scw_request(struct scw *w, unsigned id,
                 Harpoon__Internal__V1__Request *q); /* the project is the caller's to set */
void scw_adopt(struct scw *w, unsigned id, const char *host, const char *uid);
void scw_cancel(struct scw *w, unsigned id, unsigned target);

/* Reports. */
void scw_attach(struct scw *w, const char *host, int64_t session, int64_t cpu, int64_t memory_mib);
void scw_attach_digest(struct scw *w, const char *host, int64_t session, int64_t cpu, int64_t memory_mib, int32_t count,
                       uint64_t digest);
void scw_detach(struct scw *w, const char *host, int64_t session);
void scw_journalled(struct scw *w, const char *host, const char *uid, int64_t generation);
void scw_result(struct scw *w, const char *host, const char *uid, int64_t generation,
                Harpoon__Internal__V1__CommandOutcome outcome, int state, const char *error);
void scw_done(struct scw *w, const char *host, const char *uid, int64_t generation);
void scw_observe(struct scw *w, const char *host, const char *uid, int64_t generation, int state, const char *kind);
void scw_report(struct scw *w, const char *host, Harpoon__Internal__V1__Report *m);
/* The host's answer to the last question for its inventory. */
void scw_inventory(struct scw *w, const char *host, int64_t session, Harpoon__Internal__V1__InventoryItem **items,
                   size_t count);
/* The uid of a container in the record; fails when there is none. */
const char *scw_uid(struct scw *w, const char *name);

#endif
