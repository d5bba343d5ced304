/*
 * Fuzzes the bytes of connections: how they come, and what becomes of them. The input is what the
 * clients send, and between it, behind a `~`, what happens:
 *
 *   ~0 … ~8  this client goes on, the first time with a connection of its own
 *   ~/       the server gets what was sent so far
 *   ~s ~m    a second passes; a minute
 *   ~p ~r    the client reads no more; it reads on
 *   ~. ~x    it sends no more; it hangs up
 *   ~u       the connections are handed over to another program, unless it drains
 *   ~d       the server drains
 *   ~~       a tilde
 *
 * Every client must get a reply to each request, in its form and in order, and nothing behind the
 * last one; and when all have gone, nothing may be left of them.
 */
#include "api/api.h"
#include "server.h"
#include "state.h"

#include <sys/socket.h>

enum { STEPS_MAX = 2000 };

static struct client *now; /* who goes on */
static struct buf unsent;  /* of it */

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    server_set_up();
    state_set_up();
    return 0;
}

static void send_now(void) {
    if (now)
        client_send(now, (struct slice){unsent.data ? unsent.data : "", unsent.len});
    buf_reset(&unsent, SIZE_MAX);
    turns(3);
}

/* --- What happens ----------------------------------------------------------------------------- */

static void switch_to(int index) {
    now = &clients[index];
    if (now->server_fd < 0)
        client_open(index);
}

static void step(char what) {
    send_now();
    if (what >= '0' && what <= '8')
        switch_to(what - '0');
    else if (what == 's' || what == 'm')
        time_passes(what == 's' ? 1000 : 60 * 1000);
    else if (what == 'p' || what == 'r')
        now->is_paused = what == 'p', now->is_lax |= what == 'p';
    else if (what == 'x')
        client_close(now);
    else if (what == '.' && now->fd >= 0)
        now->is_lax = true, shutdown(now->fd, SHUT_WR);
    else if (what == 'u' && !api.is_draining)
        state_hand_over();
    else if (what == 'd')
        api.is_draining = true, conn_drain_all(&shared);
    turns(2);
}

/* Everything comes to its end: polls by their time, requests that came in part, idle ones. */
static void end_all(void) {
    send_now();
    for (int i = 0; i < CLIENTS_MAX; i++)
        clients[i].is_paused = false;
    for (int i = 0; i < 40 && shared.open; i++) {
        turns(4);
        if (i == 12) {
            api.is_draining = true;
            conn_drain_all(&shared);
        }
        time_passes(10 * 1000);
    }
    turns(4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    server_open();
    switch_to(0);
    int steps = 0;
    for (size_t i = 0; i < size && steps < STEPS_MAX; i++) {
        bool is_step = data[i] == '~' && i + 1 < size;
        i += is_step;
        if (is_step && data[i] != '~')
            step((char)data[i]), steps++;
        else
            buf_putc(&unsent, (char)data[i]);
    }
    end_all();
    for (int i = 0; i < CLIENTS_MAX; i++)
        client_check(&clients[i]);
    server_shut();
    now = NULL;
    buf_deinit(&unsent);
    return 0;
}
