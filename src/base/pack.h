/*
 * Numbers and bytes in a row, as one process writes them into a file for the next one.
 *
 * A number takes one byte for each seven of its bits; bytes have their length in front. Nothing
 * says what comes next: who reads must ask for what was written, in the same order.
 */
#pragma once

#include "base/slice.h"
#include <stdbool.h>
#include <stdint.h>

enum { PACK_BUFFER_BYTES = 65536 };

/* A zeroed one with its `fd`, which stays the caller's, is ready. Failures are sticky. */
struct pack {
    int fd;
    bool failed;
    uint64_t written;
    size_t len; /* of `buffer` */
    char buffer[PACK_BUFFER_BYTES];
};

void pack_number(struct pack *pack, uint64_t number);
void pack_bytes(struct pack *pack, struct slice bytes);
/* Bytes without their length. */
void pack_raw(struct pack *pack, const void *bytes, size_t len);
/* Where the next byte comes in the file. */
uint64_t pack_at(const struct pack *pack);
/* Writes what is left; false when anything could not be written. */
bool pack_finish(struct pack *pack);

/* What is not read yet of what was packed. Past its end, and on nonsense, `failed` is set, numbers
 * are 0 and bytes empty. */
struct unpack {
    const char *at, *end;
    bool failed;
};

static inline struct unpack unpack_of(struct slice bytes) {
    return (struct unpack){bytes.data, bytes.data + bytes.len, false};
}

uint64_t unpack_number(struct unpack *in);
/* A number of at most `max`; a larger one is nonsense. */
uint64_t unpack_up_to(struct unpack *in, uint64_t max);
/* They stay where they are. */
struct slice unpack_bytes(struct unpack *in);
struct slice unpack_raw(struct unpack *in, size_t len);

/* A number that may be negative, as one that is not. */
static inline uint64_t pack_signed(int64_t number) {
    return ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
}

static inline int64_t unpack_signed(uint64_t number) {
    return (int64_t)(number >> 1) ^ -(int64_t)(number & 1);
}
