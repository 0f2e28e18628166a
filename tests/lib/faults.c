/* faults.c — a library that is loaded into a daemon before all others (LD_PRELOAD) and makes one call of a class fail, once, by a countdown that the test sets while the daemon runs.
 *
 * The test and the library share a file, named by HARPOON_FAULTS: struct control below, mapped by both; tests/lib/faults.py is the other side. The test sets `countdown` and then
 * `armed`; each call of that class counts down, and the one that reaches 0 fails: `fired` grows, and `where` says from which call in which program or library. `counts` always count.
 * Or the test has the places noted from which the calls of a class come (`noted`, `sites`), and sets `wanted`: the next call from each of those fails, and the place is wanted no more.
 * Only the process that was started with the library is meant: its children lose it, and calls after a fork do not count.
 *
 * A TCP connection is one to the broker when its first bytes are "AMQP", or when it goes to the same port as one whose were; all others are "socket". */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <mysql.h>
#include <sqlite3.h>

enum fault {
    NONE,
    ALLOC,       /* malloc, calloc, realloc: NULL */
    FILE_WRITE,  /* write, pwrite, writev to a regular file: ENOSPC */
    SYNC,        /* fsync, fdatasync: EIO */
    SOCKET_SEND, /* ECONNRESET; the bytes have not left */
    SOCKET_RECV, /* ECONNRESET */
    AMQP_SEND,   /* the same on a connection to the broker */
    AMQP_DROP,   /* the bytes leave, then the connection is cut: what became of them is unknown */
    AMQP_RECV,
    AMQP_ENCODE, /* a method or its properties cannot be encoded */
    SQL_BEFORE,  /* the connection to the database is cut before the statement */
    SQL_AFTER,   /* after it: what became of it is unknown */
    SQLITE,      /* SQLITE_IOERR from a step, an exec or a prepare */
    FAULTS
};

enum { FRAMES_MAX = 24, SITE_FRAMES = 12, SITES_MAX = 1 << 14, WANTED_MAX = 64 };

/* A place from which calls of a class come. `own` are the program's own return addresses among its frames, innermost first, relative to the program; it ends with 0. */
struct site {
    atomic_ullong id; /* 0: free */
    atomic_uint own[SITE_FRAMES];
};

struct control {
    atomic_int armed;        /* enum fault */
    atomic_int fired;        /* how often, in all */
    atomic_llong countdown;  /* calls from now to the one that fails: 1 is the next; 0: those of `wanted` */
    atomic_llong counts[16]; /* calls of each class since the start */
    char where
        [16384]; /* of those that failed: "program+0xOFFSET", innermost first, a line each; an empty line after each */
    char died[2048];  /* "signal N", and where, when the process was killed by its own doing, the first time */
    atomic_int noted; /* enum fault: the class whose sites are noted */
    atomic_int own;   /* 1: sites are told apart by the program's own frames alone, not by those of libraries */
    atomic_ullong wanted[WANTED_MAX]; /* sites whose next call fails; 0: none, or done */
    struct site sites[SITES_MAX];     /* seen so far; open addressing */
};

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);

static struct control *control; /* NULL until the constructor has run, and without HARPOON_FAULTS */
static pid_t owner;
static void *program_start, *library_start; /* where the program and this library are mapped */
static atomic_int broker_port;
static _Thread_local bool inside; /* our own calls do not count */

/* ---- Where ---- */

static void describe(char *out, size_t size, size_t used)
{
    void *frames[FRAMES_MAX];
    int count = backtrace(frames, FRAMES_MAX);
    Dl_info own, info;
    if (!dladdr((void *)describe, &own))
        return;
    for (int i = 0; i < count && used + 1 < size; i++) {
        if (!dladdr(frames[i], &info) || !info.dli_fname || info.dli_fbase == own.dli_fbase)
            continue;
        const char *slash = strrchr(info.dli_fname, '/');
        int n = snprintf(out + used, size - used, "%s+0x%zx\n", slash ? slash + 1 : info.dli_fname,
                         (size_t)((char *)frames[i] - (char *)info.dli_fbase));
        used += n > 0 ? (size_t)n : 0;
    }
    if (used + 1 < size)
        snprintf(out + used, size - used, "\n");
}

