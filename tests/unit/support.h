/* What the unit tests share: cmocka with the headers it needs before it, and slices. */
#pragma once

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/slice.h"

static inline void assert_slices_at(struct slice got, struct slice wanted, const char *file,
                                    int line) {
    if (slice_equal(got, wanted))
        return;
    print_error("got    (%zu bytes): %.*s\nwanted (%zu bytes): %.*s\n", got.len, (int)got.len,
                got.data, wanted.len, (int)wanted.len, wanted.data);
    _fail(file, line);
}

/* Fails with both texts when the slice `got` is not the C string, or the slice, `wanted`. */
#define assert_text(got, wanted) assert_slices_at(got, slice_of(wanted), __FILE__, __LINE__)
#define assert_slices(got, wanted) assert_slices_at(got, wanted, __FILE__, __LINE__)

/* The open descriptors of this program, and as many more each time. */
static inline int count_descriptors(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}
