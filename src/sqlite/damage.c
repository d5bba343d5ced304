#include "sqlite/damage.h"
#include "base/log.h"

#include <stddef.h>

struct damage_note *damage_find(struct damage *damage, int64_t seq) {
    for (int i = 0; i < damage->count; i++)
        if (damage->notes[i].seq == seq)
            return &damage->notes[i];
    return NULL;
}

void damage_report(struct damage *damage, struct slice channel, int64_t ts, int64_t seq,
                   int64_t older_seq) {
    struct damage_note *note = damage_find(damage, seq);
    if (note) {
        if (older_seq >= 0)
            note->older_seq = older_seq;
        return;
    }
    if (damage->count == DAMAGE_NOTES_MAX)
        return;
    damage->notes[damage->count++] = (struct damage_note){.seq = seq, .older_seq = older_seq};
    damage->updates++;
    log_error("an update is damaged", "channel", log_secret(channel).text, "ts",
              log_number((uint64_t)ts).text, "seq", log_number((uint64_t)seq).text, "meaning",
              "it is left out, and counted as missed; see longline check", NULL);
}
