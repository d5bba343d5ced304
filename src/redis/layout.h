/*
 * What stands where in Redis: keys, scripts, and the record that goes beside an update.
 *
 * The layout is lua-long-polling's, so that its data is served as it stands:
 *
 *     {prefix}total:{channel}     the newest ts
 *     {prefix}updates:{channel}   a list of JSON texts; its last item is the update `total`
 *     {prefix}meta:{channel}      a list of records, one for each update that longline wrote
 *     {prefix}news:{channel}      pub/sub: the record and the body of each new update; "purged TS"
 *     {prefix}seen:{channel}      a hash of the ids of deliveries, for a day
 *     {prefix}epoch:{channel}     16 hexadecimal digits; lives and expires with the counter
 *     {prefix}consumers:{channel} a hash of cursors: the consumer's name, "TS USED"
 *
 * In a cluster the channel is the hash tag: `{prefix}total:{` channel `}`, with %, { and } in its
 * name percent-encoded. A database other than 0 has `news@N:`, because pub/sub knows no databases.
 *
 * A record is text, then bytes: "TS AT BODY RAW QUERY HEADERS METHOD\n", numbers all, lengths from
 * the third on (RAW is -1 where the request's body is the same bytes as the update), then raw,
 * query, headers and method.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include "inbox/update.h"
#include "redis/options.h"
#include <stdbool.h>
#include <stdint.h>

enum { REDIS_SLOTS = 16384 };

struct redis_script {
    const char *text;
    char sha[41];
};

/*
 * KEYS: total, updates, meta of each channel. ARGV: CHANNEL_STORAGE_MAXSIZE, milliseconds an update
 * is kept, a hundredth more than that, milliseconds the counter is kept, PUBLISH or SPUBLISH; then,
 * of each channel, news, how many updates, their bodies, and their records without TS and AT.
 * Returns {at, what Redis said against telling of them, what it said against trimming and expiring,
 * and of each channel its new total, or an error}; an error means that nothing of that channel was
 * written. All keys are declared, so that a cluster that is moving them refuses the whole script,
 * never a part of it; news is none of them, because a key that does not exist would be refused too.
 * Nor are the keys that are written with a new counter: its epoch, and the cursors of the one
 * before, which are forgotten. They need no argument either: their names follow from the counter's.
 */
extern struct redis_script redis_script_append;

/*
 * The same for channels of which some update has an id (struct delivery). Of each channel ARGV has
 * news, how many updates, seen, their ids, their bodies, and their records. Ids are one text, 33
 * characters an update: `m`, or `o` if it is to be stored once, and 32 hexadecimal digits; `-` and
 * 32 more for an update without one. The record of an update with an id ends with 20 digits, which
 * become the ts of the first update of that id, or 0. The reply has a list for each channel: its
 * new total, and that ts of each update, negative for one that was not stored.
 *
 * `seen` is no declared key: in a slot that is moving, a key that does not exist would have the
 * push refused. There, ids may not be recognized.
 */
extern struct redis_script redis_script_append_known;

/*
 * KEYS: total, updates, meta. ARGV: the position (a number as in position.h, "now", or "since MS"),
 * the most updates, the most bytes, CHANNEL_STORAGE_MAXSIZE, milliseconds an update is kept; epoch,
 * the epoch that the reader has seen ("" none), and 1 if one is to be made where there is none.
 * Returns {total, gone, the first ts, bodies, records, 1 where a record stands beside every body,
 * the epoch, the position as a ts, 1 where the reader is reset}: both lists have the order of ts,
 * records may have holes where that is 0. The epoch is 16 hexadecimal digits, or "": there is none,
 * or it could not be read or made.
 *
 * `epoch` is no declared key either, or a channel without one could not be read in a slot that is
 * moving. There it may be unknown. A node that a slot is moving to must not be asked to make one:
 * the key that is yet to come would be refused.
 */
extern struct redis_script redis_script_read;

/*
 * KEYS: total, consumers. ARGV: "load", "save" or "forget", milliseconds a cursor is kept,
 * CONSUMERS_MAX; then names; to save, then of each "TS AGE", with the milliseconds since it was
 * used. Returns a list: of load, name, ts and time of use of each cursor; of save, "full" if there
 * was no room for some. (src/redis/cursors.c)
 */
extern struct redis_script redis_script_cursors;

/*
 * KEYS: total, updates, meta. ARGV: the ts up to which updates go, CHANNEL_STORAGE_MAXSIZE, PUBLISH
 * or SPUBLISH, news. Returns {gone, what Redis said against telling of it}. An error means that
 * nothing is gone, or not all: it may be repeated. Then the news says so all the same. The counter
 * and the keys that are not named stay. (src/redis/purges.c)
 */
extern struct redis_script redis_script_purge;

/* Computes the hashes; before anything else. */
void redis_layout_init(void);

enum redis_key {
    REDIS_KEY_TOTAL,
    REDIS_KEY_UPDATES,
    REDIS_KEY_META,
    REDIS_KEY_NEWS,
    REDIS_KEY_SEEN,
    REDIS_KEY_EPOCH,
    REDIS_KEY_CONSUMERS,
    REDIS_KEYS
};

struct redis_layout {
    const char *prefix;
    int64_t db;
    bool is_cluster;
};

/* Appends the name of a key. */
void redis_layout_key(const struct redis_layout *layout, struct buf *out, enum redis_key key,
                      struct slice channel);

/* The channel of a news channel's name, decoded into `out`, which has room for name.len bytes.
 * False: it is none. */
bool redis_layout_channel(const struct redis_layout *layout, struct slice name, char *out,
                          size_t *len);

/* The cluster's slot of a channel. (A hash tag in the prefix puts all channels into one.) */
unsigned redis_layout_slot(const struct redis_layout *layout, struct slice channel);

/* Appends the record of `update` without TS and AT. */
void redis_record_write(struct buf *out, const struct update *update);

struct redis_record {
    uint64_t ts;
    int64_t at_ms;
    size_t body_len;
    struct update_parts parts; /* without the body */
    struct slice rest;         /* what follows: of news, the body */
};

/* False for what is no record. The slices point into `text`. */
bool redis_record_parse(struct slice text, struct redis_record *record);

enum redis_item { REDIS_ITEM_WHOLE, REDIS_ITEM_BARE, REDIS_ITEM_DAMAGED };

/*
 * Judges what stands in the lists for one update: its text and its record, which is parsed; NULL:
 * it has none. Without a record, or with that of another text, it is bare. A consumer must be able
 * to read whatever is not damaged: its texts are JSON. Pure.
 */
enum redis_item redis_item_judge(struct slice body, const struct slice *text, uint64_t ts,
                                 struct redis_record *record);

/* The ts at the head of a record; 0 for what has none. */
uint64_t redis_record_ts(struct slice text);

/* The update with this record and body; without a record (NULL) it is lua-long-polling's. NULL when
 * memory is out. */
struct update *redis_record_update(const struct redis_record *record, struct slice body,
                                   uint64_t ts);
