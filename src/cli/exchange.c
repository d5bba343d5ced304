#include "cli/exchange.h"
#include "base/clock.h"
#include "cli/clocks.h"
#include "cli/stop.h"
#include "version.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LOOK_MS = 1000, STOP_MS = 1000 };

struct exchange {
    CURLM *multi;
    CURL *spare; /* between two requests; it remembers sessions of TLS */
    struct exchange_transfer *transfers;
    bool ignores_stop;
    int64_t stopped_ms; /* when it was first seen that the command must end; else 0 */
};

struct exchange_transfer {
    struct exchange *exchange;
    struct exchange_transfer *next;
    CURL *easy;
    struct exchange_request request;
    struct exchange_reply *reply;
    bool is_over;
    curl_off_t sent, received; /* when something last moved */
    bool is_head_whole;        /* curl takes half of one for a reply, when the connection ends */
    size_t head_len;           /* of all heads so far, and of trailers */
    int64_t moved_ms;          /* when that was */
    struct clocks clocks;      /* when it began */
};

/* Gets each line of each head, with those of a proxy and of 100 Continue, and of the trailers, all
 * of which curl keeps: of trailers as many as come. */
static size_t on_head(char *line, size_t size, size_t count, void *context) {
    struct exchange_transfer *transfer = context;
    size_t len = size * count;
    transfer->head_len += len;
    if (transfer->head_len > EXCHANGE_HEAD_MAX_BYTES)
        return 0;
    transfer->is_head_whole = len <= 2 && len && line[len - 1] == '\n';
    return len;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context) {
    struct exchange_transfer *transfer = context;
    struct buf *body = &transfer->reply->body;
    size_t len = size * count, max = transfer->request.reply_max_bytes;
    if (!max)
        return len;
    if (len > max - body->len)
        return 0;
    buf_append(body, bytes, len);
    return body->failed ? 0 : len;
}

static int on_progress(void *context, curl_off_t all_down __attribute__((unused)), curl_off_t down,
                       curl_off_t all_up __attribute__((unused)), curl_off_t up) {
    struct exchange_transfer *transfer = context;
    bool begins = (down && !transfer->received) || (up && !transfer->sent);
    curl_off_t moved = down - transfer->received + up - transfer->sent;
    if (!begins && moved < EXCHANGE_PROGRESS_BYTES)
        return 0;
    if (!transfer->request.limits_all)
        transfer->moved_ms = clock_steady_ms();
    transfer->received = down;
    transfer->sent = up;
    return 0;
}

/* As the curl tool does. */
static void set_authorities(CURL *easy) {
    const char *file = getenv("CURL_CA_BUNDLE"), *directory = getenv("SSL_CERT_DIR");
    if (!file || !*file)
        file = getenv("SSL_CERT_FILE");
    if (file && *file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, file);
    if (directory && *directory)
        curl_easy_setopt(easy, CURLOPT_CAPATH, directory);
}

static void set_body(CURL *easy, const struct exchange_request *request) {
    if (!request->has_body && strcmp(request->method, "GET") == 0) {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        return;
    }
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body.len ? request->body.data : "");
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static void set_up(CURL *easy, struct exchange_transfer *transfer) {
    const struct exchange_request *request = &transfer->request;
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    if (request->target)
        curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, request->target);
    if (request->is_direct)
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
    if (request->takes_gzip)
        curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip");
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* not before a name server has answered */
    curl_easy_setopt(easy, CURLOPT_CERTINFO, request->wants_certificate ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)EXCHANGE_CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->reply->error);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, transfer);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    set_authorities(easy);
    set_body(easy, request);
}

/* Waits for the next event. */
static void wait_for_more(const struct exchange *exchange, int64_t ms) {
    struct pollfd watched[STOP_FDS];
    struct curl_waitfd also[STOP_FDS];
    size_t count = exchange->ignores_stop || exchange->stopped_ms ? 0 : stop_fds(watched);
    for (size_t i = 0; i < count; i++)
        also[i] = (struct curl_waitfd){
            .fd = watched[i].fd,
            .events = (short)(watched[i].events & POLLIN ? CURL_WAIT_POLLIN : 0)};
    curl_multi_poll(exchange->multi, also, (unsigned)count, (int)ms, NULL);
}

static bool is_silent(const struct exchange_transfer *transfer) {
    int64_t limit_ms = transfer->request.limit_ms;
    if (transfer->received && !transfer->request.limits_all && limit_ms > EXCHANGE_PROGRESS_MS)
        limit_ms = EXCHANGE_PROGRESS_MS;
    return clock_steady_ms() - transfer->moved_ms >= limit_ms;
}

