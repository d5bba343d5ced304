#include "sqlite/log_tail.h"

#include <stdlib.h>

void log_tail_init(struct log_tail *tail, sqlite3 *db, const struct wal_end *end) {
    *tail = (struct log_tail){.db = db, .end = *end, .is_in_doubt = end->is_there};
    tail->must_be_cut = tail->is_in_doubt;
}

void log_tail_is_left(struct log_tail *tail) {
    tail->is_left = tail->is_in_doubt;
    tail->is_in_doubt = tail->must_be_cut = false;
}

/* --- The file --------------------------------------------------------------------------------- */

/* NULL where there is no write-ahead log. */
static sqlite3_file *log_of(const struct log_tail *tail) {
    sqlite3_file *file = NULL;
    if (!tail->db)
        return NULL;
    int status = sqlite3_file_control(tail->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file);
    return status == SQLITE_OK && file && file->pMethods ? file : NULL;
}

/* Reads the log's header. If it is empty, or another log than it was, there is nothing in it yet.
 * An SQLite result: that it cannot be read says nothing of what is in it. */
static int look_at_header(struct log_tail *tail, sqlite3_file *file, unsigned char *header) {
    int status = file->pMethods->xRead(file, header, WAL_HEADER_BYTES, 0);
    bool is_empty = status == SQLITE_IOERR_SHORT_READ;
    if (status != SQLITE_OK && !is_empty)
        return status;
    if (is_empty || memcmp(tail->end.salts, header + WAL_SALTS, WAL_SALTS_BYTES) != 0)
        tail->end.frames = tail->durable = 0;
    if (!is_empty)
        memcpy(tail->end.salts, header + WAL_SALTS, WAL_SALTS_BYTES);
    return SQLITE_OK;
}

static int64_t page_bytes(const unsigned char *header) {
    return wal_word(header + WAL_PAGE_BYTES);
}

/* --- Commits ---------------------------------------------------------------------------------- */

void log_tail_committed(struct log_tail *tail, int64_t frames, bool is_synced) {
    unsigned char header[WAL_HEADER_BYTES];
    sqlite3_file *file = log_of(tail);
    if (!file)
        return;
    tail->is_unknown = look_at_header(tail, file, header) != SQLITE_OK;
    tail->end.frames = frames;
    if (is_synced && !tail->is_in_doubt)
        tail->durable = frames;
    else if (tail->is_unknown) /* it may have begun anew */
        tail->durable = 0;
}

bool log_tail_is_known(struct log_tail *tail) {
    if (!tail->is_unknown)
        return true;
    unsigned char header[WAL_HEADER_BYTES];
    sqlite3_file *file = log_of(tail);
    int status = file ? file->pMethods->xRead(file, header, WAL_HEADER_BYTES, 0) : SQLITE_OK;
    tail->is_unknown = status != SQLITE_OK;
    if (tail->is_unknown)
        tail->trouble = sqlite3_errstr(status);
    else if (file)
        memcpy(tail->end.salts, header + WAL_SALTS, WAL_SALTS_BYTES);
    return !tail->is_unknown;
}

void log_tail_failed(struct log_tail *tail) {
    tail->is_in_doubt = tail->must_be_cut = true;
}

/* Cuts off what stands behind the last commit: where that cannot be, its first frame is no frame of
 * the log any more. */
void log_tail_cut(struct log_tail *tail) {
    static const unsigned char zeros[WAL_FRAME_HEADER_BYTES];
    unsigned char header[WAL_HEADER_BYTES];
    sqlite3_file *file = log_of(tail);
    sqlite3_int64 size = 0, end = 0;
    if (!tail->must_be_cut || !file || !log_tail_is_known(tail) ||
        file->pMethods->xFileSize(file, &size) != SQLITE_OK ||
        look_at_header(tail, file, header) != SQLITE_OK)
        return;
    if (tail->end.frames)
        end = wal_frame_offset(tail->end.frames, (size_t)page_bytes(header));
    bool is_cut = size <= end || file->pMethods->xTruncate(file, end) == SQLITE_OK;
    if (!is_cut)
        file->pMethods->xWrite(file, zeros, sizeof zeros, end);
    tail->must_be_cut = !is_cut;
}

