/*
 * Reading requests. A request must read the same in whatever pieces it arrives: each is fed whole,
 * byte by byte, and cut in two at every place, from a buffer that moves between the feeds and is no
 * longer than what it holds.
 */
#include "base/buf.h"
#include "base/pack.h"
#include "http/request.h"
#include "support.h"

#include <dirent.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BODY_MAX = 100000 };

/* The result: a text that says everything about the request, and how much input is left. */
struct outcome {
    enum request_progress progress;
    enum http_error error;
    struct buf said;
    size_t left;
};

static void say_slice(struct buf *out, const char *label, struct slice text) {
    buf_puts(out, label);
    buf_append(out, text.data, text.len);
    buf_putc(out, '\n');
}

static void say(struct buf *out, const struct request *request) {
    const llhttp_t *parser = &request->parser;
    buf_printf(out, "%s %d.%d", llhttp_method_name(parser->method), parser->http_major,
               parser->http_minor);
    say_slice(out, " ", request_slice(request, request->target));
    for (uint32_t i = 0; i < request->header_count; i++) {
        say_slice(out, "", request_slice(request, request->headers[i].name));
        say_slice(out, "  ", request_slice(request, request->headers[i].value));
    }
    static const enum header_name names[] = {
        HEADER_HOST,   HEADER_CONTENT_TYPE,  HEADER_CONTENT_ENCODING,
        HEADER_EXPECT, HEADER_IF_NONE_MATCH, HEADER_TRANSFER_ENCODING};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        say_slice(out, "= ", request_header(request, names[i]));
    if (request->expects_continue)
        buf_puts(out, "expects 100\n");
    buf_printf(out, "length %zu\n", request_content_length(request));
    say_slice(out, "", request_slice(request, request->body));
}

/* Feeds `input` as a connection does, cut at the places `cuts` (ascending, ended by input.len). */
static struct outcome feed(struct slice input, const size_t *cuts, uint32_t body_max) {
    struct request *request = malloc(sizeof *request);
    memset(request, 0xAA, sizeof *request);
    request_init(request, body_max);
    struct outcome outcome = {0};
    char *buffer = NULL;
    size_t kept = 0, start = 0;
    do {
        size_t piece = *cuts - start, to = kept + piece, used = 0;
        char *moved = malloc(to + !to);
        if (kept)
            memcpy(moved, buffer, kept);
        if (piece)
            memcpy(moved + kept, input.data + start, piece);
        free(buffer);
        buffer = moved;
        outcome.progress = request_feed(request, buffer, kept, to, &used);
        start += piece;
        if (outcome.progress == REQUEST_FAILED) {
            outcome.error = request->error;
        } else {
            assert_true(used <= to);
            outcome.left = to - used + input.len - start;
        }
        if (outcome.progress == REQUEST_COMPLETE)
            say(&outcome.said, request);
        kept = used;
    } while (outcome.progress == REQUEST_PARTIAL && *cuts++ < input.len);
    free(buffer);
    free(request);
    return outcome;
}

static void assert_same(const struct outcome *whole, struct outcome *cut, const char *how,
                        size_t at) {
    bool is_same = whole->progress == cut->progress && whole->error == cut->error &&
                   (whole->progress != REQUEST_COMPLETE || whole->left == cut->left) &&
                   slice_equal((struct slice){whole->said.data, whole->said.len},
                               (struct slice){cut->said.data, cut->said.len});
    if (!is_same) {
        print_error("whole: progress %d, error %d, left %zu\n%.*s\n%s %zu: progress %d, error %d, "
                    "left %zu\n%.*s\n",
                    whole->progress, whole->error, whole->left, (int)whole->said.len,
                    whole->said.data ? whole->said.data : "", how, at, cut->progress, cut->error,
                    cut->left, (int)cut->said.len, cut->said.data ? cut->said.data : "");
        fail();
    }
    buf_deinit(&cut->said);
}

/* What brings a fresh request to where one is that has read `input` up to `at`, byte by byte if
 * `step` is 1, and the rest of `input` behind it. Nothing, if it is no request that came in part.
 */
