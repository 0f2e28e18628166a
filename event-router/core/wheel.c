/* The timer wheel: sessions hang in the slot of the time when they want to be looked at, in steps of 100 ms; a time beyond the wheel hangs in its last slot and is
 * looked at early, which does no harm. Putting, removing and finding what is due take constant time per session. */
#include <assert.h>

#include "core/private.h"

void er_wheel_remove(struct er_core *c, struct er_session *s)
{
    if (!s->on_wheel)
        return;
    s->on_wheel = false;
    if (s->wheel_prev)
        s->wheel_prev->wheel_next = s->wheel_next;
    else
        c->wheel[s->wheel_slot] = s->wheel_next;
    if (s->wheel_next)
        s->wheel_next->wheel_prev = s->wheel_prev;
    assert(c->on_wheel > 0);
    c->on_wheel--;
}

void er_wheel_put(struct er_core *c, struct er_session *s, uint64_t due_ms)
{
    er_wheel_remove(c, s);
    if (due_ms < c->wheel_ms)
        due_ms = c->wheel_ms;
    uint64_t steps = (due_ms - c->wheel_ms + ER_WHEEL_STEP_MS - 1) / ER_WHEEL_STEP_MS;
    if (steps > ER_WHEEL_SLOTS - 1)
        steps = ER_WHEEL_SLOTS - 1;
    s->wheel_slot = (uint16_t)((c->wheel_ms / ER_WHEEL_STEP_MS + steps) % ER_WHEEL_SLOTS);
    s->wheel_prev = NULL;
    s->wheel_next = c->wheel[s->wheel_slot];
    if (s->wheel_next)
        s->wheel_next->wheel_prev = s;
    c->wheel[s->wheel_slot] = s;
    s->on_wheel = true;
    c->on_wheel++;
}

void er_wheel_turn(struct er_core *c, uint64_t now_ms)
{
    /* After a long stop of the process one round looks at everybody. */
    int rounds = 0;
    while (c->wheel_ms + ER_WHEEL_STEP_MS <= now_ms && rounds++ < ER_WHEEL_SLOTS) {
        uint16_t slot = (uint16_t)(c->wheel_ms / ER_WHEEL_STEP_MS % ER_WHEEL_SLOTS);
        struct er_session *s = c->wheel[slot], *next;
        c->wheel_ms += ER_WHEEL_STEP_MS; /* what is put from here on goes to later slots */
        for (; s; s = next) {
            next = s->wheel_next;
            er_wheel_remove(c, s);
            er_session_look(c, now_ms, s);
        }
    }
    if (c->wheel_ms + ER_WHEEL_STEP_MS <= now_ms)
        c->wheel_ms = now_ms - now_ms % ER_WHEEL_STEP_MS;
}
