/* Replies of a turn leave together, but one that is cancelled; a socket may be full or gone. */
#include "base/log.h"
#include "base/turn.h"
#include "failing.h"
#include "http/sender.h"
#include "support.h"

#include <errno.h>
#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

static int result; /* of a call that fails */

MAY_FAIL(void *, malloc, (size_t size), (size), "malloc", NULL)
MAY_FAIL(int, io_uring_queue_init, (unsigned entries, struct io_uring *ring, unsigned flags),
         (entries, ring, flags), "init", result)
MAY_FAIL(int, io_uring_submit_and_wait, (struct io_uring * ring, unsigned wanted), (ring, wanted),
         "submit", result)
MAY_FAIL(long, syscall, (long number, long a, long b, long c, long d), (number, a, b, c, d),
         "register", -1)

enum { PAIRS = 3 };

static uv_loop_t loop;
static struct sender *sender;
static int ours[PAIRS], theirs[PAIRS];
static int owners[PAIRS], results[PAIRS], calls;

static void on_sent(void *owner, struct reply *reply, int sent) {
    int i = (int)((int *)owner - owners);
    results[i] = sent;
    calls++;
    assert_int_equal(sender_queue(sender, owner, ours[i], reply), 0);
    sender_flush(sender); /* in which it is */
    reply_unref(reply);
}

static struct reply *text(size_t len) {
    char *body;
    struct reply *reply = reply_new_uninitialized(HTTP_OK, 0, "text/plain", SLICE(""), len, &body);
    memset(body, 'x', len);
    return reply;
}

static int setup(void **state) {
    (void)state;
    uv_loop_init(&loop);
    turn_init(&loop);
    calls = 0;
    for (int i = 0; i < PAIRS; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
        ours[i] = pair[0];
        theirs[i] = pair[1];
        results[i] = 0;
    }
    sender = sender_new(on_sent);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    sender_free(sender);
    for (int i = 0; i < PAIRS; i++) {
        close(ours[i]);
        close(theirs[i]);
    }
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void test_together(void **state) {
    (void)state;
    if (!sender)
        skip();
    struct reply *reply = text(100);
    size_t len = reply->len;
    for (int i = 0; i < PAIRS; i++) {
        unsigned handle = sender_queue(sender, &owners[i], ours[i], reply_ref(reply));
        assert_int_not_equal(handle, 0);
        if (i == 1)
            sender_cancel(sender, handle);
    }
    char got[1024];
    assert_int_equal(recv(theirs[0], got, sizeof got, 0), -1); /* not before the turn ends */
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(calls, 2);
    assert_int_equal(reply->refs, 1);
    assert_int_equal(results[0], len);
    assert_int_equal(recv(theirs[0], got, sizeof got, 0), len);
    assert_memory_equal(got, reply->data, len);
    assert_int_equal(recv(theirs[1], got, sizeof got, 0), -1);
    assert_int_equal(recv(theirs[2], got, sizeof got, 0), len);
    reply_unref(reply);
}

static void test_no_room_and_nobody_there(void **state) {
    (void)state;
    if (!sender)
        skip();
    char filler[4096] = {0};
    while (send(ours[0], filler, sizeof filler, 0) > 0)
        ;
    close(theirs[1]);
    theirs[1] = dup(0);
    for (int i = 0; i < PAIRS; i++)
        assert_int_not_equal(sender_queue(sender, &owners[i], ours[i], text(5000)), 0);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(results[0], -EAGAIN);
    assert_int_equal(results[1], -EPIPE);
    assert_true(results[2] > 5000);
}

static void test_what_is_not_queued(void **state) {
    (void)state;
    if (!sender)
        skip();
    struct reply *large = text(SENDER_MAX_BYTES), *small = text(10);
    assert_int_equal(sender_queue(sender, &owners[0], ours[0], large), 0);
    assert_int_equal(sender_queue(NULL, &owners[0], ours[0], small), 0);
    for (int i = 0; i < SENDER_MAX_REPLIES; i++)
        assert_int_not_equal(sender_queue(sender, &owners[i % 3], ours[i % 3], reply_ref(small)),
                             0);
    assert_int_equal(sender_queue(sender, &owners[0], ours[0], small), 0);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(calls, SENDER_MAX_REPLIES);
    assert_int_equal(small->refs, 1);
    reply_unref(small);
    reply_unref(large);
}

/* A kernel that has no such ring, or one without what is wanted of it. */
static void test_no_ring(void **state) {
    (void)state;
    static const struct {
        const char *call;
        unsigned nth;
        int result;
    } cases[] = {{"malloc", 1, 0},
                 {"init", 0, -ENOSYS},
                 {"init", 0, -EINVAL},
                 {"register", 1, 0},
                 {"register", 2, 0}};
    if (!sender)
        skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        result = cases[i].result;
        fail_call(cases[i].call, cases[i].nth, EPERM);
        assert_null(sender_new(on_sent));
    }
    result = -EINVAL;
    fail_call("init", 1, 0); /* before Linux 6.1 */
    struct sender *older = sender_new(on_sent);
    fail_nothing();
    assert_non_null(older);
    sender_free(older);
    sender_free(NULL);
    sender_flush(NULL);
}

/* What the ring has not taken is sent in another way; of the rest, nobody knows. */
static void test_a_ring_that_breaks(void **state) {
    (void)state;
    if (!sender)
        skip();
    static const struct {
        int result, of_last, of_others;
    } cases[] = {{-EBADF, -EAGAIN, -EAGAIN}, {1, -EIO, -EAGAIN}};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < PAIRS; j++)
            assert_int_not_equal(sender_queue(sender, &owners[j], ours[j], text(10)), 0);
        result = cases[i].result;
        fail_call("submit", 1, 0);
        sender_flush(sender);
        fail_nothing();
        assert_int_equal(results[0], cases[i].of_others);
        assert_int_equal(results[1], cases[i].of_others);
        assert_int_equal(results[2], cases[i].of_last); /* which goes first */
        struct reply *reply = text(10);
        assert_int_equal(sender_queue(sender, &owners[0], ours[0], reply), 0);
        reply_unref(reply);
        sender_free(sender);
        sender = sender_new(on_sent);
    }
}

int main(void) {
    log_init(LOG_LEVEL_ERROR, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_together, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room_and_nobody_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_queued, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_ring, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_ring_that_breaks, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
