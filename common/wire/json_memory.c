/* json_memory.c — jansson when memory runs out. Its reader (2.14) ignores some failed allocations, so that texts lose bytes, and goes astray over others. So it is not let go on: the first
 * allocation that fails while it reads leaves it by a jump, and what it has allocated for this text is freed. */
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "wire/json.h"

/* What a text that is being read has allocated. */
struct load {
    bool active;
    jmp_buf stop;
    void **blocks;
    size_t count, room;
};

static _Thread_local bool memory_failed;
static _Thread_local struct load load;

static bool remember(void *p)
{
    if (load.count == load.room) {
        size_t room = load.room ? 2 * load.room : 64;
        void **blocks = realloc(load.blocks, room * sizeof *blocks);
        if (!blocks)
            return false;
        load.blocks = blocks;
        load.room = room;
    }
    load.blocks[load.count++] = p;
    return true;
}

/* What is freed while a text is read was mostly allocated just before. */
static void forget(const void *p)
{
    for (size_t i = load.count; i-- > 0;)
        if (load.blocks[i] == p) {
            load.blocks[i] = load.blocks[--load.count];
            return;
        }
}

static void *watched_malloc(size_t size)
{
    void *p = malloc(size);
    if (p && load.active && !remember(p)) {
        free(p);
        p = NULL;
    }
    if (p)
        return p;
    memory_failed = true;
    if (load.active)
        longjmp(load.stop, 1);
    return NULL;
}

static void watched_free(void *p)
{
    if (p && load.active)
        forget(p);
    free(p);
}

static void install(void)
{
    json_set_alloc_funcs(watched_malloc, watched_free);
}

void hp_json_memory_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    memory_failed = false;
}

bool hp_json_memory_failed(void)
{
    return memory_failed;
}

/* NULL when the text is malformed, and when memory has failed. */
static json_t *read_text(const char *text, size_t len, size_t jansson_flags, json_error_t *error)
{
    load.active = true;
    if (setjmp(load.stop) == 0) {
        json_t *j = json_loadb(text, len, jansson_flags, error);
        load.active = false;
        return j;
    }
    load.active = false;
    for (size_t i = 0; i < load.count; i++)
        free(load.blocks[i]);
    return NULL;
}

int hp_json_load(const char *text, size_t len, size_t jansson_flags, json_t **ret, struct hp_error *e)
{
    bool before = memory_failed;
    json_error_t error = {0};
    hp_json_memory_watch();
    json_t *j = read_text(text, len, jansson_flags, &error);
    free(load.blocks);
    load = (struct load){0};
    bool failed = memory_failed;
    memory_failed = before || failed;
    if (failed)
        return hp_fail(e, HP_ENOMEM, "JSON of %zu bytes", len);
    if (!j)
        return hp_fail(e, HP_EINVAL, "JSON: line %d, column %d: %s", error.line, error.column, error.text);
    *ret = j;
    return 0;
}

char *hp_json_dump(const json_t *json, size_t jansson_flags)
{
    char *text = memory_failed ? NULL : json_dumps(json, jansson_flags);
    if (!memory_failed)
        return text;
    free(text);
    return NULL;
}
