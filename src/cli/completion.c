#include "cli/completion.h"
#include "base/config.h"
#include "cli/options.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

/* --- What all three complete ------------------------------------------------------------------ */

/* Goes through what a command takes: its options, and as flags its settings. */
struct flags {
    enum command command;
    size_t option_at, setting_at;
    struct setting_told setting;
    char brief[128]; /* of the setting: what its help begins with */
};

static bool flags_next(struct flags *flags, struct option_told *told) {
    struct setting_told *setting = &flags->setting;
    if (!commands_told[flags->command].has_settings || !config_next(&flags->setting_at, setting))
        return options_next(flags->command, &flags->option_at, told);
    snprintf(flags->brief, sizeof flags->brief, "%.*s", (int)strcspn(setting->help, ".:;"),
             setting->help);
    *told =
        (struct option_told){.name = setting->flag, .value = setting->value, .help = flags->brief};
    return true;
}

/* What the value of an option can be. */
enum values { ANY, WORDS, FILES, JSON_OR_FILES };

static enum values values_of(const char *value) {
    return strchr(value, '@')      ? JSON_OR_FILES
           : strchr(value, '|')    ? WORDS
           : strstr(value, "FILE") ? FILES
                                   : ANY;
}

static bool takes_file(enum command command) {
    return strncmp(commands_told[command].usage, "FILE", 4) == 0;
}

/* Prints "a b" for "a|b". */
static void print_words(const char *words) {
    for (; *words; words++)
        putchar(*words == '|' ? ' ' : *words);
}

static void print_commands(void) {
    for (enum command command = 0; command < COMMANDS; command++)
        printf("%s%s", command ? " " : "", commands_told[command].name);
}

/* Within single quotes, as all three shells take it. */
static void print_quoted(const char *text) {
    putchar('\'');
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*text);
    putchar('\'');
}

/* --- bash ------------------------------------------------------------------------------------- */

/* Readline hands over, and replaces, only what stands behind a = or a colon: $2. */
static const char bash_head[] =
    "# bash completion for longline: source <(longline completion bash)\n"
    "_longline() {\n"
    "    local line=${COMP_LINE:0:COMP_POINT} option value words= kind=words i\n"
    "    local -a given\n"
    "    read -ra given <<<\"$line\"\n"
    "    [[ $line != *[[:space:]] ]] || given+=('')\n"
    "    COMPREPLY=()\n"
    "    value=${given[-1]} option=${given[-2]}\n"
    "    [[ $value != --*=* ]] || { option=${value%%=*} value=${value#*=}; }\n"
    "    if ((${#given[@]} == 2)); then\n";

static const char bash_tail[] =
    "    esac; fi\n"
    "    if [ \"${given[1]}\" = exec ] && ((${#given[@]} > 3)); then\n"
    "        for i in \"${given[@]:2:${#given[@]}-3}\"; do\n"
    "            if [ \"$i\" = -- ]; then kind=files; fi\n"
    "        done\n"
    "        [ \"${given[-2]}\" != -- ] || kind=commands\n"
    "    fi\n"
    "    case $kind in\n"
    "        words) COMPREPLY=($(compgen -W \"$words\" -- \"$value\")) ;;\n"
    "        commands) mapfile -t COMPREPLY < <(compgen -c -- \"$value\") ;;\n"
    "        files) mapfile -t COMPREPLY < <(compgen -f -- \"$value\"); compopt -o filenames ;;\n"
    "        data)\n"
    "            [[ $value == @* ]] || return\n"
    "            mapfile -t COMPREPLY < <(compgen -P @ -f -- \"${value#@}\")\n"
    "            for i in \"${!COMPREPLY[@]}\"; do\n"
    "                [ ! -d \"${COMPREPLY[i]#@}\" ] || COMPREPLY[i]+=/\n"
    "            done\n"
    "            compopt -o filenames ;;\n"
    "    esac\n"
    "    i=${value%\"$2\"}\n"
    "    COMPREPLY=(\"${COMPREPLY[@]#\"$i\"}\")\n"
    "    [[ ${COMPREPLY[0]-} != *[=/] ]] || compopt -o nospace\n"
    "}\n"
    "complete -F _longline longline\n";

