/* What is an address to listen on, and what it resolves to without asking anybody. */
#include "base/address.h"
#include "support.h"

#include <netinet/in.h>
#include <sys/un.h>

static void test_sound(void **state) {
    (void)state;
    static const char *const good[] = {
        "127.0.0.1:3000", "localhost:0", ":80",     "[::]:65535",
        "[::1]:1",        "a.b-c:00080", "unix:/s", "unix:s",
    };
    static const char *const bad[] = {
        "",           "3000",  "host",   "host:",  "host:x",  "host:-1",
        "host:65536", "h:1:2", "::1:80", "[::1]",  "[::1:80", "::1]:80",
        "h:123456",   "unix:", "h]:80",  "a[b:80", "h: 80",   "h:80 ",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!address_is_sound(slice_of(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (address_is_sound(slice_of(bad[i])))
            fail_msg("taken: %s", bad[i]);
    char path[200] = "unix:/";
    memset(path + 6, 'x', sizeof path - 7);
    path[5 + sizeof((struct sockaddr_un *)0)->sun_path - 1] =
        '\0'; /* as long as there is room for */
    assert_true(address_is_sound(slice_of(path)));
    strcat(path, "x");
    assert_false(address_is_sound(slice_of(path)));
    char host[300];
    memset(host, 'h', 256);
    strcpy(host + 256, ":1");
    assert_false(address_is_sound(slice_of(host)));
    assert_true(address_is_sound(slice_of(host + 1)));
}

static void test_resolve(void **state) {
    (void)state;
    struct sockaddr_storage address;
    socklen_t len;
    assert_null(address_resolve(SLICE("127.0.0.1:80"), &address, &len));
    assert_int_equal(len, sizeof(struct sockaddr_in));
    assert_int_equal(ntohs(((struct sockaddr_in *)&address)->sin_port), 80);
    assert_null(address_resolve(SLICE("[::1]:81"), &address, &len));
    assert_int_equal(address.ss_family, AF_INET6);
    assert_int_equal(ntohs(((struct sockaddr_in6 *)&address)->sin6_port), 81);
    assert_null(address_resolve(SLICE("unix:/a/b"), &address, &len));
    assert_string_equal(((struct sockaddr_un *)&address)->sun_path, "/a/b");
    assert_non_null(address_resolve(SLICE("no such:80"), &address, &len));
    assert_text(address_unix_path(SLICE("unix:/a")), "/a");
    assert_text(address_unix_path(SLICE("u:1")), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_resolve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
