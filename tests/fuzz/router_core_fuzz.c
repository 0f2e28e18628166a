/* What agents say to a router and what the scheduler sends to it, as messages, and the broker's ups and downs; agent_frames has the bytes below.
 *
 * Asserted: a frame for an agent is one RouterMessage; each report is told its outcome and then forgotten (levels are 0 at the end); a report that the router passes on, about whatever an agent made up, is
 * one that the scheduler's core takes: a hostile agent fills no dead-letter queue, and says nothing about another host. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "fuzz/sc_steps.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "wire/codec.h"
#include "wire/frame.h"

enum { AGENT1, AGENT2, COMMAND, EVENTS, LINKS = 2, PENDING_MAX = 8192 };

const struct fuzz_kind fuzz_kinds[] = {
    [AGENT1] = {"agent1", &harpoon__internal__v1__agent_message__descriptor},
    [AGENT2] = {"agent2", &harpoon__internal__v1__agent_message__descriptor},
    [COMMAND] = {"command", &harpoon__internal__v1__router_command__descriptor},
    [EVENTS] = {"events", NULL},
};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {
    "r1", "h1", "h2", "u1", "u2", "op1", "z1", "exited", "projects/p/regions/r1/containers/c1", NULL};

struct link {
    struct er_session *session; /* NULL: not connected */
    bool closed;                /* the core wants it closed */
};
struct run {
    struct er_core *core;
    struct scw *scheduler;
    uint64_t now_ms;
    struct link links[LINKS];
    struct er_report *pending[PENDING_MAX];
    size_t pending_count;
};

static const char *const hosts[LINKS] = {"h1", "h2"};
static const char *const uris[LINKS] = {"harpoon://regions/r1/hosts/h1", "harpoon://regions/r1/hosts/h2"};

/* As the scheduler gets it, if the broker has it. */
static void check_report(struct run *r, struct er_report *report)
{
    static const struct hp_unpack_limits limits = {.bytes_max = 2 << 20, .memory_max = 32 << 20};
    size_t len;
    const uint8_t *body = er_report_body(report, &len);
    ProtobufCMessage *m;
    struct hp_error e = {0};
    int rc = hp_unpack(&harpoon__internal__v1__report__descriptor, body, len, &limits, &m, &e);
    assert(rc == 0);
    Harpoon__Internal__V1__Report *pb = (void *)m;
    assert(strcmp(pb->router, "er1") == 0 && strcmp(pb->region, "r1") == 0);
    if (pb->body_case != HARPOON__INTERNAL__V1__REPORT__BODY_UNDELIVERED) /* which repeats a command's host */
        assert(strcmp(pb->host, hosts[0]) == 0 || strcmp(pb->host, hosts[1]) == 0);
    rc = sc_steps_report(r->scheduler, pb);
    assert(rc == 0);
    hp_unpacked_free(m);
}

static void check_frame(const uint8_t *frame, size_t len)
{
    assert(len > HP_FRAME_HEADER);
    struct hp_error e = {0};
    ProtobufCMessage *m;
    int rc = hp_unpack(&harpoon__internal__v1__router_message__descriptor, frame + HP_FRAME_HEADER,
                       len - HP_FRAME_HEADER, NULL, &m, &e);
    assert(rc == 0 && ((Harpoon__Internal__V1__RouterMessage *)m)->body_case);
    hp_unpacked_free(m);
}

static void apply(struct run *r)
{
    size_t count;
    for (size_t i = 0; (void)er_core_effects(r->core, &count), i < count; i++) {
        const struct er_effect *f = &er_core_effects(r->core, &count)[i];
        struct link *l = f->link;
        if (f->kind == ER_PUBLISH) {
            assert(r->pending_count < PENDING_MAX);
            r->pending[r->pending_count++] = f->report;
        } else if (f->kind == ER_CLOSE) {
            assert(l->session && !l->closed);
            l->closed = true;
        } else if (f->kind == ER_SEND) {
            assert(l->session && !l->closed);
            check_frame(er_core_bytes(r->core, f->offset), f->len);
        }
    }
    er_core_effects_done(r->core);
}

