/*
 * What the server says of itself: GET /-/health, and GET /-/metrics in Prometheus's text format.
 */
#pragma once

#include "http/conn.h"

/* Sets the start of the uptime. */
void report_init(void);

void report_health(struct exchange *exchange);
void report_metrics(struct exchange *exchange);
