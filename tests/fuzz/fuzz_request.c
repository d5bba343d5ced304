/*
 * Fuzzes the reading of requests. The input is what a client sends. It is read whole, then in
 * pieces cut where a hash of it says, and, when it is short, byte by byte: the result must be the
 * same. Each piece is read from a buffer that has just moved and is no longer than what it holds.
 */
#include "http/request.h"

#include <assert.h>
#include <stdlib.h>

enum { BODY_MAX_BYTES = 4096, BYTE_BY_BYTE_MAX = 400 };

struct reading {
    enum request_progress progress;
    size_t left; /* bytes of the input behind the request */
    char *buffer;
    struct request request;
};

static uint64_t random_state;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

/* Reads `input` in pieces of 1 to `piece_max` bytes. free() its buffer. */
static void read_in_pieces(struct reading *reading, struct slice input, size_t piece_max) {
    reading->buffer = NULL;
    request_init(&reading->request, BODY_MAX_BYTES);
    size_t kept = 0, start = 0;
    do {
        size_t piece = piece_max == 1 ? 1 : 1 + next_random() % piece_max;
        if (piece > input.len - start || piece_max >= input.len)
            piece = input.len - start;
        size_t to = kept + piece, used = 0;
        char *moved = malloc(to + !to);
        if (kept)
            memcpy(moved, reading->buffer, kept);
        memcpy(moved + kept, input.data + start, piece);
        free(reading->buffer);
        reading->buffer = moved;
        reading->progress = request_feed(&reading->request, moved, kept, to, &used);
        start += piece;
        if (reading->progress == REQUEST_FAILED)
            break;
        assert(used <= to);
        reading->left = to - used + input.len - start;
        kept = used;
    } while (reading->progress == REQUEST_PARTIAL && start < input.len);
}

static void assert_equal_spans(const struct reading *a, struct span x, const struct reading *b,
                               struct span y) {
    assert(slice_equal(request_slice(&a->request, x), request_slice(&b->request, y)));
}

static void assert_equal(const struct reading *a, const struct reading *b) {
    assert(a->progress == b->progress);
    if (a->progress != REQUEST_COMPLETE)
        return;
    const struct request *x = &a->request, *y = &b->request;
    assert(a->left == b->left);
    assert(x->parser.method == y->parser.method);
    assert(x->header_count == y->header_count && x->expects_continue == y->expects_continue);
    assert(request_content_length(x) == request_content_length(y));
    assert_equal_spans(a, x->target, b, y->target);
    assert_equal_spans(a, x->body, b, y->body);
    for (uint32_t i = 0; i < x->header_count; i++) {
        assert_equal_spans(a, x->headers[i].name, b, y->headers[i].name);
        assert_equal_spans(a, x->headers[i].value, b, y->headers[i].value);
    }
    for (int name = HEADER_OTHER + 1; name < HEADER_NAME_COUNT; name++)
        assert(slice_equal(request_header(x, name), request_header(y, name)));
}

/* What must be true of every request that is taken. */
static void assert_sound(const struct reading *reading) {
    if (reading->progress == REQUEST_FAILED)
        assert(reading->request.error != HTTP_NO_ERROR);
    if (reading->progress != REQUEST_COMPLETE)
        return;
    const struct request *request = &reading->request;
    assert(request->head_complete);
    assert(request->target.len && request->target.len <= REQUEST_TARGET_MAX_BYTES);
    assert(request->body.len <= BODY_MAX_BYTES && request->header_count <= REQUEST_HEADERS_MAX);
    for (uint32_t i = 0; i < request->header_count; i++) {
        struct slice name = request_slice(request, request->headers[i].name);
        struct slice value = request_slice(request, request->headers[i].value);
        assert(name.len && !memchr(name.data, ' ', name.len) && !memchr(name.data, ':', name.len));
        assert(!value.len ||
               (!memchr(value.data, '\r', value.len) && !memchr(value.data, '\n', value.len) &&
                !memchr(value.data, '\0', value.len)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size)
        return 0;
    struct slice input = {(const char *)data, size};
    random_state = size;
    for (size_t i = 0; i < size; i++)
        random_state = (random_state ^ data[i]) * 0x100000001B3;
    static struct reading whole, pieces;
    read_in_pieces(&whole, input, size);
    assert_sound(&whole);
    size_t piece_max[] = {1 + next_random() % size, 1 + next_random() % 40, 1};
    for (int i = 0; i < (size <= BYTE_BY_BYTE_MAX ? 3 : 2); i++) {
        read_in_pieces(&pieces, input, piece_max[i]);
        assert_sound(&pieces);
        assert_equal(&whole, &pieces);
        free(pieces.buffer);
    }
    free(whole.buffer);
    return 0;
}
