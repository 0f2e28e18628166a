/* script.h — a fuzz input as a list of steps, each a kind and its bytes, and a mutator that knows them: steps that are protobuf messages are changed field by field, so that mutations get past the
 * parser. A target that includes this defines fuzz_kinds, fuzz_kind_count and fuzz_words. */
#ifndef HP_TESTS_FUZZ_SCRIPT_H
#define HP_TESTS_FUZZ_SCRIPT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "fuzz/fuzz.h"

enum { FUZZ_STEPS_MAX = 48 };

struct fuzz_kind {
    const char *name;                       /* as in make_corpus.py */
    const ProtobufCMessageDescriptor *type; /* NULL: plain bytes */
};
extern const struct fuzz_kind fuzz_kinds[];
extern const size_t fuzz_kind_count;
extern const char *const fuzz_words[]; /* texts worth putting into fields; ends with NULL */

/* One step: a byte (kind, modulo fuzz_kind_count), two bytes (length, little endian), the bytes. */
struct fuzz_step {
    unsigned kind;
    const uint8_t *data;
    size_t len;
};

/* The next step of `*data`, which moves on; false at the end. A length beyond the end is cut. */
bool fuzz_next(const uint8_t **data, size_t *len, struct fuzz_step *ret);
/* A plain step's byte at `i`; 0 behind its end. */
uint8_t fuzz_byte(const struct fuzz_step *s, size_t i);

/* protomut.c: a random change somewhere in the message. */
struct hp_rng;
void fuzz_message_mutate(ProtobufCMessage *m, struct hp_rng *rng);
/* A new message with a few fields set; NULL when out of memory. Free by protobuf_c_message_free_unpacked. */
ProtobufCMessage *fuzz_message_new(const ProtobufCMessageDescriptor *d, struct hp_rng *rng);
/* Is there a field somewhere that its type does not have, as from a newer client? JSON cannot say it. */
bool fuzz_has_unknown(const ProtobufCMessage *m);

#endif
