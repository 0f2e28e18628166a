/* hosts.h — what the files about hosts offer each other: what is known of them, how loaded they are, what is sent to them. */
#ifndef SC_CORE_HOSTS_H
#define SC_CORE_HOSTS_H

#include "core/state.h"

/* ---- host.c ---- */
struct sc_host *sc_host_new(struct sc_region *r, const char *name);
void sc_host_free(struct sc_host *h);
struct sc_slot *sc_host_slot(const struct sc_host *h);
/* After every change of the slot's load. */
void sc_host_touch(struct sc_region *r, const struct sc_host *h);
/* Replaces one claim on the host by another; either may be NULL for none. */
void sc_host_claim(struct sc_region *r, const struct sc_host *h, const struct sc_res *old, const struct sc_res *fresh);
bool sc_host_attached(const struct sc_host *h);
/* Attached, and not silent for long. */
bool sc_host_answers(const struct sc_host *h);
/* The load has changed, or is no longer known. */
void sc_host_idle(struct sc_region *r, struct sc_host *h);
/* Recomputes what placement sees, and wakes what waits when there may be more room. */
void sc_host_refresh(struct sc_region *r, struct sc_host *h);
void sc_host_dirty(struct sc_region *r, struct sc_host *h, bool urgent);
void sc_host_event(struct sc_region *r, struct sc_host *h, const char *what, Harpoon__V1__Severity severity,
                   const struct sc_operation *op, const char *message);
void sc_host_heard(struct sc_region *r, struct sc_host *h);
/* A new reign: the silence is counted from now. */
void sc_host_watch(struct sc_region *r, struct sc_host *h);
void sc_host_attach(struct sc_region *r, const Harpoon__Internal__V1__Report *m);
void sc_host_detach(struct sc_region *r, struct sc_host *h, const char *reason);
void sc_host_silent(struct sc_region *r, struct sc_host *h);
/* How long it may be silent: its class's times, or everybody's. */
struct sc_grace sc_host_grace(const struct sc_region *r, const struct sc_host *h);
void sc_host_metrics(struct sc_region *r, const Harpoon__Internal__V1__MetricsBatch *b);
void sc_host_returned(struct sc_region *r, const char *router, const char *host, int64_t session);
Google__Rpc__Status *sc_host_decide(struct sc_region *r, struct sc_operation *op,
                                    const Harpoon__Internal__V1__Request *q, bool dry_run);

/* ---- host_body.c: what is known of a host, in little memory ---- */
/* Takes a loaded message in, and what it has to give. */
void sc_host_body_load(struct sc_region *r, struct sc_host *h, Harpoon__V1__Host *from);
void sc_host_body_done(struct sc_host *h);
/* Takes over zone, rack, labels, taints, allocatable and facts of `m`, which stays the caller's. */
void sc_host_describe(struct sc_region *r, struct sc_host *h, const Harpoon__V1__Host *m);
/* "": none. */
void sc_host_router(struct sc_region *r, struct sc_host *h, const char *router);
/* The whole message: for a moment, nothing else happens meanwhile. */
struct sc_host_dress {
    Harpoon__V1__Host m;
    Harpoon__V1__Resources claimed;
    Google__Protobuf__Timestamp attach, update;
    Harpoon__V1__StorageClass storage[HP_STORAGE_CLASSES_MAX], *storage_list[HP_STORAGE_CLASSES_MAX];
    Harpoon__V1__HostFacts facts;
    char boot_id[37];
    char *images[SC_HOST_IMAGES_MAX];
};
void sc_host_dress(struct sc_region *r, struct sc_host *h, struct sc_host_dress *d);
struct sc_blob *sc_host_pack(struct sc_region *r, struct sc_host *h);
/* The claims of the row may be older than the containers: a reign ended before it wrote them. Then it is written again. */
void sc_host_recount(struct sc_region *r, struct sc_host *h);
/* What its use is measured against; NULL: it has not said. */
const Harpoon__V1__HostFacts *sc_host_facts(const struct sc_host *h);
/* The host has just these images. */
void sc_host_images(struct sc_region *r, struct sc_host *h, char *const *digests, size_t count);
/* Its host has found this image for the container's reference: it has it, and the reference means it. */
void sc_host_image_seen(struct sc_region *r, struct sc_container *c);
/* All that is kept for several hosts; after the hosts. */
void sc_host_bodies_free(struct sc_region *r);

