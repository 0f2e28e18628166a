/* What a crash may leave of the agent's journal, image by image, opened by the real journal: the state found is one between the last that was told durable and
 * the last that was handed over, never another.
 *
 * Runs are recorded (journal_run.c). At each point of a run's operations an image is made of what is durable and a choice of what is not: everything (kill -9:
 * the prefix), nothing, each operation alone lost, each alone kept, each prefix of them, all choices when they are few and some random ones otherwise; and the
 * last write torn at each sector, each page, in the middle, and with its beginning lost instead of its end. Equal images count once.
 *
 * Besides: a second crash during the recovery from the first; a further batch after a recovery; and bytes of what is durable that change by themselves, which must
 * be noticed and said, or mean nothing. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "core/agent_core.h"
#include "io/loop.h"
#include "shell/journal_sqlite.h"
#include "torture/journal_run.h"

#define LAST_SESSION ((int64_t)1 << 62) /* as late as a core takes it */

enum {
    PENDING_MAX = 512,
    SUBSETS_MAX = 5,
    TWICE_EVERY = 16,
    DAMAGES = 30,
    WORKERS_MAX = 16,
    RUN_BATCHES = 40,
    SECTOR = 512,
    PAGE = 4096
};

struct options {
    uint64_t seed, images; /* first run; wanted in all */
    int workers;
    struct mv_broken broken;
    bool expect; /* a violation is what is looked for */
};

struct counts {
    uint64_t runs, operations, images, repeated, twice, followed, damaged, refused, violations;
};

/* An operation that is not durable yet. */
struct pending {
    size_t op;
    bool synced; /* its file was synced; the file's creation was not */
    bool keep;   /* is part of the image */
};

/* One open-addressed set of images: digest and the state found in it. */
struct seen {
    uint64_t *keys, *states;
    size_t cap, count;
};

struct world {
    const struct options *o;
    int worker;
    uv_loop_t *loop;
    struct counts n;
    struct seen seen;
    /* Of the run at hand. */
    const struct journal_run *run;
    const struct mv_log *log;
    struct mv_disk durable, image;
    struct pending pending[PENDING_MAX];
    size_t pending_count, point;
    uint64_t low, high; /* states that are allowed */
    size_t
        tail[3]; /* where the write-ahead log was written for the batches under way, the last ones told, those before */
    bool nested; /* the log goes on into a recovery */
    uint64_t synced;
    struct hp_rng rng;
};

/* ---- opening an image ---- */

static const char *const kind_names[] = {"create", "delete", "write", "truncate", "sync", "sync of the directory",
                                         "mark"};
static const char *const file_names[] = {"journal", "rollback journal", "write-ahead log"};

static void violation(struct world *w, const char *what, const char *detail)
{
    w->n.violations++;
    if (w->n.violations > 5)
        return;
    const struct mv_op *op = w->point ? &w->log->ops[w->point - 1] : NULL;
    fprintf(stderr,
            "run %" PRIu64
            " (%s)%s, after operation %zu of %zu (%s of the %s, %zu bytes at %zu): %s: %s\n  not durable, + kept:",
            w->run->seed, w->run->kind, w->nested ? ", crashed twice" : "", w->point, w->log->count,
            op ? kind_names[op->kind] : "", op ? file_names[op->file] : "", op ? op->len : 0, op ? op->offset : 0, what,
            detail);
    for (size_t i = 0; i < w->pending_count; i++)
        fprintf(stderr, " %c%zu", w->pending[i].keep ? '+' : '-', w->pending[i].op);
    fprintf(stderr, "\n");
}

