#include <assert.h>

#include "core/agent_private.h"
#include "wire/digest.h"

uint64_t ha_known_hash(const char *uid, const struct ha_known *k)
{
    return k->counts ? hp_inventory_item_digest(uid, k->generation, k->desired, k->state) : 0;
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
