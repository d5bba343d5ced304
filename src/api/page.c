#include "api/page.h"
#include "api/coded.h"
#include "api/poll.h"
#include "api/replies.h"
#include "api/stream.h"
#include "base/json.h"
#include "base/utf8.h"
#include "base/worker.h"
#include "http/budget.h"

#include <inttypes.h>
#include <stdlib.h>

/* --- Writing ---------------------------------------------------------------------------------- */

enum { OPENING_MAX_BYTES = 256 }; /* enough for every opening */

static void write_number(struct buf *out, const char *name, uint64_t number) {
    buf_puts(out, name);
    buf_put_number(out, number);
}

void page_write_epoch(struct buf *out, const struct answer *answer) {
    if (answer->epoch)
        buf_printf(out, ",\"epoch\":\"%016" PRIx64 "\"", answer->epoch);
    else if (!answer->total)
        buf_puts(out, ",\"epoch\":\"0\"");
}

/* Writes an answer's members up to its updates. */
static void write_opening(struct buf *out, const struct answer *answer,
                          const struct page_form *form) {
    write_number(out, "\"ts\":", answer->ts);
    if (form->has_epoch)
        page_write_epoch(out, answer);
    if (form->has_lag)
        write_number(out, ",\"lag\":", form->lag);
    if (answer->missed)
        write_number(out, ",\"missed\":", answer->missed);
    if (answer->reset)
        buf_puts(out, ",\"reset\":true");
    if (answer->skipped)
        write_number(out, ",\"skipped\":", answer->skipped);
    buf_puts(out, ",\"updates\":[");
}

static struct reply *write_plain_page(const struct answer *answer, const struct page_form *form,
                                      unsigned flags, struct slice headers) {
    char text[OPENING_MAX_BYTES];
    struct buf opening = {.data = text, .cap = sizeof text, .is_borrowed = true};
    buf_puts(&opening, "{\"ok\":true,");
    write_opening(&opening, answer, form);
    size_t len = opening.len + 2 + (answer->count ? answer->count - 1 : 0);
    for (uint32_t i = 0; i < answer->count; i++)
        len += answer->updates[i]->body_len;
    char *at;
    struct reply *reply = reply_new_uninitialized(HTTP_OK, flags, REPLY_JSON, headers, len, &at);
    if (!reply || !at)
        return reply;
    at = (char *)memcpy(at, text, opening.len) + opening.len;
    for (uint32_t i = 0; i < answer->count; i++) {
        if (i)
            *at++ = ',';
        struct slice body = update_body(answer->updates[i]);
        at = (char *)memcpy(at, body.data, body.len) + body.len;
    }
    memcpy(at, "]}", 2);
    return reply;
}

static void write_known(struct buf *out, const char *name, struct slice value) {
    if (!value.len)
        return;
    buf_puts(out, name);
    json_write_string(out, value);
}

/* The request's body: its plain bytes, and those that came if that is something else. */
static void write_raw(struct buf *out, const struct update *update) {
    struct slice came = update_raw(update), raw = came;
    struct buf plain = {0};
    bool is_coded = coded_undo(update, &plain);
    if (is_coded)
        raw = (struct slice){plain.data, plain.len};
    if (utf8_is_valid(raw)) {
        buf_puts(out, ",\"raw\":");
        json_write_string(out, raw);
    } else {
        buf_puts(out, ",\"raw_base64\":");
        json_write_base64(out, raw);
    }
    if (is_coded) {
        buf_puts(out, ",\"coded_base64\":");
        json_write_base64(out, came);
    }
    out->failed |= plain.failed;
    buf_deinit(&plain);
}

void page_write_request(struct buf *out, const struct update *update) {
    struct slice headers = update_headers(update), body = update_body(update);
    buf_printf(out, ",\"at\":%" PRId64 ",\"method\":", update->at_ms);
    struct origin origin = update_origin(update);
    json_write_string(out, origin.method);
    write_known(out, ",\"path\":", origin.path);
    write_known(out, ",\"from\":", origin.from);
    if (origin.same_as) {
        buf_puts(out, ",\"same_as\":");
        buf_put_number(out, origin.same_as);
    }
    buf_puts(out, ",\"query\":");
    json_write_string(out, update_query(update));
    buf_puts(out, ",\"headers\":");
    if (headers.len)
        buf_append(out, headers.data, headers.len);
    else
        buf_puts(out, "{}");
    buf_puts(out, ",\"body\":");
    buf_append(out, body.data, body.len);
    write_raw(out, update);
}

static void write_full(struct buf *out, const struct update *update) {
    write_number(out, "{\"ts\":", update->ts);
    page_write_request(out, update);
    buf_putc(out, '}');
}

void page_write(struct buf *out, const struct answer *answer, const struct page_form *form) {
    write_opening(out, answer, form);
    for (uint32_t i = 0; i < answer->count; i++) {
        struct slice body = update_body(answer->updates[i]);
        if (i)
            buf_putc(out, ',');
        if (form->is_full)
            write_full(out, answer->updates[i]);
        else
            buf_append(out, body.data, body.len);
    }
    buf_putc(out, ']');
}

