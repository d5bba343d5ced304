/*
 * It makes a channel of its own on the server, pushes to it, reads it and purges it; the user's
 * channel is not touched. Every finding is a topic, whether it is well, and a sentence; where
 * something is not, the lines of configuration that change it follow.
 */
#include "cli/doctor.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/keys.h"
#include "cli/exchange.h"
#include "cli/link.h"
#include "cli/options.h"
#include "cli/page.h"
#include "cli/screen.h"
#include "cli/stop.h"
#include "cli/webhook.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

enum {
    ANSWER_MS = 30000,
    REPLY_MAX_BYTES = 1 << 20,
    ROUND_TRIPS = 5,
    IDLE_MS = 60000,       /* how long an idle poll should last */
    CLIENTS_MS = 25000,    /* how long those of the clients do */
    CLOCK_MS = 5000,       /* clocks may differ by so much */
    CERTIFICATE_DAYS = 14, /* less is too little */
    BODY_FIRST_BYTES = 512 << 10,
    BODY_LAST_BYTES = 32 << 20,
};

#define RENEW_ADVICE "Renew it: certbot renew; Caddy does so by itself."
#define ISSUER_ADVICE                                                                              \
    "Serve the whole chain (fullchain.pem). For an authority of your own: SSL_CERT_FILE=FILE"

struct doctor {
    struct exchange *exchange;
    struct exchange_reply reply; /* the last one */
    struct buf server;           /* the address of the server, without a slash behind it */
    struct buf url, line;
    char key[KEY_BYTES];
    bool is_json, has_colours;
    int problems;
    int64_t idle_ms;
};

/* --- Findings --------------------------------------------------------------------------------- */

/* Tells a finding; `advice` is NULL, or lines. */
__attribute__((format(printf, 5, 6))) static void tell(struct doctor *doctor, bool is_well,
                                                       const char *topic, const char *advice,
                                                       const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct buf *out = &doctor->line;
    buf_reset(out, SIZE_MAX);
    doctor->problems += !is_well;
    if (doctor->is_json) {
        buf_printf(out, "{\"topic\":\"%s\",\"ok\":%s,\"text\":", topic, is_well ? "true" : "false");
        json_write_string(out, slice_of(text));
        if (advice) {
            buf_puts(out, ",\"advice\":");
            json_write_string(out, slice_of(advice));
        }
        buf_puts(out, "}\n");
        screen_write(stdout, out);
        return;
    }
    if (doctor->has_colours)
        screen_set_colour(out, is_well ? SCREEN_GREEN : SCREEN_RED);
    buf_puts(out, is_well ? "ok   " : "BAD  ");
    if (doctor->has_colours)
        screen_set_colour(out, SCREEN_PLAIN);
    buf_printf(out, "%-12s ", topic);
    screen_put_text(out, slice_of(text));
    buf_putc(out, '\n');
    struct slice rest = slice_of(advice ? advice : ""), line;
    while (advice && slice_cut(&rest, '\n', &line))
        buf_printf(out, "     %-12s %.*s\n", "", (int)line.len, line.data);
    screen_write(stdout, out);
}

/* --- Asking ----------------------------------------------------------------------------------- */

/* Asks for `path` of the server; the reply is there until the next one. */
static void ask(struct doctor *doctor, const char *method, const char *path, struct slice body,
                int64_t limit_ms) {
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    buf_reset(&doctor->url, SIZE_MAX);
    buf_append(&doctor->url, doctor->server.data, doctor->server.len);
    buf_puts(&doctor->url, path);
    buf_putc(&doctor->url, '\0');
    if (!headers || doctor->url.failed)
        exit(options_complain(EX_OSERR, "out of memory"));
    struct exchange_request request = {
        .method = method,
        .url = doctor->url.data,
        .headers = headers,
        .body = body,
        .has_body = strcmp(method, "GET") != 0,
        .wants_certificate = true,
        .limit_ms = limit_ms,
        .reply_max_bytes = REPLY_MAX_BYTES,
    };
    buf_deinit(&doctor->reply.body);
    exchange_run(doctor->exchange, &request, &doctor->reply);
    curl_slist_free_all(headers);
}

