/* Configuration: what is read, and that each mistake is named with its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/config.h"

struct target {
    char *name;
    int64_t window, size, wait_ms;
    bool loud;
    char **regions;
};

#define AT(f) offsetof(struct target, f)
static const struct hp_config_key keys[] = {
    {"router", "name", HP_CONFIG_STRING, AT(name), NULL, true, 0, 0, "name of this router"},
    {"router", "window", HP_CONFIG_INT, AT(window), "32", false, 1, 1000, "commands per host"},
    {"limits", "size", HP_CONFIG_SIZE, AT(size), "64K", false, 0, 1 << 30, "bytes"},
    {"limits", "wait", HP_CONFIG_TIME, AT(wait_ms), "5s", false, 0, 0, "time"},
    {"limits", "loud", HP_CONFIG_BOOL, AT(loud), "no", false, 0, 0, "whether"},
    {"router", "regions", HP_CONFIG_LIST, AT(regions), "r1", false, 0, 0, "regions"},
    {0},
};

struct fixture {
    char dir[64], file[96], dropin_dir[104];
    struct hp_config_key keys[7];
    struct target t;
    struct hp_error e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/harpoon-config-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->file, sizeof f->file, "%s/a.conf", f->dir);
    snprintf(f->dropin_dir, sizeof f->dropin_dir, "%s.d", f->file);
    memcpy(f->keys, keys, sizeof keys);
    memset(&f->t, 0xA5, sizeof f->t); /* what is in the target before does not matter */
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char cmd[200];
    hp_config_free(f->keys, &f->t);
    snprintf(cmd, sizeof cmd, "rm -r %s", f->dir);
    assert_int_equal(system(cmd), 0);
    free(f);
    return 0;
}

static void put_bytes(const char *file, const char *text, size_t len)
{
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, len, out), len);
    fclose(out);
}

static int load(struct fixture *f, const char *text, const char *const *sets)
{
    put_bytes(f->file, text, strlen(text));
    memset(&f->e, 0, sizeof f->e);
    return hp_config_load(f->keys, f->file, sets, &f->t, &f->e);
}

static void reads_all_types(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(load(f,
                          "; a comment\n[router]\nname = rt 1 ; inline\nwindow=7\nregions = r1, r2\n  r3,r4\n"
                          "[limits]\nsize = 3M\nwait = 2min\nloud = On\n",
                          NULL),
                     0);
    assert_string_equal(f->t.name, "rt 1");
    assert_int_equal(f->t.window, 7);
    assert_int_equal(f->t.size, 3 << 20);
    assert_int_equal(f->t.wait_ms, 120000);
    assert_true(f->t.loud);
    for (int i = 0; i < 4; i++)
        assert_int_equal(f->t.regions[i][1], '1' + i);
    assert_null(f->t.regions[4]);
}

static void defaults_dropins_and_sets_in_order(void **state)
{
    struct fixture *f = *state;
    char path[140];
    const char *sets[] = {"router.regions=", "limits.wait=250ms", NULL};
    mkdir(f->dropin_dir, 0755);
    snprintf(path, sizeof path, "%s/20-b.conf", f->dropin_dir);
    put_bytes(path, "[router]\nwindow=3\n", 18);
    snprintf(path, sizeof path, "%s/10-a.conf", f->dropin_dir);
    put_bytes(path, "[router]\nwindow=2\nname=late\n", 28);
    snprintf(path, sizeof path, "%s/30-c.conf.bak", f->dropin_dir);
    put_bytes(path, "nonsense", 8);
    assert_int_equal(load(f, "[router]\nname=early\n", sets), 0);
    assert_string_equal(f->t.name, "late");
    assert_int_equal(f->t.window, 3);
    assert_int_equal(f->t.size, 65536);
    assert_int_equal(f->t.wait_ms, 250);
    assert_non_null(f->t.regions);
    assert_null(f->t.regions[0]);
    hp_config_free(f->keys, &f->t);
    assert_int_equal(hp_config_load(f->keys, NULL, NULL, &f->t, &f->e), HP_EINVAL); /* no file: the name is missing */
}

