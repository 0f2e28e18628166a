/* config_faults_test.c — every allocation and every read of the configuration and of the tokens file fails once: it is loaded as a whole or refused, and nothing is left over. Half of a
 * file, taken for all of it, would start a daemon with other limits, or a gateway that does not know its users. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/fail_alloc.h"
#include "shell/config.h"
#include "shell/tokens.h"

struct target {
    char *name;
    int64_t window, wait_ms;
    char **regions, **more;
};

#define AT(f) offsetof(struct target, f)
static const struct hp_config_key keys[] = {
    {"a", "name", HP_CONFIG_STRING, AT(name), "nobody", true, 0, 0, "name"},
    {"a", "window", HP_CONFIG_INT, AT(window), "32", false, 1, 1000, "commands"},
    {"b", "wait", HP_CONFIG_TIME, AT(wait_ms), "5s", false, 0, 0, "time"},
    {"b", "regions", HP_CONFIG_LIST, AT(regions), "r1", false, 0, 0, "regions"},
    {"b", "more", HP_CONFIG_LIST, AT(more), NULL, false, 0, 0, "texts"},
    {0},
};

enum { LONG_LIST = 90 /* items: more than libinih's line */, READ_BYTES = 24 };

static struct {
    char dir[64], file[96], tokens[96];
    long reads, fail_at; /* of the files' blocks; 0: none fails */
    bool watch;
} t;

/* ---- Files that cannot be read ---- */

static ssize_t read_block(void *cookie, char *out, size_t len)
{
    if (++t.reads == t.fail_at) {
        errno = EIO;
        return -1;
    }
    return read((int)(intptr_t)cookie, out, len < READ_BYTES ? len : READ_BYTES);
}

static int close_file(void *cookie)
{
    return close((int)(intptr_t)cookie);
}

/* The configuration's calls come here first, and libinih's. */
FILE *fopen(const char *path, const char *mode)
{
    int fd = open(path, mode[0] == 'r' ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return NULL;
    FILE *f = t.watch
                  ? fopencookie((void *)(intptr_t)fd, "r", (cookie_io_functions_t){read_block, NULL, NULL, close_file})
                  : fdopen(fd, mode[0] == 'r' ? "r" : "w");
    if (!f)
        close(fd);
    return f;
}
FILE *narrow_fopen(const char *path, const char *mode) __asm__("fopen"); /* without 64 in its name */
FILE *narrow_fopen(const char *path, const char *mode)
{
    return fopen(path, mode);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    char path[160], text[2048] = "[a]\nname = early\n[b]\nwait = 7s\nregions = r1, r2\n  r3\nmore = ";
    strcpy(t.dir, "/tmp/harpoon-config-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    snprintf(t.file, sizeof t.file, "%s/a.conf", t.dir);
    snprintf(t.tokens, sizeof t.tokens, "%s/tokens", t.dir);
    for (int i = 0; i < LONG_LIST; i++)
        strcat(text, i ? ",item" : "item");
    strcat(text, " ; and so on\n[a]\nwindow = 9\n");
    put(t.file, text);
    snprintf(path, sizeof path, "%s.d", t.file);
    assert_int_equal(mkdir(path, 0700), 0);
    strcat(path, "/10.conf");
    put(path, "[a]\nname = late\n[b]\nregions = r4\n r5\n");
    put(t.tokens,
        "[token a]\nsha256 = 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\nprojects = x, y\n"
        "role = editor\n\n[token b]\nsha256 = "
        "0000000000000000000000000000000000000000000000000000000000000001\nprojects = *\nrole = viewer\n");
    t.watch = true;
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", t.dir);
    return system(command);
}

/* ---- */

static void check_whole(const struct target *x)
{
    size_t more = 0;
    assert_string_equal(x->name, "late");
    assert_int_equal(x->window, 11);
    assert_int_equal(x->wait_ms, 7000);
    assert_string_equal(x->regions[0], "r4");
    assert_string_equal(x->regions[1], "r5");
    assert_null(x->regions[2]);
    while (x->more[more])
        more++;
    assert_int_equal(more, LONG_LIST);
}

static int load_config(int expected_failure)
{
    static const struct target none;
    static const char *const sets[] = {"a.window=11", NULL};
    struct target x;
    struct hp_error e = {0};
    fa_enter();
    int rc = hp_config_load(keys, t.file, sets, &x, &e);
    fa_leave();
    if (rc) {
        assert_int_equal(rc, expected_failure);
        assert_memory_equal(&x, &none, sizeof x);
        assert_true(e.message[0]);
        return rc;
    }
    check_whole(&x);
    fa_enter();
    hp_config_free(keys, &x);
    fa_leave();
    return 0;
}

static int load_tokens(int expected_failure)
{
    struct hp_file_mark mark;
    struct gw_principals ps;
    struct hp_error e = {0};
    fa_enter();
    gw_principals_init(&ps, 1);
    int rc = gw_tokens_load(t.tokens, &mark, &ps, &e);
    size_t count = ps.by_digest.count;
    gw_principals_done(&ps);
    fa_leave();
    assert_int_equal(rc, rc ? expected_failure : 0);
    if (!rc)
        assert_int_equal(count, 2);
    else
        assert_true(e.message[0]);
    return rc;
}

static void without_memory(void *user)
{
    int (*load)(int) = user;
    if (load(HP_ENOMEM))
        assert_true(fa_failed());
}

static void every_allocation_fails_once(void **state)
{
    assert_true(fa_each(without_memory, load_config) > 100);
    assert_true(fa_each(without_memory, load_tokens) > 10);
}

static void each_read(int (*load)(int), long expected)
{
    t.reads = t.fail_at = 0;
    assert_int_equal(load(0), 0);
    long total = t.reads;
    assert_true(total > expected);
    for (long at = 1; at <= total; at++) {
        t.reads = 0;
        t.fail_at = at;
        assert_int_equal(load(HP_EIO), HP_EIO);
    }
    t.fail_at = 0;
}

static void every_read_fails_once(void **state)
{
    each_read(load_config, 20);
    each_read(load_tokens, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_fails_once),
                                       cmocka_unit_test(every_read_fails_once)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
