#include "cli/waiting.h"
#include "base/clock.h"
#include "cli/page.h"
#include "cli/stop.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    OPEN_MS = 2000,       /* a stream says where it begins long before */
    HELD_MS = 5000,       /* what has not come by then is held back */
    LATE_MS = 1000,       /* so much later than its push was answered may an update come */
    TRIALS = 3,           /* a busy machine delays an update once, a proxy each time */
    CLIENTS_MS = 25000,   /* how long polls of the clients last */
    HEARTBEAT_MS = 15000, /* how often a stream has one */
    LOOK_MS = 1000,
};

/* --- An update of an open stream -------------------------------------------------------------- */

#define MARK "{\"doctor\":\"stream\"}"
#define BUFFER_ADVICE                                                                              \
    "nginx:   proxy_buffering off; or no proxy_ignore_headers X-Accel-Buffering;\n"                \
    "Caddy:   flush_interval -1\n"                                                                 \
    "HAProxy: no http-response wait-for-body"
#define GZIP_ADVICE                                                                                \
    "nginx:   proxy_buffering off; or gzip_types without text/event-stream;\n"                     \
    "Caddy:   encode with a match that leaves out text/event-stream\n"                             \
    "HAProxy: compression type without text/event-stream"

/* The kinds of streams. Browsers ask for compression, other clients do not. */
enum kind { LINES, EVENTS, BROWSER, KINDS };

struct stream {
    struct question question;
    char query[64];
    int64_t came_ms; /* when the update did; 0: it did not */
    bool is_over;    /* without it */
    bool is_held;    /* it came late, or not at all */
};

/* A push while streams are open. */
struct trial {
    struct stream streams[KINDS];
    struct question push;
    uint64_t ts; /* of the last update before it */
    int64_t began_ms, answered_ms;
};

static bool has_mark(const struct exchange_reply *reply) {
    return reply->body.len && memmem(reply->body.data, reply->body.len, MARK, strlen(MARK));
}

/* Looks what has come; returns how many may still bring the update. */
static int look(struct trial *trial) {
    int open = 0;
    for (int i = 0; i < KINDS; i++) {
        struct stream *stream = &trial->streams[i];
        if (!stream->came_ms && has_mark(&stream->question.reply))
            stream->came_ms = clock_steady_ms();
        stream->is_over = !stream->came_ms && exchange_is_over(stream->question.transfer);
        open += !stream->came_ms && !stream->is_over;
    }
    return open;
}

/* Opens streams, and waits until they have begun, as far as can be seen. */
static void open_streams(struct probe *probe, struct trial *trial) {
    int64_t end_ms = clock_steady_ms() + OPEN_MS, left_ms = OPEN_MS;
    for (int i = 0; i < KINDS; i++) {
        struct stream *stream = &trial->streams[i];
        snprintf(stream->query, sizeof stream->query, "?feed=%s&ts=%" PRIu64,
                 i == LINES ? "lines" : "sse", trial->ts);
        stream->question =
            (struct question){.method = "GET", .query = stream->query, .takes_gzip = i == BROWSER};
        probe_start(probe, &stream->question);
    }
    for (int begun = 0; begun < KINDS && left_ms > 0 && !stop_is_asked();) {
        exchange_go_on(probe->exchange, left_ms);
        begun = 0;
        for (int i = 0; i < KINDS; i++)
            begun += trial->streams[i].question.reply.body.len ||
                     exchange_is_over(trial->streams[i].question.transfer);
        left_ms = end_ms - clock_steady_ms();
    }
}

/* Pushes, and waits until the update is in all streams, or too late. */
static void push(struct probe *probe, struct trial *trial) {
    trial->push = (struct question){.method = "POST", .body = SLICE(MARK)};
    trial->began_ms = clock_steady_ms();
    probe_start(probe, &trial->push);
    while ((look(trial) || !trial->answered_ms) && !stop_is_asked()) {
        int64_t now_ms = clock_steady_ms(), since_ms = trial->answered_ms;
        if (since_ms && now_ms - since_ms >= HELD_MS)
            break;
        exchange_go_on(probe->exchange, since_ms ? since_ms + HELD_MS - now_ms : LOOK_MS);
        if (!since_ms && exchange_is_over(trial->push.transfer))
            trial->answered_ms = clock_steady_ms();
    }
    for (int i = 0; i < KINDS; i++) {
        struct stream *stream = &trial->streams[i];
        stream->is_held = !stream->is_over &&
                          (!stream->came_ms || stream->came_ms > trial->answered_ms + LATE_MS);
        probe_stop(&stream->question);
    }
}

