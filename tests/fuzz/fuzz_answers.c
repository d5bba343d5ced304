/*
 * Fuzzes what a server answers to the command line. The input is a line with settings (f:
 * view=full, w: a filter, n: from now on, l: the last ones, s: since, a: as a consumer), and then
 * answers, each behind a `~`: a line with the status, X-Total-Updates and Retry-After (a letter in
 * place of the status is another end), and the body.
 *
 * Whatever is answered: the updates that come are JSON; what is made of a request could be sent as
 * it is; nothing controls the terminal; and a place that is kept can be asked for.
 */
#include "base/json.h"
#include "base/utf8.h"
#include "cli/exchange.h"
#include "cli/feed.h"
#include "cli/link.h"
#include "cli/page.h"
#include "cli/probe.h"
#include "cli/reading.h"
#include "cli/screen.h"
#include "cli/stop.h"
#include "cli/webhook.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>

enum { EVENTS_MAX = 20000, URL_MAX_BYTES = 4096 };

static struct slice answers; /* that are left; without data: none is */
static bool is_stopped;

/* --- Instead of src/cli/exchange.c and stop.c: no byte is sent -------------------------------- */

struct exchange {
    char none;
};

struct exchange *exchange_new(void) {
    return calloc(1, sizeof(struct exchange));
}

void exchange_free(struct exchange *exchange) {
    free(exchange);
}

static const enum exchange_end ends[] = {EXCHANGE_NOT_CONNECTED, EXCHANGE_CUT, EXCHANGE_SILENT,
                                         EXCHANGE_SLEPT};

/* Reads `200 7 30`: the status, the total, and when to come again. */
static void read_head(struct slice line, struct exchange_reply *reply) {
    struct slice word;
    uint64_t number;
    for (int i = 0; slice_cut(&line, ' ', &word); i++) {
        if (i == 0 && word.len && *word.data >= 'a' && *word.data <= 'd')
            reply->end = ends[*word.data - 'a'];
        if (!slice_number(word, INT64_MAX, &number))
            continue;
        if (i == 0)
            reply->status = (int)(number % 1000);
        else if (i == 1)
            reply->total = number, reply->has_total = true;
        else if (i == 2)
            reply->retry_after_s = (int64_t)(number % INT32_MAX);
    }
}

static void check_request(const struct exchange_request *request) {
    size_t len = strlen(request->url);
    assert(len < URL_MAX_BYTES && !slice_has_control(slice_of(request->url)));
    assert(!strchr(request->url, ' ') && !strchr(request->url, '#'));
    const char *ts = strstr(request->url, "ts=");
    assert(!ts || strncmp(ts, "ts=-", 4) == 0 || strncmp(ts, "ts=now", 6) == 0 ||
           strtoull(ts + 3, NULL, 10) <= INT64_MAX);
}

void exchange_run(struct exchange *exchange, const struct exchange_request *request,
                  struct exchange_reply *reply) {
    struct slice answer, head;
    (void)exchange;
    check_request(request);
    *reply = (struct exchange_reply){.retry_after_s = -1, .certificate_days = -1, .waited_ms = 1};
    if (!slice_cut(&answers, '~', &answer)) {
        is_stopped = true;
        reply->end = EXCHANGE_STOPPED;
        return;
    }
    slice_cut(&answer, '\n', &head);
    read_head(head, reply);
    if (answer.len)
        buf_append(&reply->body, answer.data, answer.len);
    if (reply->end != EXCHANGE_REPLIED)
        snprintf(reply->error, sizeof reply->error, "an error");
}

bool stop_is_asked(void) {
    return is_stopped;
}

void stop_sleep(int64_t ms) {
    assert(ms >= 0);
}

void stop_init(bool watches_output) {
    (void)watches_output;
}

size_t stop_fds(struct pollfd fds[STOP_FDS]) {
    (void)fds;
    return 0;
}

/* --- What people see -------------------------------------------------------------------------- */

static void check_shown(struct slice text, bool has_breaks) {
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        unsigned char next = i + 1 < text.len ? (unsigned char)text.data[i + 1] : 0;
        assert((c >= ' ' || (has_breaks && c == '\n')) && c != 0x7f);
        assert(c != 0xc2 || next < 0x80 || next >= 0xa0);
    }
}

static void check_pretty(struct slice json) {
    struct buf out = {0}, line = {0};
    screen_put_pretty(&out, json, false);
    check_shown((struct slice){out.data, out.len}, true);
    screen_put_line(&line, json);
    assert(!memchr(line.data ? line.data : "", '\n', line.len));
    assert(json_check((struct slice){line.data, line.len}) == json_check(json));
    buf_deinit(&out);
    buf_deinit(&line);
}

