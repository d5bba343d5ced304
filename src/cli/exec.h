/* `longline exec`: runs a command for every update of a channel. */
#pragma once

/* Runs with the arguments behind `exec`; returns the exit code. */
int exec_run(int argc, char **argv);