static void tell_over(struct findings *findings, const struct exchange_reply *reply) {
    struct buf text = {0};
    if (reply->end == EXCHANGE_REPLIED && reply->status == 200)
        findings_tell(findings, false, "stream", NULL,
                      "it ends at once: the server knows no streams, or the proxy changes the "
                      "request");
    else
        findings_tell(findings, false, "stream", NULL, "it ends before its update comes: %s",
                      probe_what_came(reply, &text));
    buf_deinit(&text);
}

/* Which of them are held back, in a few words. */
static const char *held_ones(const struct stream streams[KINDS]) {
    if (streams[LINES].is_held)
        return streams[EVENTS].is_held ? "streams" : "feed=lines";
    return streams[EVENTS].is_held ? "feed=sse" : "compressed streams, as browsers ask for";
}

static void tell_held(struct probe *probe, struct findings *findings, const struct trial *trial) {
    const struct stream *held = trial->streams;
    char query[64], late[128];
    while (!held->is_held)
        held++;
    if (held->came_ms)
        snprintf(late, sizeof late, "comes %.1f s after its push",
                 (double)(held->came_ms - trial->began_ms) / 1000);
    else
        snprintf(late, sizeof late, "has not come after %d s%s", HELD_MS / 1000,
                 held->question.reply.has_head ? "" : ", nor the head of the reply");
    snprintf(query, sizeof query, "?ts=%" PRIu64, trial->ts);
    const struct exchange_reply *poll =
        probe_ask(probe, &(struct question){.method = "GET", .query = query});
    bool is_polled = poll->status == 200 && has_mark(poll);
    findings_tell(
        findings, false, "stream", held == &trial->streams[BROWSER] ? GZIP_ADVICE : BUFFER_ADVICE,
        "the proxy buffers %s: an update %s; %s", held_ones(trial->streams), late,
        is_polled ? "a poll sees it at once, and needs no change" : "nor does a poll see it");
}

static void tell_streams(struct probe *probe, struct findings *findings, struct trial *trial) {
    const struct stream *streams = trial->streams;
    struct buf text = {0};
    int64_t slowest_ms = 0;
    bool is_held = false;
    if (trial->push.reply.status != 200) {
        findings_tell(findings, false, "stream", NULL, "no push while one is open: %s",
                      probe_what_came(&trial->push.reply, &text));
        buf_deinit(&text);
        return;
    }
    for (int i = 0; i < KINDS; i++) {
        if (streams[i].is_over) {
            tell_over(findings, &streams[i].question.reply);
            return;
        }
        is_held |= streams[i].is_held;
        if (streams[i].came_ms - trial->began_ms > slowest_ms)
            slowest_ms = streams[i].came_ms - trial->began_ms;
    }
    if (is_held)
        tell_held(probe, findings, trial);
    else
        findings_tell(findings, true, "stream", NULL,
                      "an update comes %" PRId64 " ms after its push began", slowest_ms);
}

/* Whether all updates came, but one of them late. */
static bool is_late(const struct trial *trial) {
    bool is_held = false, has_all = true;
    for (int i = 0; i < KINDS; i++) {
        is_held |= trial->streams[i].is_held;
        has_all &= trial->streams[i].came_ms != 0;
    }
    return is_held && has_all;
}

/* False: it is to be tried again. */
static bool try_streams(struct probe *probe, struct findings *findings, bool is_last) {
    struct trial trial = {0};
    struct page page;
    const struct exchange_reply *now =
        probe_ask(probe, &(struct question){.method = "GET", .query = "?ts=now"});
    if (now->end != EXCHANGE_REPLIED || !page_parse(probe_body(now), &page))
        return true; /* the poll has told why */
    trial.ts = page.ts;
    open_streams(probe, &trial);
    if (!stop_is_asked())
        push(probe, &trial);
    bool is_over = is_last || stop_is_asked() || !is_late(&trial);
    if (is_over && !stop_is_asked())
        tell_streams(probe, findings, &trial);
    for (int i = 0; i < KINDS; i++)
        probe_end(&trial.streams[i].question);
    probe_end(&trial.push);
    return is_over;
}

