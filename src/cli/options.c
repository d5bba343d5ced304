#include "cli/options.h"
#include "base/config.h"
#include "cli/prose.h"
#include "cli/screen.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, TEXT, LIST };

enum {
    SEND = 1 << COMMAND_SEND,
    TAIL = 1 << COMMAND_TAIL,
    FORWARD = 1 << COMMAND_FORWARD,
    EXEC = 1 << COMMAND_EXEC,
    DOCTOR = 1 << COMMAND_DOCTOR,
    READERS = TAIL | FORWARD | EXEC,
    NEW = 1 << COMMAND_NEW,
    HELP = 1 << COMMAND_HELP,
    WITH_JSON = SEND | READERS | DOCTOR | NEW,
    ALL = (1 << COMMANDS) - 1,
};

enum { COLUMNS = 90, OPTION_COLUMNS = 29, SETTING_INDENT = 6, CODE_INDENT = 6 };

static const struct spec {
    char letter;
    const char *name, *value, *help;
    unsigned commands;
    enum kind kind;
    size_t offset;
} specs[] = {
#define AT(field) offsetof(struct options, field)
    {'d', "data", "JSON|@FILE",
     "send this JSON; @FILE sends a file's bytes, @- those of standard input", SEND, TEXT,
     AT(data)},
    {'H', "header", "'NAME: VALUE'", "a header of the push; may be repeated", SEND, LIST,
     AT(headers)},
    {0, "since", "TIME", "begin there: 90s, 10m, 36h, 7d ago, or 2026-11-29T10:00", READERS, TEXT,
     AT(since)},
    {0, "ts", "ID",
     "begin behind this update; 0: with everything that is kept; now: with what comes", READERS,
     TEXT, AT(ts)},
    {'n', "count", "COUNT", "begin with the last COUNT updates (default 10)", TAIL, TEXT,
     AT(count)},
    {0, "as", "NAME", "let the server keep the place, under this name", READERS, TEXT, AT(as)},
    {0, "where", "FIELD:TEXT", "only such updates: body.action:opened; may be repeated", READERS,
     LIST, AT(where)},
    {0, "full", NULL, "the whole request: method, path, query, headers, body", TAIL, FLAG,
     AT(full)},
    {0, "on-reject", "stop|skip", "what to do when it is refused for good (default stop)",
     FORWARD | EXEC, TEXT, AT(on_reject)},
    {0, "keep-host", NULL, "send the Host that the service sent, not the target's", FORWARD, FLAG,
     AT(keep_host)},
    {0, "timeout", "SECONDS", "for one attempt (forward: 60; exec: none)", FORWARD | EXEC, TEXT,
     AT(timeout)},
    {0, "state", "FILE", "where the place is kept", FORWARD | EXEC, TEXT, AT(state)},
    {0, "restart", NULL, "forget the place that is kept, and begin as the other options say",
     FORWARD | EXEC, FLAG, AT(restart)},
    {0, "sleep", "SECONDS", "how long a poll waits (default 25; doctor: 60)", READERS | DOCTOR,
     TEXT, AT(sleep)},
    {0, "backoff", "SECONDS",
     "the first pause after a failure, which doubles up to 30 s (default 0.5)", READERS, TEXT,
     AT(backoff)},
    {0, "keys", NULL, "three addresses: to keep, to read by, to send to", NEW, FLAG, AT(keys)},
    {0, "json", NULL, "one line of JSON for each event, for programs", WITH_JSON, FLAG, AT(json)},
    {0, "man", NULL, "print the man page", HELP, FLAG, AT(man)},
    {'h', "help", NULL, "print this", ALL, FLAG, AT(help)},
#undef AT
};

enum { SPECS = sizeof specs / sizeof *specs };

int options_complain(int status, const char *format, ...) {
    char text[2048];
    struct buf line = {0};
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_puts(&line, "longline: ");
    screen_put_text(&line, slice_of(text));
    buf_putc(&line, '\n');
    if (line.failed)
        fputs("longline: out of memory\n", stderr);
    else
        screen_write(stderr, &line);
    buf_deinit(&line);
    return status;
}

static void help_option(const struct option_told *option) {
    char left[64], letter[5] = "    ";
    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, option->name, option->value ? " " : "",
             option->value ? option->value : "");
    printf("  %-*s ", OPTION_COLUMNS - 2, left);
    prose_print(option->help, OPTION_COLUMNS + 1, COLUMNS);
}