static void print_bash_value(const struct option_told *told) {
    fputs("                ", stdout);
    if (told->letter)
        printf("-%c | ", told->letter);
    printf("--%s) ", told->name);
    switch (values_of(told->value)) {
    case WORDS:
        fputs("words='", stdout);
        print_words(told->value);
        puts("' ;;");
        break;
    case FILES: puts("kind=files ;;"); break;
    case JSON_OR_FILES: puts("kind=data ;;"); break;
    case ANY: puts("kind= ;;"); break;
    }
}

static void print_bash_command(enum command command) {
    struct option_told told;
    printf("        %s)\n            case $option in\n", commands_told[command].name);
    for (struct flags flags = {.command = command}; flags_next(&flags, &told);)
        if (told.value)
            print_bash_value(&told);
    puts("                *)\n                    if [[ $value == -* ]]; then");
    fputs("                        words='", stdout);
    for (struct flags flags = {.command = command}; flags_next(&flags, &told);)
        printf("--%s%s", told.name, told.value ? "= " : " ");
    fputs("'\n                    else\n                        ", stdout);
    if (takes_file(command)) {
        fputs("kind=files", stdout);
    } else {
        fputs("words='", stdout);
        if (command == COMMAND_HELP)
            print_commands();
        else if (command == COMMAND_COMPLETION)
            print_words(commands_told[command].usage);
        putchar('\'');
    }
    puts("\n                    fi ;;\n            esac ;;");
}

static void print_bash(void) {
    fputs(bash_head, stdout);
    printf("        words='");
    print_commands();
    printf("'\n        [[ $value != -* ]] || words='");
    for (size_t i = 0; i < COMMAND_FLAGS; i++)
        printf("--%s ", command_flags[i].name);
    puts("'\n    else case ${given[1]} in");
    for (enum command command = 0; command < COMMANDS; command++)
        print_bash_command(command);
    fputs(bash_tail, stdout);
}

/* --- zsh -------------------------------------------------------------------------------------- */

/* One form of an option: -n or --count. */
static void print_zsh_form(const struct option_told *told, const char *form, const char *sign) {
    static const char *const actions[] = {
        [ANY] = " ", [FILES] = "_files", [JSON_OR_FILES] = "_longline_data"};
    char text[512], words[64] = "", action[80] = "";
    const char *value = told->value ? told->value : "";
    size_t len = 0;
    for (; value[len] && len < sizeof words - 1; len++)
        words[len] = strchr("':|", value[len]) ? ' ' : value[len];
    if (told->value && values_of(value) == WORDS)
        snprintf(action, sizeof action, ":value:(%s)", words);
    else if (told->value)
        snprintf(action, sizeof action, ":%s:%s", words, actions[values_of(value)]);
    char alone[64] = "";
    if (told->letter && !told->is_list)
        snprintf(alone, sizeof alone, "(-%c --%s)", told->letter, told->name);
    /* A colon within the brackets is text; the brackets themselves never occur in it. */
    snprintf(text, sizeof text, "%s%s%s[%s]%s", told->is_list ? "*" : alone, form,
             told->value ? sign : "", told->help, action);
    fputs(" \\\n                ", stdout);
    print_quoted(text);
}

static void print_zsh_command(enum command command) {
    struct option_told told;
    printf("        %s)\n            _arguments -S", commands_told[command].name);
    for (struct flags flags = {.command = command}; flags_next(&flags, &told);) {
        char form[48];
        snprintf(form, sizeof form, "--%s", told.name);
        print_zsh_form(&told, form, "=");
        snprintf(form, sizeof form, "-%c", told.letter);
        if (told.letter)
            print_zsh_form(&told, form, "+");
    }
    static const char more[] = " \\\n                ";
    if (takes_file(command)) {
        printf("%s'1:file:_files'", more);
    } else if (command == COMMAND_EXEC) {
        printf("%s'*:argument:_longline_command'", more);
    } else if (command == COMMAND_HELP || command == COMMAND_COMPLETION) {
        printf("%s'1:word:(", more);
        if (command == COMMAND_HELP)
            print_commands();
        else
            print_words(commands_told[command].usage);
        fputs(")'", stdout);
    } else {
        printf("%s'*:argument:()'", more);
    }
    puts("\n            ;;");
}

