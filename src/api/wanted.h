/*
 * The reply that a sender wants to its push, in place of `OK`: what a handshake echoes
 * (handshake.h), or what its address asks for (wish.h).
 */
#pragma once

#include "base/buf.h"
#include "http/status.h"

enum { WANTED_TEXT_MAX_BYTES = 1024 };

/*
 * A browser must never take it for a page of ours, whatever its type and text: these lines keep
 * scripts, styles and frames out of it.
 */
#define WANTED_SANDBOX "Content-Security-Policy: sandbox; default-src 'none'\r\n"

struct wanted {
    enum http_status status;
    const char *content_type; /* NULL: no body */
    struct buf lines;         /* header lines, each with its CRLF */
    struct buf text;
};

static inline bool wanted_failed(const struct wanted *wanted) {
    return wanted->lines.failed || wanted->text.failed;
}

static inline void wanted_deinit(struct wanted *wanted) {
    buf_deinit(&wanted->lines);
    buf_deinit(&wanted->text);
}