/* What is said on standard error goes into memory. */
static void check_told(const struct feed_event *event) {
    FILE *real = stderr;
    char *text = NULL;
    size_t len = 0;
    struct buf json = {0};
    stderr = open_memstream(&text, &len);
    assert(stderr);
    reading_tell(event);
    if (event->kind == FEED_REFUSED)
        reading_refused(event);
    fclose(stderr);
    stderr = real;
    check_shown((struct slice){text, len}, true);
    reading_write_json(&json, event);
    assert(!json.len || json_check((struct slice){json.data, json.len}) == JSON_OBJECT);
    buf_deinit(&json);
    free(text);
}

/* --- A webhook -------------------------------------------------------------------------------- */

static void check_target(const struct webhook *webhook) {
    static char url[] = "http://localhost:8080/in?k=1";
    struct link_target target;
    struct buf out = {0};
    assert(!link_parse_target(url, &target));
    assert(link_write_target(&target, (struct slice){webhook->path.data, webhook->path.len},
                             (struct slice){webhook->query.data, webhook->query.len}, &out));
    struct slice text = slice_of(out.data);
    assert(slice_starts_with(text, SLICE("/in")) && !memchr(text.data, ' ', text.len));
    assert(!slice_has_control(text));
    buf_deinit(&out);
    link_target_deinit(&target);
}

static void check_webhook(struct slice item) {
    struct webhook webhook = {0};
    struct buf event = {0};
    const char *name, *value;
    assert(webhook_read(&webhook, item));
    assert(webhook.method.len && strlen(webhook.method.data) == webhook.method.len);
    for (const char *at = webhook.method.data; *at; at++)
        assert(isalnum((unsigned char)*at) || strchr("!#$%&'*+-.^_`|~", *at));
    for (struct slice rest = webhook_headers(&webhook); webhook_next_header(&rest, &name, &value);)
        assert(*name && !strpbrk(name, ":\r\n \t") && !strpbrk(value, "\r\n"));
    webhook_write_event(&webhook, &event);
    assert(strlen(event.data) == event.len);
    check_target(&webhook);
    buf_deinit(&event);
    webhook_deinit(&webhook);
}

/* --- The feed --------------------------------------------------------------------------------- */

static void check_update(const struct feed_event *event, bool is_full) {
    assert(json_check(event->update) != JSON_INVALID && (is_full || !event->item.len));
    check_pretty(event->update);
    if (event->item.len)
        check_webhook(event->item);
}

static void check_event(const struct feed_event *event, const struct feed_options *options) {
    assert(strlen(event->to.epoch) <= FEED_EPOCH_MAX);
    for (const char *at = event->to.epoch; *at; at++)
        assert(isalnum((unsigned char)*at));
    if (event->kind == FEED_UPDATE)
        check_update(event, options->is_full);
    else
        check_told(event);
    if (event->kind == FEED_TROUBLE)
        assert(event->pause_ms >= 0 && event->error);
}

static void follow(const struct feed_options *options) {
    struct feed *feed = feed_new(options);
    struct feed_event event;
    assert(feed);
    int events = 0;
    do {
        feed_next(feed, &event);
        check_event(&event, options);
    } while (event.kind != FEED_STOPPED && event.kind != FEED_REFUSED && ++events < EVENTS_MAX);
    assert(events < EVENTS_MAX);
    feed_free(feed);
}

/* What doctor and send say of a reply. */
static void check_error(struct slice body, int status) {
    struct buf text = {0};
    if (page_parse_error(body, status, &text))
        assert(json_check(body) == JSON_OBJECT &&
               utf8_is_valid((struct slice){text.data ? text.data : "", text.len}));
    buf_deinit(&text);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *error;
    (void)argc, (void)argv;
    if (!curl_load(&error)) { /* for its lists of headers */
        puts(error);
        exit(77); /* to meson: skipped */
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const where[] = {"a:b"};
    struct slice input = {size ? (const char *)data : "", size}, settings = SLICE("");
    slice_cut(&input, '~', &settings);
    bool has_filter = memchr(settings.data, 'w', settings.len);
    struct feed_options options = {
        .url = "http://localhost:3000/c",
        .is_full = memchr(settings.data, 'f', settings.len),
        .where = where,
        .where_count = has_filter,
        .start = memchr(settings.data, 'n', settings.len)   ? FEED_NOW
                 : memchr(settings.data, 'l', settings.len) ? FEED_LAST
                 : memchr(settings.data, 's', settings.len) ? FEED_SINCE
                 : memchr(settings.data, 'a', settings.len) ? FEED_SERVER
                                                            : FEED_BEHIND,
        .place = {.ts = 5, .epoch = "aa"},
        .count = 10,
        .since = "10m",
    };
    if (options.start == FEED_SERVER)
        options.as = "me";
    answers = input;
    is_stopped = false;
    follow(&options);
    if (input.data)
        check_error(input, 400);
    return 0;
}
