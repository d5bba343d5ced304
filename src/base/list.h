/*
 * An intrusive, circular, doubly linked list.
 *
 * A head and a node are the same struct. A node that is in no list is linked to itself (list_init,
 * list_remove), and list_empty() is true of it. No function fails or allocates.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

/* The struct of type `type` whose member `member` is at `node`. */
#define container_of(node, type, member) ((type *)((char *)(node) - offsetof(type, member)))

static inline void list_init(struct list *list) {
    list->prev = list->next = list;
}

static inline bool list_empty(const struct list *list) {
    return list->next == list;
}

/* Puts `node`, which must be in no list, at the end of `head`. */
static inline void list_append(struct list *head, struct list *node) {
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Takes `node` out of its list; harmless when it is in none. */
static inline void list_remove(struct list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* The first node, removed; NULL when the list is empty. */
static inline struct list *list_shift(struct list *head) {
    if (list_empty(head))
        return NULL;
    struct list *node = head->next;
    list_remove(node);
    return node;
}

/* Moves all nodes of `from` to the end of `to`, in order; `from` is empty afterwards. */
static inline void list_splice(struct list *to, struct list *from) {
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    list_init(from);
}