static void mistakes_are_named_with_their_place(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[router]\nname=a\nwimdow=1\n", ":3: unknown key wimdow in [router]"},
        {"[router]\nname=a\nsize=1\n", ":3: unknown key size in [router] (there is one in [limits])"},
        {"[router]\nname=a\n\n[rooter]\n", ":4: unknown section [rooter]"},
        {"[router]\nname=a\nwindow=1x\n", ":3: window in [router]: \"1x\" is not a whole number"},
        {"[router]\nname=a\nwindow=0\n", ":3: window in [router]: \"0\" is out of range: from 1 to 1000"},
        {"[router]\nname=a\nwindow=99999999999999999999\n", ":3: window in [router]: \"99999999999999999999\" is too"},
        {"[router]\nname=a\n[limits]\nsize=9000000T\n", ":4: size in [limits]: \"9000000T\" is too large"},
        {"[router]\nname=a\n[limits]\nsize=1KB\n", "is not a size in bytes"},
        {"[router]\nname=a\n[limits]\nwait=5 minutes\n", "is not a time"},
        {"[router]\nname=a\n[limits]\nloud=maybe\n", ":4: loud in [limits]: \"maybe\" is neither yes nor no"},
        {"[router]\nname=a\nname=b\n", ":3: name in [router] is set twice, first in line 2"},
        {"[router]\nname=a\n  b\n", ":3: a line that begins with a blank continues a list; name is none"},
        {"name=a\n", ":1: key name before any [section]"},
        {"[router]\nname=a\njust words\n", ":3: neither [section] nor key = value"},
        {"[router\nname=a\n", ":1: neither [section] nor key = value"},
        {"[router]\n", "name in [router] must be set"},
        {"[router]\nname=\n", "name in [router] must be set"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(load(f, cases[i].text, NULL), HP_EINVAL);
        if (!strstr(f->e.message, cases[i].message))
            fail_msg("\"%s\" does not hold \"%s\"", f->e.message, cases[i].message);
        assert_null(f->t.name);
        assert_null(f->t.regions);
        assert_int_equal(f->t.window, 0);
    }
}

/* libinih reads lines of at most 199 bytes; a URL or a list of routers is longer than that sooner or later. */
static void long_values_are_whole(void **state)
{
    struct fixture *f = *state;
    char text[4000], name[3001];
    memset(name, 'n', 3000);
    name[3000] = '\0';
    snprintf(text, sizeof text, "[router]\nname = %s ; comment\nwindow=9\n", name);
    assert_int_equal(load(f, text, NULL), 0);
    assert_string_equal(f->t.name, name);
    assert_int_equal(f->t.window, 9);
}

static void strange_files_are_refused(void **state)
{
    struct fixture *f = *state;
    char *longer = malloc(20000);
    memset(longer, 'x', 19999);
    memcpy(longer, "[router]\nname=", 14);
    longer[19999] = '\0';
    assert_int_equal(load(f, longer, NULL), HP_ELIMIT);
    assert_non_null(strstr(f->e.message, ":2: line of"));
    free(longer);
    put_bytes(f->file, "[router]\nname=a\0b\n", 18);
    assert_int_equal(hp_config_load(f->keys, f->file, NULL, &f->t, &f->e), HP_EINVAL);
    assert_non_null(strstr(f->e.message, "NUL"));
    assert_int_equal(hp_config_load(f->keys, "/nonexistent", NULL, &f->t, &f->e), HP_ENOTFOUND);
    assert_int_equal(hp_config_load(f->keys, f->dir, NULL, &f->t, &f->e), HP_EINVAL);
}

static void bad_sets_are_named(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"window=1",        "router.window",   ".window=1",      "router.=1",
                                      "router.wimdow=1", "rooter.window=1", "router.window=x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *sets[] = {bad[i], NULL};
        assert_int_equal(load(f, "[router]\nname=a\n", sets), HP_EINVAL);
        assert_non_null(strstr(f->e.message, bad[i]));
    }
}

static void help_is_a_configuration_file(void **state)
{
    struct fixture *f = *state;
    char *text = hp_config_help(f->keys);
    assert_non_null(strstr(text, "[router]\n# name of this router (text, required)\n#name = \n"));
    assert_non_null(strstr(text, "#window = 32\n"));
    assert_int_equal(load(f, text, (const char *[]){"router.name=x", NULL}), 0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_all_types, setup, teardown),
        cmocka_unit_test_setup_teardown(defaults_dropins_and_sets_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_named_with_their_place, setup, teardown),
        cmocka_unit_test_setup_teardown(long_values_are_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(strange_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_sets_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(help_is_a_configuration_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
