#include "sqlite/wal_repair.h"
#include "base/log.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER_BYTES = 32,
    HEADER_SUMMED = 24, /* bytes of it under its checksum */
    FRAME_HEADER_BYTES = 24,
    FRAME_SUMMED = 8,   /* bytes of the frame's header under its checksum; the page follows */
    MAGIC = 0x377f0682, /* the lowest bit: words are big-endian */
};

struct sum {
    uint32_t a, b;
};

enum repair {
    REPAIRED,
    REPAIR_SUMS, /* the frame stays as it is; its sum and those behind it must be made again */
    REPAIR_FAILED,
};

struct wal_file {
    const char *path;
    int fd;
    bool may_write;
    unsigned char header[HEADER_BYTES];
    bool is_big_endian;
    size_t page_bytes;
    int64_t frames;
    int64_t max_pages;           /* that the database can have */
    unsigned char *frame, *next; /* one frame each */
};

/* --- Checksums -------------------------------------------------------------------------------- */

static struct sum sum_words(struct sum sum, const unsigned char *bytes, size_t len, bool is_big) {
    for (size_t i = 0; i < len; i += 8) {
        uint32_t words[2];
        memcpy(words, bytes + i, sizeof words);
        sum.a += (is_big ? be32toh(words[0]) : le32toh(words[0])) + sum.b;
        sum.b += (is_big ? be32toh(words[1]) : le32toh(words[1])) + sum.a;
    }
    return sum;
}

static struct sum sum_frame(const struct wal_file *wal, struct sum before,
                            const unsigned char *frame) {
    struct sum sum = sum_words(before, frame, FRAME_SUMMED, wal->is_big_endian);
    return sum_words(sum, frame + FRAME_HEADER_BYTES, wal->page_bytes, wal->is_big_endian);
}

static uint32_t get_word(const unsigned char *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return be32toh(word);
}

static struct sum get_sum(const unsigned char *bytes) {
    return (struct sum){get_word(bytes), get_word(bytes + 4)};
}

static void put_sum(unsigned char *bytes, struct sum sum) {
    uint32_t words[2] = {htobe32(sum.a), htobe32(sum.b)};
    memcpy(bytes, words, sizeof words);
}

static bool sums_equal(struct sum x, struct sum y) {
    return x.a == y.a && x.b == y.b;
}

/* --- The file --------------------------------------------------------------------------------- */

static size_t frame_bytes(const struct wal_file *wal) {
    return FRAME_HEADER_BYTES + wal->page_bytes;
}

static off_t frame_offset(const struct wal_file *wal, int64_t index) {
    return HEADER_BYTES + index * (off_t)frame_bytes(wal);
}

static bool read_frame(const struct wal_file *wal, int64_t index, unsigned char *frame) {
    return index < wal->frames && pread(wal->fd, frame, frame_bytes(wal),
                                        frame_offset(wal, index)) == (ssize_t)frame_bytes(wal);
}

/* The frame's salts are those of the log: it is not a leftover of an earlier one. */
static bool is_of_log(const struct wal_file *wal, const unsigned char *frame) {
    return memcmp(frame + 8, wal->header + 16, 8) == 0;
}

static bool is_commit(const unsigned char *frame) {
    return get_word(frame + 4) != 0;
}

/* --- The header ------------------------------------------------------------------------------- */

static bool is_header_right(const unsigned char *header) {
    static const struct sum zero;
    uint32_t magic = get_word(header), page_bytes = get_word(header + 8);
    return (magic & ~1U) == MAGIC && page_bytes >= 512 && page_bytes <= 65536 &&
           (page_bytes & (page_bytes - 1)) == 0 &&
           sums_equal(sum_words(zero, header, HEADER_SUMMED, magic & 1),
                      get_sum(header + HEADER_SUMMED));
}

