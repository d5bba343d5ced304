/*
 * Fuzzes the state that passes from one program to the next at an upgrade. The input is that file;
 * its connections are the sockets of clients, which then ask for something more. Whatever stands in
 * it, nothing may be left of them in the end.
 *
 * The state comes from the same user's own process. So an input that names other descriptors than
 * those of the clients, or one twice, is none.
 */
#include "api/api.h"
#include "http/handover.h"
#include "server.h"
#include "state.h"
#include "upgrade.h"

#include <sys/mman.h>
#include <unistd.h>

static struct upgrade_state state;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    server_set_up();
    state_set_up();
    return 0;
}

static int make_file(struct slice bytes) {
    int fd = memfd_create("state", MFD_CLOEXEC);
    assert(fd >= 0 && write(fd, bytes.data, bytes.len) == (ssize_t)bytes.len);
    return fd;
}

/* Whether the descriptors are clients', each once; then those have connections. */
static bool open_clients(struct unpack sockets) {
    bool are_used[CLIENTS_MAX] = {false};
    for (uint64_t left = unpack_number(&sockets); left; left--) {
        uint64_t fd = unpack_number(&sockets);
        if (sockets.failed)
            break;
        if (fd < SERVER_FD || fd >= SERVER_FD + CLIENTS_MAX || are_used[fd - SERVER_FD])
            return false;
        are_used[fd - SERVER_FD] = true;
    }
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (are_used[i])
            client_pair(i);
    return true;
}

static void go_on(void) {
    static const char request[] = "GET /c?ts=0 HTTP/1.1\r\nHost: h\r\n\r\n"
                                  "POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    turns(3);
    for (int i = 0; i < CLIENTS_MAX; i++)
        client_send(&clients[i], slice_of(request));
    turns(3);
    time_passes(20 * 1000);
    turns(3);
    api.is_draining = true;
    conn_drain_all(&shared);
    turns(3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[256] = "";
    int fd = make_file((struct slice){(const char *)data, size});
    bool is_state = upgrade_open(&state, fd, error, sizeof error);
    assert(is_state == !*error);
    bool is_ours = is_state && !unpack_number(&state.sockets) && open_clients(state.sockets);
    if (!is_ours) {
        if (state.file.len)
            munmap((void *)state.file.data, state.file.len);
        close(fd);
        return -1;
    }
    server_open();
    upgrade_finish(&state, fd);
    go_on();
    conn_restore_rest();
    server_shut();
    for (int i = 0; i < CLIENTS_MAX; i++)
        close(SERVER_FD + i);
    return 0;
}
