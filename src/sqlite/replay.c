#include "sqlite/replay.h"
#include "base/hash.h"
#include "base/log.h"
#include "sqlite/meta.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stdio.h>

static const int64_t SEQ_MAX = INT64_MAX / 2; /* beyond, a bit has flipped */

struct replay {
    struct log_file *file;
    struct entries *entries;
    const struct store_options *options;
    int64_t checkpoint;
    int64_t last_channel_id;
    char *error;
    size_t error_size;
};

/* Says that the damaged row `seq` cannot be passed over. */
static bool refuse(struct replay *replay, int64_t seq, const char *why) {
    if (!*replay->error)
        snprintf(
            replay->error, replay->error_size,
            "%s is damaged: %s (update_log.seq %lld); restore a backup, or see \"A damaged file\""
            " in docs/data.md",
            log_file_path(replay->options), why, (long long)seq);
    return false;
}

/* --- Whole rows ------------------------------------------------------------------------------- */

/* The entry of the channel `id`, about to change. NULL when another channel has the name, for this
 * one was forgotten; and on failure, with `error`. */
static struct entry *open_entry(struct replay *replay, int64_t id, struct slice name) {
    struct entry *entry;
    if (!entries_find(replay->entries, hash_of(name), name, true, &entry)) {
        log_file_explain(replay->file, replay->options, "cannot be read", replay->error,
                         replay->error_size);
        return NULL;
    }
    if (entry->now.id && entry->now.id != id)
        return NULL;
    entries_touch(replay->entries, entry, replay->options->steady_ms());
    entry->now.id = id;
    if (id > replay->last_channel_id)
        replay->last_channel_id = id;
    return entry;
}

/* A row of the statement below. */
static bool take_channel(struct replay *replay, sqlite3_stmt *news) {
    int64_t id = sqlite3_column_int64(news, 0), first_seq = sqlite3_column_int64(news, 5);
    if (sqlite3_column_type(news, 6) == SQLITE_NULL)
        return refuse(replay, first_seq, "the only copy of a channel's name");
    struct entry *entry = open_entry(replay, id, sql_column(news, 6));
    if (!entry)
        return !*replay->error;
    int64_t mark = sqlite3_column_int64(news, 3);
    entry->now.total = (uint64_t)sqlite3_column_int64(news, 1);
    entry->now.head = sqlite3_column_int64(news, 2);
    entry->now.mark = mark ? mark : entry->now.mark;
    entry->now.last_born = sqlite3_column_int64(news, 4);
    return true;
}

/* Takes over what the log has behind the rows of `channel`. */
static bool take_whole_rows(struct replay *replay) {
    static const char sql[] =
        "SELECT news.id, news.total, news.head, news.mark, news.born, news.first,"
        " coalesce(channel.name,"
        "  (SELECT name FROM update_log WHERE seq = news.first AND " SEAL_HAS_CONTENT "))"
        " FROM (SELECT channel AS id, max(ts) AS total, max(seq) AS head, max(born) AS born,"
        "       max(seq) FILTER (WHERE ts % ?2 = 0) AS mark,"
        "       min(seq) FILTER (WHERE name IS NOT NULL) AS first"
        "       FROM update_log WHERE seq > ?1 AND " SEAL_HAS_NUMBERS " GROUP BY channel) AS news"
        " LEFT JOIN channel ON channel.id = news.id"
        " WHERE channel.head IS NULL OR news.head > channel.head";
    sqlite3_stmt *news = NULL;
    if (!log_file_prepare(replay->file, &news, sql))
        return false;
    sqlite3_bind_int64(news, 1, replay->checkpoint);
    sqlite3_bind_int64(news, 2, LOG_SKIP);
    int status;
    bool ok = true;
    while (ok && (status = sqlite3_step(news)) == SQLITE_ROW)
        ok = take_channel(replay, news);
    sqlite3_finalize(news);
    return ok && status == SQLITE_DONE;
}

/* --- Damaged rows ----------------------------------------------------------------------------- */

