/*
 * Calls that fail where a test says so: the linker puts MAY_FAIL()'s function in front of the real
 * one (--wrap), for the code under test and not for libraries.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static struct {
    const char *what; /* a call, or a kind of them; NULL: none fails */
    int error;        /* its errno; 0: it stays */
    unsigned nth;     /* that fails, from 1 on; 0: all do */
    unsigned calls;   /* so far */
    unsigned failed;
} failing;

/* The nth call of `what` from now on will fail. */
static inline void fail_call(const char *what, unsigned nth, int error) {
    failing.what = what;
    failing.nth = nth;
    failing.error = error;
    failing.calls = failing.failed = 0;
}

static inline void fail_nothing(void) {
    failing.what = NULL;
}

/* Whether this call does. */
static inline bool fails(const char *what) {
    if (!failing.what || strcmp(failing.what, what) != 0)
        return false;
    if (++failing.calls != failing.nth && failing.nth)
        return false;
    failing.failed++;
    errno = failing.error ? failing.error : errno;
    return true;
}

#define MAY_FAIL(type, name, parameters, arguments, what, result)                                  \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters {                                                                \
        return fails(what) ? (result) : __real_##name arguments;                                   \
    }
