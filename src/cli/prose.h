/*
 * The texts of the tables of commands, options and settings, as a terminal shows them and as the
 * man page has them. Such a text is plain: sentences, `quotes` around what is to be typed, "\n"
 * between paragraphs.
 */
#pragma once

/*
 * Prints a text with a line break behind it, and no line longer than `width`, unless a word is.
 * The cursor stands at column `indent`, where the further lines begin as well.
 */
void prose_print(const char *text, int indent, int width);

/*
 * Prints a text as roff: each sentence on its own line, and no line that roff could take for a
 * macro. Options are bold. Of the words in `names`, such as "URL KEY=VALUE stop|skip", those in
 * capitals stand for something and are italic; the others are typed as they are, and bold.
 */
void prose_roff(const char *text, const char *names);
