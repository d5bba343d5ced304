/* `longline completion`: what a shell needs to complete commands and options, made of their table. */
#pragma once

/* Runs with the arguments behind `completion`; returns the exit code. */
int completion_run(int argc, char **argv);
