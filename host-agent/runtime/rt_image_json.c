/* rt_image_json.c — reads image references, OCI and Docker indexes, manifests and configurations. Everything here comes from strangers: each field is checked for type, form and limit. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "rt_fs.h"
#include "rt_image.h"
#include "wire/digest.h"
#include "wire/json.h"

void ha_digest_of(const void *data, size_t size, char ret[HA_DIGEST_SIZE])
{
    uint8_t sum[HP_SHA256_LEN];
    hp_sha256(sum, data, size);
    memcpy(ret, "sha256:", 7);
    for (size_t i = 0; i < sizeof sum; i++) {
        ret[7 + 2 * i] = "0123456789abcdef"[sum[i] >> 4];
        ret[8 + 2 * i] = "0123456789abcdef"[sum[i] & 15];
    }
    ret[HA_DIGEST_SIZE - 1] = '\0';
}

void ha_image_free(struct ha_image *image)
{
    if (!image)
        return;
    json_decref(image->process);
    free(image);
}

void ha_image_freep(struct ha_image **image)
{
    ha_image_free(*image);
}

static json_t *load(const char *text, size_t size, const char *what, struct hp_error *e)
{
    json_t *root = NULL;
    struct hp_error why = {0};
    int rc = hp_json_load(text, size, JSON_REJECT_DUPLICATES, &root, &why);
    if (rc == HP_ENOMEM)
        hp_fail(e, rc, "%s: %s", what, why.message);
    else if (rc)
        hp_fail(e, HP_ECORRUPT, "%s is not JSON: %s", what, why.message);
    else if (!json_is_object(root)) {
        json_decref(root);
        root = NULL;
        hp_fail(e, HP_ECORRUPT, "%s is not a JSON object", what);
    }
    return root;
}

static const char *string_in(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static int blob_in(const json_t *object, const char *what, struct ha_blob *ret, struct hp_error *e)
{
    const char *digest = string_in(object, "digest");
    const json_t *size = json_object_get(object, "size");
    if (!hp_image_digest_valid(digest))
        return hp_fail(e, HP_ECORRUPT, "%s has the digest '%.80s', which is not sha256: and 64 hex digits", what,
                       digest);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return hp_fail(e, HP_ECORRUPT, "%s %s has no size", what, digest);
    strcpy(ret->digest, digest);
    ret->size = json_integer_value(size);
    return 0;
}

bool ha_image_is_index(const char *text, size_t size)
{
    struct hp_error e = {0};
    json_t *root = load(text, size, "manifest", &e);
    bool index = root && json_is_array(json_object_get(root, "manifests"));
    json_decref(root);
    return index;
}

/* GOARCH of this machine. */
static const char *architecture(void)
{
    static const char *const names[][2] = {{"x86_64", "amd64"},    {"aarch64", "arm64"}, {"armv7l", "arm"},
                                           {"ppc64le", "ppc64le"}, {"s390x", "s390x"},   {"riscv64", "riscv64"}};
    static struct utsname uts;
    if (uname(&uts) != 0)
        return "amd64";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(uts.machine, names[i][0]) == 0)
            return names[i][1];
    return "amd64";
}

static bool fits_machine(const json_t *item)
{
    const json_t *platform = json_object_get(item, "platform");
    if (!platform)
        return true;
    return strcmp(string_in(platform, "os"), "linux") == 0 &&
           strcmp(string_in(platform, "architecture"), architecture()) == 0;
}

int ha_image_index_choose(const char *text, size_t size, const char *tag, struct ha_blob *ret, struct hp_error *e)
{
    json_t *root = load(text, size, "image index", e);
    if (!root)
        return HP_ECORRUPT;
    const json_t *list = json_object_get(root, "manifests"), *found = NULL;
    size_t candidates = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const json_t *notes = json_object_get(item, "annotations");
        if (tag[0] && strcmp(string_in(notes, "org.opencontainers.image.ref.name"), tag) != 0)
            continue;
        if (strcmp(string_in(notes, "vnd.docker.reference.type"), "attestation-manifest") == 0 || !fits_machine(item))
            continue;
        candidates++;
        if (!found)
            found = item;
    }
    int rc;
    if (!found && tag[0])
        rc = hp_fail(e, HP_ENOTFOUND, "image index has no tag '%s' for linux/%s", tag, architecture());
    else if (!found)
        rc = hp_fail(e, HP_ENOTFOUND, "image index has nothing for linux/%s", architecture());
    else if (candidates > 1 && !tag[0] && !json_object_get(found, "platform"))
        rc = hp_fail(e, HP_EINVAL, "image index has %zu images: name one by its tag or digest", candidates);
    else
        rc = blob_in(found, "image index", ret, e);
    json_decref(root);
    return rc;
}

