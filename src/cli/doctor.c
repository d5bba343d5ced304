/*
 * It makes a channel of its own on the server, pushes to it, reads it and purges it; the user's
 * channel is not touched.
 */
#include "cli/doctor.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/findings.h"
#include "cli/link.h"
#include "cli/options.h"
#include "cli/page.h"
#include "cli/probe.h"
#include "cli/stop.h"
#include "cli/waiting.h"
#include "cli/webhook.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

enum {
    ROUND_TRIPS = 5,
    IDLE_MS = 60000,       /* how long an idle poll should last */
    CLOCK_MS = 5000,       /* clocks may differ by so much */
    CERTIFICATE_DAYS = 14, /* less is too little */
    BODY_FIRST_BYTES = 512 << 10,
    BODY_LAST_BYTES = 32 << 20,
};

#define RENEW_ADVICE "Renew it: certbot renew; Caddy does so by itself."
#define ISSUER_ADVICE                                                                              \
    "Serve the whole chain (fullchain.pem). For an authority of your own: SSL_CERT_FILE=FILE"

struct doctor {
    struct probe probe;
    struct findings findings;
    int64_t idle_ms;
    bool is_purged;
};

/* Asks for a path of the server, or for its own channel where that is NULL. */
static const struct exchange_reply *get(struct doctor *doctor, const char *path,
                                        const char *query) {
    return probe_ask(&doctor->probe,
                     &(struct question){.method = "GET", .path = path, .query = query});
}

static const struct exchange_reply *push(struct doctor *doctor, struct slice body) {
    return probe_ask(&doctor->probe, &(struct question){.method = "POST", .body = body});
}

/* Whether a push is stored, and by longline. */
static bool is_stored(const struct exchange_reply *reply) {
    return reply->status == 200 && reply->has_total;
}

/* --- Topics ----------------------------------------------------------------------------------- */

static void tell_certificate(struct doctor *doctor, int days) {
    if (days < 0)
        return;
    findings_tell(&doctor->findings, days >= CERTIFICATE_DAYS, "certificate",
                  days >= CERTIFICATE_DAYS ? NULL : RENEW_ADVICE, "%d days left", days);
}

/* There is no connection. */
static void tell_nothing(struct doctor *doctor, const struct exchange_reply *reply) {
    const char *advice = reply->is_tls_error ? ISSUER_ADVICE : NULL;
    struct buf text = {0};
    if (strstr(reply->error, "expired"))
        advice = RENEW_ADVICE;
    findings_tell(&doctor->findings, false, reply->is_tls_error ? "certificate" : "connection",
                  advice, "%s", probe_what_came(reply, &text));
    buf_deinit(&text);
}

/* Where the proxy does not show /-/health, which is well, a poll tells whether it is longline. */
static bool tell_hidden(struct doctor *doctor) {
    const struct exchange_reply *reply = get(doctor, NULL, "?ts=now");
    struct buf text = {0};
    struct page page;
    bool is_longline = reply->status == 200 && page_parse(probe_body(reply), &page);
    if (is_longline)
        findings_tell(&doctor->findings, true, "server", NULL,
                      "longline, whose /-/health is not shown");
    else
        findings_tell(&doctor->findings, false, "server",
                      "The proxy must pass every path to longline, but for /-/metrics and "
                      "/-/health. URL is https://server/channel, with nothing behind it.",
                      "neither /-/health nor a poll: %s", probe_what_came(reply, &text));
    buf_deinit(&text);
    return is_longline;
}

/* Name, connection, TLS and the server itself; false when nothing more can be found out. */
static bool check_server(struct doctor *doctor) {
    const struct exchange_reply *reply = get(doctor, "/-/health", NULL);
    if (reply->end != EXCHANGE_REPLIED) {
        tell_nothing(doctor, reply);
        return false;
    }
    findings_tell(&doctor->findings, true, "connection", NULL,
                  "%s, name %" PRId64 " ms, connected after %" PRId64 " ms", reply->peer,
                  reply->name_ms, reply->connect_ms);
    tell_certificate(doctor, reply->certificate_days);
    struct slice body = probe_body(reply);
    struct buf status = {0};
    bool is_longline = true;
    if (json_check(body) == JSON_OBJECT && page_member(body, SLICE("version")).len) {
        page_string(page_member(body, SLICE("status")), &status);
        buf_putc(&status, '\0');
        findings_tell(&doctor->findings, reply->status == 200, "server", NULL, "longline, %s",
                      status.failed ? "" : status.data);
    } else {
        is_longline = tell_hidden(doctor);
    }
    buf_deinit(&status);
    return is_longline;
}

