/* Numbers and bytes, written into a file and read again; and what is no such file. */
#include "base/pack.h"
#include "support.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint64_t numbers[] = {
    0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX / 2, UINT64_MAX - 1, UINT64_MAX};
static const int64_t negatives[] = {0, 1, -1, 63, -64, -65, INT64_MAX, INT64_MIN};

enum {
    NUMBERS = sizeof numbers / sizeof *numbers,
    NEGATIVES = sizeof negatives / sizeof *negatives
};

/* The bytes of the file; free() them. */
static struct slice written(struct pack *pack) {
    assert_true(pack_finish(pack));
    size_t len = pack_at(pack);
    char *bytes = malloc(len);
    assert_int_equal(pread(pack->fd, bytes, len, 0), len);
    close(pack->fd);
    return (struct slice){bytes, len};
}

static void test_round_trip(void **state) {
    (void)state;
    struct pack pack = {.fd = memfd_create("pack", 0)};
    size_t large = 3 * PACK_BUFFER_BYTES;
    char *bytes = malloc(large);
    memset(bytes, 'x', large);
    for (int i = 0; i < NUMBERS; i++)
        pack_number(&pack, numbers[i]);
    for (int i = 0; i < NEGATIVES; i++)
        pack_number(&pack, pack_signed(negatives[i]));
    pack_bytes(&pack, SLICE(""));
    pack_bytes(&pack, (struct slice){bytes, large});
    pack_bytes(&pack, SLICE("a\0b"));
    pack_raw(&pack, "raw", 3);
    struct slice file = written(&pack);
    struct unpack in = unpack_of(file);
    for (int i = 0; i < NUMBERS; i++)
        assert_true(unpack_number(&in) == numbers[i]);
    for (int i = 0; i < NEGATIVES; i++)
        assert_true(unpack_signed(unpack_number(&in)) == negatives[i]);
    assert_int_equal(unpack_bytes(&in).len, 0);
    assert_slices(unpack_bytes(&in), ((struct slice){bytes, large}));
    assert_slices(unpack_bytes(&in), SLICE("a\0b"));
    assert_slices(unpack_raw(&in, 3), SLICE("raw"));
    assert_false(in.failed);
    unpack_number(&in);
    assert_true(in.failed);
    free((char *)file.data);
    free(bytes);
}

static void test_nonsense(void **state) {
    (void)state;
    struct unpack too_long = unpack_of(SLICE("\x05"
                                             "abcd"));
    assert_int_equal(unpack_bytes(&too_long).len, 0);
    assert_true(too_long.failed);
    assert_int_equal(unpack_number(&too_long), 0); /* it stays failed */
    struct unpack endless = unpack_of(SLICE("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
    assert_int_equal(unpack_number(&endless), 0);
    assert_true(endless.failed);
    struct unpack cut = unpack_of(SLICE("\x80"));
    unpack_number(&cut);
    assert_true(cut.failed);
    struct unpack above = unpack_of(SLICE("\x03"));
    assert_int_equal(unpack_up_to(&above, 2), 0);
    assert_true(above.failed);
    struct unpack just = unpack_of(SLICE("\x02"));
    assert_int_equal(unpack_up_to(&just, 2), 2);
    assert_false(just.failed);
}

static void test_a_file_that_takes_nothing(void **state) {
    (void)state;
    struct pack pack = {.fd = -1};
    pack_bytes(&pack, SLICE("lost"));
    assert_false(pack_finish(&pack));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_a_file_that_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
