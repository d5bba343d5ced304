#include "http/http.h"

int http_status_code(enum http_status status) {
#define STATUS_CODE(name, code, reason) [name] = (code),
    static const int codes[] = {HTTP_STATUSES(STATUS_CODE)};
    return codes[status];
}

const char *http_status_reason(enum http_status status) {
#define STATUS_REASON(name, code, reason) [name] = (reason),
    static const char *const reasons[] = {HTTP_STATUSES(STATUS_REASON)};
    return reasons[status];
}

enum http_status http_error_status(enum http_error error) {
#define ERROR_STATUS(name, status, text) [name] = (status),
    static const enum http_status statuses[] = {HTTP_ERRORS(ERROR_STATUS)};
    return statuses[error];
}

const char *http_error_description(enum http_error error) {
#define ERROR_TEXT(name, status, text) [name] = (text),
    static const char *const texts[] = {HTTP_ERRORS(ERROR_TEXT)};
    return texts[error];
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The byte of the %XX at the start of `text`, -1 when there is none. */
static int percent_byte(struct slice text) {
    if (text.len < 3 || text.data[0] != '%')
        return -1;
    int high = hex_digit(text.data[1]), low = hex_digit(text.data[2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

long http_decode_path(struct slice text, char *out) {
    long len = 0;
    while (text.len) {
        size_t used = 1;
        char c = *text.data;
        if (c == '%') {
            int byte = percent_byte(text);
            if (byte < 0)
                return -1;
            c = (char)byte;
            used = 3;
        }
        out[len++] = c;
        text.data += used;
        text.len -= used;
    }
    return len;
}

bool http_next_pair(struct slice *text, struct http_pair *pair) {
    while (text->len) {
        const char *end = memchr(text->data, '&', text->len);
        size_t len = end ? (size_t)(end - text->data) : text->len;
        struct slice part = {text->data, len};
        text->data += end ? len + 1 : len;
        text->len -= end ? len + 1 : len;
        if (!len)
            continue;
        const char *equals = memchr(part.data, '=', part.len);
        size_t name_len = equals ? (size_t)(equals - part.data) : part.len;
        pair->name = (struct slice){part.data, name_len};
        pair->value =
            equals ? (struct slice){equals + 1, part.len - name_len - 1} : (struct slice){"", 0};
        return true;
    }
    return false;
}

void http_decode_form(struct buf *out, struct slice text) {
    while (text.len) {
        int byte = percent_byte(text);
        size_t used = byte < 0 ? 1 : 3;
        buf_putc(out, byte >= 0 ? (char)byte : *text.data == '+' ? ' ' : *text.data);
        text.data += used;
        text.len -= used;
    }
}