/* Tries each bit. */
static bool repair_header(unsigned char *header) {
    for (size_t bit = 0; bit < (size_t)HEADER_BYTES * CHAR_BIT; bit++) {
        header[bit / CHAR_BIT] ^= (unsigned char)(1 << bit % CHAR_BIT);
        if (is_header_right(header))
            return true;
        header[bit / CHAR_BIT] ^= (unsigned char)(1 << bit % CHAR_BIT);
    }
    return false;
}

static void take_header(struct wal_file *wal, off_t size) {
    wal->is_big_endian = get_word(wal->header) & 1;
    wal->page_bytes = get_word(wal->header + 8);
    wal->frames = (size - HEADER_BYTES) / (off_t)frame_bytes(wal);
}

/* --- Frames ----------------------------------------------------------------------------------- */

static bool is_frame_right(const struct wal_file *wal, struct sum before,
                           const unsigned char *frame) {
    return is_of_log(wal, frame) && sums_equal(sum_frame(wal, before, frame), get_sum(frame + 16));
}

/* Whether the frame behind `index` goes on from `sum`. */
static bool goes_on(const struct wal_file *wal, int64_t index, struct sum sum) {
    return read_frame(wal, index + 1, wal->next) && is_frame_right(wal, sum, wal->next);
}

/*
 * How far a change of a word changes the sum at the end. The sum is linear: a word that is more by
 * `d` makes it more by `d` times these factors, which depend on the words that follow.
 */
struct factors {
    struct sum even, odd; /* of the two words of a pair */
};

static void move_factors(struct sum *sum) {
    sum->a += sum->b;
    sum->b += sum->a;
}

/* The bits that would make a frame's sum right. The sum is weak: there may be several. */
struct suspects {
    unsigned char *word; /* one of them */
    uint32_t mask;
    int count;
};

/* Adds those among `bytes` that make the sum more by `off`. `factors` are those of the last pair,
 * and then those of the pair before the first. */
static void find_bits(unsigned char *bytes, size_t len, bool is_big, struct sum off,
                      struct factors *factors, struct suspects *suspects) {
    for (size_t i = len; i > 0; i -= 4) {
        bool is_even = i % 8 == 4;
        const struct sum *factor = is_even ? &factors->even : &factors->odd;
        uint32_t word;
        memcpy(&word, bytes + i - 4, sizeof word);
        word = is_big ? be32toh(word) : le32toh(word);
        for (int bit = 0; bit < 32; bit++) {
            uint32_t mask = 1U << bit, d = word & mask ? -mask : mask;
            if (d * factor->a != off.a || d * factor->b != off.b)
                continue;
            suspects->word = bytes + i - 4;
            suspects->mask = is_big ? htobe32(mask) : htole32(mask);
            suspects->count++;
        }
        if (is_even) {
            move_factors(&factors->even);
            move_factors(&factors->odd);
        }
    }
}

static void flip(const struct suspects *suspects) {
    uint32_t word;
    memcpy(&word, suspects->word, sizeof word);
    word ^= suspects->mask;
    memcpy(suspects->word, &word, sizeof word);
}

/* The number of bits in which 8 bytes differ. */
static int count_bits(const unsigned char *x, const unsigned char *y) {
    uint64_t a, b;
    memcpy(&a, x, sizeof a);
    memcpy(&b, y, sizeof b);
    return __builtin_popcountll(a ^ b);
}

/* Whether the page and the size of the database that a frame names are possible. */
static bool is_plausible(const struct wal_file *wal, const unsigned char *frame) {
    uint32_t page = get_word(frame), size = get_word(frame + 4);
    return page > 0 && page <= wal->max_pages && size <= wal->max_pages;
}

/* One bit of what the sum is over. Where it is not certain which, and the page goes where it
 * should, the bit stays: the seals of the rows tell. */
