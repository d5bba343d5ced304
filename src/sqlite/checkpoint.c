#include "sqlite/checkpoint.h"
#include "base/log.h"
#include "sqlite/meta.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* What makes a checkpoint due. */
enum {
    DIRTY_MAX = 65536,    /* channels to be written */
    APPENDS_MAX = 200000, /* updates: the bound on the replay */
    AGE_MS = 5000,        /* of the oldest change */
};

static struct entry *entry_at(struct list *link) {
    return container_of(link, struct entry, link);
}

void checkpoint_init(struct checkpoint *checkpoint, struct log_file *file, struct entries *entries,
                     struct log_state *state) {
    *checkpoint = (struct checkpoint){.file = file, .entries = entries, .state = state};
    list_init(&checkpoint->writing);
}

bool checkpoint_is_due(const struct checkpoint *checkpoint, int64_t now_ms) {
    const struct entries *entries = checkpoint->entries;
    return entries->dirty_count >= DIRTY_MAX || checkpoint->appends >= APPENDS_MAX ||
           (entries->dirty_since && now_ms - entries->dirty_since >= AGE_MS);
}

/* What to sort by lies side by side: to look into each of 65,536 entries, again and again, would
 * hold up the pushes that wait. */
struct sorted_entry {
    uint64_t name_begins; /* its first bytes, as a number that sorts like them */
    struct entry *entry;
};

static uint64_t first_bytes(const struct entry *entry) {
    uint64_t bytes = 0;
    memcpy(&bytes, entry->name, entry->name_len < sizeof bytes ? entry->name_len : sizeof bytes);
    return be64toh(bytes);
}

static int by_name(const void *a, const void *b) {
    const struct sorted_entry *left = a, *right = b;
    if (left->name_begins != right->name_begins)
        return left->name_begins < right->name_begins ? -1 : 1;
    struct slice x = entry_name(left->entry), y = entry_name(right->entry);
    int order = memcmp(x.data, y.data, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

/* Brings `writing` into the order of the index on names, so that each of its pages is written once.
 * Without memory for it the order stays as it is. */
static void sort_writing(struct checkpoint *checkpoint) {
    struct sorted_entry *sorted = malloc(checkpoint->entries->dirty_count * sizeof *sorted);
    if (!sorted)
        return;
    size_t count = 0;
    for (struct list *link; (link = list_shift(&checkpoint->writing)); count++)
        sorted[count] = (struct sorted_entry){first_bytes(entry_at(link)), entry_at(link)};
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++)
        list_append(&checkpoint->writing, &sorted[i].entry->link);
    free(sorted);
}

void checkpoint_open(struct checkpoint *checkpoint) {
    entries_take_dirty(checkpoint->entries, &checkpoint->writing);
    sort_writing(checkpoint);
    checkpoint->seq = checkpoint->state->last_seq;
    checkpoint->appends = 0;
    checkpoint->is_open = true;
    log_excess_checkpoint_opened(&checkpoint->state->excess);
}

static bool write_rows(struct checkpoint *checkpoint, size_t max_rows,
                       struct checkpoint_slice *slice) {
    for (struct list *link; max_rows && (link = list_shift(&checkpoint->writing)); max_rows--) {
        struct entry *entry = entry_at(link);
        list_append(&slice->entries, link);
        if (!rows_put_channel(checkpoint->entries->rows, entry_name(entry), &entry->now))
            return false;
    }
    slice->is_last = list_empty(&checkpoint->writing);
    return !slice->is_last ||
           meta_put_checkpoint(checkpoint->file, checkpoint->state, checkpoint->seq);
}

bool checkpoint_write(struct checkpoint *checkpoint, size_t max_rows,
                      struct checkpoint_slice *slice) {
    if (write_rows(checkpoint, max_rows, slice))
        return true;
    if ((sqlite3_errcode(checkpoint->file->db) & 0xff) == SQLITE_CORRUPT) {
        checkpoint->is_stuck = true;
        log_error("channels cannot be saved", "meaning",
                  "the data file is damaged; a restart mends it, or says what is lost", NULL);
    }
    return false;
}

void checkpoint_committed(struct checkpoint *checkpoint, struct checkpoint_slice *slice) {
    for (struct list *link; (link = list_shift(&slice->entries));)
        entries_set_clean(checkpoint->entries, entry_at(link));
    entries_trim(checkpoint->entries);
    if (!slice->is_last)
        return;
    checkpoint->is_open = false;
    checkpoint->state->checkpoint_seq = checkpoint->seq;
    log_excess_checkpoint_done(&checkpoint->state->excess);
}

void checkpoint_failed(struct checkpoint *checkpoint, struct checkpoint_slice *slice) {
    list_splice(&checkpoint->writing, &slice->entries);
}