static int layer_in(const json_t *item, struct ha_blob *ret, struct hp_error *e)
{
    const char *type = string_in(item, "mediaType");
    if (strstr(type, "foreign") || strstr(type, "nondistributable"))
        return hp_fail(e, HP_EUNSUPPORTED, "layer of type '%.100s': its content is not in the registry", type);
    if (strstr(type, "encrypted"))
        return hp_fail(e, HP_EUNSUPPORTED, "layer of type '%.100s' is encrypted", type);
    return blob_in(item, "layer", ret, e);
}

int ha_image_manifest_parse(const char *text, size_t size, struct ha_image *image, struct hp_error *e)
{
    json_t *root = load(text, size, "image manifest", e);
    if (!root)
        return HP_ECORRUPT;
    const json_t *version = json_object_get(root, "schemaVersion"), *layers = json_object_get(root, "layers");
    size_t count = json_array_size(layers);
    int rc = 0;
    if (json_integer_value(version) != 2 || !json_is_array(layers))
        rc = hp_fail(e, HP_EUNSUPPORTED, "image manifest is not of schema version 2");
    else if (count == 0)
        rc = hp_fail(e, HP_ECORRUPT, "image manifest has no layers");
    else if (count > HA_LAYERS_MAX)
        rc = hp_fail(e, HP_ELIMIT, "image manifest has %zu layers, limit %d", count, HA_LAYERS_MAX);
    else
        rc = blob_in(json_object_get(root, "config"), "image manifest's config", &image->config, e);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = layer_in(json_array_get(layers, i), &image->layers[i], e);
    if (rc == 0)
        image->layer_count = count;
    json_decref(root);
    return rc;
}

static int strings_checked(const json_t *process, const char *key, struct hp_error *e)
{
    const json_t *list = json_object_get(process, key);
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list) || json_array_size(list) > 1024)
        return hp_fail(e, HP_ECORRUPT, "image configuration: %s is not a list of at most 1024 strings", key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item) || json_string_length(item) > 65536 ||
            strlen(json_string_value(item)) != json_string_length(item))
            return hp_fail(e, HP_ECORRUPT, "image configuration: %s[%zu] is not a string of at most 65536 bytes", key,
                           i);
    }
    return 0;
}

static int text_checked(const json_t *process, const char *key, struct hp_error *e)
{
    const json_t *item = json_object_get(process, key);
    if (!item || json_is_null(item))
        return 0;
    if (!json_is_string(item) || json_string_length(item) > 4095 ||
        strlen(json_string_value(item)) != json_string_length(item))
        return hp_fail(e, HP_ECORRUPT, "image configuration: %s is not a string of at most 4095 bytes", key);
    return 0;
}

static int process_checked(const json_t *process, struct hp_error *e)
{
    static const char *const lists[] = {"Env", "Entrypoint", "Cmd"}, *const texts[] = {"User", "WorkingDir",
                                                                                       "StopSignal"};
    for (size_t i = 0; i < 3; i++) {
        int rc = strings_checked(process, lists[i], e);
        if (rc == 0)
            rc = text_checked(process, texts[i], e);
        if (rc)
            return rc;
    }
    return 0;
}

static int diff_ids_in(const json_t *root, struct ha_image *image, struct hp_error *e)
{
    const json_t *ids = json_object_get(json_object_get(root, "rootfs"), "diff_ids");
    if (json_array_size(ids) != image->layer_count)
        return hp_fail(e, HP_ECORRUPT, "image configuration has %zu diff_ids for %zu layers", json_array_size(ids),
                       image->layer_count);
    for (size_t i = 0; i < image->layer_count; i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        if (!id || !hp_image_digest_valid(id))
            return hp_fail(e, HP_ECORRUPT, "image configuration: diff_ids[%zu] is not sha256: and 64 hex digits", i);
        strcpy(image->diff_ids[i], id);
    }
    return 0;
}

int ha_image_config_parse(const char *text, size_t size, struct ha_image *image, struct hp_error *e)
{
    json_t *root = load(text, size, "image configuration", e);
    if (!root)
        return HP_ECORRUPT;
    const char *os = string_in(root, "os"), *arch = string_in(root, "architecture");
    json_t *process = json_object_get(root, "config");
    int rc = 0;
    if (os[0] && strcmp(os, "linux") != 0)
        rc =
            hp_fail(e, HP_EUNSUPPORTED, "image is for %.32s/%.32s, this machine is linux/%s", os, arch, architecture());
    else if (arch[0] && strcmp(arch, architecture()) != 0)
        rc = hp_fail(e, HP_EUNSUPPORTED, "image is for linux/%.32s, this machine is linux/%s", arch, architecture());
    else
        rc = diff_ids_in(root, image, e);
    if (rc == 0 && process)
        rc = process_checked(process, e);
    if (rc == 0) {
        json_decref(image->process);
        image->process = json_is_object(process) ? json_incref(process) : json_object();
        if (!image->process)
            rc = hp_fail(e, HP_ENOMEM, "image configuration");
    }
    json_decref(root);
    return rc;
}
