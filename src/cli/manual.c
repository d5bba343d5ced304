#include "cli/manual.h"
#include "base/config.h"
#include "cli/options.h"
#include "cli/prose.h"
#include "version.h"

#include <stdio.h>
#include <string.h>

static const char head[] = ".Dd November 29, 2026\n"
                           ".Dt LONGLINE 1\n"
                           ".Os longline " LONGLINE_VERSION "\n"
                           ".Sh NAME\n"
                           ".Nm longline\n"
                           ".Nd " MANUAL_BRIEF "\n";

static const char description[] =
    ".Sh DESCRIPTION\n"
    ".Nm\n"
    "stores what services POST to a secret path and delivers it to every program that polls that "
    "path.\n"
    "A 200 to a push means that the update is on disk.\n"
    ".Pp\n"
    "A push is a POST to\n"
    ".Pa /channel ;\n"
    "its body becomes an update, and its query parameters are merged in.\n"
    "A poll is\n"
    ".Ql GET /channel?ts=N&sleep=S :\n"
    "it returns the updates after the one with the id\n"
    ".Ar N\n"
    "as soon as there is one, or an empty list after\n"
    ".Ar S\n"
    "seconds (at most 60).\n"
    ".Pp\n"
    "The commands are as follows:\n";

static const char before_options[] = ".Sh OPTIONS\n"
                                     "Each is for the commands that are named with it.\n";

static const char before_settings[] = ".Sh ENVIRONMENT\n"
                                      "Every setting is an environment variable and a flag of\n"
                                      ".Cm serve ,\n"
                                      ".Cm health\n"
                                      "and\n"
                                      ".Cm backup .\n"
                                      "The flag is the variable's name in lower case with dashes:\n"
                                      ".Ev CACHE_SIZE\n"
                                      "is\n"
                                      ".Fl -cache-size .\n"
                                      "The flag wins.\n"
                                      "An empty variable counts as not set.\n";

static const char behind_settings[] =
    ".Pp\n"
    "The commands that talk to a server also know\n"
    ".Ev HTTPS_PROXY , http_proxy , ALL_PROXY , NO_PROXY , CURL_CA_BUNDLE , SSL_CERT_FILE\n"
    "and\n"
    ".Ev SSL_CERT_DIR ,\n"
    "as\n"
    ".Xr curl 1\n"
    "does, and\n"
    ".Ev XDG_STATE_HOME .\n";

static const char files[] =
    ".Sh FILES\n"
    ".Bl -tag -width Ds\n"
    ".It Pa ~/.local/state/longline/\n"
    "The places of\n"
    ".Cm forward\n"
    "and\n"
    ".Cm exec ,\n"
    "each in a file that is named after a hash, and its lock.\n"
    ".It Pa longline.db\n"
    "The data, an SQLite database.\n"
    "It contains the names of the channels, which are secrets.\n"
    ".It Pa longline.db-wal , Pa longline.db-shm\n"
    "Its write-ahead log, which is part of the data, and the index of that log.\n"
    "Gone after a normal stop.\n"
    ".It Pa longline.db-lock\n"
    "Locked by the running server; empty, or with what the data file was at the last normal stop.\n"
    ".El\n";

static const char tail[] =
    ".Pp\n"
    "The reason for another code than 0 is on standard error;\n"
    ".Cm health\n"
    "prints it on standard output, and so does\n"
    ".Cm check .\n"
    "Without a command, or with one that does not exist, it is 2.\n"
    ".Sh EXAMPLES\n"
    "Serve, make a secret address, push and poll:\n"
    ".Bd -literal\n" MANUAL_EXAMPLE ".Ed\n"
    ".Pp\n"
    "Tell apart two services on one path, by a member that the query adds:\n"
    ".Bd -literal\n"
    "  $ curl -d '{\"text\":\"hi\"}' \"$URL?appname=telegram\"\n"
    "  $ curl -d '{\"action\":\"opened\"}' \"$URL?appname=github\"\n"
    ".Ed\n"
    ".Pp\n"
    "Bring a service's webhooks to a program on this machine:\n"
    ".Bd -literal\n"
    "  $ longline forward \"$URL\" http://localhost:8080/hooks\n"
    ".Ed\n"
    ".Pp\n"
    "Back up a running server:\n"
    ".Bd -literal\n"
    "  $ sqlite3 longline.db \"VACUUM INTO 'copy.db'\"\n"
    ".Ed\n"
    ".Sh SEE ALSO\n"
    ".Xr curl 1 ,\n"
    ".Xr sqlite3 1\n"
    ".Pp\n"
    ".Pa docs/README.md ,\n"
    ".Pa docs/cli.md\n"
    "and\n"
    ".Pa docs/protocol.md\n"
    "in the sources.\n"
    ".Sh SECURITY CONSIDERATIONS\n"
    "Anyone who knows a path can read and write its channel.\n"
    "Create the path with\n"
    ".Ql longline new ,\n"
    "put a proxy that speaks TLS in front, and keep the path out of the proxy's log.\n";

