#include "cli/probe.h"
#include "cli/options.h"
#include "cli/page.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum { REPLY_MAX_BYTES = 1 << 20 };

static void fail_memory(void) {
    exit(options_complain(EX_OSERR, "out of memory"));
}

void probe_init(struct probe *probe, const char *url) {
    size_t len = strcspn(url, "?#");
    while (url[len - 1] == '/')
        len--;
    while (url[len - 1] != '/')
        len--;
    *probe = (struct probe){.exchange = exchange_new()};
    buf_append(&probe->server, url, len - 1);
    key_new(probe->key);
    if (!probe->exchange || probe->server.failed)
        fail_memory();
}

void probe_deinit(struct probe *probe) {
    probe_end(&probe->last);
    exchange_free(probe->exchange);
    buf_deinit(&probe->server);
}

void probe_start(struct probe *probe, struct question *question) {
    struct buf *url = &question->url;
    buf_append(url, probe->server.data, probe->server.len);
    if (question->path) {
        buf_puts(url, question->path);
    } else {
        buf_putc(url, '/');
        buf_append(url, probe->key, KEY_BYTES);
    }
    buf_puts(url, question->query ? question->query : "");
    buf_putc(url, '\0');
    question->headers = curl_slist_append(NULL, "Expect:");
    if (!question->headers || url->failed)
        fail_memory();
    struct exchange_request request = {
        .method = question->method,
        .url = url->data,
        .headers = question->headers,
        .body = question->body,
        .has_body = strcmp(question->method, "GET") != 0,
        .wants_certificate = true,
        .limits_all = question->limits_all,
        .outlasts_stop = strcmp(question->method, "POST") == 0, /* or a purge would overtake it */
        .takes_gzip = question->takes_gzip,
        .limit_ms = question->limit_ms ? question->limit_ms : PROBE_ANSWER_MS,
        .reply_max_bytes = REPLY_MAX_BYTES,
    };
    question->transfer = exchange_start(probe->exchange, &request, &question->reply);
    if (!question->transfer)
        fail_memory();
}

void probe_stop(struct question *question) {
    exchange_drop(question->transfer);
    question->transfer = NULL;
}

void probe_end(struct question *question) {
    probe_stop(question);
    curl_slist_free_all(question->headers);
    buf_deinit(&question->url);
    buf_deinit(&question->reply.body);
    question->headers = NULL;
}

const struct exchange_reply *probe_ask(struct probe *probe, const struct question *question) {
    probe_end(&probe->last);
    probe->last = *question;
    probe_start(probe, &probe->last);
    while (!exchange_is_over(probe->last.transfer))
        exchange_go_on(probe->exchange, PROBE_ANSWER_MS);
    return &probe->last.reply;
}

struct slice probe_body(const struct exchange_reply *reply) {
    return (struct slice){reply->body.data, reply->body.len};
}

const char *probe_what_came(const struct exchange_reply *reply, struct buf *text) {
    buf_reset(text, SIZE_MAX);
    if (reply->end != EXCHANGE_REPLIED)
        buf_puts(text, reply->error);
    else if (!page_parse_error(probe_body(reply), reply->status, text))
        buf_printf(text, "status %d, and not from longline", reply->status);
    buf_putc(text, '\0');
    return text->failed ? "" : text->data;
}
