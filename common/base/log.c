#include "base/log.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 8192 };

static char program_name[64] = "harpoon";
static _Atomic int min_level = HP_LOG_INFO;
static enum hp_log_format line_format = HP_LOG_LOGFMT;
static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct line {
    char text[LINE_MAX_BYTES];
    size_t len;
};

void hp_log_init(const char *program, enum hp_log_level level, enum hp_log_format format)
{
    snprintf(program_name, sizeof program_name, "%s", program);
    atomic_store(&min_level, (int)level);
    line_format = format;
}

void hp_log_set_level(enum hp_log_level level)
{
    atomic_store(&min_level, (int)level);
}

static void put(struct line *l, const char *s, size_t n)
{
    size_t room = sizeof l->text - 2 - l->len; /* newline, and a closing brace */
    if (n > room)
        n = room;
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* Both formats quote like JSON, so that one reader's rules fit. */
static void put_quoted(struct line *l, const char *s)
{
    put(l, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char esc[8];
        if (c == '"' || c == '\\') {
            esc[0] = '\\';
            esc[1] = (char)c;
            put(l, esc, 2);
        } else if (c == '\n') {
            put(l, "\\n", 2);
        } else if (c < 0x20 || c == 0x7F) {
            put(l, esc, (size_t)snprintf(esc, sizeof esc, "\\u%04x", c));
        } else {
            put(l, s, 1);
        }
    }
    put(l, "\"", 1);
}

static bool is_bare(const char *s)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if ((unsigned char)*s <= 0x20 || *s == '"' || *s == '=' || *s == '\\' || *s == 0x7F)
            return false;
    return true;
}

static void put_field(struct line *l, const char *key, const char *str, int64_t num, bool is_num)
{
    char digits[24];
    bool json = line_format == HP_LOG_JSON;
    put(l, json ? "," : " ", 1);
    if (json)
        put_quoted(l, key);
    else
        put_str(l, key);
    put(l, json ? ":" : "=", 1);
    if (is_num)
        put(l, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)num));
    else if (!json && is_bare(str))
        put_str(l, str);
    else
        put_quoted(l, str);
}

static void put_head(struct line *l, enum hp_log_level level, const char *message)
{
    struct timespec ts;
    struct tm tm;
    char stamp[64], day[24];
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp, sizeof stamp, "%s.%06ldZ", day, ts.tv_nsec / 1000);
    if (line_format == HP_LOG_JSON) {
        put(l, "{\"time\":", 8);
        put_quoted(l, stamp);
    } else {
        put(l, "time=", 5);
        put_str(l, stamp);
    }
    put_field(l, "level", level_names[level], 0, false);
    put_field(l, "program", program_name, 0, false);
    put_field(l, "msg", message, 0, false);
}

void hp_log_fields(enum hp_log_level level, const char *message, const struct hp_log_field *fields)
{
    if ((int)level < atomic_load_explicit(&min_level, memory_order_relaxed))
        return;
    struct line l;
    l.len = 0;
    put_head(&l, level, message);
    for (; fields->kind != HP_LOG_KIND_END; fields++)
        put_field(&l, fields->key, fields->str ? fields->str : "", fields->num, fields->kind == HP_LOG_KIND_INT);
    if (line_format == HP_LOG_JSON)
        l.text[l.len++] = '}';
    l.text[l.len++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, l.text, l.len);
    (void)ignored;
}
