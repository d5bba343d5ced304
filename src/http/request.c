#include "http/request.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

static struct request *request_of(llhttp_t *parser) {
    return parser->data;
}

static int fail(struct request *request, enum http_error error) {
    request->error = error;
    return HPE_USER;
}

/* Adds the `len` bytes at `at` to a span: llhttp reports one in pieces when the input comes in
 * pieces. */
static void extend(struct request *request, struct span *span, const char *at, size_t len) {
    if (!span->len)
        span->at = (uint32_t)(at - request->base);
    span->len += (uint32_t)len;
}

static bool is_head_too_large(const struct request *request, const char *at) {
    return at - request->base > REQUEST_HEAD_MAX_BYTES;
}

/*
 * Later versions of llhttp know methods that version 8 does not; none of them is ours. Nor is
 * CONNECT: what follows its head is a tunnel and no request, and a proxy may pass it on as it is.
 */
static int on_method_complete(llhttp_t *parser) {
    bool is_refused = parser->method > HTTP_FLUSH || parser->method == HTTP_CONNECT;
    return is_refused ? fail(request_of(parser), ERROR_MALFORMED_REQUEST) : 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t len) {
    struct request *request = request_of(parser);
    extend(request, &request->target, at, len);
    return request->target.len > REQUEST_TARGET_MAX_BYTES ? fail(request, ERROR_TARGET_SIZE) : 0;
}

static int on_url_complete(llhttp_t *parser) {
    request_of(parser)->is_target_complete = true;
    return 0;
}

/* The header, or trailer, that is being read. */
static struct header *current_header(struct request *request) {
    return request->head_complete ? &request->trailer : &request->headers[request->header_count];
}

static int on_header_field(llhttp_t *parser, const char *at, size_t len) {
    struct request *request = request_of(parser);
    uint32_t count = request->head_complete ? request->trailer_count : request->header_count;
    if (count == REQUEST_HEADERS_MAX ||
        (!request->head_complete && is_head_too_large(request, at + len)))
        return fail(request, ERROR_HEAD_SIZE);
    extend(request, &current_header(request)->name, at, len);
    return 0;
}

static enum header_name name_of(struct slice name) {
    static const struct slice names[HEADER_NAME_COUNT] = {
        [HEADER_HOST] = SLICE("host"),
        [HEADER_CONTENT_TYPE] = SLICE("content-type"),
        [HEADER_CONTENT_LENGTH] = SLICE("content-length"),
        [HEADER_CONTENT_ENCODING] = SLICE("content-encoding"),
        [HEADER_TRANSFER_ENCODING] = SLICE("transfer-encoding"),
        [HEADER_EXPECT] = SLICE("expect"),
        [HEADER_ACCEPT_ENCODING] = SLICE("accept-encoding"),
        [HEADER_IF_NONE_MATCH] = SLICE("if-none-match"),
    };
    for (int i = HEADER_OTHER + 1; i < HEADER_NAME_COUNT; i++)
        if (slice_equal_nocase(name, names[i]))
            return i;
    return HEADER_OTHER;
}

/*
 * Refuses a length beside a coding, and both of them in a trailer, where the name ends. llhttp
 * would refuse them later, and each version of it at another place.
 */
static int on_header_field_complete(llhttp_t *parser) {
    struct request *request = request_of(parser);
    request->name = name_of(request_slice(request, current_header(request)->name));
    bool is_length = request->name == HEADER_CONTENT_LENGTH;
    bool is_coding = request->name == HEADER_TRANSFER_ENCODING;
    bool is_refused = request->head_complete
                          ? is_length || is_coding || request->name == HEADER_HOST
                          : (is_length && request->counts[HEADER_TRANSFER_ENCODING]) ||
                                (is_coding && request->counts[HEADER_CONTENT_LENGTH]);
    return is_refused ? fail(request, ERROR_MALFORMED_REQUEST) : 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t len) {
    struct request *request = request_of(parser);
    if (!request->head_complete && is_head_too_large(request, at + len))
        return fail(request, ERROR_HEAD_SIZE);
    extend(request, &current_header(request)->value, at, len);
    return 0;
}