static void ask_channel(struct doctor *doctor, const char *method, const char *query,
                        struct slice body, int64_t limit_ms) {
    char path[128];
    snprintf(path, sizeof path, "/%.*s%s", KEY_BYTES, doctor->key, query);
    ask(doctor, method, path, body, limit_ms);
}

static struct slice body_of(const struct doctor *doctor) {
    return (struct slice){doctor->reply.body.data, doctor->reply.body.len};
}

/* What came instead of the reply that was wanted. */
static const char *what_came(struct doctor *doctor, struct buf *text) {
    const struct exchange_reply *reply = &doctor->reply;
    buf_reset(text, SIZE_MAX);
    if (reply->end != EXCHANGE_REPLIED)
        buf_puts(text, reply->error);
    else if (!page_parse_error(body_of(doctor), reply->status, text))
        buf_printf(text, "status %d, and not from longline", reply->status);
    buf_putc(text, '\0');
    return text->failed ? "" : text->data;
}

/* --- Topics ----------------------------------------------------------------------------------- */

static void tell_certificate(struct doctor *doctor) {
    int days = doctor->reply.certificate_days;
    if (days < 0)
        return;
    tell(doctor, days >= CERTIFICATE_DAYS, "certificate",
         days >= CERTIFICATE_DAYS ? NULL : RENEW_ADVICE, "%d days left", days);
}

/* Name, connection, TLS and the server itself; false when nothing more can be found out. */
static bool check_server(struct doctor *doctor) {
    const struct exchange_reply *reply = &doctor->reply;
    struct buf text = {0};
    ask(doctor, "GET", "/-/health", (struct slice){0}, ANSWER_MS);
    if (reply->end != EXCHANGE_REPLIED) {
        const char *advice = reply->is_tls_error ? ISSUER_ADVICE : NULL;
        if (strstr(reply->error, "expired"))
            advice = RENEW_ADVICE;
        tell(doctor, false, reply->is_tls_error ? "certificate" : "connection", advice, "%s",
             what_came(doctor, &text));
        buf_deinit(&text);
        return false;
    }
    tell(doctor, true, "connection", NULL,
         "%s, name %" PRId64 " ms, connected after %" PRId64 " ms", reply->peer, reply->name_ms,
         reply->connect_ms);
    tell_certificate(doctor);
    bool is_longline = json_check(body_of(doctor)) == JSON_OBJECT &&
                       page_member(body_of(doctor), SLICE("version")).len;
    struct buf status = {0};
    if (is_longline)
        page_string(page_member(body_of(doctor), SLICE("status")), &status);
    buf_putc(&status, '\0');
    if (is_longline)
        tell(doctor, reply->status == 200, "server", NULL, "longline, %s", status.data);
    else
        tell(doctor, false, "server",
             "The proxy must pass /-/health, and everything else, to longline.", "/-/health: %s",
             what_came(doctor, &text));
    buf_deinit(&status);
    buf_deinit(&text);
    return true;
}

/* Pushes a few times; false when pushes do not pass. */
static bool check_round_trip(struct doctor *doctor) {
    int64_t best_us = INT64_MAX;
    struct buf text = {0};
    bool is_stored = true;
    for (int i = 0; i < ROUND_TRIPS && is_stored; i++) {
        ask_channel(doctor, "POST", "", SLICE("{\"doctor\":true}"), ANSWER_MS);
        is_stored = doctor->reply.status == 200 && doctor->reply.has_total;
        if (doctor->reply.all_us < best_us)
            best_us = doctor->reply.all_us;
    }
    if (is_stored)
        tell(doctor, true, "round trip", NULL, "%.1f ms for a push, at best of %d",
             (double)best_us / 1000, ROUND_TRIPS);
    else
        tell(doctor, false, "push", NULL, "%s", what_came(doctor, &text));
    buf_deinit(&text);
    return is_stored;
}