static enum repair repair_summed(struct wal_file *wal, struct sum off) {
    unsigned char *frame = wal->frame;
    struct factors factors = {.even = {1, 1}, .odd = {0, 1}};
    struct suspects in_page = {0}, in_header = {0};
    find_bits(frame + FRAME_HEADER_BYTES, wal->page_bytes, wal->is_big_endian, off, &factors,
              &in_page);
    find_bits(frame, FRAME_SUMMED, wal->is_big_endian, off, &factors, &in_header);
    bool is_in_header = in_header.count && (!in_page.count || !is_plausible(wal, frame));
    if (is_in_header || (in_page.count == 1 && !in_header.count)) {
        flip(is_in_header ? &in_header : &in_page);
        return REPAIRED;
    }
    return in_page.count && is_plausible(wal, frame) ? REPAIR_SUMS : REPAIR_FAILED;
}

/* Puts wal->frame, the frame `index`, right if one bit of it does. */
static enum repair repair_frame(struct wal_file *wal, int64_t index, struct sum before) {
    unsigned char *frame = wal->frame, right[8];
    struct sum sum = sum_frame(wal, before, frame), wanted = get_sum(frame + 16);
    put_sum(right, sum);
    int salt_bits = count_bits(frame + 8, wal->header + 16);
    int sum_bits = count_bits(frame + 16, right);
    if (salt_bits > 1) /* a leftover of an earlier log */
        return REPAIR_FAILED;
    if (salt_bits == 1 && sum_bits == 0)
        memcpy(frame + 8, wal->header + 16, 8);
    else if (salt_bits == 0 && sum_bits == 1 && !goes_on(wal, index, wanted))
        put_sum(frame + 16, sum);
    else if (salt_bits == 0)
        return repair_summed(wal, (struct sum){wanted.a - sum.a, wanted.b - sum.b});
    else
        return REPAIR_FAILED;
    return REPAIRED;
}

/* Writes the log anew with the sums that its frames have from `index` on, up to the last that
 * belongs to it; `sum`: before it. The old log stays until the new one is whole on disk. */
static bool rewrite_sums(struct wal_file *wal, int64_t index, struct sum sum) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s-new", wal->path);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool ok = write(fd, wal->header, HEADER_BYTES) == HEADER_BYTES;
    struct sum read_sum = get_sum(wal->frame + 16);
    for (int64_t i = 0; ok && read_frame(wal, i, wal->next); i++) {
        if (i > index && !is_frame_right(wal, read_sum, wal->next))
            break;
        if (i >= index) {
            read_sum = get_sum(wal->next + 16);
            sum = sum_frame(wal, sum, wal->next);
            put_sum(wal->next + 16, sum);
        }
        ok = write(fd, wal->next, frame_bytes(wal)) == (ssize_t)frame_bytes(wal);
    }
    ok = ok && fsync(fd) == 0 && rename(path, wal->path) == 0;
    int old_fd = wal->fd;
    if (ok)
        wal->fd = fd;
    close(ok ? old_fd : fd);
    return ok;
}

/* Whether a commit behind the frame `index` is whole: it was written after that one was synced. */
static bool is_followed_by_commit(const struct wal_file *wal, int64_t index) {
    bool is_in_later = is_commit(wal->frame);
    struct sum sum = get_sum(wal->frame + 16);
    while (goes_on(wal, index, sum)) {
        if (is_in_later && is_commit(wal->next))
            return true;
        is_in_later |= is_commit(wal->next);
        sum = get_sum(wal->next + 16);
        index++;
    }
    return false;
}

/* Makes wal->frame, the frame `index`, right. */
static enum wal_state mend_frame(struct wal_file *wal, int64_t index, struct sum before) {
    bool ok = true;
    switch (repair_frame(wal, index, before)) {
    case REPAIR_FAILED: return is_followed_by_commit(wal, index) ? WAL_DAMAGED : WAL_WHOLE;
    case REPAIRED:
        ok = !wal->may_write || (pwrite(wal->fd, wal->frame, frame_bytes(wal),
                                        frame_offset(wal, index)) == (ssize_t)frame_bytes(wal) &&
                                 fsync(wal->fd) == 0);
        break;
    case REPAIR_SUMS: ok = !wal->may_write || rewrite_sums(wal, index, before); break;
    }
    return ok ? WAL_REPAIRED : WAL_FAILED;
}

