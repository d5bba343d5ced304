#include "sqlite/sweeper.h"
#include "base/log.h"
#include "sqlite/meta.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

enum {
    PASS_MIN_ROWS = 1024, /* a pass is for so many deletable rows, or for a quarter of all */
    IDLE_ROWS = 65536,    /* an idle log of up to so many rows is swept for a single one */
    PASS_REST = 16,       /* a pass may leave the 16th part of what it came for to the next one */
};

bool sweeper_init(struct sweeper *sweeper, struct log_file *file, struct log_state *state,
                  const struct store_options *options) {
    *sweeper = (struct sweeper){.file = file, .state = state, .options = options};
    return log_file_prepare(file, &sweeper->find_oldest,
                            "SELECT seq, born FROM update_log"
                            " WHERE " SEAL_HAS_NUMBERS " ORDER BY seq LIMIT 1") &&
           log_file_prepare(file, &sweeper->find_kept,
                            "SELECT seq FROM update_log WHERE seq <= ?1 AND born >= ?2"
                            " AND " SEAL_HAS_NUMBERS " ORDER BY seq LIMIT 1") &&
           log_file_prepare(
               file, &sweeper->find_slice_end,
               "SELECT max(seq) FROM"
               " (SELECT seq FROM update_log WHERE seq >= ?1 ORDER BY seq LIMIT ?2)") &&
           log_file_prepare(file, &sweeper->delete_oldest,
                            "DELETE FROM update_log WHERE seq <= ?1") &&
           log_file_prepare(file, &sweeper->delete_excess,
                            "DELETE FROM update_log WHERE seq BETWEEN ?1 AND ?2"
                            " AND " SEAL_HAS_NUMBERS " AND EXISTS (SELECT 1 FROM channel"
                            "  WHERE id = update_log.channel AND total - ?3 >= update_log.ts"
                            "  AND " SEAL_IS_WHOLE ")");
}

/* --- What is due ------------------------------------------------------------------------------ */

int64_t sweep_threshold(int64_t rows, bool is_idle) {
    if (is_idle && rows <= IDLE_ROWS)
        return 1;
    return rows / 4 > PASS_MIN_ROWS ? rows / 4 : PASS_MIN_ROWS;
}

/* False when the log has no row, or cannot be read. */
static bool find_oldest(struct sweeper *sweeper) {
    if (!sweeper->oldest.is_known) {
        int status = sqlite3_step(sweeper->find_oldest);
        sweeper->oldest.is_known = status == SQLITE_ROW || status == SQLITE_DONE;
        sweeper->oldest.seq =
            status == SQLITE_ROW ? sqlite3_column_int64(sweeper->find_oldest, 0) : 0;
        sweeper->oldest.born =
            status == SQLITE_ROW ? sqlite3_column_int64(sweeper->find_oldest, 1) : 0;
        sqlite3_reset(sweeper->find_oldest);
    }
    return sweeper->oldest.seq != 0;
}

enum sweep sweeper_due(struct sweeper *sweeper, int64_t cutoff_ms, bool is_idle) {
    const struct log_state *state = sweeper->state;
    int64_t max_bytes = (int64_t)sweeper->options->max_bytes;
    if (sweeper->is_held || !find_oldest(sweeper))
        return SWEEP_NOTHING;
    if (sweeper->oldest.born < cutoff_ms && !sweeper->is_end_stuck)
        return SWEEP_AGE;
    int64_t bytes = 0;
    if (max_bytes && !sweeper->is_end_stuck && log_file_used_bytes(sweeper->file, &bytes) &&
        bytes > max_bytes)
        return SWEEP_BYTES;
    if (sweeper->is_pass_stuck)
        return SWEEP_NOTHING;
    bool is_worth_it = state->excess.ready >= sweep_threshold(state->rows, is_idle);
    return state->pass.is_open || is_worth_it ? SWEEP_COUNT : SWEEP_NOTHING;
}

bool sweeper_needs_checkpoint(struct sweeper *sweeper, int64_t cutoff_ms, bool is_idle) {
    const struct log_state *state = sweeper->state;
    if (state->excess.fresh >= sweep_threshold(state->rows, false))
        return true;
    return sweeper_due(sweeper, cutoff_ms, is_idle) != SWEEP_NOTHING &&
           sweeper->oldest.seq > state->checkpoint_seq;
}

/* --- Deleting --------------------------------------------------------------------------------- */

int64_t sweep_rows_over(int64_t used_bytes, int64_t max_bytes, int64_t rows, int64_t max_rows) {
    int64_t bytes_per_row = used_bytes / (rows > 0 ? rows : 1) + 1;
    int64_t enough = (used_bytes - max_bytes) / bytes_per_row + 1;
    return enough < 1 ? 1 : enough < max_rows ? enough : max_rows;
}

/* The last seq of a slice of `max_rows` rows, `end_seq` at most. False on failure. */
static bool find_slice_end(struct sweeper *sweeper, int64_t first_seq, int64_t end_seq,
                           int64_t max_rows, int64_t *end) {
    sqlite3_bind_int64(sweeper->find_slice_end, 1, first_seq);
    sqlite3_bind_int64(sweeper->find_slice_end, 2, max_rows);
    bool ok = sql_get(sweeper->find_slice_end, end);
    if (*end < first_seq || *end > end_seq || !*end)
        *end = end_seq;
    return ok;
}

