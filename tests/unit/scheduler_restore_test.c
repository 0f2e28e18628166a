/* scheduler_restore_test.c — the scheduler's core on a record that is older than what the hosts know: nothing that lives is killed, nothing that was deleted comes back, nothing is
 * made twice, and what nobody knows can be adopted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "lib/sc_world.h"

#define RUNNING HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING
#define DELETED HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED
#define FAILED HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED
#define STALE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_STALE
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED
#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define MIB (1LL << 20)
#define WAIT_MS 6000

/* One container as a host lists it. */
struct item {
    const char *uid, *name;
    int64_t generation, memory_mib;
    bool quarantined;
};

static void pack_spec(Harpoon__Internal__V1__InventoryItem *x, int64_t memory_mib, uint8_t buf[256])
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources r = HARPOON__V1__RESOURCES__INIT;
    spec.image = (char *)"a";
    spec.resources = &r;
    spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    r.cpu_millis = 1000;
    r.memory_bytes = memory_mib * MIB;
    assert_true(harpoon__v1__container_spec__get_packed_size(&spec) < 256);
    x->spec.len = harpoon__v1__container_spec__pack(&spec, buf);
    x->spec.data = buf;
}

static void inventory(struct scw *w, const char *host, int64_t session, const struct item *items, size_t count)
{
    Harpoon__Internal__V1__InventoryItem xs[4], *ps[4];
    Harpoon__V1__ContainerStatus ss[4];
    char names[4][256];
    uint8_t specs[4][256];
    for (size_t i = 0; i < count; i++) {
        harpoon__internal__v1__inventory_item__init(&xs[i]);
        harpoon__v1__container_status__init(&ss[i]);
        snprintf(names[i], sizeof names[i], "projects/p/regions/r1/containers/%s", items[i].name);
        xs[i].uid = (char *)items[i].uid;
        xs[i].container = names[i];
        xs[i].generation = items[i].generation;
        xs[i].quarantined = items[i].quarantined;
        ss[i].state = RUNNING;
        xs[i].status = &ss[i];
        if (items[i].memory_mib)
            pack_spec(&xs[i], items[i].memory_mib, specs[i]);
        ps[i] = &xs[i];
    }
    scw_inventory(w, host, session, ps, count);
}

static void stale_by_removal(struct scw *w, const char *host, const char *uid, int64_t generation, int64_t known)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult x = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    x.uid = (char *)uid;
    x.generation = generation;
    x.outcome = STALE;
    x.status = &s;
    s.state = DELETED;
    s.observed_generation = known;
    m.session = 2;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &x;
    scw_report(w, host, &m);
}

static Harpoon__Internal__V1__ContainerRecord *record_of(const struct scw *w, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct scw_row *row = scw_find(&w->containers, full);
    return row ? harpoon__internal__v1__container_record__unpack(NULL, row->body->len, row->body->bytes) : NULL;
}

static void expect_record(const struct scw *w, const char *name, int state, int64_t generation, int64_t memory_mib,
                          const char *host)
{
    Harpoon__Internal__V1__ContainerRecord *m = record_of(w, name);
    assert_non_null(m);
    assert_int_equal(m->container->status->state, state);
    assert_int_equal(m->container->generation, generation);
    assert_int_equal(m->container->spec->resources->memory_bytes, memory_mib * MIB);
    const char *slash = strrchr(m->container->status->host, '/');
    assert_string_equal(slash ? slash + 1 : "", host);
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
}

static size_t commands_of(const struct scw *w, int verb)
{
    size_t n = 0;
    for (size_t i = 0; i < w->command_count; i++)
        n += w->commands[i].verb == verb;
    return n;
}
enum { INVENTORY, ENSURE, REMOVE, QUARANTINE };

static struct scw *world(void)
{
    struct sc_region_config config;
    sc_region_config_defaults(&config);
    config.restore_ms = WAIT_MS - 1000;
    return scw_new(&config);
}

