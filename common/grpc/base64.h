/* base64.h — RFC 4648 base64: binary headers of gRPC ("-bin") and details of Connect errors. */
#ifndef HP_GRPC_BASE64_H
#define HP_GRPC_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* Without padding, as both protocols like it. Heap, freed by the caller; NULL when out of memory. */
char *hp_base64_encode(const void *data, size_t len);
/* Reads with or without padding. Heap bytes (never NULL on success, also for 0 bytes); HP_EINVAL for other input, HP_ENOMEM. */
int hp_base64_decode(const char *text, size_t len, uint8_t **ret, size_t *ret_len) __attribute__((warn_unused_result));

#endif
