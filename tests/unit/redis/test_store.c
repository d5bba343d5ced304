/* The store over a real Redis: positions, epochs, and the cursors of consumers. */
#include "fixture.h"

#include "base/buf.h"

#define KEY "total:" /* the prefix: an awkward one */

static struct server *const redis = &servers[0];

static int64_t redis_now_ms(void) {
    const redisReply *time = ask(redis, "TIME");
    return atoll(time->element[0]->str) * 1000 + atoll(time->element[1]->str) / 1000;
}

static uint64_t epoch_of(const char *channel) {
    return strtoull(ask_text(redis, "GET " KEY "epoch:%s", channel), NULL, 16);
}

/* Stores an update as lua-long-polling does. */
static void push_upstream(const char *channel) {
    ask(redis, "INCR " KEY "total:%s", channel);
    ask(redis, "RPUSH " KEY "updates:%s {\"n\":1}", channel);
}

/* --- Epochs ----------------------------------------------------------------------------------- */

static void check_no_reset(const char *channel, int64_t position, uint64_t seen, uint64_t epoch) {
    const struct store_read *read = read_from(channel, position, seen, true);
    assert_int_equal(read->error, STORE_OK);
    assert_false(read->is_reset);
    assert_int_equal(read->epoch, epoch);
    assert_true(read->end >= read->total);
}

static void check_reset(const char *channel, int64_t position, uint64_t seen, uint64_t epoch) {
    const struct store_read *read = read_from(channel, position, seen, false);
    assert_int_equal(read->error, STORE_OK);
    assert_true(read->is_reset);
    assert_int_equal(read->epoch, epoch);
    assert_int_equal(read->after, 0);
    assert_int_equal(read->count, 0);
}

static void test_an_epoch_lives_with_its_counter(void **state) {
    (void)state;
    const char *channel = "lives";
    assert_int_equal(push(channel), 1);
    assert_int_equal(strlen(ask_text(redis, "GET " KEY "epoch:%s", channel)), 16);
    uint64_t epoch = epoch_of(channel);
    assert_int_not_equal(epoch, 0);
    int64_t left = atoll(ask_text(redis, "PTTL " KEY "total:%s", channel));
    assert_in_range(atoll(ask_text(redis, "PTTL " KEY "epoch:%s", channel)), left - 5000,
                    left + 1000);
    assert_int_equal(push(channel), 2);
    check_no_reset(channel, 0, 0, epoch);
    check_no_reset(channel, 2, epoch, epoch);
    check_no_reset(channel, 0, ~epoch, epoch);
    check_no_reset(channel, -1, ~epoch, epoch);
    check_no_reset(channel, POSITION_NOW, ~epoch, epoch);
    check_no_reset(channel, position_since(1), ~epoch, epoch);
    check_no_reset(channel, 2, 0, epoch);
    check_reset(channel, 1, ~epoch, epoch);
    check_reset(channel, 3, ~epoch, epoch);
    assert_int_equal(read_from(channel, 3, epoch, true)->after, 3);

    ask(redis, "PEXPIRE " KEY "epoch:%s 100000", channel);
    ask(redis, "PEXPIRE " KEY "updates:%s 100000", channel);
    assert_int_equal(push(channel), 3);
    assert_in_range(atoll(ask_text(redis, "PTTL " KEY "epoch:%s", channel)), left - 60000,
                    left + 1000);
    assert_int_equal(epoch_of(channel), epoch);
}

static void test_another_life_has_another_epoch(void **state) {
    (void)state;
    const char *channel = "another";
    assert_int_equal(push(channel), 1);
    uint64_t epoch = epoch_of(channel);
    ask(redis, "HSET " KEY "consumers:%s bot x", channel);
    ask(redis, "DEL " KEY "total:%s", channel);
    check_reset(channel, 1, epoch, 0);
    check_reset(channel, 1, ~epoch, 0);
    check_no_reset(channel, 1, 0, 0);
    check_no_reset(channel, 0, epoch, 0);
    assert_int_equal(push(channel), 1);
    assert_int_not_equal(epoch_of(channel), epoch);
    check_reset(channel, 1, epoch, epoch_of(channel));
    assert_string_equal(ask_text(redis, "EXISTS " KEY "consumers:%s", channel), "0");
    assert_int_equal(push("other"), 1);
    assert_int_not_equal(epoch_of("other"), epoch_of(channel));
}

