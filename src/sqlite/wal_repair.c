#include "sqlite/wal_repair.h"
#include "base/log.h"
#include "sqlite/lax.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum repair {
    REPAIRED,
    REPAIR_SUMS, /* the frame stays as it is; its sum and those behind it must be made again */
    REPAIR_FAILED,
};

struct wal_file {
    const char *path, *data_path; /* absolute: of the log, and of the database */
    int fd;
    mode_t mode;
    bool may_write;
    unsigned char header[WAL_HEADER_BYTES];
    bool is_big_endian;
    size_t page_bytes;
    int64_t frames;
    int64_t max_pages;           /* that the database can have */
    bool has_failed;             /* the file could not be read */
    unsigned char *frame, *next; /* one frame each */
    struct wal_end *end;
    bool is_lax;        /* the commit that is being read, as far as it was */
    uint32_t mark_page; /* that of the table `lax`; 0: not seen */
    bool has_flipped;   /* a bit of what was on the disk */
};

enum { SECTOR_BYTES = 512 }; /* at least that much is written whole, or not at all */

/* --- The file --------------------------------------------------------------------------------- */

static size_t frame_bytes(const struct wal_file *wal) {
    return WAL_FRAME_HEADER_BYTES + wal->page_bytes;
}

static off_t frame_offset(const struct wal_file *wal, int64_t index) {
    return wal_frame_offset(index, wal->page_bytes);
}

static struct wal_sum sum_frame(const struct wal_file *wal, struct wal_sum before,
                                const unsigned char *frame) {
    return wal_sum_frame(before, frame, wal->page_bytes, wal->is_big_endian);
}

/* False at the end of the log; and on failure, which sets `has_failed`. */
static bool read_frame(struct wal_file *wal, int64_t index, unsigned char *frame) {
    if (index >= wal->frames)
        return false;
    ssize_t len = pread(wal->fd, frame, frame_bytes(wal), frame_offset(wal, index));
    wal->has_failed |= len != (ssize_t)frame_bytes(wal);
    return !wal->has_failed;
}

/* The frame's salts are those of the log: it is not a leftover of an earlier one. */
static bool is_of_log(const struct wal_file *wal, const unsigned char *frame) {
    return memcmp(frame + WAL_FRAME_SALTS, wal->header + WAL_SALTS, WAL_SALTS_BYTES) == 0;
}

static bool is_commit(const unsigned char *frame) {
    return wal_word(frame + 4) != 0;
}

static bool is_mark(const struct wal_file *wal, const unsigned char *frame) {
    return lax_is_mark(frame + WAL_FRAME_HEADER_BYTES, wal->page_bytes);
}

/* wal->frame, the frame `index`, is right. */
static void note_frame(struct wal_file *wal, int64_t index) {
    if (is_mark(wal, wal->frame)) {
        wal->is_lax = true;
        wal->mark_page = wal_word(wal->frame);
    }
    if (is_commit(wal->frame)) {
        wal->is_lax = false;
        wal->end->frames = index + 1;
    }
}

/* --- The header ------------------------------------------------------------------------------- */

static bool is_header_right(const unsigned char *header) {
    static const struct wal_sum zero;
    uint32_t magic = wal_word(header), page_bytes = wal_word(header + WAL_PAGE_BYTES);
    return (magic & ~1U) == WAL_MAGIC && page_bytes >= 512 && page_bytes <= 65536 &&
           (page_bytes & (page_bytes - 1)) == 0 &&
           wal_sums_equal(wal_sum_words(zero, header, WAL_HEADER_SUMMED, magic & 1),
                          wal_get_sum(header + WAL_HEADER_SUMMED));
}

/* Tries each bit. */
static bool repair_header(unsigned char *header) {
    for (size_t bit = 0; bit < (size_t)WAL_HEADER_BYTES * CHAR_BIT; bit++) {
        header[bit / CHAR_BIT] ^= (unsigned char)(1 << bit % CHAR_BIT);
        if (is_header_right(header))
            return true;
        header[bit / CHAR_BIT] ^= (unsigned char)(1 << bit % CHAR_BIT);
    }
    return false;
}

static void take_header(struct wal_file *wal, off_t size) {
    wal->is_big_endian = wal_word(wal->header) & 1;
    wal->page_bytes = wal_word(wal->header + WAL_PAGE_BYTES);
    wal->frames = (size - WAL_HEADER_BYTES) / (off_t)frame_bytes(wal);
}

/* --- Frames ----------------------------------------------------------------------------------- */

