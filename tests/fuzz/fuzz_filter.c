/*
 * Fuzzes what polls ask for. The input is a line with a poll's query; a line with a text of a
 * filter, and one with a text that it may match; a line with headers; the rest is a body.
 *
 * A filter's text must match what a plain reading of it matches; whatever parses must be fit to
 * look at any update.
 */
#include "api/poll_query.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/utf8.h"
#include "inbox/filter.h"

#include <assert.h>
#include <stdlib.h>

static struct filters filters;

static struct slice take_line(struct slice *input) {
    struct slice line = SLICE("");
    if (input->data && !slice_cut(input, '\n', &line))
        line = SLICE("");
    if (!input->data)
        *input = SLICE("");
    return line;
}

static struct slice text_of(const struct buf *buf) {
    return (struct slice){buf->data, buf->len};
}

/* --- The rules, literally --------------------------------------------------------------------- */

/* Whether the alternative at `pattern`, up to its end or a `|`, matches. Row by row: how much of
 * the text the pattern so far can stand for. */
static bool matches_one(struct slice pattern, struct slice text, size_t *used) {
    bool *can = calloc(text.len + 1, sizeof *can);
    can[0] = true;
    size_t i = 0;
    for (; i < pattern.len && pattern.data[i] != '|'; i++) {
        if (pattern.data[i] == '*') {
            for (size_t j = 1; j <= text.len; j++)
                can[j] |= can[j - 1];
            continue;
        }
        if (pattern.data[i] == '\\')
            i++;
        for (size_t j = text.len; j; j--)
            can[j] = can[j - 1] && text.data[j - 1] == pattern.data[i];
        can[0] = false;
    }
    bool matches = can[text.len];
    free(can);
    *used = i;
    return matches;
}

static bool matches_any(struct slice pattern, struct slice text) {
    for (size_t used;; pattern = slice_after(pattern, used + 1)) {
        if (matches_one(pattern, text, &used))
            return true;
        if (used == pattern.len)
            return false;
    }
}

static bool is_sound(struct slice pattern) {
    for (size_t i = 0; i < pattern.len; i++) {
        unsigned char c = (unsigned char)pattern.data[i];
        if (c < ' ' || c == 0x7f)
            return false;
        if (c == '\\' &&
            (++i == pattern.len || !strchr("\\|*", pattern.data[i]) || !pattern.data[i]))
            return false;
    }
    return true;
}

/* --- What is checked -------------------------------------------------------------------------- */

static struct filter *get(struct slice text) {
    struct filter *filter = NULL;
    enum filter_error error = filters_get(&filters, text, &filter);
    assert((error == FILTER_OK) == (filter != NULL));
    return filter;
}

static void check_pattern(struct slice pattern, struct slice text) {
    if (!utf8_is_valid(text) || memchr(pattern.data, '\0', pattern.len) || pattern.len > 1000)
        return;
    struct buf where = {0}, body = {0};
    buf_puts(&where, "body.a:");
    buf_append(&where, pattern.data, pattern.len);
    buf_putc(&where, '\0');
    buf_puts(&body, "{\"a\":");
    json_write_string(&body, text);
    buf_putc(&body, '}');
    struct update_parts parts = {.body = text_of(&body), .method = SLICE("POST")};
    struct update *update = update_new(&parts);
    struct filter *filter = get(text_of(&where));
    assert(is_sound(pattern) == (filter != NULL));
    if (filter) {
        assert(filter_matches(filter, update) == matches_any(pattern, text));
        assert(filter_cost(filter, update) >= update->body_len);
        filter_unref(&filters, filter);
    }
    update_unref(update);
    buf_deinit(&where);
    buf_deinit(&body);
}

static int64_t now_ms(void) {
    return 1795946400000;
}

/* The filter of a poll looks at the update; the same with all its conditions turned round, too. */
static void check_poll(struct slice query, const struct update *update) {
    struct poll_query poll;
    if (poll_query_parse(&poll, query, now_ms) == HTTP_NO_ERROR) {
        assert(poll.limit && poll.limit <= READ_MAX_UPDATES && poll.name_len <= sizeof poll.name);
        assert(!position_is_since(poll.position) ||
               position_since_ms(poll.position) <= POSITION_SINCE_MAX_MS);
        struct filter *filter = poll.where.len ? get(text_of(&poll.where)) : NULL;
        if (filter) {
            filter_matches(filter, update);
            filter_unref(&filters, filter);
        }
    }
    poll_query_deinit(&poll);
    assert(!filters.bytes && !filters.table.count);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    hash_init();
    return filters_init(&filters) ? 0 : -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice input = {(const char *)data, size};
    struct slice query = take_line(&input), pattern = take_line(&input), text = take_line(&input),
                 headers = take_line(&input);
    check_pattern(pattern, text);
    struct update_parts parts = {.body = json_check(input) >= JSON_ARRAY ? input : SLICE("{}"),
                                 .query = query,
                                 .method = SLICE("PUT - /path"),
                                 .headers = SLICE("")};
    if (json_check(headers) == JSON_OBJECT)
        parts.headers = headers;
    struct update *update = update_new(&parts);
    check_poll(query, update);
    update_unref(update);
    return 0;
}
