#include "api/coding.h"

#include <zlib.h>

enum { WINDOW_BITS = 15, WANTS_GZIP = 16, PIECE_BYTES = 16384 };

enum kind { KIND_IGNORED, KIND_GZIP, KIND_DEFLATE, KIND_UNKNOWN };

static enum kind kind_of(struct slice name) {
    static const struct {
        struct slice name;
        enum kind kind;
    } names[] = {
        {SLICE("gzip"), KIND_GZIP},       {SLICE("x-gzip"), KIND_GZIP},
        {SLICE("deflate"), KIND_DEFLATE}, {SLICE("br"), KIND_UNKNOWN},
        {SLICE("zstd"), KIND_UNKNOWN},    {SLICE("compress"), KIND_UNKNOWN},
        {SLICE("dcb"), KIND_UNKNOWN},     {SLICE("x-compress"), KIND_UNKNOWN},
        {SLICE("dcz"), KIND_UNKNOWN},     {SLICE("aes128gcm"), KIND_UNKNOWN},
        {SLICE("exi"), KIND_UNKNOWN},     {SLICE("pack200-gzip"), KIND_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (slice_equal_nocase(name, names[i].name))
            return names[i].kind;
    return KIND_IGNORED;
}

/* Inflates to the end of one member. */
static enum coding_result inflate_member(z_stream *stream, struct buf *out, size_t max) {
    int status = Z_OK;
    while (status == Z_OK) {
        size_t room = max - out->len + 1;
        if (room > PIECE_BYTES)
            room = PIECE_BYTES;
        if (!buf_reserve(out, room))
            return CODING_NO_MEMORY;
        stream->next_out = (Bytef *)out->data + out->len;
        stream->avail_out = (uInt)room;
        status = inflate(stream, Z_NO_FLUSH);
        out->len += room - stream->avail_out;
        if (out->len > max)
            return CODING_TOO_LARGE;
    }
    if (status == Z_MEM_ERROR)
        return CODING_NO_MEMORY;
    return status == Z_STREAM_END ? CODING_UNDONE : CODING_OPAQUE;
}

/* Whether only zeros are left, as some pad with. */
static bool is_padding(const z_stream *stream) {
    for (uInt i = 0; i < stream->avail_in; i++)
        if (stream->next_in[i])
            return false;
    return true;
}

/* Undoes one coding; a gzip file may have several members. */
static enum coding_result inflate_all(struct buf *out, struct slice body, int window_bits,
                                      size_t max) {
    z_stream stream = {.next_in = (Bytef *)body.data, .avail_in = (uInt)body.len};
    if (inflateInit2(&stream, window_bits) != Z_OK)
        return CODING_NO_MEMORY;
    enum coding_result result = inflate_member(&stream, out, max);
    while (result == CODING_UNDONE && !is_padding(&stream))
        result = window_bits & WANTS_GZIP && inflateReset(&stream) == Z_OK
                     ? inflate_member(&stream, out, max)
                     : CODING_OPAQUE;
    inflateEnd(&stream);
    return result;
}

/* `deflate` is a zlib stream by its RFC, and a bare one with some. */
static enum coding_result inflate_deflate(struct buf *out, struct slice body, size_t max) {
    enum coding_result result = inflate_all(out, body, WINDOW_BITS, max);
    if (result != CODING_OPAQUE)
        return result;
    out->len = 0;
    return inflate_all(out, body, -WINDOW_BITS, max);
}

static enum coding_result undo_one(struct buf *out, struct slice body, enum kind kind, size_t max) {
    return kind == KIND_GZIP ? inflate_all(out, body, WINDOW_BITS | WANTS_GZIP, max)
                             : inflate_deflate(out, body, max);
}

/* Reads the list into `kinds`; false when one is not known, or there are too many. */
static bool read_list(struct slice codings, enum kind kinds[CODINGS_MAX], int *count) {
    *count = 0;
    for (struct slice name; slice_cut(&codings, ',', &name);) {
        enum kind kind = kind_of(slice_trim(name));
        if (kind == KIND_IGNORED)
            continue;
        if (kind == KIND_UNKNOWN || *count == CODINGS_MAX)
            return false;
        kinds[(*count)++] = kind;
    }
    return true;
}

enum coding_result coding_undo(struct buf *out, struct slice body, struct slice codings,
                               size_t max) {
    enum kind kinds[CODINGS_MAX];
    int count;
    if (!read_list(codings, kinds, &count))
        return CODING_OPAQUE;
    if (!count)
        return CODING_NONE;
    enum coding_result result = undo_one(out, body, kinds[count - 1], max);
    if (count == 1 || result != CODING_UNDONE)
        return result;
    struct buf outer = *out;
    *out = (struct buf){0};
    result = undo_one(out, (struct slice){outer.data, outer.len}, kinds[0], max);
    buf_deinit(&outer);
    return result;
}
