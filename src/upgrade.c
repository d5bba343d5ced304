#include "upgrade.h"
#include "api/api.h"
#include "api/refusals.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/turn.h"
#include "http/handover.h"
#include "http/server.h"
#include "process/notify.h"
#include "process/successor.h"
#include "version.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The beginning of the file; all of it stays as it is, whatever the version. */
struct beginning {
    char magic[8];
    char version[8]; /* of what follows the sockets; "" when the rest is missing */
    uint64_t index;  /* where the sockets stand, and what follows them */
};

static const char magic[8] = {'l', 'o', 'n', 'g', 'l', 'i', 'n', 'e'};

static enum step { SERVING, CHECKING, SETTLING, HELD, CLOSING } step;
static struct upgrade_parts parts;
static struct pack out;
static struct buf left; /* upgrade_parts.leave_store() */
static struct upgrade_times times;
static struct upgrade_state *taken_over;
static struct turn_task become;
static uv_timer_t patience; /* while it settles */

enum { SETTLE_MS = 10000 };

void upgrade_init(const struct upgrade_parts *given) {
    parts = *given;
    uv_timer_init(parts.loop, &patience);
    uv_unref((uv_handle_t *)&patience);
}

static void refuse(const char *reason) {
    step = SERVING;
    successor_close_present();
    log_error("upgrade failed: the old version goes on", "path", successor_path(), "error", reason,
              NULL);
    notify_status("READY=1", "Upgrade failed: %s", reason);
}

/* --- Saving ----------------------------------------------------------------------------------- */

/* What every version reads; where it begins goes into the header. */
static void save_sockets(struct beginning *header) {
    header->index = pack_at(&out);
    pack_number(&out, times.held_ns);
    pack_number(&out, times.quiet_ns);
    pack_number(&out, times.closed_ns);
    pack_bytes(&out, SLICE(LONGLINE_VERSION));
    pack_bytes(&out, (struct slice){left.data, left.len});
    server_save(&out);
    conn_save_sockets(parts.connections, &out);
}

static bool write_header(const struct beginning *header) {
    return pack_finish(&out) && pwrite(out.fd, header, sizeof *header, 0) == sizeof *header;
}

/* Without room for the whole, the connections are lost, and the listening sockets are not. */
static bool save_sockets_only(struct beginning *header) {
    int fd = out.fd;
    log_error("the connections cannot be handed over", "error", strerror(errno), NULL);
    memset(header->version, 0, sizeof header->version);
    if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0)
        return false;
    memset(&out, 0, sizeof out);
    out.fd = fd;
    pack_raw(&out, header, sizeof *header);
    save_sockets(header);
    return write_header(header);
}

static bool save(void) {
    struct beginning header = {.version = UPGRADE_STATE_VERSION};
    memcpy(header.magic, magic, sizeof header.magic);
    save_sockets(&header);
    counters_save(&out);
    limiter_save(api.limiter, &out);
    refusals_save(&out);
    conn_save_all(parts.connections, &out);
    return write_header(&header) || save_sockets_only(&header);
}

/* turn_task: the signals that came before they were blocked have been told. */
static void on_turn_end(struct turn_task *task __attribute__((unused))) {
    if (server_late_signal())
        kill(getpid(), server_late_signal());
    notify_at_work(); /* the next program's loop says it again when it runs */
    if (save())
        successor_become(out.fd);
    exit(EXIT_FAILURE);
}

/* The next program hears signals when it serves; until then they wait. */
static void on_store_closed(void) {
    times.closed_ns = uv_hrtime();
    server_block_signals(true);
    turn_task_init(&become, on_turn_end);
    turn_next(&become);
}

/* --- Its steps -------------------------------------------------------------------------------- */

static void on_quiet(bool is_quiet) {
    if (!is_quiet) {
        server_release();
        close(out.fd);
        refuse("requests are under way that do not end");
        return;
    }
    step = CLOSING;
    times.quiet_ns = uv_hrtime();
    struct beginning header = {.version = ""};
    pack_raw(&out, &header, sizeof header);
    server_take_out(&out);
    parts.leave_store(&left, on_store_closed);
}

static void on_unsettled(uv_timer_t *timer __attribute__((unused))) {
    refuse("the store does not get on: its disk is too slow, or too busy");
}

static void on_settled(void) {
    if (step != SETTLING)
        return;
    uv_timer_stop(&patience);
    const char *refusal = parts.refusal();
    int fd = refusal ? -1 : successor_make_state();
    if (fd < 0) {
        refuse(refusal ? refusal : strerror(errno));
        return;
    }
    memset(&out, 0, sizeof out);
    out.fd = fd;
    step = HELD;
    times.held_ns = uv_hrtime();
    server_hold(on_quiet);
}

static void on_checked(const char *error) {
    if (error) {
        refuse(error);
        return;
    }
    step = SETTLING;
    uv_timer_start(&patience, on_unsettled, SETTLE_MS, 0);
    parts.settle_store(on_settled);
}