/* Opens, reads, checks that the core takes it, and closes. Returns the journal's answer. `log` (may be NULL) gets what the opening did. */
static int recover(struct world *w, struct mv_disk *d, struct mv_log *log, uint64_t *ret_state, struct hp_error *e)
{
    static const struct ha_core_options options = {.region = "r1", .host = "h1", .seed = 7};
    struct ha_sqlite *j;
    struct ha_image image;
    struct ha_core *core;
    mv_use(d, log);
    int rc = ha_sqlite_open(w->loop, "journal.db", &j, &image, e);
    mv_use(d, NULL);
    *ret_state = 0;
    if (rc)
        return rc;
    *ret_state = journal_state_digest(&image);
    if (w->run->seed % 2) { /* the others have records that no agent would write */
        rc = ha_core_new(&options, &image, &core, e);
        if (rc)
            violation(w, "the core refuses what the journal read", e->message);
        else
            ha_core_free(core);
    }
    ha_image_done(&image);
    ha_sqlite_close(j);
    uv_run(w->loop, UV_RUN_NOWAIT);
    return 0;
}

static bool allowed(const struct world *w, uint64_t state)
{
    for (uint64_t i = w->low; i <= w->high; i++)
        if (w->run->states[i] == state)
            return true;
    return false;
}

static void judge(struct world *w, uint64_t state)
{
    char detail[128];
    if (allowed(w, state))
        return;
    int64_t found = -1;
    for (size_t i = 0; i < w->run->state_count; i++)
        if (w->run->states[i] == state)
            found = (int64_t)i;
    snprintf(detail, sizeof detail, "state %" PRId64 " is there; %" PRIu64 " was told durable, %" PRIu64 " handed over",
             found, w->low, w->high);
    violation(w, found < 0 ? "a state that never was" : found < (int64_t)w->low ? "lost" : "too early", detail);
}

/* ---- the set of images ---- */

static void seen_grow(struct seen *s)
{
    struct seen bigger = {.cap = s->cap ? s->cap * 2 : 4096};
    bigger.keys = calloc(bigger.cap, sizeof *bigger.keys);
    bigger.states = calloc(bigger.cap, sizeof *bigger.states);
    if (!bigger.keys || !bigger.states)
        abort();
    for (size_t i = 0; i < s->cap; i++) {
        if (!s->keys[i])
            continue;
        size_t at = s->keys[i] & (bigger.cap - 1);
        while (bigger.keys[at])
            at = (at + 1) & (bigger.cap - 1);
        bigger.keys[at] = s->keys[i];
        bigger.states[at] = s->states[i];
    }
    free(s->keys);
    free(s->states);
    bigger.count = s->count;
    *s = bigger;
}

/* Where the key is, or would be. */
static size_t seen_at(struct seen *s, uint64_t key)
{
    if (s->count * 2 >= s->cap)
        seen_grow(s);
    size_t at = key & (s->cap - 1);
    while (s->keys[at] && s->keys[at] != key)
        at = (at + 1) & (s->cap - 1);
    return at;
}

/* ---- making images ---- */

/* Creations and removals of one file happen in their order; what was synced comes with its file. */
static void make_consistent(struct world *w)
{
    for (int f = 0; f < MV_FILES; f++) {
        bool linked = true, reached = true;
        for (size_t i = 0; i < w->pending_count; i++) {
            struct pending *p = &w->pending[i];
            const struct mv_op *op = &w->log->ops[p->op];
            if ((int)op->file != f)
                continue;
            if (op->kind == MV_CREATE || op->kind == MV_DELETE) {
                p->keep = p->keep && reached;
                reached = p->keep;
                linked = p->keep || op->kind == MV_DELETE;
            } else {
                p->keep = linked && (p->keep || p->synced);
            }
        }
    }
}

static void build(struct world *w)
{
    make_consistent(w);
    mv_disk_copy(&w->image, &w->durable);
    for (size_t i = 0; i < w->pending_count; i++)
        if (w->pending[i].keep)
            mv_disk_apply(&w->image, &w->log->ops[w->pending[i].op]);
}

static void try_on(struct world *w, uint64_t state);

