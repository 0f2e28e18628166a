#include "wire/b64.h"

#include <string.h>

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t hp_b64_len(size_t len)
{
    return (len + 2) / 3 * 4;
}

static char *encode(char *out, const uint8_t *p, size_t len, const char *alphabet)
{
    for (; len >= 3; p += 3, len -= 3) {
        *out++ = alphabet[p[0] >> 2];
        *out++ = alphabet[(p[0] & 3) << 4 | p[1] >> 4];
        *out++ = alphabet[(p[1] & 15) << 2 | p[2] >> 6];
        *out++ = alphabet[p[2] & 63];
    }
    if (len > 0) {
        uint8_t second = len > 1 ? p[1] : 0;
        *out++ = alphabet[p[0] >> 2];
        *out++ = alphabet[(p[0] & 3) << 4 | second >> 4];
        if (len > 1)
            *out++ = alphabet[(second & 15) << 2];
    }
    return out;
}

void hp_b64_encode(char *out, const void *data, size_t len)
{
    char *end = encode(out, data, len, standard);
    while ((end - out) % 4 != 0)
        *end++ = '=';
    *end = '\0';
}

void hp_b64url_encode(char *out, const void *data, size_t len)
{
    *encode(out, data, len, url_safe) = '\0';
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

int hp_b64_decode(uint8_t *out, size_t *ret_len, const char *text, size_t len)
{
    size_t padding = 0;
    while (padding < 2 && len > 0 && text[len - 1] == '=') {
        len--;
        padding++;
    }
    if (len % 4 == 1 || (padding > 0 && (len + padding) % 4 != 0))
        return HP_EINVAL;
    uint32_t bits = 0;
    int have = 0;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int d = digit(text[i]);
        if (d < 0)
            return HP_EINVAL;
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
            bits &= (1u << have) - 1;
        }
    }
    if (bits != 0)
        return HP_EINVAL; /* bits left over must be zero */
    *ret_len = n;
    return 0;
}
