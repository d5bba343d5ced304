/* The command line: picks the command. `serve` is serve.c. */
#include "base/config.h"
#include "base/hash.h"
#include "base/log.h"
#include "cli/completion.h"
#include "cli/curl.h"
#include "cli/doctor.h"
#include "cli/exec.h"
#include "cli/forward.h"
#include "cli/health.h"
#include "cli/help.h"
#include "cli/new.h"
#include "cli/options.h"
#include "cli/send.h"
#include "cli/tail.h"
#include "http/server.h"
#include "process/successor.h"
#include "serve.h"
#include "sqlite/backup.h"
#include "sqlite/check.h"
#include "version.h"

#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static int complain(int status, const char *error) {
    fprintf(stderr, "longline: %s\n", error);
    return status;
}

/* For the commands whose flags are settings. */
static bool wants_help(enum command command, int argc, char **argv) {
    bool wants = argc && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0);
    if (wants)
        options_help(command);
    return wants;
}

static int serve(int argc, char **argv) {
    return wants_help(COMMAND_SERVE, argc - 2, argv + 2) ? EXIT_SUCCESS : serve_run(argc, argv);
}

static int ask_health(int argc, char **argv) {
    char line[4096];
    struct config config;
    if (wants_help(COMMAND_HEALTH, argc, argv))
        return EXIT_SUCCESS;
    if (!config_load(&config, argc, argv, line, sizeof line) ||
        !server_check_listen(config.listen, line, sizeof line))
        return complain(EXIT_USAGE, line);
    bool is_serving = health_ask(config.listen, line, sizeof line);
    puts(line);
    return is_serving ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int check(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_CHECK, argc, argv, error, sizeof error))
        return complain(EXIT_USAGE, error);
    if (options.help) {
        options_help(COMMAND_CHECK);
        return EXIT_SUCCESS;
    }
    if (options.word_count != 1)
        return complain(EXIT_USAGE, "usage: longline check FILE");
    log_init(LOG_LEVEL_ERROR, false);
    enum check_result result =
        check_file(options.words[0], stdout, isatty(STDERR_FILENO) ? stderr : NULL);
    return result == CHECK_WHOLE     ? EXIT_SUCCESS
           : result == CHECK_DAMAGED ? EXIT_FAILURE
                                     : EXIT_USAGE;
}

static int backup(int argc, char **argv) {
    char error[512];
    struct config config;
    if (wants_help(COMMAND_BACKUP, argc, argv))
        return EXIT_SUCCESS;
    if (!argc || strncmp(argv[0], "--", 2) == 0)
        return complain(EXIT_USAGE, "usage: longline backup FILE [--SETTING VALUE]...");
    if (!config_load(&config, argc - 1, argv + 1, error, sizeof error))
        return complain(EXIT_USAGE, error);
    if (config.data_provider != PROVIDER_SQLITE)
        return complain(EXIT_USAGE, "the data is not in a file: DATA_PROVIDER is not sqlite");
    log_init(LOG_LEVEL_ERROR, false);
    bool is_done = backup_file(config.data_path, argv[0], stdout, stderr,
                               isatty(STDERR_FILENO) ? stderr : NULL);
    return is_done ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The commands that need nothing of a server's parts. */
static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    bool needs_curl;
} clients[] = {{"new", new_run, false},
               {"send", send_run, true},
               {"tail", tail_run, true},
               {"forward", forward_run, true},
               {"exec", exec_run, true},
               {"doctor", doctor_run, true},
               {"completion", completion_run, false},
               {"help", help_run, false}};

static int run_client(size_t i, int argc, char **argv) {
    const char *error;
    if (clients[i].needs_curl && wants_help(command_find(clients[i].name), argc, argv))
        return EXIT_SUCCESS;
    if (clients[i].needs_curl && !curl_load(&error))
        return options_complain(EX_UNAVAILABLE, "%s", error);
    return clients[i].run(argc, argv);
}

/* What we open must not become standard input, output or error. */
static void keep_standard_files(void) {
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

/* Only a server has a use for it. Whoever sends it to everything that is called longline ends
 * nothing. One that takes over (process/successor.h) may find one that waits for it. */
static void ignore_upgrades(void) {
    if (!getenv(SUCCESSOR_HANDOVER))
        signal(SIGUSR2, SIG_IGN);
}

int main(int argc, char **argv) {
    ignore_upgrades();
    keep_standard_files();
    const char *command = argc > 1 ? argv[1] : "";
    if (sodium_init() < 0)
        return complain(EXIT_CANNOT_START, "no random numbers from the system");
    hash_init();
    if (strcmp(command, "serve") == 0)
        return serve(argc, argv);
    if (strcmp(command, "health") == 0)
        return ask_health(argc - 2, argv + 2);
    if (strcmp(command, "check") == 0)
        return check(argc - 2, argv + 2);
    if (strcmp(command, "backup") == 0)
        return backup(argc - 2, argv + 2);
    for (size_t i = 0; i < sizeof clients / sizeof *clients; i++)
        if (strcmp(command, clients[i].name) == 0)
            return run_client(i, argc - 2, argv + 2);
    if (strcmp(command, "--version") == 0 || strcmp(command, "version") == 0) {
        puts("longline " LONGLINE_VERSION);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        help_print();
        return EXIT_SUCCESS;
    }
    return complain(EXIT_USAGE, *command ? "unknown command; see longline --help"
                                         : "no command; see longline --help");
}
