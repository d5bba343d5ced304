#include "cli/options.h"

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
    ALL = SEND | READERS | DOCTOR,
};

static const struct spec {
    char letter;
    const char *name, *value, *help;
    unsigned commands;
    enum kind kind;
    size_t offset;
} specs[] = {
#define AT(field) offsetof(struct options, field)
    {'d', "data", "JSON", "send this; @FILE sends a file's bytes, @- those of standard input", SEND,
     TEXT, AT(data)},
    {'H', "header", "'NAME: VALUE'", "a header of the push; may be repeated", SEND, LIST,
     AT(headers)},
    {0, "since", "TIME", "begin there: 90s, 10m, 36h, 7d ago, or 2026-11-29T10:00", READERS, TEXT,
     AT(since)},
    {0, "ts", "ID", "begin behind this update; 0: with everything that is kept", READERS, TEXT,
     AT(ts)},
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
    {0, "restart", NULL, "forget the place that is kept", FORWARD | EXEC, FLAG, AT(restart)},
    {0, "sleep", "SECONDS", "how long a poll waits (default 25; doctor: 60)", READERS | DOCTOR,
     TEXT, AT(sleep)},
    {0, "backoff", "SECONDS", "the first pause after a failure (default 0.5)", READERS, TEXT,
     AT(backoff)},
    {0, "json", NULL, "one line of JSON for each event, for programs", ALL, FLAG, AT(json)},
    {'h', "help", NULL, "print this", ALL, FLAG, AT(help)},
#undef AT
};

enum { SPECS = sizeof specs / sizeof *specs };

#define CODE_USAGE                                                                                 \
    "  64  a mistake in the command line, or a request that the server does not take\n"
#define CODE_MEMORY "  71  out of memory\n"
#define CODE_NO_PLACE "  73  the place cannot be kept\n"
#define CODE_COPY "  75  another copy does this already\n"
#define CODE_NO_READER "  77  the address does not read\n"

static const struct {
    const char *name, *brief, *usage, *about, *codes;
} told[COMMANDS] = {
    [COMMAND_SEND] =
        {"send", "send an update, and print its id", "[OPTION]... URL [KEY=VALUE | KEY:=JSON]...",
         "Sends an update and prints its id. KEY=VALUE makes an object of strings; the value of\n"
         "KEY:=JSON is JSON. Without them and without -d, standard input is sent.\n",
         "   0  it is stored\n"
         "  64  a mistake in the command line\n"
         "  65  the server refuses it; nothing is stored\n"
         "  66  the file cannot be read\n"
         "  69  the server cannot be reached, or stores nothing now\n" CODE_MEMORY
         "  75  no answer, or an error of the server: it may be stored or not\n"
         "  76  the answer is not longline's\n"
         "  77  the address does not send\n"},
    [COMMAND_TAIL] = {"tail", "print updates as they come", "[OPTION]... URL",
                      "Prints updates as they come, one JSON text a line; coloured on a terminal.\n"
                      "Gaps and outages go to standard error.\n",
                      "   0  stopped by a signal, or by its reader\n" CODE_USAGE CODE_MEMORY
                      "  74  the output cannot be written\n" CODE_NO_READER},
    [COMMAND_FORWARD] =
        {"forward", "repeat requests to a local web server", "[OPTION]... URL TARGET",
         "Repeats every request to TARGET, a local web server: at least once, in order. Its place\n"
         "moves on with each 2xx and is kept in a file. What fails is tried again for ever; a\n"
         "3xx or 4xx other than 408, 425 and 429 is a refusal. It begins with what comes from now\n"
         "on, or where it stopped.\n",
         "   0  stopped by a signal\n" CODE_USAGE
         "  65  the target refuses an update, with --on-reject=stop\n" CODE_MEMORY CODE_NO_PLACE
             CODE_COPY CODE_NO_READER},
    [COMMAND_EXEC] =
        {"exec", "run a command for every update", "[OPTION]... URL -- CMD...",
         "Runs CMD for every update, one after the other, in order: the exact body on standard\n"
         "input; LONGLINE_TS, _AT, _METHOD, _PATH, _QUERY, _FROM and _HEADER_... in its\n"
         "environment. Exit 0 confirms; 65 refuses for good; anything else is tried again. It\n"
         "begins with what comes from now on, or where it stopped.\n",
         "   0  stopped by a signal\n" CODE_USAGE
         "  65  CMD refuses an update, with --on-reject=stop\n"
         "  69  CMD cannot be run\n" CODE_MEMORY CODE_NO_PLACE CODE_COPY CODE_NO_READER},
    [COMMAND_DOCTOR] =
        {"doctor", "say what stands in the way to a server", "[OPTION]... URL",
         "Measures what stands between this machine and a server, and says what to change: the\n"
         "connection, the certificate, the round trip, this machine's address as the server sees\n"
         "it, the clocks, the largest body, whether a proxy buffers streams, and when it cuts an\n"
         "idle poll or an idle stream. That takes a minute. It uses a channel of its own, and\n"
         "purges it.\n",
         "   0  all is well\n"
         "   1  something is not\n"
         "  64  a mistake in the command line\n"
         "  69  the server cannot be reached\n" CODE_MEMORY},
};

int options_complain(int status, const char *format, ...) {
    va_list args;
    fputs("longline: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return status;
}

void options_help(enum command command) {
    printf("Usage: longline %s %s\n\n%s\n", told[command].name, told[command].usage,
           told[command].about);
    struct option_told option;
    for (size_t at = 0; options_next(command, &at, &option);) {
        char left[64], letter[5] = "    ";
        if (option.letter)
            snprintf(letter, sizeof letter, "-%c, ", option.letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, option.name, option.value ? " " : "",
                 option.value ? option.value : "");
        printf("  %-27s %s\n", left, option.help);
    }
    printf("\nExit codes:\n%s", told[command].codes);
}

const char *options_name(enum command command) {
    return told[command].name;
}

const char *options_about(enum command command) {
    return told[command].brief;
}

bool options_next(enum command command, size_t *at, struct option_told *option) {
    while (*at < SPECS) {
        const struct spec *spec = &specs[(*at)++];
        *option = (struct option_told){.letter = spec->letter,
                                       .name = spec->name,
                                       .value = spec->value,
                                       .help = spec->help,
                                       .is_list = spec->kind == LIST};
        if (spec->commands & 1u << command)
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
                         (int)strcspn(word, "="), word, wrong, told[command].name);
                return false;
            }
        }
    }
    if (options->help || options->word_count)
        return true;
    snprintf(error, error_size, "usage: longline %s %s", told[command].name, told[command].usage);
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
