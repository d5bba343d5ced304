#include "api/report.h"
#include "api/api.h"
#include "api/refusals.h"
#include "api/replies.h"
#include "base/counters.h"
#include "base/json.h"
#include "base/wheel.h"
#include "http/budget.h"
#include "version.h"

#include <inttypes.h>
#include <sys/resource.h>
#include <time.h>
#include <uv.h>

static time_t started_at;
static uint64_t started_ns;

void report_init(void) {
    started_at = time(NULL);
    started_ns = uv_hrtime();
}

static void write_head(struct buf *out, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_value(struct buf *out, const char *name, const char *type, const char *help,
                        double value) {
    write_head(out, name, type, help);
    buf_printf(out, "%s %.17g\n", name, value);
}

static void write_counter(struct buf *out, const char *name, const char *help, uint64_t value) {
    write_head(out, name, "counter", help);
    buf_printf(out, "%s %" PRIu64 "\n", name, value);
}

static void write_gauge(struct buf *out, const char *name, const char *help, uint64_t value) {
    write_head(out, name, "gauge", help);
    buf_printf(out, "%s %" PRIu64 "\n", name, value);
}

static void write_process(struct buf *out) {
    size_t resident = 0;
    uv_resident_set_memory(&resident);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    write_gauge(out, "process_resident_memory_bytes", "Resident memory.", resident);
    write_value(out, "process_cpu_seconds_total", "counter", "User and system CPU time.", cpu);
    write_gauge(out, "process_start_time_seconds", "Start, since the epoch.", (uint64_t)started_at);
    write_counter(out, "longline_upgrades_total", "Times that the process became another program.",
                  counters.upgrades);
    write_value(out, "longline_uptime_seconds", "gauge", "Time since the start.",
                (double)(uv_hrtime() - started_ns) / 1e9);
}

static void write_store(struct buf *out, const struct store_stats *store) {
    write_counter(out, "longline_store_commits_total", "Transactions committed.", store->commits);
    write_head(out, "longline_store_commit_seconds", "summary",
               "Time of a commit, the sync to disk included.");
    buf_printf(
        out,
        "longline_store_commit_seconds_sum %.9f\nlongline_store_commit_seconds_count %" PRIu64 "\n",
        (double)store->commit_ns / 1e9, store->commits);
    write_counter(out, "longline_store_errors_total", "Transactions and reads that failed.",
                  store->errors);
    write_counter(out, "longline_store_reads_total", "Reads from the store.", store->reads);
    write_gauge(out, "longline_store_updates",
                "Updates stored, those awaiting the sweeper included.", store->updates);
    write_gauge(out, "longline_store_bytes", "Bytes stored.", store->bytes);
    write_counter(out, "longline_store_swept_total", "Updates deleted by retention.", store->swept);
    write_counter(out, "longline_store_damaged_total", "Updates found damaged, and left out.",
                  store->damaged);
    write_gauge(out, "longline_store_up", "Whether the store can be reached.", store->up);
    write_counter(out, "longline_store_reconnects_total", "Connections to Redis made anew.",
                  store->reconnects);
    write_gauge(out, "longline_store_watches", "Channels subscribed to in Redis.", store->watches);
}

static void write_http(struct buf *out) {
    write_gauge(out, "longline_connections", "Open connections.", api.connections->open);
    write_counter(out, "longline_connections_accepted_total", "Connections accepted.",
                  counters.connections_accepted);
    write_counter(out, "longline_accept_failures_total",
                  "Times that no connection could be accepted.", counters.accept_failures);
    write_gauge(out, "longline_buffer_bytes",
                "Memory of requests and replies under way; see BUFFER_SIZE.", budget_used());
    write_counter(out, "longline_rate_limited_total", "Requests refused by the rate limit.",
                  counters.rate_limited);
    write_head(out, "longline_http_requests_total", "counter", "Replies by status.");
    for (int i = 0; i < HTTP_STATUS_COUNT; i++)
        if (counters.replies[i])
            buf_printf(out, "longline_http_requests_total{status=\"%d\"} %" PRIu64 "\n",
                       http_status_code(i), counters.replies[i]);
    if (counters.replies[HTTP_STATUS_COUNT])
        buf_printf(out, "longline_http_requests_total{status=\"2xx\"} %" PRIu64 "\n",
                   counters.replies[HTTP_STATUS_COUNT]);
}

static void write_inbox(struct buf *out) {
    write_counter(out, "longline_pushes_total", "Updates acknowledged.", counters.pushes);
    write_head(out, "longline_pushes_refused_total", "counter", "Pushes refused, by reason.");
    refusals_write(out, "longline_pushes_refused_total");
    write_counter(out, "longline_push_bytes_total", "Bytes of the updates acknowledged.",
                  counters.push_bytes);
    write_counter(out, "longline_purges_total", "Purges of a channel.", counters.purges);
    write_counter(out, "longline_polls_total", "Polls answered.", counters.polls);
    write_gauge(out, "longline_polls_parked", "Polls waiting for an update.",
                counters.polls_parked);
    write_gauge(out, "longline_streams", "Streams that are open.", counters.streams);
    write_counter(out, "longline_streams_cut_total",
                  "Streams closed because their clients were too slow.", counters.streams_cut);
    write_counter(out, "longline_updates_delivered_total", "Updates sent to consumers.",
                  counters.updates_delivered);
    write_counter(out, "longline_filter_looks_total",
                  "Updates looked at to find out whether a filter wants them.",
                  counters.filter_looks);
    write_gauge(out, "longline_channels_resident", "Channels in memory.",
                counters.channels_resident);
    write_gauge(out, "longline_cache_bytes",
                "Memory of channels and recent updates; see CACHE_SIZE.", counters.cache_bytes);
}

static void write_consumers(struct buf *out) {
    struct inbox_lags lags;
    inbox_lags(api.inbox, &lags);
    write_gauge(out, "longline_consumers", "Named consumers in memory.", lags.consumers);
    write_gauge(out, "longline_consumers_behind", "Those that have not confirmed everything.",
                lags.behind);
    write_gauge(out, "longline_consumers_lag", "Updates that they have not confirmed, in all.",
                lags.updates);
    write_gauge(out, "longline_consumers_lag_max", "The same, of the one furthest behind.",
                lags.most);
    write_value(out, "longline_consumers_oldest_unread_seconds", "gauge",
                "Age of the oldest update that one of them has not confirmed; at least so much.",
                (double)lags.oldest_ms / 1e3);
}

void report_metrics(struct exchange *exchange) {
    struct buf body = {0};
    struct store_stats stats;
    store_stats(api.store, &stats);
    write_head(&body, "longline_build_info", "gauge", "The version.");
    buf_puts(&body, "longline_build_info{version=\"" LONGLINE_VERSION "\"} 1\n");
    write_http(&body);
    write_inbox(&body);
    write_consumers(&body);
    write_store(&body, &stats);
    write_process(&body);
    reply_buf(exchange, HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &body);
}

void report_health(struct exchange *exchange) {
    struct buf body = {0};
    struct buf line = {0};
    enum store_error error = store_health(api.store, &line);
    if (error == STORE_AWAY && wheel_now_ms() < api.store_due_ms)
        error = STORE_OK;
    bool is_ok = error == STORE_OK && !api.is_draining;
    const char *status = api.is_draining         ? "draining"
                         : error == STORE_OK     ? "serving"
                         : error == STORE_FAILED ? "store failing"
                                                 : "store away";
    buf_printf(&body, "{\"ok\":%s,\"status\":\"%s\",\"version\":\"%s\",\"provider\":\"%s\"",
               is_ok ? "true" : "false", status, LONGLINE_VERSION, api.provider);
    buf_printf(&body, ",\"keeps\":{\"updates\":%" PRIu64 ",\"seconds\":%" PRIu64 "}",
               api.keep_updates, api.keep_seconds);
    if (line.len) {
        buf_puts(&body, ",\"store\":");
        json_write_string(&body, (struct slice){line.data, line.len});
    }
    buf_putc(&body, '}');
    buf_deinit(&line);
    reply_buf(exchange, is_ok ? HTTP_OK : HTTP_SERVICE_UNAVAILABLE, REPLY_JSON, &body);
}
