#include "process/successor.h"
#include "base/log.h"
#include "process/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FAILURE "LONGLINE_UPGRADE_FAILURE" /* successor_failure() */

enum { OUTPUT_MAX_BYTES = 256, ARGUMENTS_MAX = 256 };

extern char **environ;

static struct {
    int argc;
    char **argv;
    char path[PATH_MAX];
    char failure[2 * OUTPUT_MAX_BYTES];
    int previous; /* the program that was there before; -1: there was none, or it is settled */
    int present;  /* the one that runs; -1: not open */
} self = {.previous = -1, .present = -1};

static struct check {
    uv_process_t process;
    uv_timer_t timer;
    int output;
    bool is_late;
    void (*done)(const char *error);
    int open_handles;
} *running;

/* --- How it was started ----------------------------------------------------------------------- */

static void find_path(void) {
    const char *name = (const char *)getauxval(AT_EXECFN);
    char folder[PATH_MAX];
    if (!name)
        return;
    int len = 0;
    bool is_descriptor = strncmp(name, "/dev/fd/", 8) == 0 || strncmp(name, "/proc/", 6) == 0;
    if (is_descriptor) /* fexecve(3): it may stand for anything, or nothing, by then */
        len = (int)readlink("/proc/self/exe", self.path, sizeof self.path - 1);
    else if (*name == '/')
        len = snprintf(self.path, sizeof self.path, "%s", name);
    else if (getcwd(folder, sizeof folder))
        len = snprintf(self.path, sizeof self.path, "%s/%s", folder, name);
    if (len >= (int)sizeof self.path)
        *self.path = '\0';
}

void successor_init(int argc, char **argv, int *state) {
    const char *handover = getenv(SUCCESSOR_HANDOVER), *failure = getenv(FAILURE);
    int path_at = 0;
    self.argc = argc;
    self.argv = argv;
    if (handover && sscanf(handover, "%d %d %n", state, &self.previous, &path_at) == 2 && path_at) {
        snprintf(self.path, sizeof self.path, "%s", handover + path_at);
        fcntl(*state, F_SETFD, FD_CLOEXEC);
        if (self.previous >= 0)
            fcntl(self.previous, F_SETFD, FD_CLOEXEC);
        snprintf(self.failure, sizeof self.failure, "%s", failure ? failure : "");
        prctl(PR_SET_NAME, "longline"); /* started by a descriptor, it would have a number */
    } else {
        *state = self.previous = -1;
        find_path();
    }
    unsetenv(SUCCESSOR_HANDOVER);
    unsetenv(FAILURE);
}

const char *successor_failure(void) {
    return *self.failure ? self.failure : NULL;
}

const char *successor_path(void) {
    return self.path;
}

/* --- The check -------------------------------------------------------------------------------- */

/* The first line of what it wrote. */
static void read_output(const struct check *check, char line[OUTPUT_MAX_BYTES]) {
    ssize_t len = read(check->output, line, OUTPUT_MAX_BYTES - 1);
    line[len > 0 ? len : 0] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
}

static void on_check_closed(uv_handle_t *handle) {
    struct check *check = handle->data;
    if (--check->open_handles)
        return;
    close(check->output);
    free(check);
}

/* Tells the outcome, unless nobody wants to know it any more. */
static void end(struct check *check, const char *error) {
    if (running == check) {
        running = NULL;
        check->done(error);
    }
    uv_close((uv_handle_t *)&check->process, on_check_closed);
    uv_close((uv_handle_t *)&check->timer, on_check_closed);
}

static void on_exit_of_check(uv_process_t *process, int64_t status, int number) {
    struct check *check = process->data;
    char line[OUTPUT_MAX_BYTES], error[2 * OUTPUT_MAX_BYTES];
    read_output(check, line);
    const char *colon = *line ? ": " : "";
    if (check->is_late)
        snprintf(error, sizeof error, "it did not answer within %d s%s%s",
                 SUCCESSOR_CHECK_MS / 1000, colon, line);
    else if (number)
        snprintf(error, sizeof error, "it was ended by signal %d%s%s", number, colon, line);
    else
        snprintf(error, sizeof error, "it exits with %lld%s%s", (long long)status, colon, line);
    bool ok = !check->is_late && !number && !status;
    if (ok && strncmp(line, "longline ", 9) != 0) {
        snprintf(error, sizeof error, "it is not longline%s%s", colon, line);
        ok = false;
    }
    end(check, ok ? NULL : error);
}

/* It leads a group of processes of its own, which all end. */
static void on_late(uv_timer_t *timer) {
    struct check *check = timer->data;
    check->is_late = true;
    kill(-check->process.pid, SIGKILL);
}

