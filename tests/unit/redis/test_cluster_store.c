/* The store over a cluster, while a slot moves: epochs and cursors never split, and never stop the
 * move. */
#include "fixture.h"

#include "redis/layout.h"

#define KEY "total:"

static struct server *const from = &servers[0], *const to = &servers[1];
static int slot = -1; /* that moves: of each test another one */

static int next_slot(void **state) {
    (void)state;
    slot++;
    return 0;
}

/* A channel of the slot that moves. */
static const char *channel_of_slot(const char *name) {
    static const struct redis_layout layout = {.prefix = KEY, .is_cluster = true};
    static char channel[32];
    for (int i = 0;; i++) {
        snprintf(channel, sizeof channel, "%s%d", name, i);
        if (redis_layout_slot(&layout, slice_of(channel)) == (unsigned)slot)
            return channel;
    }
}

static void node_id(struct server *server, char id[41]) {
    snprintf(id, 41, "%s", ask_text(server, "CLUSTER MYID"));
}

static void begin_move(void) {
    char source_id[41], target_id[41];
    node_id(from, source_id);
    node_id(to, target_id);
    assert_string_equal(ask_text(to, "CLUSTER SETSLOT %d IMPORTING %s", slot, source_id), "OK");
    assert_string_equal(ask_text(from, "CLUSTER SETSLOT %d MIGRATING %s", slot, target_id), "OK");
}

/* The target first: it raises its configuration's epoch, so that both will agree. */
static void end_move(void) {
    char target_id[41];
    node_id(to, target_id);
    assert_string_equal(ask_text(to, "CLUSTER SETSLOT %d NODE %s", slot, target_id), "OK");
    assert_string_equal(ask_text(from, "CLUSTER SETSLOT %d NODE %s", slot, target_id), "OK");
}

/* Moves a key that is there. */
static void move_key(const char *kind, const char *channel) {
    char key[64];
    snprintf(key, sizeof key, KEY "%s:{%s}", kind, channel);
    assert_string_equal(ask_text(from, "MIGRATE 127.0.0.1 %d %s 0 5000", to->port, key), "OK");
}

static void check_epoch(const char *channel, uint64_t seen, uint64_t epoch) {
    const struct store_read *read = read_from(channel, 1, seen, true);
    assert_int_equal(read->error, STORE_OK);
    assert_false(read->is_reset);
    assert_int_equal(read->epoch, epoch);
}

/* The epoch moves before the counter, or behind it: it is unknown meanwhile, and the same again. */
static void test_an_epoch_moves_with_its_slot(void **state) {
    static const char *const first[] = {"epoch", "total", "updates", "meta"};
    static const char *const last[] = {"total", "updates", "meta", "epoch"};
    const char *const *order = *state ? last : first;
    const char *channel = channel_of_slot("moves");
    assert_int_equal(push(channel), 1);
    assert_int_equal(push(channel), 2);
    uint64_t epoch = read_from(channel, 0, 0, true)->epoch;
    assert_int_not_equal(epoch, 0);
    begin_move();
    check_epoch(channel, epoch, epoch);
    if (!*state) {
        move_key(order[0], channel);
        check_epoch(channel, epoch, 0);
        assert_int_equal(push(channel), 3);
    }
    for (int i = !*state; i < 3; i++)
        move_key(order[i], channel);
    if (*state) {
        check_epoch(channel, epoch, 0); /* the node that gets it does not make another one */
        assert_int_equal(push(channel), 3);
        check_epoch(channel, epoch, 0);
    }
    move_key(order[3], channel);
    check_epoch(channel, epoch, epoch);
    end_move();
    check_epoch(channel, epoch, epoch);
    assert_int_equal(push(channel), 4);
    assert_true(read_from(channel, 1, ~epoch, true)->is_reset);
}

static void on_done(struct store_op *op) {
    *(bool *)op->context = true;
}

static struct {
    struct store_cursors cursors;
    char name[32];
    bool is_done;
} saves;

static void start(const char *channel, enum cursors_action action, struct store_cursor *list) {
    saves.is_done = false;
    saves.cursors = (struct store_cursors){.op = {.done = on_done, .context = &saves.is_done},
                                           .action = action,
                                           .list = list,
                                           .count = 1,
                                           .name_len = (uint16_t)strlen(channel)};
    memcpy(saves.cursors.name, channel, saves.cursors.name_len);
    store_cursors(store, &saves.cursors);
}

static uint64_t loaded_ts(const char *channel) {
    start(channel, CURSORS_LOAD, NULL);
    run_until(&saves.is_done);
    assert_int_equal(saves.cursors.error, STORE_OK);
    uint64_t ts = saves.cursors.count == 1 ? saves.cursors.list[0].ts : 0;
    free(saves.cursors.list);
    return ts;
}

static void save(const char *channel, uint64_t ts, enum store_error error) {
    struct store_cursor cursor = {
        .ts = ts, .used_ms = store_now_ms(store), .name_len = 3, .name = "bot"};
    start(channel, CURSORS_SAVE, &cursor);
    run_until(&saves.is_done);
    assert_int_equal(saves.cursors.error, error);
}

static void test_cursors_move_with_their_slot(void **state) {
    (void)state;
    const char *channel = channel_of_slot("cursors");
    for (uint64_t ts = 1; ts <= 5; ts++)
        assert_int_equal(push(channel), ts);
    save(channel, 1, STORE_OK);
    begin_move();
    save(channel, 2, STORE_OK);
    move_key("total", channel);
    save(channel, 3, STORE_CLUSTER_DOWN); /* only after the time that it has */
    move_key("consumers", channel);
    assert_int_equal(loaded_ts(channel), 2);
    save(channel, 4, STORE_OK);
    move_key("updates", channel);
    move_key("meta", channel);
    move_key("epoch", channel);
    end_move();
    assert_int_equal(loaded_ts(channel), 4);
    save(channel, 5, STORE_OK);
    assert_int_equal(loaded_ts(channel), 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate_setup_teardown(test_an_epoch_moves_with_its_slot, next_slot, NULL,
                                                 NULL),
        cmocka_unit_test_prestate_setup_teardown(test_an_epoch_moves_with_its_slot, next_slot, NULL,
                                                 &saves),
        cmocka_unit_test_setup(test_cursors_move_with_their_slot, next_slot),
    };
    if (!has_redis())
        return 77; /* skipped */
    return cmocka_run_group_tests(tests, start_cluster, stop_all);
}
