/* journal.h — what the agent's core keeps across restarts, and the store that keeps it: SQLite in shell/journal_sqlite.c, memory in simulations. */
#ifndef HA_CORE_JOURNAL_H
#define HA_CORE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    HA_UID_MAX = 63,          /* bytes of a uid; ours have 26 */
    HA_CONTAINERS_MAX = 1024, /* per host; more are refused */
    HA_REPORTS_MAX =
        8192, /* unconfirmed reports; commands are left alone beyond: the scheduler's deadline brings them back */
    HA_TOMBSTONES_MAX =
        65536, /* the oldest confirmed one is forgotten when there would be more; removals are refused when none is confirmed */
    HA_BLOB_MAX = 1 << 20, /* bytes of one stored spec or report */
};

/* A run of bytes; owned or borrowed as the holder says. */
struct ha_bytes {
    uint8_t *data; /* NULL when len is 0 */
    size_t len;
};

/* One number of the agent itself. */
enum ha_meta_key {
    HA_META_SESSION,     /* of the last attachment */
    HA_META_EPOCH,       /* highest seen */
    HA_META_REPORT_NEXT, /* ids below may have been used */
    HA_META_COUNT,
};

/* What the scheduler was told and the broker has confirmed: the container's part in the inventory digest. */
struct ha_known {
    bool counts; /* a report was confirmed */
    int64_t generation;
    int32_t desired; /* DesiredState */
    int32_t state;   /* ContainerState */
};

/* The change under way: recorded before it is begun, cleared when it is done. */
struct ha_intent {
    int64_t generation; /* 0: none */
    int32_t verb;       /* CommandVerb */
    int32_t step;       /* 1: the old container of a replacement is gone */
    int64_t epoch;
    int64_t restart_serial;
    char operation_id[HA_UID_MAX + 1];
    struct ha_bytes spec; /* packed ContainerSpec; empty for REMOVE */
};

/* A container as journalled. Heap members belong to the holder of the record. */
struct ha_record {
    char uid[HA_UID_MAX + 1];
    char *name; /* full resource name */
    /* What was applied last. */
    int64_t generation; /* 0: nothing yet */
    int64_t restart_serial;
    struct ha_bytes spec; /* packed ContainerSpec; empty when nothing was applied or the container is unknown to us */
    int32_t outcome;      /* CommandOutcome of `generation`; only DONE and FAILED are kept */
    int32_t error_code;   /* google.rpc.Code when FAILED */
    char *error_message;  /* NULL: none */
    struct ha_intent intent;
    bool quarantined;
    /* What was observed last. */
    int32_t state;  /* ContainerState */
    int32_t health; /* HealthState */
    int64_t pid, pid_start_ticks;
    int32_t exit_code;
    bool oom_killed;
    int32_t restart_count; /* since the last accepted change */
    char *address;         /* CIDR; NULL: none */
    char *image_digest;    /* NULL: none */
    char *message;         /* why the state is what it is; NULL: none */
    int64_t start_wall_ns, finish_wall_ns;
    struct ha_known known;
};

struct ha_tombstone {
    char uid[HA_UID_MAX + 1];
    int64_t generation;
    int64_t report_id;     /* of the removal's result; 0: confirmed */
    struct ha_known known; /* counts until the removal is confirmed */
};

/* A result or an observation, kept until it is confirmed. */
struct ha_report_row {
    int64_t id;
    char uid[HA_UID_MAX + 1];
    bool result; /* CommandResult; otherwise Observation */
    int64_t generation;
    struct ha_known known; /* what the container counts as once this is confirmed; counts false: no change */
    struct ha_bytes body;  /* packed AgentMessage, sent as it is */
};

enum ha_write_kind {
    HA_WRITE_META,
    HA_WRITE_CONTAINER,        /* inserts or replaces by uid */
    HA_WRITE_CONTAINER_DELETE, /* by uid */
    HA_WRITE_REPORT,
    HA_WRITE_REPORT_DELETE, /* by id */
    HA_WRITE_TOMBSTONE,     /* inserts or replaces by uid */
    HA_WRITE_TOMBSTONE_DELETE,
};

/* One change of the journal. Everything behind pointers is borrowed during ha_journal.write. */
struct ha_write {
    enum ha_write_kind kind;
    enum ha_meta_key meta_key;            /* META */
    int64_t number;                       /* META: the value; REPORT_DELETE: the id */
    char uid[HA_UID_MAX + 1];             /* …_DELETE by uid */
    const struct ha_record *record;       /* CONTAINER */
    const struct ha_report_row *report;   /* REPORT */
    const struct ha_tombstone *tombstone; /* TOMBSTONE */
};

/* Implementations embed this. All on the loop thread. */
struct ha_journal {
    /* Takes a copy of `count` writes, which become durable together and after all earlier ones. */
    void (*write)(struct ha_journal *j, uint64_t seq, const struct ha_write *writes, size_t count);
    /* Everything up to `seq` is durable; or, with status not 0, it is not and nothing later will be. Never from inside write. */
    void (*synced_cb)(void *user, uint64_t seq, int status, const struct hp_error *e);
    void *user;
};

/* The whole journal, as read at start. */
struct ha_image {
    int64_t meta[HA_META_COUNT];
    struct ha_record *records;
    size_t record_count;
    struct ha_report_row *reports; /* by id, ascending */
    size_t report_count;
    struct ha_tombstone *tombstones; /* oldest first */
    size_t tombstone_count;
};

/* Deep copies; HP_ENOMEM leaves *ret empty. */
int ha_bytes_copy(struct ha_bytes *ret, const void *data, size_t len) HP_MUST_CHECK;
int ha_record_copy(struct ha_record *ret, const struct ha_record *from) HP_MUST_CHECK;
int ha_report_row_copy(struct ha_report_row *ret, const struct ha_report_row *from) HP_MUST_CHECK;
/* On failure *ret holds what is there so far: ha_write_done. */
int ha_write_copy(struct ha_write *ret, const struct ha_write *from) HP_MUST_CHECK;
/* Frees a copy's record, report or tombstone. */
void ha_write_done(struct ha_write *w);
/* Free what is behind the pointers and zero the structure. */
void ha_bytes_done(struct ha_bytes *b);
void ha_intent_done(struct ha_intent *i);
void ha_record_done(struct ha_record *r);
void ha_report_row_done(struct ha_report_row *r);
void ha_image_done(struct ha_image *image);

#endif
