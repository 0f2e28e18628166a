/* Statuses: builders, details that gather, and the two text encodings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "google/rpc/error_details.pb-c.h"
#include "grpc/status.h"

static void test_names(void **state)
{
    assert_string_equal(hp_code_name(HP_CODE_NOT_FOUND), "NOT_FOUND");
    assert_string_equal(hp_code_name(99), "UNKNOWN");
    assert_string_equal(hp_code_connect_name(HP_CODE_CANCELLED), "canceled");
    assert_int_equal(hp_code_http_status(HP_CODE_ABORTED), 409);
    assert_int_equal(hp_code_http_status(-1), 500);
}

static void test_details_gather(void **state)
{
    Google__Rpc__Status *s = hp_status_new(HP_CODE_INVALID_ARGUMENT, "BAD_FIELD", "%s is bad", "name");
    s = hp_status_add_metadata(s, "key", "value");
    s = hp_status_add_field(s, "name", "empty");
    s = hp_status_add_field(s, "spec.image", "too long");
    s = hp_status_add_retry(s, 1500);
    s = hp_status_add_precondition(s, "STATE", "c1", "stopped");
    s = hp_status_add_quota(s, "projects/p", "full");
    assert_string_equal(s->message, "name is bad");
    assert_int_equal(s->n_details, 5);
    assert_string_equal(s->details[0]->type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    char reason[32];
    hp_status_reason(s, reason, sizeof reason);
    assert_string_equal(reason, "BAD_FIELD");

    Google__Rpc__BadRequest *bad =
        google__rpc__bad_request__unpack(NULL, s->details[1]->value.len, s->details[1]->value.data);
    assert_int_equal(bad->n_field_violations, 2);
    assert_string_equal(bad->field_violations[1]->field, "spec.image");
    google__rpc__bad_request__free_unpacked(bad, NULL);

    Google__Rpc__RetryInfo *retry =
        google__rpc__retry_info__unpack(NULL, s->details[2]->value.len, s->details[2]->value.data);
    assert_int_equal(retry->retry_delay->seconds, 1);
    assert_int_equal(retry->retry_delay->nanos, 500000000);
    google__rpc__retry_info__free_unpacked(retry, NULL);

    Google__Rpc__Status *copy = hp_status_clone(s);
    assert_int_equal(copy->n_details, 5);
    hp_status_free(copy);
    hp_status_free(s);
    hp_status_free(NULL);
}

static void test_no_reason(void **state)
{
    Google__Rpc__Status *s = hp_status_new(HP_CODE_INTERNAL, NULL, "x");
    char reason[8] = "old";
    hp_status_reason(s, reason, sizeof reason);
    assert_string_equal(reason, "");
    assert_int_equal(s->n_details, 0);
    hp_status_free(s);
}

static void test_full_lists(void **state)
{
    Google__Rpc__Status *s = hp_status_new(HP_CODE_INVALID_ARGUMENT, "R", "many");
    for (int i = 0; i < 300; i++) {
        s = hp_status_add_field(s, "f", "d");
        s = hp_status_add_metadata(s, "k", "v");
    }
    assert_int_equal(s->code, HP_CODE_INVALID_ARGUMENT);
    assert_int_equal(s->n_details, 2);
    hp_status_free(s);
}

static void test_invalid_utf8_is_replaced(void **state)
{
    Google__Rpc__Status *s = hp_status_new(HP_CODE_INTERNAL, "R", "a\xff\xc3\xa4\xed\xa0\x80z");
    assert_string_equal(s->message, "a?\xc3\xa4???z");
    hp_status_free(s);
}

static void check_round_trip(const char *text, const char *encoded)
{
    char *e = hp_grpc_message_encode(text);
    assert_string_equal(e, encoded);
    char *d = hp_grpc_message_decode(e, strlen(e));
    assert_string_equal(d, text);
    free(e);
    free(d);
}

static void test_message_encoding(void **state)
{
    check_round_trip("", "");
    check_round_trip("plain text ~", "plain text ~");
    check_round_trip("100% \n\xc3\xa4", "100%25 %0A%C3%A4");
    char *d = hp_grpc_message_decode("%zz%4%00%ff%41", 14);
    assert_string_equal(d, "%zz%4??A");
    free(d);
    char big[HP_GRPC_MESSAGE_MAX + 10];
    memset(big, 'a', sizeof big);
    memcpy(big + HP_GRPC_MESSAGE_MAX - 1, "\xc3\xa4", 3); /* a character across the limit is left out whole */
    char *e = hp_grpc_message_encode(big);
    assert_int_equal(strlen(e), HP_GRPC_MESSAGE_MAX - 1);
    free(e);
}

static void test_unpack_bad(void **state)
{
    assert_null(hp_status_unpack("\xff\xff", 2));
    Google__Rpc__Status *s = hp_status_unpack("", 0);
    assert_string_equal(s->message, "");
    hp_status_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_details_gather),
        cmocka_unit_test(test_no_reason),
        cmocka_unit_test(test_full_lists),
        cmocka_unit_test(test_invalid_utf8_is_replaced),
        cmocka_unit_test(test_message_encoding),
        cmocka_unit_test(test_unpack_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
