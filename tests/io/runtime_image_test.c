/* Images, good and hostile: what comes from strangers is verified, refused with a reason, and leaves nothing behind. Needs root. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/loop.h"
#include "lib/runtime_host.h"

static int open_host(void **state)
{
    static const char *insecure[2];
    struct runtime_host *h = calloc(1, sizeof *h);
    insecure[0] = getenv("HARPOON_TEST_REGISTRY");
    h->insecure = insecure;
    runtime_host_open(h, "auto");
    *state = h;
    return 0;
}

static int close_host(void **state)
{
    struct runtime_host *h = *state;
    int n = runtime_host_close(h);
    free(h);
    return n;
}

static int count_layers(struct runtime_host *h)
{
    char command[256];
    int n = -1;
    snprintf(command, sizeof command, "ls %s/state/layers | wc -l", h->dir);
    FILE *f = popen(command, "r"); /* NOLINT: a test's own command */
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

static void runs(struct runtime_host *h, const char *uid, const char *image, struct ha_rt_state *ret)
{
    struct test_spec s;
    struct ha_job j = {0};
    test_spec_init(h, &s, "base");
    if (strchr(image, ':'))
        snprintf(s.image, sizeof s.image, "%s", image);
    else
        test_spec_init(h, &s, image);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, uid, &s), 0);
    assert_true(j.result.running);
    *ret = j.result;
}

static void removed(struct runtime_host *h, const char *uid)
{
    struct ha_job j = {0};
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_REMOVE, uid, NULL), 0);
    assert_false(j.result.exists);
}

static void test_good_images(void **state)
{
    static const char *const tags[] = {"base", "layered", "plain", "zstd", "nested"};
    struct runtime_host *h = *state;
    struct ha_rt_state st, again;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        runs(h, "c1", tags[i], &st);
        assert_int_equal(strncmp(st.image_digest, "sha256:", 7), 0);
        char reference[400];
        snprintf(reference, sizeof reference, "oci:%s/layout@%s", h->dir, st.image_digest);
        runs(h, "c2", reference, &again);
        assert_string_equal(again.image_digest, st.image_digest);
        removed(h, "c1");
        removed(h, "c2");
    }
    assert_int_equal(count_layers(h),
                     4); /* base and plain have different archives; layered adds one, zstd one, nested none */
}

/* Each is refused with words that say what is wrong with it, and the words do not claim that it is something else. */
static void test_bad_images(void **state)
{
    static const struct {
        const char *tag;
        int code;
        const char *says;
    } cases[] = {
        {"bad-escape-dots", HP_EPERM, "leaves the root directory"},
        {"bad-escape-symlink", HP_EPERM, "leaves the root directory"},
        {"bad-escape-relative", HP_EPERM, "leaves the root directory"},
        {"bad-escape-hardlink", HP_EPERM, "leaves the root directory"},
        {"bad-escape-hardlink-symlink", HP_EPERM, "leaves the root directory"},
        {"bad-escape-whiteout", HP_EPERM, "leaves its directory"},
        {"bad-digest", HP_ECORRUPT, "is corrupt: its digest is"},
        {"bad-missing", HP_ENOTFOUND, "blob sha256:"},
        {"bad-size", HP_ECORRUPT, "the manifest says"},
        {"bad-truncated", HP_ECORRUPT, "layer"},
        {"bad-half", HP_ECORRUPT, "ends in the middle"},
        {"bad-noise", HP_ECORRUPT, "checksum"},
        {"bad-diffid", HP_ECORRUPT, "the image's configuration says"},
        {"bad-json", HP_ECORRUPT, "not JSON"},
        {"bad-schema", HP_EUNSUPPORTED, "schema version 2"},
        {"bad-huge", HP_ELIMIT, "limit 4194304"},
        {"bad-layers", HP_ELIMIT, "200 layers, limit 120"},
        {"bad-nolayers", HP_ECORRUPT, "no layers"},
        {"bad-blobname", HP_ECORRUPT, "64 hex digits"},
        {"bad-machine", HP_EUNSUPPORTED, "this machine is linux/"},
        {"bad-env", HP_ECORRUPT, "Env[1]"},
        {"bad-user", HP_EINVAL, "nosuchuser"},
        {"bad-command", HP_EINVAL, "set command"},
        {"bad-program", HP_EIO, "nosuchprogram"},
        {"no-such-tag", HP_ENOTFOUND, "no tag 'no-such-tag'"},
    };
    struct runtime_host *h = *state;
    struct test_spec s;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ha_job j = {0};
        test_spec_init(h, &s, cases[i].tag);
        int rc = runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s);
        assert_int_equal(rc, cases[i].code);
        if (!strstr(j.error.message, cases[i].says))
            fail_msg("%s: '%s' does not say '%s'", cases[i].tag, j.error.message, cases[i].says);
        assert_false(j.result.exists);
    }
    assert_int_not_equal(access("/tmp/harpoon-escaped-by-symlink", F_OK), 0);
    assert_int_not_equal(access("/tmp/harpoon-escaped-by-relative", F_OK), 0);
}

