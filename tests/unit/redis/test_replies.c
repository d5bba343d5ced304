/*
 * What the scripts reply, with every part replaced by what it is not: whoever can write to Redis
 * can make a reply into anything, and it must not be taken for what it is not.
 */
#include "base/log.h"
#include "need.h"
#include "redis/parts.h"
#include "reply.h"

static struct redis_store store;
static uv_loop_t loop;

/* An array of `parts`, each as it is on the wire; number `odd` is `instead`. */
static redisReply *array_of(const char *const *parts, int count, int odd, const char *instead) {
    char text[1024];
    int len = snprintf(text, sizeof text, "*%d\r\n", count);
    for (int i = 0; i < count; i++)
        len += snprintf(text + len, sizeof text - (size_t)len, "%s", i == odd ? instead : parts[i]);
    return reply_of(text);
}

#define NIL "$-1\r\n"
#define TEXT(len, text) "$" #len "\r\n" text "\r\n"

/* --- Pages ------------------------------------------------------------------------------------ */

/* Total 3, none gone, from 2 on, two bodies, no records, an epoch, the position, no reset. */
static const char *const page_parts[] = {
    ":3\r\n",      ":0\r\n", ":2\r\n", "*2\r\n" TEXT(2, "{}") TEXT(2, "[]"), "*0\r\n", ":0\r\n",
    TEXT(2, "ab"), ":1\r\n", ":0\r\n"};
enum { PARTS = sizeof page_parts / sizeof *page_parts };

static bool take_page(redisReply *reply, struct store_read *read) {
    *read = (struct store_read){.position = 1, .limit = 10};
    bool is_taken = IN_NEED(page_take(&store, read, reply));
    freeReplyObject(reply);
    return is_taken;
}

static void drop(struct store_read *read) {
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]);
    free(read->updates);
}

static void test_a_page(void **state) {
    (void)state;
    struct store_read read;
    failing_allocation = 0;
    assert_true(take_page(array_of(page_parts, PARTS, -1, NULL), &read));
    assert_int_equal(read.total, 3);
    assert_int_equal(read.after, 1);
    assert_int_equal(read.end, 3);
    assert_int_equal(read.epoch, 0xab);
    assert_int_equal(read.count, 2);
    assert_text(update_body(read.updates[1]), "[]");
    drop(&read);
}

static void test_pages_that_are_none(void **state) {
    (void)state;
    static const struct {
        int part;
        const char *instead;
    } cases[] = {
        {0, NIL},
        {0, ":-1\r\n"},
        {1, ":-1\r\n"},
        {1, TEXT(1, "0")},
        {2, ":0\r\n"},
        {2, TEXT(1, "2")},
        {3, ":2\r\n"},
        {3, "*1\r\n:5\r\n"},
        {3, "*2\r\n" TEXT(2, "{}") NIL},
        {4, NIL},
        {4, "*1\r\n-ERR\r\n"},
        {5, ":-1\r\n"},
        {5, ":1\r\n"}, /* then there would be as many records as bodies */
        {5, TEXT(1, "1")},
        {6, ":7\r\n"},
        {6, NIL},
        {7, ":-1\r\n"},
        {7, NIL},
        {8, TEXT(1, "1")},
        {8, ":-5\r\n"},
    };
    struct store_read read;
    failing_allocation = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (take_page(array_of(page_parts, PARTS, cases[i].part, cases[i].instead), &read))
            fail_msg("case %zu was taken", i);
        assert_null(read.updates);
    }
    assert_false(take_page(array_of(page_parts, PARTS - 1, -1, NULL), &read));
    assert_false(take_page(reply_of("+OK\r\n"), &read));
}

/* A page without memory is none; or it is shorter, and ends where it does. */
static void test_a_page_without_memory(void **state) {
    (void)state;
    struct store_read read;
    failing_allocation = 0;
    do {
        failing_allocation++;
        allocations = 0;
        bool is_taken = take_page(array_of(page_parts, PARTS, -1, NULL), &read);
        assert_int_equal(is_taken, read.count > 0);
        assert_true(!is_taken || read.end == 1 + read.count);
        assert_true(read.count == 2 || allocations >= failing_allocation);
        drop(&read);
    } while (allocations >= failing_allocation);
    assert_int_equal(failing_allocation, 4);
}

/* --- Cursors ---------------------------------------------------------------------------------- */

static enum store_error take_cursors(redisReply *reply, enum cursors_action action,
                                     uint32_t *count) {
    struct store_cursors cursors = {.action = action};
    enum store_error error = IN_NEED(cursors_take(&cursors, reply));
    *count = cursors.count;
    free(cursors.list);
    freeReplyObject(reply);
    return error;
}

