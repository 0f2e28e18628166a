/* The tokens file and the cross-checks of the configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "grpc/status.h"
#include "shell/config.h"
#include "shell/tokens.h"

#define DIGEST_A "sha256 = 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n"
#define DIGEST_B "sha256 = 0000000000000000000000000000000000000000000000000000000000000001\n"

static int load(const char *text, struct hp_error *e, size_t *ret_count)
{
    char path[] = "/tmp/gw-tokens-XXXXXX";
    int fd = mkstemp(path);
    struct hp_file_mark mark;
    struct gw_principals ps;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    gw_principals_init(&ps, 1);
    int rc = gw_tokens_load(path, &mark, &ps, e);
    *ret_count = ps.by_digest.count;
    gw_principals_done(&ps);
    unlink(path);
    return rc;
}

static void good_files(void **state)
{
    struct hp_error e = {0};
    size_t count;
    assert_int_equal(load("; nobody\n", &e, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(load("[token a]\n" DIGEST_A
                          "projects = *\nrole = admin\n\n[token b]\nrole = viewer\nprojects = x, y\n" DIGEST_B,
                          &e, &count),
                     0);
    assert_int_equal(count, 2);
}

static void refuse(const char *text, const char *message)
{
    struct hp_error e = {0};
    size_t count;
    assert_true(load(text, &e, &count) < 0);
    if (!strstr(e.message, message) || !strstr(e.message, "/tmp/gw-tokens-"))
        fail_msg("\"%s\" is not in \"%s\"", message, e.message);
}

static void bad_files(void **state)
{
    refuse("[token a]\n" DIGEST_A "role = admin\n", "[token a]: projects is missing");
    refuse("[token a]\nrole = admin\nprojects = *\n[token b]\nrole = admin\n", ":5: [token a]: sha256 is missing");
    refuse("[tokens a]\nrole = admin\n", "section [tokens a] is not [token NAME]");
    refuse("role = admin\n", "is not [token NAME]");
    refuse("[token a]\ncolour = red\n", ":2: [token a]: unknown key \"colour\"");
    refuse("[token a]\nrole = admin\nrole = viewer\n", "role is there twice");
    refuse("[token a]\n" DIGEST_A "projects = *\nrole = boss\n", "\"boss\" is not admin");
    refuse("[token a]\n" DIGEST_A "projects = *\nrole = admin\n[token b]\n" DIGEST_A "projects = *\nrole = admin\n",
           "another token");
    refuse("[token a]\njust words\n", ":2: not a section");
    struct hp_error e = {0};
    struct hp_file_mark mark;
    struct gw_principals ps;
    gw_principals_init(&ps, 1);
    assert_int_equal(gw_tokens_load("/nowhere/tokens", &mark, &ps, &e), HP_EIO);
    gw_principals_done(&ps);
}

static void write_tokens(const char *path, const char *text)
{
    char temporary[64];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *f = fopen(temporary, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(rename(temporary, path), 0);
}

static const struct gw_principal *find(const struct gw_tokens *t)
{
    Google__Rpc__Status *status = NULL;
    const struct gw_principal *p = gw_principals_find(&t->principals, "Bearer secret", &status);
    hp_status_free(status);
    return p;
}

/* Looks once a second; who is the same goes on, who is not is revoked and lives until nobody has it. */
static void a_file_that_changes(void **state)
{
    char path[] = "/tmp/gw-tokens-XXXXXX";
    struct gw_tokens t;
    struct hp_error e = {0};
    close(mkstemp(path));
    write_tokens(path, "[token a]\n" DIGEST_A "projects = *\nrole = admin\n");
    assert_int_equal(gw_tokens_init(&t, path, 1, &e), 0);
    const struct gw_principal *a = gw_principal_ref(find(&t));
    gw_tokens_refresh(&t, 10000);

    write_tokens(path, "[token b]\n" DIGEST_B "projects = *\nrole = admin\n[token a]\n" DIGEST_A
                       "projects = *\nrole = admin\n");
    gw_tokens_refresh(&t, 10999);
    assert_int_equal(t.principals.by_digest.count, 1);
    gw_tokens_refresh(&t, 11000);
    assert_int_equal(t.principals.by_digest.count, 2);
    assert_ptr_equal(find(&t), a);
    assert_false(a->revoked);

    write_tokens(path, "[token a]\n" DIGEST_A "projects = *\nrole = boss\n");
    gw_tokens_refresh(&t, 12000);
    assert_ptr_equal(find(&t), a);

    write_tokens(path, "[token a]\n" DIGEST_A "projects = zoo\nrole = admin\n");
    gw_tokens_refresh(&t, 13000);
    const struct gw_principal *limited = find(&t);
    assert_ptr_not_equal(limited, a);
    assert_false(limited->all_projects);
    assert_true(a->revoked);
    assert_string_equal(a->name, "a");
    gw_principal_unref(a);

    unlink(path);
    gw_tokens_refresh(&t, 14000);
    assert_ptr_equal(find(&t), limited);
    gw_tokens_done(&t);
}

static void cross_checks(void **state)
{
    char name[] = "gw-1", bad[] = "GW 1", r1[] = "r1", again[] = "r1", address[] = "127.0.0.1:0", socket[] = "/s";
    char *one[] = {r1, NULL}, *twice[] = {r1, again, NULL};
    struct gw_config c = {.name = name, .regions = one, .h2c_listen = address, .db_socket = socket};
    struct hp_error e = {0};
    assert_int_equal(gw_config_check(&c, &e), 0);
    c.name = bad;
    assert_int_equal(gw_config_check(&c, &e), HP_EINVAL);
    c.name = name;
    c.regions = twice;
    assert_int_equal(gw_config_check(&c, &e), HP_EINVAL);
    assert_non_null(strstr(e.message, "twice"));
    c.regions = one;
    c.h2c_listen = NULL;
    assert_int_equal(gw_config_check(&c, &e), HP_EINVAL);
    c.grpc_listen = address; /* without a certificate */
    assert_int_equal(gw_config_check(&c, &e), HP_EINVAL);
    assert_non_null(strstr(e.message, "[tls]"));
    c.h2c_listen = address;
    c.grpc_listen = NULL;
    c.db_socket = NULL;
    assert_int_equal(gw_config_check(&c, &e), HP_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(a_file_that_changes),
        cmocka_unit_test(cross_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
