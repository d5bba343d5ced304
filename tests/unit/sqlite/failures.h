/*
 * Calls that fail. Of those of one kind that the program makes, the n-th does, or all from it on.
 * The linker puts ours in front of SQLite's and malloc's (meson.build). Those of the system stand
 * in front of libc's, so SQLite's own reads and writes fail, too.
 */
#pragma once

#include "fixture.h"

#include <sqlite3.h>

enum failing_kind {
    FAIL_SQLITE, /* what we ask of SQLite, which then does nothing, and says `code` */
    FAIL_MEMORY, /* allocations of the log, of a check and of a backup, not of the test */
    FAIL_SYSTEM, /* with the errno `code` */
};

struct failure {
    enum failing_kind kind;
    int code;
    bool rolls_back; /* as some errors make SQLite do by itself */
    bool goes_on;    /* those behind the n-th fail, too */
};

/* From now on. */
void fail_at(const struct failure *failure, int n);
/* No more; whether any has failed. */
bool fail_end(void);

/* To the log, the file is damaged: it may lose more than the operation. */
static inline bool failure_is_damage(const struct failure *failure) {
    return failure->kind == FAIL_SQLITE && (failure->code & 0xff) == SQLITE_CORRUPT;
}