static void print_synopsis(void) {
    puts(".Sh SYNOPSIS");
    for (enum command command = 0; command < COMMANDS; command++) {
        const struct command_told *told = &commands_told[command];
        printf(".Nm longline\n.Cm %s\n", told->name);
        prose_roff(told->usage, told->usage);
        putchar('\n');
    }
    for (size_t i = 0; i < COMMAND_FLAGS; i++)
        printf(".Nm longline\n.Fl -%s\n", command_flags[i].name);
}

static void print_commands(void) {
    puts(".Bl -tag -width Ds");
    for (enum command command = 0; command < COMMANDS; command++) {
        const struct command_told *told = &commands_told[command];
        printf(".It Cm %s No ", told->name);
        prose_roff(told->usage, told->usage);
        putchar('\n');
        prose_roff(told->about, told->usage);
        putchar('\n');
    }
    puts(".El");
}

/* Prints "tail, exec: " for bits 1 << COMMAND. */
static void print_names(unsigned commands) {
    const char *before = "";
    if (commands == (1u << COMMANDS) - 1) {
        fputs("all: ", stdout);
        return;
    }
    for (enum command command = 0; command < COMMANDS; command++)
        if (commands & 1u << command) {
            printf("%s\\fB%s\\fR", before, commands_told[command].name);
            before = ", ";
        }
    fputs(": ", stdout);
}

static void print_options(void) {
    struct option_told told;
    fputs(before_options, stdout);
    puts(".Bl -tag -width Ds");
    for (size_t at = 0; options_next(COMMANDS, &at, &told);) {
        const char *value = told.value ? told.value : "";
        fputs(".It ", stdout);
        if (told.letter)
            printf("Fl %c , ", told.letter);
        printf("Fl -%s", told.name);
        if (told.value) {
            fputs(" No ", stdout);
            prose_roff(value, value);
        }
        putchar('\n');
        print_names(told.commands);
        prose_roff(told.help, value);
        puts(".");
    }
    puts(".El");
}

static void print_settings(void) {
    struct setting_told told;
    fputs(before_settings, stdout);
    puts(".Bl -tag -width Ds");
    for (size_t at = 0; config_next(&at, &told);) {
        printf(".It Ev %s\n", told.env);
        prose_roff(told.help, told.value);
        if (*told.default_value) {
            fputs("\nThe default is ", stdout);
            prose_roff(told.default_value, told.value);
            putchar('.');
        }
        putchar('\n');
    }
    puts(".El");
    fputs(behind_settings, stdout);
}

/* What the code means; commands that say it with the same words are named together. */
static void print_code(int code) {
    unsigned done = 0;
    for (enum command command = 0; command < COMMANDS; command++) {
        const struct command_code *own = commands_told[command].codes;
        while (own->text && own->code != code)
            own++;
        if (!own->text || done & 1u << command)
            continue;
        unsigned alike = 0;
        for (enum command other = command; other < COMMANDS; other++)
            for (const struct command_code *at = commands_told[other].codes; at->text; at++)
                if (at->code == code && strcmp(at->text, own->text) == 0)
                    alike |= 1u << other;
        if (!done)
            printf(".It %d\n", code);
        else
            puts(".br");
        print_names(alike);
        prose_roff(own->text, "");
        puts(".");
        done |= alike;
    }
}

void manual_print(void) {
    fputs(head, stdout);
    print_synopsis();
    fputs(description, stdout);
    print_commands();
    print_options();
    print_settings();
    fputs(files, stdout);
    puts(".Sh EXIT STATUS\n.Bl -tag -width Ds");
    for (int code = 0; code < 256; code++)
        print_code(code);
    puts(".El");
    fputs(tail, stdout);
}
