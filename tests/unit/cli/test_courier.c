/* What becomes of updates that are delivered, or not; and the place, which moves on only then. */
#include "cli/courier.h"
#include "cli/curl.h"
#include "events.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static char dir[32], place[64];
static enum courier_verdict verdicts[4]; /* of the next attempts */
static int attempts;
static int own_stderr = -1;
static bool spoils_place; /* an attempt makes it one that cannot be written */

void __wrap_stop_sleep(int64_t ms);
void __wrap_stop_sleep(int64_t ms) {
    (void)ms;
}

static void attempt(void *context, const struct webhook *webhook, struct courier_result *result) {
    assert_ptr_equal(context, &attempts);
    assert_int_equal(webhook->ts, 7);
    result->verdict = verdicts[attempts++];
    result->code = result->verdict == COURIER_CONFIRMED ? 200 : 400;
    if (result->verdict == COURIER_IMPOSSIBLE)
        snprintf(result->text, sizeof result->text, "cannot");
    if (spoils_place)
        mkdir(place, 0700);
}

#define ITEM(text) .item = {text, sizeof text - 1}

static const struct feed_event one[] = {
    {.kind = FEED_MISSED, .count = 2},
    {.kind = FEED_UPDATE,
     .ts = 7,
     .to = {.ts = 7, .epoch = "e"},
     ITEM("{\"ts\":7,\"method\":\"PUT\",\"path\":\"/p\",\"raw\":\"{\\\"type\\\":\\\"t\\\"}\"}")}};

static int run(bool is_json, const char *on_reject) {
    char url[] = "http://h/x";
    char *words[] = {url};
    struct options options = {
        .words = words, .word_count = 1, .state = place, .json = is_json, .on_reject = on_reject};
    struct courier courier = {.name = "forward",
                              .code_name = "status",
                              .out = stdout,
                              .identity = SLICE("target"),
                              .attempt = attempt,
                              .context = &attempts};
    events = one;
    events_left = 2;
    attempts = 0;
    buf_reset(&out, SIZE_MAX);
    return courier_run(&courier, &options);
}

/* What is kept; "" when nothing is. */
static const char *kept(void) {
    static char text[64];
    FILE *file = fopen(place, "r");
    *text = '\0';
    if (file && !fgets(text, sizeof text, file))
        *text = '\0';
    if (file)
        fclose(file);
    return text;
}

static int set_up(void **state) {
    (void)state;
    if (own_stderr < 0)
        own_stderr = dup(STDERR_FILENO);
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    is_terminal = has_no_feed = spoils_place = false;
    write_error = 0;
    if (!mkdtemp(dir))
        return -1;
    snprintf(place, sizeof place, "%s/place", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    dup2(own_stderr, STDERR_FILENO);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void test_confirmed(void **state) {
    (void)state;
    verdicts[0] = COURIER_FAILED;
    verdicts[1] = COURIER_CONFIRMED;
    is_terminal = true;
    assert_int_equal(run(false, NULL), EX_OK);
    assert_int_equal(attempts, 2);
    assert_string_equal(kept(), "7 e\n");
    assert_true(says("\x1b[33mstatus 400\x1b[0m") && says("again in"));
    assert_true(says("#7  t  PUT /p  \x1b[32mstatus 200\x1b[0m"));
}

static void test_rejected(void **state) {
    (void)state;
    verdicts[0] = COURIER_REJECTED;
    assert_int_equal(run(true, "stop"), EX_DATAERR);
    assert_string_equal(kept(), "");
    assert_true(says("{\"missed\":2}\n") && says("\"result\":\"rejected\",\"status\":400"));
    assert_int_equal(run(true, "skip"), EX_OK);
    assert_string_equal(kept(), "7 e\n");
    assert_true(says("\"result\":\"skipped\",\"status\":400"));
    assert_int_equal(run(false, "skip"), EX_OK);
    assert_true(says("status 400") && says("  skipped"));
    assert_int_equal(run(false, "what"), EX_USAGE);
}

static void test_others(void **state) {
    (void)state;
    verdicts[0] = COURIER_IMPOSSIBLE;
    assert_int_equal(run(true, NULL), 400);
    assert_true(says("\"result\":\"failed\",\"status\":400,\"error\":\"cannot\""));
    verdicts[0] = COURIER_STOPPED;
    assert_int_equal(run(true, NULL), EX_OK);
    assert_string_equal(kept(), "");
    has_no_feed = true;
    assert_int_equal(run(true, NULL), EX_OSERR);
}

/* Else all would come again, and again. */
static void test_a_place_that_cannot_be_kept(void **state) {
    (void)state;
    verdicts[0] = COURIER_CONFIRMED;
    spoils_place = true;
    assert_int_equal(run(true, NULL), EX_CANTCREAT);
}

/* An update is delivered, and its place is kept; or it is said that there is no memory. What could
 * not be told was delivered all the same, and that is said. */
static void check_without_memory(bool is_json) {
    int code, refused = 0, said = memfd_create("said", 0);
    dup2(said, STDERR_FILENO);
    verdicts[0] = COURIER_CONFIRMED;
    failing_allocation = 0;
    do {
        failing_allocation++;
        allocations = 0;
        code = IN_NEED(run(is_json, NULL));
        assert_int_equal(code, attempts ? EX_OK : code == EX_CANTCREAT ? EX_CANTCREAT : EX_OSERR);
        assert_string_equal(kept(), attempts ? "7 e\n" : "");
        assert_true(!attempts || says("200") || lseek(said, 0, SEEK_CUR) > 0);
        assert_int_equal(ftruncate(said, 0) | lseek(said, 0, SEEK_SET), 0);
        refused += !attempts;
        unlink(place);
    } while (allocations >= failing_allocation);
    close(said);
    assert_true(refused > 3);
}

static void test_without_memory(void **state) {
    (void)state;
    check_without_memory(true);
    check_without_memory(false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_confirmed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rejected, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_place_that_cannot_be_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_memory, set_up, tear_down),
    };
    const char *error;
    int failed = curl_load(&error) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    buf_deinit(&out);
    return failed;
}
