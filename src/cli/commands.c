#include "cli/commands.h"

#include <string.h>

#define USAGE {64, "a mistake in the command line"}
#define BAD_REQUEST                                                                                \
    {64, "a mistake in the command line, or a request that the server does not take"}
#define NO_MEMORY {71, "out of memory"}
#define NO_PLACE {73, "the place cannot be kept"}
#define A_COPY {75, "another copy does this already"}
#define NO_READER {77, "the address does not read"}
#define BAD_SETTING {2, "a mistake in the command line or a setting"}
#define PRINTED {0, "it is printed"}

const struct command_told commands_told[COMMANDS] = {
    [COMMAND_SERVE] =
        {.name = "serve",
         .brief = "serve until SIGTERM or SIGINT",
         .usage = "[--SETTING VALUE]...",
         .about =
             "Serves until SIGTERM or SIGINT; then it finishes pushes, answers the polls that "
             "wait, and ends within 5 seconds. SIGUSR2 makes it the program that is at its path "
             "now, without downtime. Sockets that systemd passes (LISTEN_FDS) take the place of "
             "LISTEN. Every setting is an environment variable and a flag; the flag wins. An empty "
             "variable counts as not set.",
         .has_settings = true,
         .codes = {{0, "stopped by a signal"},
                   {1, "it cannot start: the data file is in use, damaged or not longline's, an "
                       "address is taken"},
                   BAD_SETTING}},
    [COMMAND_HEALTH] =
        {.name = "health",
         .brief = "check whether the server with these settings serves",
         .usage = "[--SETTING VALUE]...",
         .about = "Asks the first address in LISTEN for /-/health, and prints the answer, or why "
                  "there is none. The settings are those of `longline serve`.",
         .has_settings = true,
         .codes = {{0, "the server serves"},
                   {1, "it does not, or gives no answer within 3 seconds"},
                   BAD_SETTING}},
    [COMMAND_NEW] =
        {.name = "new",
         .brief = "print a new secret address, or with --keys three",
         .usage = COMMAND_OPTIONS "[BASE_URL]",
         .about =
             "Prints a new secret address below BASE_URL, for example https://example.com: a slash "
             "and 128 random bits as 22 characters. Who has it may send, read and delete. Without "
             "BASE_URL it is below http://localhost:3000; http:// may be left out.\n"
             "With --keys it prints the three addresses of a new channel: one that may do "
             "everything (`r_`), one that only reads (`v_`), and one that only sends (`w_`); with "
             "--json as one line, `{\"all\":\"...\",\"read\":\"...\",\"send\":\"...\"}`. If "
             "BASE_URL ends in such an address, it prints that one and what follows from it.",
         .codes = {PRINTED, {2, "a mistake in the command line"}}},
    [COMMAND_CHECK] =
        {.name = "check",
         .brief = "read a data file, and say whether it is whole",
         .usage = "FILE",
         .about = "Reads all of a data file: every page, update and channel, and the write-ahead "
                  "log beside it. It changes nothing, and the server may be running.",
         .needs_word = true,
         .codes = {{0, "the file is whole"},
                   {1, "it is damaged"},
                   {2, "it cannot be read, or a mistake in the command line"}}},
    [COMMAND_BACKUP] =
        {.name = "backup",
         .brief = "copy the data file, while the server runs",
         .usage = "FILE [--SETTING VALUE]...",
         .about =
             "Writes a copy of the data file (DATA_PATH) into FILE, which must not be there yet: "
             "of one moment, complete, checked as `longline check` does, and synced before it has "
             "its name. The server may be running. The settings are those of `longline serve`. To "
             "restore, stop the server and put FILE in the place of the data file; its readers "
             "are told by a new epoch.",
         .has_settings = true,
         .needs_word = true,
         .codes = {{0, "FILE is there"},
                   {1, "the data file is damaged, or FILE cannot be written"},
                   {2, "a mistake in the command line or a setting; the data is not in a file"}}},
    [COMMAND_SEND] =
        {.name = "send",
         .brief = "send an update, and print its id",
         .usage = COMMAND_OPTIONS "URL [KEY=VALUE]...",
         .about =
             "Sends an update and prints its id. KEY=VALUE makes an object of strings; `KEY:=JSON` "
             "gives a member any other value. Without them and without -d, standard input is sent. "
             "The exit code says whether the update is stored.",
         .needs_word = true,
         .codes = {{0, "it is stored"},
                   USAGE,
                   {65, "the server refuses it; nothing is stored"},
                   {66, "the file cannot be read"},
                   {69, "the server cannot be reached, or stores nothing now"},
                   NO_MEMORY,
                   {75, "no answer, or an error of the server: it may be stored or not"},
                   {76, "the answer is not longline's: it may be stored or not"},
                   {77, "the address does not send"}}},
    [COMMAND_TAIL] =
        {.name = "tail",
         .brief = "print updates as they come",
         .usage = COMMAND_OPTIONS "URL",
         .about = "Prints updates as they come, one JSON text a line; on a terminal with indents "
                  "and colours, unless NO_COLOR is set. It begins with the last ten. Gaps and "
                  "outages go to standard error.",
         .needs_word = true,
         .codes = {{0, "stopped by a signal, or by its reader"},
                   BAD_REQUEST,
                   NO_MEMORY,
                   {74, "the output cannot be written"},
                   NO_READER}},
    [COMMAND_FORWARD] =
        {.name = "forward",
         .brief = "repeat requests to a local web server",
         .usage = COMMAND_OPTIONS "URL TARGET",
         .about = "Repeats every request to TARGET, a local web server, with its method, path, "
                  "query, headers and the exact bytes of its body: at least once, in order. Its "
                  "place moves on with each 2xx and is kept in a file. What fails is tried again "
                  "for ever; a 3xx, and a 4xx other than 408, 425 and 429, is a refusal. It begins "
                  "with what comes from now on, or where it stopped.",
         .needs_word = true,
         .codes = {{0, "stopped by a signal"},
                   BAD_REQUEST,
                   {65, "the target refuses an update, with --on-reject stop"},
                   NO_MEMORY,
                   NO_PLACE,
                   A_COPY,
                   NO_READER}},
    [COMMAND_EXEC] =
        {.name = "exec",
         .brief = "run a command for every update",
         .usage = COMMAND_OPTIONS "URL -- CMD...",
         .about = "Runs CMD for every update, one after the other, in order. The exact body is on "
                  "its standard input; LONGLINE_TS, LONGLINE_AT, LONGLINE_METHOD, LONGLINE_PATH, "
                  "LONGLINE_QUERY, LONGLINE_FROM and variables such as "
                  "LONGLINE_HEADER_X_GITHUB_EVENT are in its environment, which has little else. "
                  "Exit code 0 confirms, 65 refuses for good, and anything else is tried again. It "
                  "begins with what comes from now on, or where it stopped.",
         .needs_word = true,
         .codes = {{0, "stopped by a signal"},
                   BAD_REQUEST,
                   {65, "the command refuses an update, with --on-reject stop"},
                   {69, "the command cannot be run"},
                   NO_MEMORY,
                   NO_PLACE,
                   A_COPY,
                   NO_READER}},
    [COMMAND_DOCTOR] =
        {.name = "doctor",
         .brief = "say what stands in the way to a server",
         .usage = COMMAND_OPTIONS "URL",
         .about =
             "Measures what stands between this machine and a server, and says what to change: "
             "the connection, the certificate, the round trip, this machine's address as the "
             "server sees it, the clocks, the largest body, whether a proxy buffers streams, and "
             "when it cuts an idle poll or an idle stream. That takes a minute. It pushes to a "
             "channel of its own, and purges it.",
         .needs_word = true,
         .codes = {{0, "all is well"},
                   {1, "something is not, or it was stopped before it knew"},
                   USAGE,
                   {69, "the server cannot be reached, or is not longline"},
                   NO_MEMORY}},
    [COMMAND_COMPLETION] =
        {.name = "completion",
         .brief = "print what a shell needs to complete",
         .usage = "bash|zsh|fish",
         .about = "Prints what the shell needs to complete commands, options and their values. "
                  "Where longline was installed with `meson install`, the shells have it already.\n"
                  "In ~/.bashrc: `source <(longline completion bash)`\n"
                  "For zsh, once: `longline completion zsh >\"${fpath[1]}/_longline\"`\n"
                  "In ~/.config/fish/config.fish: `longline completion fish | source`",
         .needs_word = true,
         .codes = {PRINTED, USAGE}},
    [COMMAND_HELP] =
        {.name = "help",
         .brief = "say what there is, or more of a command",
         .usage = COMMAND_OPTIONS "[COMMAND]",
         .about = "Prints the commands, or what `longline COMMAND --help` does. With --man it "
                  "prints the man page: `longline help --man | man -l -` shows it.",
         .codes = {PRINTED, {64, "there is no such command, or a mistake in the command line"}}},
};

const struct command_flag command_flags[COMMAND_FLAGS] = {
    {"help", "print the commands"},
    {"version", "print the version"},
};

enum command command_find(const char *name) {
    enum command command = 0;
    while (command < COMMANDS && strcmp(commands_told[command].name, name) != 0)
        command++;
    return command;
}
