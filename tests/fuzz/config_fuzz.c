/* A daemon's configuration with a drop-in and a --set, and the tokens file. The input: a byte (which), then file NUL drop-in NUL --set.
 *
 * Asserted: a configuration loads, or is refused with a message and leaves the target zeroed; numbers that load are within their limits; what is required is there; loading the same again gives the same. Tokens: a
 * principal is found by its secret only, and has valid projects. */
#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "io/config.h"
#include "shell/config.h"
#include "shell/tokens.h"
#include "wire/names.h"

struct target {
    char *text, *address, *broker, *subnet, *file;
    int64_t number, size, time;
    bool flag;
    char **list, **addresses;
};

static const struct hp_config_key keys[] = {
    {"a", "text", HP_CONFIG_STRING, offsetof(struct target, text), "none", true, 0, 0, "a text"},
    {"a", "number", HP_CONFIG_INT, offsetof(struct target, number), "5", false, -10, 10, "a number"},
    {"a", "flag", HP_CONFIG_BOOL, offsetof(struct target, flag), "no", false, 0, 0, "a choice"},
    {"a", "size", HP_CONFIG_SIZE, offsetof(struct target, size), "1K", false, 1, 1LL << 40, "bytes"},
    {"b", "time", HP_CONFIG_TIME, offsetof(struct target, time), "1s", false, 1, 86400000, "a time"},
    {"b", "list", HP_CONFIG_LIST, offsetof(struct target, list), NULL, false, 0, 0, "texts"},
    {"b", "address", HP_CONFIG_ADDRESS, offsetof(struct target, address), NULL, false, 0, 0, "an address"},
    {"b", "addresses", HP_CONFIG_ADDRESSES, offsetof(struct target, addresses), NULL, false, 0, 0, "addresses"},
    {"b", "broker", HP_CONFIG_BROKER, offsetof(struct target, broker), NULL, false, 0, 0, "a broker"},
    {"b", "file", HP_CONFIG_FILE, offsetof(struct target, file), NULL, false, 0, 0, "a file"},
    {"b", "subnet", HP_CONFIG_SUBNET, offsetof(struct target, subnet), NULL, false, 0, 0, "a subnet"},
    {0}};

static char dir[64], file[96], drop_in[128];

static void clean_up(void)
{
    char name[96];
    unlink(drop_in);
    snprintf(name, sizeof name, "%s.d", file);
    rmdir(name);
    unlink(file);
    rmdir(dir);
}

static void start(void)
{
    char name[112];
    snprintf(dir, sizeof dir, "/dev/shm/harpoon-fuzz-XXXXXX");
    if (!mkdtemp(dir))
        abort();
    snprintf(file, sizeof file, "%s/x.conf", dir);
    snprintf(name, sizeof name, "%s.d", file);
    if (mkdir(name, 0700))
        abort();
    snprintf(drop_in, sizeof drop_in, "%s/10-more.conf", name);
    atexit(clean_up);
}

static void put(const char *path, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        abort();
    close(fd);
}

static bool same_text(const char *a, const char *b)
{
    return !a || !b ? a == b : strcmp(a, b) == 0;
}

static size_t count_of(char **list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

static void configuration(const char *set)
{
    static const struct target none;
    struct target t, again;
    struct hp_error e = {0};
    const char *const sets[] = {*set ? set : NULL, NULL};
    memset(&t, 0, sizeof t);
    if (hp_config_load(keys, file, sets, &t, &e)) {
        assert(e.message[0] && memcmp(&t, &none, sizeof t) == 0);
        return;
    }
    assert(t.text && *t.text);
    assert(t.number >= -10 && t.number <= 10 && t.size >= 1 && t.size <= 1LL << 40 && t.time >= 1 &&
           t.time <= 86400000);
    int rc = hp_config_load(keys, file, sets, &again, &e);
    assert(rc == 0);
    assert(same_text(t.text, again.text) && same_text(t.subnet, again.subnet) && t.number == again.number &&
           t.flag == again.flag && t.size == again.size && t.time == again.time &&
           count_of(t.list) == count_of(again.list));
    hp_config_free(keys, &again);
    hp_config_free(keys, &t);
}

static void tokens(void)
{
    struct hp_file_mark mark;
    struct gw_principals ps;
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    gw_principals_init(&ps, 1);
    if (gw_tokens_load(file, &mark, &ps, &e))
        assert(e.message[0]);
    const struct gw_principal *p = gw_principals_find(&ps, "Bearer secret", &status);
    assert(p ? !status : status != NULL);
    if (p) {
        assert(p->name && *p->name && p->role <= GW_ADMIN);
        for (size_t i = 0; i < p->project_count; i++) {
            assert(hp_segment_valid(p->projects[i]) && gw_may_read(p, p->projects[i]));
            assert(i == 0 || strcmp(p->projects[i - 1], p->projects[i]) <= 0);
        }
        assert(p->all_projects || !gw_may_read(p, ""));
    }
    if (status)
        google__rpc__status__free_unpacked(status, NULL);
    gw_principals_done(&ps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!*dir)
        start();
    if (len < 1)
        return 0;
    const char *text = (const char *)data + 1;
    size_t rest = len - 1, n = strnlen(text, rest);
    put(file, text, n);
    text += n < rest ? n + 1 : n;
    rest -= n < rest ? n + 1 : n;
    if (data[0] & 1) {
        tokens();
        return 0;
    }
    n = strnlen(text, rest);
    put(drop_in, text, n);
    text += n < rest ? n + 1 : n;
    rest -= n < rest ? n + 1 : n;
    char *set = strndup(text, rest);
    configuration(set);
    free(set);
    return 0;
}
