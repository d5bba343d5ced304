#include "sqlite/data_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens `path` for reading and writing, or creates it. -1 on failure, with one line in `error`. */
static int open_file(const char *path, char *error, size_t error_size) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        snprintf(error, error_size, "cannot open %s: %s", path, strerror(errno));
    return fd;
}

/* The lock's name comes from the real path: one file has one lock, whatever links lead to it. */
static bool find_lock_path(const char *path, char *lock_path, size_t size, char *error,
                           size_t error_size) {
    char real_path[PATH_MAX];
    if (!realpath(path, real_path)) {
        snprintf(error, error_size, "cannot open %s: %s", path, strerror(errno));
        return false;
    }
    if ((size_t)snprintf(lock_path, size, "%s-lock", real_path) >= size) {
        snprintf(error, error_size, "the data path is too long");
        return false;
    }
    return true;
}

/* Tries for a tenth of a second: data_is_locked() holds the lock for a moment. */
static bool take_lock(int fd) {
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (tries == 10)
            return false;
        usleep(10000);
    }
    return true;
}

int data_lock(const char *path, char *error, size_t error_size) {
    char lock_path[PATH_MAX + 8];
    int data_fd = open_file(path, error, error_size);
    if (data_fd < 0)
        return -1;
    close(data_fd);
    if (!find_lock_path(path, lock_path, sizeof lock_path, error, error_size))
        return -1;
    int lock_fd = open_file(lock_path, error, error_size);
    if (lock_fd < 0)
        return -1;
    if (!take_lock(lock_fd)) {
        snprintf(error, error_size, "%s is in use by another longline process", path);
        close(lock_fd);
        return -1;
    }
    return lock_fd;
}

bool data_is_locked(const char *path) {
    char lock_path[PATH_MAX + 8], error[64];
    if (!find_lock_path(path, lock_path, sizeof lock_path, error, sizeof error))
        return false;
    int fd = open(lock_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool is_locked = flock(fd, LOCK_SH | LOCK_NB) != 0;
    close(fd);
    return is_locked;
}

bool data_stat_wal(const char *path, struct stat *status) {
    char real_path[PATH_MAX], wal_path[PATH_MAX + 8];
    *status = (struct stat){0};
    if (!realpath(path, real_path))
        return false;
    snprintf(wal_path, sizeof wal_path, "%s-wal", real_path);
    return stat(wal_path, status) == 0 || errno == ENOENT;
}

bool data_has_wal(const char *path) {
    struct stat status;
    return !data_stat_wal(path, &status) || status.st_size > 0;
}

bool data_is_alone(const char *path) {
    return !data_is_locked(path) && !data_has_wal(path);
}
