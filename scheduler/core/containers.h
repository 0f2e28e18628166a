/* containers.h — what the files about containers offer each other: what is known of them, what they claim, and how they move. */
#ifndef SC_CORE_CONTAINERS_H
#define SC_CORE_CONTAINERS_H

#include "core/state.h"

/* ---- container.c ---- */
/* Takes `body`, also when it fails: NULL, and then the region has failed. No other has its name or its uid. */
struct sc_container *sc_container_new(struct sc_region *r, struct sc_project *project, Harpoon__V1__Container *body);
/* Takes the container out of everything and frees it. */
void sc_container_drop(struct sc_region *r, struct sc_container *c);
void sc_container_free(struct sc_container *c);
/* NULL: there is none. */
struct sc_container *sc_container_find(const struct sc_region *r, const char *name);
struct sc_container *sc_container_of(const struct sc_region *r, const char *uid);
void sc_container_dirty(struct sc_region *r, struct sc_container *c);
void sc_container_sync(struct sc_region *r, struct sc_container *c, bool sync);
void sc_container_event(struct sc_region *r, struct sc_container *c, const char *what, Harpoon__V1__Severity severity,
                        const struct sc_operation *op, const char *message);
/* Raises the generation and sets etag and update_time. */
void sc_container_bump(struct sc_region *r, struct sc_container *c);
/* Gives all operations of the queue generations anew, in their order, above all that a host can know. */
void sc_container_renumber(struct sc_region *r, struct sc_container *c);
/* It is nowhere any more, and will be made anew: gives it another uid. */
void sc_container_reborn(struct sc_region *r, struct sc_container *c);
void sc_container_state(struct sc_region *r, struct sc_container *c, int state, const char *message);
/* Its spec is known: joins the groups that it names. */
void sc_container_join(struct sc_region *r, struct sc_container *c);
void sc_container_claim(struct sc_region *r, struct sc_container *c, const struct sc_res *claim);
/* It is nowhere, and will never be anywhere again: claims nothing any more. */
void sc_container_unclaim(struct sc_region *r, struct sc_container *c);
/* All that it claims counts on the host (1), or does not any more (-1). */
void sc_container_count(struct sc_region *r, const struct sc_container *c, const struct sc_host *host, int delta);
/* Counts it as placed on the host (1), or not any more (-1), without a trace: on trial. */
void sc_container_try(struct sc_region *r, struct sc_container *c, struct sc_host *host, int delta);
/* Its role may have changed: it is counted as what it is. */
void sc_container_role(struct sc_region *r, struct sc_container *c);
/* Puts it on `host` (NULL: takes it off), and moves the claim along. */
void sc_container_assign(struct sc_region *r, struct sc_container *c, struct sc_host *host);
struct sc_operation *sc_container_head(const struct sc_container *c);
struct sc_res sc_spec_res(const Harpoon__V1__ContainerSpec *spec);
struct sc_res sc_resources_res(const Harpoon__V1__Resources *x); /* NULL: none; without functions */
struct sc_blob *sc_container_pack(struct sc_region *r, struct sc_container *c);
void sc_uid_make(struct sc_region *r, char uid[27]);

/* ---- container_body.c: what is known of a container, in little memory ---- */
/* HP_ENOMEM: the region is to be freed. */
int sc_containers_init(struct sc_region *r) HP_MUST_CHECK;
/* Frees them all. */
void sc_containers_done(struct sc_region *r);
/* A container that is being made is open; takes `body`, also when it fails: HP_ENOMEM. */
int sc_open_new(struct sc_container *c, Harpoon__V1__Container *body) HP_MUST_CHECK;
/* Behind sc_open. */
struct sc_open *sc_open_again(struct sc_container *c);
/* Opens a container that is at rest. Never NULL: without memory the region has failed, and something is there that is as good as empty. What it gives stays until the next flush, and as
   long as something is under way. */
static inline struct sc_open *sc_open(const struct sc_container *c)
{
    return c->open ? c->open : sc_open_again((struct sc_container *)(uintptr_t)c);
}
static inline Harpoon__V1__Container *sc_body(const struct sc_container *c)
{
    return sc_open(c)->pb;
}
/* Of a container that is at rest: valid until it is opened. */
static inline const struct sc_traits *sc_traits(const struct sc_container *c)
{
    return c->open ? &c->open->traits : (const struct sc_traits *)(const void *)c->common->bytes;
}
/* NULL: same as the body. */
static inline Harpoon__Internal__V1__ContainerBase *sc_confirmed(const struct sc_container *c)
{
    return c->open ? c->open->confirmed : NULL;
}
/* NULL: none. It takes `base`, and the old one goes. */
void sc_confirmed_set(const struct sc_container *c, Harpoon__Internal__V1__ContainerBase *base);
/* See ContainerRecord. */
static inline int64_t sc_restored_generation(const struct sc_container *c)
{
    return c->open ? c->open->restored_generation : 0;
}
/* Nothing is waited for any more. */
void sc_flight_untimed(struct sc_region *r, const struct sc_container *c);
/* The body as it is told: as sc_body, with its generation. */
Harpoon__V1__Container *sc_body_told(const struct sc_container *c);
void sc_body_free(struct sc_container *c);
/* At rest only: a copy of what the body has in common with others', for a look that leaves the container as it is; the caller's. NULL: no memory. */
Harpoon__V1__Container *sc_body_peek(const struct sc_container *c);
/* Lays it to rest, when nothing is under way. */
void sc_container_rest(struct sc_container *c);
/* The same with those that were opened first, until as many are left as may stay open. Nobody holds a body any more. */
void sc_containers_rest(struct sc_region *r);
/* ---- storage.c: storage classes ---- */
/* Its spec is known: it claims what its volumes need. */
void sc_storage_join(struct sc_region *r, struct sc_container *c);
/* It claims nothing any more; it has no host. */
void sc_storage_leave(struct sc_container *c);
/* Counts (1), or does not any more (-1); `x` may be NULL. */
void sc_storage_count(const struct sc_host *h, const struct sc_storage *x, int sign);
/* The host's make may have changed: what is claimed there is counted anew. */
void sc_storage_describe(struct sc_region *r, struct sc_host *h);
void sc_storage_check(const struct sc_host *h);
void sc_storage_check_claim(const struct sc_container *c, const Harpoon__V1__ContainerSpec *spec);
/* What is wrong with a spec's volumes; NULL: nothing. */
Google__Rpc__Status *sc_storage_wrong(const Harpoon__V1__ContainerSpec *spec);

