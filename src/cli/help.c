#include "cli/help.h"
#include "cli/manual.h"
#include "cli/options.h"
#include "version.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

enum { LEFT_COLUMNS = 41 };

static void print_line(const char *name, const char *usage, const char *brief) {
    char left[64];
    snprintf(left, sizeof left, "longline %s %s", name, usage);
    printf("  %-*s %s\n", LEFT_COLUMNS, left, brief);
}

void help_print(void) {
    puts("longline " LONGLINE_VERSION ", a " MANUAL_BRIEF ".\n\nUsage:");
    for (enum command command = 0; command < COMMANDS; command++) {
        const struct command_told *told = &commands_told[command];
        bool has_options = strncmp(told->usage, COMMAND_OPTIONS, strlen(COMMAND_OPTIONS)) == 0;
        print_line(told->name, told->usage + (has_options ? strlen(COMMAND_OPTIONS) : 0),
                   told->brief);
    }
    for (size_t i = 0; i < COMMAND_FLAGS; i++) {
        char flag[32];
        snprintf(flag, sizeof flag, "--%s", command_flags[i].name);
        print_line(flag, "", command_flags[i].brief);
    }
    puts("\nTry it:\n" MANUAL_EXAMPLE
         "\n`longline help COMMAND` says more of each; `longline help serve` lists the settings.");
}

int help_run(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_HELP, argc, argv, error, sizeof error))
        return options_complain(EX_USAGE, "%s", error);
    if (options.word_count + options.man > 1)
        return options_complain(EX_USAGE, "usage: longline help %s",
                                commands_told[COMMAND_HELP].usage);
    enum command command = options.word_count ? command_find(options.words[0]) : COMMANDS;
    if (options.help)
        options_help(COMMAND_HELP);
    else if (options.man)
        manual_print();
    else if (command < COMMANDS)
        options_help(command);
    else if (options.word_count)
        return options_complain(EX_USAGE, "%s: no such command; see longline help",
                                options.words[0]);
    else
        help_print();
    return EX_OK;
}
