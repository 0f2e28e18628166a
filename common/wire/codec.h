/* codec.h — unpacking protobuf from strangers: size cap, memory budget, no deep nesting, UTF-8 without NUL. */
#ifndef HP_WIRE_CODEC_H
#define HP_WIRE_CODEC_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct hp_unpack_limits {
    size_t bytes_max;  /* of the wire form; 0: 1 MiB */
    size_t memory_max; /* of the heap form; 0: 16 MiB */
};
/* HP_ELIMIT over a limit, HP_EINVAL for malformed input or a string that is not UTF-8 or has a NUL (names the field), HP_ENOMEM. Free with hp_unpacked_free. */
int hp_unpack(const ProtobufCMessageDescriptor *d, const void *data, size_t len, const struct hp_unpack_limits *limits,
              ProtobufCMessage **ret, struct hp_error *e) HP_MUST_CHECK;
void hp_unpacked_free(ProtobufCMessage *m);

/* Packing for whoever brings the memory: `len` says how much, and then it is written. The message stays as it is in between. */
struct hp_packing {
    const ProtobufCMessage *message;
    size_t len;
    bool plain;          /* the bytes are here already, at the end of `bytes` */
    uint8_t bytes[4096]; /* longer ones are measured first and then written */
};
void hp_packing_init(struct hp_packing *p, const ProtobufCMessage *m);
void hp_packing_write(const struct hp_packing *p, uint8_t *out);
/* A heap copy of the wire form; *ret_len bytes. */
int hp_pack(const ProtobufCMessage *m, uint8_t **ret, size_t *ret_len, struct hp_error *e) HP_MUST_CHECK;
/* A deep copy, by packing and unpacking. */
ProtobufCMessage *hp_message_clone(const ProtobufCMessage *m);

#endif