static struct buf remake(struct slice input, size_t at, size_t step, uint32_t body_max) {
    struct request *request = malloc(sizeof *request);
    request_init(request, body_max);
    char *buffer = malloc(input.len);
    enum request_progress progress = REQUEST_PARTIAL;
    size_t kept = 0;
    for (size_t start = 0; start < at && progress == REQUEST_PARTIAL; start += step) {
        size_t piece = at - start < step ? at - start : step;
        memcpy(buffer + kept, input.data + start, piece);
        progress = request_feed(request, buffer, kept, kept + piece, &kept);
    }
    struct buf remade = {0};
    if (progress == REQUEST_PARTIAL) {
        struct pack out = {.fd = memfd_create("remade", 0)};
        request_remake(request, &out);
        assert_true(pack_finish(&out));
        buf_reserve(&remade, pack_at(&out));
        remade.len = pack_at(&out);
        assert_int_equal(pread(out.fd, remade.data, remade.len, 0), remade.len);
        close(out.fd);
        buf_append(&remade, input.data + at, input.len - at);
    }
    free(buffer);
    free(request);
    return remade;
}

static void check_remade(const struct outcome *whole, struct slice input, size_t at, size_t step,
                         uint32_t body_max) {
    struct buf remade = remake(input, at, step, body_max);
    if (remade.len) {
        struct outcome again =
            feed((struct slice){remade.data, remade.len}, (size_t[]){remade.len}, body_max);
        assert_same(whole, &again, step == 1 ? "byte by byte, remade at" : "remade at", at);
    }
    buf_deinit(&remade);
}

/* Reads `input` in all the ways; the result is the same in each. buf_deinit() what it says. */
static struct outcome read_all_ways(struct slice input, uint32_t body_max) {
    struct outcome whole = feed(input, (size_t[]){input.len}, body_max);
    size_t step = input.len < 3000 ? 1 : input.len / 1000;
    for (size_t at = 1; at < input.len; at += step) {
        struct outcome cut = feed(input, (size_t[]){at, input.len}, body_max);
        assert_same(&whole, &cut, "cut at", at);
        check_remade(&whole, input, at, at, body_max);
        if (input.len < 1000)
            check_remade(&whole, input, at, 1, body_max);
    }
    if (input.len < 20000) {
        size_t *every = malloc(input.len * sizeof *every);
        for (size_t i = 0; i < input.len; i++)
            every[i] = i + 1;
        struct outcome cut = feed(input, every, body_max);
        assert_same(&whole, &cut, "byte by byte", 0);
        free(every);
    }
    return whole;
}

static void check_good_at(struct slice input, const char *wanted, size_t wanted_left, int line) {
    struct outcome outcome = read_all_ways(input, BODY_MAX);
    if (outcome.progress != REQUEST_COMPLETE || outcome.left != wanted_left) {
        print_error("progress %d, error %d, left %zu: %.*s\n", outcome.progress, outcome.error,
                    outcome.left, (int)input.len, input.data);
        _fail(__FILE__, line);
    }
    assert_slices_at((struct slice){outcome.said.data, outcome.said.len}, slice_of(wanted),
                     __FILE__, line);
    buf_deinit(&outcome.said);
}

#define check_good(input, wanted) check_good_at(SLICE(input), wanted, 0, __LINE__)
#define check_good_left(input, wanted, left) check_good_at(SLICE(input), wanted, left, __LINE__)

static void check_bad_at(struct slice input, enum http_error wanted, uint32_t body_max, int line) {
    struct outcome outcome = read_all_ways(input, body_max);
    if (outcome.progress != REQUEST_FAILED || outcome.error != wanted) {
        print_error("progress %d, error %d, wanted error %d: %.200s\n", outcome.progress,
                    outcome.error, wanted, input.data);
        _fail(__FILE__, line);
    }
    buf_deinit(&outcome.said);
}

#define check_bad(input, error) check_bad_at(SLICE(input), error, BODY_MAX, __LINE__)

/* --- Good requests ---------------------------------------------------------------------------- */

#define NO_HEADERS "= \n= \n= \n= \n= \n= \n"
#define ONLY_HOST "= h\n= \n= \n= \n= \n= \n"

/* Bytes above 127 in a target stay as they are, however the request is cut; nowhere else before the
 * headers' values are they taken. */
