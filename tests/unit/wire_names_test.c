/* Resource names, operation ids, uids, queue names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "wire/names.h"

#define SIXTY_THREE "a23456789012345678901234567890123456789012345678901234567890123"

static void segments(void **state)
{
    const char *const good[] = {"a", "web-1", "a0", SIXTY_THREE};
    const char *const bad[] = {"", "-", "1a", "A", "a-", "a_b", "a.b", "a/b", "é", "a\n", SIXTY_THREE "4"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(hp_segment_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(hp_segment_valid(bad[i]));
}

static void container_names(void **state)
{
    struct hp_container_name n;
    struct hp_error e = {0};
    char text[HP_NAME_MAX + 1];
    assert_int_equal(hp_container_name_parse("name", "projects/p/regions/r1/containers/web-1", &n, &e), 0);
    assert_string_equal(n.project, "p");
    assert_string_equal(n.region, "r1");
    assert_string_equal(n.container, "web-1");
    hp_container_name_format(text, n.project, n.region, n.container);
    assert_string_equal(text, "projects/p/regions/r1/containers/web-1");
    hp_container_name_format(text, SIXTY_THREE, SIXTY_THREE, SIXTY_THREE);
    assert_int_equal(hp_container_name_parse("name", text, &n, &e), 0);
    assert_string_equal(n.container, SIXTY_THREE);
    const char *const bad[] = {"",
                               "projects/p/regions/r1/containers/",
                               "projects/p/regions/r1/containers/web/",
                               "projects/p/regions/r1/containers/web/x",
                               "projects/p/regions/-/containers/web",
                               "projects/-/regions/r/containers/web",
                               "/projects/p/regions/r/containers/web",
                               "projects/P/regions/r/containers/web",
                               "projects/p/regions/r/container/web",
                               "projects/p/regions/r"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        e = (struct hp_error){0};
        assert_int_equal(hp_container_name_parse("container.name", bad[i], &n, &e), HP_EINVAL);
        assert_non_null(strstr(e.message, "container.name: \""));
        assert_non_null(strstr(e.message, bad[i]));
    }
}

static void other_names(void **state)
{
    struct hp_operation_name o;
    struct hp_host_name h;
    struct hp_parent_name p;
    char region[64], text[HP_NAME_MAX + 1];
    const char *id = "0123456789abcdef0123456789abcdef";
    hp_operation_name_format(text, "", "r1", id);
    assert_string_equal(text, "projects/-/regions/r1/operations/0123456789abcdef0123456789abcdef");
    assert_int_equal(hp_operation_name_parse("name", text, &o, NULL), 0);
    assert_string_equal(o.project, "");
    assert_string_equal(o.operation, id);
    assert_int_equal(hp_operation_name_parse("name", "projects/p/regions/r1/operations/0123", &o, NULL), HP_EINVAL);
    assert_int_equal(
        hp_operation_name_parse("name", "projects/p/regions/r1/operations/0123456789ABCDEF0123456789abcdef", &o, NULL),
        HP_EINVAL);
    assert_int_equal(hp_host_name_parse("name", "regions/r1/hosts/h1", &h, NULL), 0);
    assert_string_equal(h.host, "h1");
    assert_int_equal(hp_host_name_parse("name", "regions/-/hosts/h1", &h, NULL), HP_EINVAL);
    assert_int_equal(hp_parent_name_parse("parent", "projects/-/regions/-", true, &p, NULL), 0);
    assert_string_equal(p.project, "-");
    assert_int_equal(hp_parent_name_parse("parent", "projects/-/regions/-", false, &p, NULL), HP_EINVAL);
    assert_int_equal(hp_region_name_parse("parent", "regions/-", true, region, NULL), 0);
    assert_string_equal(region, "-");
    assert_int_equal(hp_region_name_parse("parent", "regions/-", false, region, NULL), HP_EINVAL);
    assert_int_equal(hp_queue_name(text, "requests", "r1"), 0);
    assert_string_equal(text, "requests.r1");
    char longer[260];
    memset(longer, 'x', 259);
    longer[259] = '\0';
    assert_int_equal(hp_queue_name(text, "requests", longer), HP_ELIMIT);
}

/* printf 'demo\0abc' | sha256sum */
static void ids(void **state)
{
    char id[HP_OPERATION_ID_LEN + 1], uid[HP_UID_LEN + 1];
    hp_operation_id(id, "demo", "abc");
    assert_string_equal(id, "1d8980b07f0fdeb9e42bcdc69f9869d2");
    hp_operation_id(id, "", "abc");
    assert_string_equal(id, "609f6e36d2405585188d5cfd761f407c");
    uint8_t zero[16] = {0}, ones[16];
    memset(ones, 0xFF, sizeof ones);
    hp_uid_format(uid, zero);
    assert_string_equal(uid, "00000000000000000000000000");
    hp_uid_format(uid, ones);
    assert_string_equal(uid, "7zzzzzzzzzzzzzzzzzzzzzzzzz");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments),
        cmocka_unit_test(container_names),
        cmocka_unit_test(other_names),
        cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
