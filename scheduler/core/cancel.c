/* cancel.c — giving an operation up while nothing of it has been sent. */
#include <string.h>

#include "core/containers.h"
#include "core/operations.h"
#include "core/state.h"

static Google__Rpc__Status *refuse(const struct sc_operation *cancel, int code, const char *reason, const char *text)
{
    Google__Rpc__Status *s = hp_status_new(code, reason, "operation \"%s\" %s", cancel->target, text);
    return hp_status_add_metadata(s, "operation", cancel->target);
}

static Google__Rpc__Status *check(const struct sc_operation *cancel, const struct sc_operation *op,
                                  const Harpoon__Internal__V1__OperationRecord *found)
{
    if (!op && !found)
        return refuse(cancel, HP_CODE_NOT_FOUND, "OPERATION_NOT_FOUND", "does not exist");
    if (!op || !op->active)
        return refuse(cancel, HP_CODE_FAILED_PRECONDITION, "OPERATION_ENDED", "has ended already");
    if (op->verb == HARPOON__V1__VERB__VERB_DRAIN || op->verb == HARPOON__V1__VERB__VERB_RESERVE)
        return NULL;
    if (!op->container)
        return refuse(cancel, HP_CODE_FAILED_PRECONDITION, "OPERATION_DISPATCHED", "cannot be cancelled");
    if (op->verb == HARPOON__V1__VERB__VERB_MOVE ? sc_move_past(op) : op->stage >= HARPOON__V1__STAGE__STAGE_DISPATCHED)
        return refuse(cancel, HP_CODE_FAILED_PRECONDITION, "OPERATION_DISPATCHED",
                      "has been sent to its host and cannot be called back");
    return NULL;
}

Google__Rpc__Status *sc_cancel_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__OperationRecord *found, bool dry_run)
{
    const char *slash = strrchr(op->target, '/');
    assert(slash);
    struct sc_operation *victim = hp_map_get(&r->operations, slash + 1);
    if (victim == op)
        victim = NULL;
    Google__Rpc__Status *s = check(op, victim, found);
    if (s || dry_run)
        return s;
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    sc_operation_abort(r, victim, HARPOON__V1__STAGE__STAGE_CANCELLED,
                       hp_status_new(HP_CODE_CANCELLED, "OPERATION_CANCELLED", "cancelled by \"%s\"", op->principal));
    sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
    return NULL;
}