static bool is_frame_right(const struct wal_file *wal, struct wal_sum before,
                           const unsigned char *frame) {
    return is_of_log(wal, frame) &&
           wal_sums_equal(sum_frame(wal, before, frame), wal_get_sum(frame + WAL_FRAME_SUM));
}

/* Whether the frame behind `index` goes on from `sum`. */
static bool goes_on(struct wal_file *wal, int64_t index, struct wal_sum sum) {
    return read_frame(wal, index + 1, wal->next) && is_frame_right(wal, sum, wal->next);
}

/*
 * How far a change of a word changes the sum at the end. The sum is linear: a word that is more by
 * `d` makes it more by `d` times these factors, which depend on the words that follow.
 */
struct factors {
    struct wal_sum even, odd; /* of the two words of a pair */
};

static void move_factors(struct wal_sum *sum) {
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
static void find_bits(unsigned char *bytes, size_t len, bool is_big, struct wal_sum off,
                      struct factors *factors, struct suspects *suspects) {
    for (size_t i = len; i > 0; i -= 4) {
        bool is_even = i % 8 == 4;
        const struct wal_sum *factor = is_even ? &factors->even : &factors->odd;
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
    uint32_t page = wal_word(frame), size = wal_word(frame + 4);
    return page > 0 && page <= wal->max_pages && size <= wal->max_pages;
}

/* One bit of what the sum is over. Where it is not certain which, and the page goes where it
 * should, the bit stays: the seals of the rows tell. */
static enum repair repair_summed(struct wal_file *wal, struct wal_sum off) {
    unsigned char *frame = wal->frame;
    struct factors factors = {.even = {1, 1}, .odd = {0, 1}};
    struct suspects in_page = {0}, in_header = {0};
    find_bits(frame + WAL_FRAME_HEADER_BYTES, wal->page_bytes, wal->is_big_endian, off, &factors,
              &in_page);
    find_bits(frame, WAL_FRAME_SUMMED, wal->is_big_endian, off, &factors, &in_header);
    bool is_in_header = in_header.count && (!in_page.count || !is_plausible(wal, frame));
    if (is_in_header || (in_page.count == 1 && !in_header.count)) {
        flip(is_in_header ? &in_header : &in_page);
        return REPAIRED;
    }
    return in_page.count && is_plausible(wal, frame) ? REPAIR_SUMS : REPAIR_FAILED;
}

/* Puts wal->frame, the frame `index`, right if one bit of it does. */
static enum repair repair_frame(struct wal_file *wal, int64_t index, struct wal_sum before) {
    unsigned char *frame = wal->frame, right[8];
    struct wal_sum sum = sum_frame(wal, before, frame), wanted = wal_get_sum(frame + WAL_FRAME_SUM);
    wal_put_sum(right, sum);
    int salt_bits = count_bits(frame + WAL_FRAME_SALTS, wal->header + WAL_SALTS);
    int sum_bits = count_bits(frame + WAL_FRAME_SUM, right);
    if (salt_bits > 1) /* a leftover of an earlier log */
        return REPAIR_FAILED;
    if (salt_bits == 1 && sum_bits == 0)
        memcpy(frame + WAL_FRAME_SALTS, wal->header + WAL_SALTS, WAL_SALTS_BYTES);
    else if (salt_bits == 0 && sum_bits == 1 && !goes_on(wal, index, wanted))
        wal_put_sum(frame + WAL_FRAME_SUM, sum);
    else if (salt_bits == 0)
        return repair_summed(wal, (struct wal_sum){wanted.a - sum.a, wanted.b - sum.b});
    else
        return REPAIR_FAILED;
    return REPAIRED;
}

/* Copies the log to `fd` with the sums that its frames have from `index` on, up to the last that
 * belongs to it; `sum`: before that. */
static bool copy_with_sums(struct wal_file *wal, int64_t index, struct wal_sum sum, int fd) {
    bool ok = write(fd, wal->header, WAL_HEADER_BYTES) == WAL_HEADER_BYTES;
    struct wal_sum read_sum = wal_get_sum(wal->frame + WAL_FRAME_SUM);
    for (int64_t i = 0; ok && read_frame(wal, i, wal->next); i++) {
        if (i > index && !is_frame_right(wal, read_sum, wal->next))
            break;
        if (i >= index) {
            read_sum = wal_get_sum(wal->next + WAL_FRAME_SUM);
            sum = sum_frame(wal, sum, wal->next);
            wal_put_sum(wal->next + WAL_FRAME_SUM, sum);
        }
        ok = write(fd, wal->next, frame_bytes(wal)) == (ssize_t)frame_bytes(wal);
    }
    return ok && !wal->has_failed && fsync(fd) == 0;
}

/* Makes a rename durable. */
static bool sync_directory(const char *path) {
    char directory[PATH_MAX + 16];
    snprintf(directory, sizeof directory, "%s", path);
    *strrchr(directory, '/') = '\0'; /* the path is absolute */
    int fd = open(*directory ? directory : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Writes the log anew. The old one stays until the new one is whole on disk. */
static bool rewrite_sums(struct wal_file *wal, int64_t index, struct wal_sum sum) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s-new", wal->path);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, wal->mode);
    if (fd < 0)
        return false;
    if (!copy_with_sums(wal, index, sum, fd) || rename(path, wal->path) != 0 ||
        !sync_directory(wal->path)) {
        close(fd);
        unlink(path);
        return false;
    }
    close(wal->fd);
    wal->fd = fd;
    return true;
}

/* Whether the page of the table `lax` is the page `number`: the log has said so, or the database
 * does. */
static bool is_page_of_marks(struct wal_file *wal, uint32_t number) {
    if (wal->mark_page)
        return number == wal->mark_page;
    int fd = open(wal->data_path, O_RDONLY | O_CLOEXEC);
    unsigned char *page = wal->next;
    off_t at = (off_t)(number - 1) * (off_t)wal->page_bytes;
    bool is_read = fd >= 0 && pread(fd, page, wal->page_bytes, at) == (ssize_t)wal->page_bytes;
    if (fd >= 0)
        close(fd);
    return is_read && lax_is_mark(page, wal->page_bytes);
}

/* Whether the header of wal->frame, the frame `index`, can be believed, although the frame is
 * wrong: no part of it is older than the rest. */
static bool is_header_credible(const struct wal_file *wal, int64_t index) {
    return is_of_log(wal, wal->frame) && is_plausible(wal, wal->frame) &&
           frame_offset(wal, index) % SECTOR_BYTES <= SECTOR_BYTES - WAL_FRAME_HEADER_BYTES;
}

/*
 * Whether wal->frame, the frame `index`, which is wrong, had been synced: it stands before the end
 * of a commit that is synced, and behind that end more was written.
 *
 * Only commits of which all frames are right are known, and that of the wrong frame if all of its
 * others are. One of the frames says whether a commit is lax, and then it proves nothing.
 */
static bool was_synced(struct wal_file *wal, int64_t index) {
    bool is_credible = is_header_credible(wal, index);
    bool ends = is_credible && is_commit(wal->frame);
    bool is_strict = is_credible && !wal->is_lax && !is_page_of_marks(wal, wal_word(wal->frame));
    struct wal_sum sum = wal_get_sum(wal->frame + WAL_FRAME_SUM);
    for (index++; read_frame(wal, index, wal->next); index++) {
        bool is_right = is_frame_right(wal, sum, wal->next);
        if (ends && is_strict && is_right)
            return true;
        is_strict |= ends;
        is_strict &= is_right && !is_mark(wal, wal->next);
        ends = is_right && is_commit(wal->next);
        sum = wal_get_sum(wal->next + WAL_FRAME_SUM);
    }
    return false;
}

/* Makes wal->frame, the frame `index`, right; not where it is the last, and no commit. */
static enum wal_state mend_frame(struct wal_file *wal, int64_t index, struct wal_sum before) {
    bool ok = true, is_damage = was_synced(wal, index);
    enum repair repair = repair_frame(wal, index, before);
    if (repair == REPAIR_FAILED)
        return is_damage ? WAL_DAMAGED : WAL_WHOLE;
    if (!is_commit(wal->frame) && !goes_on(wal, index, wal_get_sum(wal->frame + WAL_FRAME_SUM)))
        return WAL_WHOLE;
    wal->has_flipped |= is_damage;
    if (repair == REPAIR_SUMS)
        ok = !wal->may_write || rewrite_sums(wal, index, before);
    else
        ok = !wal->may_write || (pwrite(wal->fd, wal->frame, frame_bytes(wal),
                                        frame_offset(wal, index)) == (ssize_t)frame_bytes(wal) &&
                                 fsync(wal->fd) == 0);
    return ok ? WAL_REPAIRED : WAL_FAILED;
}

static enum wal_state look_at_frames(struct wal_file *wal, char *error, size_t error_size) {
    enum wal_state state = WAL_WHOLE;
    struct wal_sum sum = wal_get_sum(wal->header + WAL_HEADER_SUMMED);
    for (int64_t index = 0; read_frame(wal, index, wal->frame); index++) {
        if (!is_frame_right(wal, sum, wal->frame)) {
            enum wal_state mended = mend_frame(wal, index, sum);
            snprintf(error, error_size, "frame %lld of %lld%s%s", (long long)index + 1,
                     (long long)wal->frames, mended == WAL_FAILED ? ": " : "",
                     mended == WAL_FAILED ? strerror(errno) : "");
            state = mended == WAL_WHOLE ? state : mended;
            if (mended != WAL_REPAIRED)
                break;
        }
        sum = wal_get_sum(wal->frame + WAL_FRAME_SUM);
        if (state == WAL_REPAIRED && wal->may_write && read_frame(wal, index, wal->frame))
            sum = wal_get_sum(wal->frame + WAL_FRAME_SUM); /* it may have been written anew */
        note_frame(wal, index);
    }
    if (!wal->has_failed)
        return state;
    snprintf(error, error_size, "it cannot be read");
    return WAL_FAILED;
}

/* --- The whole -------------------------------------------------------------------------------- */

static enum wal_state look_at_file(struct wal_file *wal, off_t size, off_t data_bytes, char *error,
                                   size_t error_size) {
    bool was_right = is_header_right(wal->header);
    if (!was_right && !repair_header(wal->header))
        return WAL_WHOLE; /* of a log that was never used */
    if (!was_right && wal->may_write &&
        (pwrite(wal->fd, wal->header, WAL_HEADER_BYTES, 0) != WAL_HEADER_BYTES ||
         fsync(wal->fd) != 0)) {
        snprintf(error, error_size, "%s", strerror(errno));
        return WAL_FAILED;
    }
    take_header(wal, size);
    memcpy(wal->end->salts, wal->header + WAL_SALTS, WAL_SALTS_BYTES);
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
    wal->has_flipped |= !was_right;
    return state == WAL_WHOLE && !was_right ? WAL_REPAIRED : state;
}

/* Opens the log of the database `path`, which may be a link, and looks at it. */
static enum wal_state open_and_look(struct wal_file *wal, const char *path, char *why,
                                    size_t why_size) {
    struct stat status, data;
    wal->fd = open(wal->path, (wal->may_write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (wal->fd < 0 && errno == ENOENT)
        return WAL_WHOLE;
    ssize_t len = -1;
    if (wal->fd >= 0 && fstat(wal->fd, &status) == 0 && stat(path, &data) == 0)
        len = pread(wal->fd, wal->header, WAL_HEADER_BYTES, 0);
    if (len < 0) {
        snprintf(why, why_size, "%s", strerror(errno));
        return WAL_FAILED;
    }
    wal->mode = status.st_mode & 0777;
    wal->end->is_there = status.st_size > 0;
    return len < WAL_HEADER_BYTES ? WAL_WHOLE
                                  : look_at_file(wal, status.st_size, data.st_size, why, why_size);
}

enum wal_state wal_repair(const char *path, bool may_write, bool is_synced, struct wal_end *end,
                          char *error, size_t error_size) {
    char real_path[PATH_MAX], wal_path[PATH_MAX + 8], why[128] = "";
    *end = (struct wal_end){0};
    if (!realpath(path, real_path))
        return WAL_WHOLE; /* a new file */
    snprintf(wal_path, sizeof wal_path, "%s-wal", real_path);
    struct wal_file wal = {
        .path = wal_path, .data_path = real_path, .fd = -1, .may_write = may_write, .end = end};
    enum wal_state state = open_and_look(&wal, real_path, why, sizeof why);
    if (wal.fd >= 0)
        close(wal.fd);
    if (state == WAL_DAMAGED && !is_synced) {
        log_warn("the write-ahead log is read up to its first damage", "file", wal_path, "damaged",
                 why, NULL);
        return WAL_WHOLE;
    }
    if (state == WAL_DAMAGED)
        snprintf(error, error_size,
                 "%s is damaged (%s), with acknowledged updates behind it; restore a backup, or see"
                 " \"A damaged file\" in docs/data.md",
                 wal_path, why);
    else if (state == WAL_FAILED)
        snprintf(error, error_size, "%s cannot be mended: %s", wal_path, why);
    else if (state == WAL_REPAIRED && may_write && !wal.has_flipped)
        log_info("a bit was wrong in the last write of the write-ahead log", "file", wal_path,
                 "meaning", "it was cut short, or the bit has flipped; it is put right", NULL);
    else if (state == WAL_REPAIRED && may_write)
        log_error("a bit had flipped in the write-ahead log", "file", wal_path, "meaning",
                  "it is put right, or is in the update that is named below", NULL);
    return state;
}
