#include "sqlite/reader.h"

#include <stdlib.h>

/* --- Walking back ----------------------------------------------------------------------------- */

/* A walk back through the rows of a channel. */
struct walk {
    const struct reader *reader;
    const struct channel_row *channel;
    int64_t gone; /* what nobody may read any more: purged, or past the bound on their count */
    struct slice name;
    int64_t cutoff_ms;
    int64_t dead_skip; /* a `skip` that leads nowhere */
    bool has_failed;
};

/* LINK_END: nothing older is kept. */
enum link { LINK_FOUND, LINK_END, LINK_BROKEN };

/* Whether the row `seq`, with the update `ts`, may have been deleted. */
static bool may_be_deleted(struct walk *walk, int64_t seq, int64_t ts) {
    const struct reader *reader = walk->reader;
    int64_t oldest;
    if (seq <= reader->raised_seq || ts <= walk->gone)
        return true;
    walk->has_failed |= !rows_find_oldest(reader->rows, &oldest);
    return !oldest || seq < oldest;
}

/* Loads the row `seq`, in which the update `ts` must be; or, if `is_skip`, one before that. */
static enum link follow(struct walk *walk, int64_t seq, int64_t ts, bool is_skip,
                        struct update_row *row) {
    if (!seq)
        return LINK_END;
    switch (rows_load_numbers(walk->reader->rows, seq, row)) {
    case ROW_FOUND: break;
    case ROW_MISSING: return may_be_deleted(walk, seq, ts) ? LINK_END : LINK_BROKEN;
    case ROW_DAMAGED: return LINK_BROKEN;
    case ROW_FAILED: walk->has_failed = true; return LINK_END;
    }
    bool is_its = is_skip ? row->ts <= ts && row->ts % LOG_SKIP == 0 : row->ts == ts;
    if (row->seq != seq || row->channel != walk->channel->id || !is_its)
        return LINK_BROKEN;
    return row->born >= walk->cutoff_ms ? LINK_FOUND : LINK_END;
}

/* The row behind a damaged one that was found before. */
static enum row_status load_noted(struct walk *walk, const struct damage_note *note,
                                  struct update_row *older) {
    enum row_status status = rows_load_numbers(walk->reader->rows, note->older_seq, older);
    return status == ROW_FOUND && older->channel != walk->channel->id ? ROW_DAMAGED : status;
}

/* Finds the newest readable row before `row`, whose `prev` is broken. */
static bool search(struct walk *walk, const struct update_row *row, struct update_row *older) {
    const struct reader *reader = walk->reader;
    const struct damage_note *note = damage_find(reader->damage, row->prev);
    if (note && note->older_seq == 0)
        return false;
    enum row_status status = ROW_DAMAGED;
    int64_t seq = row->prev, from_seq = 1;
    if (note && note->older_seq > 0) {
        status = load_noted(walk, note, older);
        seq = note->older_seq;
    }
    if (status == ROW_DAMAGED || status == ROW_MISSING) {
        if (follow(walk, row->skip, row->ts - 1, true, older) == LINK_FOUND)
            from_seq = older->seq;
        status = rows_find_older(reader->rows, walk->channel->id, seq, from_seq, older);
    }
    walk->has_failed |= status == ROW_FAILED;
    bool is_found = status == ROW_FOUND && older->seq < row->seq && older->ts < row->ts;
    if (!walk->has_failed)
        damage_report(reader->damage, walk->name, row->ts - 1, row->prev,
                      is_found ? older->seq : 0);
    return is_found && older->born >= walk->cutoff_ms;
}

/* The newest readable update before `row`, or one further back that is not before `ts`. False when
 * there is none; and on failure. */
