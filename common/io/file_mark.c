#include "io/file_mark.h"

struct hp_file_mark hp_file_mark(int fd, const char *path)
{
    struct stat s;
    if (fd < 0 ? stat(path, &s) : fstat(fd, &s))
        return (struct hp_file_mark){0};
    return (struct hp_file_mark){s.st_dev, s.st_ino, s.st_size, s.st_mtim, s.st_ctim};
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool hp_file_mark_is(const struct hp_file_mark *m, const char *path)
{
    struct hp_file_mark now = hp_file_mark(-1, path);
    return now.dev == m->dev && now.ino == m->ino && now.size == m->size && same_time(now.written, m->written) &&
           same_time(now.changed, m->changed);
}
