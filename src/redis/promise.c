#include "redis/promise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of `name:value` on a line of its own; empty when there is none. */
static struct slice field(struct slice info, const char *name) {
    size_t len = strlen(name);
    while (info.len) {
        const char *end = memchr(info.data, '\n', info.len);
        size_t line = end ? (size_t)(end - info.data) : info.len;
        if (line > len && memcmp(info.data, name, len) == 0 && info.data[len] == ':') {
            size_t value = line - len - 1;
            if (value && info.data[line - 1] == '\r')
                value--;
            return (struct slice){info.data + len + 1, value};
        }
        size_t used = end ? line + 1 : line;
        info = (struct slice){info.data + used, info.len - used};
    }
    return (struct slice){"", 0};
}

static void copy(char *out, size_t size, struct slice text) {
    snprintf(out, size, "%.*s", (int)text.len, text.data);
}

static bool is_zero(struct slice number) {
    return !number.len || slice_equal(number, SLICE("0"));
}

void redis_promise_read_info(struct redis_promise *promise, struct slice info) {
    promise->is_known = true;
    promise->appendonly = slice_equal(field(info, "aof_enabled"), SLICE("1"));
    char number[24];
    copy(number, sizeof number, field(info, "connected_slaves"));
    promise->replicas = atoi(number);
    promise->is_cluster = slice_equal(field(info, "cluster_enabled"), SLICE("1"));
    copy(number, sizeof number, field(info, "evicted_keys"));
    promise->evicted_keys = strtoull(number, NULL, 10);
    copy(number, sizeof number, field(info, "server_time_usec"));
    promise->clock_ms = strtoll(number, NULL, 10) / 1000;
    copy(promise->version, sizeof promise->version, field(info, "redis_version"));
    copy(promise->policy, sizeof promise->policy, field(info, "maxmemory_policy"));
    promise->evicts =
        !is_zero(field(info, "maxmemory")) && strcmp(promise->policy, "noeviction") != 0;
}

void redis_promise_read_config(struct redis_promise *promise, const redisReply *reply) {
    *promise->appendfsync = '\0';
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[1]->type == REDIS_REPLY_STRING)
        copy(promise->appendfsync, sizeof promise->appendfsync,
             (struct slice){reply->element[1]->str, reply->element[1]->len});
}

static const char eviction[] =
    "maxmemory-policy evicts: when memory is short, Redis deletes updates and counters";

void redis_promise_write(const struct redis_promise *promise, struct buf *line) {
    buf_printf(line, "redis %s: appendonly %s, ", promise->version,
               promise->appendonly ? "yes" : "no");
    if (promise->appendonly)
        buf_printf(line, "appendfsync %s, ",
                   *promise->appendfsync ? promise->appendfsync : "not known");
    buf_printf(line, "%d replica%s, maxmemory-policy %s", promise->replicas,
               promise->replicas == 1 ? "" : "s", promise->policy);
    const char *risk = redis_promise_risk(promise);
    if (risk && risk != eviction)
        buf_printf(line, "; %s", risk);
    if (promise->evicts)
        buf_printf(line, "; warning: %s", eviction);
}

const char *redis_promise_risk(const struct redis_promise *promise) {
    if (!promise->appendonly)
        return "appendonly is off: when Redis crashes, acknowledged updates are lost";
    if (!*promise->appendfsync)
        return "appendfsync may not be read: what a crash of Redis loses is not known";
    if (strcmp(promise->appendfsync, "everysec") == 0)
        return "appendfsync is everysec: when Redis crashes, acknowledged updates of about a "
               "second are lost";
    if (strcmp(promise->appendfsync, "always") != 0)
        return "appendfsync is no: when its machine crashes, acknowledged updates are lost";
    if (promise->evicts)
        return eviction;
    return NULL;
}
