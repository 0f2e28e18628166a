/* world.c — simulated time, chance, memory and the trace. */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim.h"
#include "wire/codec.h"

bool sim_keep_trace;

enum { CHUNK_BYTES = 256 * 1024 };

struct sim_chunk {
    struct sim_chunk *next;
    size_t used, room;
    max_align_t bytes[];
};

void *sim_alloc(struct sim_world *w, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct sim_chunk *c = w->chunks;
    if (!c || c->used + size > c->room) {
        size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        c = malloc(sizeof *c + room);
        if (!c)
            abort();
        c->next = w->chunks;
        c->used = 0;
        c->room = room;
        w->chunks = c;
    }
    void *p = (char *)c->bytes + c->used;
    c->used += size;
    return memset(p, 0, size);
}

void *sim_copy(struct sim_world *w, const void *data, size_t len)
{
    void *p = sim_alloc(w, len ? len : 1);
    if (len)
        memcpy(p, data, len);
    return p;
}

char *sim_text(struct sim_world *w, const char *text)
{
    return text ? sim_copy(w, text, strlen(text) + 1) : NULL;
}

char *sim_join(struct sim_world *w, const char *a, const char *b)
{
    size_t n = strlen(a);
    char *text = sim_alloc(w, n + strlen(b) + 1);
    memcpy(text, a, n);
    strcpy(text + n, b);
    return text;
}

void *sim_unpack(const ProtobufCMessageDescriptor *d, const uint8_t *bytes, size_t len)
{
    ProtobufCMessage *m = NULL;
    struct hp_error e = {0};
    if (hp_unpack(d, bytes, len, NULL, &m, &e)) {
        fprintf(stderr, "a message that cannot be read: %s\n", e.message);
        abort();
    }
    return m;
}

void sim_world_init(struct sim_world *w, const struct sim_options *o, uint64_t seed)
{
    *w = (struct sim_world){.o = o, .seed = seed, .now = SIM_S, .size = {2, 2, 4, 2, 14}};
    hp_rng_init(&w->rng, seed);
}

void sim_world_done(struct sim_world *w)
{
    while (w->chunks) {
        struct sim_chunk *c = w->chunks;
        w->chunks = c->next;
        free(c);
    }
    free(w->heap);
    for (size_t i = 0; i < SIM_TRACE_LINES; i++)
        free(w->lines[i]);
}

/* ---- Events ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct sim_world *w, struct sim_event ev)
{
    if (w->heap_count == w->heap_room) {
        w->heap_room = w->heap_room ? 2 * w->heap_room : 1024;
        w->heap = realloc(w->heap, w->heap_room * sizeof *w->heap);
        if (!w->heap)
            abort();
    }
    size_t i = w->heap_count++;
    while (i && before(&ev, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = ev;
}

static struct sim_event pop(struct sim_world *w)
{
    struct sim_event top = w->heap[0], last = w->heap[--w->heap_count];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < w->heap_count; i = k) {
        if (k + 1 < w->heap_count && before(&w->heap[k + 1], &w->heap[k]))
            k++;
        if (!before(&w->heap[k], &last))
            break;
        w->heap[i] = w->heap[k];
    }
    w->heap[i] = last;
    return top;
}

void sim_after(struct sim_world *w, uint64_t delay, struct sim_process *p, sim_fn fn, void *arg)
{
    if (p && !p->alive)
        return;
    push(w, (struct sim_event){w->now + delay, w->order++, fn, arg, p, p ? p->life : 0});
}

void sim_send(struct sim_world *w, struct sim_channel *c, uint64_t delay, struct sim_process *p, sim_fn fn, void *arg)
{
    uint64_t at = w->now + delay;
    at = at > c->stalled_until ? at : c->stalled_until;
    c->last = at > c->last ? at : c->last;
    sim_after(w, c->last - w->now, p, fn, arg);
}

bool sim_step(struct sim_world *w, uint64_t until)
{
    if (!w->heap_count || w->heap[0].at > until)
        return false;
    struct sim_event ev = pop(w);
    assert(ev.at >= w->now);
    w->now = ev.at;
    if (ev.process && (!ev.process->alive || ev.process->life != ev.life))
        return true;
    if (ev.process && ev.process->paused_until > w->now) {
        ev.at = ev.process->paused_until;
        push(w, ev); /* its order among those that wait stays */
        return true;
    }
    w->events++;
    ev.fn(w, ev.arg);
    return true;
}

void sim_process_die(struct sim_process *p)
{
    p->alive = false;
    p->life++;
    p->paused_until = 0;
}

bool sim_process_pause(struct sim_world *w, struct sim_process *p, uint64_t length)
{
    if (!p->alive || p->paused_until > w->now)
        return false;
    p->paused_until = w->now + length;
    return true;
}

/* ---- Chance ---- */

uint64_t sim_below(struct sim_world *w, uint64_t limit)
{
    return w->o->scenario ? 0 : hp_rng_below(&w->rng, limit);
}

bool sim_chance(struct sim_world *w, unsigned percent)
{
    return !w->o->scenario && hp_rng_below(&w->rng, 100) < percent;
}

uint64_t sim_between(struct sim_world *w, uint64_t least, uint64_t most)
{
    return w->o->scenario ? least + (most - least) / 2 : least + hp_rng_below(&w->rng, most - least + 1);
}

uint64_t sim_delay(struct sim_world *w)
{
    uint64_t d = sim_between(w, 50, 1500);
    return w->now < w->slow_until ? d * 200 : d;
}

struct sc_time sim_time(const struct sim_world *w)
{
    return (struct sc_time){w->now / 1000, 1700000000LL * 1000000000 + (int64_t)w->now * 1000 + w->wall_offset_ns};
}

/* ---- Trace ---- */

__attribute__((format(printf, 2, 0))) static void keep_line(struct sim_world *w, const char *fmt, va_list ap)
{
    char text[512];
    int n = w->o->scenario ? 0 : snprintf(text, sizeof text, "%10.3f ", (double)w->now / 1e6);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    if (w->o->trace)
        printf("%s\n", text);
    char **slot = &w->lines[w->line_count++ % SIM_TRACE_LINES];
    free(*slot);
    *slot = strdup(text);
}

bool sim_tracing(const struct sim_world *w)
{
    return w->o->trace || sim_keep_trace;
}

void sim_trace(struct sim_world *w, const char *fmt, ...)
{
    va_list ap;
    if (!sim_tracing(w))
        return;
    va_start(ap, fmt);
    keep_line(w, fmt, ap);
    va_end(ap);
}

void sim_violation(struct sim_world *w, const char *check, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (w->violations++ < SIM_VIOLATIONS && !sim_keep_trace) {
        printf("VIOLATION %s seed=%" PRIu64 " at %.3f s: %s\n", check, w->seed, (double)w->now / 1e6, text);
        fflush(stdout); /* whoever waits for it need not wait for the other seeds */
    }
    sim_trace(w, "VIOLATION %s: %s", check, text);
}

void sim_print_tail(struct sim_world *w, size_t lines)
{
    size_t n = w->line_count < SIM_TRACE_LINES ? w->line_count : SIM_TRACE_LINES;
    n = n < lines ? n : lines;
    for (size_t i = w->line_count - n; i < w->line_count; i++)
        printf("%s\n", w->lines[i % SIM_TRACE_LINES]);
}
