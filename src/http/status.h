/*
 * The statuses of HTTP (RFC 9110, 15) that longline answers with, and the one table of all errors
 * that a client can see.
 */
#pragma once

/* Every status longline answers with: name, code, reason phrase. */
#define HTTP_STATUSES(X)                                                                           \
    X(HTTP_OK, 200, "OK")                                                                          \
    X(HTTP_CREATED, 201, "Created")                                                                \
    X(HTTP_ACCEPTED, 202, "Accepted")                                                              \
    X(HTTP_NON_AUTHORITATIVE, 203, "Non-Authoritative Information")                                \
    X(HTTP_NO_CONTENT, 204, "No Content")                                                          \
    X(HTTP_RESET_CONTENT, 205, "Reset Content")                                                    \
    X(HTTP_MULTI_STATUS, 207, "Multi-Status")                                                      \
    X(HTTP_ALREADY_REPORTED, 208, "Already Reported")                                              \
    X(HTTP_IM_USED, 226, "IM Used")                                                                \
    X(HTTP_NOT_MODIFIED, 304, "Not Modified")                                                      \
    X(HTTP_BAD_REQUEST, 400, "Bad Request")                                                        \
    X(HTTP_FORBIDDEN, 403, "Forbidden")                                                            \
    X(HTTP_NOT_FOUND, 404, "Not Found")                                                            \
    X(HTTP_METHOD_NOT_ALLOWED, 405, "Method Not Allowed")                                          \
    X(HTTP_REQUEST_TIMEOUT, 408, "Request Timeout")                                                \
    X(HTTP_CONFLICT, 409, "Conflict")                                                              \
    X(HTTP_CONTENT_TOO_LARGE, 413, "Content Too Large")                                            \
    X(HTTP_URI_TOO_LONG, 414, "URI Too Long")                                                      \
    X(HTTP_EXPECTATION_FAILED, 417, "Expectation Failed")                                          \
    X(HTTP_TOO_MANY_REQUESTS, 429, "Too Many Requests")                                            \
    X(HTTP_HEADER_FIELDS_TOO_LARGE, 431, "Request Header Fields Too Large")                        \
    X(HTTP_NOT_IMPLEMENTED, 501, "Not Implemented")                                                \
    X(HTTP_SERVICE_UNAVAILABLE, 503, "Service Unavailable")                                        \
    X(HTTP_VERSION_NOT_SUPPORTED, 505, "HTTP Version Not Supported")

#define HTTP_STATUS_NAME(name, code, reason) name,
enum http_status { HTTP_STATUSES(HTTP_STATUS_NAME) HTTP_STATUS_COUNT };
#undef HTTP_STATUS_NAME

/* Behind them, the status 200 to 299 that only a sender asks for, and that has no phrase here. */
static inline enum http_status http_success(unsigned code) {
    return (enum http_status)(HTTP_STATUS_COUNT + code - 200);
}

int http_status_code(enum http_status status);
const char *http_status_reason(enum http_status status); /* may be empty (RFC 9112, 4) */

