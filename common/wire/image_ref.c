#include "wire/image_ref.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

bool hp_image_digest_valid(const char *digest)
{
    if (strncmp(digest, "sha256:", 7) != 0 || strlen(digest) != HP_IMAGE_DIGEST_SIZE - 1)
        return false;
    return strspn(digest + 7, DIGITS "abcdef") == 64;
}

static bool tag_valid(const char *tag)
{
    size_t len = strlen(tag);
    return len > 0 && len <= HP_IMAGE_TAG_MAX && tag[0] != '.' && tag[0] != '-' &&
           strspn(tag, LOWER UPPER DIGITS "_.-") == len;
}

/* Words of letters, digits and inner "-", joined by "."; then perhaps ":" and a port. */
static bool registry_valid(const char *text)
{
    size_t len = strcspn(text, ":");
    for (size_t at = 0; at <= len; at++) {
        size_t word = strspn(text + at, LOWER UPPER DIGITS "-");
        if (word == 0 || text[at] == '-' || text[at + word - 1] == '-')
            return false;
        at += word;
        if (at < len && text[at] != '.')
            return false;
    }
    if (!text[len])
        return true;
    const char *port = text + len + 1;
    size_t digits = strspn(port, DIGITS);
    return digits >= 1 && digits <= 5 && !port[digits] && atoi(port) >= 1 && atoi(port) <= 65535;
}

/* Parts joined by "/"; each of lower-case letters and digits, with one ".", one or two "_", or any number of "-" between them. */
static bool name_valid(const char *text)
{
    for (;;) {
        size_t word = strspn(text, LOWER DIGITS);
        if (word == 0)
            return false;
        text += word;
        if (*text == '\0')
            return true;
        size_t separators = strspn(text, *text == '-' ? "-" : *text == '_' ? "_" : *text == '.' ? "." : "/");
        if (separators == 0 || (*text != '-' && separators > (*text == '_' ? 2 : 1)))
            return false;
        text += separators;
    }
}

/* Absolute, not the root, and without "." and ".." in it, so that it means what it says. */
static bool directory_valid(const char *path)
{
    bool root = true;
    if (*path != '/')
        return false;
    for (const char *p = path; *p;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        if (len > 0)
            root = false;
        if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += len;
    }
    return !root;
}

/* Splits "…:tag", "…@digest" or "…:tag@digest" off the end of ref->location. */
static int split_version(struct hp_image_ref *ref, struct hp_error *e)
{
    char *at = strrchr(ref->location, '@');
    if (at) {
        if (!hp_image_digest_valid(at + 1))
            return hp_fail(e, HP_EINVAL, "image '%.100s': '%.80s' is not sha256: and 64 hex digits", ref->text, at + 1);
        strcpy(ref->digest, at + 1);
        *at = '\0';
    }
    char *slash = strrchr(ref->location, '/');
    char *colon = slash ? strrchr(slash, ':') : NULL;
    if (colon) {
        if (!tag_valid(colon + 1))
            return hp_fail(e, HP_EINVAL, "image '%.100s': the tag '%.130s' is not [A-Za-z0-9_][A-Za-z0-9._-]{0,%d}",
                           ref->text, colon + 1, HP_IMAGE_TAG_MAX - 1);
        if (!at)
            strcpy(ref->tag, colon + 1);
        *colon = '\0';
    }
    if (!at && !colon)
        return hp_fail(e, HP_EINVAL, "image '%.100s' has neither a tag nor a digest", ref->text);
    return 0;
}

static int parse_docker(struct hp_image_ref *ref, struct hp_error *e)
{
    size_t len = strcspn(ref->location, "/");
    if (ref->location[len] == '\0' || strlen(ref->location) > HP_IMAGE_NAME_MAX)
        return hp_fail(e, HP_EINVAL, "image '%.100s' must be docker://registry/name, both together of %d bytes at most",
                       ref->text, HP_IMAGE_NAME_MAX);
    memcpy(ref->registry, ref->location, len);
    if (!registry_valid(ref->registry))
        return hp_fail(
            e, HP_EINVAL,
            "image '%.100s': the registry '%.100s' is not a host name or an IPv4 address, with or without :port",
            ref->text, ref->registry);
    if (!name_valid(ref->location + len + 1))
        return hp_fail(e, HP_EINVAL,
                       "image '%.100s': the name '%.100s' is not of lower-case letters and digits, with single '.', "
                       "'_', '-' or '/' "
                       "between them",
                       ref->text, ref->location + len + 1);
    return 0;
}

int hp_image_ref_parse(const char *text, struct hp_image_ref *ret, struct hp_error *e)
{
    struct hp_image_ref ref = {0};
    size_t len = strlen(text);
    bool oci = strncmp(text, "oci:", 4) == 0, docker = strncmp(text, "docker://", 9) == 0;
    if (len > HP_IMAGE_REF_MAX)
        return hp_fail(e, HP_EINVAL, "image reference has %zu bytes; the limit is %d", len, HP_IMAGE_REF_MAX);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7F)
            return hp_fail(e, HP_EINVAL, "image reference has a space or a control character at byte %td", p - text);
    if (!oci && !docker)
        return hp_fail(e, HP_EINVAL, "image '%.100s' must begin with oci:/ or docker://", text);
    strcpy(ref.text, text);
    strcpy(ref.location, text + (oci ? 4 : 9));
    ref.kind = oci ? HP_IMAGE_OCI : HP_IMAGE_DOCKER;
    int rc = split_version(&ref, e);
    if (rc == 0 && docker)
        rc = parse_docker(&ref, e);
    else if (rc == 0 && !directory_valid(ref.location))
        rc = hp_fail(e, HP_EINVAL, "image '%.100s': '%.100s' is not an absolute path of a directory without . and ..",
                     text, ref.location);
    if (rc)
        return rc;
    assert(!ref.tag[0] != !ref.digest[0]);
    *ret = ref;
    return 0;
}
