/* storage_class.h — a directory that volumes of a storage class are kept in. It is there before the agent starts: a disk is mounted on it. */
#ifndef HA_SHELL_STORAGE_CLASS_H
#define HA_SHELL_STORAGE_CLASS_H

#include <stdint.h>

struct ha_storage_class {
    char name[64];
    char dir[204];      /* absolute */
    int64_t size_bytes; /* 0: as large as its file system */
};

#endif
