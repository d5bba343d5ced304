/* A purge over a real Redis: what its script cuts, and what it leaves. */
#include "fixture.h"

#include "redis/layout.h"
#include "redis/parts.h"

#define KEY "total:" /* the prefix: an awkward one */

static struct server *const redis = &servers[0];

static void on_done(struct store_op *op) {
    *(bool *)op->context = true;
}

static struct {
    struct store_purge purge;
    char name[64];
} it;

static enum store_error purge(const char *channel, uint64_t upto) {
    bool is_done = false;
    it.purge = (struct store_purge){.op = {.done = on_done, .context = &is_done},
                                    .upto = upto,
                                    .name_len = (uint16_t)strlen(channel)};
    memcpy(it.purge.name, channel, it.purge.name_len);
    store_purge(store, &it.purge);
    run_until(&is_done);
    return it.purge.error;
}

static void check_gone(const char *channel, uint64_t upto, uint64_t gone) {
    assert_int_equal(purge(channel, upto), STORE_OK);
    assert_int_equal(it.purge.gone, gone);
}

static long long number(const char *command, const char *kind, const char *channel) {
    return atoll(ask_text(redis, "%s " KEY "%s:%s", command, kind, channel));
}

static void check_lengths(const char *channel, long long updates, long long records) {
    assert_int_equal(number("LLEN", "updates", channel), updates);
    assert_int_equal(number("LLEN", "meta", channel), records);
}

static void push_some(const char *channel, int count) {
    while (count--)
        assert_int_not_equal(push(channel), 0);
}

/* Stores updates as lua-long-polling does. */
static void push_upstream(const char *channel, int count) {
    while (count--) {
        ask(redis, "INCR " KEY "total:%s", channel);
        ask(redis, "RPUSH " KEY "updates:%s {\"n\":1}", channel);
    }
}

static void test_a_part_and_the_whole(void **state) {
    (void)state;
    const char *channel = "part";
    push_some(channel, 300);
    long long left = number("PTTL", "updates", channel);
    long long left_of_meta = number("PTTL", "meta", channel); /* a moment later, for Redis 7.0 */
    const char *epoch = strdup(ask_text(redis, "GET " KEY "epoch:%s", channel));
    check_gone(channel, 0, 0);
    check_lengths(channel, 300, 300);
    check_gone(channel, 150, 150);
    check_lengths(channel, 150, 150);
    assert_int_equal(redis_record_ts(slice_of(ask_text(redis, "LINDEX " KEY "meta:part 0"))), 151);
    assert_in_range(number("PTTL", "updates", channel), left - 60000, left);
    assert_in_range(number("PTTL", "meta", channel), left_of_meta - 60000, left_of_meta);
    const struct store_read *read = read_from(channel, 0, 0, false);
    assert_int_equal(read->gone, 150);
    assert_int_equal(read->count, 150);
    check_gone(channel, 7, 150);
    check_lengths(channel, 150, 150);
    check_gone(channel, UINT64_MAX, 300);
    assert_int_equal(number("EXISTS", "updates", channel), 0);
    assert_int_equal(number("EXISTS", "meta", channel), 0);
    assert_string_equal(ask_text(redis, "GET " KEY "total:%s", channel), "300");
    assert_string_equal(ask_text(redis, "GET " KEY "epoch:%s", channel), epoch);
    assert_int_equal(push(channel), 301);
    assert_in_range(number("PTTL", "updates", channel), left - 60000, left + 60000);
    assert_in_range(number("PTTL", "meta", channel), left - 60000, left + 60000);
    free((char *)epoch);
}

static struct store_append *begin_push(const char *channel, bool *is_done) {
    size_t len = strlen(channel);
    struct update_parts parts = {.body = SLICE("{}"), .method = SLICE("POST")};
    struct store_append *append = calloc(1, sizeof *append + len);
    append->only = update_new(&parts);
    append->updates = &append->only;
    append->count = 1;
    append->op = (struct store_op){.done = on_done, .context = is_done};
    append->name_len = (uint16_t)len;
    memcpy(append->name, channel, len);
    store_append(store, append);
    return append;
}

/* What is begun in one turn is done in its order: what comes behind a purge stays. */
static void test_pushes_around_it(void **state) {
    (void)state;
    bool are_done[2] = {false};
    struct store_append *pushes[2];
    pushes[0] = begin_push("around", &are_done[0]);
    bool is_purged = false;
    it.purge = (struct store_purge){.op = {.done = on_done, .context = &is_purged},
                                    .upto = UINT64_MAX,
                                    .name_len = sizeof "around" - 1};
    memcpy(it.purge.name, "around", it.purge.name_len);
    store_purge(store, &it.purge);
    pushes[1] = begin_push("around", &are_done[1]);
    run_until(&are_done[0]);
    run_until(&is_purged);
    run_until(&are_done[1]);
    assert_int_equal(it.purge.error, STORE_OK);
    assert_int_equal(it.purge.gone, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pushes[i]->error, STORE_OK);
        assert_int_equal(pushes[i]->only->ts, i + 1);
        update_unref(pushes[i]->only);
        free(pushes[i]);
    }
    check_lengths("around", 1, 1);
}