static void on_death(int number)
{
    inside = true;
    if (getpid() == owner && !control->died[0]) {
        int n = snprintf(control->died, sizeof control->died, "signal %d\n", number);
        describe(control->died, sizeof control->died, (size_t)n);
    }
    signal(number, SIG_DFL);
    raise(number);
}

/* Where a call comes from: a number made of the innermost SITE_FRAMES return addresses, each relative to its program or library, so that it is the same in every process of a build; and those of
 * the program. */
static unsigned long long site_of(bool only_own, unsigned ret_own[SITE_FRAMES])
{
    void *frames[2 * FRAMES_MAX];
    struct dl_find_object o;
    unsigned long long hash = 0xcbf29ce484222325ULL;
    int error = errno;
    inside = true;
    int count = backtrace(frames, only_own ? 2 * FRAMES_MAX : SITE_FRAMES + 4), used = 0, own = 0;
    memset(ret_own, 0, SITE_FRAMES * sizeof *ret_own);
    inside = false;
    errno = error;
    for (int i = 0; i < count && used < SITE_FRAMES; i++) {
        if (_dl_find_object(frames[i], &o) != 0 || o.dlfo_map_start == library_start ||
            (only_own && o.dlfo_map_start != program_start))
            continue;
        hash = (hash ^ (uintptr_t)((char *)frames[i] - (char *)o.dlfo_map_start)) * 0x100000001b3ULL;
        hash = (hash ^ (uintptr_t)((char *)o.dlfo_map_end - (char *)o.dlfo_map_start)) * 0x100000001b3ULL;
        if (o.dlfo_map_start == program_start)
            ret_own[own++] = (unsigned)((char *)frames[i] - (char *)o.dlfo_map_start);
        used++;
    }
    return hash;
}

/* Notes a site; a full table forgets. */
static void note(unsigned long long id, const unsigned own[SITE_FRAMES])
{
    for (size_t i = 0, at = id; i < SITES_MAX; i++, at++) {
        struct site *s = &control->sites[at % SITES_MAX];
        unsigned long long none = 0;
        if (atomic_compare_exchange_strong(&s->id, &none, id)) {
            for (int f = 0; f < SITE_FRAMES; f++)
                atomic_store(&s->own[f], own[f]);
            return;
        }
        if (none == id)
            return;
    }
}

/* True when this call, of the armed class, is one to fail. */
static bool chosen(unsigned long long site)
{
    if (atomic_load(&control->countdown) > 0) {
        bool last = atomic_fetch_sub(&control->countdown, 1) == 1;
        if (last)
            atomic_store(&control->armed, NONE);
        return last;
    }
    for (size_t i = 0; site && i < WANTED_MAX; i++) {
        unsigned long long wanted = site; /* one thread of several wins */
        if (atomic_compare_exchange_strong(&control->wanted[i], &wanted, 0))
            return true;
    }
    return false;
}

/* Counts a call; true when it is one to fail. */
static bool fails(enum fault f)
{
    if (!control || inside || getpid() != owner)
        return false;
    atomic_fetch_add_explicit(&control->counts[f], 1, memory_order_relaxed);
    bool noted = atomic_load_explicit(&control->noted, memory_order_relaxed) == (int)f;
    bool armed = atomic_load(&control->armed) == (int)f;
    unsigned own[SITE_FRAMES];
    unsigned long long site =
        noted || (armed && atomic_load(&control->countdown) <= 0) ? site_of(atomic_load(&control->own), own) : 0;
    if (noted)
        note(site, own);
    if (!armed || !chosen(site))
        return false;
    inside = true;
    describe(control->where, sizeof control->where, strnlen(control->where, sizeof control->where - 1));
    inside = false;
    atomic_fetch_add(&control->fired, 1);
    return true;
}