static void test_bad_references(void **state)
{
    static const char *const bad[] = {
        "busybox",           "",        "oci:relative:tag",     "docker://nohost", "docker:///name",
        "oci:/x@sha256:abc", "oci:/x:", "docker://-oHost/name", "oci:/a/../b:c",   "docker://h/n:with space"};
    struct runtime_host *h = *state;
    struct test_spec s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ha_job j = {0};
        test_spec_init(h, &s, "base");
        snprintf(s.image, sizeof s.image, "%s", bad[i]);
        assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), HP_EINVAL);
    }
    struct ha_job j = {0};
    snprintf(s.image, sizeof s.image, "oci:/nonexistent/layout:tag");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), HP_ENOTFOUND);
    snprintf(s.image, sizeof s.image, "docker://127.0.0.1:1/nothing:v1");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), HP_EIO);
    assert_false(j.result.exists);
}

static void *collected_n;

static void collected(void *user, int removed_images)
{
    *(int *)user = removed_images;
    collected_n = user;
}

static int collect(struct runtime_host *h)
{
    int n = -1;
    collected_n = NULL;
    ha_rt_collect_images(h->rt, 0, collected, &n);
    while (!collected_n)
        uv_run(&h->loop, UV_RUN_ONCE);
    return n;
}

static void test_unused_layers_are_collected(void **state)
{
    struct runtime_host *h = *state;
    struct ha_rt_state st;
    struct ha_job j = {0};
    struct test_spec s;
    runs(h, "c1", "base", &st);
    runs(h, "c2", "layered", &st);
    assert_int_equal(count_layers(h), 2);
    assert_int_equal(collect(h), 0);
    removed(h, "c1");
    assert_int_equal(collect(h), 1);
    assert_int_equal(count_layers(h), 2); /* the other image stands on the same layer */
    test_spec_init(h, &s, "layered");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESTART, "c2", &s), 0);
    removed(h, "c2");
    assert_int_equal(collect(h), 1);
    assert_int_equal(count_layers(h), 0);
    runs(h, "c1", "base", &st); /* and it comes back */
    removed(h, "c1");
}

/* A layer whose directory lost its mark, as after a crash in the middle of a removal, is unpacked again. */
static void test_damaged_store_is_repaired(void **state)
{
    struct runtime_host *h = *state;
    struct ha_rt_state st;
    char command[400];
    runs(h, "c1", "base", &st);
    removed(h, "c1");
    snprintf(command, sizeof command, "rm %s/state/layers/*/diff_id; rm -r %s/state/layers/*/diff/bin", h->dir, h->dir);
    assert_int_equal(system(command), 0); /* NOLINT: a test's own command */
    runs(h, "c1", "base", &st);
    removed(h, "c1");
    snprintf(command, sizeof command, "for f in %s/state/images/*/config; do echo '{' > $f; done", h->dir);
    assert_int_equal(system(command), 0); /* NOLINT: a test's own command */
    runs(h, "c1", "base", &st);
    removed(h, "c1");
}

static struct ha_job many[6];
static int many_done;

static void one_done(struct ha_job *job)
{
    many_done++;
}

static void test_registry(void **state)
{
    struct runtime_host *h = *state;
    const char *registry = getenv("HARPOON_TEST_REGISTRY");
    char image[300];
    struct ha_rt_state st, by_digest;
    if (!registry)
        skip();
    /* Six containers at once, not one of whose images is here: one pull. */
    struct test_spec s;
    test_spec_init(h, &s, "base");
    snprintf(s.image, sizeof s.image, "docker://%s/test:layered", registry);
    static const char *const uids[] = {"m0", "m1", "m2", "m3", "m4", "m5"};
    many_done = 0;
    for (int i = 0; i < 6; i++) {
        many[i] = (struct ha_job){.kind = HA_JOB_CREATE,
                                  .uid = uids[i],
                                  .container = "projects/demo/regions/r1/containers/m",
                                  .generation = 1,
                                  .spec = &s.spec,
                                  .start = true,
                                  .done_cb = one_done};
        ha_rt_runtime(h->rt)->submit(ha_rt_runtime(h->rt), &many[i]);
    }
    while (many_done < 6)
        uv_run(&h->loop, UV_RUN_ONCE);
    for (int i = 0; i < 6; i++) {
        if (many[i].status)
            fail_msg("%s", many[i].error.message);
        assert_true(many[i].result.running);
    }
    assert_int_equal(count_layers(h), 2);
    for (int i = 0; i < 6; i++)
        removed(h, uids[i]);
    snprintf(image, sizeof image, "docker://%s/test:layered", registry);
    runs(h, "c1", image, &st);
    snprintf(image, sizeof image, "docker://%s/test@%s", registry, st.image_digest);
    runs(h, "c2", image, &by_digest);
    assert_string_equal(by_digest.image_digest, st.image_digest);
    struct ha_job j = {0};
    snprintf(s.image, sizeof s.image, "docker://%s/test:nosuchtag", registry);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c3", &s), HP_EIO);
    assert_non_null(strstr(j.error.message, "manifest unknown"));
    removed(h, "c1");
    removed(h, "c2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good_images, open_host, close_host),
        cmocka_unit_test_setup_teardown(test_bad_images, open_host, close_host),
        cmocka_unit_test_setup_teardown(test_bad_references, open_host, close_host),
        cmocka_unit_test_setup_teardown(test_unused_layers_are_collected, open_host, close_host),
        cmocka_unit_test_setup_teardown(test_damaged_store_is_repaired, open_host, close_host),
        cmocka_unit_test_setup_teardown(test_registry, open_host, close_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
