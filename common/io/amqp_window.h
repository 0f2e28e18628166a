/* amqp_window.h — which published messages still wait for their confirm: a bounded ring indexed by delivery tag. No I/O. */
#ifndef HP_IO_AMQP_WINDOW_H
#define HP_IO_AMQP_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Tags are given out from 1 in publishing order (one channel in confirm mode). Confirms come in any order, singly or for all tags up to one. */
struct hp_confirm_window {
    void **slots;    /* by tag & (capacity - 1); NULL: settled or forgotten */
    size_t capacity; /* a power of two */
    uint64_t first;  /* oldest tag that the broker has not settled */
    uint64_t next;   /* tag of the next message */
    uint64_t *done;  /* bit by tag & (capacity - 1): settled by the broker */
};

/* Room for at least `entries_max` tags that are not settled. */
int hp_confirm_window_init(struct hp_confirm_window *w, size_t entries_max, struct hp_error *e) HP_MUST_CHECK;
void hp_confirm_window_close(struct hp_confirm_window *w);
/* Forgets everything; tags start at 1 again: a new channel. */
void hp_confirm_window_reset(struct hp_confirm_window *w);

bool hp_confirm_window_full(const struct hp_confirm_window *w);
/* Gives the next tag to `item` (not NULL). The window must not be full. */
uint64_t hp_confirm_window_push(struct hp_confirm_window *w, void *item);
/* The item of a tag; NULL when it is unknown, settled or forgotten. */
void *hp_confirm_window_find(const struct hp_confirm_window *w, uint64_t tag);
/* The item is not wanted any more (its deadline passed); the tag stays open until the broker settles it. */
void hp_confirm_window_forget(struct hp_confirm_window *w, uint64_t tag);
/* The broker settled `tag`, or with `multiple` every open tag up to it (0: all). settled_cb gets each item that is not forgotten, oldest first; it may push and forget.
 * HP_EPROTO when the tag was never given out; a tag settled twice is ignored. */
int hp_confirm_window_settle(struct hp_confirm_window *w, uint64_t tag, bool multiple,
                             void (*settled_cb)(void *item, void *user), void *user, struct hp_error *e) HP_MUST_CHECK;

#endif
