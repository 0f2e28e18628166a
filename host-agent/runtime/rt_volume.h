/* rt_volume.h — named volumes of the host: BASE/volumes/PROJECT/NAME, where BASE is the state directory, or that of the volume's storage class. */
#ifndef HA_RT_VOLUME_H
#define HA_RT_VOLUME_H

#include "rt_store.h"

/* A volume of a container; both are known by what its record or spec says. */
struct ha_volume {
    const char *name;
    const char *class; /* "" none */
};

/* HP_EINVAL when it cannot be a volume's name; also of a class, which may be "". */
int ha_volume_check(const struct ha_volume *v, struct hp_error *e) HP_MUST_CHECK;
/* Makes and finds it, opened beneath and without links; `uid` and `gid` are given a new one. HP_ENOTFOUND: the host does not have the class. */
int ha_volume_ensure(const struct ha_store *s, const char *container, const struct ha_volume *v, uint32_t uid,
                     uint32_t gid, char *buf, size_t size, struct hp_error *e) HP_MUST_CHECK;
/* A volume of a class that the host no longer has is left where it is, with a warning. */
int ha_volume_remove(const struct ha_store *s, const char *container, const struct ha_volume *v,
                     struct hp_error *e) HP_MUST_CHECK;
/* Whether there is room for those volumes of the spec that are in storage classes and not there yet. HP_ENOTFOUND: a class is not; HP_ELIMIT: it has too little room. */
int ha_volume_room(const struct ha_store *s, const char *container, const Harpoon__V1__ContainerSpec *spec,
                   struct hp_error *e) HP_MUST_CHECK;

/* What the class's file system can hold, but at most what was said of it; -1: its directory cannot be read. */
int64_t ha_class_bytes(const struct ha_storage_class *c);

#endif