static void __attribute__((constructor)) start(void)
{
    const char *path = getenv("HARPOON_FAULTS");
    void *warm[2];
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    unsetenv("LD_PRELOAD");
    if (fd < 0)
        return;
    (void)backtrace(warm, 2); /* loads what it needs */
    void *p = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return;
    struct dl_find_object o;
    if (_dl_find_object((void *)getauxval(AT_ENTRY), &o) == 0)
        program_start = o.dlfo_map_start;
    if (_dl_find_object((void *)start, &o) == 0)
        library_start = o.dlfo_map_start;
    owner = getpid();
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGILL};
    control = p;
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        signal(deadly[i], on_death);
}

#define NEXT(name_) ((__typeof__(&name_))next(#name_))
static void *next(const char *name)
{
    bool was = inside;
    inside = true;
    void *p = dlsym(RTLD_NEXT, name);
    inside = was;
    return p;
}

/* ---- Memory ---- */

void *malloc(size_t n)
{
    if (fails(ALLOC)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t m)
{
    if (fails(ALLOC)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(n, m);
}

void *realloc(void *p, size_t n)
{
    if (fails(ALLOC)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(p, n);
}

/* ---- Descriptors ---- */

enum kind { OTHER, REGULAR, TCP, BROKER };

static enum kind kind_of(int fd, const void *data, size_t n)
{
    struct stat st;
    int error = errno;
    enum kind k = OTHER;
    if (control && !inside && fd > 2 && fstat(fd, &st) == 0) {
        struct sockaddr_storage a;
        socklen_t len = sizeof a;
        if (S_ISREG(st.st_mode))
            k = REGULAR;
        else if (S_ISSOCK(st.st_mode) && getpeername(fd, (struct sockaddr *)&a, &len) == 0 && a.ss_family == AF_INET)
            k = TCP;
        int port = k == TCP ? ntohs(((struct sockaddr_in *)(void *)&a)->sin_port) : 0;
        if (k == TCP && n >= 4 && memcmp(data, "AMQP", 4) == 0)
            broker_port = port;
        if (k == TCP && port == broker_port)
            k = BROKER;
    }
    errno = error;
    return k;
}

/* True when a write to `fd` shall fail; errno is set. *ret_drop: it shall be done, and the connection cut. */
static bool write_fails(int fd, const void *data, size_t n, bool *ret_drop)
{
    enum kind k = kind_of(fd, data, n);
    *ret_drop = k == BROKER && fails(AMQP_DROP);
    if (k == OTHER || !fails(k == REGULAR ? FILE_WRITE : k == TCP ? SOCKET_SEND : AMQP_SEND))
        return false;
    errno = k == REGULAR ? ENOSPC : ECONNRESET;
    if (k != REGULAR)
        shutdown(fd, SHUT_RDWR);
    return true;
}

static bool read_fails(int fd)
{
    enum kind k = kind_of(fd, NULL, 0);
    if ((k != TCP && k != BROKER) || !fails(k == TCP ? SOCKET_RECV : AMQP_RECV))
        return false;
    shutdown(fd, SHUT_RDWR);
    errno = ECONNRESET;
    return true;
}

/* `data_` and `len_`: where what is written begins. */
#define WRITER(name_, parameters_, arguments_, data_, len_)                                                            \
    ssize_t name_ parameters_                                                                                          \
    {                                                                                                                  \
        static __typeof__(&name_) real;                                                                                \
        bool drop;                                                                                                     \
        if (!real)                                                                                                     \
            real = NEXT(name_);                                                                                        \
        if (write_fails(fd, data_, len_, &drop))                                                                       \
            return -1;                                                                                                 \
        ssize_t n_ = real arguments_;                                                                                  \
        if (drop)                                                                                                      \
            shutdown(fd, SHUT_RDWR);                                                                                   \
        return n_;                                                                                                     \
    }
WRITER(write, (int fd, const void *data, size_t n), (fd, data, n), data, n)
WRITER(writev, (int fd, const struct iovec *v, int n), (fd, v, n), v->iov_base, v->iov_len)
WRITER(pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at), data, n)
ssize_t narrow_pwrite(int fd, const void *data, size_t n, off64_t at) __asm__("pwrite")
    __attribute__((alias("pwrite64"))); /* the same on 64 bits */
WRITER(send, (int fd, const void *data, size_t n, int flags), (fd, data, n, flags), data, n)
WRITER(sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags), m->msg_iov->iov_base, m->msg_iov->iov_len)

#define READER(name_, parameters_, arguments_)                                                                         \
    ssize_t name_ parameters_                                                                                          \
    {                                                                                                                  \
        static __typeof__(&name_) real;                                                                                \
        if (!real)                                                                                                     \
            real = NEXT(name_);                                                                                        \
        return read_fails(fd) ? -1 : real arguments_;                                                                  \
    }
READER(read, (int fd, void *data, size_t n), (fd, data, n))
READER(recv, (int fd, void *data, size_t n, int flags), (fd, data, n, flags))
READER(recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))