static void test_who_wants_an_epoch_gets_one(void **state) {
    (void)state;
    const char *channel = "upstream";
    push_upstream(channel);
    check_no_reset("nothing", 0, 0, 0);
    assert_string_equal(ask_text(redis, "EXISTS " KEY "epoch:nothing"), "0");
    assert_int_equal(read_from(channel, 0, 0, false)->epoch, 0);
    assert_false(read_from(channel, 1, 7, false)->is_reset);
    assert_int_equal(epoch_of(channel), 0);

    uint64_t epoch = read_from(channel, 0, 0, true)->epoch;
    assert_int_not_equal(epoch, 0);
    assert_int_equal(epoch_of(channel), epoch);
    assert_string_equal(ask_text(redis, "PTTL " KEY "epoch:%s", channel), "-1");
    ask(redis, "PEXPIRE " KEY "total:%s 600000", channel);
    check_no_reset(channel, 1, epoch, epoch);
    assert_in_range(atoll(ask_text(redis, "PTTL " KEY "epoch:%s", channel)), 500000, 601000);
    ask(redis, "PEXPIRE " KEY "total:%s 900000", channel);
    check_no_reset(channel, 1, epoch, epoch);
    assert_in_range(atoll(ask_text(redis, "PTTL " KEY "epoch:%s", channel)), 800000, 901000);

    ask(redis, "DEL " KEY "epoch:%s", channel);
    const struct store_read *read = read_from(channel, 1, epoch, true);
    assert_true(read->is_reset);
    assert_int_not_equal(read->epoch, epoch);
    assert_in_range(atoll(ask_text(redis, "PTTL " KEY "epoch:%s", channel)), 800000, 901000);
}

static void test_an_epoch_that_is_none_of_ours(void **state) {
    (void)state;
    static const char *const texts[] = {"x", "0000000000000000", "0123456789ABCDEF",
                                        "0123456789abcdef0"};
    const char *channel = "theirs";
    uint64_t before = 0;
    assert_int_equal(push(channel), 1);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        ask(redis, "SET " KEY "epoch:%s %s", channel, texts[i]);
        uint64_t epoch = read_from(channel, 0, 0, true)->epoch;
        assert_int_not_equal(epoch, 0);
        assert_int_not_equal(epoch, before);
        check_no_reset(channel, 1, epoch, epoch);
        check_reset(channel, 1, epoch + 1, epoch);
        before = epoch;
    }
    ask(redis, "DEL " KEY "epoch:%s", channel);
    ask(redis, "RPUSH " KEY "epoch:%s x", channel);
    check_no_reset(channel, 1, 7, 0);
    assert_int_equal(push(channel), 2);
}

static void test_a_user_who_may_not_keep_epochs(void **state) {
    (void)state;
    struct buf line = {0};
    ask(redis, "ACL SETUSER app on >x &* +@all ~" KEY "total:* ~" KEY "updates:* ~" KEY
               "meta:* ~" KEY "seen:*");
    close_store();
    redis_options.user = "app";
    redis_options.pass = "x";
    open_store();
    assert_int_equal(push("limited"), 1);
    assert_int_equal(push("limited"), 2);
    check_no_reset("limited", 1, 7, 0);
    check_reset("unknown", 1, 7, 0);
    assert_string_equal(ask_text(redis, "EXISTS " KEY "epoch:limited"), "0");
    while (!strstr(line.data ? line.data : "", "SET " KEY "epoch:*")) {
        bool is_turn_over = true;
        run_until(&is_turn_over);
        read_from("limited", 0, 0, false);
        buf_reset(&line, 4096);
        assert_int_equal(store_health(store, &line), STORE_OK);
        buf_putc(&line, '\0');
    }
    assert_non_null(strstr(line.data, "epochs or consumers are not kept: the user has no right"));
    buf_deinit(&line);
    close_store();
    redis_options.user = redis_options.pass = NULL;
    open_store();
}

