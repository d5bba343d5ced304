#include "sqlite/purges.h"
#include "base/log.h"
#include "sqlite/meta.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

enum {
    RETRY_MS = 500,
    REST_MS = 100,  /* between two wipes, at least; and as long as the first took */
    STEP_ROWS = 16, /* between two looks at the time */
    TIDY_MS = 3600 * 1000,
    TIDY_CHANNELS = 4096, /* in one transaction */
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS purge ("
    "  channel INTEGER PRIMARY KEY, upto INTEGER NOT NULL, seq INTEGER NOT NULL,"
    "  seal INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS purge_job ("
    "  id INTEGER PRIMARY KEY, channel INTEGER NOT NULL, upto INTEGER NOT NULL,"
    "  seq INTEGER NOT NULL, seal INTEGER NOT NULL);";

static const char job_index[] =
    "CREATE INDEX IF NOT EXISTS purge_job_channel ON purge_job(channel)";

struct job {
    int64_t id, channel, upto, seq;
};

static int64_t seal_job(const struct job *job) {
    int64_t numbers[] = {job->id, job->channel, job->upto, job->seq};
    return seal_purge(numbers, sizeof numbers / sizeof *numbers);
}

/* --- The tables ------------------------------------------------------------------------------- */

static bool prepare(struct purges *purges) {
    struct log_file *file = purges->file;
    purges->is_prepared =
        rows_prepare_floor(purges->rows) &&
        log_file_prepare(file, &purges->put_floor,
                         "INSERT OR REPLACE INTO purge (channel, upto, seq, seal)"
                         " VALUES (?1, ?2, ?3, ?4)") &&
        log_file_prepare(file, &purges->put_job,
                         "INSERT INTO purge_job (id, channel, upto, seq, seal)"
                         " VALUES (?1, ?2, ?3, ?4, ?5)") &&
        log_file_prepare(file, &purges->next_job,
                         "SELECT id, channel, upto, seq, seal FROM purge_job"
                         " WHERE seq <> 0 ORDER BY id LIMIT 1") &&
        log_file_prepare(file, &purges->last_job, "SELECT max(id) FROM purge_job") &&
        log_file_prepare(file, &purges->move_job,
                         "UPDATE purge_job SET seq = ?2, seal = ?3 WHERE id = ?1") &&
        log_file_prepare(file, &purges->end_jobs,
                         "DELETE FROM purge_job WHERE id <= ?1 AND seq = 0") &&
        log_file_prepare(file, &purges->delete_row, "DELETE FROM update_log WHERE seq = ?1") &&
        log_file_prepare(file, &purges->find_floors,
                         "SELECT max(channel) FROM (SELECT channel FROM purge WHERE channel > ?1"
                         " ORDER BY channel LIMIT ?2)") &&
        log_file_prepare(file, &purges->delete_floors,
                         "DELETE FROM purge WHERE channel > ?1 AND channel <= ?2"
                         " AND seq < (SELECT min(seq) FROM update_log)");
    return purges->is_prepared;
}

static void unprepare(struct purges *purges) {
    sqlite3_stmt **statements[] = {
        &purges->put_floor,  &purges->put_job,     &purges->next_job,
        &purges->last_job,   &purges->move_job,    &purges->end_jobs,
        &purges->delete_row, &purges->find_floors, &purges->delete_floors};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        sqlite3_finalize(*statements[i]);
        *statements[i] = NULL;
    }
    rows_unprepare_floor(purges->rows);
    purges->is_prepared = false;
}

/* A file of an older longline has no index, and can do without. False if that cannot be read. */
static bool index_jobs(struct log_file *file) {
    int64_t is_there = 0;
    if (!log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'purge_job_channel'", 0, 0,
                        &is_there))
        return false;
    if (!is_there)
        log_file_change(file, job_index, 0, "making an index of purges");
    return true;
}

bool purges_init(struct purges *purges, struct log_file *file, struct rows *rows,
                 struct log_state *state, struct wal *wal) {
    int64_t is_there = 0;
    *purges = (struct purges){.file = file, .rows = rows, .state = state};
    wipe_init(&purges->wipe, file, wal);
    if (!log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'purge_job'", 0, 0,
                        &is_there))
        return false;
    purges->is_made = purges->has_jobs = is_there;
    return !is_there || (index_jobs(file) && prepare(purges));
}

void purges_deinit(struct purges *purges) {
    wipe_deinit(&purges->wipe);
}

/* --- A purge ---------------------------------------------------------------------------------- */

