// fsync: how long one small durable write takes on this disk.
#include "bench.h"
#include "modes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BLOCK = 4096,
    OLD_BLOCKS = 1000, // that are written over
};

static void time_fsyncs(const char *name, int file, size_t rounds, bool append) {
    static char block[BLOCK];
    uint64_t *took_ns = allocate(rounds, sizeof *took_ns);
    for (size_t i = 0; i < rounds; i++) {
        memset(block, (int)i, sizeof block);
        uint64_t began_ns = now_ns();
        off_t offset = (off_t)((append ? i : i % OLD_BLOCKS) * sizeof block);
        if (pwrite(file, block, sizeof block, offset) != (ssize_t)sizeof block ||
            fdatasync(file) < 0)
            die("fsync: %s", strerror(errno));
        took_ns[i] = now_ns() - began_ns;
    }
    print_latency(name, took_ns, rounds);
    free(took_ns);
}

// A log that grows, and one that is written over from its start as SQLite's is.
void run_fsync(struct options *options) {
    if (!options->path)
        die("fsync wants --path");
    int file = open(options->path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        die("%s: %s", options->path, strerror(errno));
    static char zeros[OLD_BLOCKS * BLOCK];
    printf("{\"mode\": \"fsync\", \"rounds\": %zu", options->rounds);
    time_fsyncs("append", file, options->rounds, true);
    if (pwrite(file, zeros, sizeof zeros, 0) != (ssize_t)sizeof zeros || fsync(file) < 0)
        die("fsync: %s", strerror(errno));
    time_fsyncs("overwrite", file, options->rounds, false);
    printf("}\n");
    close(file);
    unlink(options->path);
}