/* What is no cursor is left out, those beside it are not. */
static void test_cursors(void **state) {
    (void)state;
    static const char *const parts[] = {TEXT(1, "a"), ":7\r\n", ":9\r\n",
                                        TEXT(1, "b"), ":0\r\n", ":1\r\n"};
    static const struct {
        int part;
        const char *instead;
    } cases[] = {{0, ":1\r\n"},
                 {0, NIL},
                 {0, TEXT(0, "")},
                 {0, TEXT(1, "\n")},
                 {0, TEXT(1, "\xff")},
                 {1, ":-1\r\n"},
                 {1, TEXT(1, "7")},
                 {2, ":-9\r\n"},
                 {2, NIL}};
    uint32_t count;
    failing_allocation = 0;
    assert_int_equal(take_cursors(array_of(parts, 6, -1, NULL), CURSORS_LOAD, &count), STORE_OK);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        redisReply *reply = array_of(parts, 6, cases[i].part, cases[i].instead);
        assert_int_equal(take_cursors(reply, CURSORS_LOAD, &count), STORE_OK);
        assert_int_equal(count, 1);
    }
    assert_int_equal(take_cursors(array_of(parts, 0, -1, NULL), CURSORS_LOAD, &count), STORE_OK);
    assert_int_equal(take_cursors(array_of(parts, 4, -1, NULL), CURSORS_LOAD, &count),
                     STORE_FAILED);
    assert_int_equal(take_cursors(reply_of("+OK\r\n"), CURSORS_LOAD, &count), STORE_FAILED);
    failing_allocation = 1;
    allocations = 0;
    assert_int_equal(take_cursors(array_of(parts, 6, -1, NULL), CURSORS_LOAD, &count),
                     STORE_FAILED);
}

static void test_too_many_cursors(void **state) {
    (void)state;
    struct buf text = {0};
    uint32_t count;
    buf_printf(&text, "*%d\r\n", 3 * (CONSUMERS_MAX + 1));
    for (int i = 0; i <= CONSUMERS_MAX; i++)
        buf_puts(&text, TEXT(1, "a") ":1\r\n:1\r\n");
    buf_putc(&text, '\0');
    failing_allocation = 0;
    assert_int_equal(take_cursors(reply_of(text.data), CURSORS_LOAD, &count), STORE_FAILED);
    assert_int_equal(count, 0);
    buf_deinit(&text);
}

static void test_saved_cursors(void **state) {
    (void)state;
    static const struct {
        const char *reply;
        enum store_error error;
    } cases[] = {{"*0\r\n", STORE_OK},
                 {"*1\r\n" TEXT(4, "full"), STORE_CONSUMERS_FULL},
                 {"*1\r\n" TEXT(4, "what"), STORE_FAILED},
                 {"*1\r\n:1\r\n", STORE_FAILED},
                 {"*2\r\n" TEXT(4, "full") TEXT(4, "full"), STORE_FAILED},
                 {"+full\r\n", STORE_FAILED}};
    uint32_t count;
    failing_allocation = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(take_cursors(reply_of(cases[i].reply), CURSORS_SAVE, &count),
                         cases[i].error);
}

/* --- Purges ----------------------------------------------------------------------------------- */

static void test_purges(void **state) {
    (void)state;
    static const struct {
        const char *reply;
        bool is_taken;
        const char *told;
    } cases[] = {{"*2\r\n:3\r\n" TEXT(0, ""), true, NULL},
                 {"*2\r\n:3\r\n" TEXT(6, "NOPERM"), true, "NOPERM"},
                 {"*2\r\n:-3\r\n" TEXT(0, ""), false, NULL},
                 {"*2\r\n" TEXT(1, "3") TEXT(0, ""), false, NULL},
                 {"*2\r\n:3\r\n:0\r\n", false, NULL},
                 {"*1\r\n:3\r\n", false, NULL},
                 {":3\r\n", false, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct store_purge purge = {0};
        const char *told = NULL;
        redisReply *reply = reply_of(cases[i].reply);
        assert_int_equal(purges_take(&purge, reply, &told), cases[i].is_taken);
        assert_int_equal(purge.gone, cases[i].is_taken ? 3 : 0);
        assert_int_equal(!told, !cases[i].told);
        if (told)
            assert_string_equal(told, cases[i].told);
        freeReplyObject(reply);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_page),
        cmocka_unit_test(test_pages_that_are_none),
        cmocka_unit_test(test_a_page_without_memory),
        cmocka_unit_test(test_cursors),
        cmocka_unit_test(test_too_many_cursors),
        cmocka_unit_test(test_saved_cursors),
        cmocka_unit_test(test_purges),
    };
    uv_loop_init(&loop);
    store.topology.loop = &loop;
    log_init(LOG_LEVEL_ERROR + 1, false);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uv_loop_close(&loop);
    return failed;
}