static bool put_floor(struct purges *purges, const struct purge_range *range) {
    int64_t numbers[] = {range->channel, (int64_t)range->upto, range->last_seq};
    sqlite3_stmt *put = purges->put_floor;
    sqlite3_bind_int64(put, 1, numbers[0]);
    sqlite3_bind_int64(put, 2, numbers[1]);
    sqlite3_bind_int64(put, 3, numbers[2]);
    sqlite3_bind_int64(put, 4, seal_purge(numbers, sizeof numbers / sizeof *numbers));
    return sql_run(put);
}

static bool put_job(struct purges *purges, const struct job *job) {
    sqlite3_stmt *put = purges->put_job;
    sqlite3_bind_int64(put, 1, job->id);
    sqlite3_bind_int64(put, 2, job->channel);
    sqlite3_bind_int64(put, 3, job->upto);
    sqlite3_bind_int64(put, 4, job->seq);
    sqlite3_bind_int64(put, 5, seal_job(job));
    return sql_run(put);
}

bool purges_add(struct purges *purges, const struct purge_range *range) {
    struct job job = {.channel = range->channel, .upto = (int64_t)range->upto, .seq = range->seq};
    if (!purges->is_prepared && (!log_file_execute(purges->file, schema) ||
                                 !log_file_execute(purges->file, job_index) || !prepare(purges)))
        return false;
    if (!sql_get(purges->last_job, &job.id))
        return false;
    job.id = (job.id > purges->wiped_id ? job.id : purges->wiped_id) + 1;
    return put_floor(purges, range) && put_job(purges, &job);
}

void purges_committed(struct purges *purges) {
    purges->is_made |= purges->is_prepared;
}

void purges_undone(struct purges *purges) {
    if (!purges->is_made)
        unprepare(purges); /* the tables may be gone with the transaction */
}

/* --- Deleting --------------------------------------------------------------------------------- */

/* The next job with rows to delete; its id is 0 when there is none. One that is damaged deletes
 * nothing. False on failure. */
static bool find_job(struct purges *purges, struct job *job) {
    sqlite3_stmt *next = purges->next_job;
    int status = sqlite3_step(next);
    *job = (struct job){0};
    if (status == SQLITE_ROW) {
        *job = (struct job){sqlite3_column_int64(next, 0), sqlite3_column_int64(next, 1),
                            sqlite3_column_int64(next, 2), sqlite3_column_int64(next, 3)};
        if (seal_job(job) != sqlite3_column_int64(next, 4))
            job->upto = -1;
    }
    sqlite3_reset(next);
    return status == SQLITE_ROW || status == SQLITE_DONE;
}

static bool move_job(struct purges *purges, const struct job *job) {
    sqlite3_bind_int64(purges->move_job, 1, job->id);
    sqlite3_bind_int64(purges->move_job, 2, job->seq);
    sqlite3_bind_int64(purges->move_job, 3, seal_job(job));
    return sql_run(purges->move_job);
}

static void tell_of_damage(const struct job *job) {
    log_error("a purge has met damage", "seq", log_number((uint64_t)job->seq).text, "meaning",
              "some of what it should delete may stay in the data file, unread, until retention"
              " deletes it; see longline check",
              NULL);
}

/* The row that the job comes to next, behind a damaged one. */
static bool find_behind(struct purges *purges, struct job *job) {
    struct update_row row;
    tell_of_damage(job);
    enum row_status status = rows_find_older(purges->rows, job->channel, job->seq, 1, &row);
    job->seq = status == ROW_FOUND && row.ts <= job->upto ? row.seq : 0;
    return status != ROW_FAILED;
}

static bool delete_row(struct purges *purges, int64_t seq) {
    sqlite3_bind_int64(purges->delete_row, 1, seq);
    return sql_run(purges->delete_row);
}

/* Deletes the row that the job has come to and moves the job on. A sound row that is not the job's
 * stays: damage has led to it. False on failure. */
static bool delete_next(struct purges *purges, struct job *job, int64_t *deleted) {
    struct update_row row;
    int64_t seq = job->seq;
    enum row_status status = rows_load_numbers(purges->rows, seq, &row);
    if (status == ROW_FAILED)
        return false;
    if (status == ROW_MISSING) { /* nothing older is kept, or it is another job's */
        job->seq = 0;
        return true;
    }
    if (status == ROW_FOUND && (row.channel != job->channel || row.ts > job->upto))
        return find_behind(purges, job);
    if (status == ROW_FOUND)
        job->seq = row.prev < seq ? row.prev : 0;
    else if (!find_behind(purges, job))
        return false;
    if (!delete_row(purges, seq))
        return status == ROW_DAMAGED && sqlite3_errcode(purges->file->db) == SQLITE_CORRUPT &&
               !sqlite3_get_autocommit(purges->file->db);
    *deleted += sqlite3_changes(purges->file->db);
    return true;
}

