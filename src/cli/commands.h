/*
 * The commands: one table tells what each is called, does and exits with. `longline help`, --help,
 * the man page and the completions are made of it, of the options (cli/options.h) and of the
 * settings (base/config.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum command {
    COMMAND_SERVE,
    COMMAND_HEALTH,
    COMMAND_NEW,
    COMMAND_CHECK,
    COMMAND_BACKUP,
    COMMAND_SEND,
    COMMAND_TAIL,
    COMMAND_FORWARD,
    COMMAND_EXEC,
    COMMAND_DOCTOR,
    COMMAND_COMPLETION,
    COMMAND_HELP,
    COMMANDS
};

enum { COMMAND_CODES_MAX = 12, COMMAND_FLAGS = 2 };

struct command_code {
    int code;
    const char *text; /* NULL behind the last one */
};

struct command_told {
    const char *name, *brief;
    const char *usage; /* what follows the name; may begin with COMMAND_OPTIONS */
    const char *about; /* in sentences; "\n" begins a paragraph */
    bool has_settings; /* takes those of the server, as flags */
    bool needs_word;   /* there must be an argument that is no option */
    struct command_code codes[COMMAND_CODES_MAX];
};

#define COMMAND_OPTIONS "[OPTION]... "

extern const struct command_told commands_told[COMMANDS];

/* What `longline` takes in the place of a command. */
extern const struct command_flag {
    const char *name, *brief;
} command_flags[COMMAND_FLAGS];

/* The command of this name; COMMANDS if there is none. */
enum command command_find(const char *name);
