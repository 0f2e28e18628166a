/* utf8.h — is it UTF-8 (RFC 3629)? */
#ifndef HP_WIRE_UTF8_H
#define HP_WIRE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* No overlong forms, no surrogates, nothing above U+10FFFF. NUL is valid here. */
bool hp_utf8_valid(const void *data, size_t len);
/* Replaces each byte that belongs to no character by '?'. */
void hp_utf8_mend(char *text);

#endif