void waiting_check_streams(struct probe *probe, struct findings *findings) {
    findings_wait(findings, "waiting for an update of a stream");
    for (int i = 1; !try_streams(probe, findings, i == TRIALS);)
        i++;
}

/* --- Silence ---------------------------------------------------------------------------------- */

static void tell_poll(struct findings *findings, const struct exchange_reply *reply) {
    struct page page;
    struct buf text = {0};
    double waited_s = (double)reply->waited_ms / 1000;
    if (reply->status == 200 && page_parse(probe_body(reply), &page))
        findings_tell(findings, true, "idle poll", NULL, "it lasts %.1f s, and is answered",
                      waited_s);
    else
        findings_tell(findings, false, "idle poll",
                      "nginx:   proxy_read_timeout 75s;\n"
                      "HAProxy: timeout server 75s\n"
                      "Caddy:   no response_header_timeout and no read_timeout, or 75s",
                      "cut after %.1f s%s: %s", waited_s,
                      reply->waited_ms > CLIENTS_MS + 1000 ? ", which is enough for polls of 25 s"
                                                           : "",
                      probe_what_came(reply, &text));
    buf_deinit(&text);
}

/* A heartbeat is an empty line. */
static int count_heartbeats(struct slice body) {
    int count = 0;
    for (size_t i = 1; i < body.len; i++)
        count += body.data[i] == '\n' && body.data[i - 1] == '\n';
    return count;
}

static void tell_stream(struct findings *findings, const struct exchange_reply *reply,
                        int64_t idle_ms) {
    struct buf text = {0};
    bool is_cut_by_silence = reply->waited_ms < HEARTBEAT_MS + 1000;
    if (reply->end == EXCHANGE_SILENT)
        findings_tell(findings, true, "idle stream", NULL, "not cut for %.1f s, with %d heartbeats",
                      (double)idle_ms / 1000, count_heartbeats(probe_body(reply)));
    else
        findings_tell(findings, false, "idle stream",
                      is_cut_by_silence ? "nginx:   proxy_read_timeout 75s;\n"
                                          "HAProxy: timeout server 75s\n"
                                          "Caddy:   no read_timeout, or 75s"
                                        : "It has heartbeats; something limits how long a reply "
                                          "may take.\n"
                                          "Caddy:   no timeouts { write ... }, or 16m",
                      "cut after %.1f s%s: %s", (double)reply->waited_ms / 1000,
                      is_cut_by_silence ? "; it has a heartbeat every 15 s" : "",
                      reply->end == EXCHANGE_REPLIED && reply->status == 200
                          ? "a clean end"
                          : probe_what_came(reply, &text));
    buf_deinit(&text);
}

void waiting_check_idle(struct probe *probe, struct findings *findings, int64_t idle_ms) {
    char query[64];
    snprintf(query, sizeof query, "?ts=now&sleep=%" PRId64 ".%03" PRId64, idle_ms / 1000,
             idle_ms % 1000);
    struct question poll = {.method = "GET", .query = query, .limit_ms = idle_ms + PROBE_ANSWER_MS};
    struct question stream = {
        .method = "GET", .query = "?feed=lines&ts=now", .limit_ms = idle_ms, .limits_all = true};
    int64_t began_ms = clock_steady_ms();
    probe_start(probe, &poll);
    probe_start(probe, &stream);
    while (!exchange_is_over(poll.transfer) || !exchange_is_over(stream.transfer)) {
        findings_wait(findings, "waiting for an idle poll and an idle stream: %" PRId64 " s",
                      (clock_steady_ms() - began_ms) / 1000);
        exchange_go_on(probe->exchange, LOOK_MS);
    }
    if (!stop_is_asked()) {
        tell_poll(findings, &poll.reply);
        tell_stream(findings, &stream.reply, idle_ms);
    }
    probe_end(&poll);
    probe_end(&stream);
}
