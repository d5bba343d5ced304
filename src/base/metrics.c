#include "base/metrics.h"
#include "inbox/store.h"
#include "version.h"

#include <inttypes.h>
#include <sys/resource.h>
#include <time.h>
#include <uv.h>

struct metrics metrics;

static time_t started_at;
static uint64_t started_ns;

void metrics_init(void) {
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
    write_gauge(out, "longline_store_up", "Whether the store can be reached.", store->up);
    write_counter(out, "longline_store_reconnects_total", "Connections to Redis made anew.",
                  store->reconnects);
    write_gauge(out, "longline_store_watches", "Channels subscribed to in Redis.", store->watches);
}

void metrics_write(struct buf *out, const struct store_stats *store) {
    write_head(out, "longline_build_info", "gauge", "The version.");
    buf_puts(out, "longline_build_info{version=\"" LONGLINE_VERSION "\"} 1\n");
    write_gauge(out, "longline_connections", "Open connections.", metrics.connections);
    write_counter(out, "longline_connections_accepted_total", "Connections accepted.",
                  metrics.connections_accepted);
    write_head(out, "longline_http_requests_total", "counter", "Replies by status.");
    for (int i = 0; i < HTTP_STATUS_COUNT; i++)
        if (metrics.requests[i])
            buf_printf(out, "longline_http_requests_total{status=\"%d\"} %" PRIu64 "\n",
                       http_status_code(i), metrics.requests[i]);
    write_counter(out, "longline_pushes_total", "Updates acknowledged.", metrics.pushes);
    write_counter(out, "longline_push_bytes_total", "Bytes of the updates acknowledged.",
                  metrics.push_bytes);
    write_counter(out, "longline_polls_total", "Polls answered.", metrics.polls);
    write_gauge(out, "longline_polls_parked", "Polls waiting for an update.", metrics.polls_parked);
    write_counter(out, "longline_updates_delivered_total", "Updates sent to consumers.",
                  metrics.updates_delivered);
    write_gauge(out, "longline_channels_resident", "Channels in memory.",
                metrics.channels_resident);
    write_gauge(out, "longline_cache_bytes",
                "Memory of channels and recent updates; see CACHE_SIZE.", metrics.cache_bytes);
    write_gauge(out, "longline_buffer_bytes",
                "Memory of requests and replies under way; see BUFFER_SIZE.", metrics.buffer_bytes);
    write_counter(out, "longline_rate_limited_total", "Requests refused by the rate limit.",
                  metrics.rate_limited);
    write_store(out, store);
    write_process(out);
}
