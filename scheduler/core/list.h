/* list.h — intrusive circular lists; an item that is in no list points to itself. */
#ifndef SC_CORE_LIST_H
#define SC_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct sc_list {
    struct sc_list *prev, *next;
};

#define SC_OWNER(item_, type_, member_) ((type_ *)(void *)((char *)(item_)-offsetof(type_, member_)))

static inline void sc_list_init(struct sc_list *l)
{
    l->prev = l->next = l;
}

static inline bool sc_list_empty(const struct sc_list *l)
{
    return l->next == l;
}

/* `item` must be in no list. */
static inline void sc_list_append(struct sc_list *head, struct sc_list *item)
{
    item->prev = head->prev;
    item->next = head;
    head->prev->next = item;
    head->prev = item;
}

/* Legal for an item that is in no list. */
static inline void sc_list_remove(struct sc_list *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
    sc_list_init(item);
}

#endif
