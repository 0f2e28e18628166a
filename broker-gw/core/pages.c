#include "core/pages.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "base/map.h"
#include "wire/b64.h"

enum { VERSION = 1, HEAD = 9, SEED = 0x70616765 };

uint64_t gw_page_question(const char *method, ...)
{
    uint64_t hash = hp_hash(SEED, method, strlen(method) + 1);
    va_list ap;
    va_start(ap, method);
    for (const char *text; (text = va_arg(ap, const char *)) != NULL;)
        hash = hp_hash(hash, text, strlen(text) + 1);
    va_end(ap);
    return hash;
}

/* A version, the question's hash, the key. */
void gw_page_token(char out[GW_PAGE_TOKEN_MAX], uint64_t question, const char *key)
{
    uint8_t bytes[HEAD + GW_PAGE_KEY_MAX];
    size_t len = strlen(key);
    assert(len > 0 && len < GW_PAGE_KEY_MAX);
    _Static_assert((HEAD + GW_PAGE_KEY_MAX + 2) / 3 * 4 < GW_PAGE_TOKEN_MAX, "a token fits");
    bytes[0] = VERSION;
    for (int i = 0; i < 8; i++)
        bytes[1 + i] = (uint8_t)(question >> (8 * i));
    memcpy(bytes + HEAD, key, len);
    hp_b64url_encode(out, bytes, HEAD + len);
}

int gw_page_key(char out[GW_PAGE_KEY_MAX], uint64_t question, const char *token)
{
    uint8_t bytes[GW_PAGE_TOKEN_MAX];
    size_t token_len = strlen(token), len;
    out[0] = '\0';
    if (token_len == 0)
        return 0;
    if (token_len >= GW_PAGE_TOKEN_MAX || hp_b64_decode(bytes, &len, token, token_len) < 0)
        return HP_EINVAL;
    if (len <= HEAD || len - HEAD >= GW_PAGE_KEY_MAX || bytes[0] != VERSION)
        return HP_EINVAL;
    for (int i = 0; i < 8; i++)
        if (bytes[1 + i] != (uint8_t)(question >> (8 * i)))
            return HP_EINVAL;
    memcpy(out, bytes + HEAD, len - HEAD);
    out[len - HEAD] = '\0';
    return 0;
}
