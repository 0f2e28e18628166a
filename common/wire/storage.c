#include "wire/storage.h"

#include <string.h>

#include "wire/names.h"

int hp_volume_storage_check(const Harpoon__V1__VolumeMount *v, const char **ret_part, struct hp_error *e)
{
    *ret_part = "storage_class";
    if (*v->storage_class && !hp_segment_valid(v->storage_class))
        return hp_fail(e, HP_EINVAL, "\"%.64s\" is not of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?", v->storage_class);
    *ret_part = "size_bytes";
    if (!*v->storage_class)
        return v->size_bytes ? hp_fail(e, HP_EINVAL, "%lld, but there is no storage_class", (long long)v->size_bytes)
                             : 0;
    if (v->size_bytes < HP_VOLUME_BYTES_MIN || v->size_bytes > HP_VOLUME_BYTES_MAX)
        return hp_fail(e, HP_EINVAL, "%lld is not within %lld and %lld", (long long)v->size_bytes, HP_VOLUME_BYTES_MIN,
                       HP_VOLUME_BYTES_MAX);
    return 0;
}

int hp_host_storage_check(const Harpoon__V1__HostFacts *facts, struct hp_error *e)
{
    size_t n = facts ? facts->n_storage_classes : 0;
    if (n > HP_STORAGE_CLASSES_MAX)
        return hp_fail(e, HP_EINVAL, "%zu storage classes (at most %d)", n, HP_STORAGE_CLASSES_MAX);
    for (size_t i = 0; i < n; i++) {
        const Harpoon__V1__StorageClass *x = facts->storage_classes[i];
        if (!hp_segment_valid(x->name))
            return hp_fail(e, HP_EINVAL,
                           "storage class %zu has a name that is not of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?", i);
        if (x->size_bytes < 0 || x->size_bytes > HP_STORAGE_BYTES_MAX)
            return hp_fail(e, HP_EINVAL, "storage class \"%s\" has %lld bytes (0 to %lld)", x->name,
                           (long long)x->size_bytes, HP_STORAGE_BYTES_MAX);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(facts->storage_classes[k]->name, x->name))
                return hp_fail(e, HP_EINVAL, "storage class \"%s\" is there twice", x->name);
    }
    return 0;
}