static void disconnect(struct run *r, struct link *l)
{
    if (l->session)
        er_core_disconnected(r->core, r->now_ms, l->session);
    *l = (struct link){0};
    apply(r);
}

static void turn(struct run *r)
{
    er_core_end_turn(r->core, r->now_ms);
    apply(r);
    for (int i = 0; i < LINKS; i++)
        if (r->links[i].closed)
            disconnect(r, &r->links[i]);
}

static void publish_done(struct run *r, bool ok)
{
    while (r->pending_count) {
        struct er_report *report = r->pending[--r->pending_count];
        if (ok)
            check_report(r, report);
        er_core_published(r->core, r->now_ms, report, ok ? ER_CONFIRMED : ER_FAILED);
        apply(r);
    }
}

static void agent(struct run *r, int i, const struct fuzz_step *s)
{
    struct link *l = &r->links[i];
    if (!l->session) {
        l->session = er_core_connected(r->core, r->now_ms, l, uris[i]);
        apply(r);
    }
    if (!l->session || l->closed)
        return;
    int rc = er_core_frame(r->core, r->now_ms, l->session, s->data, s->len);
    apply(r);
    assert((rc != 0) == l->closed);
}

static void event(struct run *r, const struct fuzz_step *s)
{
    static const uint64_t times_ms[] = {1, 100, 1000, 5000, 16000, 61000, 610000, 10};
    struct link *l = &r->links[fuzz_byte(s, 1) % LINKS];
    switch (fuzz_byte(s, 0) % 8) {
    case 0:
    case 1:
        publish_done(r, fuzz_byte(s, 0) % 8);
        break;
    case 2:
        disconnect(r, l);
        break;
    case 3:
        er_core_broker(r->core, r->now_ms, fuzz_byte(s, 1) & 1);
        break;
    case 4:
        if (l->session && !l->closed)
            er_core_too_slow(r->core, r->now_ms, l->session);
        break;
    case 5:
        if (fuzz_byte(s, 1) > 200)
            er_core_drain(r->core, r->now_ms);
        break;
    default:
        r->now_ms += times_ms[fuzz_byte(s, 1) % 8];
        er_core_tick(r->core, r->now_ms);
    }
    apply(r);
}

static void end(struct run *r)
{
    struct er_stats stats;
    for (int i = 0; i < LINKS; i++)
        disconnect(r, &r->links[i]);
    er_core_broker(r->core, r->now_ms, true);
    for (int i = 0; i < 200; i++) {
        turn(r);
        publish_done(r, true);
        r->now_ms += ER_RETRY_MAX_MS;
        er_core_tick(r->core, r->now_ms);
        apply(r);
    }
    er_core_stats(r->core, &stats);
    assert(stats.sessions_now == 0 && stats.attached_now == 0 && stats.reports_waiting_now == 0 &&
           stats.publishing_now == 0 && stats.held_bytes_now == 0 && stats.report_bytes_now == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct er_options options = {.router = "er1",
                                              .region = "r1",
                                              .heartbeat_ms = 5000,
                                              .metrics_ms = 5000,
                                              .window = 2,
                                              .sessions_max = LINKS,
                                              .attaches_max = LINKS,
                                              .drain_ms = 1000,
                                              .check_identity = true,
                                              .seed = 1};
    static struct run r;
    struct hp_error e = {0};
    struct fuzz_step s;
    r = (struct run){.now_ms = 1000000, .scheduler = scw_new(NULL)};
    r.scheduler->mute_trace = true;
    if (er_core_new(&options, r.now_ms, &r.core, &e))
        abort();
    er_core_broker(r.core, r.now_ms, true);
    apply(&r);
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        if (s.kind == EVENTS)
            event(&r, &s);
        else if (s.kind == COMMAND)
            er_core_command(r.core, r.now_ms, s.data, s.len);
        else
            agent(&r, (int)s.kind, &s);
        apply(&r);
        turn(&r);
    }
    end(&r);
    er_core_free(r.core);
    scw_free(r.scheduler);
    return 0;
}