/* --- Positions -------------------------------------------------------------------------------- */

static void check_position(const char *channel, int64_t position, uint64_t after) {
    const struct store_read *read = read_from(channel, position, 0, false);
    assert_int_equal(read->error, STORE_OK);
    assert_int_equal(read->after, after);
    uint64_t first = after > read->gone ? after : read->gone;
    assert_int_equal(read->count, first < read->total ? read->total - first : 0);
    assert_true(read->end >= read->total);
}

static void test_positions_are_told_as_a_ts(void **state) {
    (void)state;
    check_position("none", POSITION_NOW, 0);
    check_position("none", -5, 0);
    check_position("none", position_since(0), 0);
    check_position("none", 7, 7);
    for (int i = 0; i < 5; i++)
        push("five");
    check_position("five", POSITION_NOW, 5);
    check_position("five", -1, 4);
    check_position("five", -5, 0);
    check_position("five", POSITION_LAST_MIN, 0);
    check_position("five", 0, 0);
    check_position("five", 3, 3);
    check_position("five", 9, 9);
    check_position("five", INT64_MAX, INT64_MAX);
    check_position("five", position_since(0), 0);
    check_position("five", position_since(redis_now_ms() - 60000), 0);
    check_position("five", position_since(redis_now_ms() + 60000), 5);
    check_position("five", position_since(POSITION_SINCE_MAX_MS), 5);
}

/* Stores updates with these times; 0: it has no record, -1: what stands in its place is none. */
static void fill(const char *channel, const int64_t *times, int count) {
    ask(redis, "DEL " KEY "total:%s " KEY "updates:%s " KEY "meta:%s", channel, channel, channel);
    ask(redis, "SET " KEY "total:%s %d", channel, count);
    for (int i = 0; i < count; i++) {
        char record[64];
        snprintf(record, sizeof record, "%d %lld 1 -1 0 0 4\nPOST", i + 1, (long long)times[i]);
        redisAppendCommand(redis->client, "RPUSH " KEY "updates:%s 1", channel);
        redisAppendCommand(redis->client, "RPUSH " KEY "meta:%s %s", channel,
                           times[i] < 0 ? "" : record);
        if (!times[i])
            redisAppendCommand(redis->client, "RPOP " KEY "meta:%s", channel);
    }
    for (int i = 0; i < count; i++)
        for (int j = times[i] ? 2 : 3; j; j--) {
            redisReply *reply;
            assert_int_equal(redisGetReply(redis->client, (void **)&reply), REDIS_OK);
            freeReplyObject(reply);
        }
}

static uint64_t after_since(const int64_t *times, int count, int64_t since) {
    uint64_t after = (uint64_t)(count > 1000 ? count - 1000 : 0);
    for (int i = (int)after; i < count; i++)
        if (times[i] > 0 && times[i] < since)
            after = (uint64_t)i + 1;
    return after;
}

/* Some may be of upstream's or damaged, but not 8 in a row. */
static void make_times(int64_t *times, int count, int64_t first, int gaps) {
    for (int i = 0; i < count; i++) {
        times[i] = first + i / 3 * 10;
        if (gaps && i % 7 && rand() % 3 == 0)
            times[i] = gaps == 1 ? 0 : -1;
    }
}

static void test_since(void **state) {
    (void)state;
    static int64_t times[1200];
    static const int counts[] = {1, 2, 3, 4, 5, 8, 17, 64, 100, 1000, 1001, 1200};
    int64_t first = redis_now_ms() - 100000;
    srand(14);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int gaps = 0; gaps < 3; gaps++) {
            int count = counts[i], step = count > 100 ? 37 : 1;
            make_times(times, count, first, gaps);
            fill("since", times, count);
            for (int64_t since = first - 5; since < first + count * 4 + 15; since += step) {
                const struct store_read *read = read_from("since", position_since(since), 0, false);
                assert_int_equal(read->after, after_since(times, count, since));
            }
        }
}

