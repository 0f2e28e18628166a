/* Runs a fuzz target without libFuzzer: over every file of a corpus, then for some seconds over mutations of them. A failing input is left in the file named on
 * standard error, for `PROGRAM FILE`. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "fuzz/fuzz.h"

enum { FILES_MAX = 4096, INPUT_MAX_BYTES = 1 << 20, HANG_S = 30 };

struct input {
    uint8_t *data;
    size_t len;
};

static struct input corpus[FILES_MAX];
static size_t corpus_count;
static uint8_t current[INPUT_MAX_BYTES];
static size_t current_len;

static void save_and_die(int signum)
{
    static const char name[] = "fuzz-failure.bin", text[] = "input left in fuzz-failure.bin\n";
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, current, current_len) < 0 || write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(98);
    signal(signum, SIG_DFL);
    raise(signum);
}

static void run_current(void)
{
    alarm(HANG_S);
    LLVMFuzzerTestOneInput(current, current_len);
}

static void add_file(const char *path)
{
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode) || st.st_size > INPUT_MAX_BYTES || corpus_count == FILES_MAX)
        return;
    FILE *f = fopen(path, "r");
    struct input *i = &corpus[corpus_count++];
    i->data = malloc((size_t)st.st_size + 1);
    if (!f || !i->data)
        exit(1);
    i->len = fread(i->data, 1, (size_t)st.st_size, f);
    fclose(f);
}

static void add(const char *path)
{
    DIR *d = opendir(path);
    if (!d) {
        add_file(path);
        return;
    }
    for (struct dirent *entry; (entry = readdir(d));) {
        char file[4096];
        if (entry->d_name[0] != '.' && snprintf(file, sizeof file, "%s/%s", path, entry->d_name) < (int)sizeof file)
            add_file(file);
    }
    closedir(d);
}

static void mutate_once(struct hp_rng *r)
{
    static const uint8_t edges[] = {0, 1, 0x7F, 0x80, 0xFF, 0x10, 0x08, 0x12};
    size_t at = current_len ? hp_rng_below(r, current_len) : 0;
    size_t n = 1 + hp_rng_below(r, 16);
    switch (hp_rng_below(r, 6)) {
    case 0: /* flip a bit */
        if (current_len)
            current[at] ^= (uint8_t)(1U << hp_rng_below(r, 8));
        break;
    case 1: /* an edge value */
        if (current_len)
            current[at] = edges[hp_rng_below(r, sizeof edges)];
        break;
    case 2: /* cut */
        current_len = at;
        break;
    case 3: /* remove some */
        if (at + n <= current_len) {
            memmove(current + at, current + at + n, current_len - at - n);
            current_len -= n;
        }
        break;
    case 4: /* insert noise */
        if (current_len + n <= sizeof current) {
            memmove(current + at + n, current + at, current_len - at);
            hp_rng_fill(r, current + at, n);
            current_len += n;
        }
        break;
    default: { /* go on with a piece of another */
        const struct input *other = &corpus[hp_rng_below(r, corpus_count)];
        size_t from = other->len ? hp_rng_below(r, other->len) : 0, len = other->len - from;
        if (at + len <= sizeof current) {
            memcpy(current + at, other->data + from, len);
            current_len = at + len > current_len ? at + len : current_len;
        }
        break;
    }
    }
}

int main(int argc, char **argv)
{
    long seconds = 0, runs = 0;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--seconds=", 10) == 0)
            seconds = atol(argv[i] + 10);
        else if (strncmp(argv[i], "--seed=", 7) == 0)
            seed = strtoull(argv[i] + 7, NULL, 10);
        else
            add(argv[i]);
    }
    if (corpus_count == 0) {
        fprintf(stderr, "usage: %s [--seconds=N] [--seed=N] CORPUS-DIRECTORY|FILE…\n", argv[0]);
        return 2;
    }
    signal(SIGABRT, save_and_die);
    signal(SIGALRM, save_and_die);
    signal(SIGSEGV, save_and_die);
    for (size_t i = 0; i < corpus_count; i++, runs++) {
        memcpy(current, corpus[i].data, corpus[i].len);
        current_len = corpus[i].len;
        run_current();
    }
    struct hp_rng rng;
    hp_rng_init(&rng, seed);
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        const struct input *from = &corpus[hp_rng_below(&rng, corpus_count)];
        memcpy(current, from->data, from->len);
        current_len = from->len;
        for (uint64_t n = 1 + hp_rng_below(&rng, 5); seconds && n > 0; n--)
            mutate_once(&rng);
        if (seconds)
            run_current();
        runs++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < seconds);
    alarm(0);
    for (size_t i = 0; i < corpus_count; i++)
        free(corpus[i].data);
    printf("%ld inputs\n", runs);
    return 0;
}