static void test_high_bytes(void **state) {
    (void)state;
    check_good("GET /\xC3\xA9?t=\xD0\x9F\xFF HTTP/1.1\r\nHost: h\r\n\r\n",
               "GET 1.1 /\xC3\xA9?t=\xD0\x9F\xFF\nHost\n  h\n" ONLY_HOST "length 0\n\n");
    check_good("\r\n\r\nGET /\x80/\x80\x80z HTTP/1.1\r\nHost: h\r\n\r\n",
               "GET 1.1 /\x80/\x80\x80"
               "z\nHost\n  h\n" ONLY_HOST "length 0\n\n");
    check_bad("G\xC3T / HTTP/1.1\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("\xC3GET / HTTP/1.1\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET \xC3/ HTTP/1.1\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / \xC3HTTP/1.1\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\xC3\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET /\xC3 x HTTP/1.1\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET /\xC3\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nH\xC3st: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET /a\r\n\xC3\xA9: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
}

static void test_good(void **state) {
    (void)state;
    check_good("GET / HTTP/1.1\r\nHost: h\r\n\r\n",
               "GET 1.1 /\nHost\n  h\n" ONLY_HOST "length 0\n\n");
    check_good("GET /a?b=c&d HTTP/1.0\r\n\r\n", "GET 1.0 /a?b=c&d\n" NO_HEADERS "length 0\n\n");
    check_good("POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}",
               "POST 1.1 /c\nHost\n  h\nContent-Length\n  2\n" ONLY_HOST "length 2\n{}\n");
    check_good("POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
               "POST 1.1 /c\nHost\n  h\nContent-Length\n  0\n" ONLY_HOST "length 0\n\n");
    check_good("DELETE /c HTTP/1.1\r\nhost:h\r\n\r\n",
               "DELETE 1.1 /c\nhost\n  h\n" ONLY_HOST "length 0\n\n");
    /* An empty Host, an empty value, spaces around a value. */
    check_good("GET / HTTP/1.1\r\nHost:\r\n\r\n",
               "GET 1.1 /\nHost\n  \n" NO_HEADERS "length 0\n\n");
    check_good("GET / HTTP/1.1\r\nHost: h\r\nX-A:\r\nX-B: \t \r\nX-C: \t c d\t \r\n\r\n",
               "GET 1.1 /\nHost\n  h\nX-A\n  \nX-B\n  \nX-C\n  c d\t \n" ONLY_HOST "length 0\n\n");
    /* Those it knows, in any case; the last of a repeated one counts. */
    check_good(
        "GET / HTTP/1.1\r\nHOST: h\r\ncontent-TYPE: a/b\r\nIf-None-Match: 1\r\nContent-Encoding: "
        "gzip\r\n"
        "if-none-match: 2\r\nIf-None: 3\r\nIf-None-Match-: 4\r\n\r\n",
        "GET 1.1 /\nHOST\n  h\ncontent-TYPE\n  a/b\nIf-None-Match\n  1\nContent-Encoding\n  gzip\n"
        "if-none-match\n  2\nIf-None\n  3\nIf-None-Match-\n  4\n"
        "= h\n= a/b\n= gzip\n= \n= 2\n= \nlength 0\n\n");
    check_good("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
               "POST 1.1 /\nHost\n  h\nExpect\n  100-Continue\nContent-Length\n  1\n"
               "= h\n= \n= \n= 100-Continue\n= \n= \nexpects 100\nlength 1\nx\n");
    check_good("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
               "POST 1.0 /\nExpect\n  100-continue\nContent-Length\n  1\n"
               "= \n= \n= \n= 100-continue\n= \n= \nlength 1\nx\n");
    /* Upgrade is ignored; a body with NULs; a body that looks like a request. */
    check_good("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
               "GET 1.1 /\nHost\n  h\nConnection\n  Upgrade\nUpgrade\n  websocket\n" ONLY_HOST
               "length 0\n\n");
    check_good("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.0\r\n\r\n",
               "POST 1.1 /\nHost\n  h\nContent-Length\n  18\n" ONLY_HOST
               "length 18\nGET / HTTP/1.0\r\n\r\n\n");
}

static void test_chunked(void **state) {
    (void)state;
#define CHUNKED "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
#define SAYS                                                                                       \
    "POST 1.1 /c\nHost\n  h\nTransfer-Encoding\n  chunked\n= h\n= \n= \n= \n= \n= "                \
    "chunked\nlength 0\n"
    check_good(CHUNKED "0\r\n\r\n", SAYS "\n");
    check_good(CHUNKED "2\r\n{}\r\n0\r\n\r\n", SAYS "{}\n");
    check_good(CHUNKED "1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n", SAYS "abcdef\n");
    check_good(CHUNKED "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
               SAYS "01234567890123456789\n");
    check_good(CHUNKED "0000002\r\n\r\n\r\n000\r\n\r\n", SAYS "\r\n\n");
    check_good(CHUNKED "1;name=value\r\na\r\n1;x=\"y z\"\r\nb\r\n0;end\r\n\r\n", SAYS "ab\n");
    check_good(CHUNKED "1\r\na\r\n0\r\nX-Trailer: t\r\nX-Other: o\r\n\r\n", SAYS "a\n");
#undef SAYS
    check_good(
        "POST /c HTTP/1.1\r\nTransfer-Encoding: \t CHUNKED \r\nHost: h\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "POST 1.1 /c\nTransfer-Encoding\n  CHUNKED \nHost\n  h\n= h\n= \n= \n= \n= \n= CHUNKED "
        "\nlength 0\nx\n");
}

/* Many small chunks give the same body as one. */
static void test_many_chunks(void **state) {
    (void)state;
    struct buf input = {0}, body = {0};
    buf_puts(&input, CHUNKED);
    for (int i = 0; i < 700; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "%d,", i * 7919);
        buf_printf(&input, "%x\r\n%s\r\n", len, text);
        buf_append(&body, text, (size_t)len);
    }
    buf_puts(&input, "0\r\n\r\n");
    struct outcome outcome = read_all_ways((struct slice){input.data, input.len}, BODY_MAX);
    assert_int_equal(outcome.progress, REQUEST_COMPLETE);
    assert_true(outcome.said.len > body.len);
    assert_slices(((struct slice){outcome.said.data + outcome.said.len - body.len - 1, body.len}),
                  ((struct slice){body.data, body.len}));
    buf_deinit(&outcome.said);
    buf_deinit(&input);
    buf_deinit(&body);
}

