/* loop.h — what daemons add to a libuv loop: a mailbox from other threads, signals that stop it, the monotonic clock. */
#ifndef HP_IO_LOOP_H
#define HP_IO_LOOP_H

#include <uv.h>

#include "base/error.h"

/* A message to the loop thread, embedded in its owner. `deliver` runs on the loop thread, once. */
struct hp_mail {
    void (*deliver)(struct hp_mail *mail);
    struct hp_mail *next; /* private */
};

struct hp_mailbox; /* multi-producer, one consumer: the loop */

/* Loop thread. The mailbox does not keep the loop alive. */
int hp_mailbox_new(uv_loop_t *loop, struct hp_mailbox **ret, struct hp_error *e) HP_MUST_CHECK;
/* Any thread; never blocks on I/O, never fails. Mails are delivered in the order of posting by one thread. */
void hp_mailbox_post(struct hp_mailbox *box, struct hp_mail *mail);
/* Loop thread; delivers what was posted before, then frees. No post may follow. */
void hp_mailbox_close(struct hp_mailbox *box);

/* Milliseconds and nanoseconds of CLOCK_MONOTONIC. Any thread. */
uint64_t hp_now_ms(void);
uint64_t hp_now_ns(void);
/* Nanoseconds of CLOCK_REALTIME: only for stamps that people read. */
int64_t hp_wall_ns(void);

#endif
