/* storage.h — storage classes of volumes: one rule, for the gateway that accepts them, the scheduler that claims, the router that lets hosts tell, and the agent that makes them. */
#ifndef HP_WIRE_STORAGE_H
#define HP_WIRE_STORAGE_H

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"
#include "harpoon/v1/host.pb-c.h"

enum { HP_STORAGE_CLASSES_MAX = 8 };     /* of a host */
#define HP_STORAGE_BYTES_MAX (1LL << 53) /* of a class on a host */
#define HP_VOLUME_BYTES_MIN (1LL << 20)  /* of a volume in a class */
#define HP_VOLUME_BYTES_MAX (1LL << 52)

/* HP_EINVAL, and *ret_part names the member, unless both class and size are set, or neither. */
int hp_volume_storage_check(const Harpoon__V1__VolumeMount *v, const char **ret_part, struct hp_error *e) HP_MUST_CHECK;
/* HP_EINVAL unless a host may have these. `facts` may be NULL. */
int hp_host_storage_check(const Harpoon__V1__HostFacts *facts, struct hp_error *e) HP_MUST_CHECK;

#endif
