#include "cli/state.h"
#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_WAIT_MS = 2000, LOCK_PAUSE_MS = 20 };

struct state {
    char path[PATH_MAX], new_path[PATH_MAX + 8], directory[PATH_MAX];
    int lock_fd;
};

static bool sync_folder(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    /* Some file systems cannot sync a folder, and need not. */
    bool is_synced = fsync(fd) == 0 || errno == EINVAL;
    int error = errno;
    close(fd);
    errno = error;
    return is_synced;
}

/* What a folder is called stands in the one above it. One that cannot be read cannot be synced. */
static bool sync_parent(const char *path) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    return sync_folder(dirname(copy)) || errno == EACCES;
}

/* Makes the folders in front of the last slash that are missing. */
static bool make_folders(const char *path) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool is_made = mkdir(folder, 0700) == 0;
        if (!is_made && errno != EEXIST)
            return false;
        if (is_made && !sync_parent(folder)) {
            int error = errno;
            rmdir(folder); /* the next start must not find it, and count on it */
            errno = error;
            return false;
        }
        *slash = '/';
    }
    return true;
}

/* False when it is too long, or the environment names no folder. */
static bool choose_path(struct state *state, const char *command, struct slice identity) {
    const char *base = getenv("XDG_STATE_HOME"), *home = getenv("HOME"), *below = "";
    unsigned char hash[8];
    char name[2 * sizeof hash + 1];
    if (!base || *base != '/') {
        base = home && *home == '/' ? home : NULL;
        below = "/.local/state";
    }
    if (!base)
        return false;
    crypto_generichash_state hashing; /* 128 bits at least; half of them tell files apart */
    unsigned char whole[crypto_generichash_BYTES];
    crypto_generichash_init(&hashing, NULL, 0, sizeof whole);
    crypto_generichash_update(&hashing, (const unsigned char *)identity.data, identity.len);
    crypto_generichash_final(&hashing, whole, sizeof whole);
    memcpy(hash, whole, sizeof hash);
    sodium_bin2hex(name, sizeof name, hash, sizeof hash);
    int len = snprintf(state->path, sizeof state->path, "%s%s/longline/%s-%s", base, below, command,
                       name);
    return (size_t)len < sizeof state->path;
}

static bool set_path(struct state *state, const char *path, const char *command,
                     struct slice identity, char *error, size_t error_size) {
    if (path && (!*path || strlen(path) >= sizeof state->path)) {
        snprintf(error, error_size, "--state: %s", *path ? strerror(ENAMETOOLONG) : "no file");
        return false;
    }
    if (path)
        snprintf(state->path, sizeof state->path, "%s", path);
    else if (!choose_path(state, command, identity)) {
        snprintf(error, error_size,
                 "no place for the state: set XDG_STATE_HOME or HOME, or "
                 "--state FILE");
        return false;
    }
    char copy[PATH_MAX];
    if (realpath(state->path, copy)) /* a link stays one */
        snprintf(state->path, sizeof state->path, "%s", copy);
    memcpy(copy, state->path, sizeof copy);
    snprintf(state->directory, sizeof state->directory, "%s", dirname(copy));
    snprintf(state->new_path, sizeof state->new_path, "%s.new", state->path);
    return true;
}

/* Of a copy that was killed, a child that has not become its command yet may hold it for a moment.
 * False with errno. */
static bool take_lock(int fd) {
    int64_t end_ms = clock_steady_ms() + LOCK_WAIT_MS;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK || clock_steady_ms() >= end_ms)
            return false;
        usleep(LOCK_PAUSE_MS * 1000);
    }
    return true;
}

static enum state_opened lock(struct state *state, char *error, size_t error_size) {
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s.lock", state->path);
    if (make_folders(state->path))
        state->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (state->lock_fd < 0) {
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return STATE_FAILED;
    }
    if (take_lock(state->lock_fd))
        return STATE_OPEN;
    bool is_locked = errno == EWOULDBLOCK;
    if (is_locked)
        snprintf(error, error_size, "another copy does this already: %s is locked", path);
    else
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
    return is_locked ? STATE_LOCKED : STATE_FAILED;
}

enum state_opened state_open(struct state **state, const char *path, const char *command,
                             struct slice identity, char *error, size_t error_size) {
    enum state_opened opened = STATE_FAILED;
    *state = calloc(1, sizeof **state);
    if (!*state) {
        snprintf(error, error_size, "out of memory");
        return STATE_FAILED;
    }
    (*state)->lock_fd = -1;
    if (set_path(*state, path, command, identity, error, error_size))
        opened = lock(*state, error, error_size);
    if (opened != STATE_OPEN) {
        state_close(*state);
        *state = NULL;
    }
    return opened;
}

void state_close(struct state *state) {
    if (state && state->lock_fd >= 0)
        close(state->lock_fd);
    free(state);
}

const char *state_path(const struct state *state) {
    return state->path;
}

/* TS EPOCH, as the programs of docs/consumers.md keep it. The text is not empty. */
static bool parse(struct slice text, struct feed_place *place) {
    struct slice ts = {0}, epoch;
    *place = (struct feed_place){0};
    if (text.data[text.len - 1] != '\n')
        return false;
    text.len--;
    slice_cut(&text, ' ', &ts);
    if (!slice_cut(&text, ' ', &epoch) || text.data || epoch.len > FEED_EPOCH_MAX ||
        slice_has_control(epoch))
        return false;
    memcpy(place->epoch, epoch.data, epoch.len);
    return slice_number(ts, INT64_MAX, &place->ts);
}

bool state_load(const struct state *state, struct feed_place *place, bool *is_bad) {
    char text[128];
    int fd = open(state->path, O_RDONLY | O_CLOEXEC);
    *is_bad = fd < 0 && errno != ENOENT;
    if (fd < 0)
        return false;
    ssize_t len = read(fd, text, sizeof text);
    close(fd);
    bool is_place = len > 0 && parse((struct slice){text, (size_t)len}, place);
    *is_bad = !is_place;
    return is_place;
}

bool state_save(struct state *state, const struct feed_place *place) {
    char text[64];
    int len = snprintf(text, sizeof text, "%" PRIu64 " %s\n", place->ts, place->epoch);
    int fd = open(state->new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    ssize_t wrote = write(fd, text, (size_t)len);
    if (wrote >= 0 && wrote < len)
        errno = ENOSPC;
    bool is_written = wrote == len && fsync(fd) == 0;
    int error = errno;
    close(fd);
    errno = error;
    return is_written && rename(state->new_path, state->path) == 0 && sync_folder(state->directory);
}
