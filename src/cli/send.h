/* `longline send`: pushes one update, and says whether it is stored. */
#pragma once

/* Runs with the arguments behind `send`; returns the exit code. */
int send_run(int argc, char **argv);
