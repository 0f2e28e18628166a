#include "wire/utf8.h"

#include <stdint.h>
#include <string.h>

/* The length of the character at p, 0 when it is none. RFC 3629, section 4. */
static size_t character(const uint8_t *p, size_t left)
{
    uint8_t low = 0x80, high = 0xBF; /* bounds of the second byte */
    size_t n;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF) {
        n = 2;
    } else if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        n = 3;
        low = p[0] == 0xE0 ? 0xA0 : 0x80;
        high = p[0] == 0xED ? 0x9F : 0xBF;
    } else if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        n = 4;
        low = p[0] == 0xF0 ? 0x90 : 0x80;
        high = p[0] == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    if (left < n || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

bool hp_utf8_valid(const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len > 0) {
        uint64_t word;
        if (len >= sizeof word) { /* eight plain characters at once */
            memcpy(&word, p, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                p += sizeof word;
                len -= sizeof word;
                continue;
            }
        }
        size_t n = character(p, len);
        if (n == 0)
            return false;
        p += n;
        len -= n;
    }
    return true;
}

void hp_utf8_mend(char *text)
{
    uint8_t *p = (uint8_t *)text;
    for (size_t left = strlen(text), n; left; p += n, left -= n) {
        n = character(p, left);
        if (n == 0) {
            *p = '?';
            n = 1;
        }
    }
}
