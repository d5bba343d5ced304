/*
 * Fuzzes the way from a request to its update. The input is a line with the Content-Type, a line
 * with the query, and the body. The update must be valid JSON; a body of JSON must come through
 * byte for byte when there is no query and no half of a surrogate pair in it; and with a query, its
 * fields must be the members of their names. As a line of a batch, which shares what it can with
 * the others, it must become the same.
 */
#include "api/body.h"
#include "api/headers.h"
#include "api/make_update.h"
#include "api/wish.h"
#include "base/charset.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"
#include "http/request.h"

#include <assert.h>
#include <stdlib.h>

/* Takes a line off the front of `input`. */
static struct slice take_line(struct slice *input) {
    const char *end = memchr(input->data, '\n', input->len);
    struct slice line = {input->data, end ? (size_t)(end - input->data) : input->len};
    size_t used = line.len + (end != NULL);
    *input = (struct slice){input->data + used, input->len - used};
    return line;
}

/* The object `body` has the member `name`, and each of that name has `value`. */
static void check_member(struct slice body, struct slice name, struct slice value) {
    bool found = false;
    struct buf scratch = {0};
    for (struct json_member member; json_next_member(&body, &member);) {
        if (!slice_equal(json_unescape(member.key, &scratch), name))
            continue;
        found = true;
        assert(slice_equal(member.value, value));
    }
    assert(found);
    buf_deinit(&scratch);
}

/* Decodes a name or a value: what is not UTF-8 is windows-1252. */
static void decode(struct buf *out, struct slice text) {
    struct buf bytes = {0};
    struct charset latin = {.name = SLICE("")};
    text_decode_form(&bytes, text);
    struct slice decoded = {bytes.data, bytes.len};
    buf_reset(out, SIZE_MAX);
    if (utf8_is_valid(decoded))
        buf_append(out, decoded.data, decoded.len);
    else
        charset_decode_text(out, decoded, &latin);
    buf_deinit(&bytes);
}

/* Writes the values that `name` has in the query: a string, or an array of several. */
static void write_values(struct buf *out, struct slice query, struct slice name) {
    struct buf text = {0}, values = {0};
    int count = 0;
    for (struct text_pair pair; text_next_pair(&query, &pair);) {
        decode(&text, pair.name);
        if (!slice_equal((struct slice){text.data, text.len}, name))
            continue;
        decode(&text, pair.value);
        if (count++)
            buf_putc(&values, ',');
        json_write_string(&values, (struct slice){text.data, text.len});
    }
    if (count > 1)
        buf_putc(out, '[');
    buf_append(out, values.data, values.len);
    if (count > 1)
        buf_putc(out, ']');
    buf_deinit(&text);
    buf_deinit(&values);
}

/* Every field of the query is a member of the object `body`, with all its values. */
static void check_query(struct slice query, struct slice body) {
    int checked = 0;
    struct slice rest = query;
    for (struct text_pair pair; text_next_pair(&rest, &pair) && checked < 8; checked++) {
        struct buf text = {0}, values = {0};
        decode(&text, pair.name);
        struct slice name = {text.data, text.len};
        write_values(&values, query, name);
        /* A member that had half a surrogate pair may have become one of this name. */
        if (!name.len || !memmem(name.data, name.len, "\xEF\xBF\xBD", 3))
            check_member(body, name, (struct slice){values.data, values.len});
        buf_deinit(&text);
        buf_deinit(&values);
    }
}

/* The update is what every consumer can read: not too deep, and without half a surrogate pair. */
static void check_readable(struct slice body) {
    bool has_half;
    enum json_kind kind = json_inspect(body, BODY_DEPTH_MAX + 1, &has_half);
    assert(kind == JSON_OBJECT || kind == JSON_ARRAY);
    assert(!has_half);
}

static void check_update(const struct update *update, struct slice query, struct slice raw) {
    struct slice body = update_body(update);
    check_readable(body);
    assert(slice_equal(update_raw(update), raw));
    assert(slice_equal(update_query(update), query));
    assert(update->headers_len <= HEADERS_MAX_BYTES);
    assert(json_check(update_headers(update)) == JSON_OBJECT);
    struct text_pair pair;
    struct buf stripped = {0};
    struct slice pairs = wish_strip(query, &stripped); /* what is longline's own is not merged */
    query = pairs;
    bool has_query = text_next_pair(&pairs, &pair);
    if (has_query)
        check_query(query, body);
    buf_deinit(&stripped);
    if (slice_starts_with(raw, SLICE("\xEF\xBB\xBF")))
        raw = slice_after(raw, 3);
    bool has_half;
    enum json_kind kind = json_inspect(raw, BODY_DEPTH_MAX, &has_half);
    if (!has_query && !has_half && (kind == JSON_OBJECT || kind == JSON_ARRAY))
        assert(slice_equal(body, raw));
}

/* The request's body twice, one after the other. */
static void check_lines(const struct request *request, struct slice query, struct slice type,
                        const struct update *wanted) {
    struct update_maker maker = {0};
    assert(update_maker_init(&maker, request, &(struct sent){.query = query}, true));
    struct payload payload = {.bytes = request_slice(request, request->body), .content_type = type};
    for (int i = 0; i < 2; i++) {
        struct update *update;
        assert(!update_maker_make(&maker, &payload, &update));
        assert(slice_equal(update_body(update), update_body(wanted)));
        assert(slice_equal(update_raw(update), update_raw(wanted)));
        update_unref(update);
    }
    update_maker_deinit(&maker);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    hash_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice rest = {(const char *)data, size};
    struct slice type = take_line(&rest), query = take_line(&rest);
    struct buf text = {0};
    buf_puts(&text, "POST /c HTTP/1.1\r\nHost: h\r\nContent-Type: ");
    buf_append(&text, type.data, type.len);
    buf_puts(&text, "\r\nX-Type: a\r\nx-type: ");
    buf_append(&text, type.data, type.len);
    buf_printf(&text, "\r\nContent-Length: %zu\r\n\r\n", rest.len);
    buf_append(&text, rest.data, rest.len);

    static struct request request;
    request_init(&request, 1 << 20);
    size_t used;
    char *query_copy =
        malloc(query.len + !query.len); /* of the exact size, so that reading beyond it is seen */
    memcpy(query_copy, query.data, query.len);
    query.data = query_copy;
    if (request_feed(&request, text.data, 0, text.len, &used) == REQUEST_COMPLETE) {
        struct update *update = NULL;
        struct payload payload = payload_of(&request);
        struct delivery delivery;
        assert(!payload_inflate(&payload, 1 << 20));
        enum http_error error = make_update(&request, &payload, &(struct sent){.query = query},
                                            true, &update, &delivery);
        payload_deinit(&payload);
        assert(!error == (update != NULL));
        assert(error == HTTP_NO_ERROR || error == ERROR_MERGE_SIZE);
        if (update) {
            check_update(update, query, rest);
            check_lines(&request, query, request_header(&request, HEADER_CONTENT_TYPE), update);
            update_unref(update);
        }
    }
    free(query_copy);
    buf_deinit(&text);
    return 0;
}
