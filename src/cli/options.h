/*
 * The options of the commands: one table says which command takes which. The parser, --help, the
 * man page and the completions are made of it. The settings of the server are not among them.
 */
#pragma once

#include "cli/commands.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OPTION_LIST_MAX = 64 };

/* An option that may be repeated. */
struct option_list {
    const char *items[OPTION_LIST_MAX];
    size_t count;
};

/* Texts are as they were given; NULL stands for an option that was not. */
struct options {
    const char *data;
    struct option_list headers, where;
    const char *since, *ts, *count, *as, *sleep, *backoff, *timeout, *on_reject, *state;
    bool full, json, keep_host, restart, keys, man, help;
    char **words; /* what is no option; mostly the URL first */
    int word_count;
};

/*
 * Reads the arguments behind the command, and moves `argv` about: words come first. Everything
 * behind `--` is a word. False for a mistake, which `error` then says in one line.
 */
bool options_parse(struct options *options, enum command command, int argc, char **argv,
                   char *error, size_t error_size);

/* Prints what `longline COMMAND --help` does. */
void options_help(enum command command);

/* An option as --help tells it. */
struct option_told {
    char letter;                     /* 0: none */
    const char *name, *value, *help; /* value: NULL for a flag; such as TIME, FILE, stop|skip */
    bool is_list;
    unsigned commands; /* bit 1 << COMMAND for each that takes it */
};

/*
 * Goes through the options of a command, or with COMMANDS through all, from `*at` 0 on; false at
 * the end.
 */
bool options_next(enum command command, size_t *at, struct option_told *told);

/* Reads seconds, such as 25 or 0.5, as milliseconds from 1 to max_s * 1000. */
bool options_seconds(const char *text, int64_t max_s, int64_t *ms);

/* Prints one line on standard error, with control characters as screen_put_text() has them. Returns
 * `status`. */
__attribute__((format(printf, 2, 3))) int options_complain(int status, const char *format, ...);