/* ---- move.c: from host to host ---- */
/* Of verbs that find a place for their container. */
bool sc_operation_places(const struct sc_operation *op);
enum sc_stay sc_move_stay(const struct sc_container *c);
const char *sc_stay_text(enum sc_stay stay); /* NULL: it moves */
/* Why it may not be moved, for people; NULL: it may. */
const char *sc_move_stays(const struct sc_container *c);
/* One of a group is moved at a time. */
bool sc_move_group_busy(const struct sc_container *c);
/* Where it is it does not count (-1) while another place is looked for; then (1) it does again. */
void sc_move_count_here(struct sc_region *r, const struct sc_container *c, int delta);
/* The best other host, or just `wanted` (NULL: any); NULL: none, and `reason` (may be NULL) says why. */
struct sc_host *sc_move_find(struct sc_region *r, struct sc_container *c, const char *wanted, char *reason,
                             size_t reason_size);
/* Begins a move to `to` for a drain, or for a create that preempts, as an operation of its own; nothing else is under way on `c`. NULL, for the latter: it waits for a place when it has been removed. */
void sc_move_start(struct sc_region *r, struct sc_container *c, struct sc_operation *by, struct sc_host *to);
/* The first of the queue is a move that has not begun. */
bool sc_move_waits(const struct sc_container *c);
/* Then: begins it, or ends it. False: something else is first now. */
bool sc_move_begin(struct sc_region *r, struct sc_container *c);
/* Its host has removed it (or is lost): it gets the place that is held, or another one. */
void sc_move_removed(struct sc_region *r, struct sc_container *c);
/* It could not be made at the new place: takes it from there, and goes on elsewhere. False: that was tried often enough. */
bool sc_move_elsewhere(struct sc_region *r, struct sc_container *c, struct sc_operation *op,
                       const Google__Rpc__Status *error);
/* It cannot be called back any more. */
bool sc_move_past(const struct sc_operation *op);
/* Its container is being deleted. */
void sc_move_overtaken(struct sc_container *c, const struct sc_operation *op);
/* Takes back what can still be called back. */
void sc_move_undo(struct sc_region *r, struct sc_container *c, struct sc_operation *op);
/* The move is over: what it held and counted goes. */
void sc_move_over(struct sc_region *r, struct sc_operation *op, int stage);
/* Counts a loaded move; `held`: the short name of the host where it has a place, or "". */
void sc_move_load(struct sc_region *r, struct sc_operation *op, const char *held);
Google__Rpc__Status *sc_move_decide(struct sc_region *r, struct sc_operation *op,
                                    const Harpoon__Internal__V1__Request *q, bool dry_run);
/* Of an affinity group that is nowhere but where nothing new may go, the first may go anywhere. */
void sc_move_relax(struct sc_region *r, struct sc_query *q, const struct sc_container *c);
/* Whether the host can take it now; `c` is on no host, or on another one. */
bool sc_place_fits(struct sc_region *r, const struct sc_container *c, const struct sc_operation *op,
                   const struct sc_host *h);
bool sc_hold_take(struct sc_region *r, struct sc_operation *op, struct sc_host *h, const struct sc_res *res,
                  struct sc_storage *storage, struct sc_group *group);
void sc_hold_resize(struct sc_region *r, struct sc_operation *op, const struct sc_res *res);
void sc_hold_drop(struct sc_region *r, struct sc_operation *op);

/* ---- drain.c: a host is emptied ---- */
/* The operation begins, or, after a takeover, goes on. */
void sc_drain_begin(struct sc_region *r, struct sc_host *h, struct sc_operation *op);
/* Goes on with all of them, when anything has happened. */
void sc_drain_try(struct sc_region *r);
/* The active drain of the host, or NULL. */
struct sc_operation *sc_drain_of(const struct sc_region *r, const struct sc_host *h);

/* ---- rebalance.c: what would be better elsewhere ---- */
/* The caller's; NULL: no memory. */
Harpoon__V1__ProposeMovesResponse *sc_rebalance(struct sc_region *r, const Harpoon__V1__ProposeMovesRequest *q);

/* ---- restore.c: a record that was restored from a backup ---- */
void sc_restore_lead(struct sc_region *r);
/* Why creates wait meanwhile. */
const char *sc_restore_waits(void);
/* Nothing must be sent for this container yet. */
bool sc_restore_holds(const struct sc_region *r, const struct sc_container *c);
/* Before an item of an inventory is compared with a known container. */
void sc_restore_item(struct sc_region *r, struct sc_host *h, struct sc_container *c,
                     const Harpoon__Internal__V1__InventoryItem *x);
/* Its host does not have it. */
void sc_restore_missing(struct sc_region *r, struct sc_container *c);
/* A host has answered, or was given up, or the time is over: goes back to normal when that was the last. */
void sc_restore_check(struct sc_region *r);

#endif
