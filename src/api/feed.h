/*
 * Feeds: the text in which a stream gets its answers, as server-sent events or as lines of JSON
 * (docs/protocol.md, "Streams").
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include "inbox/inbox.h"
#include <stdbool.h>
#include <stdint.h>

enum feed { FEED_NONE, FEED_EVENTS, FEED_LINES };

struct page_form;

const char *feed_content_type(enum feed feed);

/* Whether an `Accept` asks for events. */
bool feed_is_accepted(struct slice accept);

/* Reads an id of an event, `41` or `41-5c0f9d3e21b8a764`; without an epoch, that is 0. */
bool feed_parse_id(struct slice id, int64_t *position, uint64_t *epoch);

/* What stands before all answers: where the stream begins, unless the first one says so. Never
 * empty. */
void feed_write_opening(struct buf *out, const struct answer *answer, const struct page_form *form);

/* An answer. Never empty: one without updates is a heartbeat. */
void feed_write(struct buf *out, const struct answer *answer, const struct page_form *form);

void feed_write_heartbeat(struct buf *out, enum feed feed);
