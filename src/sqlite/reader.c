#include "sqlite/reader.h"

#include <stdlib.h>

/* A walk back through the rows of a channel. */
struct walk {
    struct rows *rows;
    int64_t cutoff_ms;
    bool has_failed;
};

/* False when the row is deleted or past the bound on age; and on failure. */
static bool load(struct walk *walk, int64_t seq, struct update_row *row) {
    if (!seq)
        return false;
    enum row_status status = rows_load_numbers(walk->rows, seq, row);
    walk->has_failed |= status == ROW_FAILED;
    return status == ROW_FOUND && row->at >= walk->cutoff_ms;
}

/* Moves `row` back to the update `ts` of its channel, or as near to it as updates are kept. */
static void seek(struct walk *walk, struct update_row *row, int64_t ts) {
    bool may_skip = true;
    while (row->ts > ts && !walk->has_failed) {
        struct update_row next;
        if (may_skip && (row->ts - 1) / LOG_SKIP * LOG_SKIP >= ts && row->skip) {
            may_skip = load(walk, row->skip, &next);
            if (may_skip)
                *row = next;
            continue;
        }
        if (!load(walk, row->prev, &next))
            return;
        *row = next;
    }
}

/* Loads the updates of `rows`, which are newest first, up to the byte bound. */
static bool load_updates(struct walk *walk, const struct update_row *rows, size_t count,
                         struct store_read *read) {
    int64_t bytes = 0;
    read->updates = malloc(count * sizeof(struct update *));
    if (!read->updates)
        return false;
    while (count--) {
        bytes += rows[count].size;
        if (read->count && bytes > READ_MAX_BYTES)
            break;
        struct update *update = rows_load_update(walk->rows, &rows[count]);
        if (!update)
            return false;
        read->updates[read->count++] = update;
    }
    return true;
}

/* Loads the updates from `first_ts` to that of `last`. */
static bool load_range(struct walk *walk, int64_t first_ts, const struct update_row *last,
                       struct store_read *read) {
    size_t count = (size_t)(last->ts - first_ts + 1), found = 0;
    struct update_row *rows = malloc(count * sizeof *rows);
    if (!rows)
        return false;
    struct update_row row = *last;
    do
        rows[found++] = row;
    while (found < count && load(walk, row.prev, &row));
    bool ok = !walk->has_failed && load_updates(walk, rows, found, read);
    free(rows);
    return ok;
}

static void drop_updates(struct store_read *read) {
    while (read->count)
        update_unref(read->updates[--read->count]);
    free(read->updates);
    read->updates = NULL;
}

int64_t read_first_ts(int64_t after_ts, int64_t total, int64_t channel_max) {
    int64_t after = after_ts < 0 ? total + after_ts : after_ts;
    if (after < total - channel_max)
        after = total - channel_max;
    if (after < 0)
        after = 0;
    return after < total ? after + 1 : total + 1;
}

bool reader_read(struct rows *rows, const struct channel_row *channel,
                 const struct read_bounds *bounds, struct store_read *read) {
    int64_t total = (int64_t)channel->total;
    int64_t first_ts = read_first_ts(read->after_ts, total, bounds->channel_max);
    read->total = channel->total;
    read->gone = total > bounds->channel_max ? (uint64_t)(total - bounds->channel_max) : 0;
    read->end = channel->total;
    if (first_ts > total)
        return true;

    struct walk walk = {.rows = rows, .cutoff_ms = bounds->cutoff_ms};
    struct update_row head;
    if (!load(&walk, channel->head, &head)) {
        read->gone = channel->total;
        return !walk.has_failed;
    }
    struct update_row first = head, last = head;
    seek(&walk, &first, first_ts);
    if (first.ts > first_ts)
        read->gone = (uint64_t)first.ts - 1;
    seek(&walk, &last, first.ts + read->limit - 1);
    if (!walk.has_failed && load_range(&walk, first.ts, &last, read)) {
        read->end = read->updates[read->count - 1]->ts;
        return true;
    }
    drop_updates(read);
    return false;
}
