/*
 * What is left to whoever gets into the process by a fault of ours. Landlock leaves it the folders
 * that were allowed, and where it needs none, no TCP connection; a seccomp filter leaves it the
 * system calls that it makes (filter.c). Neither can be undone, and the program that it becomes at
 * an upgrade is under both as well.
 *
 * A kernel without one of them, or a container that forbids it, is no reason not to serve: it is
 * said in the log. Nothing here allocates.
 *
 * In order: sandbox_begin(), sandbox_allow…(), sandbox_restrict_files() before the first thread,
 * sandbox_restrict_calls() when it serves.
 */
#pragma once

#include <stdbool.h>

/* What an address in a folder, or of a file, may be used for; may be combined. */
enum sandbox_use { SANDBOX_READ = 1, SANDBOX_RUN = 2, SANDBOX_WRITE = 4, SANDBOX_BIND = 8 };

/* `is_successor`: another program has become this one, which may be in its sandbox already.
 * `connects`: to other hosts. What every program needs is allowed: its libraries, its charsets. */
void sandbox_begin(bool is_successor, bool connects);

/* A file, or all that is below a folder. */
void sandbox_allow(const char *path, unsigned uses);
/* The folder of a file, and that of the file that a symbolic link leads to; what is run is only
 * looked for in the latter. */
void sandbox_allow_folder_of(const char *path, unsigned uses);

void sandbox_restrict_files(void);
void sandbox_restrict_calls(void);

/* A file without a name, closed on exec, and never run where the kernel can promise that; the
 * filter allows no other. -1 on failure, with errno. */
int sandbox_memory_file(const char *name);

/* Writes a line of what is on, and what is lacking. */
void sandbox_log(void);

/* This process is about to become another program, which must know. */
void sandbox_hand_over(void);

/* A core dump would hold secrets: there is none from now on, and nobody but root may look into the
 * process. */
void sandbox_forbid_core_dumps(void);