static void print_zsh(void) {
    puts("#compdef longline\n"
         "# zsh completion for longline: longline completion zsh >\"${fpath[1]}/_longline\"\n"
         "_longline_data() { compset -P @ && _files }\n"
         "_longline_command() {\n"
         "    local at=$words[(i)--]\n"
         "    ((at < CURRENT)) || return\n"
         "    shift at words\n"
         "    ((CURRENT -= at))\n"
         "    _normal\n"
         "}\n"
         "_longline() {\n"
         "    local -a commands=(");
    for (enum command command = 0; command < COMMANDS; command++)
        printf("        '%s:%s'\n", commands_told[command].name, commands_told[command].brief);
    puts("    ) flags=(");
    for (size_t i = 0; i < COMMAND_FLAGS; i++)
        printf("        '--%s:%s'\n", command_flags[i].name, command_flags[i].brief);
    puts("    )\n"
         "    if ((CURRENT == 2)); then\n"
         "        _describe command commands -- flags\n"
         "        return\n"
         "    fi\n"
         "    local command=$words[2]\n"
         "    shift words\n"
         "    ((CURRENT--))\n"
         "    case $command in");
    for (enum command command = 0; command < COMMANDS; command++)
        print_zsh_command(command);
    puts("    esac\n"
         "}\n"
         "[[ $zsh_eval_context[-1] == loadautofunc ]] && _longline \"$@\" || compdef _longline "
         "longline");
}

/* --- fish ------------------------------------------------------------------------------------- */

static const char fish_head[] =
    "# fish completion for longline: longline completion fish | source\n"
    "function __longline_is\n"
    "    set -l words (commandline -opc)\n"
    "    test (count $words) -gt 1; and contains -- $words[2] $argv\n"
    "end\n"
    "function __longline_runs\n"
    "    __longline_is exec; and contains -- -- (commandline -opc)\n"
    "end\n"
    "function __longline_data\n"
    "    set -l word (string replace -r '^-.*?=|^-d' '' -- (commandline -ct))\n"
    "    string match -q '@*' -- $word\n"
    "    and __fish_complete_path (string sub -s 2 -- $word) | string replace -r '^' @\n"
    "end\n"
    "complete -c longline -f\n"
    "complete -c longline -n '__longline_is check backup' -F\n"
    "complete -c longline -n __longline_runs -F -a '(__fish_complete_command)'\n";

#define FISH_FIRST "complete -c longline -n 'test (count (commandline -opc)) -eq 1' "

static void print_fish_first(const char *how, const char *name, const char *help) {
    printf(FISH_FIRST "%s %s -d ", how, name);
    print_quoted(help);
    putchar('\n');
}

static void print_fish_option(enum command command, const struct option_told *told) {
    printf("complete -c longline -n '__longline_is %s' -l %s", commands_told[command].name,
           told->name);
    if (told->letter)
        printf(" -s %c", told->letter);
    switch (told->value ? values_of(told->value) : ANY) {
    case WORDS:
        fputs(" -x -a '", stdout);
        print_words(told->value);
        putchar('\'');
        break;
    case FILES: fputs(" -r -F", stdout); break;
    case JSON_OR_FILES: fputs(" -x -a '(__longline_data)'", stdout); break;
    case ANY: fputs(told->value ? " -x" : "", stdout); break;
    }
    fputs(" -d ", stdout);
    print_quoted(told->help);
    putchar('\n');
}

static void print_fish(void) {
    fputs(fish_head, stdout);
    for (enum command command = 0; command < COMMANDS; command++)
        print_fish_first("-a", commands_told[command].name, commands_told[command].brief);
    for (size_t i = 0; i < COMMAND_FLAGS; i++)
        print_fish_first("-l", command_flags[i].name, command_flags[i].brief);
    for (enum command command = 0; command < COMMANDS; command++) {
        struct option_told told;
        for (struct flags flags = {.command = command}; flags_next(&flags, &told);)
            print_fish_option(command, &told);
    }
    fputs("complete -c longline -n '__longline_is completion' -a '", stdout);
    print_words(commands_told[COMMAND_COMPLETION].usage);
    fputs("'\ncomplete -c longline -n '__longline_is help' -a '", stdout);
    print_commands();
    puts("'");
}

int completion_run(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_COMPLETION, argc, argv, error, sizeof error))
        return options_complain(EX_USAGE, "%s", error);
    if (options.help) {
        options_help(COMMAND_COMPLETION);
        return EX_OK;
    }
    for (size_t i = 0; options.word_count == 1 && i < sizeof shells / sizeof *shells; i++)
        if (strcmp(options.words[0], shells[i].name) == 0) {
            shells[i].print();
            return EX_OK;
        }
    return options_complain(EX_USAGE, "usage: longline completion %s",
                            commands_told[COMMAND_COMPLETION].usage);
}
