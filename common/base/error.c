#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *hp_strerror(int code)
{
    switch (code) {
    case 0:
        return "success";
#define X(name, value, text)                                                                                           \
    case name:                                                                                                         \
        return text;
        HP_ERROR_TABLE(X)
#undef X
    default:
        return "unknown error";
    }
}

/* Cuts at the last whole UTF-8 character when vsnprintf had to cut. */
static void trim_utf8(char *text, size_t size, int wanted)
{
    if (wanted < 0 || (size_t)wanted < size)
        return;
    size_t n = size - 1;
    while (n > 0 && ((unsigned char)text[n - 1] & 0xC0) == 0x80)
        n--;
    if (n > 0 && ((unsigned char)text[n - 1] & 0x80))
        n--;
    text[n] = '\0';
}

__attribute__((format(printf, 3, 0))) static void format(struct hp_error *e, int code, const char *fmt, va_list ap)
{
    e->code = code;
    int n = vsnprintf(e->message, sizeof e->message, fmt, ap);
    trim_utf8(e->message, sizeof e->message, n);
}

void hp_error_set(struct hp_error *e, int code, const char *fmt, ...)
{
    if (!e)
        return;
    va_list ap;
    va_start(ap, fmt);
    format(e, code, fmt, ap);
    va_end(ap);
    if (code != HP_ENOMEM || strstr(e->message, "memory"))
        return;
    size_t n = strlen(e->message);
    int wanted = snprintf(e->message + n, sizeof e->message - n, ": %s", hp_strerror(code));
    trim_utf8(e->message + n, sizeof e->message - n, wanted);
}

int hp_error_set_errno(struct hp_error *e, int code, int errnum, const char *fmt, ...)
{
    if (code == HP_EIO && (errnum == ENOSPC || errnum == EDQUOT))
        code = HP_ELIMIT;
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    format(e, code, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->message);
    char buf[128];
    int wanted = snprintf(e->message + n, sizeof e->message - n, ": %s", strerror_r(errnum, buf, sizeof buf));
    trim_utf8(e->message + n, sizeof e->message - n, wanted);
    return code;
}

int hp_error_wrap(struct hp_error *e, const char *fmt, ...)
{
    if (!e || !e->code)
        return HP_EINTERNAL;
    char inner[HP_ERROR_MESSAGE_MAX];
    memcpy(inner, e->message, sizeof inner);
    va_list ap;
    va_start(ap, fmt);
    format(e, e->code, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->message);
    int wanted = snprintf(e->message + n, sizeof e->message - n, ": %s", inner);
    trim_utf8(e->message + n, sizeof e->message - n, wanted);
    return e->code;
}