/* What is too old is gone, also for who asks for it, and while its list lives on. */
static void test_since_longer_than_is_kept(void **state) {
    (void)state;
    int64_t now = redis_now_ms(), old = now - store_options.ttl_ms - 60000;
    fill("aged", (int64_t[]){old, old + 1, old + 2, now - 2, now - 1}, 5);
    check_position("aged", position_since(0), 3);
    check_position("aged", position_since(old + 1), 3);
    check_position("aged", position_since(now - 1), 4);
    const struct store_read *read = read_from("aged", 0, 0, false);
    assert_int_equal(read->gone, 3);
    assert_int_equal(read->count, 2);
    fill("unknown times", (int64_t[]){0, 0, 0}, 3);
    check_position("unknown times", position_since(now + 60000), 0);
    fill("mixed", (int64_t[]){now - 9, 0, now - 7, 0}, 4);
    check_position("mixed", position_since(now - 8), 1);
    check_position("mixed", position_since(now - 1), 3);
    /* Records of a counter that was lost. */
    fill("lost", (int64_t[]){now - 9, now - 8, now - 7}, 3);
    ask(redis, "SET " KEY "total:lost 2");
    check_position("lost", position_since(now), 2);
    ask(redis, "DEL " KEY "meta:lost");
    ask(redis, "RPUSH " KEY "meta:lost %s", "50 1 1 -1 0 0 4\nPOST");
    check_position("lost", position_since(now), 0);
}

static void test_looking_for_a_time_takes_few_commands(void **state) {
    (void)state;
    static int64_t times[1000];
    make_times(times, 1000, redis_now_ms() - 100000, 2);
    fill("long", times, 1000);
    ask(redis, "CONFIG RESETSTAT");
    for (int i = 0; i < 1000; i += 100)
        read_from("long", position_since(times[i]), 0, false);
    const char *calls = strstr(ask_text(redis, "INFO commandstats"), "cmdstat_lindex:calls=");
    assert_in_range(atoi(calls + strlen("cmdstat_lindex:calls=")), 10, 10 * 50);
}

/* --- Cursors ---------------------------------------------------------------------------------- */

static void on_done(struct store_op *op) {
    *(bool *)op->context = true;
}

static struct {
    struct store_cursors cursors;
    char name[64];
} it;

static struct store_cursors *run(const char *channel, enum cursors_action action,
                                 struct store_cursor *list, uint32_t count) {
    bool is_done = false;
    struct store_cursors *cursors = &it.cursors;
    if (cursors->action == CURSORS_LOAD)
        free(cursors->list);
    *cursors = (struct store_cursors){.op = {.done = on_done, .context = &is_done},
                                      .action = action,
                                      .list = list,
                                      .count = count,
                                      .name_len = (uint16_t)strlen(channel)};
    memcpy(cursors->name, channel, cursors->name_len);
    store_cursors(store, cursors);
    assert_false(is_done);
    run_until(&is_done);
    return cursors;
}

static struct store_cursor cursor(const char *name, uint64_t ts, int64_t used_ms) {
    struct store_cursor cursor = {.ts = ts, .used_ms = used_ms, .name_len = (uint8_t)strlen(name)};
    memcpy(cursor.name, name, cursor.name_len);
    return cursor;
}

static void save(const char *channel, const char *name, uint64_t ts, int64_t used_ms) {
    struct store_cursor one = cursor(name, ts, used_ms);
    assert_int_equal(run(channel, CURSORS_SAVE, &one, 1)->error, STORE_OK);
}

static uint32_t load(const char *channel) {
    assert_int_equal(run(channel, CURSORS_LOAD, NULL, 0)->error, STORE_OK);
    return it.cursors.count;
}

/* The loaded cursor of a name, NULL without one. */
static const struct store_cursor *loaded(const char *name) {
    for (uint32_t i = 0; i < it.cursors.count; i++) {
        const struct store_cursor *cursor = &it.cursors.list[i];
        if (slice_equal((struct slice){cursor->name, cursor->name_len}, slice_of(name)))
            return cursor;
    }
    return NULL;
}

