/*
 * Fuzzes what senders ask for. The input is a line with the parameters of a multipart Content-Type
 * (and the value of a header that is echoed), a line with the query, and the body. A form must
 * become a JSON object; an echo must be bounded, and its header lines must be lines.
 */
#include "api/handshake.h"
#include "api/multipart.h"
#include "api/wish.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"

#include <assert.h>
#include <stdlib.h>

static struct slice take_line(struct slice *input) {
    struct slice line = SLICE("");
    if (input->data && !slice_cut(input, '\n', &line))
        line = SLICE("");
    if (!input->data)
        *input = SLICE("");
    return line;
}

/* Every line ends with CRLF, and holds nothing that could end it sooner. */
static void check_lines(struct slice lines) {
    while (lines.len) {
        const char *end = memmem(lines.data, lines.len, "\r\n", 2);
        assert(end && end != lines.data);
        for (const char *at = lines.data; at < end; at++)
            assert(*at >= ' ' && *at <= '~');
        lines = slice_after(lines, (size_t)(end - lines.data) + 2);
    }
}

static void check_wanted(struct wanted *wanted) {
    assert(!wanted_failed(wanted) && http_status_code(wanted->status) / 100 == 2);
    assert(wanted->text.len <= 6 * WANTED_TEXT_MAX_BYTES);
    assert(utf8_is_valid((struct slice){wanted->text.data, wanted->text.len}));
    check_lines((struct slice){wanted->lines.data, wanted->lines.len});
    wanted_deinit(wanted);
}

static void check_form(struct slice params, struct slice query, struct slice body) {
    struct buf type = {0}, out = {0};
    struct fields fields;
    buf_puts(&type, "multipart/form-data;");
    buf_append(&type, params.data, params.len);
    fields_init(&fields, query, SLICE(""));
    if (multipart_write(&out, body, (struct slice){type.data, type.len}, &fields))
        assert(json_check((struct slice){out.data, out.len}) == JSON_OBJECT);
    else
        assert(!out.len);
    fields_deinit(&fields);
    buf_deinit(&type);
    buf_deinit(&out);
}

static void check_query(struct slice query) {
    struct wanted wanted = {0};
    struct buf out = {0};
    if (wish_read(query, &wanted))
        check_wanted(&wanted);
    struct slice rest = wish_strip(query, &out);
    wanted = (struct wanted){0};
    assert(!wish_read(rest, &wanted));
    buf_deinit(&out);
}

static void check_handshake(const char *method, struct slice value, struct slice query,
                            struct slice body) {
    static const char *const names[] = {"X-A", "X-Hook-Secret", "Smartsheet-Hook-Challenge",
                                        "X-Okta-Verification-Challenge", "WebHook-Request-Origin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct buf text = {0}, lines = {0};
        buf_printf(&text, "%s /c HTTP/1.1\r\nHost: h\r\n%s: ", method, names[i]);
        buf_append(&text, value.data, value.len);
        buf_printf(&text, "\r\nContent-Length: %zu\r\n\r\n", body.len);
        buf_append(&text, body.data, body.len);
        static struct request request;
        size_t used;
        request_init(&request, 1 << 20);
        if (request_feed(&request, text.data, 0, text.len, &used) == REQUEST_COMPLETE) {
            struct wanted wanted = {0};
            if (handshake_read(&request, query, &wanted))
                check_wanted(&wanted);
            handshake_consent(&request, &lines);
            check_lines((struct slice){lines.data, lines.len});
        }
        buf_deinit(&text);
        buf_deinit(&lines);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    hash_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice rest = {(const char *)data, size};
    if (!size)
        rest = SLICE("");
    struct slice params = take_line(&rest), query = take_line(&rest);
    check_form(params, query, rest);
    check_query(query);
    check_handshake("POST", params, query, rest);
    check_handshake("GET", params, query, rest);
    return 0;
}