static void test_what_there_is_not(void **state) {
    (void)state;
    check_gone("unknown", UINT64_MAX, 0);
    check_gone("unknown", 7, 0);
    assert_string_equal(ask_text(redis, "EXISTS " KEY "total:unknown"), "0");
    push_some("expired", 3);
    ask(redis, "DEL " KEY "updates:expired " KEY "meta:expired");
    check_gone("expired", 1, 3);
    push_some("lost", 3); /* nothing of it is served, and yet it goes */
    ask(redis, "DEL " KEY "total:lost");
    check_gone("lost", UINT64_MAX, 0);
    check_lengths("lost", 0, 0);
    ask(redis, "SET " KEY "total:broken x");
    assert_int_equal(purge("broken", UINT64_MAX), STORE_DAMAGED);
    push_some("typed", 2);
    ask(redis, "DEL " KEY "meta:typed");
    ask(redis, "SET " KEY "meta:typed x");
    assert_int_equal(purge("typed", UINT64_MAX), STORE_DAMAGED);
    assert_int_equal(number("LLEN", "updates", "typed"), 2); /* nothing was done */
}

/* Of upstream's updates there is no record: the lists do not stand side by side. */
static void test_records_with_holes(void **state) {
    (void)state;
    const char *channel = "mixed";
    push_some(channel, 20);     /* 1 to 20 */
    push_upstream(channel, 20); /* 21 to 40 */
    push_some(channel, 20);     /* 41 to 60 */
    check_gone(channel, 10, 10);
    check_lengths(channel, 50, 30);
    check_gone(channel, 30, 30);
    check_lengths(channel, 30, 20);
    check_gone(channel, 41, 41);
    check_lengths(channel, 19, 19);
    push_upstream(channel, 20); /* 61 to 80 */
    check_gone(channel, 70, 70);
    check_lengths(channel, 10, 0);
    assert_int_equal(read_from(channel, 0, 0, false)->count, 10);
}

/* Whatever is no record of an update that stays goes, and what stands before it. */
static void test_records_of_a_life_before(void **state) {
    (void)state;
    const char *channel = "lives";
    push_some(channel, 4);
    push_upstream(channel, 3); /* 5 to 7 */
    ask(redis, "LSET " KEY "meta:%s 1 %s", channel, "6 1 7 -1 0 0 4\nPOST");
    check_gone(channel, 2, 2);
    check_lengths(channel, 5, 2);
    assert_int_equal(redis_record_ts(slice_of(ask_text(redis, "LINDEX " KEY "meta:lives 0"))), 3);
    ask(redis, "RPUSH " KEY "meta:%s x", channel);
    check_gone(channel, 2, 2);
    check_lengths(channel, 5, 0);
}

static void test_what_is_beyond_the_bound(void **state) {
    (void)state;
    const char *channel = "bound";
    push_some(channel, 1010);
    check_lengths(channel, 1010, 1010);
    check_gone(channel, 1, 10);
    check_lengths(channel, 1009, 1009);
    check_gone(channel, 1000, 1000);
    check_lengths(channel, 10, 10);
}

static void test_without_rights(void **state) {
    (void)state;
    push_some("rights", 10);
    ask(redis, "ACL SETUSER default -unlink");
    check_gone("rights", UINT64_MAX, 10);
    check_lengths("rights", 0, 0);
    push_some("rights", 10);
    ask(redis, "ACL SETUSER default resetchannels");
    check_gone("rights", 15, 15);
    ask(redis, "ACL SETUSER default allchannels -ltrim");
    assert_int_equal(purge("rights", 17), STORE_REFUSED);
    check_lengths("rights", 5, 5);
    ask(redis, "ACL SETUSER default +@all");
}

static void test_it_needs_no_memory(void **state) {
    (void)state;
    push_some("full", 10);
    ask(redis, "CONFIG SET maxmemory 1");
    assert_int_equal(push("full"), 0);
    check_gone("full", 5, 5);
    check_gone("full", UINT64_MAX, 10);
    ask(redis, "CONFIG SET maxmemory 0");
}

/* It may have been done; and what came in between must not go with a second try. */
static void test_it_is_not_repeated(void **state) {
    (void)state;
    ask(redis, "SCRIPT FLUSH");
    push_some("once", 3);
    check_gone("once", UINT64_MAX, 3);
    ask(redis, "CONFIG SET min-replicas-to-write 1");
    assert_int_equal(purge("once", UINT64_MAX), STORE_OK); /* nothing to do */
    ask(redis, "CONFIG SET min-replicas-to-write 0");
    push_some("once", 1);
    ask(redis, "CONFIG SET min-replicas-to-write 1");
    assert_int_equal(purge("once", UINT64_MAX), STORE_TOO_FEW_REPLICAS);
    ask(redis, "CONFIG SET min-replicas-to-write 0");
    check_lengths("once", 1, 1);
}

static void test_messages(void **state) {
    (void)state;
    static const char *const none[] = {
        "",          "purged",    "purged ",  "purged x",
        "purged -1", "purged 1 ", "Purged 1", "purged 1234567890123456789"};
    uint64_t gone;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_false(purges_parse(slice_of(none[i]), &gone));
    assert_true(purges_parse(SLICE("purged 0"), &gone));
    assert_int_equal(gone, 0);
    assert_true(purges_parse(SLICE("purged 9007199254740991"), &gone));
    assert_int_equal(gone, 9007199254740991);
    struct redis_record record;
    assert_false(redis_record_parse(SLICE("purged 7"), &record)); /* what older servers find */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_part_and_the_whole),
        cmocka_unit_test(test_pushes_around_it),
        cmocka_unit_test(test_what_there_is_not),
        cmocka_unit_test(test_records_with_holes),
        cmocka_unit_test(test_records_of_a_life_before),
        cmocka_unit_test(test_what_is_beyond_the_bound),
        cmocka_unit_test(test_without_rights),
        cmocka_unit_test(test_it_needs_no_memory),
        cmocka_unit_test(test_it_is_not_repeated),
        cmocka_unit_test(test_messages),
    };
    if (!has_redis())
        return 77; /* skipped */
    return cmocka_run_group_tests(tests, start_one, stop_all);
}