/* Pushes a few times; false when pushes do not pass. */
static bool check_round_trip(struct doctor *doctor) {
    int64_t best_us = INT64_MAX;
    struct buf text = {0};
    const struct exchange_reply *reply;
    int count = 0;
    do {
        reply = push(doctor, SLICE("{\"doctor\":true}"));
        if (reply->all_us < best_us)
            best_us = reply->all_us;
    } while (is_stored(reply) && ++count < ROUND_TRIPS);
    if (count == ROUND_TRIPS)
        findings_tell(&doctor->findings, true, "round trip", NULL,
                      "%.1f ms for a push, at best of %d", (double)best_us / 1000, ROUND_TRIPS);
    else
        findings_tell(&doctor->findings, false, "push", NULL, "%s", probe_what_came(reply, &text));
    buf_deinit(&text);
    return count == ROUND_TRIPS;
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
    findings_tell(&doctor->findings, !is_proxy && *from, "address",
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
    struct webhook webhook = {0};
    struct page page;
    struct slice item;
    struct buf text = {0};
    const struct exchange_reply *reply = push(doctor, SLICE("{\"doctor\":true}"));
    int64_t wall_ms = clock_wall_ms(), half_ms = reply->waited_ms / 2;
    reply = get(doctor, NULL, "?ts=-1&view=full");
    if (reply->status != 200 || !page_parse(probe_body(reply), &page) ||
        !json_next_item(&page.updates, &item) || !webhook_read(&webhook, item)) {
        findings_tell(&doctor->findings, false, "poll", NULL, "%s", probe_what_came(reply, &text));
    } else {
        tell_client(doctor, webhook.from.data, reply->peer);
        int64_t ahead_ms = (int64_t)webhook.at - (wall_ms - half_ms);
        bool is_near = llabs(ahead_ms) <= CLOCK_MS;
        findings_tell(&doctor->findings, is_near, "clock",
                      is_near ? NULL
                              : "Let both machines keep the time by NTP: timedatectl set-ntp true",
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
    const struct exchange_reply *reply = &doctor->probe.last.reply;
    bool is_passed = true, is_own;
    while (is_passed && len <= BODY_LAST_BYTES && buf_reserve(&body, len)) {
        memset(body.data, ' ', len);
        memcpy(body.data, "{}", 2);
        findings_wait(&doctor->findings, "sending %.1f MiB", (double)len / (1 << 20));
        reply = push(doctor, (struct slice){body.data, len});
        is_passed = is_stored(reply);
        if (is_passed)
            passed_mib = (double)len / (1 << 20);
        len *= is_passed ? 2 : 1;
    }
    is_own = !is_passed && page_parse_error(probe_body(reply), 413, &text);
    if (is_passed || is_own)
        findings_tell(&doctor->findings, true, "body", NULL, "%.1f MiB pass%s", passed_mib,
                      is_own ? "; more is beyond the server's own MAX_BODY" : "");
    else
        findings_tell(&doctor->findings, false, "body",
                      "nginx: client_max_body_size 32m;\n"
                      "Caddy: request_body { max_size 32MB }\n"
                      "HAProxy has no such limit, unless a rule says so.",
                      "%.1f MiB pass, %.1f MiB do not: %s", passed_mib, (double)len / (1 << 20),
                      probe_what_came(reply, &text));
    buf_deinit(&body);
    buf_deinit(&text);
}

static void check_streams(struct doctor *doctor) {
    waiting_check_streams(&doctor->probe, &doctor->findings);
}

static void check_idle(struct doctor *doctor) {
    waiting_check_idle(&doctor->probe, &doctor->findings, doctor->idle_ms);
}

/* Before the long wait: whoever has seen enough stops it then. And whoever stops it before. */
static void purge(struct doctor *doctor) {
    struct buf text = {0};
    doctor->is_purged = true;
    const struct exchange_reply *reply =
        probe_ask(&doctor->probe, &(struct question){.method = "DELETE"});
    if (reply->status != 200)
        findings_tell(&doctor->findings, true, "traces", NULL,
                      "what was pushed to measure stays until it is too old: %s",
                      probe_what_came(reply, &text));
    buf_deinit(&text);
}

static int examine(struct doctor *doctor) {
    if (!check_server(doctor))
        return stop_is_asked() ? EXIT_FAILURE : EX_UNAVAILABLE;
    if (check_round_trip(doctor)) {
        void (*const checks[])(struct doctor *) = {check_view, check_body, check_streams, purge,
                                                   check_idle};
        for (size_t i = 0; i < sizeof checks / sizeof *checks && !stop_is_asked(); i++)
            checks[i](doctor);
        if (!doctor->is_purged) {
            exchange_ignore_stop(doctor->probe.exchange);
            purge(doctor);
        }
    }
    return doctor->findings.problems || stop_is_asked() ? EXIT_FAILURE : EX_OK;
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
    struct doctor doctor = {.idle_ms = IDLE_MS};
    const char *wrong = options.word_count == 1 ? link_read_channel(options.words[0])
                                                : "usage: longline doctor [OPTION]... URL";
    if (!wrong && options.sleep && !options_seconds(options.sleep, IDLE_MS / 1000, &doctor.idle_ms))
        wrong = "--sleep is a number of seconds up to 60";
    if (wrong)
        return link_complain(wrong);
    stop_init(true);
    probe_init(&doctor.probe, options.words[0]);
    findings_init(&doctor.findings, options.json);
    int code = examine(&doctor);
    findings_deinit(&doctor.findings);
    probe_deinit(&doctor.probe);
    return code;
}
