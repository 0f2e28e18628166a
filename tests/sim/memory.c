/* memory.c — malloc for a process of one thread that takes and gives back small pieces all the time: free lists by size, nothing is ever returned to the system. Builds with a sanitizer do
 * without it: theirs finds what is used after its end. */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { STEP = 32, SMALL_MAX = 1024, CLASSES = SMALL_MAX / STEP + 1 + 38, REGION_BYTES = 16 << 20, ALIGNMENT = 16 };

/* In front of each piece; as large as its alignment. */
struct head {
    size_t class, size;
};

struct piece {
    struct piece *next;
};

static char *region, *region_end;
static struct piece *given_back[CLASSES]; /* by class: up to SMALL_MAX in steps, then powers of two */

static size_t class_of(size_t size)
{
    if (size <= SMALL_MAX)
        return (size + STEP - 1) / STEP;
    return SMALL_MAX / STEP + 1 + (size_t)(53 - __builtin_clzll(size - 1));
}

static size_t size_of(size_t class)
{
    return class <= SMALL_MAX / STEP ? (class ? class : 1) * STEP : (size_t)SMALL_MAX << (class - SMALL_MAX / STEP);
}

_Static_assert(sizeof(struct head) == ALIGNMENT && STEP % ALIGNMENT == 0, "pieces are aligned");

static struct head *head_of(void *p)
{
    return (struct head *)p - 1;
}

static void *carve(size_t class)
{
    size_t size = size_of(class) + sizeof(struct head);
    if ((size_t)(region_end - region) < size) {
        size_t bytes = size > REGION_BYTES ? size : REGION_BYTES;
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            errno = ENOMEM;
            return NULL;
        }
        region = p;
        region_end = region + bytes;
    }
    struct head *h = (struct head *)(void *)region;
    region += size;
    *h = (struct head){class, size_of(class)};
    return h + 1;
}

static void *take(size_t size)
{
    if (size > (size_t)1 << 40) {
        errno = ENOMEM;
        return NULL;
    }
    size_t class = class_of(size);
    struct piece *p = given_back[class];
    if (!p)
        return carve(class);
    given_back[class] = p->next;
    return p;
}

void *malloc(size_t size)
{
    return take(size);
}

void free(void *p)
{
    if (!p)
        return;
    struct piece **list = &given_back[head_of(p)->class];
    *(struct piece *)p = (struct piece){*list};
    *list = p;
}

size_t malloc_usable_size(void *p)
{
    return p ? head_of(p)->size : 0;
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = take(bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void *realloc(void *p, size_t size)
{
    if (p && size <= head_of(p)->size)
        return p;
    void *larger = take(size);
    if (p && larger) {
        memcpy(larger, p, head_of(p)->size);
        free(p);
    }
    return larger;
}

/* Nobody here asks for more than that. */
void *aligned_alloc(size_t alignment, size_t size)
{
    if (alignment > ALIGNMENT)
        abort();
    return take(size);
}

void *memalign(size_t alignment, size_t size)
{
    return aligned_alloc(alignment, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
    void *p = aligned_alloc(alignment, size);
    if (!p)
        return ENOMEM;
    *ret = p;
    return 0;
}
