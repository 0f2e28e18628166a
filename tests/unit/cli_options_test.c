/* The CLI's options, quantities and tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli.h"

static int64_t cpu(const char *t)
{
    int64_t v = -1;
    return cli_parse_cpu(t, &v, NULL) ? -1 : v;
}

static int64_t bytes(const char *t)
{
    int64_t v = -1;
    return cli_parse_bytes(t, &v, NULL) ? -1 : v;
}

static int64_t ms(const char *t)
{
    int64_t v = -1;
    return cli_parse_duration(t, &v, NULL) ? -1 : v;
}

static void quantities_are_exact(void **state)
{
    (void)state;
    assert_int_equal(cpu("0.5"), 500);
    assert_int_equal(cpu("500m"), 500);
    assert_int_equal(cpu("2"), 2000);
    assert_int_equal(bytes("64Mi"), 64 << 20);
    assert_int_equal(bytes("1.5Gi"), 3LL << 29);
    assert_int_equal(bytes("500M"), 500000000);
    assert_int_equal(bytes("0"), 0);
    assert_int_equal(ms("250ms"), 250);
    assert_int_equal(ms("90"), 90000);
    assert_int_equal(ms("1d"), 86400000);
}

static void nonsense_is_refused_with_the_value(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "x", "-1", "1Q", "1e400", "nan", "inf", "1 Mi", "+5", "64MiB", "99999999Ti"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct hp_error e = {0};
        int64_t v = 7;
        assert_int_equal(cli_parse_bytes(bad[i], &v, &e), HP_EINVAL);
        assert_int_equal(v, 7);
        assert_non_null(strstr(e.message, bad[i]));
    }
}

static int parse(struct cli *c, const struct cli_option *table, struct cli_args *args, struct hp_error *e,
                 const char *line)
{
    static char copy[512];
    static char *argv[32];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *p = strtok(copy, " "); p; p = strtok(NULL, " "))
        argv[argc++] = p;
    return cli_parse(c, table, argc, argv, args, e);
}

static void options_come_in_any_order_and_form(void **state)
{
    (void)state;
    struct cli c = {0};
    struct cli_args args;
    struct cli_list envs = {.count = 0};
    struct hp_error e = {0};
    bool wait = false;
    const char *file = NULL;
    const struct cli_option table[] = {{"wait", 'w', CLI_FLAG, &wait, NULL, ""},
                                       {"file", 'f', CLI_STRING, &file, "FILE", ""},
                                       {"env", 'e', CLI_REPEATED, &envs, "K=V", ""},
                                       {0}};
    assert_int_equal(parse(&c, table, &args, &e, "create web -w -f- --env=A=1 -e B=2 --region r1 -ojson -- -x --wait"),
                     0);
    assert_true(wait);
    assert_string_equal(file, "-");
    assert_int_equal(envs.count, 2);
    assert_string_equal(envs.items[0], "A=1");
    assert_string_equal(c.region, "r1");
    assert_int_equal(c.format, CLI_JSON);
    assert_int_equal(args.count, 3);
    assert_string_equal(args.items[0], "web");
    assert_string_equal(args.items[1], "-x");
    assert_string_equal(args.items[2], "--wait");
}

static void wrong_options_are_named(void **state)
{
    (void)state;
    static const char *const lines[] = {"x --nope", "x -q",      "x --wait=1",
                                        "x --file", "x -o yaml", "x --call-timeout soon"};
    static const char *const said[] = {"--nope", "-q", "--wait=1", "--file", "yaml", "soon"};
    bool wait = false;
    const char *file = NULL;
    const struct cli_option table[] = {
        {"wait", 'w', CLI_FLAG, &wait, NULL, ""}, {"file", 'f', CLI_STRING, &file, "FILE", ""}, {0}};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct cli c = {0};
        struct cli_args args;
        struct hp_error e = {0};
        assert_int_equal(parse(&c, table, &args, &e, lines[i]), HP_EINVAL);
        assert_non_null(strstr(e.message, said[i]));
    }
}

static void names_are_completed_from_the_settings(void **state)
{
    (void)state;
    struct cli c = {.project = "demo", .region = "r1"};
    char out[256];
    assert_int_equal(cli_container_name(&c, "web", out), CLI_OK);
    assert_string_equal(out, "projects/demo/regions/r1/containers/web");
    assert_int_equal(cli_container_name(&c, "projects/a/regions/b/containers/c", out), CLI_OK);
    assert_int_equal(cli_container_name(&c, "Web", out), CLI_USAGE);
    assert_int_equal(cli_host_name(&c, "h1", out), CLI_OK);
    assert_string_equal(out, "regions/r1/hosts/h1");
    c.project = NULL;
    assert_int_equal(cli_container_name(&c, "web", out), CLI_USAGE);
    assert_int_equal(cli_parent_name(&c, true, out), CLI_OK);
    assert_string_equal(out, "projects/-/regions/r1");
}

static void enums_lose_their_prefix(void **state)
{
    (void)state;
    assert_string_equal(cli_enum_name(&harpoon__v1__stage__descriptor, 6), "SUCCEEDED");
    assert_string_equal(cli_enum_name(&harpoon__v1__verb__descriptor, 11), "DECLARE_LOST");
    assert_string_equal(cli_enum_name(&harpoon__v1__stage__descriptor, 99), "?");
}

static void units_print_short(void **state)
{
    (void)state;
    char out[32];
    cli_format_bytes(out, 64 << 20);
    assert_string_equal(out, "64Mi");
    cli_format_bytes(out, 1536);
    assert_string_equal(out, "1.5Ki");
    cli_format_cpu(out, 1500);
    assert_string_equal(out, "1500m");
    cli_format_cpu(out, 2000);
    assert_string_equal(out, "2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantities_are_exact),
        cmocka_unit_test(nonsense_is_refused_with_the_value),
        cmocka_unit_test(options_come_in_any_order_and_form),
        cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(names_are_completed_from_the_settings),
        cmocka_unit_test(enums_lose_their_prefix),
        cmocka_unit_test(units_print_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
