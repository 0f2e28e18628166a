#include "grpc/metadata.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "grpc/status.h"

enum { TIMEOUT_DIGITS_MAX = 8 };

bool hp_grpc_timeout_parse(const char *text, size_t len, uint64_t *ret_ms)
{
    if (len < 2 || len > TIMEOUT_DIGITS_MAX + 1)
        return false;
    uint64_t n = 0;
    for (size_t i = 0; i + 1 < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    switch (text[len - 1]) {
    case 'H':
        *ret_ms = n * 3600000;
        return true;
    case 'M':
        *ret_ms = n * 60000;
        return true;
    case 'S':
        *ret_ms = n * 1000;
        return true;
    case 'm':
        *ret_ms = n;
        return true;
    case 'u':
        *ret_ms = (n + 999) / 1000;
        return true;
    case 'n':
        *ret_ms = (n + 999999) / 1000000;
        return true;
    default:
        return false;
    }
}

void hp_grpc_timeout_format(char out[HP_GRPC_TIMEOUT_LEN], uint64_t timeout_ms)
{
    const uint64_t limit = 99999999;
    if (timeout_ms <= limit)
        snprintf(out, HP_GRPC_TIMEOUT_LEN, "%" PRIu64 "m", timeout_ms);
    else if (timeout_ms / 1000 <= limit)
        snprintf(out, HP_GRPC_TIMEOUT_LEN, "%" PRIu64 "S", timeout_ms / 1000);
    else if (timeout_ms / 3600000 <= limit)
        snprintf(out, HP_GRPC_TIMEOUT_LEN, "%" PRIu64 "H", timeout_ms / 3600000);
    else
        snprintf(out, HP_GRPC_TIMEOUT_LEN, "%" PRIu64 "H", limit);
}

bool hp_grpc_content_type(const char *text, size_t len)
{
    static const char base[] = "application/grpc", proto[] = "+proto";
    size_t n = sizeof base - 1, m = sizeof proto - 1;
    if (len < n || strncasecmp(text, base, n) != 0)
        return false;
    if (len >= n + m && strncasecmp(text + n, proto, m) == 0)
        n += m;
    return len == n || text[n] == ';' || text[n] == ' ';
}

int hp_grpc_code_from_http(int http_status)
{
    switch (http_status) {
    case 400:
        return HP_CODE_INTERNAL;
    case 401:
        return HP_CODE_UNAUTHENTICATED;
    case 403:
        return HP_CODE_PERMISSION_DENIED;
    case 404:
        return HP_CODE_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return HP_CODE_UNAVAILABLE;
    default:
        return HP_CODE_UNKNOWN;
    }
}

int hp_grpc_code_from_h2(uint32_t error_code)
{
    switch (error_code) {
    case 7: /* REFUSED_STREAM */
        return HP_CODE_UNAVAILABLE;
    case 8: /* CANCEL */
        return HP_CODE_CANCELLED;
    case 11: /* ENHANCE_YOUR_CALM */
        return HP_CODE_RESOURCE_EXHAUSTED;
    case 12: /* INADEQUATE_SECURITY */
        return HP_CODE_PERMISSION_DENIED;
    default:
        return HP_CODE_INTERNAL;
    }
}

int hp_grpc_parse_number(const char *text, size_t len, int max)
{
    if (len == 0 || len > 9)
        return -1;
    int n = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        n = n * 10 + (text[i] - '0');
    }
    return n <= max ? n : -1;
}
