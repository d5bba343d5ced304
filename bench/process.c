#include "process.h"

#include "client.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void processes_parse(struct processes *processes, const char *text) {
    processes->count = 0;
    while (*text) {
        char *end;
        long pid = strtol(text, &end, 10);
        if (pid <= 0 || (*end != ',' && *end != '\0'))
            die("--pids wants numbers with commas between them");
        if (processes->count == PROCESSES_MAX)
            die("--pids: too many");
        processes->pids[processes->count++] = (pid_t)pid;
        text = *end ? end + 1 : end;
    }
}

static FILE *open_proc(pid_t pid, const char *name) {
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    FILE *file = fopen(path, "r");
    if (!file)
        die("%s: %s", path, strerror(errno));
    return file;
}

// schedstat counts the same time as utime + stime in stat, but in nanoseconds instead of ticks.
uint64_t process_cpu_ns(pid_t pid) {
    uint64_t sum_ns = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        die("%s: %s", path, strerror(errno));
    for (struct dirent *task; (task = readdir(tasks));) {
        if (task->d_name[0] == '.')
            continue;
        char name[280];
        snprintf(name, sizeof name, "task/%s/schedstat", task->d_name);
        FILE *file = open_proc(pid, name);
        unsigned long long run_ns;
        if (fscanf(file, "%llu", &run_ns) != 1)
            die("/proc/%d/%s: not understood", (int)pid, name);
        fclose(file);
        sum_ns += run_ns;
    }
    closedir(tasks);
    return sum_ns;
}

uint64_t processes_cpu_ns(const struct processes *processes) {
    uint64_t sum_ns = 0;
    for (size_t i = 0; i < processes->count; i++)
        sum_ns += process_cpu_ns(processes->pids[i]);
    return sum_ns;
}

// smaps_rollup is exact; VmRSS in status lags behind by some pages per processor.
struct memory processes_memory(const struct processes *processes) {
    struct memory sum = {0};
    for (size_t i = 0; i < processes->count; i++) {
        FILE *file = open_proc(processes->pids[i], "smaps_rollup");
        char line[256];
        unsigned long long kib;
        while (fgets(line, sizeof line, file)) {
            if (sscanf(line, "Rss: %llu kB", &kib) == 1)
                sum.rss_bytes += kib * 1024;
            else if (sscanf(line, "Pss: %llu kB", &kib) == 1)
                sum.pss_bytes += kib * 1024;
        }
        fclose(file);
    }
    return sum;
}