/* Opens the image that was built, unless it was opened before. */
static void try_image(struct world *w)
{
    uint64_t key = mv_disk_digest(&w->image) | 1;
    if (!w->nested && (key >> 8) % (uint64_t)w->o->workers != (uint64_t)w->worker)
        return;
    size_t at = seen_at(&w->seen, key);
    struct hp_error e = {0};
    uint64_t state;
    if (w->seen.keys[at]) {
        w->n.repeated++;
        judge(w, w->seen.states[at]);
        return;
    }
    bool more = !w->nested && (key >> 32) % 32 == 0;
    static struct mv_disk fresh;
    if (more)
        mv_disk_copy(&fresh, &w->image);
    int rc = recover(w, &w->image, NULL, &state, &e);
    w->seen.keys[at] = key;
    w->seen.states[at] = state;
    w->seen.count++;
    w->n.images++;
    if (rc) {
        violation(w, "refused", e.message);
        return;
    }
    judge(w, state);
    if (more) {
        mv_disk_copy(&w->image, &fresh);
        try_on(w, state);
    }
}

static void keep_all(struct world *w, bool keep)
{
    for (size_t i = 0; i < w->pending_count; i++)
        w->pending[i].keep = keep;
}

static void try_choice(struct world *w)
{
    build(w);
    try_image(w);
}

static void try_choices(struct world *w)
{
    size_t n = w->pending_count;
    for (int keep = 0; keep < 2; keep++) {
        keep_all(w, keep);
        try_choice(w);
        for (size_t i = 0; i < n; i++) {
            keep_all(w, keep);
            w->pending[i].keep = !keep;
            try_choice(w);
        }
    }
    for (size_t upto = 1; upto < n; upto++) {
        keep_all(w, false);
        for (size_t i = 0; i < upto; i++)
            w->pending[i].keep = true;
        try_choice(w);
    }
    size_t random = n <= SUBSETS_MAX ? (size_t)1 << n : 12;
    for (size_t s = 0; s < random; s++) {
        uint64_t bits = n <= SUBSETS_MAX ? s : hp_rng_next(&w->rng);
        for (size_t i = 0; i < n; i++)
            w->pending[i].keep = bits >> (i % 64) & 1;
        try_choice(w);
    }
}

/* The i-th pending write arrives only from `from` to `to`; the others as chosen. */
static void try_torn(struct world *w, size_t i, size_t from, size_t to)
{
    struct pending *p = &w->pending[i];
    if (p->synced)
        return;
    p->keep = true;
    make_consistent(w);
    if (!p->keep)
        return;
    p->keep = false;
    mv_disk_copy(&w->image, &w->durable);
    for (size_t k = 0; k < w->pending_count; k++) {
        if (k == i)
            mv_disk_apply_part(&w->image, &w->log->ops[p->op], from, to);
        else if (w->pending[k].keep)
            mv_disk_apply(&w->image, &w->log->ops[w->pending[k].op]);
    }
    try_image(w);
}

static void try_cut(struct world *w, size_t i, size_t cut)
{
    size_t len = w->log->ops[w->pending[i].op].len;
    for (int keep = 0; keep < 2; keep++) {
        keep_all(w, keep);
        try_torn(w, i, 0, cut);
        keep_all(w, keep);
        try_torn(w, i, cut, len);
    }
    for (size_t k = 0; k < w->pending_count; k++)
        w->pending[k].keep = hp_rng_below(&w->rng, 2);
    try_torn(w, i, 0, cut);
}

static void try_tears(struct world *w)
{
    size_t last = w->pending_count - 1;
    const struct mv_op *op = &w->log->ops[w->pending[last].op];
    if (op->kind != MV_WRITE || w->pending[last].op + 1 != w->point)
        return;
    for (size_t cut = SECTOR - op->offset % SECTOR; cut < op->len; cut += SECTOR)
        try_cut(w, last, cut);
    size_t odd[] = {1, op->len / 2, op->len / 2 + 1, op->len - 1};
    for (size_t i = 0; i < 4; i++)
        if (odd[i] > 0 && odd[i] < op->len)
            try_cut(w, last, odd[i]);
}

/* ---- what is durable ---- */

