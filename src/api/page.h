/*
 * Pages: the JSON in which a poll gets its answer.
 *
 * Writing a large one would hold up the loop, so the worker does it (base/worker.h), one page at a
 * time; polls that woke together share one.
 */
#pragma once

#include "api/feed.h"
#include "api/replies.h"
#include "http/conn.h"
#include "http/reply.h"
#include "inbox/inbox.h"

enum {
    LARGE_PAGE_BYTES = 256 << 10,     /* of bodies, with view=full */
    LARGE_PLAIN_PAGE_BYTES = 2 << 20, /* of bodies, without */
};

/* What a page has besides its updates, and how it has those. */
struct page_form {
    bool is_full, has_epoch, has_lag;
    enum feed feed; /* of a stream; else FEED_NONE */
    uint64_t lag;
};

/* Writes an answer's members: what stands in the JSON between `{"ok":true,` and `}`. */
void page_write(struct buf *out, const struct answer *answer, const struct page_form *form);

/* Writes the reply of an answer; `headers` as in reply_new(). NULL when memory is out. */
struct reply *page_reply(const struct answer *answer, const struct page_form *form, unsigned flags,
                         struct slice headers);

/* The same for a stream: a part of its reply. */
struct reply *page_part(const struct answer *answer, const struct page_form *form, unsigned flags);

/* Writes the member `epoch`, with a comma in front; of a channel with updates whose epoch is not
 * known, nothing. */
void page_write_epoch(struct buf *out, const struct answer *answer);
/* What view=full says of an update behind its ts, with a comma in front. */
void page_write_request(struct buf *out, const struct update *update);

bool page_is_large(const struct answer *answer, bool is_full);

struct large_page;

/* Begins to write a large one. NULL when there is no room for it. */
struct large_page *large_page_begin(const struct answer *answer, const struct page_form *form,
                                    unsigned flags, const struct lines *headers);

/* Replies to the exchange when the page is written: not before this turn ends. */
void large_page_await(struct large_page *page, struct exchange *exchange);

/* The exchange does not wait for its page any more. */
void large_page_cancel(struct exchange *exchange);