/* Whether the value goes on in a further line: there is a line break before its end. */
static bool is_folded(const struct request *request, const struct header *header) {
    uint32_t from = header->name.at + header->name.len, to = header->value.at + header->value.len;
    const char *text = request->base + from;
    return header->value.len && (memchr(text, '\n', to - from) || memchr(text, '\r', to - from));
}

static int on_header_value_complete(llhttp_t *parser) {
    struct request *request = request_of(parser);
    struct header *header = current_header(request);
    if (!header->name.len || is_folded(request, header))
        return fail(request, ERROR_MALFORMED_REQUEST);
    if (request->head_complete) {
        request->trailer = (struct header){0};
        request->trailer_count++;
        return 0;
    }
    request->counts[request->name]++;
    request->last_of[request->name] = (uint8_t)request->header_count++;
    if (request->header_count < REQUEST_HEADERS_MAX)
        request->headers[request->header_count] = (struct header){0};
    return 0;
}

/* Whether single spaces part the request line, which llhttp does not insist on. */
static bool is_line_sound(const struct request *request) {
    const char *target = request->base + request->target.at, *end = target + request->target.len;
    return target[-1] == ' ' && target[-2] != ' ' && end[0] == ' ' && end[1] != ' ';
}

/*
 * The end of the empty line behind `from`, or `to` when none comes before it. NULL when a line is
 * not in the strict form that llhttp does not insist on: each ends in CRLF, CR and LF are nowhere
 * else, and no line goes on in the next one.
 */
static const char *strict_lines_end(const char *from, const char *to) {
    for (const char *at = from; at < to;) {
        const char *lf = memchr(at, '\n', (size_t)(to - at));
        const char *cr = memchr(at, '\r', (size_t)((lf ? lf : to) - at));
        if (!lf)
            return !cr || cr + 1 == to ? to : NULL;
        bool is_folded = cr != at && lf + 1 < to && (lf[1] == ' ' || lf[1] == '\t');
        if (cr != lf - 1 || is_folded)
            return NULL;
        if (cr == at)
            return lf + 1;
        at = lf + 1;
    }
    return to;
}

/* The length of the complete head, with its empty line; 0 when a line is not strict. */
static size_t strict_head_len(const struct request *request) {
    const char *base = request->base;
    const char *end = strict_lines_end(base + request->target.at, base + request->fed_len);
    return end ? (size_t)(end - base) : 0;
}

static bool is_version(const llhttp_t *parser, int major, int minor) {
    return parser->http_major == major && parser->http_minor == minor;
}

static int on_version_complete(llhttp_t *parser) {
    bool is_known = is_version(parser, 1, 1) || is_version(parser, 1, 0);
    return is_known ? 0 : fail(request_of(parser), ERROR_VERSION);
}

static enum http_error check_head(struct request *request) {
    llhttp_t *parser = &request->parser;
    if (!is_line_sound(request))
        return ERROR_MALFORMED_REQUEST;
    request->head_len = (uint32_t)strict_head_len(request);
    if (!request->head_len)
        return ERROR_MALFORMED_REQUEST;
    if (request->head_len > REQUEST_HEAD_MAX_BYTES)
        return ERROR_HEAD_SIZE;
    bool is_1_1 = is_version(parser, 1, 1);
    if (request->counts[HEADER_HOST] > 1 || (is_1_1 && !request->counts[HEADER_HOST]))
        return ERROR_HOST;
    if (request->counts[HEADER_TRANSFER_ENCODING]) {
        if (request->counts[HEADER_TRANSFER_ENCODING] > 1 || !is_1_1 ||
            !slice_equal_nocase(slice_trim(request_header(request, HEADER_TRANSFER_ENCODING)),
                                SLICE("chunked")))
            return ERROR_TRANSFER_ENCODING;
    }
    if (request->counts[HEADER_EXPECT]) {
        if (!slice_equal_nocase(slice_trim(request_header(request, HEADER_EXPECT)),
                                SLICE("100-continue")))
            return ERROR_EXPECT;
        request->expects_continue = is_1_1;
    }
    if (!(parser->flags & F_CHUNKED) && parser->content_length > request->body_max_bytes)
        return ERROR_BODY_SIZE;
    return HTTP_NO_ERROR;
}

