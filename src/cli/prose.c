#include "cli/prose.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void prose_print(const char *text, int indent, int width) {
    int column = indent;
    for (const char *at = text; *at;) {
        int len = (int)strcspn(at, " \n");
        if (column > indent && column + 1 + len > width) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        fwrite(at, 1, (size_t)len, stdout);
        column += len;
        at += len;
        if (*at == '\n') {
            printf("\n\n%*s", indent, "");
            column = indent;
        }
        at += *at != '\0';
    }
    putchar('\n');
}

/* --- roff ------------------------------------------------------------------------------------- */

struct roff {
    const char *names;
    bool is_quoted;  /* between backquotes */
    bool is_literal; /* hyphens are to be copied */
};

static bool is_of_name(char c) {
    return isalpha((unsigned char)c) || c == '_' || c == '-';
}

/* Whether the word is one of the names. */
static bool is_named(const char *word, size_t len, const char *names) {
    for (const char *at = names; *at;) {
        size_t name = 0;
        at += strspn(at, "-");
        while (is_of_name(at[name]))
            name++;
        if (len == name && strncmp(at, word, len) == 0)
            return true;
        at += name ? name : 1;
    }
    return false;
}

static void put_char(struct roff *roff, char c) {
    switch (c) {
    case '`':
        fputs(roff->is_quoted ? "\\(cq" : "\\(oq", stdout);
        roff->is_quoted = !roff->is_quoted;
        break;
    case '\\': fputs("\\e", stdout); break;
    case '~': fputs("\\(ti", stdout); break;
    case '^': fputs("\\(ha", stdout); break;
    case '-': fputs(roff->is_literal || roff->is_quoted ? "\\-" : "-", stdout); break;
    default: putchar(c);
    }
}

static void put_run(struct roff *roff, const char *run, size_t len, const char *font) {
    if (font)
        printf("\\f%s", font);
    for (size_t i = 0; i < len; i++)
        put_char(roff, run[i]);
    if (font)
        fputs("\\fR", stdout);
}

/* Whether what is typed as it is stands alone: "stop", but not the fish of "config.fish". */
static bool stands_alone(const char *word, size_t at, size_t run) {
    return (!at || strchr("[(|", word[at - 1])) && (strchr(" \n.,;:)]|", word[at + run]));
}

/* Of the run of letters at word[at]: that of an option, of a name, or none. */
static const char *font_of(const struct roff *roff, const char *word, size_t at, size_t run) {
    bool is_option = word[at] == '-' && run > 1 && (!at || !isalnum((unsigned char)word[at - 1]));
    if (is_option)
        return roff->is_quoted ? NULL : "B";
    if (!is_named(word + at, run, roff->names))
        return NULL;
    if (isupper((unsigned char)word[at]))
        return "I";
    return !roff->is_quoted && stands_alone(word, at, run) ? "B" : NULL;
}

/* The length of the run of letters at `at`; of --SETTING it is the dashes. */
static size_t run_of(const char *at, const char *end) {
    size_t run = 0;
    if (end - at > 2 && strncmp(at, "--", 2) == 0 && isupper((unsigned char)at[2]))
        return 2;
    while (at + run < end && is_of_name(at[run]))
        run++;
    return run;
}

static void put_word(struct roff *roff, const char *word, size_t len) {
    bool has_digit = false;
    for (size_t i = 0; i < len; i++)
        has_digit |= isdigit((unsigned char)word[i]) || word[i] == '/';
    if (strchr(".'", *word))
        fputs("\\&", stdout);
    for (size_t i = 0, run; i < len; i += run) {
        run = run_of(word + i, word + len);
        roff->is_literal = has_digit || word[i] == '-';
        if (run)
            put_run(roff, word + i, run, font_of(roff, word, i, run));
        else
            put_char(roff, word[i]);
        run += !run;
    }
}

/* Whether a sentence ends with this word, and another one follows. */
static bool ends_sentence(const char *word, size_t len) {
    if (len < 2 || word[len - 1] != '.' || word[len - 2] == '.' || !word[len])
        return false;
    return isupper((unsigned char)word[len + 1]) || isdigit((unsigned char)word[len + 1]);
}

void prose_roff(const char *text, const char *names) {
    struct roff roff = {.names = names};
    for (const char *at = text; *at;) {
        size_t len = strcspn(at, " \n");
        put_word(&roff, at, len);
        if (at[len] == '\n')
            fputs("\n.Pp\n", stdout);
        else if (at[len])
            putchar(ends_sentence(at, len) ? '\n' : ' ');
        at += len + (at[len] != '\0');
    }
}
