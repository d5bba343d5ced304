#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_deinit(struct buf *buf) {
    if (!buf->is_borrowed)
        free(buf->data);
    *buf = (struct buf){0};
}

void buf_reset(struct buf *buf, size_t keep_bytes) {
    if (buf->cap > keep_bytes)
        buf_deinit(buf);
    buf->len = 0;
    buf->failed = false;
}

bool buf_grow(struct buf *buf, size_t more) {
    if (buf->failed)
        return false;
    size_t cap = buf->cap ? buf->cap : 256;
    while (cap - buf->len < more)
        cap *= 2;
    char *data = realloc(buf->is_borrowed ? NULL : buf->data, cap);
    if (!data) {
        buf->failed = true;
        return false;
    }
    if (buf->is_borrowed)
        memcpy(data, buf->data, buf->len);
    buf->is_borrowed = false;
    buf->data = data;
    buf->cap = cap;
    return true;
}

void buf_printf(struct buf *buf, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (!buf_reserve(buf, (size_t)len + 1))
        return;
    va_start(args, format);
    vsnprintf(buf->data + buf->len, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
}

void buf_put_number(struct buf *buf, uint64_t number) {
    char digits[20];
    buf_append(buf, digits, format_number(digits, number));
}

size_t format_number(char *out, uint64_t number) {
    char digits[20];
    size_t len = 0;
    do
        digits[len++] = (char)('0' + number % 10);
    while (number /= 10);
    for (size_t i = 0; i < len; i++)
        out[i] = digits[len - 1 - i];
    return len;
}