static struct scw *one_container(char uid[27])
{
    struct scw *w = world();
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    strcpy(uid, scw_uid(w, "c1"));
    scw_done(w, "h1", uid, 1);
    return w;
}

static void restored(struct scw *w)
{
    scw_restore(w);
    w->command_count = 0;
    scw_clear(w);
}

static void what_hosts_applied_after_the_backup_is_taken_over(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_dump(w);
    restored(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    scw_clear(w);
    inventory(w, "h1", 2, &(struct item){uid, "c1", 4, 2048, false}, 1);
    scw_expect(w, "commit c1:4\n"
                  "  1010 container.restored c1 @h1\n"
                  "ack reports 5\n"
                  "publish 1010-1010\n");
    expect_record(w, "c1", RUNNING, 4, 2048, "h1");
    assert_int_equal(commands_of(w, ENSURE), 0);
    scw_free(w);
}

static void a_change_of_before_the_backup_ends_when_later_ones_were_applied(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_resize(w, 2, "c1", 1000, 1500, "");
    scw_dump(w);
    restored(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, &(struct item){uid, "c1", 3, 2048, false}, 1);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000002")->stage,
                     HARPOON__V1__STAGE__STAGE_CANCELLED);
    expect_record(w, "c1", RUNNING, 3, 2048, "h1");
    assert_int_equal(commands_of(w, ENSURE), 0);
    scw_free(w);
}

static void what_was_deleted_after_the_backup_does_not_come_back(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_dump(w);
    restored(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, NULL, 0);
    assert_int_equal(commands_of(w, ENSURE), 1); /* asked for, for it might have been lost */
    scw_clear(w);
    stale_by_removal(w, "h1", uid, 1, 2);
    scw_expect(w, "commit c1:1\n"
                  "  1010 container.failed c1\n"
                  "ack reports 6\n"
                  "publish 1010-1010\n");
    expect_record(w, "c1", FAILED, 1, 1024, "");
    scw_advance(w, 10 * WAIT_MS);
    assert_int_equal(commands_of(w, ENSURE), 1);
    scw_verb(w, 3, P(DELETE), "c1", "");
    assert_int_equal(w->verdict_code, 0);
    assert_null(record_of(w, "c1"));
    scw_free(w);
}