/* Every error a client can see: name, status, description. */
#define HTTP_ERRORS(X)                                                                             \
    X(ERROR_MALFORMED_REQUEST, HTTP_BAD_REQUEST, "Malformed HTTP request")                         \
    X(ERROR_HOST, HTTP_BAD_REQUEST, "An HTTP/1.1 request needs exactly one Host header")           \
    X(ERROR_TARGET, HTTP_BAD_REQUEST, "The request target is not a path")                          \
    X(ERROR_CHANNEL_NAME, HTTP_BAD_REQUEST,                                                        \
      "A channel name has 1 to 256 bytes, no control characters and sound percent-encoding")       \
    X(ERROR_TS, HTTP_BAD_REQUEST,                                                                  \
      "ts is the id of the last update seen, -K for the last K, or now")                           \
    X(ERROR_SLEEP, HTTP_BAD_REQUEST, "sleep is a number of seconds: 25, or 2.5")                   \
    X(ERROR_SINCE, HTTP_BAD_REQUEST,                                                               \
      "since is how long ago (90s, 10m, 36h, 7d), an ISO 8601 time, or seconds since 1970")        \
    X(ERROR_SINCE_TS, HTTP_BAD_REQUEST, "since and ts do not go together")                         \
    X(ERROR_WHERE, HTTP_BAD_REQUEST,                                                               \
      "where is FIELD:TEXT, where FIELD is header.NAME, query.NAME, body.A.B, method or path")     \
    X(ERROR_WHERE_SIZE, HTTP_BAD_REQUEST,                                                          \
      "At most 16 where conditions, of 4096 bytes and 64 names and texts between * together")      \
    X(ERROR_AS, HTTP_BAD_REQUEST, "as is a name of 1 to 64 bytes without control characters")      \
    X(ERROR_CONFIRM, HTTP_BAD_REQUEST, "confirm is now, and needs as")                             \
    X(ERROR_FEED, HTTP_BAD_REQUEST, "feed is sse, lines, or absent")                               \
    X(ERROR_EVENT_ID, HTTP_BAD_REQUEST,                                                            \
      "Last-Event-ID is the id of an event of this channel, as it came")                           \
    X(ERROR_MANY_BODY, HTTP_BAD_REQUEST,                                                           \
      "The body is a JSON object of 1 to 64 channels, each with its cursor: a number, now, or "    \
      "an object of ts and epoch")                                                                 \
    X(ERROR_MANY_NAME, HTTP_BAD_REQUEST,                                                           \
      "The body names a channel twice, or by what is no channel's name")                           \
    X(ERROR_MANY_QUERY, HTTP_BAD_REQUEST,                                                          \
      "as, feed, ts and since are for a poll of one channel; the body says where to begin")        \
    X(ERROR_LIMIT, HTTP_BAD_REQUEST, "limit is a whole number from 1")                             \
    X(ERROR_VIEW, HTTP_BAD_REQUEST, "view is full, or absent")                                     \
    X(ERROR_JSON, HTTP_BAD_REQUEST, "Malformed JSON payload: an object or an array is expected")   \
    X(ERROR_JSON_DEPTH, HTTP_BAD_REQUEST, "The JSON payload is nested deeper than 200 levels")     \
    X(ERROR_BATCH_EMPTY, HTTP_BAD_REQUEST, "A batch needs a line of JSON: an object or an array")  \
    X(ERROR_KEY_SENDS, HTTP_FORBIDDEN,                                                             \
      "This address only sends: to read, use the one that begins with v_ or r_")                   \
    X(ERROR_KEY_READS, HTTP_FORBIDDEN,                                                             \
      "This address only reads: to send, use the one that begins with w_ or r_")                   \
    X(ERROR_KEY_DELETE, HTTP_FORBIDDEN,                                                            \
      "This address does not delete: use the one that begins with r_")                             \
    X(ERROR_NOT_FOUND, HTTP_NOT_FOUND, "No such path; channels are at /{channel}")                 \
    X(ERROR_METHOD, HTTP_METHOD_NOT_ALLOWED, "This path does not take this method")                \
    X(ERROR_DELETE, HTTP_BAD_REQUEST, "DELETE takes upto=N, as=NAME, or no query")                 \
    X(ERROR_PURGE, HTTP_FORBIDDEN, "This server does not purge (PURGE=off)")                       \
    X(ERROR_CONSUMERS, HTTP_CONFLICT,                                                              \
      "The channel has 1000 consumers; DELETE /{channel}?as=NAME forgets one")                     \
    X(ERROR_REQUEST_TIMEOUT, HTTP_REQUEST_TIMEOUT, "The request did not arrive in time")           \
    X(ERROR_BODY_SIZE, HTTP_CONTENT_TOO_LARGE, "The body is larger than MAX_BODY")                 \
    X(ERROR_MERGE_SIZE, HTTP_CONTENT_TOO_LARGE,                                                    \
      "The body repeats a member that the query replaces too often")                               \
    X(ERROR_BATCH_COUNT, HTTP_CONTENT_TOO_LARGE, "A batch has at most 10000 updates")              \
    X(ERROR_BATCH_LINE, HTTP_CONTENT_TOO_LARGE, "A line of a batch has at most 1 MiB")             \
    X(ERROR_BATCH_SIZE, HTTP_CONTENT_TOO_LARGE,                                                    \
      "The headers and the query, once for each line, take more than 16 MiB")                      \
    X(ERROR_MANY_SIZE, HTTP_CONTENT_TOO_LARGE,                                                     \
      "The body of a poll of many channels has at most 65536 bytes")                               \
    X(ERROR_TARGET_SIZE, HTTP_URI_TOO_LONG, "The request target is longer than 8192 bytes")        \
    X(ERROR_EXPECT, HTTP_EXPECTATION_FAILED, "The only expectation taken is 100-continue")         \
    X(ERROR_RATE_LIMIT, HTTP_TOO_MANY_REQUESTS, "Too many requests")                               \
    X(ERROR_HEAD_SIZE, HTTP_HEADER_FIELDS_TOO_LARGE,                                               \
      "The request head is larger than 32768 bytes or has more than 128 fields")                   \
    X(ERROR_TRANSFER_ENCODING, HTTP_NOT_IMPLEMENTED,                                               \
      "The only transfer encoding taken is chunked")                                               \
    X(ERROR_STORE, HTTP_SERVICE_UNAVAILABLE, "The store cannot do this now; nothing was stored")   \
    X(ERROR_STORE_AWAY, HTTP_SERVICE_UNAVAILABLE, "Redis cannot be reached; nothing was stored")   \
    X(ERROR_STORE_UNSURE, HTTP_SERVICE_UNAVAILABLE,                                                \
      "Redis did not answer in time; whether this was stored is not known")                        \
    X(ERROR_STORE_NOT_REPLICATED, HTTP_SERVICE_UNAVAILABLE,                                        \
      "Stored, but not replicated: fewer replicas have it than REDIS_WAIT asks for")               \
    X(ERROR_STORE_READ_ONLY, HTTP_SERVICE_UNAVAILABLE,                                             \
      "Redis is a read-only replica; nothing was stored")                                          \
    X(ERROR_STORE_TOO_FEW_REPLICAS, HTTP_SERVICE_UNAVAILABLE,                                      \
      "Redis has too few replicas (min-replicas-to-write); nothing was stored")                    \
    X(ERROR_STORE_LOADING, HTTP_SERVICE_UNAVAILABLE,                                               \
      "Redis is loading its data; nothing was stored")                                             \
    X(ERROR_STORE_OUT_OF_MEMORY, HTTP_SERVICE_UNAVAILABLE,                                         \
      "Redis is out of memory (maxmemory); nothing was stored")                                    \
    X(ERROR_STORE_CLUSTER_DOWN, HTTP_SERVICE_UNAVAILABLE,                                          \
      "The Redis cluster is down; nothing was stored")                                             \
    X(ERROR_STORE_REFUSED, HTTP_SERVICE_UNAVAILABLE, "Redis refuses the user or password")         \
    X(ERROR_STORE_DAMAGED, HTTP_SERVICE_UNAVAILABLE,                                               \
      "The channel's keys in Redis are damaged; nothing was stored")                               \
    X(ERROR_BUSY, HTTP_SERVICE_UNAVAILABLE, "The server has too much under way")                   \
    X(ERROR_VERSION, HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 or HTTP/1.0 is expected")

#define HTTP_ERROR_NAME(name, status, text) name,
enum http_error { HTTP_NO_ERROR, HTTP_ERRORS(HTTP_ERROR_NAME) };
#undef HTTP_ERROR_NAME

enum http_status http_error_status(enum http_error error);
const char *http_error_description(enum http_error error);
