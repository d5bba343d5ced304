// What other processes cost, out of /proc: CPU time and resident memory, summed over all of a server's.
#ifndef BENCH_PROCESS_H
#define BENCH_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROCESSES_MAX = 64 };

struct processes {
    pid_t pids[PROCESSES_MAX];
    size_t count;
};

struct memory {
    uint64_t rss_bytes;
    uint64_t pss_bytes; // shared pages counted once over all processes
};

// Reads "12,34"; dies on anything else.
void processes_parse(struct processes *processes, const char *text);

// User and system time so far: of all threads of one process, and of all processes.
uint64_t process_cpu_ns(pid_t pid);
uint64_t processes_cpu_ns(const struct processes *processes);

struct memory processes_memory(const struct processes *processes);

#endif