static void what_was_created_after_the_backup_is_adopted(void **state)
{
    static const char uid2[] = "00000000000000000000000009";
    char uid[27];
    struct scw *w = one_container(uid);
    scw_dump(w);
    restored(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    const struct item items[] = {{uid, "c1", 1, 1024, false}, {uid2, "c2", 3, 512, false}};
    scw_clear(w);
    inventory(w, "h1", 2, items, 2);
    assert_int_equal(commands_of(w, QUARANTINE), 1);
    scw_create(w, 5, "c2", 1000, 1024);
    assert_string_equal(w->verdict_reason, "CONTAINER_QUARANTINED");
    scw_adopt(w, 6, "h1", "00000000000000000000000008");
    assert_string_equal(w->verdict_reason, "CONTAINER_NOT_QUARANTINED");
    scw_takeover(w); /* it is remembered with its host */
    w->command_count = 0;
    scw_attach(w, "h1", 3, 4000, 8192);
    scw_clear(w);
    scw_adopt(w, 7, "h1", uid2);
    assert_int_equal(w->verdict_code, 0);
    expect_record(w, "c2", RUNNING, 4, 512, "h1");
    scw_advance(w, WAIT_MS);
    inventory(w, "h1", 3, (struct item[]){{uid, "c1", 1, 1024, false}, {uid2, "c2", 3, 512, true}}, 2);
    assert_int_equal(commands_of(w, ENSURE), 1);
    assert_int_equal(commands_of(w, REMOVE), 0);
    scw_done(w, "h1", uid2, 4);
    scw_adopt(w, 7, "h1", uid2); /* a repeat */
    assert_int_equal(w->verdict_code, 0);
    scw_adopt(w, 8, "h1", uid2);
    assert_string_equal(w->verdict_reason, "CONTAINER_NOT_QUARANTINED");
    scw_free(w);
}

static void what_is_gone_from_the_host_is_forgotten(void **state)
{
    static const char uid2[] = "00000000000000000000000009";
    struct sc_region_stats s;
    struct scw *w = world();
    scw_attach_digest(w, "h1", 1, 4000, 8192, 1, 5);
    inventory(w, "h1", 1, &(struct item){uid2, "c2", 3, 0, false}, 1);
    inventory(w, "h1", 1, &(struct item){uid2, "c2", 3, 512, true}, 1); /* asked again, with the specs */
    sc_region_stats(w->region, &s);
    assert_int_equal(s.quarantined, 1);
    scw_attach_digest(w, "h1", 2, 4000, 8192, 1, 5);
    inventory(w, "h1", 2, NULL, 0);
    sc_region_stats(w->region, &s);
    assert_int_equal(s.quarantined, 0);
    scw_create(w, 5, "c2", 1000, 1024);
    assert_int_equal(w->verdict_code, 0);
    scw_free(w);
}

static void a_create_that_moved_on_after_the_backup_is_not_made_twice(void **state)
{
    struct scw *w = world();
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8000);
    scw_create(w, 1, "c1", 1000, 1024);
    char uid[27];
    strcpy(uid, scw_uid(w, "c1"));
    scw_dump(w); /* it was sent to the first host, which then refused it; it runs on the second */
    char first[64];
    strcpy(first, w->commands[w->command_count - 1].host);
    const char *second = strcmp(first, "h1") ? "h1" : "h2";
    restored(w);
    scw_attach(w, first, 2, 4000, 8192);
    inventory(w, first, 2, NULL, 0);
    scw_advance(w, WAIT_MS);
    assert_int_equal(commands_of(w, ENSURE), 0);
    scw_attach(w, second, 2, 4000, 8192);
    inventory(w, second, 2, &(struct item){uid, "c1", 1, 1024, false}, 1);
    assert_int_equal(commands_of(w, REMOVE), 0);
    assert_int_equal(commands_of(w, ENSURE), 1);
    assert_string_equal(w->commands[w->command_count - 1].host, second);
    scw_done(w, second, uid, 1);
    expect_record(w, "c1", RUNNING, 1, 1024, second);
    scw_free(w);
}

static void creates_wait_until_every_host_has_answered(void **state)
{
    struct scw *w = world();
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_dump(w);
    restored(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, NULL, 0);
    scw_create(w, 1, "c1", 1000, 1024);
    assert_int_equal(w->verdict_code, 0);
    scw_advance(w, 3 * WAIT_MS);
    assert_int_equal(commands_of(w, ENSURE), 0);
    assert_true(w->restored);
    scw_verb(w, 2, P(DECLARE_LOST), "h2", "");
    assert_int_equal(w->verdict_code, 0);
    assert_int_equal(commands_of(w, ENSURE), 1);
    assert_false(w->restored);
    scw_free(w);
}

static void a_reign_that_ends_while_hosts_are_asked_is_followed_by_one_that_asks(void **state)
{
    struct scw *w = world();
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_dump(w);
    restored(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, NULL, 0);
    scw_takeover(w);
    w->command_count = 0;
    scw_create(w, 1, "c1", 1000, 1024);
    scw_advance(w, WAIT_MS);
    assert_int_equal(commands_of(w, ENSURE), 0);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, NULL, 0);
    assert_int_equal(commands_of(w, ENSURE), 1);
    scw_free(w);
}

/* It was accepted while the hosts had not said yet that they have it, waited for a place, and was made a second time. */
static void a_create_that_waited_is_not_made_beside_what_is_quarantined(void **state)
{
    static const char uid2[] = "00000000000000000000000009";
    char uid[27];
    struct scw *w = one_container(uid);
    scw_dump(w);
    restored(w);
    scw_create(w, 5, "c2", 1000, 1024);
    assert_int_equal(w->verdict_code, 0);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, (struct item[]){{uid, "c1", 1, 1024, false}, {uid2, "c2", 3, 512, false}}, 2);
    scw_advance(w, WAIT_MS);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000005")->stage,
                     HARPOON__V1__STAGE__STAGE_FAILED);
    assert_int_equal(commands_of(w, ENSURE), 0);
    scw_free(w);
}