static bool is_private(const char *text) {
    static const struct {
        uint32_t network, mask;
    } ranges[] = {{0x7f000000, 0xff000000},
                  {0x0a000000, 0xff000000},
                  {0xac100000, 0xfff00000},
                  {0xc0a80000, 0xffff0000},
                  {0xa9fe0000, 0xffff0000}};
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET6, text, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_LINKLOCAL(&v6) ||
               (v6.s6_addr[0] & 0xfe) == 0xfc;
    if (inet_pton(AF_INET, text, &v4) != 1)
        return true;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if ((ntohl(v4.s_addr) & ranges[i].mask) == ranges[i].network)
            return true;
    return false;
}

static void tell_client(struct doctor *doctor, const char *from, const char *peer) {
    bool is_proxy = is_private(from) && !is_private(peer);
    tell(doctor, !is_proxy && *from, "address",
         is_proxy || !*from
             ? "nginx:   proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
               "HAProxy: option forwardfor\n"
               "Caddy does so by itself. If the proxy's own address is not private, set "
               "TRUST_PROXY."
             : NULL,
         is_proxy ? "the server takes this machine for %s, which is a proxy's address"
                  : "the server takes this machine for %s",
         *from ? from : "nobody");
}

/* What a push of ours looks like to those who read: from whom, and when. */
static void check_view(struct doctor *doctor) {
    char peer[sizeof doctor->reply.peer];
    struct webhook webhook = {0};
    struct page page;
    struct slice item;
    struct buf text = {0};
    ask_channel(doctor, "POST", "", SLICE("{\"doctor\":true}"), ANSWER_MS);
    int64_t wall_ms = clock_wall_ms(), half_ms = doctor->reply.waited_ms / 2;
    ask_channel(doctor, "GET", "?ts=-1&view=full", (struct slice){0}, ANSWER_MS);
    snprintf(peer, sizeof peer, "%s", doctor->reply.peer);
    if (doctor->reply.status != 200 || !page_parse(body_of(doctor), &page) ||
        !json_next_item(&page.updates, &item) || !webhook_read(&webhook, item)) {
        tell(doctor, false, "poll", NULL, "%s", what_came(doctor, &text));
    } else {
        tell_client(doctor, webhook.from.data, peer);
        int64_t ahead_ms = (int64_t)webhook.at - (wall_ms - half_ms);
        bool is_near = llabs(ahead_ms) <= CLOCK_MS;
        tell(doctor, is_near, "clock",
             is_near ? NULL : "Let both machines keep the time by NTP: timedatectl set-ntp true",
             "the server's is %.1f s %s", (double)llabs(ahead_ms) / 1000,
             ahead_ms < 0 ? "behind" : "ahead");
    }
    webhook_deinit(&webhook);
    buf_deinit(&text);
}

static void check_body(struct doctor *doctor) {
    struct buf body = {0}, text = {0};
    double passed_mib = 0;
    size_t len = BODY_FIRST_BYTES;
    bool is_passed = true, is_own = false;
    while (is_passed && len <= BODY_LAST_BYTES && buf_reserve(&body, len)) {
        memset(body.data, ' ', len);
        memcpy(body.data, "{}", 2);
        ask_channel(doctor, "POST", "", (struct slice){body.data, len}, ANSWER_MS);
        is_passed = doctor->reply.status == 200 && doctor->reply.has_total;
        if (is_passed)
            passed_mib = (double)len / (1 << 20);
        len *= is_passed ? 2 : 1;
    }
    is_own = !is_passed && page_parse_error(body_of(doctor), 413, &text);
    if (is_passed || is_own)
        tell(doctor, true, "body", NULL, "%.1f MiB pass%s", passed_mib,
             is_own ? "; more is beyond the server's own MAX_BODY" : "");
    else
        tell(doctor, false, "body",
             "nginx: client_max_body_size 32m;\n"
             "Caddy: request_body { max_size 32MB }\n"
             "HAProxy has no such limit, unless a rule says so.",
             "%.1f MiB pass, %.1f MiB do not: %s", passed_mib, (double)len / (1 << 20),
             what_came(doctor, &text));
    buf_deinit(&body);
    buf_deinit(&text);
}

