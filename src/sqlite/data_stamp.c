#include "sqlite/data_stamp.h"
#include "sqlite/data_lock.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { STAMP_BYTES = 160 };

static long long nanoseconds(struct timespec time) {
    return (long long)time.tv_sec * 1000000000 + time.tv_nsec;
}

static size_t describe(char stamp[STAMP_BYTES], const char *what, const struct stat *file) {
    return (size_t)snprintf(stamp, STAMP_BYTES, "%s: inode %llu size %lld mtime %lld ctime %lld\n",
                            what, (unsigned long long)file->st_ino, (long long)file->st_size,
                            nanoseconds(file->st_mtim), nanoseconds(file->st_ctim));
}

/* --- Of a close ------------------------------------------------------------------------------- */

/* Its length; 0 when there can be none. */
static size_t write_stamp(char stamp[STAMP_BYTES], const char *path) {
    struct stat file;
    if (data_has_wal(path) || stat(path, &file) != 0)
        return 0;
    return describe(stamp, "closed", &file);
}

static bool sync_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

void data_stamp_put(int lock_fd, const char *path) {
    char stamp[STAMP_BYTES];
    size_t len = sync_file(path) ? write_stamp(stamp, path) : 0;
    if (len && pwrite(lock_fd, stamp, len, 0) == (ssize_t)len)
        fsync(lock_fd);
}

bool data_stamp_take(int lock_fd, const char *path) {
    char stamp[STAMP_BYTES], now[STAMP_BYTES];
    ssize_t len = pread(lock_fd, stamp, sizeof stamp, 0);
    if (len == 0)
        return false;
    bool is_gone = ftruncate(lock_fd, 0) == 0 && fsync(lock_fd) == 0;
    return is_gone && len > 0 && write_stamp(now, path) == (size_t)len &&
           memcmp(stamp, now, (size_t)len) == 0;
}

/* --- Of an upgrade ---------------------------------------------------------------------------- */

/* Its length; 0 when there can be none. */
static size_t write_left(char stamp[2 * STAMP_BYTES], const char *path) {
    struct stat file, wal;
    if (stat(path, &file) != 0 || !data_stat_wal(path, &wal))
        return 0;
    size_t len = describe(stamp, "left", &file);
    return len + describe(stamp + len, "log", &wal);
}

void data_stamp_tell(struct buf *stamp, const char *path) {
    char text[2 * STAMP_BYTES];
    buf_append(stamp, text, write_left(text, path));
}

bool data_stamp_fits(struct slice stamp, const char *path) {
    char text[2 * STAMP_BYTES];
    size_t len = write_left(text, path);
    return len && slice_equal(stamp, (struct slice){text, len});
}
