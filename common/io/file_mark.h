/* file_mark.h — whether a file is another than the one that was read: written, or replaced (also through a symbolic link). */
#ifndef HP_IO_FILE_MARK_H
#define HP_IO_FILE_MARK_H

#include <stdbool.h>
#include <sys/stat.h>

enum { HP_FILE_LOOK_MS = 1000 }; /* who looks at each use of a file looks at most this often */

/* All zero: it could not be read. */
struct hp_file_mark {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec written, changed;
};

/* Of an open file, before it is read; fd < 0: of the path, for one that cannot be opened. */
struct hp_file_mark hp_file_mark(int fd, const char *path);
bool hp_file_mark_is(const struct hp_file_mark *m, const char *path);

#endif
