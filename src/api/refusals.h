/*
 * Pushes that were refused. A sender's webhook is lost with them, so each leaves a trace: it is
 * counted by its reason, logged at info without the channel's name, and kept in memory for an hour,
 * for who asks at the channel's address why nothing comes.
 *
 * The log gets LOG_LIMIT_PER_S of them at most; the next line says how many it did not.
 *
 * A channel without refused pushes costs nothing. One that has them keeps the newest
 * REFUSALS_A_CHANNEL of them, and at most REFUSALS_CHANNELS have any. When there is no place for
 * one more, the client that took the most of them loses its oldest: so nobody who makes up names
 * can drive out what is kept for others. A client is an IPv4 address or the /48 network of an IPv6
 * address; those whose hashes are alike count as one.
 */
#pragma once

#include "base/buf.h"
#include "base/pack.h"
#include "base/slice.h"
#include "http/status.h"
#include "inbox/update.h"

enum {
    REFUSALS_A_CHANNEL = 20,
    REFUSALS_CHANNELS = 1000,
    REFUSALS_KEPT_MS = 3600 * 1000,
    REFUSALS_PATH_MAX_BYTES = 128, /* more of a path is cut off */
};

struct refusal {
    struct slice channel; /* its name; empty when it is not known */
    struct origin origin;
    enum http_error error;
    uint64_t line;      /* of a batch, from 1; 0: it is no single line's */
    int64_t body_bytes; /* -1: not known */
};

/* Notes that a push was refused. */
void refusals_note(const struct refusal *refusal);

/* Appends the refused pushes of a channel as a JSON array, newest first. */
void refusals_write_channel(struct buf *out, struct slice channel);

/* Forgets the refused pushes of a channel. */
void refusals_forget_channel(struct slice channel);

/* Writes what is kept, and the counters; goes on with them in another program, whose errors may be
 * others: those that it does not know are left out. */
void refusals_save(struct pack *out);
void refusals_restore(struct unpack *in);

/* Writes the counters, one line for each reason that has occurred: ` name{reason="json"} 3`. */
void refusals_write(struct buf *out, const char *name);
