/*
 * What a poll asks for: the parameters of its query (docs/protocol.md). Others are ignored, and one
 * without a value counts as absent, but for `epoch`. If one occurs twice the last counts; each
 * `where` is one more condition.
 */
#pragma once

#include "api/feed.h"
#include "base/buf.h"
#include "base/slice.h"
#include "http/status.h"
#include "inbox/store.h"
#include <stdbool.h>
#include <stdint.h>

enum { POLL_MAX_MAX_S = 3600 }; /* what POLL_MAX may be */

struct poll_query {
    int64_t position;  /* `ts` or `since`; 0 if there is neither */
    uint64_t sleep_ms; /* up to POLL_MAX_MAX_S */
    uint64_t epoch;    /* 0: nothing is known of it */
    uint32_t limit;    /* 1 to READ_MAX_UPDATES */
    bool has_position, is_full, has_epoch, confirms_now;
    enum feed feed;   /* FEED_NONE: it is no stream */
    uint8_t name_len; /* of the consumer, `as`; 0: it has none */
    char name[CONSUMER_NAME_MAX_BYTES];
    struct buf where; /* the conditions, as filters_get() takes them */
};

/* Reads a query; poll_query_deinit() it, whatever comes of it. `now_ms` says what `since=10m`
 * counts from. */
enum http_error poll_query_parse(struct poll_query *poll, struct slice query,
                                 int64_t (*now_ms)(void));
void poll_query_deinit(struct poll_query *poll);

/* Reads a ts: a whole number, perhaps with a minus; `21.0` is one too, as some languages print it
 * like that; or `now`. */
bool parse_position(const char *text, int64_t *position);

/* Reads an epoch as a reply gives it. */
uint64_t parse_epoch(struct slice text);

/* Reads the time that `since` names: `90s`, `10m`, `36h` or `7d` before now; seconds since 1970; or
 * an ISO 8601 date, perhaps with a time of day, perhaps with a zone. As milliseconds since 1970. */
bool parse_since(const char *text, int64_t now_ms, int64_t *ms);
