#include "cli/stop.h"
#include "base/clock.h"
#include "cli/clocks.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t is_asked;
static bool output_matters;
static int pipe_fds[2] = {-1, -1};

static void on_signal(int number) {
    is_asked = number;
    /* A full pipe has already said it. */
    if (write(pipe_fds[1], "", 1) < 0)
        is_asked = number;
}

void stop_init(bool watches_output) {
    output_matters = watches_output;
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        pipe_fds[0] = pipe_fds[1] = -1; /* then a wait ends a second later */
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

size_t stop_fds(struct pollfd fds[STOP_FDS]) {
    size_t count = 0;
    if (pipe_fds[0] >= 0)
        fds[count++] = (struct pollfd){.fd = pipe_fds[0], .events = POLLIN};
    if (output_matters) /* POLLERR comes without being asked for */
        fds[count++] = (struct pollfd){.fd = STDOUT_FILENO};
    return count;
}

bool stop_is_asked(void) {
    struct pollfd output = {.fd = STDOUT_FILENO};
    if (output_matters && poll(&output, 1, 0) > 0 && (output.revents & POLLERR))
        is_asked = SIGPIPE;
    return is_asked != 0;
}

void stop_sleep(int64_t ms) {
    int64_t end_ms = clock_steady_ms() + ms;
    struct clocks began = clocks_now();
    while (!stop_is_asked() && ms > 0 && !clocks_have_jumped(&began)) {
        struct pollfd fds[STOP_FDS];
        size_t count = stop_fds(fds);
        poll(fds, count, ms < 1000 ? (int)ms : 1000);
        ms = end_ms - clock_steady_ms();
    }
}
