/* References to images: the one grammar of gateway and agent. What is good here, skopeo 1.9 takes (`skopeo inspect --raw REFERENCE` does not say "invalid reference format"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "wire/image_ref.h"

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct hp_image_ref parsed(const char *text)
{
    struct hp_image_ref r;
    struct hp_error e = {0};
    if (hp_image_ref_parse(text, &r, &e))
        fail_msg("%s: %s", text, e.message);
    assert_string_equal(r.text, text);
    return r;
}

static void refused(const char *text)
{
    struct hp_image_ref r = {.tag = "untouched"};
    struct hp_error e = {0};
    if (hp_image_ref_parse(text, &r, &e) != HP_EINVAL)
        fail_msg("%s was taken", text);
    assert_true(e.message[0]);
    assert_string_equal(r.tag, "untouched");
}

static void parts(void **state)
{
    struct hp_image_ref r = parsed("oci:/srv/images:v1");
    assert_int_equal(r.kind, HP_IMAGE_OCI);
    assert_string_equal(r.location, "/srv/images");
    assert_string_equal(r.tag, "v1");
    r = parsed("oci:/srv/images@" DIGEST);
    assert_string_equal(r.digest, DIGEST);
    assert_string_equal(r.tag, "");
    r = parsed("oci:/a:b/c:d");
    assert_string_equal(r.location, "/a:b/c");
    r = parsed("docker://localhost:5000/a/b:1.2");
    assert_int_equal(r.kind, HP_IMAGE_DOCKER);
    assert_string_equal(r.registry, "localhost:5000");
    assert_string_equal(r.location, "localhost:5000/a/b");
    assert_string_equal(r.tag, "1.2");
    r = parsed("docker://h/a:t@" DIGEST); /* the digest decides */
    assert_string_equal(r.location, "h/a");
    assert_string_equal(r.tag, "");
    assert_string_equal(r.digest, DIGEST);
}

static void good(void **state)
{
    static const char *const texts[] = {
        "oci:/x:_",
        "oci:/x/...:1",
        "docker://127.0.0.1:5000/team/app:v1_2-x",
        ("docker://Reg-1.Example/app@" DIGEST),
        "docker://h:1/a:t",
        "docker://h:65535/a:t",
        "docker://h/0/a.b/c_d/e__f/g-h/i---j:A.b-c_D",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        parsed(texts[i]);
}

/* A host that begins with "-" was once accepted by the gateway and failed on every agent. */
static void bad(void **state)
{
    static const char *const texts[] = {
        "",
        "a",
        "busybox:1",
        "ftp://x/y:1",
        "docker:h/a:t",
        "dir:/x:1",
        "OCI:/x:1", /* the kind */
        "oci:x:y",
        "oci:/x",
        "oci:/:1",
        "oci://:1",
        "oci:/a/../b:1",
        "oci:/..:1",
        "oci:/a/.:1",
        "oci:/./a:1",
        "oci:/a b:1",
        "docker://",
        "docker://h",
        "docker://h/",
        "docker:///a:t",
        "docker://app:1",
        "docker://h/a", /* parts are missing */
        "docker://-h/a:t",
        "docker://h-/a:t",
        "docker://a.-h/a:t",
        "docker://.h/a:t",
        "docker://h./a:t",
        "docker://a..b/a:t",
        "docker://a_b.c/a:t",
        "docker://--tls-verify=false/a:t",
        "docker://u@h/a:t",
        "docker://h:/a:t",
        "docker://h:0/a:t",
        "docker://h:65536/a:t",
        "docker://h:1x/a:t",
        "docker://h:-1/a:t",
        "docker://h:1:2/a:t",
        "docker://[::1]:5000/a:b",
        "docker://h/-a:t",
        "docker://h/a-:t",
        "docker://h/a/-b:t",
        "docker://h/.a:t",
        "docker://h/a_:t",
        "docker://h/a..b:t",
        "docker://h/a___b:t",
        "docker://h/a_.b:t",
        "docker://h/A:t",
        "docker://h//a:t",
        "docker://h/a//b:t",
        "docker://h/a/:t",
        "docker://h/a b:t",
        "docker://h/a\n:t",
        "docker://h/a\x7f:t",
        "docker://h/\xc3\xa4:t",
        "docker://h/a%2f:t",
        "oci:/x:",
        "oci:/x:.t",
        "oci:/x:-t",
        "docker://h/a:-t",
        "docker://h/a:t,u",
        "docker://h/a:\xc3\xa4",
        "oci:/x@sha256:12",
        "oci:/x@sha512:12",
        "oci:/x@",
        "docker://h/a@" DIGEST "0",
        "docker://h/a:@" DIGEST,
        "docker://h/a:-t@" DIGEST,
        "docker://h/a@" DIGEST ":t",
        "docker://h/a@" DIGEST "@" DIGEST,
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        refused(texts[i]);
}

static void limits(void **state)
{
    char text[2 * HP_IMAGE_REF_MAX], x[2 * HP_IMAGE_REF_MAX];
    memset(x, 'x', sizeof x);
    snprintf(text, sizeof text, "oci:/%.*s:t", HP_IMAGE_REF_MAX - 7, x);
    assert_int_equal(strlen(parsed(text).text), HP_IMAGE_REF_MAX);
    snprintf(text, sizeof text, "oci:/%.*s:t", HP_IMAGE_REF_MAX - 6, x);
    refused(text);
    snprintf(text, sizeof text, "oci:/x:%.*s", HP_IMAGE_TAG_MAX, x);
    assert_int_equal(strlen(parsed(text).tag), HP_IMAGE_TAG_MAX);
    snprintf(text, sizeof text, "oci:/x:%.*s", HP_IMAGE_TAG_MAX + 1, x);
    refused(text);
    snprintf(text, sizeof text, "docker://%.*s/y:t", HP_IMAGE_NAME_MAX - 2, x);
    assert_int_equal(strlen(parsed(text).location), HP_IMAGE_NAME_MAX);
    snprintf(text, sizeof text, "docker://%.*s/y:t", HP_IMAGE_NAME_MAX - 1, x);
    refused(text);
}

static void digests(void **state)
{
    assert_true(hp_image_digest_valid(DIGEST));
    assert_false(hp_image_digest_valid("sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"));
    assert_false(hp_image_digest_valid("sha512:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
    assert_false(hp_image_digest_valid("sha256:../../../../../../../../../../../../../../../../../etc/passwd"));
    assert_false(hp_image_digest_valid(DIGEST "0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts),  cmocka_unit_test(good),    cmocka_unit_test(bad),
        cmocka_unit_test(limits), cmocka_unit_test(digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
