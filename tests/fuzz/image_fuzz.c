/* What registries and image directories say in JSON, image references from requests, and the accounts files of images. The first byte chooses the parser.
 *
 * Asserted: digests that come out are digests, sizes are not below 0, counts are within their limits, manifest and configuration agree on the layers; a reference that is taken names one of the two kinds and has
 * a tag or a digest, and whatever the gateway takes the agent takes; what the image's configuration says becomes a runtime configuration that JSON can print, or is refused with a reason. */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/validate.h"
#include "fuzz/fuzz.h"
#include "harpoon/v1/container.pb-c.h"
#include "runtime/rt_image.h"
#include "runtime/rt_spec.h"
#include "wire/signal_name.h"

enum { INDEX, MANIFEST, CONFIG, REFERENCE, ACCOUNTS, PARSERS };

static void choose(const char *text, size_t len)
{
    static const char *const tags[] = {"", "latest", "v1"};
    for (int i = 0; i < 3; i++) {
        struct ha_blob blob;
        struct hp_error e = {0};
        int rc = ha_image_index_choose(text, len, tags[i], &blob, &e);
        assert(rc ? e.message[0] != '\0' : hp_image_digest_valid(blob.digest) && blob.size >= 0);
    }
    (void)ha_image_is_index(text, len);
}

static void build(const struct ha_image *image)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources resources = HARPOON__V1__RESOURCES__INIT;
    static const struct ha_cgroups cgroups = {0};
    static const struct ha_user user = {.home = "/"};
    struct hp_error e = {0};
    json_t *out = NULL;
    spec.resources = &resources;
    spec.image = (char *)(uintptr_t) "oci:/i:t";
    resources.cpu_millis = 100;
    resources.memory_bytes = 64 << 20;
    const struct ha_spec_input in = {.uid = "u1",
                                     .container = "projects/p/regions/r1/containers/c1",
                                     .spec = &spec,
                                     .image = image,
                                     .user = &user,
                                     .cgroups = &cgroups,
                                     .etc_dir = "/etc",
                                     .nofile_max = 1024};
    int rc = ha_spec_build(&in, &out, &e);
    assert(rc ? e.message[0] != '\0' : out != NULL);
    if (rc)
        return;
    char *text = json_dumps(out, 0);
    assert(text);
    free(text);
    json_decref(out);
}

/* Manifest and configuration are parsed into the same image: the second part follows a NUL. */
static void metadata(const char *text, size_t len, bool config_only)
{
    struct ha_image *image = calloc(1, sizeof *image);
    struct hp_error e = {0};
    size_t first = strnlen(text, len);
    if (!image)
        abort();
    if (config_only) {
        image->layer_count = first < len ? (unsigned char)text[first + 1] % 4 : 1;
        first = first < len ? first : len;
    } else if (ha_image_manifest_parse(text, first, image, &e)) {
        assert(e.message[0]);
        ha_image_free(image);
        return;
    } else {
        assert(image->layer_count <= HA_LAYERS_MAX && hp_image_digest_valid(image->config.digest) &&
               image->config.size >= 0);
        for (size_t i = 0; i < image->layer_count; i++)
            assert(hp_image_digest_valid(image->layers[i].digest) && image->layers[i].size >= 0);
        text += first < len ? first + 1 : len;
        first = first < len ? len - first - 1 : 0;
    }
    if (ha_image_config_parse(text, first, image, &e)) {
        assert(e.message[0]);
    } else {
        for (size_t i = 0; i < image->layer_count; i++)
            assert(hp_image_digest_valid(image->diff_ids[i]));
        assert(json_is_object(image->process));
        build(image);
    }
    ha_image_free(image);
}

/* Gateway and agent take the same references, and no part of one could be an option of a program or lead elsewhere. */
static void reference(const char *text)
{
    struct hp_image_ref ref;
    struct hp_error e = {0};
    struct gw_check check = {0};
    int number;
    (void)!hp_signal_number(text, &number, &e);
    gw_validate_image(&check, "image", text);
    if (check.status)
        google__rpc__status__free_unpacked(check.status, NULL);
    if (hp_image_ref_parse(text, &ref, &e)) {
        assert(e.message[0] && check.count > 0);
        return;
    }
    assert(check.count == 0);
    assert(strcmp(ref.text, text) == 0);
    assert(!*ref.tag != !*ref.digest);
    assert(!*ref.digest || hp_image_digest_valid(ref.digest));
    assert(ref.tag[0] != '-');
    if (ref.kind == HP_IMAGE_OCI) {
        assert(ref.location[0] == '/' && !strstr(ref.location, "/../"));
    } else {
        size_t len = strlen(ref.registry);
        assert(len > 0 && strncmp(ref.location, ref.registry, len) == 0 && ref.location[len] == '/');
        assert(ref.location[0] != '-' && !strstr(ref.location, "/-") && !strpbrk(ref.location, "@[]\\%?#=, "));
    }
}

/* The user's text, NUL, /etc/passwd, NUL, /etc/group. */
static void accounts(const char *text, size_t len)
{
    static char root[64];
    static int root_fd = -1, passwd_fd = -1, group_fd = -1;
    struct ha_user user;
    struct hp_error e = {0};
    if (root_fd < 0) {
        snprintf(root, sizeof root, "/dev/shm/harpoon-fuzz-XXXXXX");
        if (!mkdtemp(root))
            abort();
        root_fd = open(root, O_RDONLY | O_DIRECTORY);
        if (mkdirat(root_fd, "etc", 0755))
            abort();
        passwd_fd = openat(root_fd, "etc/passwd", O_RDWR | O_CREAT, 0644);
        group_fd = openat(root_fd, "etc/group", O_RDWR | O_CREAT, 0644);
    }
    size_t name = strnlen(text, len), rest = name < len ? len - name - 1 : 0;
    const char *passwd = text + len - rest;
    size_t passwd_len = strnlen(passwd, rest), group_len = passwd_len < rest ? rest - passwd_len - 1 : 0;
    if (ftruncate(passwd_fd, 0) || ftruncate(group_fd, 0) ||
        pwrite(passwd_fd, passwd, passwd_len, 0) != (ssize_t)passwd_len ||
        pwrite(group_fd, text + len - group_len, group_len, 0) != (ssize_t)group_len)
        abort();
    int rc = ha_user_resolve(root_fd, text, &user, &e);
    assert(rc ? e.message[0] != '\0' : user.group_count <= HA_GROUPS_MAX && user.home[0] == '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t len = size - 1;
    char *text = malloc(size);
    if (!text)
        abort();
    memcpy(text, data + 1, len);
    text[len] = '\0';
    switch (data[0] % PARSERS) {
    case INDEX:
        choose(text, len);
        break;
    case REFERENCE:
        reference(text);
        break;
    case ACCOUNTS:
        accounts(text, len);
        break;
    default:
        metadata(text, len, data[0] % PARSERS == CONFIG);
    }
    free(text);
    return 0;
}
