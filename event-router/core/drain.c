/* The orderly end: agents are told in portions, so that they do not all knock at the next router in the same moment; those that are still here at the deadline are cut off; then
 * the last reports are waited for, if there is a broker to confirm them. */
#include "core/private.h"

enum { STEP_MS = 50, STEP_SESSIONS = 500, LAST_REPORTS_MS = 5000, CUT_LINGER_MS = 1000 };

void er_drain_forget(struct er_core *c, struct er_session *s)
{
    if (c->drain_next == s)
        c->drain_next = s->all_next;
}

void er_drain_check(struct er_core *c, uint64_t now_ms)
{
    if (!c->draining || c->drained)
        return;
    bool nothing_left = !c->broker_ready || (!c->own.first && c->publishing == 0);
    if ((c->session_count == 0 && nothing_left) || now_ms >= c->drain_end_ms) {
        c->drained = true;
        er_emit(c, ER_DRAINED);
    }
}

static void tell(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    Harpoon__Internal__V1__RouterMessage m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__RouterDraining d = HARPOON__INTERNAL__V1__ROUTER_DRAINING__INIT;
    d.deadline_ms = (int32_t)(c->drain_deadline_ms - now_ms);
    m.body_case = ER_V1(ROUTER_MESSAGE__BODY_DRAINING);
    m.draining = &d;
    er_send(c, now_ms, s, &m);
}

void er_drain_step(struct er_core *c, uint64_t now_ms)
{
    if (!c->draining || c->drained)
        return;
    if (now_ms >= c->drain_deadline_ms && !c->drain_cut) {
        c->drain_cut = true;
        for (struct er_session *s = c->all; s; s = s->all_next)
            er_session_end(c, now_ms, s, ER_DETACH_ROUTER_DRAINING, CUT_LINGER_MS);
        c->drain_next = NULL;
    } else if (c->drain_next && now_ms >= c->drain_step_ms) {
        for (int i = 0; i < STEP_SESSIONS && c->drain_next; i++) {
            struct er_session *s = c->drain_next;
            c->drain_next = s->all_next;
            if (s->state == ER_ATTACHED)
                tell(c, now_ms, s);
            else
                er_session_end(c, now_ms, s, ER_DETACH_ROUTER_DRAINING, CUT_LINGER_MS);
        }
        c->drain_step_ms = now_ms + STEP_MS;
    }
    er_drain_check(c, now_ms);
}

void er_core_drain(struct er_core *c, uint64_t now_ms)
{
    if (c->draining)
        return;
    c->draining = true;
    c->drain_deadline_ms = now_ms + c->o.drain_ms;
    c->drain_end_ms = c->drain_deadline_ms + LAST_REPORTS_MS;
    c->drain_next = c->all;
    c->drain_step_ms = now_ms;
    er_drain_step(c, now_ms);
}
