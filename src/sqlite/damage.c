#include "sqlite/damage.h"
#include "base/log.h"

#include <stdlib.h>

void damage_deinit(struct damage *damage) {
    free(damage->notes);
}

struct damage_note *damage_find(struct damage *damage, int64_t seq) {
    for (size_t i = 0; i < damage->count; i++)
        if (damage->notes[i].seq == seq)
            return &damage->notes[i];
    return NULL;
}

/* For one more note; false when there may be none. */
static bool make_room(struct damage *damage) {
    if (damage->count < damage->capacity)
        return true;
    size_t capacity = damage->capacity ? damage->capacity * 2 : 64;
    if (capacity > DAMAGE_NOTES_MAX)
        return false;
    struct damage_note *notes = realloc(damage->notes, capacity * sizeof *notes);
    if (!notes)
        return false;
    damage->notes = notes;
    damage->capacity = capacity;
    return true;
}

void damage_report(struct damage *damage, struct slice channel, int64_t ts, int64_t seq,
                   int64_t older_seq) {
    struct damage_note *note = damage_find(damage, seq);
    if (note) {
        if (older_seq >= 0)
            note->older_seq = older_seq;
        return;
    }
    damage->updates++;
    if (!make_room(damage))
        return;
    damage->notes[damage->count++] = (struct damage_note){.seq = seq, .older_seq = older_seq};
    log_error("an update is damaged", "channel", log_secret(channel).text, "ts",
              log_number((uint64_t)ts).text, "seq", log_number((uint64_t)seq).text, "meaning",
              "it is left out, and counted as missed; see longline check", NULL);
}
