/*
 * What a proxy does to requests that wait: whether it holds back what an open stream brings, and
 * where it cuts a poll or a stream to which nothing comes.
 */
#pragma once

#include "cli/findings.h"
#include "cli/probe.h"

#include <stdint.h>

/* Pushes while streams are open, and measures when the update comes. */
void waiting_check_streams(struct probe *probe, struct findings *findings);

/* Waits for so long, for a poll and a stream at the same time. */
void waiting_check_idle(struct probe *probe, struct findings *findings, int64_t idle_ms);
