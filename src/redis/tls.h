/*
 * TLS as a client, over bytes that somebody else carries (OpenSSL on memory BIOs; no socket here).
 *
 * What comes from the peer goes into tls_feed(); tls_read() gives what it says in the clear;
 * tls_write() takes what it is to be told; after each of them tls_take() gives the bytes that are
 * to be sent.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>

struct tls_context;
struct tls;

/* `ca_file`: the authorities that are trusted, "" for the system's. NULL on failure, with one
 * line in `error`. */
struct tls_context *tls_context_new(const char *ca_file, char *error, size_t error_size);
void tls_context_free(struct tls_context *context);

/* A session with the peer named (or numbered) `host`, whose certificate must say so. NULL when
 * memory is out. */
struct tls *tls_new(struct tls_context *context, const char *host);
void tls_free(struct tls *tls);

/* All three: false when the session is broken; tls_error() says why. Nothing is written before
 * tls_is_ready(), and no empty text. */
bool tls_feed(struct tls *tls, struct slice bytes);
bool tls_write(struct tls *tls, struct slice text);
/* Reads up to `size` bytes; *len is 0 when there is nothing yet. */
bool tls_read(struct tls *tls, char *out, size_t size, size_t *len);

/* Appends what is to be sent to the peer. */
void tls_take(struct tls *tls, struct buf *out);

/* Whether the peer has shown its certificate and the session stands. */
bool tls_is_ready(const struct tls *tls);

/* One line; valid until the next call. */
const char *tls_error(const struct tls *tls);
