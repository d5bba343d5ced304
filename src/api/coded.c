#include "api/coded.h"
#include "api/coding.h"
#include "base/json_find.h"

enum { PLAIN_FREE_BYTES = 1024 };

static size_t plain_max(size_t body_len) {
    return 2 * body_len + PLAIN_FREE_BYTES;
}

/* What headers_write() kept of the codings; where memory was out for them, `codings` says so. */
static bool find_codings(struct slice headers, struct buf *codings) {
    return headers.len && json_find(headers, SLICE("content-encoding"), codings);
}

bool coded_is_kept(struct slice headers, size_t body_len, size_t plain_len) {
    struct buf codings = {0};
    bool is_kept = plain_len <= plain_max(body_len) && find_codings(headers, &codings);
    buf_deinit(&codings);
    return is_kept;
}

bool coded_undo(const struct update *update, struct buf *plain) {
    struct buf codings = {0};
    enum coding_result result = CODING_NONE;
    if (update->has_raw && find_codings(update_headers(update), &codings))
        result = coding_undo(plain, update_raw(update), (struct slice){codings.data, codings.len},
                             plain_max(update->body_len));
    plain->failed |= codings.failed || result == CODING_NO_MEMORY;
    buf_deinit(&codings);
    return result == CODING_UNDONE && !plain->failed;
}
