/* plain.h — the short way through protobuf: messages in the form in which every encoder writes them, in one pass. Whatever else is allowed (fields in another order, unknown ones, packed
 * numbers…) is left to protobuf-c; codec.c goes the long way then. */
#ifndef HP_WIRE_PLAIN_H
#define HP_WIRE_PLAIN_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HP_DEPTH_MAX = 32 }; /* of messages in one another */

/* What unpacking may still take from the heap. */
struct hp_budget {
    size_t left;
    bool over, no_memory;
};
void *hp_budget_alloc(void *budget, size_t size);
void hp_budget_free(void *budget, void *p);

/* What protobuf-c makes of the same bytes, strings checked as hp_unpack promises. NULL: not in plain form, not valid, or out of memory or budget (both say so). */
ProtobufCMessage *hp_plain_unpack(const ProtobufCMessageDescriptor *d, const uint8_t *data, size_t len,
                                  struct hp_budget *b);

/* The bytes that protobuf-c writes, at the end of buf; how many they are. SIZE_MAX: they do not fit, or the message is not plain. */
size_t hp_plain_pack(const ProtobufCMessage *m, uint8_t *buf, size_t size);

#endif
