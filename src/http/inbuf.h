/*
 * Bytes that a client has sent and nobody has used up: of a request that came in part, or of
 * requests to come. They count into BUFFER_SIZE. A zeroed one is empty.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inbuf {
    char *data; /* NULL when it is empty */
    uint32_t len, cap;
};

/* Empties it. */
void inbuf_free(struct inbuf *in);

/* Makes room for `cap` bytes in all; false when there is no memory for it, or none left of
 * BUFFER_SIZE. */
bool inbuf_reserve(struct inbuf *in, size_t cap);

/* Keeps `len` bytes of `data`, which may be a part of it, as the whole; false as above. */
bool inbuf_keep(struct inbuf *in, const char *data, size_t len);

/* Fills an empty one, whatever is left of BUFFER_SIZE: another process has counted these bytes
 * before. False when memory is out. */
bool inbuf_restore(struct inbuf *in, const char *data, size_t len);

/* Keeps bytes behind those that are there already; false as above. */
bool inbuf_append(struct inbuf *in, const char *data, size_t len);
