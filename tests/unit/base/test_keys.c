/* Keys: which names are some, and what follows from them. */
#include "base/keys.h"
#include "support.h"

#include <sodium.h>

/* As docs/protocol.md has them. */
static const char *const vectors[][3] = {
    {"r_aaaaaaaaaaaaaaaaaaaaaaaaaa", "v_7hbjlw4eu26ztbnufm4kuyjplr",
     "w_7qjf5ox6vk2m4p3glbaewy2dry"},
    {"r_abcdefghijklmnopqrstuvwxyz", "v_nwukusnkdejlh27cmpexjan7m4",
     "w_mcfmsg2aft7lptbv6uxgu4q7lh"},
    {"r_77777666665555544444333332", "v_foiqnzs6lb3mqlkys5kgjre5qt",
     "w_q447pvs3fpdr5myiwtsedunhu3"},
};

static void test_vectors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        char key[KEY_BYTES];
        memcpy(key, vectors[i][0], KEY_BYTES);
        for (size_t step = 1; step < 3; step++) {
            key_next(key);
            assert_text(((struct slice){key, KEY_BYTES}), vectors[i][step]);
        }
        key_next(key);
        assert_text(((struct slice){key, KEY_BYTES}), vectors[i][2]);
    }
}

static void test_the_name_of_a_channel(void **state) {
    static const enum key_kind kinds[] = {KEY_ALL, KEY_READ, KEY_SEND};
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        for (size_t k = 0; k < 3; k++) {
            char name[KEY_BYTES];
            memcpy(name, vectors[i][k], KEY_BYTES);
            assert_int_equal(key_to_channel(name, KEY_BYTES), kinds[k]);
            assert_text(((struct slice){name, KEY_BYTES}), vectors[i][2]);
        }
    }
    char plain[] = "plain";
    assert_int_equal(key_to_channel(plain, 5), KEY_PLAIN);
    assert_string_equal(plain, "plain");
}

/* In memory of its own length, so that a look beyond it is found. */
static enum key_kind kind_of(struct slice name) {
    char *copy = malloc(name.len + !name.len);
    memcpy(copy, name.data, name.len);
    enum key_kind kind = key_kind((struct slice){copy, name.len});
    free(copy);
    return kind;
}

static void test_kinds(void **state) {
    (void)state;
    for (size_t len = 0; len < 60; len++) {
        char name[60];
        memset(name, 'a', sizeof name);
        memcpy(name, "r_", 2);
        assert_int_equal(kind_of((struct slice){name, len}),
                         len == KEY_BYTES ? KEY_ALL : KEY_PLAIN);
    }
    for (size_t at = 0; at < KEY_BYTES; at++) {
        for (int c = 0; c < 256; c++) {
            char name[] = "v_abcdefghijklmnopqrstuvwxyz";
            name[at] = (char)c;
            bool is_key = at == 0   ? c == 'r' || c == 'v' || c == 'w'
                          : at == 1 ? c == '_'
                                    : (c >= 'a' && c <= 'z') || (c >= '2' && c <= '7');
            enum key_kind kind = kind_of((struct slice){name, KEY_BYTES});
            assert_int_equal(kind != KEY_PLAIN, is_key);
        }
    }
}

/* Each letter at each place, in enough keys: none is fixed. */
static void test_new_keys(void **state) {
    static bool seen[KEY_BYTES][256];
    (void)state;
    for (int i = 0; i < 2000; i++) {
        char key[KEY_BYTES];
        key_new(key);
        assert_int_equal(kind_of((struct slice){key, KEY_BYTES}), KEY_ALL);
        for (size_t at = 2; at < KEY_BYTES; at++)
            seen[at][(unsigned char)key[at]] = true;
    }
    for (size_t at = 2; at < KEY_BYTES; at++) {
        int letters = 0;
        for (int c = 0; c < 256; c++)
            letters += seen[at][c];
        assert_int_equal(letters, 32);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_the_name_of_a_channel),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_new_keys),
    };
    return sodium_init() < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
