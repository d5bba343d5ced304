/* `longline tail`: prints the updates of a channel as they come. */
#pragma once

/* Runs with the arguments behind `tail`; returns the exit code. */
int tail_run(int argc, char **argv);
