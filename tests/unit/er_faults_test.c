/* er_faults_test.c — every allocation of the router's core fails once: a session may be closed and come back, a command may be lost (its deadline brings it back), but a report that the agent
 * was allowed to forget is with the broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/er_world.h"
#include "lib/fail_alloc.h"
#include "wire/codec.h"
#include "wire/frame.h"

#define V1(name) HARPOON__INTERNAL__V1__##name
typedef Harpoon__Internal__V1__RouterMessage pb_router;

enum { REPORTS = 3, LINK = 1 };

struct world {
    struct er_core *core;
    uint64_t now;
    struct er_session *session;
    bool closed, welcome, paused;
    int64_t number; /* of the session */
    struct er_report *published[32];
    size_t published_count;
    bool at_broker[REPORTS + 1], forgotten[REPORTS + 1]; /* by report id */
    int attaches, commands;
};

static void take_frame(struct world *w, const uint8_t *frame, size_t len)
{
    ProtobufCMessage *m = NULL;
    assert_int_equal(hp_unpack(&harpoon__internal__v1__router_message__descriptor, frame + HP_FRAME_HEADER,
                               len - HP_FRAME_HEADER, NULL, &m, NULL),
                     0);
    const pb_router *r = (const pb_router *)m;
    w->welcome = w->welcome || r->body_case == V1(ROUTER_MESSAGE__BODY_WELCOME);
    w->commands += r->body_case == V1(ROUTER_MESSAGE__BODY_COMMAND);
    for (size_t i = 0; r->body_case == V1(ROUTER_MESSAGE__BODY_CONFIRMED) && i < r->confirmed->n_report_ids; i++) {
        int64_t id = r->confirmed->report_ids[i];
        assert_in_range(id, 1, REPORTS);
        assert_true(w->at_broker[id]); /* never before the broker has it */
        w->forgotten[id] = true;
    }
    hp_unpacked_free(m);
}

static void apply(struct world *w)
{
    size_t count;
    const struct er_effect *list = er_core_effects(w->core, &count);
    for (size_t i = 0; i < count; i++) {
        const struct er_effect *f = &list[i];
        if (f->kind == ER_SEND && w->session && !w->closed)
            take_frame(w, er_core_bytes(w->core, f->offset), f->len);
        else if (f->kind == ER_CLOSE)
            w->closed = true;
        else if (f->kind == ER_PAUSE || f->kind == ER_RESUME)
            w->paused = f->kind == ER_PAUSE;
        else if (f->kind == ER_PUBLISH)
            w->published[w->published_count++] = f->report;
        else if (f->kind == ER_NOTE)
            assert_null(strstr(f->text, " is no ")); /* all here is well formed: for want of memory nobody is blamed */
    }
    er_core_effects_done(w->core);
}

/* One call of the core, with its allocations. */
#define CALL(w_, call_)                                                                                                \
    do {                                                                                                               \
        fa_enter();                                                                                                    \
        call_;                                                                                                         \
        fa_leave();                                                                                                    \
        apply(w_);                                                                                                     \
    } while (0)

static void confirm(struct world *w, struct er_report *r)
{
    size_t len;
    const uint8_t *body = er_report_body(r, &len);
    ProtobufCMessage *m = NULL;
    assert_int_equal(hp_unpack(&harpoon__internal__v1__report__descriptor, body, len, NULL, &m, NULL), 0);
    const Harpoon__Internal__V1__Report *x = (const Harpoon__Internal__V1__Report *)m;
    if (x->body_case == V1(REPORT__BODY_RESULT))
        w->at_broker[x->result->report_id] = true;
    w->attaches += x->body_case == V1(REPORT__BODY_ATTACH);
    hp_unpacked_free(m);
    CALL(w, er_core_published(w->core, w->now, r, ER_CONFIRMED));
}