/* Only the data of a chunked body is kept: a client that sends it slowly costs no more. */
static void test_chunked_keeps_only_data(void **state) {
    (void)state;
    struct request request;
    request_init(&request, BODY_MAX);
    char buffer[2048];
    size_t kept = 0, head = sizeof CHUNKED - 1;
    memcpy(buffer, CHUNKED, head);
    assert_int_equal(request_feed(&request, buffer, 0, head, &kept), REQUEST_PARTIAL);
    assert_true(kept <= head);
    for (size_t i = 1; i <= 1000; i++) {
        size_t piece = (size_t)sprintf(buffer + kept, "1;extension=%032zu\r\nx\r\n", i);
        assert_int_equal(request_feed(&request, buffer, kept, kept + piece, &kept),
                         REQUEST_PARTIAL);
        assert_int_equal(request.body.len, i);
        assert_true(kept <= head + 64 + i); /* the first chunk's size stands before its data */
    }
    size_t piece = (size_t)sprintf(buffer + kept, "0\r\n\r\n");
    assert_int_equal(request_feed(&request, buffer, kept, kept + piece, &kept), REQUEST_COMPLETE);
    assert_int_equal(request.body.len, 1000);
}

static void test_content_length_is_known_early(void **state) {
    (void)state;
    struct request request;
    request_init(&request, BODY_MAX);
    char text[] = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc";
    size_t used;
    assert_int_equal(request_feed(&request, text, 0, sizeof text - 4, &used), REQUEST_PARTIAL);
    assert_true(request.head_complete);
    assert_int_equal(used, sizeof text - 4);
    assert_int_equal(request_content_length(&request), 1000);
    assert_int_equal(request_feed(&request, text, used, used + 3, &used), REQUEST_PARTIAL);
    assert_int_equal(request_content_length(&request), 1000);
    assert_int_equal(request.body.len, 3);
}

