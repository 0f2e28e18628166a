/* rt_tar.h — unpacks one image layer (tar: ustar, GNU and pax extensions; OCI image-spec layer.md) into a directory as an overlayfs layer. The input is hostile. */
#ifndef HA_RT_TAR_H
#define HA_RT_TAR_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct ha_tar_limits {
    int64_t bytes_max;   /* sum of file contents */
    int64_t entries_max; /* files, directories, links, whiteouts */
};

/* Where the bytes come from: reads up to `size` bytes; 0 at the end, -errno on failure. */
typedef int64_t (*ha_tar_read_fn)(void *source, void *buf, size_t size);

struct ha_tar_totals {
    int64_t bytes;
    int64_t entries;
    int64_t skipped; /* device nodes, which containers get from the runtime and never from an image */
};

/* Unpacks everything below `dirfd`, which is empty. Nothing is ever created or changed outside it: names with "..", links that lead out and hard links to
 * outside are refused with HP_EPERM, malformed archives with HP_ECORRUPT, too much of anything with HP_ELIMIT. Whiteouts become overlayfs
 * whiteouts and opaque directories. Reads the source to its end. Owner, mode, time, and the extended attributes user.* and security.capability are kept. */
int ha_tar_unpack(int dirfd, ha_tar_read_fn read_fn, void *source, const struct ha_tar_limits *limits,
                  struct ha_tar_totals *ret, struct hp_error *e) HP_MUST_CHECK;

#endif
