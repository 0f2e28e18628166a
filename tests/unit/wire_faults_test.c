/* wire_faults_test.c — every allocation of the codecs fails once: "out of memory" is said, never "malformed" or something wrong, and nothing is left over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/map.h"
#include "google/rpc/status.pb-c.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "lib/fail_alloc.h"
#include "wire/codec.h"
#include "wire/json.h"
#include "wire/names.h"

static const char request_json[] =
    "{\"parent\":\"projects/p/regions/r2\",\"containerId\":\"web\",\"requestId\":\"id-1\",\"container\":{\"labels\":{"
    "\"a\":\"1\",\"b\":\"2\"},\"spec\":{\"image\":\"oci:/"
    "img:1\",\"command\":[\"a\",\"b\"],\"env\":[{\"name\":\"A\",\"value\":\"1\"}],"
    "\"resources\":{\"cpuMillis\":100,\"memoryBytes\":\"67108864\"},\"placement\":{\"hostLabels\":{\"x\":\"y\"},"
    "\"zones\":[\"z1\",\"z2\"]}}}}";

/* A message with everything that JSON writes in a way of its own: any, duration, timestamp, bytes. */
static const char status_json[] =
    "{\"code\":8,\"message\":\"full\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":"
    "\"FULL\",\"metadata\":{\"k\":\"v\"}},{\"@type\":\"type.googleapis.com/"
    "google.rpc.RetryInfo\",\"retryDelay\":\"1.500s\"},"
    "{\"@type\":\"type.googleapis.com/google.protobuf.Timestamp\",\"value\":\"2024-02-29T12:00:00Z\"},"
    "{\"@type\":\"type.googleapis.com/nobody.Knows\",\"value\":\"AAEC\"}]}";

struct sample {
    const ProtobufCMessageDescriptor *type;
    const char *json, *part; /* what the text must hold in the end */
};

static int checked(int rc)
{
    if (fa_failed())
        assert_true(rc == 0 || rc == HP_ENOMEM);
    else
        assert_int_equal(rc, 0);
    return rc;
}

/* JSON → message → wire → message → copy → JSON. */
static void there_and_back(void *user)
{
    const struct sample *x = user;
    struct hp_error e = {0};
    ProtobufCMessage *m = NULL, *again = NULL, *copy = NULL;
    uint8_t *bytes = NULL;
    char *text = NULL;
    size_t len = 0;
    fa_enter();
    if (!checked(hp_json_parse_message(x->json, strlen(x->json), x->type, &m, &e)) &&
        !checked(hp_pack(m, &bytes, &len, &e)) && !checked(hp_unpack(x->type, bytes, len, NULL, &again, &e))) {
        copy = hp_message_clone(again);
        text = copy ? hp_json_print_message(copy, JSON_COMPACT, &e) : NULL;
        assert_true(text ? strstr(text, x->part) != NULL : fa_failed());
        if (copy && !text)
            assert_int_equal(e.code, HP_ENOMEM);
    }
    free(text);
    free(bytes);
    hp_unpacked_free(m);
    hp_unpacked_free(again);
    hp_unpacked_free(copy);
    fa_leave();
}

static void codecs(void **state)
{
    struct sample request = {&harpoon__v1__create_container_request__descriptor, request_json,
                             "\"memoryBytes\":\"67108864\""};
    struct sample status = {&google__rpc__status__descriptor, status_json, "\"retryDelay\":\"1.500s\""};
    assert_true(fa_each(there_and_back, &request) > 100);
    assert_true(fa_each(there_and_back, &status) > 50);
}

/* The identity of an operation is the same whatever happens: otherwise a repeat would be another operation. */
static void name_an_operation(void *user)
{
    char id[HP_OPERATION_ID_LEN + 1];
    fa_enter();
    hp_operation_id(id, "p", "id-1");
    void *volatile p = malloc(1); /* so that there is one even when naming needs none */
    free(p);
    fa_leave();
    assert_string_equal(id, user);
}

static void identity(void **state)
{
    char id[HP_OPERATION_ID_LEN + 1];
    hp_operation_id(id, "p", "id-1");
    fa_each(name_an_operation, id);
}

/* All or nothing: a refused entry leaves the map as it was. */
static void fill_a_map(void *user)
{
    struct hp_map m;
    char key[16];
    size_t in = 0;
    hp_map_init(&m, 100, 7);
    fa_enter();
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        int rc = checked(hp_map_put(&m, key, &m, NULL));
        in += rc == 0;
        assert_int_equal(m.count, in);
        assert_ptr_equal(hp_map_get(&m, key), rc ? NULL : &m);
    }
    assert_true(in >= 99);
    hp_map_done(&m);
    fa_leave();
}

static void fill_a_buffer(void *user)
{
    struct hp_buf b;
    size_t held = 0;
    static const uint8_t data[1000];
    hp_buf_init(&b, 100000);
    fa_enter();
    for (int i = 0; i < 50; i++) {
        held += checked(hp_buf_append(&b, data, sizeof data)) ? 0 : sizeof data;
        assert_int_equal(b.len, held);
    }
    hp_buf_done(&b);
    fa_leave();
}

static void containers(void **state)
{
    fa_each(fill_a_map, NULL);
    fa_each(fill_a_buffer, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(codecs), cmocka_unit_test(identity),
                                       cmocka_unit_test(containers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
