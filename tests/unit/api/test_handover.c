/* What a program that went before has said of a poll is believed only as far as it makes sense. */
#include "support.h"

#include "api/handover.h"

static struct pack out; /* what is packed stays in its buffer */

static struct unpack packed(size_t channel_len, size_t consumer_len, uint64_t is_gone) {
    static char text[1024];
    memset(text, 'x', sizeof text);
    out = (struct pack){.fd = -1};
    pack_bytes(&out, (struct slice){text, channel_len});
    pack_bytes(&out, (struct slice){text, consumer_len});
    pack_number(&out, is_gone);
    pack_number(&out, 7); /* confirmed */
    pack_number(&out, 1); /* is known */
    pack_number(&out, 9); /* total */
    pack_number(&out, 5); /* epoch */
    return unpack_of((struct slice){out.buffer, out.len});
}

static void test_a_place(void **state) {
    (void)state;
    struct poll_place place = {0}, again = {0};
    struct unpack in = packed(CHANNEL_NAME_MAX_BYTES, CONSUMER_NAME_MAX_BYTES, 0);
    handover_read_place(&in, &place);
    assert_false(in.failed);
    assert_true(in.at == in.end);
    assert_int_equal(place.channel_len, CHANNEL_NAME_MAX_BYTES);
    assert_int_equal(place.consumer_len, CONSUMER_NAME_MAX_BYTES);
    assert_int_equal(place.total, 9);
    out = (struct pack){.fd = -1};
    handover_save_place(&place, &out);
    in = unpack_of((struct slice){out.buffer, out.len});
    handover_read_place(&in, &again);
    assert_memory_equal(&place, &again, sizeof place);
}

static void test_what_makes_no_sense(void **state) {
    (void)state;
    static const struct {
        size_t channel_len, consumer_len;
        uint64_t is_gone;
    } cases[] = {
        {0, 1, 0},
        {CHANNEL_NAME_MAX_BYTES + 1, 1, 0},
        {1, CONSUMER_NAME_MAX_BYTES + 1, 0},
        {1, 1, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct poll_place place = {0};
        struct unpack in = packed(cases[i].channel_len, cases[i].consumer_len, cases[i].is_gone);
        handover_read_place(&in, &place);
        assert_true(in.failed);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_place),
        cmocka_unit_test(test_what_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
