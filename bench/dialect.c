#include "dialect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Both servers get the same headers.
#define HEADERS "Host: 127.0.0.1\r\nUser-Agent: longline-bench\r\nAccept: */*\r\n"

// The number after a text in a reply's body. Dies if the text is not there.
static size_t number_after(const struct reply *reply, const char *text) {
    const char *at = memmem(reply->body, reply->body_size, text, strlen(text));
    if (!at)
        die("no \"%s\" in a reply with status %d", text, reply->status);
    return strtoul(at + strlen(text), NULL, 10);
}

static size_t write_push(char *out, size_t size, const char *path, const char *channel,
                         const char *body) {
    return (size_t)snprintf(out, size,
                            "POST %s%s HTTP/1.1\r\n" HEADERS
                            "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                            path, channel, strlen(body), body);
}

static void expect_200(const struct reply *reply) {
    if (reply->status != 200)
        die("a poll was answered %d: %.*s", reply->status, (int)reply->body_size, reply->body);
}

const char *longline_parameters = "";

static size_t longline_poll(char *out, size_t size, const char *channel,
                            const struct cursor *cursor) {
    return (size_t)snprintf(out, size, "GET /%s?ts=%llu&sleep=60%s HTTP/1.1\r\n" HEADERS "\r\n",
                            channel, (unsigned long long)cursor->ts, longline_parameters);
}

static size_t longline_push(char *out, size_t size, const char *channel, const char *body) {
    return write_push(out, size, "/", channel, body);
}

static size_t longline_status(char *out, size_t size) {
    return (size_t)snprintf(out, size, "GET /-/metrics HTTP/1.1\r\n" HEADERS "\r\n");
}

static bool longline_advance(const struct reply *reply, struct cursor *cursor) {
    expect_200(reply);
    cursor->ts = number_after(reply, "\"ts\":");
    return !memmem(reply->body, reply->body_size, "\"updates\":[]", 12);
}

static size_t longline_parked(const struct reply *reply) {
    return number_after(reply, "\nlongline_polls_parked ");
}

static size_t nchan_poll(char *out, size_t size, const char *channel, const struct cursor *cursor) {
    if (!cursor->last_modified[0])
        return (size_t)snprintf(out, size, "GET /sub?id=%s HTTP/1.1\r\n" HEADERS "\r\n", channel);
    return (size_t)snprintf(out, size,
                            "GET /sub?id=%s HTTP/1.1\r\n" HEADERS
                            "If-Modified-Since: %s\r\nIf-None-Match: %s\r\n\r\n",
                            channel, cursor->last_modified, cursor->etag);
}

static size_t nchan_push(char *out, size_t size, const char *channel, const char *body) {
    return write_push(out, size, "/pub?id=", channel, body);
}

static size_t nchan_status(char *out, size_t size) {
    return (size_t)snprintf(out, size, "GET /status HTTP/1.1\r\n" HEADERS "\r\n");
}

static bool nchan_advance(const struct reply *reply, struct cursor *cursor) {
    if (reply->status == 304 || reply->status == 408)
        return false;
    expect_200(reply);
    if (!reply_header(reply, "Last-Modified", cursor->last_modified,
                      sizeof cursor->last_modified) ||
        !reply_header(reply, "Etag", cursor->etag, sizeof cursor->etag))
        die("an nchan reply without Last-Modified or Etag");
    return true;
}

static size_t nchan_parked(const struct reply *reply) {
    return number_after(reply, "\nsubscribers: ");
}

static const struct dialect dialects[] = {
    {"longline", longline_poll, longline_push, longline_status, longline_advance, longline_parked},
    {"nchan", nchan_poll, nchan_push, nchan_status, nchan_advance, nchan_parked},
};

const struct dialect *dialect_find(const char *name) {
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
        if (!strcmp(dialects[i].name, name))
            return &dialects[i];
    }
    return NULL;
}
