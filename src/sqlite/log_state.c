#include "sqlite/log_state.h"

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

struct log_state log_state_at_start(const struct log_meta *meta, const struct log_found *found,
                                    int64_t channel_max) {
    /* The newest rows may have been deleted; their seqs and channel ids stay used. */
    struct log_state state = {
        .last_seq = larger(found->last_seq, meta->checkpoint),
        .last_channel_id = larger(found->last_channel_id, meta->last_channel),
        .last_at = found->last_at,
        .rows = meta->rows + found->rows_after,
        .excess.ready = meta->excess + found->full_after,
    };
    state.checkpoint_seq = state.last_seq;
    if (meta->channel_max > channel_max) /* any row may be past the lower bound: look at all */
        state.excess.ready += state.rows;
    return state;
}