static bool read_number(CURL *easy, const char *name, uint64_t *number) {
    struct curl_header *header;
    return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK &&
           slice_number(slice_trim(slice_of(header->value)), INT64_MAX, number);
}

static void read_reply(CURL *easy, struct exchange_reply *reply) {
    long status = 0;
    uint64_t seconds;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    reply->status = (int)status;
    if (read_number(easy, "Retry-After", &seconds))
        reply->retry_after_s = seconds < INT32_MAX ? (int64_t)seconds : INT32_MAX;
    reply->has_total = read_number(easy, "X-Total-Updates", &reply->total);
    reply->has_updates = read_number(easy, "X-Updates", &reply->updates);
    reply->has_duplicate = read_number(easy, "X-Duplicate", &reply->duplicate);
}

/* Days until the first certificate ends; -1 when that is not known. */
static int certificate_days(CURL *easy) {
    struct curl_certinfo *info = NULL;
    struct tm end = {0};
    if (curl_easy_getinfo(easy, CURLINFO_CERTINFO, &info) != CURLE_OK || !info ||
        info->num_of_certs < 1)
        return -1;
    for (struct curl_slist *line = info->certinfo[0]; line; line = line->next)
        if (strncmp(line->data, "Expire date:", 12) == 0 &&
            strptime(line->data + 12, "%b %d %T %Y", &end))
            return (int)((timegm(&end) - clock_wall_ms() / 1000) / 86400);
    return -1;
}

/* What only a few want to know. */
static void read_details(CURL *easy, CURLcode code, struct exchange_reply *reply) {
    curl_off_t name_us = 0, connect_us = 0, all_us = 0;
    char *peer = NULL;
    curl_easy_getinfo(easy, CURLINFO_NAMELOOKUP_TIME_T, &name_us);
    curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connect_us);
    curl_easy_getinfo(easy, CURLINFO_TOTAL_TIME_T, &all_us);
    curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &peer);
    reply->name_ms = name_us / 1000;
    reply->connect_ms = connect_us / 1000;
    reply->all_us = all_us;
    reply->certificate_days = certificate_days(easy);
    reply->is_tls_error = code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR;
    snprintf(reply->peer, sizeof reply->peer, "%s", peer ? peer : "");
}

static void explain(CURLcode code, struct exchange_reply *reply) {
    static const char *const words[] = {
        [EXCHANGE_SILENT] = "nothing comes",
        [EXCHANGE_SLEPT] = "this machine has slept",
        [EXCHANGE_STOPPED] = "stopped",
    };
    const char *text = reply->end == EXCHANGE_NOT_CONNECTED || reply->end == EXCHANGE_CUT
                           ? curl_easy_strerror(code)
                           : words[reply->end];
    if (!*reply->error || text == words[reply->end])
        snprintf(reply->error, sizeof reply->error, "%s", text);
}

/* Completes the reply, with `end` or with what curl's result makes of EXCHANGE_REPLIED. */
static void finish(struct exchange_transfer *transfer, enum exchange_end end, CURLcode code) {
    CURL *easy = transfer->easy;
    struct exchange_reply *reply = transfer->reply;
    curl_off_t sent_us = 0, all_us = 0;
    long status = 0;
    reply->end = end;
    if (transfer->request.wants_certificate)
        read_details(easy, code, reply);
    if (code == CURLE_OK && !transfer->is_head_whole)
        code = CURLE_RECV_ERROR;
    curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
    curl_easy_getinfo(easy, CURLINFO_TOTAL_TIME_T, &all_us);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    reply->has_head = transfer->is_head_whole && status >= 200;
    if (sent_us > 0)
        reply->waited_ms = (all_us > sent_us ? all_us - sent_us : 0) / 1000 + 1;
    if (reply->end == EXCHANGE_REPLIED && code == CURLE_OK) {
        read_reply(easy, reply);
    } else {
        if (reply->end == EXCHANGE_REPLIED || (reply->end == EXCHANGE_SILENT && !reply->waited_ms))
            reply->end = reply->waited_ms ? EXCHANGE_CUT : EXCHANGE_NOT_CONNECTED;
        explain(code, reply);
        if (transfer->head_len > EXCHANGE_HEAD_MAX_BYTES)
            snprintf(reply->error, sizeof reply->error, "the head of the reply is too large");
    }
    curl_multi_remove_handle(transfer->exchange->multi, easy);
    transfer->is_over = true;
}

static void finish_all(struct exchange *exchange, enum exchange_end end, CURLcode code) {
    for (struct exchange_transfer *one = exchange->transfers; one; one = one->next)
        if (!one->is_over)
            finish(one, end, code);
}

