/* main.c — `harpoon-scheduler replay FILE`: one recording, several ways to weigh hosts, side by side. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "replay/replay.h"
#include "shell/weights.h"

enum { VARIANTS_MAX = 16, ENTRIES_MAX = 32 };

static const char usage[] =
    "usage: harpoon-scheduler replay FILE [--weights ENTRY[,ENTRY…]]… [--json]\n\n"
    "Runs what was recorded of a region again, offline: by the weights that [placement] has when it says nothing, then "
    "once more for each --weights\n"
    "(as [placement] weights: [REGION/][CLASS]:ITEM[:ITEM…]; `:pack` packs all). FILE has JSON lines; - is standard "
    "input:\n\n"
    "    harpoon events --after 0 -n 1000000 -o jsonl > FILE\n\n"
    "or, when the region's first events are not kept any more, what there is now before what happens then:\n\n"
    "    (harpoon hosts list -o jsonl; harpoon get containers -o jsonl; harpoon events -f -o jsonl) > FILE\n\n"
    "The host that each create got first is compared with that of the first run.\n";

struct options {
    const char *file;
    const char *weights[VARIANTS_MAX];
    size_t count;
    bool json;
};

static bool parse(int argc, char **argv, struct options *o)
{
    *o = (struct options){.weights = {""}, .count = 1};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json"))
            o->json = true;
        else if (!strcmp(argv[i], "--weights") && i + 1 < argc && o->count < VARIANTS_MAX)
            o->weights[o->count++] = argv[++i];
        else if (!o->file && (argv[i][0] != '-' || !argv[i][1]))
            o->file = argv[i];
        else
            return false;
    }
    return o->file;
}

static int configure(const char *weights, const char *region, struct sc_region_config *ret, struct hp_error *e)
{
    char *entries[ENTRIES_MAX + 1] = {0}, *rest = NULL, *copy = strdup(weights);
    size_t n = 0;
    sc_region_config_defaults(ret);
    if (!copy)
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    for (char *at = strtok_r(copy, ",", &rest); at && n < ENTRIES_MAX; at = strtok_r(NULL, ",", &rest))
        entries[n++] = at;
    int code = sc_weights_apply(entries, region, ret, e);
    free(copy);
    return code;
}

static int differing(const struct sc_replayed *a, const struct sc_replayed *b)
{
    int n = 0;
    for (int i = 0; i < a->creates && i < b->creates; i++)
        n += strcmp(a->places[i], b->places[i]) != 0;
    return n;
}

static json_t *row(const char *weights, const struct sc_replayed *x, const struct sc_replayed *first)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:i, s:i}", "weights",
                     weights, "creates", x->creates, "placed", x->placed, "refused", x->refused, "waiting", x->waiting,
                     "differ", differing(first, x), "withImage", x->with_image, "deletes", x->deletes, "resizes",
                     x->resizes, "resizesRefused", x->resizes_refused, "hosts", x->hosts, "hostsEmpty", x->hosts_empty,
                     "imbalance", x->imbalance, "fullest", x->fullest, "primariesMost", x->primaries_most,
                     "primariesLeast", x->primaries_least);
}

static void print_table(const struct options *o, const struct sc_replayed *all)
{
    printf("%7s %7s %7s %7s %7s %7s %9s %8s %11s %9s  %s\n", "CREATES", "PLACED", "REFUSED", "WAITING", "DIFFER",
           "IMAGE", "IMBALANCE", "FULLEST", "EMPTY HOSTS", "PRIMARIES", "WEIGHTS");
    for (size_t i = 0; i < o->count; i++) {
        const struct sc_replayed *x = &all[i];
        printf("%7d %7d %7d %7d %7d %7d %9.2f %7.1f%% %5d/%-5d %4d-%-4d  %s\n", x->creates, x->placed, x->refused,
               x->waiting, differing(&all[0], x), x->with_image, x->imbalance, x->fullest, x->hosts_empty, x->hosts,
               x->primaries_least, x->primaries_most, i ? o->weights[i] : "(defaults)");
    }
}

static int print_json(const struct options *o, const struct sc_replayed *all)
{
    json_t *rows = json_array(), *out = json_pack("{s:o}", "runs", rows);
    for (size_t i = 0; out && i < o->count; i++)
        if (json_array_append_new(rows, row(o->weights[i], &all[i], &all[0])))
            break;
    char *text =
        out && json_array_size(rows) == o->count ? json_dumps(out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    if (text)
        printf("%s\n", text);
    free(text);
    json_decref(out);
    return text ? 0 : HP_ENOMEM;
}

/* The region's name decides which entries hold. */
static const char *region_of(const struct sc_recording *x, char ret[64])
{
    *ret = '\0';
    for (size_t i = 0; i < x->count && !*ret; i++) {
        const Harpoon__V1__Event *ev = x->items[i].event;
        const Harpoon__V1__Host *h = x->items[i].host;
        if (ev)
            snprintf(ret, 64, "%.63s", ev->region);
        else if (h)
            (void)sscanf(h->name, "regions/%63[^/]", ret);
    }
    return ret;
}

static int run(const struct options *o, struct hp_error *e)
{
    struct sc_recording in;
    struct sc_replayed all[VARIANTS_MAX] = {0};
    struct sc_region_config config;
    char region[64];
    FILE *f = strcmp(o->file, "-") ? fopen(o->file, "re") : stdin;
    if (!f)
        return hp_fail_errno(e, HP_EIO, errno, "open %s", o->file);
    int code = sc_recording_read(f, &in, e);
    if (f != stdin)
        (void)fclose(f);
    for (size_t i = 0; i < o->count && !code; i++) {
        code = configure(o->weights[i], region_of(&in, region), &config, e);
        if (!code)
            code = sc_replay_run(&in, &config, &all[i], e);
    }
    if (!code && o->json)
        code = print_json(o, all);
    else if (!code)
        print_table(o, all);
    for (size_t i = 0; i < o->count; i++)
        free(all[i].places);
    sc_recording_done(&in);
    return code ? hp_wrap(e, "%s", o->file) : 0;
}

int sc_replay_main(int argc, char **argv)
{
    struct options o;
    struct hp_error e = {0};
    if (!parse(argc, argv, &o)) {
        fputs(usage, stderr);
        return 2;
    }
    if (!run(&o, &e))
        return 0;
    fprintf(stderr, "harpoon-scheduler replay: %s\n", e.message);
    return 1;
}
