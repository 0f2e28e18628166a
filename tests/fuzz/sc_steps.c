#include "fuzz/sc_steps.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "wire/codec.h"

int sc_steps_request(struct scw *w, Harpoon__Internal__V1__Request *message)
{
    struct hp_error e = {0};
    struct sc_ev ev = {.kind = SC_EV_REQUEST,
                       .time = w->time,
                       .request = {.message = message, .tag = ++w->tag, .reply_to = "q", .correlation_id = "c"}};
    int rc = sc_region_step(w->region, &ev, &e);
    assert(rc == 0 || (rc == HP_EINVAL && e.message[0])); /* memory is there */
    scw_flush(w);
    return rc;
}

static void real_uid(const struct scw *w, char **uid)
{
    const char *s = *uid;
    if (s[0] != '$' || s[1] < '0' || s[1] > '9' || s[2])
        return;
    size_t i = (size_t)(s[1] - '0');
    if (i >= w->containers.count)
        return;
    free(*uid);
    *uid = strdup(w->containers.rows[i].uid);
}

int sc_steps_report(struct scw *w, Harpoon__Internal__V1__Report *m)
{
    struct hp_error e = {0};
    switch (m->body_case) {
    case HARPOON__INTERNAL__V1__REPORT__BODY_JOURNALLED:
        real_uid(w, &m->journalled->uid);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_RESULT:
        real_uid(w, &m->result->uid);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION:
        real_uid(w, &m->observation->uid);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_UNDELIVERED:
        real_uid(w, &m->undelivered->uid);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_INVENTORY:
        for (size_t i = 0; i < m->inventory->n_items; i++)
            real_uid(w, &m->inventory->items[i]->uid);
        break;
    default:
        break;
    }
    struct sc_ev ev = {.kind = SC_EV_REPORT, .time = w->time, .report = {.message = m, .tag = ++w->tag}};
    int rc = sc_region_step(w->region, &ev, &e);
    assert(rc == 0 || (rc == HP_EINVAL && e.message[0]));
    scw_flush(w);
    return rc;
}

void sc_steps_metrics(struct scw *w, Harpoon__Internal__V1__MetricsBatch *m)
{
    struct hp_error e = {0};
    struct sc_ev ev = {.kind = SC_EV_METRICS, .time = w->time, .metrics = m};
    int rc = sc_region_step(w->region, &ev, &e);
    assert(rc == 0 || (rc == HP_EINVAL && e.message[0]));
    scw_flush(w);
}

static void router_gone(struct scw *w, const struct fuzz_step *s)
{
    struct hp_error e = {0};
    struct sc_ev ev = {.kind = SC_EV_RETURNED,
                       .time = w->time,
                       .returned = {.router = "er1", .host = fuzz_byte(s, 1) & 1 ? "h2" : "h1", .session = 1}};
    if (w->command_count) {
        const struct scw_command *c = &w->commands[fuzz_byte(s, 2) % w->command_count];
        ev.returned.router = c->router;
        ev.returned.host = c->host;
        ev.returned.session = c->session;
    }
    int rc = sc_region_step(w->region, &ev, &e);
    assert(rc == 0);
    scw_flush(w);
}

void sc_steps_control(struct scw *w, const struct fuzz_step *s)
{
    static const uint64_t times_ms[] = {1, 100, 1000, 10000, 31000, 61000, 130000, 3700000};
    switch (fuzz_byte(s, 0) % 7) {
    case 0:
        w->hold_commits = true;
        break;
    case 1:
        w->hold_commits = false;
        if (w->held)
            scw_commit(w);
        scw_flush(w);
        break;
    case 2:
        w->mute_stream = !w->mute_stream;
        break;
    case 3:
        scw_takeover(w);
        break;
    case 4:
        router_gone(w, s);
        break;
    default:
        scw_advance(w, times_ms[fuzz_byte(s, 1) % 8]);
    }
}

void sc_steps_end(struct scw *w)
{
    w->hold_commits = w->mute_stream = false;
    if (w->held)
        scw_commit(w);
    scw_flush(w);
    scw_advance(w, 1000);
    struct sc_region_stats before, after;
    sc_region_stats(w->region, &before);
    scw_takeover(w);
    sc_region_stats(w->region, &after);
    assert(after.sequence >= before.sequence); /* a takeover may tell of hosts */
    assert(after.hosts == before.hosts && after.containers == before.containers &&
           after.operations_active == before.operations_active);
    scw_advance(w, 7200000); /* every deadline passes */
}