/* `row` is the newest of the entry's channel, or would be: two of its three links say so. */
static bool is_next_of(const struct entry *entry, const struct update_row *row) {
    const struct channel_row *channel = &entry->now;
    return row->seq > channel->head && (channel->id == row->channel) +
                                               ((int64_t)channel->total + 1 == row->ts) +
                                               (channel->head == row->prev) >=
                                           2;
}

static struct entry *find_among_dirty(struct replay *replay, const struct update_row *row) {
    struct list *dirty = &replay->entries->dirty;
    for (struct list *link = dirty->next; link != dirty; link = link->next) {
        struct entry *entry = container_of(link, struct entry, link);
        if (is_next_of(entry, row))
            return entry;
    }
    return NULL;
}

/* Among the channels that only their rows know yet. False on failure. */
static bool find_among_rows(struct replay *replay, const struct update_row *row,
                            struct entry **found) {
    sqlite3_stmt *find = NULL;
    struct entry *entry = NULL;
    if (!log_file_prepare(replay->file, &find,
                          "SELECT id, name FROM channel WHERE (id = ?1) + (total + 1 = ?2)"
                          " + (head = ?3) >= 2"))
        return false;
    sqlite3_bind_int64(find, 1, row->channel);
    sqlite3_bind_int64(find, 2, row->ts);
    sqlite3_bind_int64(find, 3, row->prev);
    int status = SQLITE_DONE;
    while (!entry && (status = sqlite3_step(find)) == SQLITE_ROW) {
        entry = open_entry(replay, sqlite3_column_int64(find, 0), sql_column(find, 1));
        if (entry && !is_next_of(entry, row))
            entry = NULL;
    }
    sqlite3_finalize(find);
    *found = entry;
    return entry || status == SQLITE_DONE;
}

/* The first update of a new channel, whose name is whole. False on failure. */
static bool open_new(struct replay *replay, const struct update_row *row, struct entry **opened) {
    sqlite3_stmt *find = NULL;
    *opened = NULL;
    if ((row->ts == 1) + (row->prev == 0) + (row->channel > replay->last_channel_id) < 2)
        return true;
    if (!log_file_prepare(replay->file, &find,
                          "SELECT name FROM update_log WHERE seq = ?1 AND name IS NOT NULL"
                          " AND " SEAL_HAS_CONTENT))
        return false;
    sqlite3_bind_int64(find, 1, row->seq);
    int status = sqlite3_step(find);
    if (status == SQLITE_ROW)
        *opened = open_entry(replay, replay->last_channel_id + 1, sql_column(find, 0));
    sqlite3_finalize(find);
    return status == SQLITE_ROW || status == SQLITE_DONE || status == SQLITE_CORRUPT;
}

/* Gives a damaged row to its channel, so that its id is not given again. */
static bool take_damaged_row(struct replay *replay, const struct update_row *row) {
    int64_t is_linked = 0;
    if (!log_file_query(
            replay->file,
            "SELECT 1 FROM update_log WHERE seq > ?1 AND prev = ?1 AND " SEAL_HAS_NUMBERS
            " UNION ALL SELECT 1 FROM channel WHERE head = ?1",
            row->seq, 0, &is_linked))
        return false;
    if (is_linked)
        return true;
    struct entry *entry = find_among_dirty(replay, row);
    if (!entry && !find_among_rows(replay, row, &entry))
        return false;
    if (!entry && !open_new(replay, row, &entry))
        return false;
    if (!entry)
        return refuse(replay, row->seq, "an update of the last seconds, nobody knows whose");
    entry->now.total++;
    entry->now.head = row->seq;
    return true;
}

static bool take_damaged_rows(struct replay *replay) {
    sqlite3_stmt *list = NULL;
    if (!log_file_prepare(replay->file, &list,
                          "SELECT seq, channel, ts, prev FROM update_log"
                          " WHERE seq > ?1 AND NOT " SEAL_HAS_NUMBERS " ORDER BY seq"))
        return false;
    sqlite3_bind_int64(list, 1, replay->checkpoint);
    int status;
    bool ok = true;
    while (ok && (status = sqlite3_step(list)) == SQLITE_ROW) {
        struct update_row row = {
            .seq = sqlite3_column_int64(list, 0),
            .channel = sqlite3_column_int64(list, 1),
            .ts = sqlite3_column_int64(list, 2),
            .prev = sqlite3_column_int64(list, 3),
        };
        ok = take_damaged_row(replay, &row);
    }
    sqlite3_finalize(list);
    return ok && status == SQLITE_DONE;
}