/* Some errors make SQLite roll back by itself. Then a DELETE would be a transaction of its own. */
static bool run_delete(struct sweeper *sweeper, sqlite3_stmt *statement) {
    return !sqlite3_get_autocommit(sweeper->file->db) && sql_run(statement);
}

/* Deletes from the old end up to the first row that is not past the bound on age: a gap in the log
 * would look like damage. */
static bool delete_oldest(struct sweeper *sweeper, int64_t cutoff_ms, int64_t max_rows) {
    int64_t end, kept;
    if (!find_slice_end(sweeper, 0, sweeper->state->checkpoint_seq, max_rows, &end))
        return false;
    sqlite3_bind_int64(sweeper->find_kept, 1, end);
    sqlite3_bind_int64(sweeper->find_kept, 2, cutoff_ms);
    if (!sql_get(sweeper->find_kept, &kept))
        return false;
    sqlite3_bind_int64(sweeper->delete_oldest, 1, kept ? kept - 1 : end);
    return run_delete(sweeper, sweeper->delete_oldest);
}

static void open_pass(struct sweeper *sweeper) {
    struct log_state *state = sweeper->state;
    state->pass = (struct log_pass){
        .next_seq = sweeper->oldest.seq, .end_seq = state->checkpoint_seq, .is_open = true};
    log_excess_pass_opened(&state->excess);
    state->pass.enough = state->excess.in_pass / PASS_REST;
}

/* Most of what it came for lies at the old end, where channels fill alike: there is no need to walk
 * over all that is kept. */
static void end_pass_if_done(struct log_state *state) {
    bool has_seen_all = state->pass.next_seq > state->pass.end_seq;
    if (!has_seen_all && state->excess.in_pass > state->pass.enough)
        return;
    state->pass.is_open = false;
    log_excess_pass_done(&state->excess, has_seen_all);
}

static bool delete_excess(struct sweeper *sweeper, int64_t max_rows) {
    struct log_state *state = sweeper->state;
    if (!state->pass.is_open)
        open_pass(sweeper);
    int64_t end;
    if (!find_slice_end(sweeper, state->pass.next_seq, state->pass.end_seq, max_rows, &end))
        return false;
    sqlite3_bind_int64(sweeper->delete_excess, 1, state->pass.next_seq);
    sqlite3_bind_int64(sweeper->delete_excess, 2, end);
    sqlite3_bind_int64(sweeper->delete_excess, 3, (int64_t)sweeper->options->channel_max_updates);
    if (!run_delete(sweeper, sweeper->delete_excess))
        return false;
    state->pass.next_seq = end + 1;
    log_excess_deleted(&state->excess, sqlite3_changes(sweeper->file->db));
    end_pass_if_done(state);
    return true;
}

static bool delete_rows(struct sweeper *sweeper, enum sweep sweep, int64_t cutoff_ms,
                        int64_t max_rows) {
    if (sweep == SWEEP_COUNT)
        return delete_excess(sweeper, max_rows);
    if (sweep == SWEEP_AGE)
        return delete_oldest(sweeper, cutoff_ms, max_rows);
    int64_t bytes;
    if (!log_file_used_bytes(sweeper->file, &bytes))
        return false;
    int64_t rows = sweep_rows_over(bytes, (int64_t)sweeper->options->max_bytes,
                                   sweeper->state->rows, max_rows);
    return delete_oldest(sweeper, INT64_MAX, rows);
}

/* From now on nothing is deleted in this way: it would only be tried again and again. */
static void give_up(struct sweeper *sweeper, enum sweep sweep) {
    *(sweep == SWEEP_COUNT ? &sweeper->is_pass_stuck : &sweeper->is_end_stuck) = true;
    log_error("old updates cannot be deleted", "meaning",
              "the data file is damaged; see longline check", NULL);
}

bool sweeper_sweep(struct sweeper *sweeper, enum sweep sweep, int64_t cutoff_ms, int64_t max_rows) {
    if (!delete_rows(sweeper, sweep, cutoff_ms, max_rows)) {
        if (sqlite3_errcode(sweeper->file->db) == SQLITE_CORRUPT)
            give_up(sweeper, sweep);
        return false;
    }
    int64_t deleted = sqlite3_changes(sweeper->file->db);
    bool was_deletable = sweeper->oldest.seq <= sweeper->state->checkpoint_seq;
    if (!deleted && was_deletable && sweep != SWEEP_COUNT)
        give_up(sweeper, sweep);
    sweeper->state->rows -= deleted;
    sweeper->state->swept += (uint64_t)deleted;
    sweeper->oldest.is_known = false;
    return !deleted || meta_put_counts(sweeper->file, sweeper->state);
}

void sweeper_appended(struct sweeper *sweeper) {
    if (!sweeper->oldest.seq)
        sweeper->oldest.is_known = false;
}

void sweeper_changed(struct sweeper *sweeper) {
    sweeper->oldest.is_known = false;
}