static int on_headers_complete(llhttp_t *parser) {
    struct request *request = request_of(parser);
    request->head_complete = true;
    parser->upgrade = 0; /* no protocol is switched to: an Upgrade is ignored */
    enum http_error error = check_head(request);
    if (error)
        return fail(request, error);
    if (!(parser->flags & F_CHUNKED))
        return 0;
    chunk_line_begin(&request->chunk_line);
    return HPE_PAUSED;
}

static int on_chunk_complete(llhttp_t *parser) {
    struct request *request = request_of(parser);
    request->is_in_chunk = false;
    if (request->is_in_trailers)
        return 0;
    chunk_line_begin(&request->chunk_line);
    return HPE_PAUSED;
}

/* A chunk that announces too much need not be waited for. */
static int on_chunk_header(llhttp_t *parser) {
    struct request *request = request_of(parser);
    request->is_in_trailers = parser->content_length == 0;
    request->is_in_chunk = !request->is_in_trailers;
    bool fits = parser->content_length <= request->body_max_bytes - request->body.len;
    return fits ? 0 : fail(request, ERROR_BODY_SIZE);
}

static int on_body(llhttp_t *parser, const char *at, size_t len) {
    struct request *request = request_of(parser);
    if (len > request->body_max_bytes - request->body.len)
        return fail(request, ERROR_BODY_SIZE);
    char *end = request->base + request->body.at + request->body.len;
    assert(!request->body.len || at >= end);
    if (request->body.len && at != end)
        memmove(end, at, len);
    extend(request, &request->body, at, len);
    request->data_end = (size_t)(at + len - request->base);
    return 0;
}