static struct reply *write_full_page(const struct answer *answer, const struct page_form *form,
                                     unsigned flags, struct slice headers) {
    struct buf body = {0};
    buf_puts(&body, "{\"ok\":true,");
    page_write(&body, answer, form);
    buf_putc(&body, '}');
    struct reply *reply = NULL;
    if (!body.failed)
        reply = reply_new(HTTP_OK, flags, REPLY_JSON, headers, (struct slice){body.data, body.len});
    buf_deinit(&body);
    return reply;
}

struct reply *page_part(const struct answer *answer, const struct page_form *form, unsigned flags) {
    struct buf body = {0};
    feed_write(&body, answer, form);
    struct reply *part = NULL;
    if (!body.failed)
        part = reply_new_part((struct slice){body.data, body.len}, flags);
    buf_deinit(&body);
    return part;
}

struct reply *page_reply(const struct answer *answer, const struct page_form *form, unsigned flags,
                         struct slice headers) {
    return form->is_full ? write_full_page(answer, form, flags, headers)
                         : write_plain_page(answer, form, flags, headers);
}

/* --- Large pages ------------------------------------------------------------------------------ */

struct large_page {
    struct work work;
    struct list asks;     /* that wait for it, by their polls' links */
    struct answer answer; /* with updates of its own */
    struct page_form form;
    unsigned flags;
    struct lines headers;
    size_t work_bytes;   /* counted in BUFFER_SIZE meanwhile */
    struct reply *reply; /* NULL when memory was out */
};

/* Bytes of the answer's bodies; with view=full, also of what it says besides. */
static size_t answer_size(const struct answer *answer, bool is_full) {
    size_t size = 0;
    for (uint32_t i = 0; i < answer->count; i++)
        size += is_full ? update_size(answer->updates[i]) : answer->updates[i]->body_len;
    return size;
}

bool page_is_large(const struct answer *answer, bool is_full) {
    return answer_size(answer, is_full) > (is_full ? LARGE_PAGE_BYTES : LARGE_PLAIN_PAGE_BYTES);
}

/* work.run: on the worker's thread. */
static void write_page(struct work *work) {
    struct large_page *page = container_of(work, struct large_page, work);
    page->reply = page->form.feed ? page_part(&page->answer, &page->form, page->flags)
                                  : page_reply(&page->answer, &page->form, page->flags,
                                               lines_slice(&page->headers));
}

static void free_page(struct large_page *page) {
    for (uint32_t i = 0; i < page->answer.count; i++)
        update_unref(page->answer.updates[i]);
    free(page->answer.updates);
    if (page->reply)
        reply_unref(page->reply);
    free(page);
}

static void page_written(struct work *work) {
    struct large_page *page = container_of(work, struct large_page, work);
    budget_give(page->work_bytes);
    for (struct list *link; (link = list_shift(&page->asks));) {
        struct ask *ask = container_of(link, struct ask, poll.link);
        struct reply *reply = page->reply ? reply_ref(page->reply) : NULL;
        if (ask->kind == ASK_STREAM_PAGE) {
            stream_page_written(ask_exchange(ask), reply);
            continue;
        }
        ask->kind = ASK_NOTHING;
        poll_reply(ask_exchange(ask), reply, page->answer.count);
    }
    free_page(page);
}

/* Gives the page its own references to the answer's updates. */
static bool take_updates(struct large_page *page, const struct answer *answer) {
    page->answer = *answer;
    page->answer.updates = malloc(answer->count * sizeof(struct update *));
    if (!page->answer.updates) {
        page->answer.count = 0;
        return false;
    }
    for (uint32_t i = 0; i < answer->count; i++)
        page->answer.updates[i] = update_ref(answer->updates[i]);
    return true;
}

struct large_page *large_page_begin(const struct answer *answer, const struct page_form *form,
                                    unsigned flags, const struct lines *headers) {
    /* In the full view a body stands twice, and its raw form may be longer than it is. */
    size_t bytes = (form->is_full ? 3 : 1) * answer_size(answer, form->is_full);
    struct large_page *page = budget_has_for_one(bytes) ? calloc(1, sizeof *page) : NULL;
    if (!page)
        return NULL;
    if (!take_updates(page, answer)) {
        free_page(page);
        return NULL;
    }
    list_init(&page->asks);
    page->work = (struct work){.run = write_page, .done = page_written};
    page->form = *form;
    page->flags = flags;
    page->headers = *headers;
    page->work_bytes = bytes;
    budget_take(bytes);
    worker_submit(&page->work);
    return page;
}

void large_page_await(struct large_page *page, struct exchange *exchange) {
    struct ask *ask = ask_of(exchange);
    ask->kind = ask->kind == ASK_STREAM ? ASK_STREAM_PAGE : ASK_LARGE_PAGE;
    list_append(&page->asks, &ask->poll.link);
}

void large_page_cancel(struct exchange *exchange) {
    struct ask *ask = ask_of(exchange);
    ask->kind = ASK_NOTHING;
    list_remove(&ask->poll.link);
}
