/* `longline completion`: what a shell needs to complete commands and options. */
#pragma once

/* Runs with the arguments behind `completion`; returns the exit code. */
int completion_run(int argc, char **argv);
