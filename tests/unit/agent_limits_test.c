/* What an agent may say: the limits that the router holds messages against, and that whatever a journal yields stays within them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/agent_core.h"
#include "wire/agent_limits.h"
#include "wire/utf8.h"

#define V1(name) HARPOON__INTERNAL__V1__##name
#define TEXT(s) ((char *)(uintptr_t)(s))

typedef Harpoon__Internal__V1__AgentMessage message;

static char long_text[HP_AGENT_TEXT_MAX + 2];

static void fill_long(size_t len)
{
    memset(long_text, 'x', len);
    long_text[len] = '\0';
}

/* NULL: it is taken. */
static void expect(const message *m, const char *error)
{
    struct hp_error e = {0};
    int rc = hp_agent_message_check(m, &e);
    assert_string_equal(e.message, error ? error : "");
    assert_int_equal(rc, error ? HP_EINVAL : 0);
}

static void results_and_their_status_have_limits(void **state)
{
    message m = V1(AGENT_MESSAGE__INIT);
    Harpoon__Internal__V1__CommandResult r = V1(COMMAND_RESULT__INIT);
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    Google__Rpc__Status error = GOOGLE__RPC__STATUS__INIT;
    char *many[HP_AGENT_LIST_MAX + 1];
    (void)state;
    for (size_t i = 0; i < HP_AGENT_LIST_MAX + 1; i++)
        many[i] = TEXT("cpu");
    m.body_case = V1(AGENT_MESSAGE__BODY_RESULT);
    m.result = &r;
    expect(&m, "result.report_id: 0 is not above 0");
    r.report_id = 1;
    r.generation = HP_GENERATION_MAX;
    r.overloaded = many;
    r.n_overloaded = HP_AGENT_LIST_MAX;
    r.status = &s;
    r.error = &error;
    fill_long(HP_AGENT_TEXT_MAX);
    s.message = error.message = long_text;
    expect(&m, NULL);
    r.n_overloaded++;
    expect(&m, "result.overloaded: 17 of them (at most 16)");
    r.n_overloaded = 0;
    s.observed_generation = (int64_t)HP_GENERATION_MAX + 1;
    expect(&m, "status.observed_generation: 1073741825 is over 1073741824");
    s.observed_generation = 0;
    r.generation = INT64_MAX;
    expect(&m, "result.generation: 9223372036854775807 is over 1073741824");
    r.generation = 1;
    s.message = TEXT("");
    fill_long(HP_AGENT_TEXT_MAX + 1);
    expect(&m, "result.error.message: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"… has 1025 "
               "bytes (at most 1024)");
    error.message = TEXT("");
    s.addresses = many;
    s.n_addresses = HP_AGENT_LIST_MAX + 1;
    expect(&m, "status.addresses: 17 of them (at most 16)");
    s.n_addresses = 0;
    error.n_details = HP_AGENT_LIST_MAX + 1;
    expect(&m, "result.error.details: 17 of them (at most 16)");
}

