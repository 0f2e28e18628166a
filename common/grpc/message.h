/* message.h — length-prefixed messages: 1 byte of flags, 4 bytes of length (big endian), body. The same in gRPC over HTTP/2 ("Length-Prefixed-Message") and
 * in Connect's streams ("Enveloped-Message"). */
#ifndef HP_GRPC_MESSAGE_H
#define HP_GRPC_MESSAGE_H

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "grpc/bytes.h"

enum { HP_MESSAGE_PREFIX = 5 };

/* Collects bytes into messages; holds at most one body, grown as its bytes arrive (a length alone costs a stranger nothing and us nothing). */
struct hp_message_reader {
    uint8_t prefix[HP_MESSAGE_PREFIX];
    size_t prefix_have;
    struct hp_bytes body; /* of the message under way, when it came in pieces */
    size_t body_max;      /* longer ones are HP_ELIMIT */
    bool handed_out;      /* the last message was in `body`: dropped at the next read */
};
void hp_message_reader_init(struct hp_message_reader *r, size_t body_max, struct hp_rpc_budget *budget);
void hp_message_reader_done(struct hp_message_reader *r);

struct hp_message {
    uint8_t flags;
    const uint8_t *body; /* valid until the next read of the same reader, and while the input is */
    size_t len;
};
/* Takes bytes until one message is complete: 1 and *ret_message; 0 when all of `data` was taken and more is needed; HP_ELIMIT: longer than body_max (e names both lengths);
 * HP_ENOMEM. *ret_used is set in every case. After an error the reader is of no more use. */
int hp_message_read(struct hp_message_reader *r, const uint8_t *data, size_t len, size_t *ret_used,
                    struct hp_message *ret_message, struct hp_error *e) HP_MUST_CHECK;
/* Is a message begun and not complete? */
bool hp_message_reader_partial(const struct hp_message_reader *r);

/* Appends the message with its prefix. HP_ELIMIT when the queue would pass queue_max bytes, HP_ENOMEM out of memory or budget: nothing was added. */
int hp_message_write(struct hp_bytes *queue, uint8_t flags, const ProtobufCMessage *m, size_t queue_max) HP_MUST_CHECK;
int hp_message_write_raw(struct hp_bytes *queue, uint8_t flags, const void *body, size_t len,
                         size_t queue_max) HP_MUST_CHECK;

#endif