static void turn(struct world *w)
{
    CALL(w, er_core_end_turn(w->core, w->now));
    while (w->published_count) {
        struct er_report *r = w->published[0];
        memmove(w->published, w->published + 1, --w->published_count * sizeof *w->published);
        confirm(w, r);
        CALL(w, er_core_end_turn(w->core, w->now));
    }
}

/* Time for whatever is tried again. */
static void pass(struct world *w, uint64_t ms)
{
    uint64_t until = w->now + ms;
    for (int i = 0; er_core_deadline(w->core) <= until; i++) {
        assert_true(i < 1000);
        if (er_core_deadline(w->core) > w->now)
            w->now = er_core_deadline(w->core);
        CALL(w, er_core_tick(w->core, w->now));
        turn(w);
    }
    w->now = until;
}

/* Takes the body over. */
static void feed(struct world *w, uint8_t *body, size_t len)
{
    int rc = 0;
    if (w->session && !w->closed) {
        CALL(w, rc = er_core_frame(w->core, w->now, w->session, body, len));
        assert_true(rc == 0 || w->closed);
        turn(w);
    }
    free(body);
}

static void disconnect(struct world *w)
{
    if (w->session)
        CALL(w, er_core_disconnected(w->core, w->now, w->session));
    w->session = NULL;
    w->closed = w->welcome = false;
    turn(w);
}

/* As an agent does: with the next session number, until it is welcome. */
static void attach(struct world *w)
{
    for (int tries = 0; !w->welcome || w->closed; tries++) {
        size_t len;
        assert_true(tries < 3);
        disconnect(w);
        fa_enter();
        w->session = er_core_connected(w->core, w->now, (void *)LINK, "harpoon://regions/r1/hosts/h1");
        fa_leave();
        uint8_t *body = erw_pack_hello("r1", "h1", ++w->number, 1, &len);
        feed(w, body, len);
        pass(w, 1000);
    }
}

static void send_result(struct world *w, int64_t id)
{
    size_t len;
    uint8_t *body = erw_pack_result(id, "u", id, &len);
    feed(w, body, len);
}

static void send_metrics(struct world *w)
{
    size_t len;
    uint8_t *body = erw_pack_metrics(&len);
    feed(w, body, len);
}

static void route(struct world *w, const char *host)
{
    size_t len;
    uint8_t *body = erw_pack_command(host, w->number, "u", 1, 2000, &len);
    CALL(w, er_core_command(w->core, w->now, body, len));
    free(body);
    turn(w);
}

static bool all_forgotten(const struct world *w)
{
    bool all = true;
    for (int64_t id = 1; id <= REPORTS; id++)
        all = all && w->forgotten[id];
    return all;
}

static void a_session(void *user)
{
    struct world w = {.now = 1000000};
    struct hp_error e = {0};
    int rc = 0;
    fa_enter();
    rc = er_core_new(&erw_defaults, w.now, &w.core, &e);
    fa_leave();
    if (rc) {
        assert_true(fa_failed() && rc == HP_ENOMEM);
        return;
    }
    CALL(&w, er_core_broker(w.core, w.now, true));
    for (int round = 0; !all_forgotten(&w); round++) {
        assert_true(round < 3);
        attach(&w);
        route(&w, "h1");
        route(&w, "h2"); /* not here */
        send_metrics(&w);
        for (int64_t id = 1; id <= REPORTS; id++) /* what is not confirmed is sent again on the next attachment */
            if (!w.forgotten[id])
                send_result(&w, id);
        pass(&w, 6000);
        if (!all_forgotten(&w))
            disconnect(&w);
    }
    assert_true(w.attaches >= 1 && (w.commands >= 1 || fa_failed()));
    CALL(&w, er_core_broker(w.core, w.now, false));
    CALL(&w, er_core_broker(w.core, w.now, true));
    CALL(&w, er_core_drain(w.core, w.now));
    turn(&w);
    disconnect(&w);
    pass(&w, 20000);
    fa_enter();
    er_core_free(w.core);
    fa_leave();
}

static void every_allocation_fails_once(void **state)
{
    assert_true(fa_each(a_session, NULL) > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
