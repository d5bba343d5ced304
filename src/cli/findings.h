/*
 * What doctor finds. Every finding is a topic, whether it is well, and a sentence; where something
 * is not, the lines of configuration that change it follow. A line of JSON each, for programs.
 */
#pragma once

#include "base/buf.h"

#include <stdbool.h>

struct findings {
    bool is_json, has_colours, shows_progress;
    int problems;
    struct buf line;
};

/* Nothing is found yet; findings_deinit() frees it. */
void findings_init(struct findings *findings, bool is_json);
void findings_deinit(struct findings *findings);

/* Tells a finding; `advice` is NULL, or lines. */
__attribute__((format(printf, 5, 6))) void findings_tell(struct findings *findings, bool is_well,
                                                         const char *topic, const char *advice,
                                                         const char *format, ...);

/* Says on a terminal what takes so long, until the next finding or the next such line. */
__attribute__((format(printf, 2, 3))) void findings_wait(struct findings *findings,
                                                         const char *format, ...);
