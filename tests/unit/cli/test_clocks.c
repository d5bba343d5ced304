/* Whether the machine has slept, by clocks that the test sets. */
#include "cli/clocks.h"
#include "support.h"

#include <time.h>

static int64_t wall_ms, steady_ms, boot_ms;

int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
    int64_t ms = clock == CLOCK_REALTIME ? wall_ms : clock == CLOCK_BOOTTIME ? boot_ms : steady_ms;
    *now = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    return 0;
}

static void test_jumps(void **state) {
    (void)state;
    static const struct {
        int64_t wall_s, steady_s, boot_s; /* how far each goes on */
        bool has_jumped;
    } cases[] = {
        {0, 0, 0, false},      {3600, 3600, 3600, false}, /* an hour awake */
        {3600, 5, 3600, true},                            /* asleep for most of it */
        {5, 5, 3600, true},                        /* the same, and the wall clock was set back */
        {3600, 5, 5, true},                        /* set, forward and back */
        {-3600, 5, 5, true},   {12, 5, 12, false}, /* some seconds do not count */
        {-2, 5, 5, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wall_ms = 1795506304321;
        steady_ms = 1000;
        boot_ms = 2000;
        struct clocks before = clocks_now();
        wall_ms += cases[i].wall_s * 1000;
        steady_ms += cases[i].steady_s * 1000;
        boot_ms += cases[i].boot_s * 1000;
        assert_int_equal(clocks_have_jumped(&before), cases[i].has_jumped);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jumps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
