/* `longline help`, which says what there is. */
#pragma once

/* What it prints, and so does `longline --help`. */
void help_print(void);

/* The command; returns an exit code. */
int help_run(int argc, char **argv);
