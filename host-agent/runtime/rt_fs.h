/* rt_fs.h — files and directories for the container runtime: whole files at once, atomic replacement, removal of trees that a tenant wrote, paths that cannot leave a directory. */
#ifndef HA_RT_FS_H
#define HA_RT_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Closes a descriptor when its variable leaves scope; -1 is none. */
void ha_fs_closep(int *fd);
#define HA_CLOSE __attribute__((cleanup(ha_fs_closep)))
/* Frees a heap pointer when its variable leaves scope. */
void ha_fs_freep(void *p);
#define HA_FREE __attribute__((cleanup(ha_fs_freep)))

/* snprintf that fails with HP_ELIMIT when the text does not fit. */
int ha_fs_path(char *buf, size_t size, struct hp_error *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5))) HP_MUST_CHECK;

/* Makes `path` and its parents with `mode`; fine when they exist. */
int ha_fs_mkdirs(const char *path, mode_t mode, struct hp_error *e) HP_MUST_CHECK;

/* Reads at most `max` bytes of a file into *ret (NUL-terminated, owned by the caller). HP_ENOTFOUND, HP_ELIMIT when longer, HP_EIO. */
int ha_fs_read(int dirfd, const char *path, size_t max, char **ret, size_t *ret_size, struct hp_error *e) HP_MUST_CHECK;
int ha_fs_read_fd(int fd, const char *name, size_t max, char **ret, size_t *ret_size, struct hp_error *e) HP_MUST_CHECK;

/* Writes a new file or replaces the old one by rename. `durable`: data and directory are on disk before it returns. */
int ha_fs_write(const char *path, const void *data, size_t size, mode_t mode, bool durable,
                struct hp_error *e) HP_MUST_CHECK;

/* Writes `text` to an existing (pseudo) file with one write. Returns 0 or -errno. */
int ha_fs_poke(const char *path, const char *text);

/* Removes a tree without following links, without leaving its file system, in bounded stack and descriptors whatever its depth. Nothing there: 0. */
int ha_fs_remove(const char *path, struct hp_error *e) HP_MUST_CHECK;

/* Opens `path` so that no component, link or mount leads outside `dirfd`: openat2 with RESOLVE_BENEATH. Returns a descriptor or -errno. */
int ha_fs_open_beneath(int dirfd, const char *path, uint64_t flags, uint64_t mode);
/* Opens as a process whose root is `dirfd` would: openat2 with RESOLVE_IN_ROOT. Returns a descriptor or -errno. */
int ha_fs_open_in_root(int dirfd, const char *path, uint64_t flags);

/* Sum of the blocks below `path` in bytes, hard links counted once each time; 0 when it cannot be read. */
int64_t ha_fs_tree_bytes(const char *path);

#endif
