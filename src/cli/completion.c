#include "cli/completion.h"
#include "cli/options.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

/* The commands that have no options of this kind. */
static const struct {
    const char *name, *help;
} others[] = {
    {"serve", "serve until SIGTERM or SIGINT"},
    {"health", "check whether a server serves"},
    {"new", "print a new secret address"},
    {"check", "read a data file, and say whether it is whole"},
    {"completion", "print what a shell needs to complete"},
    {"help", "print what there is"},
};

enum { OTHERS = sizeof others / sizeof *others };

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

static void print_bash_options(enum command command) {
    struct option_told told;
    printf("        %s) words='", options_name(command));
    for (size_t at = 0; options_next(command, &at, &told);)
        printf("--%s%s", told.name, told.value ? "= " : " ");
    puts("' ;;");
}

/* A word that ends in = gets no space behind it. */
static void print_bash(void) {
    puts("# bash completion for longline: source <(longline completion bash)\n"
         "_longline() {\n"
         "    local word=${COMP_WORDS[COMP_CWORD]} words= i\n"
         "    for ((i = 2; i < COMP_CWORD; i++)); do\n"
         "        [ \"${COMP_WORDS[i]}\" != -- ] || { COMPREPLY=($(compgen -c -- \"$word\")); "
         "return; }\n"
         "    done\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    printf("        COMPREPLY=($(compgen -W '");
    for (enum command command = 0; command < COMMANDS; command++)
        printf("%s ", options_name(command));
    for (size_t i = 0; i < OTHERS; i++)
        printf("%s ", others[i].name);
    puts("' -- \"$word\"))\n"
         "        return\n"
         "    fi\n"
         "    case ${COMP_WORDS[1]} in");
    for (enum command command = 0; command < COMMANDS; command++)
        print_bash_options(command);
    puts("        completion) words='bash zsh fish' ;;\n"
         "    esac\n"
         "    case $word in\n"
         "        -*) ;;\n"
         "        *) [ \"${COMP_WORDS[1]}\" = completion ] || words= ;;\n"
         "    esac\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
         "    [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace\n"
         "}\n"
         "complete -o default -F _longline longline");
}

/* --- zsh -------------------------------------------------------------------------------------- */

static void print_zsh_options(enum command command) {
    struct option_told told;
    printf("        %s)\n            _arguments -S", options_name(command));
    for (size_t at = 0; options_next(command, &at, &told);) {
        char text[256];
        const char *more = told.is_list ? "*" : "";
        const char *value = told.value ? told.value : "";
        char words[32] = "";
        for (size_t i = 0; value[i] && i < sizeof words - 1; i++)
            words[i] = strchr("':|", value[i]) ? ' ' : value[i];
        fputs(" \\\n                ", stdout);
        snprintf(text, sizeof text, "%s--%s%s[%s]%s%s%s", more, told.name, told.value ? "=" : "",
                 told.help, told.value ? ":" : "", words, told.value ? ":_files" : "");
        /* A colon within the brackets is text; the brackets themselves never occur in it. */
        print_quoted(text);
    }
    puts(" \\\n                '*:: :_default'\n            ;;");
}

static void print_zsh(void) {
    puts("#compdef longline\n"
         "# zsh completion for longline: longline completion zsh >\"${fpath[1]}/_longline\"\n"
         "_longline() {\n"
         "    local -a commands=(");
    for (enum command command = 0; command < COMMANDS; command++)
        printf("        '%s:%s'\n", options_name(command), options_about(command));
    for (size_t i = 0; i < OTHERS; i++)
        printf("        '%s:%s'\n", others[i].name, others[i].help);
    puts("    )\n"
         "    if ((CURRENT == 2)); then\n"
         "        _describe command commands\n"
         "        return\n"
         "    fi\n"
         "    local command=$words[2]\n"
         "    shift words\n"
         "    ((CURRENT--))\n"
         "    case $command in");
    for (enum command command = 0; command < COMMANDS; command++)
        print_zsh_options(command);
    puts("        completion) compadd bash zsh fish ;;\n"
         "        *) _default ;;\n"
         "    esac\n"
         "}\n"
         "[[ $zsh_eval_context[-1] == loadautofunc ]] && _longline \"$@\" || compdef _longline "
         "longline");
}

/* --- fish ------------------------------------------------------------------------------------- */

static void print_fish_command(const char *name, const char *help) {
    printf("complete -c longline -n __fish_use_subcommand -f -a %s -d ", name);
    print_quoted(help);
    putchar('\n');
}

static void print_fish(void) {
    puts("# fish completion for longline: longline completion fish | source");
    for (enum command command = 0; command < COMMANDS; command++)
        print_fish_command(options_name(command), options_about(command));
    for (size_t i = 0; i < OTHERS; i++)
        print_fish_command(others[i].name, others[i].help);
    for (enum command command = 0; command < COMMANDS; command++) {
        struct option_told told;
        for (size_t at = 0; options_next(command, &at, &told);) {
            printf("complete -c longline -n '__fish_seen_subcommand_from %s' -l %s",
                   options_name(command), told.name);
            if (told.letter)
                printf(" -s %c", told.letter);
            fputs(told.value ? " -r -d " : " -d ", stdout);
            print_quoted(told.help);
            putchar('\n');
        }
    }
    puts("complete -c longline -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'");
}

int completion_run(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    if (argc == 1 && strcmp(argv[0], "--help") == 0) {
        puts("Usage: longline completion bash | zsh | fish\n\n"
             "Prints what the shell needs to complete longline's commands and options:\n\n"
             "  source <(longline completion bash)                      in ~/.bashrc\n"
             "  longline completion zsh >\"${fpath[1]}/_longline\"        once\n"
             "  longline completion fish | source                       in "
             "~/.config/fish/config.fish");
        return EX_OK;
    }
    for (size_t i = 0; argc == 1 && i < sizeof shells / sizeof *shells; i++)
        if (strcmp(argv[0], shells[i].name) == 0) {
            shells[i].print();
            return EX_OK;
        }
    return options_complain(EX_USAGE, "usage: longline completion bash | zsh | fish");
}
