/*
 * One HTTP/1.1 request, read by llhttp from a buffer that the connection owns.
 *
 * The bytes of a request stay where they were read: target, headers and body are spans of that
 * buffer, kept as offsets from the request's first byte, so that the buffer may move between two
 * feeds. A chunked body is joined in place. Everything that a client can make large has a limit
 * here, and ambiguous requests (two lengths, a length and a coding, two Host headers) are refused.
 */
#pragma once

#include "base/pack.h"
#include "base/slice.h"
#include "http/chunk_line.h"
#include "http/status.h"
#include <llhttp.h>

enum {
    REQUEST_HEAD_MAX_BYTES = 32768,  /* request line and headers: 431 */
    REQUEST_TARGET_MAX_BYTES = 8192, /* 414 */
    REQUEST_BLANK_MAX_BYTES = 8,     /* of empty lines before the request */
    REQUEST_HEADERS_MAX = 128,       /* 431 */
    REQUEST_READ_MIN_BYTES = 1024,   /* a buffer with less room than this is made larger */
};

/* Bytes of the buffer, counted from the request's first one. */
struct span {
    uint32_t at, len;
};

struct header {
    struct span name, value;
};

/* The headers longline looks at itself. */
enum header_name {
    HEADER_OTHER,
    HEADER_HOST,
    HEADER_CONTENT_TYPE,
    HEADER_CONTENT_LENGTH,
    HEADER_CONTENT_ENCODING,
    HEADER_TRANSFER_ENCODING,
    HEADER_EXPECT,
    HEADER_ACCEPT_ENCODING,
    HEADER_IF_NONE_MATCH,
    HEADER_NAME_COUNT,
};

enum request_progress { REQUEST_PARTIAL, REQUEST_COMPLETE, REQUEST_FAILED };

struct request {
    llhttp_t parser;
    char *base;     /* where the request's first byte is now */
    size_t fed_len; /* bytes there that have been fed */
    uint32_t body_max_bytes;
    enum http_error error; /* set by a feed that returned REQUEST_FAILED */
    bool is_target_complete;
    bool head_complete;
    uint32_t head_len;     /* with its empty line; known when the head is complete */
    bool expects_continue; /* the client waits for 100 Continue before it sends the body */
    uint8_t counts[HEADER_NAME_COUNT];
    uint8_t last_of[HEADER_NAME_COUNT]; /* index of the last such header; valid if counts[] > 0 */
    uint32_t header_count;
    enum header_name name; /* of the header that is being read */
    struct span target, body;
    bool is_in_trailers;
    uint32_t trailer_count;
    struct header trailer; /* behind a chunked body: checked, not kept */
    struct chunk_line chunk_line;
    bool is_in_chunk;     /* behind its line, and before the end of the line behind its data */
    size_t data_end;      /* of what was fed last: the bytes up to here were data, or came before */
    size_t framing_bytes; /* of a chunked body: all that is not data */
    struct header headers[REQUEST_HEADERS_MAX];
};

void request_init(struct request *request, uint32_t body_max_bytes);

/*
 * Reads the bytes from `from` to `to` of the buffer at `base`, which begins with the request. All
 * bytes before `from` must have been fed already and still be there. Sets `*used`: on
 * REQUEST_COMPLETE to the end of the request, where the next one begins; on REQUEST_PARTIAL to the
 * number of bytes that must stay at `base`, from which the next feed continues.
 */
enum request_progress request_feed(struct request *request, char *base, size_t from, size_t to,
                                   size_t *used);

/*
 * Writes bytes that bring a fresh request to where this one is, which has come in part: what is
 * kept of a chunked body is joined, so it becomes one chunk. Others are the bytes that were fed.
 */
void request_remake(const struct request *request, struct pack *out);

/*
 * How large a buffer a request needs of which `used` bytes have come. Twice that, so that a length
 * that is only announced takes no memory; but not more than was announced or a request may have. In
 * any case it has room for REQUEST_READ_MIN_BYTES more. Pure.
 */
size_t request_buffer_size(const struct request *request, size_t used);

/* The length of the body as announced, 0 when it is chunked or there is none. Needs
 * head_complete. */
size_t request_content_length(const struct request *request);

static inline struct slice request_slice(const struct request *request, struct span span) {
    return (struct slice){request->base + span.at, span.len};
}

/* Where a slice of the request stands when its bytes have moved to `base`. */
static inline struct slice request_moved(const struct request *request, struct slice slice,
                                         const char *base) {
    return slice.len ? (struct slice){base + (slice.data - request->base), slice.len} : SLICE("");
}

/* The value of the last header of this name, empty when there is none. */
struct slice request_header(const struct request *request, enum header_name name);