static int on_message_complete(llhttp_t *parser) {
    llhttp_set_error_reason(parser, "complete");
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_method_complete = on_method_complete,
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_version_complete = on_version_complete,
    .on_header_field = on_header_field,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_chunk_complete = on_chunk_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void request_init(struct request *request, uint32_t body_max_bytes) {
    /* A header's spans are emptied when the one before it is complete. */
    memset(request, 0, offsetof(struct request, headers) + sizeof request->headers[0]);
    llhttp_init(&request->parser, HTTP_REQUEST, &callbacks);
    request->parser.data = request;
    request->body_max_bytes = body_max_bytes;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Whether a version stands behind the target, one that llhttp does not know. */
static bool has_unknown_version(const struct request *request, size_t to) {
    size_t at = request->target.at + request->target.len;
    const char *text = request->base + at;
    bool has_version = to - at >= 9 && memcmp(text, " HTTP/", 6) == 0 && is_digit(text[6]) &&
                       text[7] == '.' && is_digit(text[8]);
    return has_version && memcmp(text, " HTTP/1.0", 9) != 0 && memcmp(text, " HTTP/1.1", 9) != 0;
}

static enum http_error parser_error(const struct request *request, llhttp_errno_t status,
                                    size_t to) {
    if (request->error)
        return request->error;
    const char *text = request->base + request->target.at;
    if (status == HPE_INVALID_TRANSFER_ENCODING &&
        strict_lines_end(text, llhttp_get_error_pos(&request->parser)))
        return ERROR_TRANSFER_ENCODING;
    bool is_version = status == HPE_PAUSED_H2_UPGRADE ||
                      (status == HPE_INVALID_VERSION && has_unknown_version(request, to));
    return is_version ? ERROR_VERSION : ERROR_MALFORMED_REQUEST;
}

/* Before a request there may be a few empty lines, and nothing else. */
static bool is_start_sound(const char *base, size_t to) {
    size_t blank = 0;
    while (blank < to && (base[blank] == '\r' || base[blank] == '\n'))
        if (blank == REQUEST_BLANK_MAX_BYTES || base[blank] != "\r\n"[blank % 2])
            return false;
        else
            blank++;
    return true;
}

/* Counts what is between the data of a chunked body; false when it is too much. */
static bool count_framing(struct request *request, size_t bytes) {
    if (!request->head_complete || !(request->parser.flags & F_CHUNKED))
        return true;
    request->framing_bytes += bytes;
    /* As much as chunks of one byte need, and two heads' worth. */
    return request->framing_bytes <= 2 * REQUEST_HEAD_MAX_BYTES + 8 * (size_t)request->body.len;
}

static enum request_progress refuse(struct request *request, enum http_error error) {
    request->error = error;
    return REQUEST_FAILED;
}

/* Lets llhttp read from `from` to `to`, but none of the extensions of chunks. */
static llhttp_errno_t execute(struct request *request, const char *from, const char *to) {
    llhttp_t *parser = &request->parser;
    struct chunk_line *line = &request->chunk_line;
    llhttp_errno_t status = HPE_OK;
    while (from < to) {
        const char *end = to;
        bool is_extension = chunk_line_is_in_extension(line);
        if (line->state != CHUNK_LINE_NONE)
            end = chunk_line_scan(line, from, to);
        if (line->state == CHUNK_LINE_BAD)
            return HPE_INVALID_CHUNK_SIZE;
        if (!is_extension && end > from)
            status = llhttp_execute(parser, from, (size_t)(end - from));
        bool is_at_line = status == HPE_PAUSED && line->state == CHUNK_LINE_SIZE;
        if (status != HPE_OK && !is_at_line)
            return status;
        if (is_at_line) {
            end = llhttp_get_error_pos(parser);
            llhttp_resume(parser);
            status = HPE_OK;
        }
        from = end;
    }
    return HPE_OK;
}

/* The end of the line that the target is in, or `to`. */
static const char *line_end(const struct request *request, const char *from, const char *to) {
    while (!request->target.len && from < to && (*from == '\r' || *from == '\n'))
        from++; /* the empty lines before a request */
    const char *lf = from < to ? memchr(from, '\n', (size_t)(to - from)) : NULL;
    return lf ? lf : to;
}

/* The first byte above 127, `end` when there is none. */
static const char *find_high_byte(const char *from, const char *end) {
    for (uint64_t bytes; end - from >= 8; from += 8) {
        memcpy(&bytes, from, 8);
        if (bytes & 0x8080808080808080)
            break;
    }
    for (; from < end; from++)
        if ((unsigned char)*from > 127)
            return from;
    return end;
}

/*
 * The same, but takes bytes above 127 in the target as they are. A strict llhttp refuses them, so
 * it does not see them.
 */
static llhttp_errno_t execute_line(struct request *request, const char *from, const char *to) {
    const char *end = request->is_target_complete ? from : line_end(request, from, to);
    while (!request->is_target_complete) {
        const char *high = find_high_byte(from, end);
        if (high == end)
            break;
        llhttp_errno_t status = execute(request, from, high);
        if (status != HPE_OK)
            return status;
        from = high;
        bool is_in_target = high == request->base + request->target.at + request->target.len;
        if (request->is_target_complete || !request->target.len || !is_in_target)
            break;
        while (from < end && (unsigned char)*from > 127)
            from++;
        request->target.len += (uint32_t)(from - high);
        if (request->target.len > REQUEST_TARGET_MAX_BYTES)
            return fail(request, ERROR_TARGET_SIZE);
    }
    return execute(request, from, to);
}

enum request_progress request_feed(struct request *request, char *base, size_t from, size_t to,
                                   size_t *used) {
    request->base = base;
    request->fed_len = to;
    request->data_end = from;
    if (!request->target.len && !is_start_sound(base, to))
        return refuse(request, ERROR_MALFORMED_REQUEST);
    uint32_t body_len = request->body.len;
    llhttp_errno_t status = execute_line(request, base + from, base + to);
    bool is_complete = status == HPE_PAUSED;
    if (!is_complete && status != HPE_OK)
        return refuse(request, parser_error(request, status, to));
    size_t end = is_complete ? (size_t)(llhttp_get_error_pos(&request->parser) - base) : to;
    if (!count_framing(request, end - from - (request->body.len - body_len)))
        return refuse(request, ERROR_HEAD_SIZE);
    *used = end;
    if (is_complete && request->is_in_trailers && base[end - 2] != '\r')
        return refuse(request, ERROR_MALFORMED_REQUEST); /* llhttp 8 takes a bare LF there */
    if (is_complete)
        return REQUEST_COMPLETE;
    if (!request->head_complete && to > REQUEST_HEAD_MAX_BYTES)
        return refuse(request, ERROR_HEAD_SIZE);
    /* Of a chunked body only the data is kept; the parser needs none of what is between. */
    if (request->head_complete && (request->parser.flags & F_CHUNKED) && !request->is_in_trailers)
        *used = request->body.len ? request->body.at + request->body.len : request->head_len;
    return REQUEST_PARTIAL;
}

/* --- Once more -------------------------------------------------------------------------------- */

/* The line of a chunk as far as it has come; what its extensions say does not matter. */
static void remake_chunk_line(const struct request *request, struct pack *out) {
    static const char *const extensions[] = {
        [CHUNK_LINE_NONE] = "\r",         [CHUNK_LINE_SIZE_END] = " ",
        [CHUNK_LINE_NAME_START] = ";",    [CHUNK_LINE_NAME] = ";a",
        [CHUNK_LINE_NAME_END] = ";a ",    [CHUNK_LINE_VALUE_START] = ";a=",
        [CHUNK_LINE_VALUE] = ";a=b",      [CHUNK_LINE_QUOTED] = ";a=\"",
        [CHUNK_LINE_ESCAPED] = ";a=\"\\", [CHUNK_LINE_QUOTED_END] = ";a=\"\"",
    };
    if (!request->chunk_line.has_size)
        return;
    char line[32];
    const char *rest = extensions[request->chunk_line.state];
    int len = snprintf(line, sizeof line, "%" PRIx64 "%s", request->parser.content_length,
                       rest ? rest : "");
    pack_raw(out, line, (size_t)len);
}

/* The start of the line that the byte `at` is in; there must be one before it. */
static const char *line_start(const char *base, size_t at) {
    return (const char *)memrchr(base, '\n', at) + 1;
}

/* The trailer as far as it has come, or what stands behind the last one; those before it are
 * checked. */
static void remake_trailer(const struct request *request, struct pack *out) {
    const struct header *trailer = &request->trailer;
    size_t begun = trailer->name.len    ? trailer->name.at
                   : trailer->value.len ? trailer->value.at /* it has no name: it will be refused */
                                        : request->fed_len;
    const char *from = line_start(request->base, begun);
    const char *before = line_start(request->base, (size_t)(from - request->base - 1));
    if (*before == ':') /* nor has that one */
        from = before;
    pack_raw(out, "0\r\n", 3);
    pack_raw(out, from, (size_t)(request->base + request->fed_len - from));
}

void request_remake(const struct request *request, struct pack *out) {
    bool is_chunked = request->head_complete && request->parser.flags & F_CHUNKED;
    if (!is_chunked) {
        pack_raw(out, request->base, request->fed_len);
        return;
    }
    uint64_t left = request->is_in_chunk ? request->parser.content_length : 0;
    char line[32];
    pack_raw(out, request->base, request->head_len);
    if (request->body.len + left) {
        int len = snprintf(line, sizeof line, "%" PRIx64 "\r\n", request->body.len + left);
        pack_raw(out, line, (size_t)len);
        pack_raw(out, request->base + request->body.at, request->body.len);
    }
    if (!request->is_in_chunk && request->body.len)
        pack_raw(out, "\r\n", 2);
    if (request->is_in_trailers)
        remake_trailer(request, out);
    else if (!request->is_in_chunk)
        remake_chunk_line(request, out);
    else if (!left && request->data_end < request->fed_len)
        pack_raw(out, "\r", 1);
}

/* ---------------------------------------------------------------------------------------------- */

size_t request_content_length(const struct request *request) {
    bool is_chunked = request->parser.flags & F_CHUNKED;
    return is_chunked ? 0 : request->parser.content_length + request->body.len;
}

size_t request_buffer_size(const struct request *request, size_t used) {
    size_t size = 2 * used + 2 * REQUEST_READ_MIN_BYTES;
    size_t body_len = request->head_complete ? request_content_length(request) : 0;
    if (body_len && size > used - request->body.len + body_len)
        size = used - request->body.len + body_len;
    size_t max = request->body_max_bytes + 2 * REQUEST_HEAD_MAX_BYTES;
    if (size > max && max >= used + REQUEST_READ_MIN_BYTES)
        size = max;
    return size;
}

struct slice request_header(const struct request *request, enum header_name name) {
    if (!request->counts[name])
        return (struct slice){"", 0};
    return request_slice(request, request->headers[request->last_of[name]].value);
}
