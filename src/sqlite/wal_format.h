/*
 * The format of a write-ahead log: https://www.sqlite.org/fileformat2.html#walformat
 *
 * A header, then frames: a page each, with its number and the running checksum of all before it.
 * The last frame of a commit says how large the database is then. Frames with other salts than the
 * header's are leftovers of an earlier log.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    WAL_HEADER_BYTES = 32,
    WAL_HEADER_SUMMED = 24, /* bytes of it under its checksum */
    WAL_PAGE_BYTES = 8,     /* where it says how large a page is; and */
    WAL_SALTS = 16,         /* where its salts begin */
    WAL_SALTS_BYTES = 8,
    WAL_FRAME_HEADER_BYTES = 24,
    WAL_FRAME_SALTS = 8,    /* the same of a frame; and */
    WAL_FRAME_SUM = 16,     /* its sum */
    WAL_FRAME_SUMMED = 8,   /* bytes of the frame's header under its checksum; the page follows */
    WAL_MAGIC = 0x377f0682, /* the lowest bit: words are big-endian */
};

struct wal_sum {
    uint32_t a, b;
};

static inline uint32_t wal_word(const unsigned char *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return be32toh(word);
}

static inline struct wal_sum wal_get_sum(const unsigned char *bytes) {
    return (struct wal_sum){wal_word(bytes), wal_word(bytes + 4)};
}

static inline void wal_put_sum(unsigned char *bytes, struct wal_sum sum) {
    uint32_t words[2] = {htobe32(sum.a), htobe32(sum.b)};
    memcpy(bytes, words, sizeof words);
}

static inline bool wal_sums_equal(struct wal_sum x, struct wal_sum y) {
    return x.a == y.a && x.b == y.b;
}

static inline struct wal_sum wal_sum_words(struct wal_sum sum, const unsigned char *bytes,
                                           size_t len, bool is_big) {
    for (size_t i = 0; i < len; i += 8) {
        uint32_t words[2];
        memcpy(words, bytes + i, sizeof words);
        sum.a += (is_big ? be32toh(words[0]) : le32toh(words[0])) + sum.b;
        sum.b += (is_big ? be32toh(words[1]) : le32toh(words[1])) + sum.a;
    }
    return sum;
}

/* The sum of a frame behind `before`. */
static inline struct wal_sum wal_sum_frame(struct wal_sum before, const unsigned char *frame,
                                           size_t page_bytes, bool is_big) {
    struct wal_sum sum = wal_sum_words(before, frame, WAL_FRAME_SUMMED, is_big);
    return wal_sum_words(sum, frame + WAL_FRAME_HEADER_BYTES, page_bytes, is_big);
}

/* Where the frame `index` begins, the first being 0; or the log ends. */
static inline int64_t wal_frame_offset(int64_t index, size_t page_bytes) {
    return WAL_HEADER_BYTES + index * (int64_t)(WAL_FRAME_HEADER_BYTES + page_bytes);
}

/* Where a log ends: behind its last commit that is whole. */
struct wal_end {
    bool is_there; /* the file is, and is not empty */
    int64_t frames;
    unsigned char salts[WAL_SALTS_BYTES];
};
