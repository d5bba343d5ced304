/*
 * Epochs: the lives of the data file, one after the other. A new one begins whenever updates that
 * somebody has read may be gone while their seqs are given again (struct store_read).
 *
 *     epoch(id, name, seq, seal)
 *
 * `name` is random; `seq` is the log's last when the epoch began. The last row is the current
 * epoch, those before it are its lineage. What was read in one of them, up to the seq with which
 * the next began, is still there; what was read behind that is not.
 *
 * What a channel says is a hash of the epoch's name and the channel's id: so a channel that was
 * forgotten and made anew has another one, and neither can be told from it.
 *
 * Where the table is damaged, all of it is forgotten, and a new lineage begins.
 */
#pragma once

#include "sqlite/log_file.h"

enum {
    EPOCHS_MAX = 4096,
    EPOCHS_SAID = 256, /* hashes that are remembered: an append should not cost one */
};

struct epoch {
    int64_t id, name, seq;
};

struct epochs {
    struct log_file *file;
    struct epoch *list; /* `count`, the current one last */
    size_t count;
    struct {
        int64_t channel; /* 0: none */
        uint64_t hash;
    } said[EPOCHS_SAID];
    bool is_unsaved; /* the current one is not in the file yet */
    bool is_damaged; /* the table goes before the current one is saved */
};

/* `file` must stay, and `last_seq` be the log's. `goes_on`: the current epoch does; else a new one
 * begins, which is synced, whatever SYNC says. False on failure; what cannot be written is logged
 * only. */
bool epochs_open(struct epochs *epochs, struct log_file *file, int64_t last_seq, bool goes_on);
void epochs_deinit(struct epochs *epochs);

/* Saves the current epoch in the open transaction, if it is not in the file. False on failure. */
bool epochs_save(struct epochs *epochs);

/* A transaction with epochs_save() was committed. */
static inline void epochs_committed(struct epochs *epochs) {
    epochs->is_unsaved = false;
}

/* The current epoch as `channel` says it, never 0. */
uint64_t epochs_of(struct epochs *epochs, int64_t channel);

/* Whether `seen` is an earlier epoch of `channel`. What was read in it up to `*seq` is still there.
 * Tries all of the lineage. */
bool epochs_find(const struct epochs *epochs, int64_t channel, uint64_t seen, int64_t *seq);
