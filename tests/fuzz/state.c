#include "state.h"
#include "api/api.h"
#include "api/refusals.h"
#include "base/counters.h"
#include "http/handover.h"
#include "http/limiter.h"
#include "server.h"
#include "upgrade.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { QUIET_TURNS = 50 };

static struct pack out;

void state_set_up(void) {
    upgrade_init(&(struct upgrade_parts){.loop = loop, .connections = &shared});
}

static void write_state(void) {
    struct {
        char magic[8], version[8];
        uint64_t index;
    } beginning = {"longline", UPGRADE_STATE_VERSION, 0};
    memset(&out, 0, sizeof out);
    out.fd = memfd_create("state", MFD_CLOEXEC);
    pack_raw(&out, &beginning, sizeof beginning);
    conn_take_out_all(&shared, &out);
    turns(2);
    beginning.index = pack_at(&out);
    for (int time = 0; time < 3; time++)
        pack_number(&out, 0);
    pack_bytes(&out, SLICE("1.0"));
    pack_bytes(&out, SLICE("left"));
    pack_number(&out, 0); /* nothing listens */
    conn_save_sockets(&shared, &out);
    counters_save(&out);
    limiter_save(api.limiter, &out);
    limiter_free(api.limiter); /* another process has one of its own */
    api.limiter = limiter_new(300, 60 * 1000);
    assert(api.limiter);
    refusals_save(&out);
    conn_save_all(&shared, &out);
    assert(pack_finish(&out));
    assert(pwrite(out.fd, &beginning, sizeof beginning, 0) == sizeof beginning);
}

static void keep_state(void) {
    static int number;
    char path[256], bytes[65536];
    ssize_t len = pread(out.fd, bytes, sizeof bytes, 0);
    if (!getenv("FUZZ_STATES") || len == sizeof bytes)
        return;
    snprintf(path, sizeof path, "%s/%d", getenv("FUZZ_STATES"), ++number);
    FILE *file = fopen(path, "wb");
    assert(file && fwrite(bytes, 1, (size_t)len, file) == (size_t)len);
    fclose(file);
}

/* What exec(2) would do: the connections are gone, and their descriptors are not. */
static void lose_connections(void) {
    int kept[CLIENTS_MAX];
    for (int i = 0; i < CLIENTS_MAX; i++)
        kept[i] = dup(SERVER_FD + i);
    conn_close_all(&shared);
    while (shared.open)
        uv_run(loop, UV_RUN_NOWAIT);
    assert(!counters.streams && !counters.polls_parked);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (kept[i] >= 0)
            dup2(kept[i], SERVER_FD + i);
        close(kept[i]);
    }
}

static void take_over(void) {
    static struct upgrade_state state;
    char error[256];
    assert(upgrade_open(&state, out.fd, error, sizeof error));
    assert(state.is_known && !unpack_number(&state.sockets));
    shared.is_holding = false;
    upgrade_finish(&state, out.fd);
    turn();
    conn_restore_rest();
}

void state_hand_over(void) {
    conn_hold_all(&shared);
    for (int i = 0; i < QUIET_TURNS && !conn_all_quiet(&shared); i++)
        turn();
    if (!conn_all_quiet(&shared)) {
        conn_release_all(&shared);
        return;
    }
    write_state();
    keep_state();
    lose_connections();
    take_over();
}
