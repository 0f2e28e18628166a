/* error.h — error codes and error messages that are wrapped outward as a chain of causes. */
#ifndef HP_BASE_ERROR_H
#define HP_BASE_ERROR_H

#include <stdarg.h>

#define HP_MUST_CHECK __attribute__((warn_unused_result))

/* Every fallible function returns 0 or one of these, negative. The values are internal: never stored, never sent. */
#define HP_ERROR_TABLE(X)                                                                                              \
    X(HP_EINVAL, 1, "invalid argument")                                                                                \
    X(HP_ENOMEM, 2, "out of memory")                                                                                   \
    X(HP_ENOTFOUND, 3, "not found")                                                                                    \
    X(HP_EEXISTS, 4, "already exists")                                                                                 \
    X(HP_EUNAVAILABLE, 5, "unavailable")                                                                               \
    X(HP_ETIMEDOUT, 6, "timed out")                                                                                    \
    X(HP_ECANCELED, 7, "cancelled")                                                                                    \
    X(HP_ELIMIT, 8, "limit reached")                                                                                   \
    X(HP_EPROTO, 9, "protocol error")                                                                                  \
    X(HP_EIO, 10, "input/output error")                                                                                \
    X(HP_EPERM, 11, "permission denied")                                                                               \
    X(HP_ECONFLICT, 12, "conflict")                                                                                    \
    X(HP_EFENCED, 13, "fenced by a newer epoch")                                                                       \
    X(HP_ECORRUPT, 14, "corrupt data")                                                                                 \
    X(HP_EAGAIN, 15, "try again")                                                                                      \
    X(HP_EUNSUPPORTED, 16, "unsupported")                                                                              \
    X(HP_EINTERNAL, 17, "internal error")

enum {
#define X(name, value, text) name = -(value),
    HP_ERROR_TABLE(X)
#undef X
};

#define HP_ERROR_MESSAGE_MAX 1024

/* Owned by the caller; zero-initialise it. Longer messages are cut at HP_ERROR_MESSAGE_MAX - 1 bytes, on a UTF-8 boundary. */
struct hp_error {
    int code;                           /* 0 or HP_E… of the innermost cause */
    char message[HP_ERROR_MESSAGE_MAX]; /* NUL-terminated; "" when code is 0 */
};

/* The text of `code` in the table; "unknown error" for anything else. Never NULL. */
const char *hp_strerror(int code);

static inline int hp_error_negative(int code)
{
    if (code >= 0)
        __builtin_unreachable();
    return code;
}

/* Sets *e (may be NULL) and gives `code`, so that `return hp_fail(e, HP_EINVAL, "port %d: …", p);` reads well. `code` is negative. A macro, so that compilers and
 * analyzers see that the result is too. With HP_ENOMEM the message says what the memory was for; ": out of memory" is added where it does not speak of memory. */
#define hp_fail(e, code, ...) (hp_error_set((e), (code), __VA_ARGS__), hp_error_negative(code))
void hp_error_set(struct hp_error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As hp_fail, and appends ": " and the text of the errno value. A full disk or quota is no HP_EIO, but HP_ELIMIT. */
#define hp_fail_errno(e, code, errnum, ...) hp_error_negative(hp_error_set_errno((e), (code), (errnum), __VA_ARGS__))
int hp_error_set_errno(struct hp_error *e, int code, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "text: " in front of the message of *e (may be NULL) and gives e's code (HP_EINTERNAL when e is NULL or clear). */
#define hp_wrap(e, ...) hp_error_negative(hp_error_wrap((e), __VA_ARGS__))
int hp_error_wrap(struct hp_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#endif