/* Takes what a sync has made durable out of the list, in order. */
static void settle(struct world *w, const struct mv_op *sync)
{
    bool relinked[MV_FILES] = {false};
    size_t n = 0;
    for (size_t i = 0; i < w->pending_count; i++) {
        struct pending p = w->pending[i];
        const struct mv_op *op = &w->log->ops[p.op];
        bool entry = op->kind == MV_CREATE || op->kind == MV_DELETE;
        relinked[op->file] |= entry && sync->kind == MV_SYNC;
        bool done;
        if (sync->kind == MV_SYNCDIR) {
            done = entry || p.synced;
        } else {
            p.synced |= !entry && op->file == sync->file;
            done = p.synced && !relinked[op->file];
        }
        if (done)
            mv_disk_apply(&w->durable, op);
        else
            w->pending[n++] = p;
    }
    w->pending_count = n;
}

/* The log's next operation happens. */
static void advance(struct world *w)
{
    const struct mv_op *op = &w->log->ops[w->point++];
    if (op->kind == MV_MARK) {
        if (op->a != w->low && w->tail[0] != SIZE_MAX) { /* a batch may change nothing */
            w->tail[2] = w->tail[1];
            w->tail[1] = w->tail[0];
            w->tail[0] = SIZE_MAX;
        }
        w->low = op->a;
        w->high = op->b;
    } else if (op->kind == MV_SYNC || op->kind == MV_SYNCDIR) {
        settle(w, op);
    } else {
        if (w->pending_count == PENDING_MAX)
            abort();
        if (op->kind == MV_WRITE && op->file == MV_WAL && op->offset < w->tail[0])
            w->tail[0] = op->offset;
        w->pending[w->pending_count++] = (struct pending){.op = w->point - 1};
    }
}

static void rewind_to(struct world *w, const struct mv_log *log)
{
    w->log = log;
    w->point = w->pending_count = 0;
    w->low = w->high = 0;
    w->tail[0] = w->tail[1] = w->tail[2] = SIZE_MAX;
    for (int i = 0; i < MV_FILES; i++)
        free(w->durable.files[i].data);
    w->durable = (struct mv_disk){0};
}

/* ---- a second crash; life after a crash ---- */

/* After kill -9 nothing written is lost, but nothing is more durable than it was. What the next start reads it takes as durable: so it must be, or become so,
 * before the start is done; also when the start itself is cut off. */
static void try_twice(struct world *w)
{
    struct mv_log log = {0};
    struct hp_error e = {0};
    uint64_t state, low = w->low, high = w->high;
    size_t point = w->point, found;
    mv_log_copy(&log, w->log, point);
    keep_all(w, true);
    build(w);
    if (recover(w, &w->image, &log, &state, &e) || !allowed(w, state))
        return; /* told by the first crash's images */
    for (found = low; w->run->states[found] != state; found++)
        ;
    mv_log_mark(&log, found, found);
    static struct world second;
    second =
        (struct world){.o = w->o, .loop = w->loop, .run = w->run, .nested = true, .rng = w->rng, .seen = second.seen};
    rewind_to(&second, &log);
    while (second.point < log.count) {
        advance(&second);
        if (second.point <= point)
            continue;
        for (int keep = 0; keep < 2; keep++) {
            keep_all(&second, keep);
            try_choice(&second);
        }
    }
    w->n.twice += second.n.images;
    w->n.violations += second.n.violations;
    w->low = low;
    w->high = high;
    rewind_to(&second, NULL);
    mv_log_done(&log);
}

static void on_synced(void *user, uint64_t seq, int status, const struct hp_error *e)
{
    struct world *w = user;
    w->synced = status ? UINT64_MAX : seq;
}

