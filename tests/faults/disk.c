/*
 * Preloaded into a server, notes all that it does to its data file and the files beside it, so that
 * a test can work out what a power cut would have left (tests/blackbox/power.py).
 *
 * DISK_FOLDER is the folder, DISK_LOG the file that gets a record for each call; see struct record.
 * The test appends records of its own. DISK_CONTROL, shared with the test, holds a struct control:
 * how long a sync takes at least, and how many of them fail.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Of a call before it is made, but for CREATED and those of syncs. */
enum kind {
    STARTED = 'S', /* the program; a record for each file follows: */
    FOUND = 'Z',   /* name, offset: its size */
    CREATED = 'C', /* name */
    WRITTEN = 'W', /* offset, what was written */
    CUT = 'T',     /* offset: the new size */
    RENAMED = 'M', /* name, NUL, new name */
    REMOVED = 'U', /* name */
    SYNCED = 'F',  /* offset: 0, or errno of a sync that failed */
    SYNCED_FOLDER = 'D',
};

struct record {
    uint32_t kind, len; /* bytes that follow */
    int64_t at_ns;      /* the monotonic clock */
    uint64_t inode;
    int64_t offset;
};

struct control {
    _Atomic uint64_t sync_us;
    _Atomic uint64_t failing; /* of 1,000 syncs of files */
    _Atomic uint64_t error;   /* errno of those */
    _Atomic uint64_t failed;  /* so far */
};

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_len;
static int log_fd = -1;
static unsigned seed;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static int (*next_open)(const char *, int, ...);
static ssize_t (*next_pwrite)(int, const void *, size_t, off64_t);
static int (*next_ftruncate)(int, off64_t);
static int (*next_rename)(const char *, const char *);
static int (*next_unlink)(const char *);
static int (*next_fsync)(int);
static int (*next_fdatasync)(int);

#define FIND(variable, name) (*(void **)&next_##variable = dlsym(RTLD_NEXT, name))

static void note(enum kind kind, uint64_t inode, int64_t offset, const void *data, size_t len) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t at_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    struct record record = {(uint32_t)kind, (uint32_t)len, at_ns, inode, offset};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)(uintptr_t)data, len}};
    if (writev(log_fd, parts, 2) != (ssize_t)(sizeof record + len))
        abort();
}

/* The file's name within the folder, if it is of the data; the index of the write-ahead log is made
 * again by each start. */
static const char *name_of(const char *path) {
    if (log_fd < 0 || strncmp(path, folder, folder_len) != 0 || path[folder_len] != '/')
        return NULL;
    const char *name = path + folder_len + 1;
    const char *end = strrchr(name, '-');
    bool is_ours = strncmp(name, "longline.db", 11) == 0 && !strchr(name, '/');
    return is_ours && !(end && strcmp(end, "-shm") == 0) ? name : NULL;
}

static bool find(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = log_fd < 0 ? -1 : readlink(link, path, PATH_MAX - 1);
    if (len < 0)
        return false;
    path[len] = '\0';
    return true;
}

/* The inode of a file of the data; 0: it is none. */
static uint64_t inode_of(int fd) {
    char path[PATH_MAX];
    struct stat status;
    return find(fd, path) && name_of(path) && fstat(fd, &status) == 0 ? status.st_ino : 0;
}

static bool is_folder(int fd) {
    char path[PATH_MAX];
    return find(fd, path) && strcmp(path, folder) == 0;
}

__attribute__((constructor)) static void start(void) {
    FIND(open, "open64");
    FIND(pwrite, "pwrite64");
    FIND(ftruncate, "ftruncate64");
    FIND(rename, "rename");
    FIND(unlink, "unlink");
    FIND(fsync, "fsync");
    FIND(fdatasync, "fdatasync");
    const char *log = getenv("DISK_LOG"), *path = getenv("DISK_CONTROL");
    int fd = path ? next_open(path, O_RDWR | O_CLOEXEC) : -1;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!log || !realpath(getenv("DISK_FOLDER"), folder) || shared == MAP_FAILED)
        return;
    close(fd);
    control = shared;
    folder_len = strlen(folder);
    seed = (unsigned)getpid();
    log_fd = next_open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    static const char *const files[] = {"longline.db", "longline.db-wal", "longline.db-journal",
                                        "longline.db-lock"};
    note(STARTED, 0, 0, NULL, 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char file[PATH_MAX + 32];
        struct stat status;
        snprintf(file, sizeof file, "%s/%s", folder, files[i]);
        if (stat(file, &status) == 0)
            note(FOUND, status.st_ino, status.st_size, files[i], strlen(files[i]));
    }
}

