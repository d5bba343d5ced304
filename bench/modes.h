// The modes of the load client: each measures one thing and prints it as one line of JSON.
//
// A new mode is a file with its function, declared here, and a row of the table in polls.c. It may
// change the options that are its own to decide, such as the number of channels.
#ifndef BENCH_MODES_H
#define BENCH_MODES_H

#include "options.h"

void run_spread(struct options *options);
void run_fanout(struct options *options);
void run_streams(struct options *options);
void run_park(struct options *options);
void run_write(struct options *options);
void run_fsync(struct options *options);
void run_pipeline(struct options *options);
void run_expire(struct options *options);
void run_upgrade(struct options *options);

#endif