/* The journal works on after a crash: one more batch is durable, and nothing before it has changed. */
static void try_on(struct world *w, uint64_t state)
{
    static struct mv_disk after;
    struct ha_write more = {.kind = HA_WRITE_META, .meta_key = HA_META_SESSION, .number = LAST_SESSION};
    struct ha_sqlite *j;
    struct ha_image image;
    struct hp_error e = {0};
    uint64_t end = hp_now_ms() + 60000, now;
    mv_use(&w->image, NULL);
    if (ha_sqlite_open(w->loop, "journal.db", &j, &image, &e)) {
        violation(w, "refused at the second opening", e.message);
        return;
    }
    if (journal_state_digest(&image) != state)
        violation(w, "opened twice", "the states differ");
    image.meta[HA_META_SESSION] = LAST_SESSION;
    uint64_t expected = journal_state_digest(&image);
    ha_image_done(&image);
    w->synced = 0;
    ha_sqlite_journal(j)->synced_cb = on_synced;
    ha_sqlite_journal(j)->user = w;
    ha_sqlite_journal(j)->write(ha_sqlite_journal(j), 1, &more, 1);
    while (!w->synced && hp_now_ms() < end)
        uv_run(w->loop, UV_RUN_ONCE);
    mv_disk_copy(&after, &w->image);
    ha_sqlite_close(j);
    uv_run(w->loop, UV_RUN_NOWAIT);
    if (w->synced != 1)
        violation(w, "after a crash", "a further batch does not become durable");
    else if (recover(w, &after, NULL, &now, &e) || now != expected)
        violation(w, "after a crash and a further batch", e.message[0] ? e.message : "another state is there");
    w->n.followed++;
}

/* ---- damage ---- */

/* A byte of what is durable changes by itself. Either it has no meaning, or the journal says so: it never reads another state. But for the end of the write-ahead
 * log: nothing tells damage in its last two transactions from a crash before they were finished. */
static void try_damage(struct world *w)
{
    static struct mv_disk damaged;
    size_t first = w->tail[1] < w->tail[2] ? w->tail[1] : w->tail[2];
    for (int i = 0; i < DAMAGES; i++) {
        enum mv_file_id file = hp_rng_below(&w->rng, 2) ? MV_MAIN : MV_WAL;
        size_t size = w->durable.files[file].size;
        struct hp_error e = {0};
        uint64_t state;
        char detail[256];
        if (file == MV_WAL && size > first)
            size = first;
        if (!size)
            continue;
        size_t at = hp_rng_below(&w->rng, size);
        uint8_t mask = (uint8_t)(1 + hp_rng_below(&w->rng, 255));
        mv_disk_copy(&damaged, &w->durable);
        mv_disk_flip(&damaged, file, at, mask);
        int rc = recover(w, &damaged, NULL, &state, &e);
        w->n.damaged++;
        w->n.refused += rc != 0;
        snprintf(detail, sizeof detail, "%s, byte %zu of %zu, ^%#x: %.150s", file_names[file], at, size, mask,
                 e.message);
        if (rc == 0 && !allowed(w, state))
            violation(w, "damage that nobody noticed", detail);
        /* a version that does not exist yet is refused as such */
        if (rc && rc != HP_EUNSUPPORTED && (rc != HP_ECORRUPT || !strstr(e.message, "--quarantine-journal")))
            violation(w, "damage that was not called so", detail);
    }
}

/* ---- runs ---- */

static void torture(struct world *w, uint64_t limit)
{
    struct journal_run run;
    journal_run_record(&run, w->o->seed + w->n.runs, RUN_BATCHES);
    w->run = &run;
    w->n.runs++;
    w->n.operations += run.log.count;
    hp_rng_init(&w->rng, run.seed);
    rewind_to(w, &run.log);
    while (w->point < run.log.count && w->n.images < limit) {
        advance(w);
        try_choices(w);
        if (w->pending_count)
            try_tears(w);
        if (w->low == w->high && !w->pending_count && w->log->ops[w->point - 1].kind == MV_MARK)
            try_damage(w);
        if ((int)(w->point % (size_t)w->o->workers) == w->worker && w->point % TWICE_EVERY < (size_t)w->o->workers)
            try_twice(w);
    }
    rewind_to(w, NULL);
    journal_run_done(&run);
}

static void on_tick(uv_timer_t *t)
{
}

