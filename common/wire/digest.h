/* digest.h — SHA-256, and the item of the inventory digest that agents and schedulers compare. No I/O: also for cores. */
#ifndef HP_WIRE_DIGEST_H
#define HP_WIRE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { HP_SHA256_LEN = 32 };

/* Always succeeds. */
void hp_sha256(uint8_t out[HP_SHA256_LEN], const void *data, size_t len);

/* The first 8 bytes, big endian, of SHA-256("uid/generation/desired/observed"); see InventoryDigest in harpoon/internal/v1/agent.proto. `desired` and `observed` are values of
 * DesiredState and ContainerState. */
uint64_t hp_inventory_item_digest(const char *uid, int64_t generation, int desired, int observed);

#endif
