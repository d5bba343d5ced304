#include "sqlite/entries.h"

#include <stdlib.h>
#include <string.h>

enum { CLEAN_MAX = 16384 };

static struct entry *entry_at(struct list *link) {
    return container_of(link, struct entry, link);
}

bool entries_init(struct entries *entries, struct rows *rows) {
    *entries = (struct entries){.rows = rows};
    list_init(&entries->clean);
    list_init(&entries->dirty);
    return table_init(&entries->table);
}

void entries_deinit(struct entries *entries) {
    for (struct table_node *node; (node = table_pop(&entries->table));)
        free(container_of(node, struct entry, node));
    table_deinit(&entries->table);
    known_names_deinit(&entries->names);
}

/* --- Finding ---------------------------------------------------------------------------------- */

static bool has_name(const struct table_node *node, const void *name, size_t len) {
    const struct entry *entry = container_of(node, struct entry, node);
    return entry->name_len == len && memcmp(entry->name, name, len) == 0;
}

static struct entry *find_in_memory(struct entries *entries, uint64_t hash, struct slice name) {
    struct table_node *node = table_find(&entries->table, hash, has_name, name.data, name.len);
    return node ? container_of(node, struct entry, node) : NULL;
}

static struct entry *entry_new(struct entries *entries, uint64_t hash, struct slice name) {
    struct entry *entry = malloc(sizeof *entry + name.len);
    if (!entry)
        return NULL;
    *entry = (struct entry){.node.hash = hash, .name_len = (uint16_t)name.len};
    memcpy(entry->name, name.data, name.len);
    table_insert(&entries->table, &entry->node);
    list_append(&entries->clean, &entry->link);
    entries->clean_count++;
    return entry;
}

bool entries_find(struct entries *entries, uint64_t hash, struct slice name, bool create,
                  struct entry **entry) {
    *entry = find_in_memory(entries, hash, name);
    if (*entry && !(*entry)->is_dirty) {
        list_remove(&(*entry)->link);
        list_append(&entries->clean, &(*entry)->link);
    }
    if (*entry)
        return true;
    struct channel_row row = {0};
    enum row_status status = known_names_may_have(&entries->names, hash)
                                 ? rows_find_channel(entries->rows, name, &row)
                                 : ROW_MISSING;
    if (status == ROW_FAILED || status == ROW_DAMAGED)
        return false;
    if (status == ROW_MISSING && !create)
        return true;
    uint64_t floor = 0;
    if (row.id && !rows_find_floor(entries->rows, row.id, &floor))
        return false;
    if (status == ROW_MISSING)
        known_names_add(&entries->names, hash);
    *entry = entry_new(entries, hash, name);
    if (*entry) {
        (*entry)->now = row;
        (*entry)->floor = floor;
    }
    return *entry != NULL;
}

/* --- Changing --------------------------------------------------------------------------------- */

void entries_begin(struct entries *entries) {
    entries->transaction++;
}

static void set_dirty(struct entries *entries, struct entry *entry, int64_t now_ms) {
    if (entry->is_dirty)
        return;
    list_remove(&entry->link);
    list_append(&entries->dirty, &entry->link);
    entry->is_dirty = true;
    entries->clean_count--;
    entries->dirty_count++;
    if (!entries->dirty_since)
        entries->dirty_since = now_ms;
}

void entries_touch(struct entries *entries, struct entry *entry, int64_t now_ms) {
    if (entry->transaction != entries->transaction) {
        entry->transaction = entries->transaction;
        entry->before = entry->now;
        entry->was_dirty = entry->is_dirty;
    }
    set_dirty(entries, entry, now_ms);
}

void entries_set_clean(struct entries *entries, struct entry *entry) {
    list_remove(&entry->link);
    list_append(&entries->clean, &entry->link);
    entry->is_dirty = false;
    entries->clean_count++;
    entries->dirty_count--;
}

static void free_clean(struct entries *entries, struct entry *entry) {
    table_remove(&entries->table, &entry->node);
    list_remove(&entry->link);
    free(entry);
    entries->clean_count--;
}

void entries_undo(struct entries *entries, uint64_t hash, struct slice name) {
    struct entry *entry = find_in_memory(entries, hash, name);
    if (!entry || entry->transaction != entries->transaction)
        return;
    entry->transaction = 0;
    entry->now = entry->before;
    if (!entry->was_dirty)
        entries_set_clean(entries, entry);
    if (!entry->now.id)
        free_clean(entries, entry);
}

void entries_take_dirty(struct entries *entries, struct list *taken) {
    list_splice(taken, &entries->dirty);
    entries->dirty_since = 0;
}

void entries_trim(struct entries *entries) {
    while (entries->clean_count > CLEAN_MAX)
        free_clean(entries, entry_at(entries->clean.next));
}

bool entries_forget(struct entries *entries, uint64_t hash, struct slice name) {
    struct entry *entry = find_in_memory(entries, hash, name);
    if (!entry)
        return true;
    if (entry->is_dirty)
        return false;
    free_clean(entries, entry);
    return true;
}
