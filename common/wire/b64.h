/* b64.h — base64 (RFC 4648): writes the standard alphabet with padding, reads that and the URL-safe one, padded or not. */
#ifndef HP_WIRE_B64_H
#define HP_WIRE_B64_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Bytes of text, without the NUL. */
size_t hp_b64_len(size_t len);
/* NUL-terminated; needs hp_b64_len(len) + 1 bytes. */
void hp_b64_encode(char *out, const void *data, size_t len);
/* As above, in the URL-safe alphabet without padding: for opaque tokens. */
void hp_b64url_encode(char *out, const void *data, size_t len);
/* `out` needs len / 4 * 3 + 3 bytes. HP_EINVAL when it is not base64. */
int hp_b64_decode(uint8_t *out, size_t *ret_len, const char *text, size_t len) HP_MUST_CHECK;

#endif
