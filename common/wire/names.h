/* names.h — resource names, operation ids, uids, queue names: one place that makes and parses them. */
#ifndef HP_WIRE_NAMES_H
#define HP_WIRE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    HP_SEGMENT_MAX = 63,      /* [a-z]([-a-z0-9]{0,61}[a-z0-9])? */
    HP_NAME_MAX = 255,        /* any full name */
    HP_OPERATION_ID_LEN = 32, /* lower-case hex */
    HP_UID_LEN = 26,          /* Crockford base32 of 128 bits, lower case */
    HP_REQUEST_ID_MAX = 128,  /* printable ASCII */
};

bool hp_segment_valid(const char *s);

struct hp_container_name {
    char project[64], region[64], container[64];
};
struct hp_operation_name {
    char project[64], region[64], operation[64];
};
struct hp_host_name {
    char region[64], host[64];
};
struct hp_parent_name {
    char project[64], region[64];
}; /* either may be "-" where wildcards are allowed */

/* HP_EINVAL names the field and the value. `field` is for the message, such as "name". An operation's project "-" (a change of a host) is returned as "". */
int hp_container_name_parse(const char *field, const char *text, struct hp_container_name *ret,
                            struct hp_error *e) HP_MUST_CHECK;
int hp_operation_name_parse(const char *field, const char *text, struct hp_operation_name *ret,
                            struct hp_error *e) HP_MUST_CHECK;
int hp_host_name_parse(const char *field, const char *text, struct hp_host_name *ret, struct hp_error *e) HP_MUST_CHECK;
int hp_parent_name_parse(const char *field, const char *text, bool wildcards, struct hp_parent_name *ret,
                         struct hp_error *e) HP_MUST_CHECK;
int hp_region_name_parse(const char *field, const char *text, bool wildcards, char ret[64],
                         struct hp_error *e) HP_MUST_CHECK;
void hp_container_name_format(char out[HP_NAME_MAX + 1], const char *project, const char *region,
                              const char *container);
void hp_operation_name_format(char out[HP_NAME_MAX + 1], const char *project, const char *region,
                              const char *operation);
void hp_host_name_format(char out[HP_NAME_MAX + 1], const char *region, const char *host);

/* First 16 bytes of SHA-256(project NUL request_id) in hex. Operations on hosts have project "". Their name has project "-". */
void hp_operation_id(char out[HP_OPERATION_ID_LEN + 1], const char *project, const char *request_id);
/* From 16 random bytes. */
void hp_uid_format(char out[HP_UID_LEN + 1], const uint8_t random[16]);

/* "requests.<region>" and so on; kind is "requests", "reports", "metrics", "events", "dead", "router", "routers", "reply", "leader". HP_ELIMIT over 255 bytes. */
int hp_queue_name(char out[HP_NAME_MAX + 1], const char *kind, const char *id) HP_MUST_CHECK;

#endif
