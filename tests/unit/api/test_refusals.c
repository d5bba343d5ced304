/* What is kept of refused pushes: how much, for how long, and whose goes first. */
#include "api/refusals.h"
#include "base/hash.h"
#include "base/log.h"
#include "support.h"

/* The clock of the process, in place of libuv's. */
static uint64_t now_ms = 1000;

uint64_t uv_hrtime(void) {
    return now_ms * 1000000;
}

static void note(const char *channel, const char *from, const char *path) {
    struct refusal refusal = {
        .channel = slice_of(channel),
        .origin = {.method = SLICE("POST"), .from = slice_of(from), .path = slice_of(path)},
        .error = ERROR_BODY_SIZE,
        .body_bytes = 5,
    };
    refusals_note(&refusal);
}

/* How many refused pushes a channel has. */
static int count(const char *channel) {
    struct buf out = {0};
    refusals_write_channel(&out, slice_of(channel));
    buf_putc(&out, '\0');
    int found = 0;
    for (const char *at = out.data; (at = strstr(at, "{\"at\":")); at++)
        found++;
    buf_deinit(&out);
    return found;
}

static bool contains(const char *channel, const char *text) {
    struct buf out = {0};
    refusals_write_channel(&out, slice_of(channel));
    buf_putc(&out, '\0');
    bool found = strstr(out.data, text);
    buf_deinit(&out);
    return found;
}

/* Lets an hour pass. */
static int forget_all(void **state) {
    (void)state;
    now_ms += REFUSALS_KEPT_MS;
    return 0;
}

static void test_a_record(void **state) {
    (void)state;
    assert_int_equal(count("none"), 0);
    note("a", "203.0.113.7", "/v1");
    assert_true(contains("a", ",\"status\":413,\"reason\":\"body_size\",\"error\":\"The body is "
                              "larger than MAX_BODY\",\"method\":\"POST\",\"path\":\"/v1\","
                              "\"from\":\"203.0.113.7\",\"size\":5}]"));
    struct refusal refusal = {.channel = SLICE("b"), .error = ERROR_JSON, .line = 3};
    refusal.body_bytes = -1;
    refusals_note(&refusal);
    assert_true(contains("b", "\"error\":\"Line 3: Malformed JSON payload: an object or an array "
                              "is expected\"}]"));
    assert_int_equal(count("ab"), 0);
    struct refusal unknown = {.error = ERROR_BUSY};
    refusals_note(&unknown);
    assert_int_equal(count(""), 0);
}

static void test_the_newest_of_a_channel_are_kept_for_an_hour(void **state) {
    (void)state;
    for (int i = 0; i < REFUSALS_A_CHANNEL + 5; i++) {
        char path[16];
        snprintf(path, sizeof path, "/%d", i);
        note("a", "192.0.2.1", path);
        now_ms++;
    }
    assert_int_equal(count("a"), REFUSALS_A_CHANNEL);
    assert_true(contains("a", "\"/24\""));
    assert_true(contains("a", "\"/5\""));
    assert_false(contains("a", "\"/4\""));
    now_ms += REFUSALS_KEPT_MS - 10;
    assert_int_equal(count("a"), 9);
    note("a", "192.0.2.1", "/new");
    now_ms += 20;
    assert_int_equal(count("a"), 1);
}

static void test_a_long_path_is_cut(void **state) {
    (void)state;
    char path[300] = "/";
    memset(path + 1, 'x', sizeof path - 2);
    note("a", "192.0.2.1", path);
    path[REFUSALS_PATH_MAX_BYTES] = '"';
    path[REFUSALS_PATH_MAX_BYTES + 1] = '\0';
    assert_true(contains("a", path));
}

/* Makes up so many channels, each from the address that `from` makes of its number. */
static void flood(int channels, const char *from) {
    for (int i = 0; i < channels; i++) {
        char name[32], address[64];
        snprintf(name, sizeof name, "made up %d", i);
        snprintf(address, sizeof address, from, i);
        note(name, address, "");
    }
}

static void test_who_makes_up_names_drives_out_only_his_own(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++)
        note(i % 2 ? "a" : "b", "192.0.2.1", "");
    flood(3 * REFUSALS_CHANNELS, "198.51.100.1");
    assert_int_equal(count("a"), 5);
    assert_int_equal(count("b"), 5);
    assert_int_equal(count("made up 2999"), 1);
    assert_int_equal(count("made up 2002"), 1);
    assert_int_equal(count("made up 2001"), 0);
    flood(3 * REFUSALS_CHANNELS, "2001:db8:7:%x::1");
    assert_int_equal(count("a"), 5);
}

static void test_of_one_client_the_oldest_goes(void **state) {
    (void)state;
    note("a", "192.0.2.1", "");
    note("b", "192.0.2.1", "");
    flood(REFUSALS_CHANNELS - 2, "192.0.2.1");
    note("a", "192.0.2.1", ""); /* is now the newest */
    flood(1, "192.0.2.1");
    assert_int_equal(count("b"), 1);
    note("c", "192.0.2.1", "");
    assert_int_equal(count("a"), 2);
    assert_int_equal(count("b"), 0);
    assert_int_equal(count("c"), 1);
}

int main(void) {
    hash_init();
    log_init(LOG_LEVEL_WARN, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_a_record, forget_all),
        cmocka_unit_test_teardown(test_the_newest_of_a_channel_are_kept_for_an_hour, forget_all),
        cmocka_unit_test_teardown(test_a_long_path_is_cut, forget_all),
        cmocka_unit_test_teardown(test_who_makes_up_names_drives_out_only_his_own, forget_all),
        cmocka_unit_test_teardown(test_of_one_client_the_oldest_goes, forget_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