static void test_pipelined(void **state) {
    (void)state;
    check_good_left("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
                    "GET 1.1 /1\nHost\n  h\n" ONLY_HOST "length 0\n\n", 28);
    check_good_left("POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nxGET",
                    "POST 1.1 /1\nHost\n  h\nContent-Length\n  1\n" ONLY_HOST "length 1\nx\n", 3);
    check_good_left(
        CHUNKED "1\r\nx\r\n0\r\n\r\nG",
        "POST 1.1 /c\nHost\n  h\nTransfer-Encoding\n  chunked\n= h\n= \n= \n= \n= \n= chunked\n"
        "length 0\nx\n",
        1);
    check_good_left("GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /2",
                    "GET 1.1 /1\nHost\n  h\nConnection\n  close\n" ONLY_HOST "length 0\n\n", 6);
    check_good_left(
        "GET /1 HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nGET /2",
        "GET 1.1 /1\nHost\n  h\nUpgrade\n  x\nConnection\n  upgrade\n" ONLY_HOST "length 0\n\n", 6);
    /* What is behind the request is not looked at. */
    check_good_left("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n\0\0\0",
                    "GET 1.1 /1\nHost\n  h\n" ONLY_HOST "length 0\n\n", 3);
}

/* A stream of requests, read one behind the other from every offset at which a read may end. */
static void test_stream(void **state) {
    (void)state;
    struct buf input = {0};
    for (int i = 0; i < 20; i++)
        if (i % 3 == 0)
            buf_printf(&input, "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
        else if (i % 3 == 1)
            buf_printf(&input, "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n%04d", i,
                       i);
        else
            buf_printf(&input,
                       "POST /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                       "chunked\r\n\r\n2\r\n%02d\r\n0\r\n\r\n",
                       i, i);
    size_t at = 0;
    for (int i = 0; i < 20; i++) {
        struct outcome outcome =
            read_all_ways((struct slice){input.data + at, input.len - at}, BODY_MAX);
        assert_int_equal(outcome.progress, REQUEST_COMPLETE);
        char target[16];
        snprintf(target, sizeof target, " /%d\n", i);
        assert_non_null(memmem(outcome.said.data, outcome.said.len, target, strlen(target)));
        buf_deinit(&outcome.said);
        at = input.len - outcome.left;
    }
    assert_int_equal(at, input.len);
    buf_deinit(&input);
}

/* --- Limits ----------------------------------------------------------------------------------- */

/* `head`, then `count` times `c`, then `tail`. */
static struct slice filled(struct buf *out, const char *head, char c, size_t count,
                           const char *tail) {
    buf_reset(out, SIZE_MAX);
    buf_puts(out, head);
    buf_reserve(out, count);
    memset(out->data + out->len, c, count);
    out->len += count;
    buf_puts(out, tail);
    return (struct slice){out->data, out->len};
}

static void check_fits_at(struct slice input, uint32_t body_max, int line) {
    struct outcome outcome = read_all_ways(input, body_max);
    if (outcome.progress != REQUEST_COMPLETE) {
        print_error("progress %d, error %d\n", outcome.progress, outcome.error);
        _fail(__FILE__, line);
    }
    buf_deinit(&outcome.said);
}

#define check_fits(input) check_fits_at(input, BODY_MAX, __LINE__)
#define check_too_large(input, error) check_bad_at(input, error, BODY_MAX, __LINE__)

static void test_target_limit(void **state) {
    (void)state;
    struct buf out = {0};
    const char *tail = " HTTP/1.1\r\nHost: h\r\n\r\n";
    check_fits(filled(&out, "GET /", 'a', REQUEST_TARGET_MAX_BYTES - 1, tail));
    check_too_large(filled(&out, "GET /", 'a', REQUEST_TARGET_MAX_BYTES, tail), ERROR_TARGET_SIZE);
    check_too_large(filled(&out, "GET /", 'a', 20000, tail), ERROR_TARGET_SIZE);
    check_too_large(filled(&out, "GET /?", 'a', 60000, tail), ERROR_TARGET_SIZE);
    check_fits(filled(&out, "GET /", '\x80', REQUEST_TARGET_MAX_BYTES - 1, tail));
    check_too_large(filled(&out, "GET /", '\x80', REQUEST_TARGET_MAX_BYTES, tail),
                    ERROR_TARGET_SIZE);
    buf_deinit(&out);
}

static void test_head_limit(void **state) {
    (void)state;
    struct buf out = {0};
    const char *head = "GET / HTTP/1.1\r\nHost: h\r\nX-A: ", *tail = "\r\n\r\n";
    size_t around = strlen(head) + strlen(tail);
    check_fits(filled(&out, head, 'a', REQUEST_HEAD_MAX_BYTES - around - 10, tail));
    check_fits(filled(&out, head, 'a', REQUEST_HEAD_MAX_BYTES - around, tail));
    check_too_large(filled(&out, head, 'a', REQUEST_HEAD_MAX_BYTES + 10, tail), ERROR_HEAD_SIZE);
    check_too_large(filled(&out, head, 'a', 65000, tail), ERROR_HEAD_SIZE);
    check_too_large(filled(&out, head, ' ', 65000, tail), ERROR_HEAD_SIZE);
    check_too_large(filled(&out, "GET / HTTP/1.1\r\nHost: h\r\nX-", 'a', 65000, ": b\r\n\r\n"),
                    ERROR_HEAD_SIZE);
    buf_deinit(&out);
}

/* Around the limit, one byte more is too much however the head is made up and cut. */
static void test_head_limit_to_the_byte(void **state) {
    (void)state;
    struct buf out = {0};
    const char *head = "GET / HTTP/1.1\r\nHost: h\r\nX-A: ", *tail = "\r\n\r\n";
    size_t around = strlen(head) + strlen(tail);
    for (size_t more = 1; more <= 6; more++) {
        struct slice input = filled(&out, head, 'a', REQUEST_HEAD_MAX_BYTES - around + more, tail);
        struct outcome whole = feed(input, (size_t[]){input.len}, BODY_MAX);
        for (size_t back = 1; back < 10; back++) {
            struct outcome cut = feed(input, (size_t[]){input.len - back, input.len}, BODY_MAX);
            assert_same(&whole, &cut, "from the end, cut at", back);
        }
        buf_deinit(&whole.said);
        assert_int_equal(whole.error, ERROR_HEAD_SIZE);
    }
    buf_deinit(&out);
}

static void test_header_count_limit(void **state) {
    (void)state;
    struct buf out = {0};
    for (int count = REQUEST_HEADERS_MAX - 1; count <= REQUEST_HEADERS_MAX + 1; count++) {
        buf_reset(&out, SIZE_MAX);
        buf_puts(&out, "GET / HTTP/1.1\r\nHost: h\r\n");
        for (int i = 1; i < count; i++)
            buf_printf(&out, "X-%d: %d\r\n", i, i);
        buf_puts(&out, "\r\n");
        struct slice input = {out.data, out.len};
        if (count <= REQUEST_HEADERS_MAX)
            check_fits(input);
        else
            check_too_large(input, ERROR_HEAD_SIZE);
    }
    buf_reset(&out, SIZE_MAX);
    buf_puts(&out, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 2000; i++)
        buf_puts(&out, "a:\r\n");
    buf_puts(&out, "\r\n");
    check_too_large(((struct slice){out.data, out.len}), ERROR_HEAD_SIZE);
    buf_deinit(&out);
}

static void test_body_limit(void **state) {
    (void)state;
#define WITH_LENGTH(length) "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " length "\r\n\r\n"
    check_fits_at(SLICE(WITH_LENGTH("10") "0123456789"), 10, __LINE__);
    check_bad_at(SLICE(WITH_LENGTH("11") "0123456789a"), ERROR_BODY_SIZE, 10, __LINE__);
    check_bad_at(SLICE(WITH_LENGTH("4294967297") "x"), ERROR_BODY_SIZE, 10, __LINE__);
    check_bad_at(SLICE(WITH_LENGTH("9223372036854775807") "x"), ERROR_BODY_SIZE, 10, __LINE__);
    check_fits_at(SLICE(CHUNKED "a\r\n0123456789\r\n0\r\n\r\n"), 10, __LINE__);
    check_fits_at(SLICE(CHUNKED "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), 10, __LINE__);
    check_bad_at(SLICE(CHUNKED "b\r\n0123456789a\r\n0\r\n\r\n"), ERROR_BODY_SIZE, 10, __LINE__);
    check_bad_at(SLICE(CHUNKED "5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n"), ERROR_BODY_SIZE, 10,
                 __LINE__);
    /* The announcement alone is enough to refuse. */
    check_bad_at(SLICE(WITH_LENGTH("11")), ERROR_BODY_SIZE, 10, __LINE__);
}

/* --- Bad requests ----------------------------------------------------------------------------- */

static void test_bad(void **state) {
    (void)state;
    check_bad("GET / HTTP/1.1\r\n\r\n", ERROR_HOST);
    check_bad("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", ERROR_HOST);
    check_bad("GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n", ERROR_HOST);
    check_bad("GET / HTTP/1.2\r\nHost: h\r\n\r\n", ERROR_VERSION);
    check_bad("GET / HTTP/2.0\r\nHost: h\r\n\r\n", ERROR_VERSION);
    check_bad("GET / HTTP/0.9\r\nHost: h\r\n\r\n", ERROR_VERSION);
    check_bad("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ERROR_VERSION);
    check_bad("POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n",
              ERROR_EXPECT);
    check_bad("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
              ERROR_TRANSFER_ENCODING);
    check_bad("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
              ERROR_TRANSFER_ENCODING);
    check_bad("\x16\x03\x01\x02", ERROR_MALFORMED_REQUEST); /* TLS */
    check_bad("hello\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nHost : h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
              ERROR_MALFORMED_REQUEST);
    check_bad("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: "
              "chunked\r\n\r\n0\r\n\r\n",
              ERROR_MALFORMED_REQUEST);
    check_bad("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: "
              "1\r\n\r\n0\r\n\r\n",
              ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "x\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "1\r\nab\r\n0\r\n\r\n", ERROR_MALFORMED_REQUEST);
    /* A head that ends with bare line feeds, alone or before a sound end. */
    check_bad("POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\n\r{}",
              ERROR_MALFORMED_REQUEST);
    check_bad("POST /c HTTP/1.1\n\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nHost: h\r\nX:\r\n\nmore\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nHost: h\r\nX-A: one\r\n \r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nHost: h\r\nX-A:\r\n \r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\r\nHost: h\r\nX-A:\r\n\tone\r\n\r\n", ERROR_MALFORMED_REQUEST);
    /* A trailer may not be what a head is about, nor be folded or nameless. */
    check_bad(CHUNKED "1\r\na\r\n0\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "1\r\na\r\n0\r\nContent-Length: 1\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "1\r\na\r\n0\r\nX: a\r\n b\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "1\r\na\r\n0\r\n: a\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "1\r\na\r\n0\r\n:\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "1\r\na\r\n0\r\nA: b\r\n:c\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "fffffffffffffffff\r\n", ERROR_MALFORMED_REQUEST);
}

/* What the versions of llhttp would answer differently, or at different places. */
static void test_bad_in_every_llhttp(void **state) {
    (void)state;
#define POST "POST / HTTP/1.1\r\nHost: h\r\n"
#define LENGTH "Content-Length: 1\r\n"
    check_bad(POST LENGTH "Transfer-Encoding: gzip\r\n\r\nx", ERROR_MALFORMED_REQUEST);
    check_bad(POST "Transfer-Encoding: gzip\r\n" LENGTH "\r\nx", ERROR_MALFORMED_REQUEST);
    check_bad(POST LENGTH "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
              ERROR_MALFORMED_REQUEST);
    check_bad(POST "Transfer-Encoding:\r\n chunked\r\n" LENGTH "\r\n0\r\n\r\n",
              ERROR_MALFORMED_REQUEST);
    check_bad(POST "Transfer-Encoding:\r\n chunked,\n gzip\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("POST / HTTP/1.1\nHost: h\r\nTransfer-Encoding: chunked\r\n"
              "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
              ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "0\r\nTransfer-Encoding: gzip\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad(CHUNKED "1\r\na\r\n0\r\n\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.1\rHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
    check_bad("GET / HTTP/1.2 x\r\nHost: h\r\n\r\n", ERROR_VERSION);
    check_bad("GET  / HTTP/2.0\r\nHost: h\r\n\r\n", ERROR_VERSION);
    check_bad("QUERY / HTTP/1.1\r\nHost: h\r\n\r\n", ERROR_MALFORMED_REQUEST);
#undef LENGTH
#undef POST
}

/* What is not complete is neither good nor bad. */
static void test_partial(void **state) {
    (void)state;
    static const struct slice inputs[] = {
        SLICE("G"),
        SLICE("GET / HTTP/1.1\r\nHost: h\r\n"),
        SLICE("GET / HTTP/1.1\r\nHost: h\r\n\r"),
        SLICE("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab"),
        SLICE(CHUNKED "3\r\nabc"),
        SLICE(CHUNKED "3\r\nabc\r\n0\r\n\r"),
    };
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        assert_int_equal(read_all_ways(inputs[i], BODY_MAX).progress, REQUEST_PARTIAL);
}

/* How a file of tests/badrequests is read; "" when that is a status its name allows. */
static const char *judge(const char *name, struct slice text) {
    struct outcome whole = feed(text, (size_t[]){text.len}, BODY_MAX);
    bool is_complete = whole.progress == REQUEST_COMPLETE;
    const char *verdict = "";
    char status[8];
    snprintf(status, sizeof status, "%d-",
             whole.progress == REQUEST_FAILED ? http_status_code(http_error_status(whole.error))
                                              : 0);
    if (is_complete && !strstr(name, "405") && !strstr(name, "target"))
        verdict = "taken"; /* a wrong method or target is found by others */
    if (!is_complete && !strstr(name, status))
        verdict = "refused with another status";
    /* Which of two mistakes is met first may depend on the cuts, but refused it is. */
    for (size_t at = 0; at < text.len && text.len < 3000; at++) {
        struct outcome cut = feed(text, (size_t[]){at, text.len}, BODY_MAX);
        if (cut.progress != whole.progress)
            verdict = "read in another way when it is cut";
        buf_deinit(&cut.said);
    }
    buf_deinit(&whole.said);
    return verdict;
}

static void test_bad_request_files(void **state) {
    (void)state;
    DIR *dir = opendir(SOURCE_ROOT "/tests/badrequests");
    assert_non_null(dir);
    int count = 0, wrong = 0;
    char *text = malloc(1 << 20);
    for (struct dirent *file; (file = readdir(dir));) {
        if (!strstr(file->d_name, ".http"))
            continue;
        char path[512];
        snprintf(path, sizeof path, SOURCE_ROOT "/tests/badrequests/%s", file->d_name);
        FILE *in = fopen(path, "rb");
        assert_non_null(in);
        size_t len = fread(text, 1, 1 << 20, in);
        fclose(in);
        const char *verdict = judge(file->d_name, (struct slice){text, len});
        if (*verdict)
            print_error("%s is %s\n", file->d_name, verdict);
        wrong += *verdict != '\0';
        count++;
    }
    free(text);
    closedir(dir);
    assert_int_equal(wrong, 0);
    assert_true(count > 50);
}

/* --- The end of the input --------------------------------------------------------------------- */

/* Input that ends where memory ends: a byte read beyond it is a fault, in every build. */
static void test_ends_at_inaccessible_page(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    static const struct slice inputs[] = {
        SLICE("GET /abc?def HTTP/1.1\r\nHost: example.org\r\nX-Empty:\r\nAccept: */*\r\n\r\n"),
        SLICE("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n01234567890123456789"),
        SLICE(CHUNKED "10;abc=\"def\"\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n"),
    };
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        for (size_t len = 1; len <= inputs[i].len; len++) {
            char *base = pages + page - len;
            memcpy(base, inputs[i].data, len);
            struct request request;
            request_init(&request, BODY_MAX);
            size_t used;
            enum request_progress progress = request_feed(&request, base, 0, len, &used);
            assert_int_equal(progress, len < inputs[i].len ? REQUEST_PARTIAL : REQUEST_COMPLETE);
        }
    munmap(pages, 2 * page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_high_bytes),
        cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_chunked_keeps_only_data),
        cmocka_unit_test(test_content_length_is_known_early),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_head_limit_to_the_byte),
        cmocka_unit_test(test_body_limit),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_bad_in_every_llhttp),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_bad_request_files),
        cmocka_unit_test(test_ends_at_inaccessible_page),
        /* The long ones last: what they all see is seen sooner. */
        cmocka_unit_test(test_many_chunks),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_header_count_limit),
        cmocka_unit_test(test_target_limit),
        cmocka_unit_test(test_head_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
