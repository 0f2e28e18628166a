#include "grpc/base64.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *hp_base64_encode(const void *data, size_t len)
{
    const uint8_t *p = data;
    char *out = malloc(len / 3 * 4 + 4 + 1), *o = out;
    if (!out)
        return NULL;
    for (; len >= 3; p += 3, len -= 3) {
        *o++ = alphabet[p[0] >> 2];
        *o++ = alphabet[(p[0] & 3) << 4 | p[1] >> 4];
        *o++ = alphabet[(p[1] & 15) << 2 | p[2] >> 6];
        *o++ = alphabet[p[2] & 63];
    }
    if (len > 0) {
        uint8_t second = len == 2 ? p[1] : 0;
        *o++ = alphabet[p[0] >> 2];
        *o++ = alphabet[(p[0] & 3) << 4 | second >> 4];
        if (len == 2)
            *o++ = alphabet[(second & 15) << 2];
    }
    *o = '\0';
    return out;
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

int hp_base64_decode(const char *text, size_t len, uint8_t **ret, size_t *ret_len)
{
    if (len % 4 == 0)
        for (int i = 0; i < 2 && len > 0 && text[len - 1] == '='; i++)
            len--;
    if (len % 4 == 1)
        return HP_EINVAL;
    uint8_t *out = malloc(len / 4 * 3 + 3), *o = out;
    if (!out)
        return HP_ENOMEM;
    uint32_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        int d = digit(text[i]);
        if (d < 0) {
            free(out);
            return HP_EINVAL;
        }
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 != 0)
            *o++ = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    *ret = out;
    *ret_len = (size_t)(o - out);
    return 0;
}