static enum wal_state look_at_frames(struct wal_file *wal, char *error, size_t error_size) {
    enum wal_state state = WAL_WHOLE;
    struct sum sum = get_sum(wal->header + HEADER_SUMMED);
    for (int64_t index = 0; read_frame(wal, index, wal->frame); index++) {
        if (!is_frame_right(wal, sum, wal->frame)) {
            enum wal_state mended = mend_frame(wal, index, sum);
            snprintf(error, error_size, "frame %lld of %lld%s%s", (long long)index + 1,
                     (long long)wal->frames, mended == WAL_FAILED ? ": " : "",
                     mended == WAL_FAILED ? strerror(errno) : "");
            if (mended != WAL_REPAIRED)
                return mended == WAL_WHOLE ? state : mended;
            state = WAL_REPAIRED;
        }
        sum = get_sum(wal->frame + 16);
        if (state == WAL_REPAIRED && wal->may_write && read_frame(wal, index, wal->frame))
            sum = get_sum(wal->frame + 16); /* it may have been written anew */
    }
    return state;
}

/* --- The whole -------------------------------------------------------------------------------- */

static enum wal_state look_at_file(struct wal_file *wal, off_t size, off_t data_bytes, char *error,
                                   size_t error_size) {
    bool was_right = is_header_right(wal->header);
    if (!was_right && !repair_header(wal->header))
        return WAL_WHOLE; /* of a log that was never used */
    if (!was_right && wal->may_write &&
        (pwrite(wal->fd, wal->header, HEADER_BYTES, 0) != HEADER_BYTES || fsync(wal->fd) != 0)) {
        snprintf(error, error_size, "%s", strerror(errno));
        return WAL_FAILED;
    }
    take_header(wal, size);
    wal->max_pages = wal->frames + data_bytes / (int64_t)wal->page_bytes;
    wal->frame = malloc(frame_bytes(wal));
    wal->next = malloc(frame_bytes(wal));
    enum wal_state state = WAL_FAILED;
    if (wal->frame && wal->next)
        state = look_at_frames(wal, error, error_size);
    else
        snprintf(error, error_size, "out of memory");
    free(wal->frame);
    free(wal->next);
    return state == WAL_WHOLE && !was_right ? WAL_REPAIRED : state;
}

enum wal_state wal_repair(const char *path, bool may_write, bool is_synced, char *error,
                          size_t error_size) {
    char wal_path[PATH_MAX + 8], why[128] = "";
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    struct wal_file wal = {.path = wal_path, .may_write = may_write};
    wal.fd = open(wal_path, (may_write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (wal.fd < 0)
        return WAL_WHOLE;
    struct stat status, data;
    enum wal_state state = WAL_WHOLE;
    if (fstat(wal.fd, &status) == 0 && stat(path, &data) == 0 &&
        pread(wal.fd, wal.header, HEADER_BYTES, 0) == HEADER_BYTES)
        state = look_at_file(&wal, status.st_size, data.st_size, why, sizeof why);
    close(wal.fd);
    if (state == WAL_DAMAGED && !is_synced) {
        log_warn("the write-ahead log is read up to its first damage", "file", wal_path, "damaged",
                 why, NULL);
        return WAL_WHOLE;
    }
    if (state == WAL_DAMAGED)
        snprintf(error, error_size,
                 "%s is damaged (%s), with acknowledged updates behind it; restore a backup, or see"
                 " \"A damaged file\" in the operations guide",
                 wal_path, why);
    else if (state == WAL_FAILED)
        snprintf(error, error_size, "%s cannot be repaired: %s", wal_path, why);
    else if (state == WAL_REPAIRED && may_write)
        log_error("a bit had flipped in the write-ahead log", "file", wal_path, "meaning",
                  "it is put right, or is in the update that is named below", NULL);
    return state;
}
