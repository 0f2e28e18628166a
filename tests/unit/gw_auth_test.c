/* Tokens, roles, projects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/auth.h"
#include "grpc/status.h"

/* SHA-256 of "secret", "second" and "third". */
#define SECRET "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
#define SECOND "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4"
#define THIRD "b1e99324505bd32da0e1f85dcf5e19a09db0481e8a15f62c41eb320304a8e927"

static struct gw_principals ps;

static int setup(void **state)
{
    gw_principals_init(&ps, 7);
    assert_int_equal(gw_principals_add(&ps, "root", SECRET, "admin", "*", NULL), 0);
    assert_int_equal(gw_principals_add(&ps, "dev", SECOND, "editor", "zoo, demo", NULL), 0);
    assert_int_equal(gw_principals_add(&ps, "eye", THIRD, "viewer", "*", NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    gw_principals_done(&ps);
    return 0;
}

static const struct gw_principal *find(const char *header)
{
    Google__Rpc__Status *status = NULL;
    const struct gw_principal *p = gw_principals_find(&ps, header, &status);
    assert_true((p == NULL) == (status != NULL));
    if (status)
        assert_int_equal(status->code, HP_CODE_UNAUTHENTICATED);
    hp_status_free(status);
    return p;
}

static void secrets_are_found(void **state)
{
    assert_string_equal(find("Bearer secret")->name, "root");
    assert_string_equal(find("bearer  second")->name, "dev");
    assert_null(find(NULL));
    assert_null(find(""));
    assert_null(find("Bearer "));
    assert_null(find("Bearer Secret"));
    assert_null(find("Basic secret"));
    char longer[2000] = "Bearer ";
    memset(longer + 7, 'x', sizeof longer - 8);
    longer[sizeof longer - 1] = '\0';
    assert_null(find(longer));
}

static bool allow(bool (*check)(const struct gw_principal *, const char *, Google__Rpc__Status **),
                  const struct gw_principal *p, const char *project)
{
    Google__Rpc__Status *status = NULL;
    bool allowed = check(p, project, &status);
    assert_true(allowed == (status == NULL));
    if (status)
        assert_int_equal(status->code, HP_CODE_PERMISSION_DENIED);
    hp_status_free(status);
    return allowed;
}

static void roles_and_projects(void **state)
{
    const struct gw_principal *root = find("Bearer secret"), *dev = find("Bearer second"), *eye = find("Bearer third");
    assert_true(allow(gw_allow_change, root, "any"));
    assert_true(allow(gw_allow_change, root, ""));
    assert_true(allow(gw_allow_change, dev, "demo"));
    assert_true(allow(gw_allow_read, dev, "zoo"));
    assert_false(allow(gw_allow_read, dev, "other"));
    assert_false(allow(gw_allow_change, dev, "other"));
    assert_false(allow(gw_allow_read, dev, "")); /* hosts */
    assert_false(allow(gw_allow_change, dev, ""));
    assert_true(allow(gw_allow_read, eye, "any"));
    assert_true(allow(gw_allow_read, eye, ""));
    assert_false(allow(gw_allow_change, eye, "any"));
}

static void refuse(const char *digest, const char *role, const char *projects, const char *message)
{
    struct hp_error e = {0};
    assert_true(gw_principals_add(&ps, "new", digest, role, projects, &e) < 0);
    if (!strstr(e.message, message))
        fail_msg("\"%s\" is not in \"%s\"", message, e.message);
}

static void bad_entries_are_refused(void **state)
{
    char fresh[65];
    memset(fresh, 'a', 64);
    fresh[64] = '\0';
    refuse("abc", "admin", "*", "token new: sha256");
    refuse(SECRET, "admin", "*", "another token");
    refuse(fresh, "boss", "*", "\"boss\" is not admin");
    refuse(fresh, "admin", "", "projects: empty");
    refuse(fresh, "admin", "demo, BAD", "\"BAD\"");
    refuse(fresh, "admin", "*, demo", "\"*\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(secrets_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(roles_and_projects, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_entries_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
