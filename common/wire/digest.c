/* The functions below need no memory. OpenSSL's one-call SHA256() does, looks the algorithm up each time, and leaves the digest unwritten when it fails: then an
 * operation's identity would be whatever was on the stack. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "wire/digest.h"

#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>

_Static_assert(HP_SHA256_LEN == SHA256_DIGEST_LENGTH, "length of SHA-256");

void hp_sha256(uint8_t out[HP_SHA256_LEN], const void *data, size_t len)
{
    SHA256_CTX c;
    SHA256_Init(&c);
    SHA256_Update(&c, data, len);
    SHA256_Final(out, &c);
}

uint64_t hp_inventory_item_digest(const char *uid, int64_t generation, int desired, int observed)
{
    char text[320]; /* uids have at most 255 bytes; a longer one would only be cut, on both sides alike */
    uint8_t hash[HP_SHA256_LEN];
    uint64_t first = 0;
    int n = snprintf(text, sizeof text, "%.255s/%" PRId64 "/%d/%d", uid, generation, desired, observed);
    hp_sha256(hash, text, n > 0 && (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    for (int i = 0; i < 8; i++)
        first = first << 8 | hash[i];
    return first;
}
