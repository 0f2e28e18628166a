/* The scheduler's core and a host that has lost its journal: it counts its reports from the beginning again, and knows no generation of what it has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "lib/sc_world.h"

#define RUNNING HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING
#define REMOVE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE
#define NAME "projects/p/regions/r1/containers/c1"

/* What the host made of it, as its report of this number. */
static void done(struct scw *w, int64_t session, const char *uid, int64_t generation, int64_t report_id, int64_t pid)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult x = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    x.uid = (char *)uid;
    x.generation = generation;
    x.report_id = report_id;
    x.outcome = HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE;
    x.status = &s;
    s.state = RUNNING;
    s.observed_generation = generation;
    s.pid = pid;
    m.session = session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &x;
    scw_report(w, "h1", &m);
}

static void inventory(struct scw *w, int64_t session, int64_t reports_below, const char *uid)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Inventory x = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    Harpoon__Internal__V1__InventoryItem item = HARPOON__INTERNAL__V1__INVENTORY_ITEM__INIT, *items[] = {&item};
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    item.uid = (char *)uid;
    item.container = (char *)NAME;
    item.quarantined = true;
    item.status = &s;
    s.state = RUNNING;
    for (size_t i = w->command_count; i > 0 && !x.request_id; i--)
        x.request_id = w->commands[i - 1].request_id;
    assert_true(x.request_id > 0); /* it was asked for */
    x.items = items;
    x.n_items = uid != NULL;
    x.last = true;
    x.reports_below = reports_below;
    m.session = session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_INVENTORY;
    m.inventory = &x;
    scw_report(w, "h1", &m);
}

static int64_t recorded_pid(const struct scw *w)
{
    const struct scw_row *row = scw_find(&w->containers, NAME);
    assert_non_null(row);
    Harpoon__Internal__V1__ContainerRecord *m =
        harpoon__internal__v1__container_record__unpack(NULL, row->body->len, row->body->bytes);
    assert_non_null(m);
    int64_t pid = m->container->status->pid;
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return pid;
}

static struct scw *one_container(char uid[27])
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 64);
    memcpy(uid, scw_uid(w, "c1"), 27);
    done(w, 1, uid, 1, 900, 100);
    assert_int_equal(recorded_pid(w), 100);
    return w;
}

/* The container was made anew on an empty disk, and the report that said so had a smaller number than one from before: it was taken for an old one, and the record kept a process that was no more. */
static void reports_of_a_new_journal_are_newer(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        char uid[27];
        bool takeover = i & 1, changing = i & 2;
        struct scw *w = one_container(uid);
        if (changing)
            scw_resize(w, 2, "c1", 1000, 128, NULL);
        scw_attach(w, "h1", 2, 4000, 8192);
        inventory(w, 2, 5, NULL);
        const struct scw_command *c = &w->commands[w->command_count - 1];
        assert_string_equal(c->uid, uid);
        int64_t generation = c->generation;
        if (takeover)
            scw_takeover(w);
        done(w, 2, uid, generation, 6, 200);
        assert_int_equal(recorded_pid(w), 200);
        done(w, 2, uid, generation, 4, 150); /* from before the inventory */
        assert_int_equal(recorded_pid(w), 200);
        if (!takeover) { /* one of the journal that was lost, late: it stood in the way of all that followed */
            done(w, 1, uid, generation, 903, 100);
            assert_int_equal(recorded_pid(w), 200);
            done(w, 2, uid, generation, 7, 300);
            assert_int_equal(recorded_pid(w), 300);
        }
        scw_free(w);
    }
}

/* It was given up, came back without its journal, and was told to remove what it had by a generation below the one that it had applied. */
static void what_it_has_is_removed_above_all_that_it_was_sent(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__DeclareHostLostRequest lost = HARPOON__V1__DECLARE_HOST_LOST_REQUEST__INIT;
    (void)state;
    scw_resize(w, 2, "c1", 1000, 128, NULL);
    done(w, 1, uid, 2, 901, 100);
    scw_resize(w, 3, "c1", 1000, 256, NULL);
    done(w, 1, uid, 3, 902, 100);
    scw_detach(w, "h1", 1);
    lost.name = (char *)"regions/r1/hosts/h1";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DECLARE_LOST;
    q.declare_lost = &lost;
    q.project = (char *)"";
    scw_advance(w, 3600000); /* it is UNKNOWN by then */
    scw_request(w, 4, &q);
    assert_int_equal(w->verdict_code, 0);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, 2, 1, uid);
    int64_t generation = 0;
    for (size_t i = 0; i < w->command_count; i++)
        if (w->commands[i].verb == REMOVE && !strcmp(w->commands[i].uid, uid))
            generation = w->commands[i].generation;
    assert_true(generation >= 3);
    scw_free(w);
}

