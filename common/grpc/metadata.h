/* metadata.h — the few headers of gRPC over HTTP/2 that a session must understand (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). */
#ifndef HP_GRPC_METADATA_H
#define HP_GRPC_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HP_GRPC_TIMEOUT_LEN = 16 };

/* "100m" and so on: 1 to 8 digits and one of H M S m u n. Rounded up to milliseconds. False when malformed. */
bool hp_grpc_timeout_parse(const char *text, size_t len, uint64_t *ret_ms);
void hp_grpc_timeout_format(char out[HP_GRPC_TIMEOUT_LEN], uint64_t timeout_ms);
/* "application/grpc" or "application/grpc+proto", with or without parameters. */
bool hp_grpc_content_type(const char *text, size_t len);
/* enum hp_code for an answer without grpc-status (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md). */
int hp_grpc_code_from_http(int http_status);
/* enum hp_code for a stream that was reset with this HTTP/2 error code. */
int hp_grpc_code_from_h2(uint32_t error_code);
/* Decimal digits only, at most `max`; -1 otherwise. */
int hp_grpc_parse_number(const char *text, size_t len, int max);

#endif