static void work(const struct options *o, int worker, int out)
{
    static struct world w;
    static uv_loop_t loop;
    static uv_timer_t tick; /* keeps the loop turning: the journal does not */
    uint64_t limit = (o->images + (uint64_t)o->workers - 1) / (uint64_t)o->workers;
    w = (struct world){.o = o, .worker = worker, .loop = &loop};
    uv_loop_init(&loop);
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 5, 5);
    while (w.n.images < limit && w.n.violations == 0)
        torture(&w, limit);
    if (write(out, &w.n, sizeof w.n) != sizeof w.n)
        _exit(1);
    _exit(0);
}

static bool work_all(const struct options *o, struct counts *sum)
{
    int fds[2], status;
    bool good = true;
    if (pipe(fds))
        return false;
    for (int i = 0; i < o->workers; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return false;
        if (pid == 0)
            work(o, i, fds[1]);
    }
    close(fds[1]);
    struct counts n;
    while (read(fds[0], &n, sizeof n) == sizeof n) {
        sum->runs = n.runs > sum->runs ? n.runs : sum->runs; /* all workers look at the same runs */
        sum->operations = n.operations > sum->operations ? n.operations : sum->operations;
        sum->images += n.images;
        sum->repeated += n.repeated;
        sum->twice += n.twice;
        sum->followed += n.followed;
        sum->damaged += n.damaged;
        sum->refused += n.refused;
        sum->violations += n.violations;
    }
    close(fds[0]);
    for (int i = 0; i < o->workers; i++)
        good = wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 && good;
    return good;
}

static const char usage[] =
    "journal-images [--images N] [--seed N] [--workers N] [--checkpoint PAGES] [--break sync|full] [--expect]\n"
    "  --images      different images to open (100000)\n"
    "  --seed        of the first recorded run (1); runs follow one another until there are enough images\n"
    "  --checkpoint  pages of write-ahead log after which it is carried over (24); 0: as the journal itself says\n"
    "  --break       sync: the disk does not sync; full: the journal does not ask it to at a commit\n"
    "  --expect      a violation is wanted: the exit code says whether there was one\n";

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"images", 1, NULL, 'i'}, {"seed", 1, NULL, 's'},   {"workers", 1, NULL, 'w'}, {"checkpoint", 1, NULL, 'c'},
        {"break", 1, NULL, 'b'},  {"expect", 0, NULL, 'e'}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 'i')
            o->images = strtoull(optarg, NULL, 10);
        else if (c == 's')
            o->seed = strtoull(optarg, NULL, 10);
        else if (c == 'w')
            o->workers = atoi(optarg);
        else if (c == 'c')
            o->broken.checkpoint_at = atoi(optarg);
        else if (c == 'b' && strcmp(optarg, "sync") == 0)
            o->broken.no_sync = true;
        else if (c == 'b' && strcmp(optarg, "full") == 0)
            o->broken.no_full = true;
        else if (c == 'e')
            o->expect = true;
        else
            return false;
    }
    return o->workers >= 1 && o->workers <= WORKERS_MAX && optind == argc;
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1, .images = 100000, .workers = 2, .broken = {.checkpoint_at = 24}};
    struct counts n = {0};
    if (!parse(argc, argv, &o)) {
        fputs(usage, stderr);
        return 2;
    }
    uint64_t begin = hp_now_ms();
    mv_install();
    mv_options(&o.broken);
    bool good = work_all(&o, &n);
    printf("{\"runs\":%" PRIu64 ",\"operations\":%" PRIu64 ",\"images\":%" PRIu64 ",\"repeated\":%" PRIu64
           ",\"crashed_twice\":%" PRIu64 ",\"worked_on\":%" PRIu64 ",\"damaged\":%" PRIu64
           ",\"damage_refused\":%" PRIu64 ",\"violations\":%" PRIu64 ",\"seconds\":%.1f}\n",
           n.runs, n.operations, n.images, n.repeated, n.twice, n.followed, n.damaged, n.refused, n.violations,
           (double)(hp_now_ms() - begin) / 1000);
    if (!good || (!o.expect && n.images < o.images))
        return 1;
    return (n.violations > 0) == o.expect ? 0 : 1;
}