/* Its generation was one that the host had applied already, for something else: it succeeded, and nothing happened. */
static void what_is_asked_for_before_the_host_has_answered_is_done_to_what_it_has(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_dump(w);
    restored(w);
    scw_resize(w, 2, "c1", 2000, 0, "");
    expect_record(w, "c1", RUNNING, 2, 1024, "h1");
    scw_takeover(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, &(struct item){uid, "c1", 2, 2048, false}, 1);
    expect_record(w, "c1", RUNNING, 1003, 2048, "h1");
    assert_int_equal(commands_of(w, ENSURE), 1);
    assert_int_equal(w->commands[w->command_count - 1].generation, 1003);
    scw_done(w, "h1", uid, 1003);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000002")->stage,
                     HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    scw_free(w);
}

/* A delete, too: it was taken for one that had been called back after the backup. */
static void a_delete_before_the_host_has_answered_deletes(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_dump(w);
    restored(w);
    scw_verb(w, 3, P(DELETE), "c1", "");
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, &(struct item){uid, "c1", 4, 2048, false}, 1);
    assert_int_equal(commands_of(w, REMOVE), 1);
    assert_true(w->commands[w->command_count - 1].generation > 4);
    scw_done(w, "h1", uid, w->commands[w->command_count - 1].generation);
    assert_null(record_of(w, "c1"));
    scw_free(w);
}

/* A command of the record that was lost was still on its way: nobody asked what had become of the container. */
static void a_report_of_a_generation_that_the_record_does_not_know_makes_it_ask(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_dump(w);
    restored(w);
    scw_attach(w, "h1", 1, 4000, 8192);
    inventory(w, "h1", 1, &(struct item){uid, "c1", 1, 1024, false}, 1);
    scw_advance(w, WAIT_MS);
    w->command_count = 0;
    scw_done(w, "h1", uid, 5);
    assert_int_equal(commands_of(w, INVENTORY), 1);
    scw_free(w);
}

/* What the last reign had asked without specs was answered to this one, which took the old state for all that there was. */
static void an_answer_to_an_earlier_reign_is_none(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Inventory x = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    scw_dump(w);
    scw_attach_digest(w, "h1", 2, 4000, 8192, 0, 0);
    int64_t old = w->commands[w->command_count - 1].request_id;
    assert_true(old > 0);
    restored(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    x.request_id = old;
    x.last = true;
    m.session = 2;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_INVENTORY;
    m.inventory = &x;
    scw_report(w, "h1", &m);
    scw_advance(w, 1000);
    assert_int_equal(commands_of(w, ENSURE), 0); /* it has not said that it is missing */
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_create_that_waited_is_not_made_beside_what_is_quarantined),
        cmocka_unit_test(what_is_asked_for_before_the_host_has_answered_is_done_to_what_it_has),
        cmocka_unit_test(a_delete_before_the_host_has_answered_deletes),
        cmocka_unit_test(a_report_of_a_generation_that_the_record_does_not_know_makes_it_ask),
        cmocka_unit_test(an_answer_to_an_earlier_reign_is_none),
        cmocka_unit_test(what_hosts_applied_after_the_backup_is_taken_over),
        cmocka_unit_test(a_change_of_before_the_backup_ends_when_later_ones_were_applied),
        cmocka_unit_test(what_was_deleted_after_the_backup_does_not_come_back),
        cmocka_unit_test(what_was_created_after_the_backup_is_adopted),
        cmocka_unit_test(what_is_gone_from_the_host_is_forgotten),
        cmocka_unit_test(a_create_that_moved_on_after_the_backup_is_not_made_twice),
        cmocka_unit_test(creates_wait_until_every_host_has_answered),
        cmocka_unit_test(a_reign_that_ends_while_hosts_are_asked_is_followed_by_one_that_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
