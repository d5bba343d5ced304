/*
 * The target gets the request as the service sent it: method, path, query, headers and the exact
 * bytes of the body. What belongs to one connection only stays behind, and so does Host, which says
 * whom the service meant; and Content-Encoding where longline has undone it.
 */
#include "cli/forward.h"
#include "cli/courier.h"
#include "cli/exchange.h"
#include "cli/link.h"

#include <stdio.h>
#include <sysexits.h>

enum { TIMEOUT_MS = 60000, TIMEOUT_MAX_S = 3600 };

struct forward {
    struct exchange *exchange;
    const char *url;
    struct link_target target;
    struct buf request_target, line;
    bool keeps_host;
    int64_t timeout_ms;
};

static bool is_left_out(const struct forward *forward, const char *name) {
    static const char *const names[] = {"connection", "keep-alive",        "te",
                                        "trailer",    "transfer-encoding", "upgrade",
                                        "expect",     "content-length",    "http2-settings"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return strncasecmp(name, "proxy-", 6) == 0 ||
           (strcasecmp(name, "host") == 0 && !forward->keeps_host);
}

static bool add(struct curl_slist **list, const char *line) {
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer;
}

/* What curl would add by itself, it must not. */
static bool add_absent(struct curl_slist **list, const struct webhook *webhook) {
    static const char *const names[] = {"accept", "content-type", "user-agent"};
    bool is_done = add(list, "Expect:");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char line[32];
        snprintf(line, sizeof line, "%s:", names[i]);
        if (!webhook_header(webhook, names[i]))
            is_done &= add(list, line);
    }
    return is_done;
}

/* False without memory. The list is the caller's in any case. */
static bool make_headers(struct forward *forward, const struct webhook *webhook,
                         struct curl_slist **list) {
    const char *name, *value;
    bool is_done = add_absent(list, webhook);
    for (struct slice rest = webhook_headers(webhook); webhook_next_header(&rest, &name, &value);) {
        if (is_left_out(forward, name))
            continue;
        buf_reset(&forward->line, SIZE_MAX);
        if (*value)
            buf_printf(&forward->line, "%s: %s", name, value);
        else
            buf_printf(&forward->line, "%s;", name); /* curl's way to say: empty */
        buf_putc(&forward->line, '\0');
        is_done &= !forward->line.failed && add(list, forward->line.data);
    }
    return is_done;
}

/* The target's path with that below the channel, and both queries. */
static bool write_target(struct forward *forward, const struct webhook *webhook) {
    struct slice path = {webhook->path.data, webhook->path.len};
    struct slice query = {webhook->query.data, webhook->query.len};
    return link_write_target(&forward->target, path, query, &forward->request_target);
}

static void judge(const struct exchange_reply *reply, struct courier_result *result) {
    int status = reply->status;
    if (reply->end == EXCHANGE_STOPPED) {
        result->verdict = COURIER_STOPPED;
        snprintf(result->text, sizeof result->text, "stopped");
        return;
    }
    if (reply->end != EXCHANGE_REPLIED) {
        snprintf(result->text, sizeof result->text, "%s",
                 reply->end == EXCHANGE_SILENT ? "no answer in time" : reply->error);
        return;
    }
    result->code = status;
    if (status / 100 == 2)
        result->verdict = COURIER_CONFIRMED;
    else if (status / 100 == 3 ||
             (status / 100 == 4 && status != 408 && status != 425 && status != 429))
        result->verdict = COURIER_REJECTED;
    else if (status == 429 || status == 503)
        result->retry_after_s = reply->retry_after_s;
}

static void attempt(void *context, const struct webhook *webhook, struct courier_result *result) {
    struct forward *forward = context;
    struct curl_slist *headers = NULL;
    struct exchange_reply reply;
    bool is_made = write_target(forward, webhook) && make_headers(forward, webhook, &headers);
    struct exchange_request request = {
        .method = webhook->method.data,
        .url = forward->url,
        .target = forward->request_target.data,
        .headers = headers,
        .body = {webhook->body.data, webhook->body.len},
        .has_body = webhook->body.len || strcmp(webhook->method.data, "GET") != 0,
        .is_direct = forward->target.is_plain,
        .limits_all = true,
        .limit_ms = forward->timeout_ms,
    };
    if (is_made) {
        exchange_run(forward->exchange, &request, &reply);
        buf_deinit(&reply.body);
        judge(&reply, result);
    } else {
        snprintf(result->text, sizeof result->text, "out of memory");
    }
    curl_slist_free_all(headers);
}

static int run(struct forward *forward, const struct options *options) {
    struct courier courier = {
        .name = "forward",
        .code_name = "status",
        .out = stdout,
        .identity = slice_of(forward->url),
        .attempt = attempt,
        .context = forward,
    };
    const char *wrong = link_parse_target(forward->url, &forward->target);
    if (wrong)
        return link_complain(wrong);
    if (options->timeout && !options_seconds(options->timeout, TIMEOUT_MAX_S, &forward->timeout_ms))
        return options_complain(EX_USAGE, "--timeout is a number of seconds up to 3600");
    forward->exchange = exchange_new();
    return forward->exchange ? courier_run(&courier, options)
                             : options_complain(EX_OSERR, "out of memory");
}

int forward_run(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_FORWARD, argc, argv, error, sizeof error))
        return options_complain(EX_USAGE, "%s", error);
    if (options.help) {
        options_help(COMMAND_FORWARD);
        return EX_OK;
    }
    if (options.word_count != 2)
        return options_complain(EX_USAGE, "usage: longline forward [OPTION]... URL TARGET");
    struct forward forward = {
        .url = options.words[1], .keeps_host = options.keep_host, .timeout_ms = TIMEOUT_MS};
    int code = run(&forward, &options);
    exchange_free(forward.exchange);
    link_target_deinit(&forward.target);
    buf_deinit(&forward.request_target);
    buf_deinit(&forward.line);
    return code;
}