/* The host had said no more of it than that it was being made, which is in no digest; so the digest of its new journal was right, nobody asked, and its reports were taken for old ones. */
static void an_empty_digest_may_be_that_of_a_new_journal(void **state)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Observation x = HARPOON__INTERNAL__V1__OBSERVATION__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    char uid[27], kind[] = "creating";
    struct scw *w = scw_new(NULL);
    (void)state;
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 64);
    memcpy(uid, scw_uid(w, "c1"), 27);
    x.uid = uid;
    x.report_id = 6;
    x.kind = kind;
    x.status = &s;
    s.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_CREATING;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION;
    m.observation = &x;
    scw_report(w, "h1", &m);
    scw_attach_digest(w, "h1", 2, 4000, 8192, 0, 0);
    inventory(w, 2, 1, NULL);
    done(w, 2, uid, 1, 2, 200);
    assert_int_equal(recorded_pid(w), 200);
    scw_free(w);
}

static void heard(struct scw *w, int64_t session)
{
    Harpoon__Internal__V1__MetricsBatch b = HARPOON__INTERNAL__V1__METRICS_BATCH__INIT;
    Harpoon__Internal__V1__HostSample x = HARPOON__INTERNAL__V1__HOST_SAMPLE__INIT, *samples[] = {&x};
    struct sc_ev ev = {.kind = SC_EV_METRICS, .time = w->time, .metrics = &b};
    struct hp_error e = {0};
    b.router = (char *)"er1";
    b.samples = samples;
    b.n_samples = 1;
    x.host = (char *)"h1";
    x.session = session;
    scw_clear(w);
    assert_int_equal(sc_region_step(w->region, &ev, &e), 0);
    scw_flush(w);
}

/* Its clock was behind, too, and its last session had gone with its router, which nobody told: the host was passed over for as long as nothing was to be done on it. */
static void a_lower_session_counts_when_the_one_in_force_is_silent(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    (void)state;
    scw_attach(w, "h1", 9, 4000, 8192);
    scw_clear(w);
    scw_attach(w, "h1", 3, 4000, 8192);
    assert_null(strstr(w->trace, "host.attached h1"));
    heard(w, 3);
    assert_null(strstr(w->trace, "announce"));
    scw_advance(w, 31000);
    assert_non_null(strstr(w->trace, "host.suspect h1"));
    heard(w, 3);
    assert_non_null(strstr(w->trace, "announce er1"));
    scw_clear(w);
    scw_attach(w, "h1", 3, 4000, 8192);
    assert_non_null(strstr(w->trace, "host.attached h1"));
    scw_free(w);
}

/* … or was announced once more by a router that had not noticed its end, and took the place of the one that lives. */
static void a_lower_session_is_asked_for_when_none_is_in_force(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    (void)state;
    scw_attach(w, "h1", 9, 4000, 8192);
    scw_detach(w, "h1", 9);
    scw_attach(w, "h1", 3, 4000, 8192);
    scw_attach(w, "h1", 9, 4000, 8192);
    heard(w, 3);
    assert_null(strstr(w->trace, "announce"));
    scw_detach(w, "h1", 9);
    heard(w, 3);
    assert_non_null(strstr(w->trace, "announce er1"));
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reports_of_a_new_journal_are_newer),
        cmocka_unit_test(what_it_has_is_removed_above_all_that_it_was_sent),
        cmocka_unit_test(an_empty_digest_may_be_that_of_a_new_journal),
        cmocka_unit_test(a_lower_session_counts_when_the_one_in_force_is_silent),
        cmocka_unit_test(a_lower_session_is_asked_for_when_none_is_in_force),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