#define SYNCER(name_)                                                                                                  \
    int name_(int fd)                                                                                                  \
    {                                                                                                                  \
        static __typeof__(&name_) real;                                                                                \
        if (!real)                                                                                                     \
            real = NEXT(name_);                                                                                        \
        if (fails(SYNC)) {                                                                                             \
            errno = EIO;                                                                                               \
            return -1;                                                                                                 \
        }                                                                                                              \
        return real(fd);                                                                                               \
    }
SYNCER(fsync)
SYNCER(fdatasync)

/* ---- Libraries ---- */

int amqp_encode_method(amqp_method_number_t number, void *decoded, amqp_bytes_t encoded)
{
    return fails(AMQP_ENCODE) ? AMQP_STATUS_NO_MEMORY : NEXT(amqp_encode_method)(number, decoded, encoded);
}

int amqp_encode_properties(uint16_t class_id, void *decoded, amqp_bytes_t encoded)
{
    return fails(AMQP_ENCODE) ? AMQP_STATUS_NO_MEMORY : NEXT(amqp_encode_properties)(class_id, decoded, encoded);
}

/* Cut so that the library itself finds out. */
static void cut(MYSQL *db)
{
    shutdown((int)mysql_get_socket(db), SHUT_RDWR);
}

int STDCALL mysql_real_query(MYSQL *db, const char *text, unsigned long len)
{
    __typeof__(&mysql_real_query) real = NEXT(mysql_real_query);
    if (fails(SQL_BEFORE))
        cut(db);
    if (!fails(SQL_AFTER))
        return real(db, text, len);
    if (real(db, text, len) == 0) { /* done; the answer is not heard */
        MYSQL_RES *rows = mysql_store_result(db);
        if (rows)
            mysql_free_result(rows);
    }
    cut(db);
    return real(db, "DO 0", 4);
}

int STDCALL mysql_stmt_execute(MYSQL_STMT *stmt)
{
    __typeof__(&mysql_stmt_execute) real = NEXT(mysql_stmt_execute);
    if (fails(SQL_BEFORE))
        cut(stmt->mysql);
    if (!fails(SQL_AFTER))
        return real(stmt);
    (void)real(stmt); /* done; the answer is not heard */
    cut(stmt->mysql);
    return real(stmt);
}

int sqlite3_step(sqlite3_stmt *s)
{
    return fails(SQLITE) ? SQLITE_IOERR : NEXT(sqlite3_step)(s);
}

int sqlite3_exec(sqlite3 *db, const char *text, int (*row)(void *, int, char **, char **), void *user, char **error)
{
    if (!fails(SQLITE))
        return NEXT(sqlite3_exec)(db, text, row, user, error);
    if (error)
        *error = NULL;
    return SQLITE_IOERR;
}
