#include "base/loop_memory.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_starting;
static void (*at_start_end)(void);
/* What the next realloc() takes when there is no other memory. */
static void *spare;
static size_t spare_bytes;

static void *checked(void *memory) {
    static const char line[] = "longline: out of memory\n";
    if (memory || !is_starting)
        return memory;
    if (write(STDERR_FILENO, line, sizeof line - 1) < 0) {
        /* Nobody reads it: there is nowhere to say so. */
    }
    if (at_start_end)
        at_start_end();
    _exit(1);
}

static void *loop_malloc(size_t size) {
    return checked(malloc(size));
}

static void *loop_calloc(size_t count, size_t size) {
    return checked(calloc(count, size));
}

static void *take_spare(void *old, size_t size) {
    void *memory = spare;
    size_t old_bytes = malloc_usable_size(old);
    memcpy(memory, old, old_bytes < size ? old_bytes : size);
    free(old);
    spare = NULL;
    spare_bytes = 0;
    return memory;
}

static void *loop_realloc(void *old, size_t size) {
    void *memory = realloc(old, size);
    if (!memory && old && size <= spare_bytes)
        return take_spare(old, size);
    return checked(memory);
}

void loop_memory_init(void (*at_end)(void)) {
    is_starting = true;
    at_start_end = at_end;
    uv_replace_allocator(loop_malloc, loop_realloc, loop_calloc, free);
}

void loop_memory_started(void) {
    is_starting = false;
}

bool loop_memory_reserve(const uv_loop_t *loop, int fd) {
    size_t places = 16, needed = (size_t)fd + 3; /* two are libuv's own */
    if (needed <= loop->nwatchers + 2)
        return true;
    while (places < needed)
        places *= 2;
    if (places * sizeof(void *) <= spare_bytes)
        return true;
    void *larger = malloc(places * sizeof(void *));
    if (!larger)
        return false;
    free(spare);
    spare = larger;
    spare_bytes = places * sizeof(void *);
    return true;
}

bool loop_memory_reserve_next(const uv_loop_t *loop) {
    int fd = dup(STDERR_FILENO); /* the lowest that is free, as the next one will be */
    if (fd >= 0)
        close(fd);
    return fd < 0 || loop_memory_reserve(loop, fd);
}
