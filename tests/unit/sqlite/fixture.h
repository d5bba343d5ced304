/*
 * What the tests of the log share: a log on a file in a temporary directory, with a clock that the
 * test moves. A crash is a copy of the files, taken while the log is open.
 */
#pragma once

#include "support.h"

#include "base/config.h"
#include "sqlite/update_log.h"

enum { HOUR_MS = 3600 * 1000, DAY_MS = 24 * HOUR_MS, SYNCS_KNOWN = 64 };

extern int64_t now_ms;               /* time that passes */
extern int64_t wall_jump_ms;         /* how far the wall clock is ahead of it */
extern char dir[32], path[128];      /* of the log, in a directory of the test's own */
extern struct store_options options; /* used by the next open_log() */
extern struct update_log *the_log;
extern bool is_clean; /* the file is as the last close_log() left it */

/* Fixtures for cmocka: for all tests of a file, and around each of them. */
int set_up_all(void **state);
int set_up(void **state);
int tear_down(void **state);

#define LOG_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

void open_log(void);
void close_log(void);
void reopen(void);
/* As an upgrade does. */
void leave_log(void);
/* As if the process had been killed: goes on with a copy of the files as they are now. */
void crash(void);
/* A copy of the open log's files, in backup_path(); and puts them back: of a closed log, or between
 * a close and an open. */
void keep_backup(void);
void put_backup_back(void);
void restore_backup(void);
const char *backup_path(void);
/* On the closed file. */
void run_sql(const char *sql);

struct store_append *append_new(struct slice channel, struct slice body);
/* One of `count` updates. */
struct store_append *append_new_batch(struct slice channel, uint32_t count);
void append_free(struct store_append *append);

/* Push one update; its ts, 0 when it failed. */
uint64_t push_body(const char *channel, struct slice body);
uint64_t push(const char *channel);

/* Pushes `count` updates in one transaction, at least one; the body of each is the ts that it must
 * get, from `first_ts`. False when they failed. */
bool push_many(const char *channel, uint64_t first_ts, int count);

/* Pushes an update with an id; its append. */
struct store_append *deliver_to(struct slice channel, int id, bool is_once);
/* Its ts, which is the first one's where it was not stored; 0 when it failed. */
uint64_t push_id_to(const char *channel, int id, bool is_once, uint64_t *same_as);

enum store_error try_purge(const char *channel, uint64_t upto, uint64_t *gone);

/* Operations on cursors: made, done and freed; of one name, all of that. False when it failed. */
struct store_cursors *cursors_new(const char *channel, enum cursors_action action, uint32_t count);
void set_cursor(struct store_cursor *cursor, const char *name, uint64_t ts);
bool finish_cursors(struct store_cursors *cursors);
bool do_cursor(enum cursors_action action, const char *channel, const char *name, uint64_t ts);

/* The ts of the name, -1 for none. */
int64_t cursor_of(const char *channel, const char *name);

/* A read that is done. */
struct store_read *read_new(struct slice channel, int64_t position, uint32_t limit);
struct store_read *read_new_seen(struct slice channel, int64_t position, uint32_t limit,
                                 uint64_t seen_epoch);
struct store_read *read_channel(const char *channel, int64_t after_ts);
void read_free(struct store_read *read);

uint64_t total_of(const char *channel);

/* A read gives exactly the updates `first` to `last` (none when last < first), without a gap. */
#define check_read(channel, after, limit, total, first, last)                                      \
    check_read_at(channel, after, limit, total, first, last, __FILE__, __LINE__)
void check_read_at(const char *channel, int64_t after_ts, uint32_t limit, uint64_t total,
                   uint64_t first, uint64_t last, const char *file, int line);

/* Does maintenance until there is none left to do. */
void maintain(void);

/* Enough time and turns for a checkpoint, and for all that the sweeper wants to do after it. */
void settle(void);

struct store_stats stats(void);

/* Calls of fsync() and fdatasync() so far. */
extern int syncs;
/* Of files whose path ends with it they fail; NULL: none does. */
extern const char *failing_sync;
/* Hears of each, before it is done. */
extern void (*on_sync)(const char *path);
/* Whether a file whose path ends with `end` was among them since there were `since`. Only the last
 * SYNCS_KNOWN are known. */
bool was_synced(const char *end, int since);
