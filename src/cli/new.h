/*
 * `longline new`: prints a new secret address, or with --keys the three addresses of a channel.
 */
#pragma once

#include <stdbool.h>

/* Prints by the arguments behind `new`; false when they are wrong, and nothing is printed. */
bool new_print(int argc, char **argv);
