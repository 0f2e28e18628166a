/* mount_path.h — where in a container a volume may be: one rule, for the gateway that accepts it and the agent that mounts it. */
#ifndef HP_WIRE_MOUNT_PATH_H
#define HP_WIRE_MOUNT_PATH_H

#include "base/error.h"

enum { HP_MOUNT_PATH_MAX = 1024 };

/* HP_EINVAL unless the path is absolute and below "/", has no empty, "." or ".." segment, and is not in what the runtime mounts itself: /proc, /sys, /dev. A "/" may end it. */
int hp_mount_path_check(const char *path, struct hp_error *e) HP_MUST_CHECK;

#endif
