/* `longline forward`: repeats a channel's requests to a local web server. */
#pragma once

/* Runs with the arguments behind `forward`; returns the exit code. */
int forward_run(int argc, char **argv);
