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
    return name.len < 6 || strncasecmp(name.data, "proxy-", 6) != 0;
}

static bool is_named(const struct request *request, uint32_t index, struct slice name) {
    return slice_equal_nocase(request_slice(request, request->headers[index].name), name);
}

static bool is_repeated(const struct request *request, uint32_t index, struct slice name) {
    for (uint32_t i = 0; i < index; i++)
        if (is_named(request, i, name))
            return true;
    return false;
}

/* A header's value as a JSON string: UTF-8, else read as Latin-1. */
static void write_value(struct buf *out, struct buf *joined) {
    struct slice value = {joined->data, joined->len};
    if (utf8_is_valid(value)) {
        json_write_string(out, value);
        return;
    }
    struct buf latin1 = {0};
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i];
        if (c < 0x80) {
            buf_putc(&latin1, (char)c);
        } else {
            buf_putc(&latin1, (char)(0xC0 | c >> 6));
            buf_putc(&latin1, (char)(0x80 | (c & 0x3F)));
        }
    }
    json_write_string(out, (struct slice){latin1.data, latin1.len});
    out->failed |= latin1.failed;
    buf_deinit(&latin1);
}

/* The values of all headers called `name`, from number `first` on. */
static void join_values(struct buf *out, const struct request *request, uint32_t first,
                        struct slice name) {
    for (uint32_t i = first; i < request->header_count; i++) {
        if (!is_named(request, i, name))
            continue;
        struct slice value = request_slice(request, request->headers[i].value);
        if (i > first)
            buf_puts(out, ", ");
        buf_append(out, value.data, value.len);
    }
}

static void write_name(struct buf *out, struct slice name) {
    size_t start = out->len;
    json_write_string(out, name);
    for (size_t at = start; at < out->len; at++)
        if (out->data[at] >= 'A' && out->data[at] <= 'Z')
            out->data[at] += 'a' - 'A';
}

void headers_write(struct buf *out, const struct request *request) {
    struct buf joined = {0};
    size_t start = out->len;
    buf_putc(out, '{');
    for (uint32_t i = 0; i < request->header_count; i++) {
        struct slice name = request_slice(request, request->headers[i].name);
        if (!is_kept(name) || is_repeated(request, i, name))
            continue;
        size_t before = out->len;
        if (before > start + 1)
            buf_putc(out, ',');
        write_name(out, name);
        buf_putc(out, ':');
        buf_reset(&joined, SIZE_MAX);
        join_values(&joined, request, i, name);
        write_value(out, &joined);
        if (out->len - start >= HEADERS_MAX_BYTES)
            out->len = before;
    }
    buf_putc(out, '}');
    out->failed |= joined.failed;
    buf_deinit(&joined);
}