bool purges_delete(struct purges *purges, uint64_t end_ns, int64_t *deleted) {
    struct job job;
    *deleted = 0;
    if (!find_job(purges, &job))
        return false;
    if (job.upto < 0) {
        tell_of_damage(&job);
        job.seq = 0;
    }
    bool ok = true;
    do {
        for (int i = 0; ok && i < STEP_ROWS && job.seq; i++)
            ok = delete_next(purges, &job, deleted);
    } while (ok && job.seq && uv_hrtime() < end_ns);
    purges->state->rows -= *deleted;
    return ok && move_job(purges, &job) && meta_put_counts(purges->file, purges->state);
}

/* --- The whole of a job ----------------------------------------------------------------------- */

bool purges_need_checkpoint(struct purges *purges) {
    struct job job;
    return purges->has_jobs && find_job(purges, &job) && job.id &&
           job.seq > purges->state->checkpoint_seq;
}

static enum purge_step cannot_read(struct purges *purges, int64_t now_ms) {
    if (!purges->is_unreadable)
        log_file_note_error(purges->file, "reading what purges have left to do");
    purges->is_unreadable = true;
    purges_failed(purges, now_ms);
    return PURGE_WAIT;
}

/* What becomes of the jobs that have deleted all of their rows. */
static enum purge_step begin_wipe(struct purges *purges, int64_t now_ms) {
    int64_t last_id;
    if (now_ms < purges->rest_until)
        return PURGE_WAIT;
    if (!sql_get(purges->last_job, &last_id))
        return cannot_read(purges, now_ms);
    purges->wiped_id = last_id > purges->wiped_id ? last_id : purges->wiped_id;
    if (!last_id) {
        purges->has_jobs = false;
        return PURGE_NOTHING;
    }
    wipe_begin(&purges->wipe);
    return purges->wipe.state == WIPE_DONE ? PURGE_END : PURGE_WIPE;
}

/* While a wipe has to wait for somebody who reads, later jobs delete their rows. */
enum purge_step purges_due(struct purges *purges, int64_t now_ms) {
    if (!purges->has_jobs)
        return PURGE_NOTHING;
    if (now_ms < purges->wait_until)
        return PURGE_WAIT;
    if (purges->wipe.state == WIPE_DONE)
        return PURGE_END;
    if (wipe_is_scanning(&purges->wipe))
        return PURGE_WIPE;
    struct job job;
    if (!find_job(purges, &job))
        return cannot_read(purges, now_ms);
    if (job.id && job.seq <= purges->state->checkpoint_seq)
        return PURGE_DELETE;
    if (purges->wipe.state != WIPE_NOTHING)
        return PURGE_WIPE;
    return job.id ? PURGE_WAIT : begin_wipe(purges, now_ms);
}

void purges_wipe(struct purges *purges, int64_t now_ms, uint64_t end_ns) {
    int64_t pause_ms = wipe_some(&purges->wipe, now_ms, end_ns);
    if (pause_ms)
        purges->wait_until = now_ms + pause_ms;
}

bool purges_end(struct purges *purges) {
    sqlite3_bind_int64(purges->end_jobs, 1, purges->wiped_id);
    return sql_run(purges->end_jobs);
}

void purges_ended(struct purges *purges, int64_t now_ms) {
    int64_t took_ms = purges->wipe.scanned_ms;
    purges->wipe.state = WIPE_NOTHING;
    purges->is_unreadable = false;
    purges->rest_until = now_ms + (took_ms > REST_MS ? took_ms : REST_MS);
}

void purges_failed(struct purges *purges, int64_t now_ms) {
    purges->wait_until = now_ms + RETRY_MS;
}

/* Removes the floors of the next channels, and moves on. */
static bool tidy_next(struct purges *purges) {
    int64_t last;
    sqlite3_bind_int64(purges->find_floors, 1, purges->tidied_channel);
    sqlite3_bind_int64(purges->find_floors, 2, TIDY_CHANNELS);
    if (!sql_get(purges->find_floors, &last))
        return false;
    sqlite3_bind_int64(purges->delete_floors, 1, purges->tidied_channel);
    sqlite3_bind_int64(purges->delete_floors, 2, last);
    purges->tidied_channel = last;
    return !last || sql_run(purges->delete_floors);
}

void purges_tidy(struct purges *purges, int64_t log_ms) {
    if (!purges->is_made || purges->has_jobs ||
        (!purges->tidied_channel && log_ms - purges->tidied_at < TIDY_MS))
        return;
    if (!purges->tidied_channel)
        purges->tidied_at = log_ms;
    if (log_file_begin(purges->file) && tidy_next(purges) && log_file_commit(purges->file))
        return;
    purges->tidied_channel = 0;
    log_file_note_error(purges->file, "forgetting old purges");
    log_file_roll_back(purges->file);
}