static void check_idle_poll(struct doctor *doctor) {
    char query[64];
    struct page page;
    struct buf text = {0};
    snprintf(query, sizeof query, "?ts=now&sleep=%" PRId64 ".%03" PRId64, doctor->idle_ms / 1000,
             doctor->idle_ms % 1000);
    ask_channel(doctor, "GET", "?ts=now", (struct slice){0}, ANSWER_MS);
    ask_channel(doctor, "GET", query, (struct slice){0}, doctor->idle_ms + ANSWER_MS);
    double waited_s = (double)doctor->reply.waited_ms / 1000;
    if (doctor->reply.end == EXCHANGE_STOPPED)
        return;
    if (doctor->reply.status == 200 && page_parse(body_of(doctor), &page))
        tell(doctor, true, "idle poll", NULL, "it lasts %.1f s, and is answered", waited_s);
    else
        tell(doctor, false, "idle poll",
             "nginx:   proxy_read_timeout 75s;\n"
             "HAProxy: timeout server 75s\n"
             "Caddy:   no response_header_timeout, or 75s",
             "cut after %.1f s%s: %s", waited_s,
             doctor->reply.waited_ms > CLIENTS_MS + 1000 ? ", which is enough for polls of 25 s"
                                                         : "",
             what_came(doctor, &text));
    buf_deinit(&text);
}

static void purge(struct doctor *doctor) {
    struct buf text = {0};
    ask_channel(doctor, "DELETE", "", (struct slice){0}, ANSWER_MS);
    if (doctor->reply.status != 200)
        tell(doctor, true, "traces", NULL,
             "what was pushed to measure stays until it is too old: %s", what_came(doctor, &text));
    buf_deinit(&text);
}

static int examine(struct doctor *doctor) {
    if (!check_server(doctor))
        return stop_is_asked() ? EX_OK : EX_UNAVAILABLE;
    if (check_round_trip(doctor)) {
        void (*const checks[])(struct doctor *) = {check_view, check_body, check_idle_poll};
        for (size_t i = 0; i < sizeof checks / sizeof *checks && !stop_is_asked(); i++)
            checks[i](doctor);
        if (!stop_is_asked())
            purge(doctor);
    }
    return doctor->problems ? EXIT_FAILURE : EX_OK;
}

/* The address of the server: what stands in front of the channel. */
static void write_server(struct doctor *doctor, const char *url) {
    struct slice rest = {url, strcspn(url, "?#")};
    while (rest.len && rest.data[rest.len - 1] == '/')
        rest.len--;
    while (rest.len && rest.data[rest.len - 1] != '/')
        rest.len--;
    buf_append(&doctor->server, rest.data, rest.len ? rest.len - 1 : 0);
}

int doctor_run(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_DOCTOR, argc, argv, error, sizeof error))
        return options_complain(EX_USAGE, "%s", error);
    if (options.help) {
        options_help(COMMAND_DOCTOR);
        return EX_OK;
    }
    struct doctor doctor = {
        .is_json = options.json, .has_colours = screen_has_colours(stdout), .idle_ms = IDLE_MS};
    const char *wrong = options.word_count == 1 ? link_read_channel(options.words[0])
                                                : "usage: longline doctor [OPTION]... URL";
    if (!wrong && options.sleep && !options_seconds(options.sleep, IDLE_MS / 1000, &doctor.idle_ms))
        wrong = "--sleep is a number of seconds up to 60";
    if (wrong)
        return options_complain(EX_USAGE, "%s", wrong);
    stop_init(true);
    key_new(doctor.key);
    write_server(&doctor, options.words[0]);
    doctor.exchange = exchange_new();
    int code = doctor.exchange ? examine(&doctor) : options_complain(EX_OSERR, "out of memory");
    exchange_free(doctor.exchange);
    buf_deinit(&doctor.reply.body);
    buf_deinit(&doctor.server);
    buf_deinit(&doctor.url);
    buf_deinit(&doctor.line);
    return code;
}