static void test_cursors_are_saved_and_forgotten(void **state) {
    (void)state;
    const char *channel = "cursors";
    int64_t now = store_now_ms(store);
    save(channel, "early", 1, now);
    assert_int_equal(load(channel), 0);
    assert_int_equal(push(channel), 1);
    assert_int_equal(load(channel), 0);
    ask(redis, "SET " KEY "total:%s 9007199254740991", channel);
    save(channel, "bot", 41, now - 5000);
    save(channel, "a b\xc3\xa4", 9007199254740991, now);
    assert_int_equal(load(channel), 2);
    assert_int_equal(loaded("bot")->ts, 41);
    assert_in_range(loaded("bot")->used_ms, now - 6000, now - 4000);
    assert_int_equal(loaded("a b\xc3\xa4")->ts, 9007199254740991);
    int64_t left = atoll(ask_text(redis, "PTTL " KEY "consumers:%s", channel));
    assert_in_range(left, store_options.ttl_ms - 60000, store_options.ttl_ms);

    save(channel, "bot", 40, now); /* never back */
    load(channel);
    assert_int_equal(loaded("bot")->ts, 41);
    assert_in_range(loaded("bot")->used_ms, now - 1000, now + 60000);
    save(channel, "bot", 42, now - 9000);
    load(channel);
    assert_int_equal(loaded("bot")->ts, 42);
    assert_in_range(loaded("bot")->used_ms, now - 1000, now + 60000);
    save(channel, "bot", 43, now + 600000); /* a clock that is ahead */
    load(channel);
    assert_in_range(loaded("bot")->used_ms, now - 1000, redis_now_ms());

    struct store_cursor names[] = {cursor("bot", 0, 0), cursor("nobody", 0, 0)};
    assert_int_equal(run(channel, CURSORS_FORGET, names, 2)->error, STORE_OK);
    assert_int_equal(load(channel), 1);
    assert_null(loaded("bot"));
    ask(redis, "DEL " KEY "total:%s", channel);
    assert_int_equal(load(channel), 0);
}

static void test_cursors_of_another_life_are_not_saved(void **state) {
    (void)state;
    const char *channel = "cursors of lives";
    int64_t now = store_now_ms(store);
    push(channel);
    push(channel);
    save(channel, "bot", 1, now);
    save(channel, "bot", 3, now);
    save(channel, "new", 3, now);
    load(channel);
    assert_int_equal(loaded("bot")->ts, 1);
    assert_int_equal(loaded("new")->ts, 0);
    save(channel, "new", 2, now);
    load(channel);
    assert_int_equal(loaded("new")->ts, 2);
}

static void test_cursors_are_bounded(void **state) {
    (void)state;
    static struct store_cursor many[CONSUMERS_MAX];
    const char *channel = "bounded";
    int64_t now = store_now_ms(store);
    push(channel);
    ask(redis, "SET " KEY "total:%s 1000", channel);
    for (int i = 0; i < CONSUMERS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "name %d", i);
        many[i] = cursor(name, (uint64_t)i, now);
    }
    assert_int_equal(run(channel, CURSORS_SAVE, many, CONSUMERS_MAX)->error, STORE_OK);
    struct store_cursor two[] = {cursor("too many", 1, now), cursor("name 7", 8, now)};
    assert_int_equal(run(channel, CURSORS_SAVE, two, 2)->error, STORE_CONSUMERS_FULL);
    save(channel, "name 8", 8, now);
    assert_int_equal(load(channel), CONSUMERS_MAX);
    assert_null(loaded("too many"));
    assert_int_equal(loaded("name 7")->ts, 8);
    assert_int_equal(loaded("name 999")->ts, 999);

    /* Not used for long. */
    ask(redis, "EVAL %s 1 " KEY "consumers:%s %lld",
        "for i = 0, 2 do redis.call('HSET', KEYS[1], 'name ' .. i, '77 ' .. ARGV[1]) end", channel,
        (long long)(now - store_options.ttl_ms - 60000));
    assert_int_equal(load(channel), CONSUMERS_MAX - 3);
    struct store_cursor fresh[] = {cursor("name 1", 5, now), cursor("new", 6, now),
                                   cursor("new 2", 7, now), cursor("too many", 8, now)};
    assert_int_equal(run(channel, CURSORS_SAVE, fresh, 4)->error, STORE_CONSUMERS_FULL);
    assert_int_equal(load(channel), CONSUMERS_MAX);
    assert_int_equal(loaded("name 1")->ts, 5); /* what has expired counts no more */
    assert_non_null(loaded("new 2"));
    assert_null(loaded("too many"));
    assert_int_equal(run(channel, CURSORS_FORGET, many, CONSUMERS_MAX)->error, STORE_OK);
    assert_int_equal(load(channel), 2);
}

