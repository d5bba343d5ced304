/* The hash table against a plain array, over random insertions and removals from a fixed seed. */
#include "base/hash.h"
#include "base/list.h"
#include "base/table.h"
#include "support.h"

enum { ITEMS = 4000, STEPS = 60000 };

struct item {
    struct table_node node;
    uint32_t key;
    bool is_in;
};

static bool item_equal(const struct table_node *node, const void *key, size_t key_len) {
    assert_int_equal(key_len, sizeof(uint32_t));
    return container_of(node, struct item, node)->key == *(const uint32_t *)key;
}

static struct item *find(const struct table *table, uint64_t hash, uint32_t key) {
    struct table_node *node = table_find(table, hash, item_equal, &key, sizeof key);
    return node ? container_of(node, struct item, node) : NULL;
}

static uint64_t random_state;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

/* A hash with many equal values, or with many equal low bits, or a good one. */
static uint64_t hash_for(uint32_t key, int kind) {
    random_state = key;
    uint64_t good = next_random();
    return kind == 0 ? good : kind == 1 ? good % 97 : good << 20;
}

static void check_all(const struct table *table, struct item *items, size_t count) {
    assert_int_equal(table->count, count);
    for (uint32_t i = 0; i < ITEMS; i++)
        if (find(table, items[i].node.hash, i) != (items[i].is_in ? &items[i] : NULL))
            fail_msg("item %u", i);
}

static void run_against_model(int kind) {
    struct item *items = calloc(ITEMS, sizeof *items);
    struct table table;
    assert_true(table_init(&table));
    for (uint32_t i = 0; i < ITEMS; i++) {
        items[i].key = i;
        items[i].node.hash = hash_for(i, kind);
    }
    uint64_t seed = 20261124;
    size_t count = 0;
    for (int step = 0; step < STEPS; step++) {
        random_state = seed;
        struct item *item = &items[next_random() % ITEMS];
        seed = random_state;
        if (item->is_in) {
            table_remove(&table, &item->node);
            count--;
        } else {
            table_insert(&table, &item->node);
            count++;
        }
        item->is_in = !item->is_in;
        if (find(&table, item->node.hash, item->key) != (item->is_in ? item : NULL))
            fail_msg("step %d", step);
        if (step % 5000 == 0)
            check_all(&table, items, count);
    }
    check_all(&table, items, count);
    for (struct table_node *node; (node = table_pop(&table)); count--) {
        struct item *item = container_of(node, struct item, node);
        assert_true(item->is_in);
        item->is_in = false;
        assert_null(find(&table, node->hash, item->key));
    }
    assert_int_equal(count, 0);
    check_all(&table, items, 0);
    table_deinit(&table);
    free(items);
}

static void test_good_hashes(void **state) {
    (void)state;
    run_against_model(0);
}

static void test_equal_hashes(void **state) {
    (void)state;
    run_against_model(1);
}

static void test_equal_low_bits(void **state) {
    (void)state;
    run_against_model(2);
}

/* It grows with its nodes, one bucket a node: the chains stay short. */
static void test_growth(void **state) {
    (void)state;
    enum { MANY = 100000 };
    struct item *items = calloc(MANY, sizeof *items);
    struct table table;
    assert_true(table_init(&table));
    for (uint32_t i = 0; i < MANY; i++) {
        items[i].key = i;
        items[i].node.hash = hash_for(i, 0);
        table_insert(&table, &items[i].node);
    }
    size_t longest = 0;
    for (uint32_t i = 0; i < MANY; i++) {
        assert_ptr_equal(find(&table, items[i].node.hash, i), &items[i]);
        size_t behind = 0;
        for (struct table_node *node = &items[i].node; node; node = node->next)
            behind++;
        if (behind > longest)
            longest = behind;
    }
    assert_true(table.round + table.split >= MANY);
    assert_true(longest < 16);
    table_deinit(&table);
    free(items);
}

static void test_empty(void **state) {
    (void)state;
    struct table table;
    assert_true(table_init(&table));
    assert_null(find(&table, 0, 0));
    assert_null(table_pop(&table));
    table_deinit(&table);
}

/* Nobody else knows which names have equal hashes. */
static void test_hashes_are_of_this_process(void **state) {
    (void)state;
    uint64_t before = hash_of(SLICE("name"));
    hash_init();
    assert_true(hash_of(SLICE("name")) != before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),        cmocka_unit_test(test_good_hashes),
        cmocka_unit_test(test_equal_hashes), cmocka_unit_test(test_equal_low_bits),
        cmocka_unit_test(test_growth),       cmocka_unit_test(test_hashes_are_of_this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
