/* A backup is on the disk, with its name, before it is said to be made. */
#include "fixture.h"

#include "sqlite/backup.h"

#include <dirent.h>
#include <unistd.h>

static const char *copy_path(void) {
    static char text[64];
    snprintf(text, sizeof text, "%s/copy.db", dir);
    return text;
}

static void make_data(void) {
    open_log();
    assert_true(push_many("a", 1, 10));
    close_log();
}

static bool back_up(void) {
    FILE *out = fopen("/dev/null", "w");
    bool ok = backup_file(path, copy_path(), out, out, NULL);
    fclose(out);
    return ok;
}

/* Whether a file of the test's directory has `part` in its name. */
static bool has_file(const char *part) {
    bool is_there = false;
    DIR *files = opendir(dir);
    for (struct dirent *file; (file = readdir(files));)
        is_there |= strstr(file->d_name, part) != NULL;
    closedir(files);
    return is_there;
}

static bool was_named_too_early;

static void look_for_name(const char *synced) {
    if (strstr(synced, ".part-"))
        was_named_too_early |= access(copy_path(), F_OK) == 0;
}

static void test_synced_and_then_named(void **state) {
    (void)state;
    make_data();
    int before = syncs;
    was_named_too_early = false;
    on_sync = look_for_name;
    assert_true(back_up());
    assert_int_equal(syncs - before, 2);
    assert_true(was_synced(dir, before));
    assert_false(was_named_too_early);
    assert_true(has_file("copy.db"));
}

/* Of the directory: then the copy is there, and nobody may count on it. */
static void test_a_sync_that_fails(void **state) {
    (void)state;
    make_data();
    failing_sync = dir;
    assert_false(back_up());
}

static void fail_part(const char *synced) {
    if (strstr(synced, ".part-"))
        failing_sync = synced;
}

static void test_a_copy_that_is_not_on_the_disk(void **state) {
    (void)state;
    make_data();
    on_sync = fail_part;
    assert_false(back_up());
    assert_false(has_file("copy"));
}

static void take_name(const char *synced) {
    FILE *file = strstr(synced, ".part-") ? fopen(copy_path(), "w") : NULL;
    if (!file)
        return;
    fputs("mine", file);
    fclose(file);
}

static void test_replaces_nothing_that_came_meanwhile(void **state) {
    (void)state;
    make_data();
    on_sync = take_name;
    assert_false(back_up());
    char text[8] = "";
    FILE *file = fopen(copy_path(), "r");
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, "mine");
    assert_false(has_file(".part-"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_synced_and_then_named),
        LOG_TEST(test_a_sync_that_fails),
        LOG_TEST(test_a_copy_that_is_not_on_the_disk),
        LOG_TEST(test_replaces_nothing_that_came_meanwhile),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
