/* Layers of images from strangers: tar archives, put together from steps so that checksums and lengths fit, unpacked into a directory.
 *
 * Asserted: nothing outside the directory is made, changed or linked, whatever names, links, whiteouts and extensions say; limits of entries and bytes hold; no device but whiteouts is made; a refusal says
 * why. The unpacking thread has the work directory on /dev/shm as its root, so that not even a hole in what is tested reaches the machine. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/buf.h"
#include "fuzz/script.h"
#include "runtime/rt_tar.h"

enum { ENTRY, EXTENSION, BLOCK, BLOCK_SIZE = 512, BYTES_MAX = 64 << 10, ENTRIES_MAX = 40 };

const struct fuzz_kind fuzz_kinds[] = {
    [ENTRY] = {"entry", NULL}, [EXTENSION] = {"extension", NULL}, [BLOCK] = {"block", NULL}};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {NULL};

static char work[64];
static const char secret[] = "nobody changes this";

/* ---- The archive ---- */

static void add(struct hp_buf *b, const void *data, size_t len)
{
    static const uint8_t zero[BLOCK_SIZE];
    int rc = hp_buf_append(b, data, len);
    if (rc == 0 && len % BLOCK_SIZE)
        rc = hp_buf_append(b, zero, BLOCK_SIZE - len % BLOCK_SIZE);
    if (rc)
        abort();
}

static void add_header(struct hp_buf *b, uint8_t block[BLOCK_SIZE])
{
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (int i = 0; i < BLOCK_SIZE; i++)
        sum += block[i];
    snprintf((char *)block + 148, 8, "%06o", sum & 0777777);
    add(b, block, BLOCK_SIZE);
}

static void fill_header(uint8_t block[BLOCK_SIZE], char type, unsigned mode, size_t size)
{
    memset(block, 0, BLOCK_SIZE);
    snprintf((char *)block + 100, 8, "%07o", mode & 07777);
    snprintf((char *)block + 108, 8, "%07o", 0);
    snprintf((char *)block + 116, 8, "%07o", 0);
    snprintf((char *)block + 124, 12, "%011zo", size);
    snprintf((char *)block + 136, 12, "%011o", 1);
    block[156] = (uint8_t)type;
    memcpy(block + 257,
           "ustar\0"
           "00",
           8);
}

/* type, two bytes of mode, name NUL, link NUL, contents */
static void add_entry(struct hp_buf *b, const struct fuzz_step *s)
{
    static const char types[] = "0125346\0"
                                "75LK";
    uint8_t block[BLOCK_SIZE];
    if (s->len < 4)
        return;
    const uint8_t *at = s->data + 3, *end = s->data + s->len;
    size_t name = strnlen((const char *)at, (size_t)(end - at));
    const uint8_t *link = at + name + (at + name < end);
    size_t link_len = strnlen((const char *)link, (size_t)(end - link));
    const uint8_t *data = link + link_len + (link + link_len < end);
    size_t size = (size_t)(end - data);
    fill_header(block, s->data[0] < 128 ? types[s->data[0] % 12] : (char)s->data[0], s->data[1] | s->data[2] << 8U,
                size);
    memcpy(block, at, name < 100 ? name : 100);
    memcpy(block + 157, link, link_len < 100 ? link_len : 100);
    add_header(b, block);
    add(b, data, size);
}

/* type (pax or GNU), then "key=value" texts, each ended by NUL, whose lengths are made right; or, for GNU, a name */
static void add_extension(struct hp_buf *b, const struct fuzz_step *s)
{
    static const char types[] = "xxxgLK";
    uint8_t block[BLOCK_SIZE];
    char records[8192];
    size_t n = 0;
    if (s->len < 2)
        return;
    char type = types[s->data[0] % 6];
    const char *at = (const char *)s->data + 1, *end = (const char *)s->data + s->len;
    while (at < end && (type == 'x' || type == 'g')) {
        size_t len = strnlen(at, (size_t)(end - at));
        if (n + len + 16 > sizeof records)
            break;
        size_t total = len + 4 + (len + 4 > 9) + (len + 5 > 99) + (len + 6 > 999);
        n += (size_t)snprintf(records + n, sizeof records - n, "%zu %.*s\n", total - 1, (int)len, at);
        at += len + 1;
    }
    if (type == 'L' || type == 'K') {
        n = (size_t)(end - at) < sizeof records ? (size_t)(end - at) : sizeof records;
        memcpy(records, at, n);
    }
    fill_header(block, type, 0644, n);
    memcpy(block, "pax", 3);
    add_header(b, block);
    add(b, records, n);
}

static void add_block(struct hp_buf *b, const struct fuzz_step *s)
{
    uint8_t block[BLOCK_SIZE] = {0};
    memcpy(block, s->data, s->len < BLOCK_SIZE ? s->len : BLOCK_SIZE);
    add_header(b, block);
}