/* ---- places.c: the indexes of places ---- */
void sc_places_init(struct sc_region *r);
void sc_places_done(struct sc_region *r);
/* Before slots below `count` are used. HP_ENOMEM. */
int sc_places_reserve(struct sc_region *r, size_t count) HP_MUST_CHECK;
/* See sc_index_facts and sc_topology_put. HP_ENOMEM: they are no longer of use. */
int sc_places_facts(struct sc_region *r, const struct sc_host *h) HP_MUST_CHECK;
void sc_places_touch(struct sc_region *r, const struct sc_host *h);
void sc_places_primaries(struct sc_region *r, const struct sc_host *h, int32_t delta);
/* Of the class that the spec (may be NULL) names, or the region's. */
const struct sc_weights *sc_places_weights(const struct sc_region *r, const Harpoon__V1__PlacementSpec *spec);
/* As sc_place_best; the query's weights are from sc_places_weights. */
ptrdiff_t sc_places_best(struct sc_region *r, const struct sc_query *q);
void sc_places_check(const struct sc_region *r, const struct sc_host *h);

/* ---- brake.c ---- */
/* The host's state may have changed. */
void sc_brake_count(struct sc_region *r, struct sc_host *h);
/* Whether the brake is on; tells when it was set or released. */
bool sc_brake_check(struct sc_region *r);
void sc_brake_lead(struct sc_region *r);

/* ---- pressure.c: live load and breakers ---- */
/* The breakers that the host's row has. */
void sc_pressure_load(struct sc_region *r, struct sc_host *h);
void sc_pressure_take(struct sc_region *r, struct sc_host *h, const Harpoon__V1__HostMetrics *m);
/* The host has refused a command: opens the breakers that it names. True: it named some, so that the refusal may pass. */
bool sc_pressure_refused(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__CommandResult *m);
/* The stale timer: hosts that were not heard of for too long are idle no more. */
void sc_pressure_stale(struct sc_region *r);
/* For people; borrows from the host, valid as long as that and the scratch. */
struct sc_pressure_scratch {
    Harpoon__V1__HostLoad m;
    Harpoon__V1__HostMetrics metrics;
    Harpoon__V1__LoadMeasure measures[HP_MEASURE_COUNT], *list[HP_MEASURE_COUNT];
    int32_t history[HP_MEASURE_COUNT][HP_LOAD_HISTORY];
};
Harpoon__V1__HostLoad *sc_pressure_message(const struct sc_region *r, const struct sc_host *h,
                                           struct sc_pressure_scratch *s);

/* ---- trust.c ---- */
void sc_host_failed(struct sc_region *r, struct sc_host *h);
/* Time has passed; the caller touches the host. */
void sc_host_forgive(struct sc_region *r, struct sc_host *h);

/* ---- inventory.c ---- */
void sc_inventory_digest(const struct sc_host *h, int32_t *ret_count, uint64_t *ret_digest);
void sc_inventory_check(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryDigest *d);
/* The same with a new attachment. */
void sc_inventory_attached(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryDigest *d);
void sc_inventory_take(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__Inventory *inv);

/* ---- stray.c: what hosts have and the record does not know ---- */
/* An item of an inventory, not a tombstone, of a uid that is not known. True: it was not remembered before. */
bool sc_stray_take(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryItem *x);
/* The inventory is complete: what was not in it is gone. */
void sc_stray_sweep(struct sc_region *r, struct sc_host *h);
struct sc_stray *sc_stray_find(const struct sc_host *h, const char *uid);
const struct sc_stray *sc_stray_named(const struct sc_region *r, const char *name);
/* What the operation is to make has its name on a host already, which the record did not know when it was asked for, as after a restore: ends it. */
bool sc_stray_bars(struct sc_region *r, struct sc_operation *op);
void sc_stray_drop(struct sc_region *r, struct sc_stray *s);
void sc_stray_drop_all(struct sc_region *r, struct sc_host *h);
void sc_stray_free_all(struct sc_region *r);
/* `m` is that host; it is put back as it was. */
struct sc_blob *sc_stray_pack_host(struct sc_region *r, struct sc_host *h, Harpoon__V1__Host *m);
/* Takes over those of a host's row. */
void sc_stray_load(struct sc_region *r, struct sc_host *h, const Harpoon__V1__Host *m);
Google__Rpc__Status *sc_adopt_decide(struct sc_region *r, struct sc_operation *op,
                                     const Harpoon__Internal__V1__Request *q, bool dry_run);

/* ---- dispatch.c ---- */
/* Sends what the container's host shall do next, if anything, and if it can be reached. */
void sc_dispatch(struct sc_region *r, struct sc_container *c);
/* The same after a pause, for what was put off or has failed. */
void sc_dispatch_retry(struct sc_region *r, struct sc_container *c);
/* Removes what is not (or no longer) the host's, without waiting for the answer; `generation` is above all that the host can know. */
void sc_dispatch_remove(struct sc_region *r, struct sc_host *h, const struct sc_container *c, int64_t generation);
void sc_dispatch_quarantine(struct sc_region *r, struct sc_host *h, const char *container, const char *uid,
                            int64_t generation);
void sc_dispatch_inventory(struct sc_region *r, struct sc_host *h);
void sc_dispatch_announce(struct sc_region *r, const char *router);

#endif