static bool step_back(struct walk *walk, const struct update_row *row, int64_t ts,
                      struct update_row *older) {
    int64_t skip_ts = (row->ts - 1) / LOG_SKIP * LOG_SKIP;
    if (skip_ts >= ts && row->skip && row->skip != walk->dead_skip) {
        if (follow(walk, row->skip, skip_ts, true, older) == LINK_FOUND && older->ts >= ts)
            return true;
        walk->dead_skip = row->skip;
    }
    switch (follow(walk, row->prev, row->ts - 1, false, older)) {
    case LINK_FOUND: return true;
    case LINK_END: return false;
    case LINK_BROKEN: return search(walk, row, older);
    }
    return false;
}

/* As if one more update stood behind the newest. */
static struct update_row walk_begin(const struct walk *walk) {
    const struct channel_row *channel = walk->channel;
    return (struct update_row){.seq = INT64_MAX,
                               .channel = channel->id,
                               .ts = (int64_t)channel->total + 1,
                               .prev = channel->head,
                               .skip = channel->mark};
}

/* --- Positions -------------------------------------------------------------------------------- */

static bool is_before(const struct update_row *row, int64_t ms) {
    return row->at && row->at < ms;
}

/* The update that `row->skip` leads to, if it is not before `first_ts`. */
static bool skip_back(struct walk *walk, const struct update_row *row, int64_t first_ts,
                      struct update_row *older) {
    int64_t skip_ts = (row->ts - 1) / LOG_SKIP * LOG_SKIP;
    return skip_ts >= first_ts && row->skip &&
           follow(walk, row->skip, skip_ts, true, older) == LINK_FOUND && older->ts >= first_ts;
}

/* Behind the newest update that was stored before `ms`; before the oldest that is kept where there
 * is none. Where the wall clock went back, one further back may be taken for it. */
static int64_t find_since(struct walk *walk, int64_t ms) {
    int64_t first_ts = walk->gone + 1;
    struct update_row row = walk_begin(walk), older;
    bool is_near = false; /* the next skip would pass it */
    while (row.ts > first_ts) {
        if (!is_near && skip_back(walk, &row, first_ts, &older)) {
            is_near = is_before(&older, ms);
            if (!is_near) {
                row = older;
                continue;
            }
        }
        if (!step_back(walk, &row, row.ts - 1, &older) || older.ts < first_ts)
            break;
        if (is_before(&older, ms))
            return older.ts;
        row = older;
    }
    return row.ts - 1;
}

/* The position as a ts. */
static int64_t resolve(struct walk *walk, int64_t position) {
    int64_t total = (int64_t)walk->channel->total;
    if (position >= 0)
        return position;
    if (position == POSITION_NOW)
        return total;
    if (position_is_since(position))
        return find_since(walk, position_since_ms(position));
    return total + position > 0 ? total + position : 0;
}

/* --- Loading ---------------------------------------------------------------------------------- */

static void drop_updates(struct store_read *read) {
    while (read->count)
        update_unref(read->updates[--read->count]);
    free(read->updates);
    read->updates = NULL;
}