/* --- The whole -------------------------------------------------------------------------------- */

static bool look_at_log(struct replay *replay, const struct log_meta *meta,
                        struct log_found *found) {
    struct log_file *file = replay->file;
    int64_t channel_max = (int64_t)replay->options->channel_max_updates;
    int64_t last_id = 0;
    bool ok =
        log_file_query(file, "SELECT seq FROM update_log WHERE seq < ?1 ORDER BY seq DESC LIMIT 1",
                       SEQ_MAX, 0, &found->last_seq) &&
        log_file_query(file, "SELECT max(id) FROM channel", 0, 0, &last_id) &&
        log_file_query(file, "SELECT count(*) FROM update_log WHERE seq > ?1", meta->counted_seq, 0,
                       &found->rows_after) &&
        log_file_query(file, "SELECT count(*) FROM update_log WHERE seq > ?1 AND ts > ?2",
                       meta->counted_seq, channel_max, &found->full_after);
    found->last_channel_id = last_id > replay->last_channel_id ? last_id : replay->last_channel_id;
    return ok;
}

/* Where `meta` does not know the time, the newest row does. */
static bool find_time(struct replay *replay, const struct log_meta *meta, struct log_found *found,
                      struct log_time *time) {
    sqlite3_stmt *newest = NULL;
    if (!log_file_prepare(replay->file, &newest,
                          "SELECT born, at FROM update_log WHERE " SEAL_HAS_NUMBERS
                          " ORDER BY seq DESC LIMIT 1"))
        return false;
    int status = sqlite3_step(newest);
    *time = meta->time;
    if (status == SQLITE_ROW) {
        found->last_born = sqlite3_column_int64(newest, 0);
        if (!time->log_ms)
            *time = (struct log_time){.log_ms = found->last_born,
                                      .wall_ms = sqlite3_column_int64(newest, 1)};
    }
    sqlite3_finalize(newest);
    return status == SQLITE_ROW || status == SQLITE_DONE;
}

/* Counts the rows again where the log has no room for as many as it should have: somebody has
 * deleted some, or a page of the file stands for another. */
static bool check_rows(struct replay *replay, struct log_state *state) {
    int64_t oldest = 0;
    if (!log_file_query(replay->file, "SELECT min(seq) FROM update_log", 0, 0, &oldest))
        return false;
    if (state->rows <= (oldest ? state->last_seq - oldest + 1 : 0))
        return true;
    log_error("the data file holds fewer updates than it should", "updates",
              log_number((uint64_t)state->rows).text, NULL);
    return log_file_query(replay->file, "SELECT count(*) FROM update_log", 0, 0, &state->rows);
}

bool replay_log(struct log_file *file, struct entries *entries, const struct store_options *options,
                struct log_state *state, struct log_time *time, char *error, size_t error_size) {
    struct log_meta meta;
    struct log_found found = {0};
    struct replay replay = {.file = file,
                            .entries = entries,
                            .options = options,
                            .error = error,
                            .error_size = error_size};
    bool ok = meta_get(file, &meta);
    replay.checkpoint = meta.checkpoint;
    replay.last_channel_id = meta.last_channel;
    entries_begin(entries);
    ok = ok && take_whole_rows(&replay) && take_damaged_rows(&replay) &&
         look_at_log(&replay, &meta, &found) && find_time(&replay, &meta, &found, time);
    if (ok)
        *state = log_state_at_start(&meta, &found, (int64_t)options->channel_max_updates);
    ok = ok && check_rows(&replay, state);
    if (!ok && !*error)
        log_file_explain(file, options, "cannot be read", error, error_size);
    return ok;
}
