/* batch.h — several packed messages in one body: the wire form of a message with one repeated field 1, written and read without unpacking what is inside (protobuf encoding: length-delimited records). */
#ifndef HP_WIRE_BATCH_H
#define HP_WIRE_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Bytes that an entry of `len` takes in the batch. */
size_t hp_batch_size(size_t len);
/* Writes one entry and returns where the next one goes. */
uint8_t *hp_batch_put(uint8_t *at, const void *data, size_t len);
/* Takes the next entry, which stays in the body, and moves on: 1; 0 at the end; HP_EINVAL for what is no batch: nothing can be read from there on. */
int hp_batch_next(const uint8_t **at, size_t *left, const uint8_t **ret, size_t *ret_len) HP_MUST_CHECK;

#endif
