/* image_ref.h — references to images, `oci:/directory:tag` and `docker://registry/name:tag`: one grammar, so that what the gateway accepts is what the agent can fetch. */
#ifndef HP_WIRE_IMAGE_REF_H
#define HP_WIRE_IMAGE_REF_H

#include <stdbool.h>

#include "base/error.h"

enum {
    HP_IMAGE_REF_MAX = 512,    /* bytes of a whole reference */
    HP_IMAGE_TAG_MAX = 128,    /* [A-Za-z0-9_][A-Za-z0-9._-]* */
    HP_IMAGE_NAME_MAX = 245,   /* registry and name; 255 with the "docker.io/" that skopeo puts before a name alone */
    HP_IMAGE_DIGEST_SIZE = 72, /* "sha256:" + 64 hex digits + NUL */
};

enum hp_image_kind { HP_IMAGE_OCI, HP_IMAGE_DOCKER };

/* A parsed reference. It has a tag or a digest, never both: of `…:tag@digest` the digest decides. */
struct hp_image_ref {
    enum hp_image_kind kind;
    char text[HP_IMAGE_REF_MAX + 1];      /* as given */
    char location[HP_IMAGE_REF_MAX + 1];  /* OCI: absolute directory; DOCKER: registry[:port]/name */
    char registry[HP_IMAGE_NAME_MAX + 1]; /* DOCKER: registry[:port] */
    char tag[HP_IMAGE_TAG_MAX + 1];       /* "" when there is a digest */
    char digest[HP_IMAGE_DIGEST_SIZE];    /* "" when there is a tag */
};

/* HP_EINVAL with the reason; *ret is untouched then. The grammar of registry, name and tag is that of the OCI distribution specification and of the reference package that
 * skopeo 1.9 uses (no IPv6 literals): neither part ever begins with "-" or holds a character that means something to a program it is handed to. */
int hp_image_ref_parse(const char *text, struct hp_image_ref *ret, struct hp_error *e) HP_MUST_CHECK;

/* True for "sha256:" and 64 lower-case hex digits. */
bool hp_image_digest_valid(const char *digest);

#endif
