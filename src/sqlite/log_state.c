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
        .last_born = found->last_born,
        .checkpoint_seq = meta->checkpoint,
        .channel_max = channel_max,
        .raised_seq = meta->raised_seq,
        .rows = meta->rows + found->rows_after,
    };
    int64_t excess = meta->excess + found->full_after;
    bool is_lower = meta->is_damaged || meta->channel_max > channel_max;
    if (is_lower) /* any row may be past the lower bound: look at all */
        excess += state.rows;
    if (meta->is_damaged || (meta->channel_max && meta->channel_max < channel_max))
        state.raised_seq = state.last_seq;
    *(state.last_seq > meta->checkpoint ? &state.excess.fresh : &state.excess.ready) = excess;
    return state;
}
