/* `longline doctor`: measures what stands between this machine and a server, and says what to
 * change. */
#pragma once

/* Runs with the arguments behind `doctor`; returns the exit code. */
int doctor_run(int argc, char **argv);
