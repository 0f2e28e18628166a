/* amqp_wire.h — AMQP 0-9-1 frames to and from bytes (specification, section 4.2.3), methods and properties by librabbitmq's codec. No I/O. */
#ifndef HP_IO_AMQP_WIRE_H
#define HP_IO_AMQP_WIRE_H

#include <amqp.h>
#include <amqp_framing.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum { HP_AMQP_FRAME_OVERHEAD = 8, HP_AMQP_FRAME_MIN = 4096 };

/* Each appends whole frames, or on failure nothing: HP_ENOMEM, HP_ELIMIT when the buffer is full, or HP_EINVAL when a name is over 255 bytes. */
int hp_amqp_put_method(struct hp_buf *b, uint16_t channel, amqp_method_number_t id, void *method,
                       struct hp_error *e) HP_MUST_CHECK;
int hp_amqp_put_content(struct hp_buf *b, uint16_t channel, amqp_basic_properties_t *properties, const void *body,
                        size_t len, size_t frame_max, struct hp_error *e) HP_MUST_CHECK;
int hp_amqp_put_heartbeat(struct hp_buf *b, struct hp_error *e) HP_MUST_CHECK;

struct hp_amqp_frame {
    uint8_t type; /* AMQP_FRAME_METHOD, _HEADER, _BODY, _HEARTBEAT */
    uint16_t channel;
    const uint8_t *payload; /* into the input */
    size_t len;
};
/* Takes one frame from the front of `data`; *ret_used is 0 when it is not complete yet. HP_EPROTO: over frame_max, or no frame at all. */
int hp_amqp_frame_next(const uint8_t *data, size_t len, size_t frame_max, struct hp_amqp_frame *ret, size_t *ret_used,
                       struct hp_error *e) HP_MUST_CHECK;
/* The decoded forms live in `pool`. */
int hp_amqp_decode_method(const struct hp_amqp_frame *f, amqp_pool_t *pool, amqp_method_number_t *ret_id, void **ret,
                          struct hp_error *e) HP_MUST_CHECK;
int hp_amqp_decode_header(const struct hp_amqp_frame *f, amqp_pool_t *pool, uint64_t *ret_body_len,
                          amqp_basic_properties_t **ret, struct hp_error *e) HP_MUST_CHECK;

/* An entry of a header table by name; NULL when absent. */
const amqp_field_value_t *hp_amqp_table_find(const amqp_table_t *t, const char *name);
/* Any of the integer kinds. */
bool hp_amqp_field_int(const amqp_field_value_t *v, int64_t *ret);

#endif
