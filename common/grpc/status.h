/* status.h — an RPC's outcome: google.rpc.Status with its details, for servers and clients. */
#ifndef HP_GRPC_STATUS_H
#define HP_GRPC_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "google/rpc/status.pb-c.h"

/* Values of google.rpc.Code. */
enum hp_code {
    HP_CODE_OK = 0,
    HP_CODE_CANCELLED = 1,
    HP_CODE_UNKNOWN = 2,
    HP_CODE_INVALID_ARGUMENT = 3,
    HP_CODE_DEADLINE_EXCEEDED = 4,
    HP_CODE_NOT_FOUND = 5,
    HP_CODE_ALREADY_EXISTS = 6,
    HP_CODE_PERMISSION_DENIED = 7,
    HP_CODE_RESOURCE_EXHAUSTED = 8,
    HP_CODE_FAILED_PRECONDITION = 9,
    HP_CODE_ABORTED = 10,
    HP_CODE_OUT_OF_RANGE = 11,
    HP_CODE_UNIMPLEMENTED = 12,
    HP_CODE_INTERNAL = 13,
    HP_CODE_UNAVAILABLE = 14,
    HP_CODE_DATA_LOSS = 15,
    HP_CODE_UNAUTHENTICATED = 16,
};
/* "NOT_FOUND" */
const char *hp_code_name(int code);
/* "not_found", as the Connect protocol writes it; and its HTTP status. */
const char *hp_code_connect_name(int code);
int hp_code_http_status(int code);

/* Builders make a Google__Rpc__Status; free with hp_status_free and nothing else. They never return NULL: when memory is short the result is a static
 * status, RESOURCE_EXHAUSTED "out of memory" (NULL means success to hp_rpc_finish). The hp_status_add_… take the status and give it, or its replacement,
 * back; a NULL or static status passes through. ErrorInfo.domain is always "harpoon". `reason` is UPPER_SNAKE_CASE; NULL: no ErrorInfo. */
Google__Rpc__Status *hp_status_new(int code, const char *reason, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Adds ErrorInfo metadata. */
Google__Rpc__Status *hp_status_add_metadata(Google__Rpc__Status *s, const char *key, const char *value);
Google__Rpc__Status *hp_status_add_retry(Google__Rpc__Status *s, uint32_t delay_ms);
/* BadRequest: may be called several times; gathered in one detail. */
Google__Rpc__Status *hp_status_add_field(Google__Rpc__Status *s, const char *field, const char *description);
Google__Rpc__Status *hp_status_add_precondition(Google__Rpc__Status *s, const char *type, const char *subject,
                                                const char *description);
Google__Rpc__Status *hp_status_add_quota(Google__Rpc__Status *s, const char *subject, const char *description);
void hp_status_free(Google__Rpc__Status *s);
/* A deep copy; the static status when memory is short. NULL gives NULL. */
Google__Rpc__Status *hp_status_clone(const Google__Rpc__Status *s);
/* Finds "reason" of the first ErrorInfo; copies into buf; "" when there is none. */
void hp_status_reason(const Google__Rpc__Status *s, char *buf, size_t size);

/* The grpc-message header (gRPC over HTTP/2, "Status-Message"): bytes outside 0x20..0x7E and '%' become %XX. Heap, freed by the caller; at most
 * HP_GRPC_MESSAGE_MAX bytes of `text` are used, cut between characters. NULL when out of memory. */
enum { HP_GRPC_MESSAGE_MAX = 2048 };
char *hp_grpc_message_encode(const char *text);
/* The way back, in place of a strict check: bad escapes stay as they are, bytes that are not UTF-8 and NULs become '?'. NULL when out of memory. */
char *hp_grpc_message_decode(const char *text, size_t len);
/* From the packed bytes of grpc-status-details-bin or of a Connect detail list: NULL when malformed or out of memory. */
Google__Rpc__Status *hp_status_unpack(const void *data, size_t len);

#endif
