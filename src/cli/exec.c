/*
 * The command gets the body on standard input, as a file in memory: it may read it or not, twice or
 * never. Everything else stands in its environment, which has little besides. Nothing that somebody
 * sent is ever an argument, and no shell comes near it.
 *
 * The command leads a session of its own, which is what ends with it. It has no terminal: one that
 * asks there fails at once, where as a job in the background it would stop and say nothing.
 */
#include "cli/exec.h"
#include "base/clock.h"
#include "cli/courier.h"
#include "cli/stop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

enum { TIMEOUT_MAX_S = 86400, GRACE_MS = 5000 };

struct exec {
    char **command;
    struct buf identity;
    int64_t timeout_ms; /* 0: none */
};

/* --- The environment -------------------------------------------------------------------------- */

/* Variables, one behind the other, each with its NUL. */
static void put(struct buf *out, const char *name, const char *value) {
    buf_puts(out, name);
    buf_putc(out, '=');
    buf_puts(out, value);
    buf_putc(out, '\0');
}

static void put_own(struct buf *out) {
    static const char *const names[] = {"PATH",   "HOME",     "USER", "LOGNAME", "SHELL", "LANG",
                                        "LC_ALL", "LC_CTYPE", "TZ",   "TMPDIR",  "TERM"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value)
            put(out, names[i], value);
    }
}

/* X-GitHub-Event as LONGLINE_HEADER_X_GITHUB_EVENT. A name with anything but letters, digits and -
 * is left out: it could stand for another one. */
static void put_header(struct buf *out, const char *name, const char *value) {
    struct buf variable = {0};
    buf_puts(&variable, "LONGLINE_HEADER_");
    for (; *name; name++) {
        char c = *name;
        bool is_lower = c >= 'a' && c <= 'z';
        if (!is_lower && c != '-' && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9'))
            break;
        buf_putc(&variable, is_lower ? (char)(c - 'a' + 'A') : c == '-' ? '_' : c);
    }
    buf_putc(&variable, '\0');
    if (!*name && !variable.failed)
        put(out, variable.data, value);
    out->failed |= variable.failed;
    buf_deinit(&variable);
}

static void put_webhook(struct buf *out, const struct webhook *webhook) {
    const char *name, *value;
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, webhook->ts);
    put(out, "LONGLINE_TS", number);
    snprintf(number, sizeof number, "%" PRIu64, webhook->at);
    put(out, "LONGLINE_AT", number);
    put(out, "LONGLINE_METHOD", webhook->method.data);
    put(out, "LONGLINE_PATH", webhook->path.data);
    put(out, "LONGLINE_QUERY", webhook->query.data);
    put(out, "LONGLINE_FROM", webhook->from.data);
    for (struct slice rest = webhook_headers(webhook); webhook_next_header(&rest, &name, &value);)
        put_header(out, name, value);
}

/* The pointers to the variables in `text`, which free() takes; NULL without memory. */
static char **make_environment(const struct webhook *webhook, struct buf *text) {
    put_own(text);
    put_webhook(text, webhook);
    size_t count = 0;
    for (size_t i = 0; !text->failed && i < text->len; i++)
        count += !text->data[i];
    char **variables = text->failed ? NULL : calloc(count + 1, sizeof *variables);
    char *at = text->data;
    for (size_t i = 0; variables && i < count; i++, at += strlen(at) + 1)
        variables[i] = at;
    return variables;
}

/* --- The command ------------------------------------------------------------------------------ */

/* The body as a file that is read from its beginning; -1 and errno when there is no room. */
static int open_body(const struct buf *body) {
    int fd = memfd_create("webhook", MFD_CLOEXEC);
    for (size_t at = 0; fd >= 0 && at < body->len;) {
        ssize_t wrote = write(fd, body->data + at, body->len - at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0) {
            int error = errno;
            close(fd);
            errno = error;
            return -1;
        }
        at += (size_t)wrote;
    }
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

/* It gets standard input, output and error, and nothing else that is open here: libcurl does not
 * mark its connections. */
static void keep_to_ourselves(void) {
    DIR *open = opendir("/proc/self/fd");
    for (struct dirent *entry; open && (entry = readdir(open));)
        if (atoi(entry->d_name) > STDERR_FILENO)
            fcntl(atoi(entry->d_name), F_SETFD, FD_CLOEXEC);
    if (open)
        closedir(open);
}

/* In the child: becomes the command. Does not return; what it writes is why it could not. */
__attribute__((noreturn)) static void become(char **command, char **environment, int body_fd,
                                             pid_t parent, int error_fd) {
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* so that no other one runs beside it */
    if (getppid() == parent && dup2(body_fd, STDIN_FILENO) >= 0)
        execvpe(command[0], command, environment);
    int error = errno;
    _exit(write(error_fd, &error, sizeof error) == sizeof error ? EX_UNAVAILABLE : EX_OSERR);
}

/* Starts it; 0, or an errno. */
static int start(char **command, char **environment, int body_fd, pid_t *pid) {
    int fds[2], error = 0;
    pid_t parent = getpid();
    if (pipe2(fds, O_CLOEXEC) != 0)
        return errno;
    keep_to_ourselves();
    *pid = fork();
    if (*pid == 0)
        become(command, environment, body_fd, parent, fds[1]);
    if (*pid < 0)
        error = errno;
    close(fds[1]);
    if (!error && read(fds[0], &error, sizeof error) > 0)
        waitpid(*pid, NULL, 0);
    close(fds[0]);
    return error;
}

/* Waits for the end of a process, up to `ms`; false when it goes on. Ends early when we must. */
static bool wait_for(int pid_fd, int64_t ms, bool until_stop) {
    int64_t end_ms = clock_steady_ms() + ms;
    for (;;) {
        struct pollfd fds[1 + STOP_FDS] = {{.fd = pid_fd, .events = POLLIN}};
        size_t count = until_stop ? 1 + stop_fds(fds + 1) : 1;
        int64_t left_ms = end_ms - clock_steady_ms();
        poll(fds, count, left_ms > 1000 ? 1000 : left_ms > 0 ? (int)left_ms : 0);
        if (fds[0].revents & POLLIN)
            return true;
        if (left_ms <= 0 || (until_stop && stop_is_asked()))
            return false;
    }
}

/* How it ended. */
enum ending { ENDED_BY_ITSELF, ENDED_LATE, ENDED_BY_STOP };

/* Waits until it has ended, by itself or by us, and takes its status. What we end, we end with all
 * that it started. */
static enum ending finish(const struct exec *exec, pid_t pid, int *status) {
    enum ending ending = ENDED_BY_ITSELF;
    int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0); /* glibc has a function since 2.36 */
    if (pid_fd >= 0 &&
        !wait_for(pid_fd, exec->timeout_ms ? exec->timeout_ms : INT64_MAX / 2, true)) {
        ending = stop_is_asked() ? ENDED_BY_STOP : ENDED_LATE;
        kill(-pid, SIGTERM);
        wait_for(pid_fd, GRACE_MS, false);
        kill(-pid, SIGKILL);
    }
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
    if (pid_fd >= 0)
        close(pid_fd);
    return ending;
}