/* Ends what curl has an end of. */
static void reap(struct exchange *exchange) {
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(exchange->multi, &left))) {
        struct exchange_transfer *transfer = NULL;
        CURLcode code = message->data.result; /* the message goes with the handle */
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        finish(transfer, EXCHANGE_REPLIED, code);
    }
}

static void stop_all(struct exchange *exchange) {
    int64_t now_ms = clock_steady_ms();
    if (!exchange->stopped_ms)
        exchange->stopped_ms = now_ms;
    bool is_late = now_ms - exchange->stopped_ms >= STOP_MS;
    for (struct exchange_transfer *one = exchange->transfers; one; one = one->next)
        if (!one->is_over && (is_late || !one->request.outlasts_stop))
            finish(one, EXCHANGE_STOPPED, CURLE_OUT_OF_MEMORY);
}

void exchange_ignore_stop(struct exchange *exchange) {
    exchange->ignores_stop = true;
}

void exchange_go_on(struct exchange *exchange, int64_t ms) {
    int running = 0;
    wait_for_more(exchange, ms < LOOK_MS ? ms : LOOK_MS);
    if (curl_multi_perform(exchange->multi, &running) != CURLM_OK)
        finish_all(exchange, EXCHANGE_REPLIED, CURLE_OUT_OF_MEMORY);
    reap(exchange);
    if (!exchange->ignores_stop && stop_is_asked())
        stop_all(exchange);
    for (struct exchange_transfer *one = exchange->transfers; one; one = one->next) {
        if (!one->is_over && one->request.notices_sleep && clocks_have_jumped(&one->clocks))
            finish(one, EXCHANGE_SLEPT, CURLE_OUT_OF_MEMORY);
        if (!one->is_over && is_silent(one))
            finish(one, EXCHANGE_SILENT, CURLE_OUT_OF_MEMORY);
    }
}

bool exchange_is_over(const struct exchange_transfer *transfer) {
    return transfer->is_over;
}

struct exchange_transfer *exchange_start(struct exchange *exchange,
                                         const struct exchange_request *request,
                                         struct exchange_reply *reply) {
    *reply = (struct exchange_reply){.retry_after_s = -1, .certificate_days = -1};
    struct exchange_transfer *transfer = calloc(1, sizeof *transfer);
    CURL *easy = exchange->spare ? exchange->spare : curl_easy_init();
    exchange->spare = NULL;
    if (!transfer || !easy) {
        exchange->spare = easy;
        free(transfer);
        return NULL;
    }
    *transfer = (struct exchange_transfer){
        .exchange = exchange, .easy = easy, .request = *request, .reply = reply};
    set_up(easy, transfer);
    transfer->moved_ms = clock_steady_ms();
    transfer->clocks = clocks_now();
    transfer->next = exchange->transfers;
    exchange->transfers = transfer;
    if (curl_multi_add_handle(exchange->multi, easy) != CURLM_OK)
        finish(transfer, EXCHANGE_REPLIED, CURLE_OUT_OF_MEMORY);
    return transfer;
}

void exchange_drop(struct exchange_transfer *transfer) {
    if (!transfer)
        return;
    struct exchange *exchange = transfer->exchange;
    struct exchange_transfer **at = &exchange->transfers;
    if (!transfer->is_over)
        finish(transfer, EXCHANGE_STOPPED, CURLE_OUT_OF_MEMORY);
    while (*at != transfer)
        at = &(*at)->next;
    *at = transfer->next;
    curl_easy_reset(transfer->easy);
    if (exchange->spare)
        curl_easy_cleanup(transfer->easy);
    else
        exchange->spare = transfer->easy;
    free(transfer);
}

void exchange_run(struct exchange *exchange, const struct exchange_request *request,
                  struct exchange_reply *reply) {
    struct exchange_transfer *transfer = exchange_start(exchange, request, reply);
    if (!transfer) {
        reply->end = EXCHANGE_NOT_CONNECTED;
        explain(CURLE_OUT_OF_MEMORY, reply);
        return;
    }
    while (!transfer->is_over)
        exchange_go_on(exchange, LOOK_MS);
    exchange_drop(transfer);
}

struct exchange *exchange_new(void) {
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return NULL;
    exchange->spare = curl_easy_init();
    exchange->multi = curl_multi_init();
    if (exchange->spare && exchange->multi)
        return exchange;
    exchange_free(exchange);
    return NULL;
}

void exchange_free(struct exchange *exchange) {
    if (!exchange)
        return;
    curl_easy_cleanup(exchange->spare);
    curl_multi_cleanup(exchange->multi);
    free(exchange);
}