/* ---- The directory ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return at->level ? remove(path) : 0;
}

static void empty(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS))
        abort();
}

static int64_t found_bytes, found_entries;

static int look_at(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    found_entries += at->level > 0;
    if (S_ISREG(st->st_mode))
        found_bytes += st->st_size;
    assert(!S_ISBLK(st->st_mode));
    assert(!S_ISCHR(st->st_mode) || st->st_rdev == makedev(0, 0)); /* a whiteout */
    return 0;
}

static void check_outside(void)
{
    struct stat st;
    char text[64] = "";
    int fd = open("/outside/secret", O_RDONLY);
    assert(fd >= 0 && fstat(fd, &st) == 0);
    assert(st.st_nlink == 1 && st.st_uid == 7 && (st.st_mode & 07777) == 0640 && st.st_size == sizeof secret);
    assert(read(fd, text, sizeof text) == sizeof secret && memcmp(text, secret, sizeof secret) == 0);
    close(fd);
    DIR *d = opendir("/");
    for (struct dirent *e; (e = readdir(d));)
        assert(e->d_name[0] == '.' || strcmp(e->d_name, "outside") == 0 || strcmp(e->d_name, "layer") == 0);
    closedir(d);
    d = opendir("/outside");
    for (struct dirent *e; (e = readdir(d));)
        assert(e->d_name[0] == '.' || strcmp(e->d_name, "secret") == 0);
    closedir(d);
}

/* ---- The unpacking thread ---- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct hp_buf archive;
    size_t piece; /* bytes of one read */
    bool wanted;
} job = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int64_t read_archive(void *source, void *buf, size_t size)
{
    size_t n = size < job.archive.len ? size : job.archive.len;
    n = n < job.piece ? n : job.piece;
    if (n) {
        memcpy(buf, hp_buf_front(&job.archive), n);
        hp_buf_consume(&job.archive, n);
    }
    return (int64_t)n;
}

static void unpack(void)
{
    static const struct ha_tar_limits limits = {.bytes_max = BYTES_MAX, .entries_max = ENTRIES_MAX};
    struct ha_tar_totals totals = {0};
    struct hp_error e = {0};
    int fd = open("/layer", O_RDONLY | O_DIRECTORY);
    assert(fd >= 0);
    int rc = ha_tar_unpack(fd, read_archive, NULL, &limits, &totals, &e);
    close(fd);
    assert(rc == 0 || e.message[0]);
    assert(rc == 0 || rc == HP_EPERM || rc == HP_ECORRUPT || rc == HP_ELIMIT || rc == HP_EIO || rc == HP_EUNSUPPORTED);
    check_outside();
    found_bytes = found_entries = 0;
    if (nftw("/layer", look_at, 16, FTW_PHYS))
        abort();
    assert(found_bytes <= BYTES_MAX * 2);
    empty("/layer");
}

static void *serve(void *arg)
{
    if (unshare(CLONE_FS) || chroot(work) || chdir("/"))
        abort(); /* as root only */
    pthread_mutex_lock(&job.mutex);
    for (;;) {
        while (!job.wanted)
            pthread_cond_wait(&job.changed, &job.mutex);
        unpack();
        job.wanted = false;
        pthread_cond_broadcast(&job.changed);
    }
    return NULL;
}

static void remove_work(void)
{
    empty(work);
    rmdir(work);
}

static void start(void)
{
    char path[128];
    pthread_t thread;
    snprintf(work, sizeof work, "/dev/shm/harpoon-fuzz-%d", (int)getpid());
    if (mkdir(work, 0700))
        abort();
    atexit(remove_work);
    snprintf(path, sizeof path, "%s/layer", work);
    int rc = mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/outside", work);
    rc |= mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/outside/secret", work);
    int fd = open(path, O_WRONLY | O_CREAT, 0640);
    if (rc || fd < 0 || write(fd, secret, sizeof secret) != sizeof secret || fchown(fd, 7, 7) || fchmod(fd, 0640))
        abort();
    close(fd);
    if (pthread_create(&thread, NULL, serve, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint8_t zero[2 * BLOCK_SIZE];
    struct fuzz_step s;
    if (!*work)
        start();
    pthread_mutex_lock(&job.mutex);
    hp_buf_init(&job.archive, 8 << 20);
    job.piece = len % 7 ? SIZE_MAX : 100;
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        if (s.kind == ENTRY)
            add_entry(&job.archive, &s);
        else if (s.kind == EXTENSION)
            add_extension(&job.archive, &s);
        else
            add_block(&job.archive, &s);
    }
    add(&job.archive, zero, sizeof zero);
    job.wanted = true;
    pthread_cond_broadcast(&job.changed);
    while (job.wanted)
        pthread_cond_wait(&job.changed, &job.mutex);
    hp_buf_done(&job.archive);
    pthread_mutex_unlock(&job.mutex);
    return 0;
}