/* What ends because of us has not said that it is done, whatever its exit code. */
static void judge(int status, enum ending ending, struct courier_result *result) {
    char *text = result->text;
    size_t size = sizeof result->text;
    if (WIFEXITED(status))
        result->code = WEXITSTATUS(status);
    if (ending == ENDED_BY_STOP) {
        result->verdict = COURIER_STOPPED;
        snprintf(text, size, "stopped");
    } else if (ending == ENDED_LATE) {
        snprintf(text, size, "not done in time");
    } else if (WIFSIGNALED(status)) {
        snprintf(text, size, "ended by signal %d", WTERMSIG(status));
    } else if (!WIFEXITED(status)) {
        snprintf(text, size, "nobody told how it ended");
    } else if (result->code == EX_OK) {
        result->verdict = COURIER_CONFIRMED;
    } else if (result->code == EX_DATAERR) {
        result->verdict = COURIER_REJECTED;
    }
}

static void attempt(void *context, const struct webhook *webhook, struct courier_result *result) {
    const struct exec *exec = context;
    struct buf text = {0};
    char **environment = make_environment(webhook, &text);
    int body_fd = environment ? open_body(&webhook->body) : -1;
    int error = environment ? errno : ENOMEM;
    bool can_never = false;
    pid_t pid = -1;
    if (body_fd >= 0) {
        error = start(exec->command, environment, body_fd, &pid);
        can_never = error == ENOENT || error == EACCES || error == ENOEXEC || error == ENOTDIR;
        close(body_fd);
    }
    if (!error) {
        int status = -1; /* as long as nobody has told its end, it has not succeeded */
        enum ending ending = finish(exec, pid, &status);
        judge(status, ending, result);
    } else {
        snprintf(result->text, sizeof result->text, "%s: %s", exec->command[0], strerror(error));
    }
    if (can_never) {
        result->verdict = COURIER_IMPOSSIBLE;
        result->code = EX_UNAVAILABLE;
    }
    free(environment);
    buf_deinit(&text);
}

static int run(struct exec *exec, const struct options *options) {
    /* If we began with it ignored, nobody would tell how a command ends. */
    signal(SIGCHLD, SIG_DFL);
    if (options->timeout && !options_seconds(options->timeout, TIMEOUT_MAX_S, &exec->timeout_ms))
        return options_complain(EX_USAGE, "--timeout is a number of seconds up to 86400");
    for (char **word = exec->command; *word; word++) {
        buf_puts(&exec->identity, *word);
        buf_putc(&exec->identity, '\0');
    }
    struct courier courier = {
        .name = "exec",
        .code_name = "exit",
        .out = stderr, /* standard output is the command's */
        .identity = {exec->identity.data, exec->identity.len},
        .attempt = attempt,
        .context = exec,
    };
    return courier_run(&courier, options);
}

int exec_run(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_EXEC, argc, argv, error, sizeof error))
        return options_complain(EX_USAGE, "%s", error);
    if (options.help) {
        options_help(COMMAND_EXEC);
        return EX_OK;
    }
    if (options.word_count < 2)
        return options_complain(EX_USAGE, "usage: longline exec [OPTION]... URL -- CMD...");
    char **command = calloc((size_t)options.word_count, sizeof *command);
    if (!command)
        return options_complain(EX_OSERR, "out of memory");
    memcpy(command, options.words + 1, ((size_t)options.word_count - 1) * sizeof *command);
    struct exec exec = {.command = command};
    int code = run(&exec, &options);
    buf_deinit(&exec.identity);
    free(command);
    return code;
}