void upgrade_begin(void) {
    if (step != SERVING) {
        log_info("an upgrade is under way already", NULL);
        return;
    }
    notify_reloading();
    log_info("upgrade begins", "path", successor_path(), NULL);
    const char *refusal = parts.refusal();
    if (!refusal && !successor_open_present())
        refusal = "/proc/self/exe cannot be opened, so there would be no way back";
    if (refusal) {
        refuse(refusal);
        return;
    }
    step = CHECKING;
    successor_check(parts.loop, UPGRADE_STATE_VERSION, on_checked);
}

void upgrade_cancel(void) {
    if (step == CHECKING)
        successor_cancel();
    else if (step == HELD)
        close(out.fd);
    successor_close_present();
    uv_timer_stop(&patience);
    step = SERVING;
}

/* --- Taking over ------------------------------------------------------------------------------ */

/* False with errno. */
static bool map(int fd, struct slice *file) {
    struct stat status;
    if (fstat(fd, &status) != 0)
        return false;
    size_t len = (size_t)status.st_size;
    if (!len)
        return true; /* and nothing to map */
    void *at = mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (at != MAP_FAILED)
        *file = (struct slice){at, len};
    return at != MAP_FAILED;
}

bool upgrade_open(struct upgrade_state *state, int fd, char *error, size_t error_size) {
    struct beginning header;
    *state = (struct upgrade_state){.file = SLICE("")};
    if (!map(fd, &state->file)) {
        snprintf(error, error_size, "what the old version handed over cannot be read: %s",
                 strerror(errno));
        return false;
    }
    bool ok = state->file.len >= sizeof header;
    if (ok)
        memcpy(&header, state->file.data, sizeof header);
    ok = ok && memcmp(header.magic, magic, sizeof magic) == 0 && header.index < state->file.len;
    if (ok) {
        state->sockets = unpack_of(slice_after(state->file, header.index));
        state->times.held_ns = unpack_number(&state->sockets);
        state->times.quiet_ns = unpack_number(&state->sockets);
        state->times.closed_ns = unpack_number(&state->sockets);
        struct slice from = unpack_bytes(&state->sockets);
        snprintf(state->from, sizeof state->from, "%.*s", (int)from.len, from.data);
        state->left = unpack_bytes(&state->sockets);
        state->is_known =
            strncmp(header.version, UPGRADE_STATE_VERSION, sizeof header.version) == 0;
        ok = !state->sockets.failed;
    }
    if (!ok)
        snprintf(error, error_size, "what the old version handed over makes no sense");
    return ok;
}

/* The rest stands behind the descriptors of the connections. */
static void find_rest(struct upgrade_state *state) {
    state->rest = state->sockets;
    for (uint64_t left = unpack_number(&state->rest); left && !state->rest.failed; left--)
        unpack_number(&state->rest);
}

static struct log_text ms_between(uint64_t from_ns, uint64_t to_ns) {
    return log_number((to_ns - from_ns) / 1000000);
}

static void log_upgraded(const struct upgrade_state *state, uint32_t connections) {
    const struct upgrade_times *at = &state->times;
    if (successor_failure()) {
        log_error("upgrade failed: the old version goes on", "path", successor_path(), "error",
                  successor_failure(), "connections", log_number(connections).text, "pause_ms",
                  ms_between(at->held_ns, at->started_ns).text, NULL);
        return;
    }
    log_info("upgraded", "from", state->from, "version", LONGLINE_VERSION, "connections",
             log_number(connections).text, "pause_ms", ms_between(at->held_ns, at->started_ns).text,
             "answering_ms", ms_between(at->held_ns, at->quiet_ns).text, "closing_ms",
             ms_between(at->quiet_ns, at->closed_ns).text, "starting_ms",
             ms_between(at->closed_ns, at->started_ns).text, "restoring_ms",
             ms_between(at->started_ns, uv_hrtime()).text, NULL);
}

/* All of the file has been read. */
static void on_restored(uint32_t connections, uint32_t lost) {
    struct upgrade_state *state = taken_over;
    if (lost)
        log_error("not all connections could be taken over", "lost", log_number(lost).text, NULL);
    munmap((void *)state->file.data, state->file.len);
    log_upgraded(state, connections);
}

void upgrade_finish(struct upgrade_state *state, int fd) {
    taken_over = state;
    close(fd);
    counters.upgrades += !successor_failure();
    state->times.started_ns = uv_hrtime();
    if (!state->is_known) {
        log_warn("the connections could not be taken over", NULL);
        on_restored(conn_drop_all(&state->sockets), 0);
        return;
    }
    find_rest(state);
    counters_restore(&state->rest);
    limiter_restore(api.limiter, &state->rest);
    refusals_restore(&state->rest);
    conn_restore_all(parts.connections, state->file, state->sockets, state->rest, on_restored);
}
