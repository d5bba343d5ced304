// The load client of script/bench. It holds many long polls, publishes, and prints what that took
// as one line of JSON. It speaks to longline or to nchan (--dialect).
#include "client.h"
#include "modes.h"
#include "options.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const struct mode {
    const char *name;
    const char *help;
    void (*run)(struct options *options);
} modes[] = {
    {"spread", "--polls polls on as many channels, one publish to each: the wake-up latency",
     run_spread},
    {"fanout", "--polls polls on one channel, one publish, --rounds times: wakes per second",
     run_fanout},
    {"streams", "the same with --polls streams", run_streams},
    {"park", "--polls polls on --channels channels: the memory that each takes", run_park},
    {"write", "one push to each of --channels channels: the cost of the first and the last 100,000",
     run_write},
    {"pipeline", "what a second client waits beside one that pipelines without end", run_pipeline},
    {"expire", "what a second client waits when --polls polls end in one moment", run_expire},
    {"upgrade",
     "what a second client waits when the server becomes another program, --rounds times",
     run_upgrade},
    {"fsync", "4 KiB and fdatasync in the file --path, --rounds times", run_fsync},
};

enum { MODES = sizeof modes / sizeof *modes };

static void print_help(void) {
    puts("usage: polls MODE [options]\n"
         "The server must have just started: its channels are empty and nobody else uses it.\n"
         "modes:");
    for (size_t i = 0; i < MODES; i++)
        printf("  %-8s %s\n", modes[i].name, modes[i].help);
    fputs(options_help, stdout);
}

static void on_alarm(int number) {
    (void)number;
    static const char line[] = "polls: the deadline has passed\n";
    ssize_t written = write(STDERR_FILENO, line, sizeof line - 1);
    _exit(written < 0 ? 2 : 1);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        print_help();
        return 0;
    }
    struct options options = options_parse(argc, argv);
    if (options.parameters)
        longline_parameters = options.parameters;
    signal(SIGALRM, on_alarm);
    alarm((unsigned)options.deadline_seconds);
    raise_descriptor_limit();
    for (size_t i = 0; i < MODES; i++) {
        if (!strcmp(options.mode, modes[i].name)) {
            modes[i].run(&options);
            return 0;
        }
    }
    die("no mode %s; `polls --help` lists them", options.mode);
}
