/* log.h — structured logs: one line a fact, logfmt (key=value) or JSON, to standard error. */
#ifndef HP_BASE_LOG_H
#define HP_BASE_LOG_H

#include <stdint.h>

enum hp_log_level { HP_LOG_DEBUG, HP_LOG_INFO, HP_LOG_WARN, HP_LOG_ERROR };
enum hp_log_format { HP_LOG_LOGFMT, HP_LOG_JSON };

/* Fields of one line are built with these and end at HP_LOG_END; see the macros. */
enum hp_log_kind { HP_LOG_KIND_END, HP_LOG_KIND_STR, HP_LOG_KIND_INT };
struct hp_log_field {
    enum hp_log_kind kind;
    const char *key; /* snake_case */
    const char *str; /* KIND_STR; NULL prints as "" ; any bytes, escaped on output */
    int64_t num;     /* KIND_INT */
};
#define HP_S(key_, value_) ((struct hp_log_field){HP_LOG_KIND_STR, (key_), (value_), 0})
#define HP_I(key_, value_) ((struct hp_log_field){HP_LOG_KIND_INT, (key_), NULL, (int64_t)(value_)})

/* Any thread, once at start. `program` is copied. */
void hp_log_init(const char *program, enum hp_log_level level, enum hp_log_format format);
void hp_log_set_level(enum hp_log_level level);

/* Any thread. One write(2) a line; lines over 8 KiB are cut. Wall time only for the stamp. */
void hp_log_fields(enum hp_log_level level, const char *message, const struct hp_log_field *fields);

/* hp_info("host attached", HP_S("host", name), HP_I("session", s)); */
#define hp_log_(level_, message_, ...)                                                                                 \
    hp_log_fields((level_), (message_), (const struct hp_log_field[]){__VA_ARGS__ __VA_OPT__(, ){HP_LOG_KIND_END}})
#define hp_debug(message_, ...) hp_log_(HP_LOG_DEBUG, message_, __VA_ARGS__)
#define hp_info(message_, ...) hp_log_(HP_LOG_INFO, message_, __VA_ARGS__)
#define hp_warn(message_, ...) hp_log_(HP_LOG_WARN, message_, __VA_ARGS__)
#define hp_err(message_, ...) hp_log_(HP_LOG_ERROR, message_, __VA_ARGS__)

#endif
