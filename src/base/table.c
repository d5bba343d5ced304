#include "base/table.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 64 };

bool table_init(struct table *table) {
    *table = (struct table){.round = FIRST_BUCKETS, .capacity = FIRST_BUCKETS};
    table->buckets = calloc(FIRST_BUCKETS, sizeof *table->buckets);
    return table->buckets != NULL;
}

void table_deinit(struct table *table) {
    free(table->buckets);
}

static struct table_node **bucket_of(const struct table *table, uint64_t hash) {
    size_t index = hash & (table->round - 1);
    if (index < table->split)
        index = hash & (2 * table->round - 1);
    return &table->buckets[index];
}

struct table_node *table_find(const struct table *table, uint64_t hash, table_equal *equal,
                              const void *key, size_t key_len) {
    for (struct table_node *node = *bucket_of(table, hash); node; node = node->next)
        if (node->hash == hash && equal(node, key, key_len))
            return node;
    return NULL;
}

/* Splits the next bucket in two, which makes room for one more node. */
static void grow(struct table *table) {
    size_t last = table->round + table->split;
    if (last == table->capacity) {
        size_t bytes = table->capacity * sizeof *table->buckets;
        struct table_node **grown = realloc(table->buckets, 2 * bytes);
        if (!grown)
            return;
        memset((char *)grown + bytes, 0, bytes);
        table->buckets = grown;
        table->capacity *= 2;
    }
    struct table_node **low = &table->buckets[table->split], **high = &table->buckets[last];
    while (*low) {
        struct table_node *node = *low;
        if (node->hash & table->round) {
            *low = node->next;
            node->next = *high;
            *high = node;
        } else {
            low = &node->next;
        }
    }
    if (++table->split == table->round) {
        table->round *= 2;
        table->split = 0;
    }
}

void table_insert(struct table *table, struct table_node *node) {
    if (table->count >= table->round + table->split)
        grow(table);
    struct table_node **bucket = bucket_of(table, node->hash);
    node->next = *bucket;
    *bucket = node;
    table->count++;
    table->popped = 0;
}

void table_remove(struct table *table, struct table_node *node) {
    struct table_node **link = bucket_of(table, node->hash);
    while (*link != node)
        link = &(*link)->next;
    *link = node->next;
    table->count--;
}

struct table_node *table_pop(struct table *table) {
    for (; table->count && table->popped < table->round + table->split; table->popped++) {
        struct table_node **bucket = &table->buckets[table->popped], *node = *bucket;
        if (node) {
            *bucket = node->next;
            table->count--;
            return node;
        }
    }
    return NULL;
}
