/* rt_tar.c — one pass over the archive. Headers are parsed into struct entry (pax and GNU long names first), then the entry is made relative to a descriptor of its parent directory
 * that was opened with RESOLVE_BENEATH; so a link planted by an earlier entry cannot lead a later one out of the layer. */
#include "rt_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "rt_fs.h"

#define BLOCK 512
#define NAME_MAX_BYTES 4095
#define PAX_MAX_BYTES (1 << 20)
#define XATTRS_MAX 16
#define XATTR_VALUE_MAX 4096

struct xattr {
    char name[256];
    char value[XATTR_VALUE_MAX];
    size_t size;
};

struct entry {
    char path[NAME_MAX_BYTES + 1];
    char link[NAME_MAX_BYTES + 1];
    char type;
    uint32_t mode, uid, gid;
    int64_t size, mtime_s;
    long mtime_ns;
    bool has_path, has_link, has_size, has_uid, has_gid,
        has_mtime;        /* set by an extension header: wins over the plain one */
    struct xattr *xattrs; /* XATTRS_MAX of them, made when first needed */
    size_t xattr_count;
};

struct unpack {
    int root;
    ha_tar_read_fn read_fn;
    void *source;
    struct ha_tar_limits limits;
    struct ha_tar_totals totals;
    struct entry entry;
    char buf[65536];
    struct hp_error *e;
};

