// What other processes cost, according to /proc: CPU time and resident memory.
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
    uint64_t pss_bytes; // a page that several share counts once
};

// Reads "12,34"; dies on anything else.
void processes_parse(struct processes *processes, const char *text);

// User and system time so far, of all threads.
uint64_t process_cpu_ns(pid_t pid);
uint64_t processes_cpu_ns(const struct processes *processes);

struct memory processes_memory(const struct processes *processes);

#endif
