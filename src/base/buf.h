/*
 * A growable byte buffer.
 *
 * Running out of memory is sticky: the buffer sets `failed` and takes no more bytes, so that one
 * check after all the writing is enough.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
    char *data;
    size_t len, cap;
    bool failed;
    bool is_borrowed; /* `data` is the caller's, set before the first byte; more goes to the heap */
};

void buf_deinit(struct buf *buf);

/* Empties the buffer and clears `failed`; gives memory beyond `keep_bytes` back. */
void buf_reset(struct buf *buf, size_t keep_bytes);

/* The rest of buf_reserve(). */
bool buf_grow(struct buf *buf, size_t more);

/* Makes room for `more` further bytes. False, and `failed` set, when memory is out. */
static inline bool buf_reserve(struct buf *buf, size_t more) {
    return (more <= buf->cap - buf->len && !buf->failed) || buf_grow(buf, more);
}

static inline void buf_append(struct buf *buf, const void *bytes, size_t len) {
    if (len && buf_reserve(buf, len)) {
        memcpy(buf->data + buf->len, bytes, len);
        buf->len += len;
    }
}

static inline void buf_puts(struct buf *buf, const char *text) {
    buf_append(buf, text, strlen(text));
}

static inline void buf_putc(struct buf *buf, char c) {
    buf_append(buf, &c, 1);
}

/* In decimal. */
void buf_put_number(struct buf *buf, uint64_t number);

__attribute__((format(printf, 2, 3), nonnull)) void buf_printf(struct buf *buf, const char *format,
                                                               ...);

/* Writes `number` in decimal to `out`, which has room for 20 bytes; returns the length. */
size_t format_number(char *out, uint64_t number);
