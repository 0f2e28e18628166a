/* The small parsers: timeouts, content types, grpc-message, statuses, base64, length-prefixed messages in pieces. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "grpc/message.h"
#include "grpc/metadata.h"
#include "grpc/status.h"
#include "wire/b64.h"
#include "wire/utf8.h"

static void check(bool condition)
{
    if (!condition)
        abort();
}

static void texts(const char *text, size_t len)
{
    uint64_t ms;
    if (hp_grpc_timeout_parse(text, len, &ms)) {
        char out[HP_GRPC_TIMEOUT_LEN];
        hp_grpc_timeout_format(out, ms);
        uint64_t again;
        check(hp_grpc_timeout_parse(out, strlen(out), &again) && again <= ms);
    }
    hp_grpc_content_type(text, len);
    check(hp_grpc_parse_number(text, len, 999) <= 999);
    char *decoded = hp_grpc_message_decode(text, len);
    check(decoded && hp_utf8_valid(decoded, strlen(decoded)));
    char *encoded = hp_grpc_message_encode(decoded);
    char *back = hp_grpc_message_decode(encoded, strlen(encoded));
    check(strncmp(back, decoded, strlen(back)) == 0);
    free(back);
    free(encoded);
    free(decoded);
}

static void statuses(const uint8_t *data, size_t len)
{
    Google__Rpc__Status *s = hp_status_unpack(data, len);
    if (!s)
        return;
    char reason[64];
    hp_status_reason(s, reason, sizeof reason);
    s = hp_status_add_field(s, "field", "description");
    s = hp_status_add_metadata(s, "key", "value");
    s = hp_status_add_retry(s, 1);
    hp_status_free(hp_status_clone(s));
    hp_status_free(s);
}

static void messages(const uint8_t *data, size_t len, size_t piece)
{
    struct hp_rpc_budget budget = {.max_bytes = 1 << 20};
    struct hp_message_reader r;
    hp_message_reader_init(&r, 4096, &budget);
    for (size_t at = 0; at < len; at += piece) {
        const uint8_t *p = data + at;
        size_t left = len - at < piece ? len - at : piece;
        while (left > 0) {
            struct hp_message m;
            struct hp_error e = {0};
            size_t used;
            int rc = hp_message_read(&r, p, left, &used, &m, &e);
            check(used <= left);
            if (rc < 0)
                goto out;
            if (rc > 0 && m.len > 0) {
                uint8_t sum = m.body[0] ^ m.body[m.len - 1]; /* touches both ends */
                (void)sum;
            }
            p += used;
            left -= used;
        }
    }
out:
    hp_message_reader_done(&r);
    check(budget.used_bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1)
        return 0;
    uint8_t choice = *data++;
    len--;
    switch (choice & 3) {
    case 0:
        texts((const char *)data, len);
        break;
    case 1:
        statuses(data, len);
        break;
    case 2:
        messages(data, len, 1 + (choice >> 2));
        break;
    default: {
        uint8_t *out = malloc(len / 4 * 3 + 3);
        size_t n;
        if (hp_b64_decode(out, &n, (const char *)data, len) == 0)
            check(n <= len / 4 * 3 + 3);
        free(out);
    }
    }
    return 0;
}