static bool is_for_us(const char *variable) {
    static const char *const names[] = {"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_FD", "LISTEN_PID="};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* The environment without what is meant for this process alone; NULL when memory is out. */
static char **child_environment(void) {
    size_t count = 0, kept = 0;
    while (environ[count])
        count++;
    char **copy = calloc(count + 1, sizeof *copy);
    for (size_t i = 0; copy && i < count; i++)
        if (!is_for_us(environ[i]))
            copy[kept++] = environ[i];
    return copy;
}

/* Runs it, with its output to `output`. 0, or libuv's error. */
static int spawn(uv_loop_t *loop, struct check *check, const char *version, char **environment,
                 int output) {
    char *arguments[ARGUMENTS_MAX] = {self.path, "serve", SUCCESSOR_CHECK_FLAG, (char *)version};
    for (int i = 2; i < self.argc && i + 2 < ARGUMENTS_MAX - 1; i++)
        arguments[i + 2] = self.argv[i];
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = output},
        {.flags = UV_INHERIT_FD, .data.fd = output},
    };
    uv_process_options_t options = {
        .file = self.path,
        .args = arguments,
        .env = environment,
        .exit_cb = on_exit_of_check,
        .flags = UV_PROCESS_DETACHED,
        .stdio = stdio,
        .stdio_count = 3,
    };
    return uv_spawn(loop, &check->process, &options);
}

static int start_check(uv_loop_t *loop, struct check *check, const char *version) {
    int ends[2];
    char **environment = child_environment();
    if (!environment || pipe2(ends, O_CLOEXEC) != 0) {
        int error = -errno;
        free(environment);
        return error;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    check->output = ends[0];
    check->open_handles = 2;
    check->process.data = check->timer.data = check;
    uv_timer_init(loop, &check->timer);
    int error = spawn(loop, check, version, environment, ends[1]);
    free(environment);
    close(ends[1]);
    if (!error)
        uv_timer_start(&check->timer, on_late, SUCCESSOR_CHECK_MS, 0);
    return error;
}

void successor_check(uv_loop_t *loop, const char *version, void (*done)(const char *error)) {
    struct check *check = calloc(1, sizeof *check);
    if (!check || !*self.path) {
        free(check);
        done(check ? "the path of the program is not known" : "out of memory");
        return;
    }
    check->output = -1;
    check->done = done;
    running = check;
    int error = start_check(loop, check, version);
    if (error && check->open_handles) { /* libuv wants its process closed, also where none began */
        end(check, uv_strerror(error));
    } else if (error) {
        running = NULL;
        free(check);
        done(uv_strerror(error));
    }
}

void successor_cancel(void) {
    if (running)
        kill(-running->process.pid, SIGKILL);
    running = NULL;
}

/* --- Becoming it ------------------------------------------------------------------------------ */

int successor_make_state(void) {
    return sandbox_memory_file("longline-handover");
}

/* Whether `previous` is told: the program that runs now. */
static bool tell(int state, int previous) {
    char text[PATH_MAX + 32];
    sandbox_hand_over();
    snprintf(text, sizeof text, "%d %d %s", state, previous, self.path);
    fcntl(state, F_SETFD, 0);
    if (previous >= 0)
        fcntl(previous, F_SETFD, 0);
    return setenv(SUCCESSOR_HANDOVER, text, 1) == 0;
}

static void go_back(int state, int previous, const char *failure) {
    if (previous < 0)
        return;
    fcntl(previous, F_SETFD, FD_CLOEXEC);
    if (tell(state, -1) && setenv(FAILURE, failure, 1) == 0)
        syscall(SYS_execveat, previous, "", self.argv, environ, AT_EMPTY_PATH);
    log_error("upgrade failed: the old version cannot be started either", "path", self.path,
              "failure", failure, "error", strerror(errno), NULL);
}

bool successor_open_present(void) {
    self.present = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    return self.present >= 0;
}

void successor_close_present(void) {
    if (self.present >= 0)
        close(self.present);
    self.present = -1;
}

void successor_become(int state) {
    char failure[OUTPUT_MAX_BYTES];
    if (tell(state, self.present))
        execve(self.path, self.argv, environ);
    snprintf(failure, sizeof failure, "%s", strerror(errno));
    go_back(state, self.present, failure);
}

void successor_go_back(int state, const char *failure) {
    char text[sizeof self.failure];
    snprintf(text, sizeof text, "the new one did not start: %s", failure);
    go_back(state, self.previous, text);
}

void successor_settle(void) {
    if (self.previous >= 0)
        close(self.previous);
    self.previous = -1;
}
