/*
 * The checkpoint: writes the rows of the channels that have changed, in slices, each within
 * somebody else's transaction.
 *
 * Opening a checkpoint takes all dirty entries. Once their rows are written, `meta` gets the last
 * seq of the time of opening: the rows of `channel` include the log up to there. An entry that
 * changes before its row is written is written as it is then; one that changes later waits for the
 * next checkpoint.
 *
 * Where damage is in the way of a row, no checkpoint is written any more until the next start,
 * which mends it: pushes go on, and what has changed stays in memory and in the log.
 */
#pragma once

#include "sqlite/entries.h"
#include "sqlite/log_state.h"

struct checkpoint {
    struct log_file *file;
    struct entries *entries;
    struct log_state *state;
    bool is_open;
    bool is_stuck;       /* damage is in the way: nothing is written any more */
    struct list writing; /* entries whose rows are still to be written */
    int64_t seq;         /* of the open one */
    int64_t appends;     /* since the last one was opened */
};

/* What a transaction has written of the checkpoint; nothing of it counts before the commit. */
struct checkpoint_slice {
    struct list entries; /* taken from `writing` */
    bool is_last;
};

/* All that is passed in must stay. */
void checkpoint_init(struct checkpoint *checkpoint, struct log_file *file, struct entries *entries,
                     struct log_state *state);

/* Whether the next one should begin, for what has changed since the last. */
bool checkpoint_is_due(const struct checkpoint *checkpoint, int64_t now_ms);

/* Whether there is something to write. */
static inline bool checkpoint_is_under_way(const struct checkpoint *checkpoint) {
    return checkpoint->is_open && !checkpoint->is_stuck;
}

/* None may be open. */
void checkpoint_open(struct checkpoint *checkpoint);

static inline void checkpoint_slice_init(struct checkpoint_slice *slice) {
    list_init(&slice->entries);
    slice->is_last = false;
}

/* Writes up to `max_rows` rows of the open checkpoint within the open transaction. False on
 * failure; either way one of the next two must follow. */
bool checkpoint_write(struct checkpoint *checkpoint, size_t max_rows,
                      struct checkpoint_slice *slice);
void checkpoint_committed(struct checkpoint *checkpoint, struct checkpoint_slice *slice);
void checkpoint_failed(struct checkpoint *checkpoint, struct checkpoint_slice *slice);
