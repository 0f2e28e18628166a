/* Posting pushes onto a list under a mutex and wakes the loop only when the list was empty: one wake for a batch. */
#include "io/loop.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

struct hp_mailbox {
    uv_async_t async;      /* wakes the loop */
    uv_mutex_t mutex;      /* guards head, tail */
    struct hp_mail *head;  /* oldest mail that has not been delivered */
    struct hp_mail **tail; /* where the next one goes */
    bool closing;          /* hp_mailbox_close was called */
};

/* Delivers what is there now; what is posted meanwhile has woken the loop again. */
static void deliver_all(struct hp_mailbox *box)
{
    uv_mutex_lock(&box->mutex);
    struct hp_mail *mail = box->head;
    box->head = NULL;
    box->tail = &box->head;
    uv_mutex_unlock(&box->mutex);
    while (mail) {
        struct hp_mail *next = mail->next; /* deliver may free the mail */
        mail->deliver(mail);
        mail = next;
    }
}

static void on_async(uv_async_t *async)
{
    deliver_all(async->data);
}

int hp_mailbox_new(uv_loop_t *loop, struct hp_mailbox **ret, struct hp_error *e)
{
    struct hp_mailbox *box = calloc(1, sizeof *box);
    if (!box)
        return hp_fail(e, HP_ENOMEM, "mailbox: out of memory");
    box->tail = &box->head;
    if (uv_mutex_init(&box->mutex)) {
        free(box);
        return hp_fail(e, HP_EINTERNAL, "mailbox: mutex");
    }
    int rc = uv_async_init(loop, &box->async, on_async);
    if (rc) {
        uv_mutex_destroy(&box->mutex);
        free(box);
        return hp_fail(e, HP_EINTERNAL, "mailbox: %s", uv_strerror(rc));
    }
    box->async.data = box;
    uv_unref((uv_handle_t *)&box->async);
    *ret = box;
    return 0;
}

void hp_mailbox_post(struct hp_mailbox *box, struct hp_mail *mail)
{
    mail->next = NULL;
    uv_mutex_lock(&box->mutex);
    bool was_empty = !box->head;
    *box->tail = mail;
    box->tail = &mail->next;
    /* Under the mutex, so that the box cannot be closed and freed between the post and the wake. */
    if (was_empty)
        uv_async_send(&box->async);
    uv_mutex_unlock(&box->mutex);
}

static void on_closed(uv_handle_t *handle)
{
    struct hp_mailbox *box = handle->data;
    deliver_all(box);
    uv_mutex_destroy(&box->mutex);
    free(box);
}

void hp_mailbox_close(struct hp_mailbox *box)
{
    if (!box)
        return;
    assert(!box->closing);
    box->closing = true;
    deliver_all(box);
    uv_close((uv_handle_t *)&box->async, on_closed);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t hp_now_ms(void)
{
    return clock_ns(CLOCK_MONOTONIC) / 1000000u;
}

uint64_t hp_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t hp_wall_ns(void)
{
    return (int64_t)clock_ns(CLOCK_REALTIME);
}