static void help_settings(void) {
    struct setting_told setting;
    puts("Settings:\n");
    for (size_t at = 0; config_next(&at, &setting);) {
        printf("  %s, --%s  (default: %s)\n%*s", setting.env, setting.flag,
               *setting.default_value ? setting.default_value : "none", SETTING_INDENT, "");
        prose_print(setting.help, SETTING_INDENT, COLUMNS);
    }
}

void options_help(enum command command) {
    const struct command_told *told = &commands_told[command];
    struct option_told option;
    printf("Usage: longline %s %s\n\n", told->name, told->usage);
    prose_print(told->about, 0, COLUMNS);
    putchar('\n');
    for (size_t at = 0; options_next(command, &at, &option);)
        help_option(&option);
    if (command == COMMAND_SERVE) {
        putchar('\n');
        help_settings();
    }
    puts("\nExit codes:");
    for (const struct command_code *code = told->codes; code->text; code++) {
        printf("  %2d  ", code->code);
        prose_print(code->text, CODE_INDENT, COLUMNS);
    }
}

bool options_next(enum command command, size_t *at, struct option_told *option) {
    while (*at < SPECS) {
        const struct spec *spec = &specs[(*at)++];
        *option = (struct option_told){.letter = spec->letter,
                                       .name = spec->name,
                                       .value = spec->value,
                                       .help = spec->help,
                                       .is_list = spec->kind == LIST,
                                       .commands = spec->commands};
        if (command == COMMANDS || spec->commands & 1u << command)
            return true;
    }
    return false;
}

/* The option that `word` begins with; its value, if it stands in the same word, to `*value`. */
static const struct spec *find(enum command command, const char *word, const char **value) {
    bool is_long = strncmp(word, "--", 2) == 0;
    size_t len = is_long ? strcspn(word + 2, "=") : 1;
    *value = NULL;
    for (const struct spec *spec = specs; spec < specs + SPECS; spec++) {
        if (!(spec->commands & 1u << command))
            continue;
        if (is_long && strlen(spec->name) == len && strncmp(word + 2, spec->name, len) == 0) {
            *value = word[2 + len] ? word + 3 + len : NULL;
            return spec;
        }
        if (!is_long && spec->letter == word[1]) {
            *value = word[2] ? word + 2 : NULL;
            return spec;
        }
    }
    return NULL;
}

static bool store(struct options *options, const struct spec *spec, const char *value) {
    void *field = (char *)options + spec->offset;
    struct option_list *list = field;
    switch (spec->kind) {
    case FLAG: *(bool *)field = true; return true;
    case TEXT: *(const char **)field = value; return true;
    case LIST: break;
    }
    if (list->count == OPTION_LIST_MAX)
        return false;
    list->items[list->count++] = value;
    return true;
}

/* Takes the option at argv[*at]; NULL, or what is wrong with it. */
static const char *take(struct options *options, enum command command, int argc, char **argv,
                        int *at) {
    const char *value;
    const struct spec *spec = find(command, argv[*at], &value);
    if (!spec)
        return "no such option";
    if (spec->kind == FLAG && value)
        return "takes no value";
    if (spec->kind != FLAG && !value) {
        if (*at + 1 == argc)
            return "needs a value";
        value = argv[++*at];
    }
    return store(options, spec, value) ? NULL : "is there too often";
}

bool options_parse(struct options *options, enum command command, int argc, char **argv,
                   char *error, size_t error_size) {
    bool ended = false;
    *options = (struct options){.words = argv};
    for (int i = 0; i < argc; i++) {
        char *word = argv[i];
        if (ended || word[0] != '-' || !word[1]) {
            argv[options->word_count++] = word;
        } else if (strcmp(word, "--") == 0) {
            ended = true;
        } else {
            const char *wrong = take(options, command, argc, argv, &i);
            if (wrong) {
                snprintf(error, error_size, "%.*s: %s; see longline %s --help",
                         (int)strcspn(word, "="), word, wrong, commands_told[command].name);
                return false;
            }
        }
    }
    if (options->help || options->word_count || !commands_told[command].needs_word)
        return true;
    snprintf(error, error_size, "usage: longline %s %s", commands_told[command].name,
             commands_told[command].usage);
    return false;
}

bool options_seconds(const char *text, int64_t max_s, int64_t *ms) {
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end || !isfinite(seconds) || seconds < 0.001 || seconds > (double)max_s)
        return false;
    *ms = (int64_t)(seconds * 1000);
    return true;
}