/* Loads the updates of `rows`, which are newest first, up to the byte bound and without a gap. */
static bool load_updates(struct walk *walk, const struct update_row *rows, size_t count,
                         struct store_read *read) {
    int64_t bytes = 0;
    read->updates = malloc(count * sizeof(struct update *));
    if (!read->updates)
        return false;
    while (count--) {
        const struct update_row *row = &rows[count];
        bytes += row->size;
        if (read->count && (bytes > READ_MAX_BYTES || (uint64_t)row->ts != read->end + 1))
            break;
        struct update *update;
        enum row_status status = rows_load_update(walk->reader->rows, row, &update);
        if (status == ROW_FAILED)
            return false;
        if (!update)
            damage_report(walk->reader->damage, walk->name, row->ts, row->seq, -1);
        if (!update && read->count)
            break;
        read->end = (uint64_t)row->ts;
        if (update)
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
    struct update_row row = *last, older;
    rows[found++] = row;
    while (row.ts > first_ts && step_back(walk, &row, row.ts - 1, &older))
        rows[found++] = row = older;
    bool ok = !walk->has_failed && load_updates(walk, rows, found, read);
    free(rows);
    return ok;
}

/* --- Reading ---------------------------------------------------------------------------------- */

int64_t read_first_ts(int64_t after, int64_t total, int64_t gone) {
    if (after < gone)
        after = gone;
    return after < total ? after + 1 : total + 1;
}

/* The oldest readable update from `first_ts` on; `end` itself if there is none. Sets read->gone. */
static struct update_row find_first(struct walk *walk, const struct update_row *end,
                                    int64_t first_ts, struct store_read *read) {
    struct update_row first = *end, older;
    while (first.ts > first_ts) {
        if (!step_back(walk, &first, first_ts, &older)) {
            read->gone = (uint64_t)first.ts - 1;
            break;
        }
        if (older.ts < first_ts) /* what lies between is damaged */
            break;
        first = older;
    }
    return first;
}

/* Reads what is behind `read->after`. */
static bool read_after(struct walk *walk, struct store_read *read) {
    int64_t total = (int64_t)walk->channel->total;
    int64_t first_ts = read_first_ts((int64_t)read->after, total, walk->gone);
    read->total = read->end = (uint64_t)total;
    read->gone = (uint64_t)walk->gone;
    if (first_ts > total)
        return true;

    struct update_row end = walk_begin(walk);
    struct update_row first = find_first(walk, &end, first_ts, read), last = end;
    int64_t last_ts = first.ts + read->limit - 1 < total ? first.ts + read->limit - 1 : total;
    bool is_empty = first.ts > total;
    while (last.ts > last_ts && step_back(walk, &last, last_ts, &end))
        last = end;
    if (last.ts > last_ts || last.ts < first.ts) /* no way back but that to the first */
        last = first;
    if (!walk->has_failed && (is_empty || load_range(walk, first.ts, &last, read)))
        return true;
    drop_updates(read);
    return false;
}

static struct walk walk_of(const struct reader *reader, const struct reader_channel *channel,
                           struct slice name, int64_t cutoff_ms) {
    return (struct walk){.reader = reader,
                         .channel = channel->row,
                         .gone = (int64_t)reader_gone(reader, channel),
                         .name = name,
                         .cutoff_ms = cutoff_ms};
}

uint64_t reader_gone(const struct reader *reader, const struct reader_channel *channel) {
    int64_t past = (int64_t)channel->row->total - reader->channel_max;
    return past > (int64_t)channel->floor ? (uint64_t)past : channel->floor;
}

bool reader_read(const struct reader *reader, const struct reader_channel *channel,
                 int64_t cutoff_ms, struct store_read *read) {
    struct walk walk =
        walk_of(reader, channel, (struct slice){read->name, read->name_len}, cutoff_ms);
    read->after = (uint64_t)resolve(&walk, read->position);
    return !walk.has_failed && read_after(&walk, read);
}

bool reader_find_ts(const struct reader *reader, const struct reader_channel *channel, int64_t seq,
                    struct slice name, uint64_t *ts) {
    struct walk walk = walk_of(reader, channel, name, INT64_MIN);
    struct update_row row = walk_begin(&walk), older;
    while (row.prev > seq) {
        int64_t first_ts = row.skip > seq ? 1 : row.ts - 1;
        if (!step_back(&walk, &row, first_ts, &older))
            break;
        row = older;
        if (row.seq <= seq) { /* what lies between is damaged */
            *ts = (uint64_t)row.ts;
            return true;
        }
    }
    *ts = row.prev <= seq ? (uint64_t)row.ts - 1 : 0;
    return !walk.has_failed;
}

bool reader_find_seq(const struct reader *reader, const struct reader_channel *channel,
                     uint64_t upto, struct slice name, int64_t *seq) {
    struct walk walk = walk_of(reader, channel, name, INT64_MIN);
    struct update_row row = walk_begin(&walk), older;
    int64_t first_ts = (int64_t)upto + 1;
    while (row.ts > first_ts && step_back(&walk, &row, first_ts, &older))
        row = older;
    *seq = row.ts < first_ts ? row.seq : row.ts == first_ts ? row.prev : 0;
    return !walk.has_failed;
}
