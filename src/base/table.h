/*
 * An intrusive hash table that grows one bucket at a time (linear hashing), so that no insertion
 * ever stops the loop to move everything.
 *
 * The table owns its bucket array, never the nodes. Keys are the caller's: it passes the full
 * 64-bit hash and a function that compares a node with a key.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_node {
    struct table_node *next;
    uint64_t hash;
};

struct table {
    struct table_node **buckets;
    size_t capacity; /* buckets allocated */
    size_t round;    /* a power of two: buckets at the start of this doubling */
    size_t split;    /* buckets of this round that are split already */
    size_t count;
    size_t popped; /* buckets that table_pop() has found empty since the last insertion */
};

/* Whether `node` has the key `key` of `key_len` bytes; asked only when the hashes are equal. */
typedef bool table_equal(const struct table_node *node, const void *key, size_t key_len);

/* False when memory is out. */
bool table_init(struct table *table);
void table_deinit(struct table *table);

/* NULL when there is none. */
struct table_node *table_find(const struct table *table, uint64_t hash, table_equal *equal,
                              const void *key, size_t key_len);

/* `node->hash` must be set, and no node with its key be there. Cannot fail: without memory to grow,
 * the chains become longer. */
void table_insert(struct table *table, struct table_node *node);

/* `node` must be in the table. */
void table_remove(struct table *table, struct table_node *node);

/* Removes and returns any node; NULL when the table is empty. For emptying a table. */
struct table_node *table_pop(struct table *table);