static int read_exact(struct unpack *u, void *buf, size_t size)
{
    char *p = buf;
    while (size > 0) {
        int64_t n = u->read_fn(u->source, p, size);
        if (n < 0)
            return hp_fail_errno(u->e, HP_EIO, (int)-n, "read layer");
        if (n == 0)
            return hp_fail(u->e, HP_ECORRUPT, "layer ends in the middle of an entry");
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

static int skip(struct unpack *u, int64_t size)
{
    while (size > 0) {
        size_t n = size > (int64_t)sizeof u->buf ? sizeof u->buf : (size_t)size;
        int rc = read_exact(u, u->buf, n);
        if (rc)
            return rc;
        size -= (int64_t)n;
    }
    return 0;
}

static int64_t padding(int64_t size)
{
    return (BLOCK - size % BLOCK) % BLOCK;
}

/* Octal text, or base-256 when the top bit is set (GNU). -1 when it is neither or does not fit. */
static int64_t number(const unsigned char *field, size_t size)
{
    uint64_t value = 0;
    if (field[0] & 0x80) {
        if (field[0] != 0x80)
            return -1; /* negative, or beyond 63 bits */
        for (size_t i = 1; i < size; i++) {
            if (value >> 55)
                return -1;
            value = value << 8 | field[i];
        }
        return (int64_t)value;
    }
    size_t i = 0;
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
        value = value * 8 + (uint64_t)(field[i] - '0');
    return i < size && field[i] != ' ' && field[i] != '\0' ? -1 : (int64_t)value;
}

static bool checksum_fits(const unsigned char *h)
{
    int64_t sum = 0, wanted = number(h + 148, 8);
    for (int i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? ' ' : h[i];
    return sum == wanted;
}

static void plain_name(struct entry *en, const char *h)
{
    char name[101], prefix[156] = "";
    snprintf(name, sizeof name, "%.100s", h);
    if (memcmp(h + 257, "ustar\0", 6) == 0)
        snprintf(prefix, sizeof prefix, "%.155s", h + 345);
    snprintf(en->path, sizeof en->path, "%s%s%s", prefix, prefix[0] ? "/" : "", name);
}

static int plain_header(struct unpack *u, const unsigned char *h)
{
    struct entry *en = &u->entry;
    const char *text = (const char *)h;
    int64_t mode = number(h + 100, 8), uid = number(h + 108, 8), gid = number(h + 116, 8), size = number(h + 124, 12),
            mtime = number(h + 136, 12);
    en->type = text[156];
    if (!en->has_path)
        plain_name(en, text);
    if (!en->has_link)
        snprintf(en->link, sizeof en->link, "%.100s", text + 157);
    if (mode < 0 || (!en->has_uid && (uid < 0 || uid > UINT32_MAX - 1)) ||
        (!en->has_gid && (gid < 0 || gid > UINT32_MAX - 1)) || (!en->has_size && size < 0))
        return hp_fail(u->e, HP_ECORRUPT, "layer entry '%.200s' has a malformed header", en->path);
    en->mode = (uint32_t)mode & 07777;
    if (!en->has_uid)
        en->uid = (uint32_t)uid;
    if (!en->has_gid)
        en->gid = (uint32_t)gid;
    if (!en->has_size)
        en->size = size;
    if (!en->has_mtime)
        en->mtime_s = mtime < 0 ? 0 : mtime;
    return 0;
}

static void pax_xattr(struct entry *en, const char *name, const char *value, size_t size)
{
    bool wanted = strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0;
    if (!wanted || en->xattr_count == XATTRS_MAX || size > XATTR_VALUE_MAX || strlen(name) >= sizeof en->xattrs->name)
        return;
    if (!en->xattrs && !(en->xattrs = calloc(XATTRS_MAX, sizeof *en->xattrs)))
        return;
    struct xattr *x = &en->xattrs[en->xattr_count++];
    snprintf(x->name, sizeof x->name, "%s", name);
    memcpy(x->value, value, size);
    x->size = size;
}

static int64_t decimal(const char *text, const char **ret_rest)
{
    char *end = NULL;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    *ret_rest = text + (end - text);
    return errno || end == text ? -1 : n;
}

/* One "key=value" of a pax header; value is NUL-terminated beyond its size. */
static int pax_record(struct unpack *u, const char *key, const char *value, size_t size)
{
    struct entry *en = &u->entry;
    const char *rest;
    bool path = strcmp(key, "path") == 0, link = strcmp(key, "linkpath") == 0;
    if (path || link) {
        if (size > NAME_MAX_BYTES || strlen(value) != size)
            return hp_fail(u->e, HP_ECORRUPT, "layer entry has a %s of %zu bytes, or with a NUL", key, size);
        memcpy(path ? en->path : en->link, value, size + 1);
        *(path ? &en->has_path : &en->has_link) = true;
    } else if (strcmp(key, "size") == 0) {
        en->size = decimal(value, &rest);
        en->has_size = true;
        if (en->size < 0 || *rest)
            return hp_fail(u->e, HP_ECORRUPT, "layer entry has the size '%.32s'", value);
    } else if (strcmp(key, "uid") == 0 || strcmp(key, "gid") == 0) {
        int64_t id = decimal(value, &rest);
        if (id < 0 || id > UINT32_MAX - 1 || *rest)
            return hp_fail(u->e, HP_ECORRUPT, "layer entry has the %s '%.32s'", key, value);
        *(key[0] == 'u' ? &en->uid : &en->gid) = (uint32_t)id;
        *(key[0] == 'u' ? &en->has_uid : &en->has_gid) = true;
    } else if (strcmp(key, "mtime") == 0) {
        en->mtime_s = decimal(value, &rest);
        if (en->mtime_s < 0)
            en->mtime_s = 0;
        en->has_mtime = true;
    } else if (strncmp(key, "SCHILY.xattr.", 13) == 0) {
        pax_xattr(en, key + 13, value, size);
    }
    return 0;
}

/* pax: "LENGTH key=value\n", LENGTH counting itself. */
static int pax_header(struct unpack *u, int64_t size)
{
    if (size > PAX_MAX_BYTES)
        return hp_fail(u->e, HP_ELIMIT, "layer has an extension header of %lld bytes, limit %d", (long long)size,
                       PAX_MAX_BYTES);
    HA_FREE char *text = malloc((size_t)size + 1);
    if (!text)
        return hp_fail(u->e, HP_ENOMEM, "unpack layer");
    int rc = read_exact(u, text, (size_t)size);
    if (rc == 0)
        rc = skip(u, padding(size));
    if (rc)
        return rc;
    text[size] = '\0';
    char *p = text, *end = text + size;
    while (p < end && *p) {
        const char *rest;
        int64_t length = decimal(p, &rest);
        if (length <= 0 || length > end - p || *rest != ' ' || p[length - 1] != '\n')
            return hp_fail(u->e, HP_ECORRUPT, "layer has a malformed pax header");
        char *key = p + strcspn(p, " ") + 1, *stop = p + length - 1;
        char *equals = key < stop ? memchr(key, '=', (size_t)(stop - key)) : NULL;
        if (!equals)
            return hp_fail(u->e, HP_ECORRUPT, "layer has a pax record without '='");
        *equals = '\0';
        *stop = '\0';
        rc = pax_record(u, key, equals + 1, (size_t)(stop - equals - 1));
        if (rc)
            return rc;
        p += length;
    }
    return 0;
}

static int gnu_long(struct unpack *u, int64_t size, char *into, bool *has)
{
    if (size > NAME_MAX_BYTES + 1)
        return hp_fail(u->e, HP_ELIMIT, "layer has a name of %lld bytes, limit %d", (long long)size, NAME_MAX_BYTES);
    int rc = read_exact(u, u->buf, (size_t)size);
    if (rc == 0) {
        u->buf[size] = '\0';
        if (strlen(u->buf) > NAME_MAX_BYTES)
            return hp_fail(u->e, HP_ELIMIT, "layer has a name of over %d bytes", NAME_MAX_BYTES);
        snprintf(into, NAME_MAX_BYTES + 1, "%s", u->buf);
        *has = true;
        rc = skip(u, padding(size));
    }
    return rc;
}

/* Removes "./", doubled and outer slashes in place. "" is the root. Refuses "..". */
static int clean_path(struct unpack *u, char *path, const char *what)
{
    char *out = path, *p = path;
    while (*p) {
        while (*p == '/')
            p++;
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return hp_fail(u->e, HP_EPERM, "layer %s '%.200s' leaves the root directory", what, u->entry.path);
        if (n > 255)
            return hp_fail(u->e, HP_ECORRUPT, "layer %s has a name of %zu bytes", what, n);
        if (n == 0 || (n == 1 && p[0] == '.')) {
            p += n;
            continue;
        }
        if (out != path)
            *out++ = '/';
        memmove(out, p, n);
        out += n;
        p += n;
    }
    *out = '\0';
    return 0;
}

/* Opens the directory that holds `path`, making missing parents; *ret_base points into path. */
static int open_parent(struct unpack *u, char *path, bool make, int *ret_fd, const char **ret_base)
{
    char *slash = strrchr(path, '/');
    *ret_base = slash ? slash + 1 : path;
    if (!slash) {
        *ret_fd = ha_fs_open_beneath(u->root, ".", O_RDONLY | O_DIRECTORY, 0);
        return *ret_fd < 0 ? hp_fail_errno(u->e, HP_EIO, -*ret_fd, "open the layer's root") : 0;
    }
    *slash = '\0';
    int fd = ha_fs_open_beneath(u->root, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd == -ENOENT && make) {
        int above = -1;
        const char *base = NULL;
        int rc = open_parent(u, path, true, &above, &base);
        if (rc == 0) {
            if (mkdirat(above, base, 0755) != 0 && errno != EEXIST)
                rc = hp_fail_errno(u->e, HP_EIO, errno, "make directory '%.200s'", path);
            close(above);
        }
        if (rc)
            return rc;
        fd = ha_fs_open_beneath(u->root, path, O_RDONLY | O_DIRECTORY, 0);
    }
    if (fd == -EXDEV || fd == -ELOOP || fd == -ENOTDIR)
        return hp_fail(u->e, HP_EPERM,
                       "layer entry '%.200s/%.100s' goes through a link or file that leaves the root directory", path,
                       slash + 1);
    if (fd < 0)
        return hp_fail_errno(u->e, HP_EIO, -fd, "open directory '%.200s'", path);
    *slash = '/';
    *ret_fd = fd;
    return 0;
}

static bool is_whiteout_node(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static int set_opaque(struct unpack *u, int fd)
{
    return fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) == 0
               ? 0
               : hp_fail_errno(u->e, HP_EIO, errno, "mark directory of '%.200s' opaque", u->entry.path);
}

static int opaque_below(struct unpack *u, int parent, const char *name)
{
    HA_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? hp_fail_errno(u->e, HP_EIO, errno, "open directory '%.200s'", name) : set_opaque(u, fd);
}

/* ".wh.NAME": what a lower layer has under NAME is hidden; what this layer has under it stays. */
static int whiteout(struct unpack *u, int parent, const char *name)
{
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return hp_fail(u->e, HP_EPERM, "layer has the whiteout '%.200s', which leaves its directory", u->entry.path);
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return S_ISDIR(st.st_mode) ? opaque_below(u, parent, name) : 0;
    if (mknodat(parent, name, S_IFCHR, makedev(0, 0)) != 0)
        return hp_fail_errno(u->e, HP_EIO, errno, "make whiteout '%.200s'", u->entry.path);
    return 0;
}

/* Makes room for an entry: an earlier one of the same name goes, except a directory under a directory. *ret_opaque: it replaces a whiteout. */
static int make_room(struct unpack *u, int parent, const char *name, bool *ret_opaque)
{
    struct stat st;
    *ret_opaque = false;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    if (S_ISDIR(st.st_mode)) {
        if (u->entry.type == '5')
            return 0;
        if (unlinkat(parent, name, AT_REMOVEDIR) != 0)
            return hp_fail_errno(u->e, HP_ECORRUPT, errno, "layer entry '%.200s' replaces a directory", u->entry.path);
        return 0;
    }
    *ret_opaque = is_whiteout_node(&st);
    if (unlinkat(parent, name, 0) != 0)
        return hp_fail_errno(u->e, HP_EIO, errno, "replace '%.200s'", u->entry.path);
    return 0;
}

static int set_attributes(struct unpack *u, int parent, const char *name, int fd)
{
    const struct entry *en = &u->entry;
    if (fchownat(parent, name, en->uid, en->gid, AT_SYMLINK_NOFOLLOW) != 0)
        return hp_fail_errno(u->e, HP_EIO, errno, "set owner of '%.200s'", en->path);
    if (fd >= 0) {
        if (fchmod(fd, en->mode) != 0)
            return hp_fail_errno(u->e, HP_EIO, errno, "set mode of '%.200s'", en->path);
        for (size_t i = 0; i < en->xattr_count; i++)
            if (fsetxattr(fd, en->xattrs[i].name, en->xattrs[i].value, en->xattrs[i].size, 0) != 0 && errno != ENOTSUP)
                return hp_fail_errno(u->e, HP_EIO, errno, "set %s of '%.200s'", en->xattrs[i].name, en->path);
    }
    const struct timespec times[2] = {{en->mtime_s, en->mtime_ns}, {en->mtime_s, en->mtime_ns}};
    (void)utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW); /* times before 1901 are not worth a failure */
    return 0;
}

static int copy_content(struct unpack *u, int fd)
{
    int64_t left = u->entry.size;
    while (left > 0) {
        size_t n = left > (int64_t)sizeof u->buf ? sizeof u->buf : (size_t)left;
        int rc = read_exact(u, u->buf, n);
        if (rc)
            return rc;
        for (size_t done = 0; done < n;) {
            ssize_t w = write(fd, u->buf + done, n - done);
            if (w < 0 && errno == EINTR)
                continue;
            if (w < 0)
                return hp_fail_errno(u->e, HP_EIO, errno, "write '%.200s'", u->entry.path);
            done += (size_t)w;
        }
        left -= (int64_t)n;
    }
    return skip(u, padding(u->entry.size));
}

static int make_file(struct unpack *u, int parent, const char *name)
{
    HA_CLOSE int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return hp_fail_errno(u->e, HP_EIO, errno, "create '%.200s'", u->entry.path);
    int rc = copy_content(u, fd);
    return rc ? rc : set_attributes(u, parent, name, fd);
}

static int make_directory(struct unpack *u, int parent, const char *name, bool opaque)
{
    if (mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        return hp_fail_errno(u->e, HP_EIO, errno, "make directory '%.200s'", u->entry.path);
    HA_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return hp_fail_errno(u->e, HP_EIO, errno, "open directory '%.200s'", u->entry.path);
    int rc = opaque ? set_opaque(u, fd) : 0;
    return rc ? rc : set_attributes(u, parent, name, fd);
}

static int make_hardlink(struct unpack *u, int parent, const char *name)
{
    struct entry *en = &u->entry;
    int rc = clean_path(u, en->link, "hard link target of");
    if (rc)
        return rc;
    const char *base;
    HA_CLOSE int target = -1;
    rc = open_parent(u, en->link, false, &target, &base);
    if (rc)
        return hp_wrap(u->e, "hard link '%.200s'", en->path);
    struct stat st;
    if (*base == '\0' || fstatat(target, base, &st, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(st.st_mode) ||
        is_whiteout_node(&st))
        return hp_fail(u->e, HP_ECORRUPT,
                       "layer entry '%.200s' is a hard link to '%.200s', which the layer does not have", en->path,
                       en->link);
    if (linkat(target, base, parent, name, 0) != 0)
        return hp_fail_errno(u->e, HP_EIO, errno, "hard link '%.200s'", en->path);
    return 0;
}

static int make_symlink(struct unpack *u, int parent, const char *name)
{
    struct entry *en = &u->entry;
    if (en->link[0] == '\0')
        return hp_fail(u->e, HP_ECORRUPT, "layer entry '%.200s' is a link to nothing", en->path);
    /* The target is text that means something only inside the container: any target is harmless, for nothing here follows it out of the layer. */
    if (symlinkat(en->link, parent, name) != 0)
        return hp_fail_errno(u->e, HP_EIO, errno, "link '%.200s'", en->path);
    return set_attributes(u, parent, name, -1);
}

static int make_node(struct unpack *u, int parent, const char *name, bool opaque)
{
    struct entry *en = &u->entry;
    switch (en->type) {
    case '0':
    case '\0':
    case '7':
        return make_file(u, parent, name);
    case '1':
        return make_hardlink(u, parent, name);
    case '2':
        return make_symlink(u, parent, name);
    case '5':
        return make_directory(u, parent, name, opaque);
    case '6':
        if (mkfifoat(parent, name, en->mode) != 0)
            return hp_fail_errno(u->e, HP_EIO, errno, "make fifo '%.200s'", en->path);
        return set_attributes(u, parent, name, -1);
    default:
        return hp_fail(u->e, HP_EUNSUPPORTED, "layer entry '%.200s' is of unknown type '%c'", en->path, en->type);
    }
}

/* The whole of the root directory's own entry: its attributes. */
static int root_entry(struct unpack *u)
{
    if (u->entry.type != '5')
        return hp_fail(u->e, HP_ECORRUPT, "layer has an entry without a name");
    HA_CLOSE int fd = ha_fs_open_beneath(u->root, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return hp_fail_errno(u->e, HP_EIO, -fd, "open the layer's root");
    return set_attributes(u, fd, ".", fd);
}

static int one_entry(struct unpack *u)
{
    struct entry *en = &u->entry;
    bool file = en->type == '0' || en->type == '\0' || en->type == '7';
    if (++u->totals.entries > u->limits.entries_max)
        return hp_fail(u->e, HP_ELIMIT, "layer has more than %lld entries", (long long)u->limits.entries_max);
    if (file && (en->size > u->limits.bytes_max || (u->totals.bytes += en->size) > u->limits.bytes_max))
        return hp_fail(u->e, HP_ELIMIT, "layer unpacks to more than %lld bytes", (long long)u->limits.bytes_max);
    int rc = clean_path(u, en->path, "entry");
    if (rc)
        return rc;
    if (en->path[0] == '\0')
        return root_entry(u);
    if (en->type == '3' || en->type == '4') {
        u->totals.skipped++;
        return 0;
    }
    const char *name;
    HA_CLOSE int parent = -1;
    rc = open_parent(u, en->path, true, &parent, &name);
    if (rc)
        return rc;
    if (strcmp(name, ".wh..wh..opq") == 0)
        rc = set_opaque(u, parent);
    else if (strncmp(name, ".wh..wh.", 8) == 0)
        u->totals.skipped++; /* aufs bookkeeping */
    else if (strncmp(name, ".wh.", 4) == 0)
        rc = whiteout(u, parent, name + 4);
    else {
        bool opaque;
        rc = make_room(u, parent, name, &opaque);
        return rc ? rc : make_node(u, parent, name, opaque); /* files read their own content */
    }
    if (rc == 0 && file)
        rc = skip(u, en->size + padding(en->size));
    return rc;
}

static void forget(struct entry *en)
{
    free(en->xattrs);
    *en = (struct entry){0};
}

/* After the two zero blocks everything that is left is read, so that the digest covers it. */
static int drain(struct unpack *u)
{
    for (;;) {
        int64_t n = u->read_fn(u->source, u->buf, sizeof u->buf);
        if (n < 0)
            return hp_fail_errno(u->e, HP_EIO, (int)-n, "read layer");
        if (n == 0)
            return 0;
    }
}

static int extension(struct unpack *u, char type, int64_t size)
{
    struct entry *en = &u->entry;
    switch (type) {
    case 'x':
        return pax_header(u, size);
    case 'L':
        return gnu_long(u, size, en->path, &en->has_path);
    case 'K':
        return gnu_long(u, size, en->link, &en->has_link);
    default: /* 'g': comments of the archive */
        return skip(u, size + padding(size));
    }
}

static int unpack_all(struct unpack *u)
{
    unsigned char h[BLOCK];
    static const unsigned char zero[BLOCK];
    for (;;) {
        int64_t n = u->read_fn(u->source, h, 1);
        if (n < 0)
            return hp_fail_errno(u->e, HP_EIO, (int)-n, "read layer");
        if (n == 0)
            return 0; /* no zero blocks: other tools accept it as well */
        int rc = read_exact(u, h + 1, BLOCK - 1);
        if (rc)
            return rc;
        if (memcmp(h, zero, BLOCK) == 0)
            return drain(u);
        if (!checksum_fits(h))
            return hp_fail(u->e, HP_ECORRUPT,
                           "layer has a header with a wrong checksum: not a tar archive, or damaged");
        char type = (char)h[156];
        if (type == 'x' || type == 'g' || type == 'L' || type == 'K') {
            int64_t size = number(h + 124, 12);
            rc = size < 0 ? hp_fail(u->e, HP_ECORRUPT, "layer has a malformed extension header")
                          : extension(u, type, size);
            if (rc)
                return rc;
            continue;
        }
        rc = plain_header(u, h);
        if (rc == 0)
            rc = one_entry(u);
        if (rc)
            return rc;
        forget(&u->entry);
    }
}

int ha_tar_unpack(int dirfd, ha_tar_read_fn read_fn, void *source, const struct ha_tar_limits *limits,
                  struct ha_tar_totals *ret, struct hp_error *e)
{
    struct unpack *u = calloc(1, sizeof *u);
    if (!u)
        return hp_fail(e, HP_ENOMEM, "unpack layer");
    struct hp_error local = {0};
    *u = (struct unpack){.root = dirfd, .read_fn = read_fn, .source = source, .limits = *limits, .e = e ? e : &local};
    int rc = unpack_all(u);
    if (rc == 0)
        *ret = u->totals;
    free(u->entry.xattrs);
    free(u);
    return rc;
}