static void test_cursors_that_are_none(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",      "x",   "5", "5 ",  "-5 1795506304000",
        "5 5 5", "5 x", " ", "5 1", "99999999999999999 1795506304000"};
    const char *channel = "vandals";
    long long now = redis_now_ms();
    push(channel);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ask(redis, "HSET " KEY "consumers:%s name%d %s", channel, (int)i, texts[i]);
    static const char *const names[] = {"", "a\nb", "\xff", "\x7f"};
    char good[40], name[80];
    snprintf(good, sizeof good, "5 %lld", now);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ask(redis, "HSET " KEY "consumers:%s %s %s", channel, names[i], good);
    memset(name, 'x', 65);
    name[65] = '\0';
    ask(redis, "HSET " KEY "consumers:%s %s %s", channel, name, good);
    name[64] = '\0';
    ask(redis, "HSET " KEY "consumers:%s %s %s", channel, name, good);
    assert_int_equal(load(channel), 1);
    assert_int_equal(it.cursors.list[0].name_len, 64);
    save(channel, "name0", 1, store_now_ms(store));
    load(channel);
    assert_int_equal(loaded("name0")->ts, 1);

    ask(redis, "DEL " KEY "consumers:%s", channel);
    ask(redis, "SET " KEY "consumers:%s x", channel);
    assert_int_equal(run(channel, CURSORS_LOAD, NULL, 0)->error, STORE_DAMAGED);
    assert_int_equal(push(channel), 2);
}

static void test_cursors_without_redis_are_answered(void **state) {
    (void)state;
    struct store_cursor one = cursor("bot", 1, store_now_ms(store));
    push("away");
    push("away");
    ask(redis, "CONFIG SET maxmemory 1");
    assert_int_equal(run("away", CURSORS_SAVE, &one, 1)->error, STORE_OUT_OF_MEMORY);
    ask(redis, "CONFIG SET maxmemory 0");
    ask(redis, "SCRIPT FLUSH");
    save("away", "bot", 1, one.used_ms);
    ask(redis, "CLIENT KILL TYPE normal SKIPME yes");
    assert_int_equal(load("away"), 1);
    ask(redis, "CLIENT KILL TYPE normal SKIPME yes");
    save("away", "bot", 2, one.used_ms);
    assert_int_equal(load("away"), 1);
    assert_int_equal(loaded("bot")->ts, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_epoch_lives_with_its_counter),
        cmocka_unit_test(test_another_life_has_another_epoch),
        cmocka_unit_test(test_who_wants_an_epoch_gets_one),
        cmocka_unit_test(test_an_epoch_that_is_none_of_ours),
        cmocka_unit_test(test_a_user_who_may_not_keep_epochs),
        cmocka_unit_test(test_positions_are_told_as_a_ts),
        cmocka_unit_test(test_since),
        cmocka_unit_test(test_since_longer_than_is_kept),
        cmocka_unit_test(test_looking_for_a_time_takes_few_commands),
        cmocka_unit_test(test_cursors_are_saved_and_forgotten),
        cmocka_unit_test(test_cursors_of_another_life_are_not_saved),
        cmocka_unit_test(test_cursors_are_bounded),
        cmocka_unit_test(test_cursors_that_are_none),
        cmocka_unit_test(test_cursors_without_redis_are_answered),
    };
    if (!has_redis())
        return 77; /* skipped */
    int failed = cmocka_run_group_tests(tests, start_one, stop_all);
    if (it.cursors.action == CURSORS_LOAD)
        free(it.cursors.list);
    return failed;
}
