/* Arbitrary bytes from an agent, and as a command from the broker, to the router's core. The first byte chooses the circumstances. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "fuzz/fuzz.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "wire/frame.h"

enum {
    HELLO_FIRST = 1,  /* a good hello comes before the bytes */
    BROKER_THERE = 2, /* publishing works */
    REFUSE_SOME = 4,  /* every third publish fails */
    BYTE_BY_BYTE = 8, /* reads are small */
    AS_COMMAND = 16,  /* the bytes are a RouterCommand too */
    PENDING_MAX = 8192
};

struct run {
    struct er_core *core;
    struct er_session *session;
    uint64_t now_ms;
    bool closed;
    struct er_report *pending[PENDING_MAX];
    size_t pending_count, publishes;
};

static void apply(struct run *r)
{
    size_t count;
    for (size_t i = 0; (void)er_core_effects(r->core, &count), i < count; i++) {
        const struct er_effect *f = &er_core_effects(r->core, &count)[i];
        if (f->kind == ER_PUBLISH) {
            assert(r->pending_count < PENDING_MAX);
            r->pending[r->pending_count++] = f->report;
        } else if (f->kind == ER_CLOSE) {
            r->closed = true;
        } else if (f->kind == ER_SEND) {
            const uint8_t *frame = er_core_bytes(r->core, f->offset);
            assert(f->len > HP_FRAME_HEADER && frame[0] == 0);
        }
    }
    er_core_effects_done(r->core);
}

static void turn(struct run *r, uint8_t flags)
{
    er_core_end_turn(r->core, r->now_ms);
    apply(r);
    while (r->pending_count) {
        struct er_report *report = r->pending[--r->pending_count];
        bool fail = flags & REFUSE_SOME && ++r->publishes % 3 == 0;
        er_core_published(r->core, r->now_ms, report, fail ? ER_FAILED : ER_CONFIRMED);
    }
    apply(r);
}

static int on_frame(void *user, const uint8_t *body, size_t len)
{
    struct run *r = user;
    int rc = er_core_frame(r->core, r->now_ms, r->session, body, len);
    apply(r);
    assert((rc != 0) == r->closed);
    return rc;
}

static void say_hello(struct run *r)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentHello h = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    uint8_t body[256];
    h.version_min = h.version_max = 1;
    h.region = (char *)(uintptr_t) "r1";
    h.host = (char *)(uintptr_t) "h1";
    h.session = 5;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HELLO;
    m.hello = &h;
    size_t len = protobuf_c_message_pack(&m.base, body);
    int rc = on_frame(r, body, len);
    assert(rc == 0);
}

static void feed(struct run *r, uint8_t flags, const uint8_t *data, size_t size)
{
    struct hp_frame_reader reader;
    struct hp_error e = {0};
    hp_frame_reader_init(&reader);
    size_t step = flags & BYTE_BY_BYTE ? 3 : size;
    for (size_t at = 0; at < size && !r->closed; at += step) {
        size_t n = size - at < step ? size - at : step;
        if (hp_frame_read(&reader, data + at, n, on_frame, r, &e) && !r->closed)
            er_core_frame_error(r->core, r->now_ms, r->session, &e);
        apply(r);
        turn(r, flags);
    }
    hp_frame_reader_done(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct er_options options = {.router = "er-1",
                                              .region = "r1",
                                              .heartbeat_ms = 5000,
                                              .metrics_ms = 5000,
                                              .window = 2,
                                              .sessions_max = 2,
                                              .attaches_max = 2,
                                              .drain_ms = 1000,
                                              .check_identity = true,
                                              .seed = 1};
    struct hp_error e = {0};
    struct run r = {.now_ms = 1000000};
    if (size < 1)
        return 0;
    uint8_t flags = *data++;
    size--;
    if (er_core_new(&options, r.now_ms, &r.core, &e))
        abort();
    er_core_broker(r.core, r.now_ms, flags & BROKER_THERE);
    r.session = er_core_connected(r.core, r.now_ms, &r, "harpoon://regions/r1/hosts/h1");
    if (flags & HELLO_FIRST)
        say_hello(&r);
    if (flags & AS_COMMAND)
        er_core_command(r.core, r.now_ms, data, size);
    feed(&r, flags, data, size);
    for (int i = 0; i < 50; i++) {
        r.now_ms += 500;
        er_core_tick(r.core, r.now_ms);
        apply(&r);
        turn(&r, flags);
    }
    er_core_disconnected(r.core, r.now_ms, r.session);
    turn(&r, 0);
    er_core_broker(r.core, r.now_ms, false);
    turn(&r, 0);
    er_core_free(r.core);
    return 0;
}
