/* config_value.h — texts of configuration values to typed fields; used by config.c and its test. */
#ifndef HP_IO_CONFIG_VALUE_H
#define HP_IO_CONFIG_VALUE_H

#include "io/config.h"

enum { HP_CONFIG_LIST_MAX = 1024 };

/* Sets the field of `key` in `target`, releasing what it held. The message says what was wanted, not where it was written. */
int hp_config_value_set(const struct hp_config_key *key, const char *text, void *target,
                        struct hp_error *e) HP_MUST_CHECK;
/* Continues a list with the items of `text`. */
int hp_config_value_append(const struct hp_config_key *key, const char *text, void *target,
                           struct hp_error *e) HP_MUST_CHECK;
bool hp_config_type_is_list(enum hp_config_type type);
bool hp_config_type_is_text(enum hp_config_type type); /* a string, of whatever form */
void hp_config_value_free(const struct hp_config_key *key, void *target);
bool hp_config_value_is_empty(const struct hp_config_key *key, const void *target);

#endif
