/* What is overwritten: everything that a page does not use, and nothing else. */
#include "fixture.h"

#include "sqlite/wipe.h"

enum { PAGE = 512 };

static unsigned char page[PAGE];

static void put16(size_t at, unsigned number) {
    page[at] = (unsigned char)(number >> 8);
    page[at + 1] = (unsigned char)number;
}

/* A page of a B-tree with `count` cells, of which the last begins at `content`. */
static void make_page(unsigned char type, unsigned count, unsigned content) {
    size_t header = type == 0x0d || type == 0x0a ? 8 : 12;
    memset(page, 'x', sizeof page);
    page[0] = type;
    put16(1, 0);
    put16(3, count);
    put16(5, content);
    for (unsigned i = 0; i < count; i++)
        put16(header + 2 * (size_t)i, content + 10 * i);
}

static void check_room(uint32_t begin, uint32_t bytes) {
    struct room room = wipe_room(page, PAGE, 1000);
    assert_int_equal(room.begin, begin);
    assert_int_equal(room.bytes, bytes);
}

static void test_room(void **state) {
    (void)state;
    for (int type = 0; type < 256; type++) {
        bool is_leaf = type == 0x0d || type == 0x0a, is_tree = is_leaf || type == 5 || type == 2;
        uint32_t begin = is_leaf ? 14 : 18;
        make_page((unsigned char)type, 3, 400);
        check_room(is_tree ? begin : 0, is_tree ? 400 - begin : 0);
    }
    make_page(0x0d, 0, PAGE);
    check_room(8, PAGE - 8);
    make_page(0x0d, 3, 14);
    check_room(14, 0);
}

static void test_pages_that_make_no_sense(void **state) {
    (void)state;
    make_page(0x0d, 3, 13); /* cells within the cell pointers */
    check_room(0, 0);
    make_page(0x0d, 3, PAGE + 1);
    check_room(0, 0);
    make_page(0x0d, 3, 0); /* 65536 */
    check_room(0, 0);
    make_page(0x0d, 3, 400);
    put16(3, 253); /* more than there is room for */
    check_room(0, 0);
    make_page(0x0d, 3, 400);
    put16(10, 399); /* a cell before the cells */
    check_room(0, 0);
    put16(10, PAGE);
    check_room(0, 0);
    put16(10, 400);
    check_room(14, 386);
    put16(1, 399); /* a free block before the cells */
    check_room(0, 0);
    put16(1, 420);
    check_room(14, 386);
}

/* In a large file, what looks like a page of a B-tree may be a page of an overflow chain. */
static void test_large_files(void **state) {
    (void)state;
    static const unsigned char types[] = {2, 5, 0x0a, 0x0d};
    for (size_t i = 0; i < sizeof types; i++) {
        make_page(types[i], 3, 400);
        uint32_t first = (uint32_t)types[i] << 24; /* the first page whose number begins so */
        assert_true(wipe_room(page, PAGE, first - 1).bytes);
        assert_false(wipe_room(page, PAGE, first).bytes);
        assert_false(wipe_room(page, PAGE, UINT32_MAX).bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_pages_that_make_no_sense),
        cmocka_unit_test(test_large_files),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
