#include <assert.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "core/agent_private.h"

uint64_t ha_digest_item(const char *uid, int64_t generation, int32_t desired, int32_t observed)
{
    char text[HA_UID_MAX + 64];
    uint8_t hash[SHA256_DIGEST_LENGTH];
    int n = snprintf(text, sizeof text, "%s/%lld/%d/%d", uid, (long long)generation, (int)desired, (int)observed);
    assert(n > 0 && (size_t)n < sizeof text);
    SHA256((const uint8_t *)text, (size_t)n, hash);
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | hash[i];
    return v;
}

uint64_t ha_known_hash(const char *uid, const struct ha_known *k)
{
    return k->counts ? ha_digest_item(uid, k->generation, k->desired, k->state) : 0;
}

void ha_known_set(struct ha_core *core, uint64_t *hash, uint64_t next)
{
    core->known_count += (next != 0) - (*hash != 0);
    core->known_digest ^= *hash ^ next;
    assert(core->known_count >= 0);
    *hash = next;
}

void ha_core_digest(const struct ha_core *core, int32_t *ret_count, uint64_t *ret_digest)
{
    *ret_count = core->known_count;
    *ret_digest = core->known_digest;
}
