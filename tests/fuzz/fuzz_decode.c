/*
 * Fuzzes what undoes codings and charsets. The input is a line with the Content-Encoding, a line
 * with the Content-Type, and the body. What is inflated is bounded, and what was compressed comes
 * back; what is decoded is UTF-8, and bounded.
 */
#include "api/coding.h"
#include "api/content.h"
#include "base/charset.h"
#include "base/utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <zlib.h>

enum { MAX = 32768 };

static struct slice take_line(struct slice *input) {
    const char *end = memchr(input->data, '\n', input->len);
    struct slice line = {input->data, end ? (size_t)(end - input->data) : input->len};
    size_t used = line.len + (end != NULL);
    *input = (struct slice){input->data + used, input->len - used};
    return line;
}

static void check_inflated(struct slice body, struct slice codings, size_t max) {
    struct buf out = {0};
    enum coding_result result = coding_undo(&out, body, codings, max);
    assert(result != CODING_NO_MEMORY && !out.failed);
    assert(result == CODING_TOO_LARGE || out.len <= max);
    assert(out.cap <= 2 * (max + 65536));
    buf_deinit(&out);
}

/* Compressed, it comes back; with one byte less of room it is refused. */
static void check_round_trip(struct slice body) {
    uLongf len = compressBound((uLong)body.len);
    Bytef *packed = malloc(len);
    assert(packed && compress(packed, &len, (const Bytef *)body.data, (uLong)body.len) == Z_OK);
    struct slice coded = {(const char *)packed, len};
    struct buf out = {0};
    assert(coding_undo(&out, coded, SLICE("deflate"), body.len) == CODING_UNDONE);
    assert(slice_equal((struct slice){out.data, out.len}, body));
    buf_deinit(&out);
    out = (struct buf){0};
    assert(!body.len ||
           coding_undo(&out, coded, SLICE("deflate"), body.len - 1) == CODING_TOO_LARGE);
    buf_deinit(&out);
    free(packed);
}

static void check_text(struct slice body, struct slice type) {
    struct content content = content_of(type);
    struct charset charset = {.name = content.charset};
    struct buf out = {0};
    if (content_decode(&out, body, &content))
        assert(out.len <= 2 * body.len + 64);
    else
        assert(!out.len);
    assert(!out.failed && utf8_is_valid((struct slice){out.data, out.len}));
    buf_reset(&out, SIZE_MAX);
    charset_decode_text(&out, body, &charset);
    assert(out.len <= 3 * body.len + 64);
    assert(utf8_is_valid((struct slice){out.data, out.len}));
    charset_deinit(&charset);
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice rest = {(const char *)data, size};
    struct slice codings = take_line(&rest), type = take_line(&rest);
    char *copy = malloc(rest.len + !rest.len); /* of the exact size: reading beyond it is seen */
    memcpy(copy, rest.data, rest.len);
    rest.data = copy;
    check_inflated(rest, codings, MAX);
    check_inflated(rest, codings, 0);
    check_round_trip(rest);
    check_text(rest, type);
    free(copy);
    return 0;
}