void log_tail_copied(struct log_tail *tail, bool is_empty) {
    if (is_empty)
        tail->end.frames = 0;
    tail->durable = tail->end.frames;
    tail->is_left = false;
}

/* --- Syncing ---------------------------------------------------------------------------------- */

int log_tail_sync(struct log_tail *tail) {
    sqlite3_file *file = log_of(tail);
    int status = file ? file->pMethods->xSync(file, SQLITE_SYNC_NORMAL) : SQLITE_NOTFOUND;
    tail->is_in_doubt |= status != SQLITE_OK;
    if (!tail->is_in_doubt) {
        tail->durable = tail->end.frames;
        tail->is_left = false;
    }
    return status;
}

/* Writes the frame `index` again; `sum` becomes that behind it. */
static int write_again(sqlite3_file *file, int64_t index, unsigned char *frame,
                       const unsigned char *header, struct wal_sum *sum) {
    int64_t bytes = page_bytes(header), at = wal_frame_offset(index, (size_t)bytes);
    int len = (int)(WAL_FRAME_HEADER_BYTES + bytes);
    int status = file->pMethods->xRead(file, frame, len, at);
    if (status != SQLITE_OK)
        return status;
    *sum = wal_sum_frame(*sum, frame, (size_t)bytes, wal_word(header) & 1);
    if (memcmp(frame + WAL_FRAME_SALTS, header + WAL_SALTS, WAL_SALTS_BYTES) != 0 ||
        !wal_sums_equal(*sum, wal_get_sum(frame + WAL_FRAME_SUM)))
        return SQLITE_CORRUPT;
    return file->pMethods->xWrite(file, frame, len, at);
}

/* The sum behind the frames that are durable. */
static int read_sum(const struct log_tail *tail, sqlite3_file *file, const unsigned char *header,
                    struct wal_sum *sum) {
    unsigned char bytes[sizeof *sum];
    *sum = wal_get_sum(header + WAL_HEADER_SUMMED);
    if (!tail->durable)
        return SQLITE_OK;
    int64_t at = wal_frame_offset(tail->durable - 1, (size_t)page_bytes(header)) + WAL_FRAME_SUM;
    int status = file->pMethods->xRead(file, bytes, sizeof bytes, at);
    *sum = wal_get_sum(bytes);
    return status;
}

/* Writes again what no sync has covered. */
static int write_rest_again(struct log_tail *tail, sqlite3_file *file) {
    unsigned char header[WAL_HEADER_BYTES];
    struct wal_sum sum;
    int status = look_at_header(tail, file, header);
    if (status != SQLITE_OK || tail->durable == tail->end.frames)
        return status;
    unsigned char *frame = malloc(WAL_FRAME_HEADER_BYTES + (size_t)page_bytes(header));
    status = frame ? read_sum(tail, file, header, &sum) : SQLITE_NOMEM;
    if (status == SQLITE_OK && !tail->durable)
        status = file->pMethods->xWrite(file, header, sizeof header, 0);
    for (int64_t i = tail->durable; status == SQLITE_OK && i < tail->end.frames; i++)
        status = write_again(file, i, frame, header, &sum);
    free(frame);
    return status;
}

bool log_tail_secure(struct log_tail *tail) {
    sqlite3_file *file = log_of(tail);
    int status = SQLITE_OK;
    if (!file || (!tail->is_in_doubt && !tail->is_left))
        return true;
    if (!log_tail_is_known(tail))
        return false;
    log_tail_cut(tail);
    if (tail->must_be_cut)
        status = SQLITE_IOERR_TRUNCATE;
    else if (tail->is_in_doubt)
        status = write_rest_again(tail, file);
    tail->is_in_doubt = status != SQLITE_OK;
    if (status == SQLITE_OK)
        status = log_tail_sync(tail);
    tail->trouble = status == SQLITE_OK ? NULL : sqlite3_errstr(status);
    return status == SQLITE_OK;
}
