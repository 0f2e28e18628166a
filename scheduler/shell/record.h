/* record.h — the region's part of the database: taking it over, one transaction a batch, lookups. Jobs for hp_db; the loop owns them before and after. */
#ifndef SC_SHELL_RECORD_H
#define SC_SHELL_RECORD_H

#include "core/region.h"
#include "io/db.h"

/* regions.restored. A dump ends with a statement that sets RAW; `harpoon admin restored` turns that into COMPARING; the scheduler ends it. */
enum sc_restored { SC_RESTORED_NO, SC_RESTORED_RAW, SC_RESTORED_COMPARING };

/* Raises the epoch, then builds a region from the record, on the database thread. */
struct sc_takeover {
    struct hp_db_job job;
    struct sc_region_config config;
    char name[64];    /* of the region */
    char holder[128]; /* who leads from now on */
    uint64_t seed;
    int64_t epoch_min;        /* a record of a lower epoch is older than the region */
    struct sc_region *region; /* result; passes to whoever finishes the job */
    int64_t epoch;            /* result */
    void *owner;              /* the submitter's */
    uint64_t reign;           /* the submitter's */
};
void sc_takeover_init(struct sc_takeover *t, const struct sc_region_config *config, const char *region,
                      const char *holder, uint64_t seed);

/* Runs a batch. HP_EFENCED: another scheduler has a newer epoch. */
struct sc_write {
    struct hp_db_job job;
    char name[64];
    struct sc_batch *batch; /* borrowed by the job until it is done */
    int attempts;           /* the submitter's, and so the rest */
    uint64_t began_ns;
    void *owner;
    uint64_t reign;
};
void sc_write_init(struct sc_write *w, const char *region, struct sc_batch *batch);

/* Whether an epoch is still in force. HP_EFENCED: another scheduler has a newer one. */
struct sc_assert {
    struct hp_db_job job;
    char name[64];
    int64_t epoch;
};
void sc_assert_init(struct sc_assert *a, const char *region, int64_t epoch);

struct sc_find {
    struct hp_db_job job;
    char name[64];
    struct sc_lookup *lookup; /* borrowed by the job until it is done */
    void *owner;              /* the submitter's */
    uint64_t reign;           /* the submitter's */
};
void sc_find_init(struct sc_find *f, const char *region, struct sc_lookup *lookup);

struct sc_read {
    struct hp_db_job job;
    char name[64];
    struct sc_page *page; /* borrowed by the job until it is done */
    void *owner;          /* the submitter's */
    uint64_t reign;       /* the submitter's */
};
void sc_read_init(struct sc_read *x, const char *region, struct sc_page *page);

#endif
