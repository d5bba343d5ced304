/*
 * What `forward` and `exec` share: every update of a channel is taken to where it belongs, at least
 * once, in order. The place moves on, on disk, when an update is confirmed, and not before; what
 * fails is tried again for ever, with growing pauses.
 */
#pragma once

#include "cli/options.h"
#include "cli/webhook.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum courier_verdict {
    COURIER_CONFIRMED,
    COURIER_REJECTED, /* it will never be taken */
    COURIER_FAILED,
    COURIER_STOPPED,    /* the command must end; whether it was taken is not known */
    COURIER_IMPOSSIBLE, /* no update can be delivered; the exit code is `code` */
};

struct courier_result {
    enum courier_verdict verdict;
    int code;              /* a status or an exit code; -1: none */
    int64_t retry_after_s; /* -1: not told */
    char text[512];        /* what happened, in a few words; "" if the code says it */
};

struct courier {
    const char *name, *code_name; /* the command; what `code` is: "status", "exit" */
    FILE *out;                    /* a line for each attempt goes there */
    struct slice identity;        /* where it delivers to */
    void (*attempt)(void *context, const struct webhook *webhook, struct courier_result *result);
    void *context;
};

/* Runs until it is stopped. Returns the exit code. */
int courier_run(const struct courier *courier, const struct options *options);
