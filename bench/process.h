// What other processes cost, out of /proc: CPU time and resident memory, summed over all of a server's.
#ifndef BENCH_PROCESS_H
#define BENCH_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct processes {
    pid_t pids[64];
    size_t count;
};

struct memory {
    uint64_t rss_bytes;
    uint64_t pss_bytes; // shared pages counted once over all processes
};

// Reads "12,34"; dies on anything else.
void processes_parse(struct processes *processes, const char *text);

// User and system time of all their threads so far.
uint64_t processes_cpu_ns(const struct processes *processes);

struct memory processes_memory(const struct processes *processes);

#endif