static void other_messages_have_limits(void **state)
{
    message m = V1(AGENT_MESSAGE__INIT);
    Harpoon__Internal__V1__CommandJournalled j = V1(COMMAND_JOURNALLED__INIT);
    Harpoon__Internal__V1__Observation o = V1(OBSERVATION__INIT);
    Harpoon__Internal__V1__Inventory inventory = V1(INVENTORY__INIT);
    Harpoon__Internal__V1__InventoryItem item = V1(INVENTORY_ITEM__INIT);
    Harpoon__Internal__V1__InventoryItem *items[HP_INVENTORY_ITEMS_MAX + 1];
    Harpoon__Internal__V1__AgentMetrics metrics = V1(AGENT_METRICS__INIT);
    char *images[HP_AGENT_IMAGES_MAX + 1];
    (void)state;
    m.body_case = V1(AGENT_MESSAGE__BODY_JOURNALLED);
    m.journalled = &j;
    expect(&m, "journalled.report_id: 0 is not above 0");
    j.report_id = 1;
    j.generation = HP_GENERATION_MAX;
    expect(&m, NULL);
    j.generation++;
    expect(&m, "journalled.generation: 1073741825 is over 1073741824");
    m.body_case = V1(AGENT_MESSAGE__BODY_OBSERVATION);
    m.observation = &o;
    expect(&m, "observation.report_id: 0 is not above 0");
    o.report_id = 1;
    fill_long(HP_AGENT_ID_MAX);
    o.uid = o.kind = long_text;
    expect(&m, NULL);
    o.uid = TEXT("\x53\xc1");
    expect(&m, "observation.uid: \"S\\xc1\" is not UTF-8");
    o.uid = TEXT("u");
    o.generation = (int64_t)HP_GENERATION_MAX + 1;
    expect(&m, "observation.generation: 1073741825 is over 1073741824");
    m.body_case = V1(AGENT_MESSAGE__BODY_INVENTORY);
    m.inventory = &inventory;
    for (size_t i = 0; i < HP_INVENTORY_ITEMS_MAX + 1; i++)
        items[i] = &item;
    inventory.items = items;
    inventory.n_items = HP_INVENTORY_ITEMS_MAX;
    expect(&m, NULL);
    item.generation = (int64_t)HP_GENERATION_MAX + 1;
    expect(&m, "inventory.items.generation: 1073741825 is over 1073741824");
    inventory.n_items++;
    expect(&m, "inventory.items: 1001 of them (at most 1000)");
    m.body_case = V1(AGENT_MESSAGE__BODY_METRICS);
    m.metrics = &metrics;
    for (size_t i = 0; i < HP_AGENT_IMAGES_MAX + 1; i++)
        images[i] = TEXT("sha256:00");
    metrics.images = images;
    metrics.n_images = HP_AGENT_IMAGES_MAX;
    expect(&m, NULL);
    images[0] = TEXT("\x53\xc1");
    expect(&m, "metrics.images: \"S\\xc1\" is not UTF-8");
    metrics.n_images++;
    expect(&m, "metrics.images: 257 of them (at most 256)");
}

/* ---- What a journal yields ---- */

static void refused(struct ha_image *image, const char *error)
{
    const struct ha_core_options o = {.region = "r1", .host = "h1", .seed = 7};
    struct ha_core *core;
    struct hp_error e = {0};
    int rc = ha_core_new(&o, image, &core, &e);
    assert_int_equal(rc, error ? HP_ECORRUPT : 0);
    assert_string_equal(e.message, error ? error : "");
    if (!rc)
        ha_core_free(core);
}

static struct ha_image image_with(size_t records, size_t reports, size_t tombstones)
{
    struct ha_image image = {.meta = {[HA_META_REPORT_NEXT] = 100}};
    image.record_count = records;
    image.report_count = reports;
    image.tombstone_count = tombstones;
    image.records = calloc(records + 1, sizeof *image.records);
    image.reports = calloc(reports + 1, sizeof *image.reports);
    image.tombstones = calloc(tombstones + 1, sizeof *image.tombstones);
    assert_true(image.records && image.reports && image.tombstones);
    return image;
}

static struct ha_image one_record(void)
{
    struct ha_image image = image_with(1, 0, 0);
    memcpy(image.records[0].uid, "u1", 3);
    image.records[0].name = strdup("projects/p/regions/r1/containers/c1");
    return image;
}

/* A tombstone's uid that was no text went out with the first inventory, and the router closed every connection of the host from then on. */
static void tombstones_must_be_sendable(void **state)
{
    struct ha_image image = image_with(0, 0, 1);
    (void)state;
    memcpy(image.tombstones[0].uid, "\x53\xc1", 3);
    refused(&image, "tombstone 1: uid: \"S\\xc1\" is not UTF-8");
    image = image_with(0, 0, 1);
    image.tombstones[0].generation = INT64_MAX;
    refused(&image, "tombstone 1: generation: 9223372036854775807 is over 1073741824");
    image = image_with(0, 0, 1);
    image.tombstones[0].generation = -1;
    refused(&image, "tombstone 1: generation: -1 is below 0");
}