static int open_file(const char *path, int flags, mode_t mode) {
    char real[PATH_MAX];
    snprintf(real, sizeof real, "%s", path);
    const char *name = path[0] == '/' ? name_of(real) : NULL;
    if (!name || !(flags & O_CREAT))
        return next_open(path, flags, mode);
    pthread_mutex_lock(&mutex);
    bool is_new = access(path, F_OK) != 0;
    int fd = next_open(path, flags, mode);
    struct stat status;
    if (fd >= 0 && is_new && fstat(fd, &status) == 0)
        note(CREATED, status.st_ino, 0, name, strlen(name));
    else if (fd >= 0 && flags & O_TRUNC && fstat(fd, &status) == 0)
        note(CUT, status.st_ino, 0, NULL, 0);
    pthread_mutex_unlock(&mutex);
    return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_file(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_file(path, flags, mode);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    uint64_t inode = inode_of(fd);
    if (!inode)
        return next_pwrite(fd, data, len, offset);
    pthread_mutex_lock(&mutex);
    note(WRITTEN, inode, offset, data, len);
    ssize_t written = next_pwrite(fd, data, len, offset);
    pthread_mutex_unlock(&mutex);
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) {
    return pwrite64(fd, data, len, offset);
}

/* Only copies of files are written so. */
ssize_t write(int fd, const void *data, size_t len) {
    static ssize_t (*next_write)(int, const void *, size_t);
    if (!next_write)
        FIND(write, "write");
    uint64_t inode = inode_of(fd);
    if (inode)
        note(WRITTEN, inode, lseek(fd, 0, SEEK_CUR), data, len);
    return next_write(fd, data, len);
}

int ftruncate64(int fd, off64_t size) {
    uint64_t inode = inode_of(fd);
    if (!inode)
        return next_ftruncate(fd, size);
    pthread_mutex_lock(&mutex);
    note(CUT, inode, size, NULL, 0);
    int status = next_ftruncate(fd, size);
    pthread_mutex_unlock(&mutex);
    return status;
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}

int rename(const char *from, const char *to) {
    const char *name = name_of(from), *new = name_of(to);
    char names[2 * PATH_MAX];
    if (!name || !new)
        return next_rename(from, to);
    int len = snprintf(names, sizeof names, "%s%c%s", name, 0, new);
    pthread_mutex_lock(&mutex);
    note(RENAMED, 0, 0, names, (size_t)len);
    int status = next_rename(from, to);
    pthread_mutex_unlock(&mutex);
    return status;
}

int unlink(const char *path) {
    const char *name = name_of(path);
    if (!name || access(path, F_OK) != 0)
        return next_unlink(path);
    pthread_mutex_lock(&mutex);
    note(REMOVED, 0, 0, name, strlen(name));
    int status = next_unlink(path);
    pthread_mutex_unlock(&mutex);
    return status;
}

static int sync_with(int (*next)(int), int fd) {
    uint64_t inode = inode_of(fd);
    if (!inode && !is_folder(fd))
        return next(fd);
    pthread_mutex_lock(&mutex);
    bool fails = inode && (uint64_t)(rand_r(&seed) % 1000) < control->failing;
    int error = fails ? (int)control->error : 0;
    usleep((useconds_t)control->sync_us);
    control->failed += fails;
    note(inode ? SYNCED : SYNCED_FOLDER, inode, error, NULL, 0);
    pthread_mutex_unlock(&mutex);
    errno = error;
    return error ? -1 : 0;
}

int fsync(int fd) {
    return sync_with(next_fsync, fd);
}

int fdatasync(int fd) {
    return sync_with(next_fdatasync, fd);
}
