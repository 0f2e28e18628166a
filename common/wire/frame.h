/* frame.h — length-prefixed frames of the agent link: 4 bytes big endian, then 1 byte to HP_FRAME_MAX of body. No I/O. */
#ifndef HP_WIRE_FRAME_H
#define HP_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { HP_FRAME_HEADER = 4, HP_FRAME_MAX = 1 << 20 };

/* Collects bytes into frames; holds at most one frame, and no memory between frames. */
struct hp_frame_reader {
    uint8_t *buf; /* the frame under way, NULL between frames */
    size_t len, have;
    uint8_t header[HP_FRAME_HEADER];
    size_t header_have;
};
void hp_frame_reader_init(struct hp_frame_reader *r);
void hp_frame_reader_done(struct hp_frame_reader *r);
/* Calls frame_cb for each complete frame (`body` valid during the call; straight from `data` when the frame is whole in it: no copy). A frame_cb that returns not 0 stops the
 * reading with that code. HP_EPROTO: length 0 or over the limit. */
int hp_frame_read(struct hp_frame_reader *r, const uint8_t *data, size_t len,
                  int (*frame_cb)(void *user, const uint8_t *body, size_t len), void *user,
                  struct hp_error *e) HP_MUST_CHECK;
void hp_frame_header(uint8_t out[HP_FRAME_HEADER], size_t body_len);

#endif
