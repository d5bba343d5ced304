#include "api/headers.h"
#include "base/json.h"
#include "base/utf8.h"

static bool is_kept(struct slice name) {
    static const struct slice dropped[] = {
        SLICE("connection"),        SLICE("keep-alive"), SLICE("te"),     SLICE("trailer"),
        SLICE("transfer-encoding"), SLICE("upgrade"),    SLICE("cookie"),
    };
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
        if (slice_equal_nocase(name, dropped[i]))
            return false;
    struct slice start = {name.data, name.len < 6 ? name.len : 6};
    return !slice_equal_nocase(start, SLICE("proxy-"));
}

/* The first header of that name from number `first` on and before `end`, which is returned when
 * there is none. */
static uint32_t find(const struct request *request, uint32_t first, uint32_t end,
                     struct slice name) {
    while (first < end &&
           !slice_equal_nocase(request_slice(request, request->headers[first].name), name))
        first++;
    return first;
}

/* A value as a JSON string: UTF-8, else read as Latin-1. */
static void write_value(struct buf *out, struct slice value) {
    if (utf8_is_valid(value)) {
        json_write_string(out, value);
        return;
    }
    struct buf latin1 = {0};
    for (size_t i = 0; i < value.len; i++)
        utf8_put(&latin1, (unsigned char)value.data[i]);
    json_write_string(out, (struct slice){latin1.data, latin1.len});
    out->failed |= latin1.failed;
    buf_deinit(&latin1);
}

/* The values of all headers called `name`, numbers `first`, `next` and further ones, as one. */
static void write_values(struct buf *out, const struct request *request, uint32_t first,
                         uint32_t next, struct slice name) {
    struct slice value = request_slice(request, request->headers[first].value);
    struct buf joined = {0};
    buf_append(&joined, value.data, value.len);
    for (; next < request->header_count;
         next = find(request, next + 1, request->header_count, name)) {
        value = request_slice(request, request->headers[next].value);
        buf_puts(&joined, ", ");
        buf_append(&joined, value.data, value.len);
    }
    write_value(out, (struct slice){joined.data, joined.len});
    out->failed |= joined.failed;
    buf_deinit(&joined);
}

/* A name is a token (RFC 9110, 5.6.2): nothing in it must be escaped. */
static void write_name(struct buf *out, struct slice name) {
    if (!buf_reserve(out, name.len + 3))
        return;
    char *at = out->data + out->len;
    *at++ = '"';
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        *at++ = c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
    }
    memcpy(at, "\":", 2);
    out->len += name.len + 3;
}

void headers_write(struct buf *out, const struct request *request) {
    size_t start = out->len;
    buf_putc(out, '{');
    for (uint32_t i = 0; i < request->header_count; i++) {
        struct slice name = request_slice(request, request->headers[i].name);
        if (!is_kept(name) || find(request, 0, i, name) < i)
            continue;
        size_t before = out->len;
        if (before > start + 1)
            buf_putc(out, ',');
        write_name(out, name);
        uint32_t next = find(request, i + 1, request->header_count, name);
        if (next == request->header_count)
            write_value(out, request_slice(request, request->headers[i].value));
        else
            write_values(out, request, i, next, name);
        if (out->len - start >= HEADERS_MAX_BYTES)
            out->len = before;
    }
    buf_putc(out, '}');
}
