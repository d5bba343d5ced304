/* A request read in one piece, for tests that need one. */
#pragma once

#include "http/request.h"
#include "support.h"

struct parsed {
    struct request request;
    char *bytes;
};

/* Reads a whole, good request; parsed_deinit() it. */
static inline void parse_request(struct parsed *parsed, struct slice text) {
    parsed->bytes = malloc(text.len);
    memcpy(parsed->bytes, text.data, text.len);
    request_init(&parsed->request, 1 << 26);
    size_t used;
    enum request_progress progress =
        request_feed(&parsed->request, parsed->bytes, 0, text.len, &used);
    if (progress != REQUEST_COMPLETE || used != text.len)
        fail_msg("not a whole request (%d, %d): %.*s", progress, parsed->request.error,
                 (int)text.len, text.data);
}

static inline void parsed_deinit(struct parsed *parsed) {
    free(parsed->bytes);
}
