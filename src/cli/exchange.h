/*
 * HTTP requests and their replies, by libcurl: proxies, TLS and names as curl does. Redirects are
 * not followed: an address is a secret.
 *
 * Nothing lasts for ever here. A request ends when nothing moves for its limit, by the monotonic
 * clock; and, if it wants, as soon as the machine turns out to have slept, by the wall clock and
 * the boot clock: a connection that slept may look alive and be dead.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include "cli/curl.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    EXCHANGE_CONNECT_MS = 10000,
    EXCHANGE_PROGRESS_MS = 15000,        /* what has begun to come must go on, */
    EXCHANGE_PROGRESS_BYTES = 1024,      /* by as much at least */
    EXCHANGE_HEAD_MAX_BYTES = 256 << 10, /* of a reply's head, interim ones and trailers */
};

enum exchange_end {
    EXCHANGE_REPLIED,
    EXCHANGE_NOT_CONNECTED, /* the request was not sent */
    EXCHANGE_CUT,           /* the connection ended without a whole reply */
    EXCHANGE_SILENT,        /* nothing moved for too long */
    EXCHANGE_SLEPT,         /* the machine slept */
    EXCHANGE_STOPPED,       /* the command must end: see stop.h */
};

struct exchange_request {
    const char *method, *url;
    const char *target; /* the request target as it is sent; NULL: that of the URL */
    struct curl_slist *headers;
    struct slice body;
    bool has_body;
    bool is_direct;         /* no proxy, whatever the environment says */
    bool notices_sleep;     /* ends with EXCHANGE_SLEPT */
    bool wants_certificate; /* says how long it is valid */
    bool takes_gzip;        /* as a browser does; the body is the plain bytes */
    bool limits_all;        /* the limit is that of the whole request */
    bool outlasts_stop;     /* has another second when the command must end */
    int64_t limit_ms;       /* until the reply begins, from the last bytes sent on */
    size_t reply_max_bytes; /* 0: the body is not kept */
};

struct exchange_reply {
    enum exchange_end end;
    int status;      /* of EXCHANGE_REPLIED */
    struct buf body; /* grows while it comes */
    bool has_head;
    int64_t waited_ms;     /* how long the server had the request; 0: it never had */
    int64_t retry_after_s; /* -1: none */
    bool has_total, has_updates, has_duplicate;
    uint64_t total, updates, duplicate;  /* X-Total-Updates, X-Updates, X-Duplicate */
    int64_t name_ms, connect_ms, all_us; /* when the name was known, when connected, the end */
    int certificate_days;                /* that are left; -1: not known */
    bool is_tls_error;                   /* there is no connection because of TLS */
    char peer[64];                       /* the address of the other end */
    char error[CURL_ERROR_SIZE];         /* why there is no reply, in a few words */
};

/* A client, which keeps its connections; NULL without memory. */
struct exchange *exchange_new(void);
/* Frees it; its transfers are dropped before. */
void exchange_free(struct exchange *exchange);

/* Asks, and waits for the end. The reply's body is the caller's to free; it is cleared first. */
void exchange_run(struct exchange *exchange, const struct exchange_request *request,
                  struct exchange_reply *reply);

/* A request under way, beside others. */
struct exchange_transfer;

/* Starts one. What the request names, and the reply, must stay until exchange_drop(). NULL without
 * memory. */
struct exchange_transfer *exchange_start(struct exchange *exchange,
                                         const struct exchange_request *request,
                                         struct exchange_reply *reply);

/* From now on it goes on although the command must end: to clear away what it has made. */
void exchange_ignore_stop(struct exchange *exchange);

/* Waits until something comes, for so long at most, and takes it: replies grow, and may end. */
void exchange_go_on(struct exchange *exchange, int64_t ms);

/* Whether the reply is complete: `end` and all behind it. */
bool exchange_is_over(const struct exchange_transfer *transfer);

/* Frees it; one that is not over is given up, with EXCHANGE_STOPPED. NULL is fine. */
void exchange_drop(struct exchange_transfer *transfer);