static void containers_must_be_sendable(void **state)
{
    struct ha_image image = one_record();
    (void)state;
    refused(&image, NULL);
    image = one_record();
    image.records[0].message = strdup("cannot open \xff");
    refused(&image, "container 1: message: \"cannot open \\xff\" is not UTF-8");
    image = one_record();
    image.records[0].error_message = strdup("\xed\xa0\x80");
    refused(&image, "container 1: error_message: \"\\xed\\xa0\\x80\" is not UTF-8");
    image = one_record();
    image.records[0].address = strdup("\x80");
    refused(&image, "container 1: address: \"\\x80\" is not UTF-8");
    image = one_record();
    image.records[0].image_digest = strdup("\x80");
    refused(&image, "container 1: image_digest: \"\\x80\" is not UTF-8");
    image = one_record();
    image.records[0].intent.operation_id[0] = '\x80';
    refused(&image, "container 1: intent_operation_id: \"\\x80\" is not UTF-8");
    image = one_record();
    image.records[0].name[0] = '\xf5';
    refused(&image, "container 1: name: \"\\xf5rojects/p/regions/r1/containers/c1\" is not UTF-8");
    image = one_record();
    image.records[0].intent.generation = (int64_t)HP_GENERATION_MAX + 1;
    refused(&image, "container 1: intent_generation: 1073741825 is over 1073741824");
}

static void reports_must_be_sendable(void **state)
{
    message m = V1(AGENT_MESSAGE__INIT);
    Harpoon__Internal__V1__Observation o = V1(OBSERVATION__INIT);
    (void)state;
    m.body_case = V1(AGENT_MESSAGE__BODY_OBSERVATION);
    m.observation = &o;
    o.report_id = 5;
    o.uid = TEXT("u1");
    o.generation = (int64_t)HP_GENERATION_MAX + 1;
    for (int i = 0; i < 3; i++) {
        static const char *const errors[] = {
            "report 5: observation.generation: 1073741825 is over 1073741824",
            "report 5: body: observation.uid: is not valid UTF-8",
            NULL,
        };
        struct ha_image image = image_with(0, 1, 0);
        struct ha_report_row *row = &image.reports[0];
        row->id = 5;
        memcpy(row->uid, "u1", 3);
        row->body.len = harpoon__internal__v1__agent_message__get_packed_size(&m);
        row->body.data = malloc(row->body.len);
        assert_non_null(row->body.data);
        harpoon__internal__v1__agent_message__pack(&m, row->body.data);
        refused(&image, errors[i]);
        o.generation = 1;
        o.uid = TEXT(i ? "u1" : "\x80");
    }
}

/* Another message was taken for the report number 0, and sent. */
static void reports_are_numbered_from_1(void **state)
{
    struct ha_image image = image_with(0, 1, 0);
    message m = V1(AGENT_MESSAGE__INIT);
    Harpoon__Internal__V1__Heartbeat heartbeat = V1(HEARTBEAT__INIT);
    struct ha_report_row *row = &image.reports[0];
    (void)state;
    m.body_case = V1(AGENT_MESSAGE__BODY_HEARTBEAT);
    m.heartbeat = &heartbeat;
    memcpy(row->uid, "u1", 3);
    row->body.len = harpoon__internal__v1__agent_message__get_packed_size(&m);
    row->body.data = malloc(row->body.len + 1);
    assert_non_null(row->body.data);
    harpoon__internal__v1__agent_message__pack(&m, row->body.data);
    refused(&image, "report 0: empty, or its number was never given out");
}

/* The number after the last one overflowed. */
static void counters_must_leave_room_to_count(void **state)
{
    struct ha_image image = image_with(0, 0, 0);
    (void)state;
    image.meta[HA_META_REPORT_NEXT] = INT64_MAX;
    refused(&image, "number of the next report: 9223372036854775807 is not from 0 to 4611686018427387904");
    image = image_with(0, 0, 0);
    image.meta[HA_META_SESSION] = -1;
    refused(&image, "session: -1 is not from 0 to 4611686018427387904");
    image = image_with(0, 0, 0);
    image.meta[HA_META_REPORT_NEXT] = (int64_t)1 << 62;
    refused(&image, NULL);
}

static void what_is_no_text_is_mended(void **state)
{
    char text[] = "a\xff\xc3\xa4\xc3";
    (void)state;
    hp_utf8_mend(text);
    assert_string_equal(text, "a?\xc3\xa4?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_and_their_status_have_limits),
        cmocka_unit_test(other_messages_have_limits),
        cmocka_unit_test(tombstones_must_be_sendable),
        cmocka_unit_test(containers_must_be_sendable),
        cmocka_unit_test(reports_must_be_sendable),
        cmocka_unit_test(reports_are_numbered_from_1),
        cmocka_unit_test(counters_must_leave_room_to_count),
        cmocka_unit_test(what_is_no_text_is_mended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
