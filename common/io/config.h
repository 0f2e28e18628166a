/* config.h — daemons' configuration: an INI file, drop-ins in FILE.d/\*.conf in name order, then --set section.key=value. */
#ifndef HP_IO_CONFIG_H
#define HP_IO_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum hp_config_type {
    HP_CONFIG_STRING, /* char *: heap, freed by hp_config_free */
    HP_CONFIG_INT,    /* int64_t, with min and max */
    HP_CONFIG_BOOL,   /* bool: yes/no/true/false/on/off/1/0 */
    HP_CONFIG_SIZE,   /* int64_t bytes: suffixes K M G T (powers of 1024) */
    HP_CONFIG_TIME,   /* int64_t milliseconds: suffixes ms s min h d; a bare number is seconds */
    HP_CONFIG_LIST,   /* char **: NULL-terminated, separated by commas or blanks */
    /* Strings (and a list) with a form, which --check-config holds them to; empty ones pass. */
    HP_CONFIG_ADDRESS,   /* host:port, [v6]:port */
    HP_CONFIG_ADDRESSES, /* a list of them */
    HP_CONFIG_BROKER,    /* amqp:// or amqps:// URL, or several with commas between */
    HP_CONFIG_FILE,      /* path of a file that can be read */
    HP_CONFIG_SUBNET,    /* IPv4 CIDR with 8 to 30 bits */
};

/* One known key. Tables end with {0}. The table is the documentation: --help-config prints it. */
struct hp_config_key {
    const char *section;
    const char *key;
    enum hp_config_type type;
    size_t offset;        /* of the field in the target structure */
    const char *fallback; /* text form of the default; NULL: none */
    bool required;        /* must be set and not empty */
    int64_t min, max;     /* INT, SIZE, TIME; both 0: no limit */
    const char *help;     /* one line, with the unit */
};

/* Reads into `target`. Unknown sections and keys, bad values, and missing required keys are errors that name file and line (or the --set).
 * `sets` is NULL-terminated or NULL. On failure target is left freed and zeroed. */
int hp_config_load(const struct hp_config_key *keys, const char *file, const char *const *sets, void *target,
                   struct hp_error *e) HP_MUST_CHECK;
void hp_config_free(const struct hp_config_key *keys, void *target);

/* The table as text, in the form of a configuration file with every key commented out: what --help-config prints. Heap; NULL when out of memory. */
char *hp_config_help(const struct hp_config_key *keys);

#endif
