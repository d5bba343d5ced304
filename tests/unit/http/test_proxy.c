/* Which address counts as the client's behind proxies. */
#include "http/proxy.h"
#include "support.h"

#include <arpa/inet.h>

static void parse(const char *text, uint8_t ip[16]) {
    memset(ip, 0, 16);
    if (inet_pton(AF_INET, text, ip + 12) == 1) {
        memset(ip + 10, 0xff, 2);
        return;
    }
    if (*text)
        assert_int_equal(inet_pton(AF_INET6, text, ip), 1);
}

/* An empty `peer` is a unix socket. */
static void check_at(const char *trusted, const char *peer, const char *header, const char *wanted,
                     const char *file, int line) {
    char error[256] = "";
    struct proxy_trust *trust = proxy_trust_new(trusted, error, sizeof error);
    if (!trust) {
        print_error("%s\n", error);
        _fail(file, line);
    }
    uint8_t ip[16], wanted_ip[16];
    parse(peer, ip);
    parse(wanted, wanted_ip);
    size_t len = strlen(header);
    char *copy = malloc(len + !len); /* of the exact size, so that reading beyond it is seen */
    memcpy(copy, header, len);
    proxy_client_ip(trust, (struct slice){copy, len}, ip);
    free(copy);
    proxy_trust_free(trust);
    if (memcmp(ip, wanted_ip, 16) == 0)
        return;
    char text[INET6_ADDRSTRLEN];
    print_error("trust %s, peer %s, header %s: got %s, wanted %s\n", trusted, peer, header,
                inet_ntop(AF_INET6, ip, text, sizeof text), wanted);
    _fail(file, line);
}

#define check(trusted, peer, header, wanted)                                                       \
    check_at(trusted, peer, header, wanted, __FILE__, __LINE__)

static void test_rightmost_untrusted(void **state) {
    (void)state;
    const char *standard = "loopback,private";
    check(standard, "127.0.0.1", "", "127.0.0.1");
    check(standard, "127.0.0.1", "203.0.113.7", "203.0.113.7");
    check(standard, "127.0.0.1", "1.1.1.1, 203.0.113.7", "203.0.113.7");
    check(standard, "127.0.0.1", "1.1.1.1, 203.0.113.7, 10.0.0.3", "203.0.113.7");
    check(standard, "127.0.0.1", "203.0.113.7,192.168.1.1,172.31.255.255,127.0.0.9", "203.0.113.7");
    check(standard, "::1", " \t203.0.113.7 \t", "203.0.113.7");
    check(standard, "fd00::5", "2001:db8::7", "2001:db8::7");
    check(standard, "fe80::5", "2001:db8::7", "2001:db8::7");
    check(standard, "", "203.0.113.7", "203.0.113.7");
    check(standard, "", "", "");
    /* Whoever is not trusted says nothing. */
    check(standard, "203.0.113.9", "1.1.1.1", "203.0.113.9");
    check(standard, "172.32.0.1", "1.1.1.1", "172.32.0.1");
    check(standard, "11.0.0.0", "1.1.1.1", "11.0.0.0");
    check(standard, "2001:db8::1", "1.1.1.1", "2001:db8::1");
    check(standard, "::2", "1.1.1.1", "::2");
    /* Everyone is trusted: the leftmost. */
    check(standard, "127.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.1");
    check("all", "8.8.8.8", "1.1.1.1, 2.2.2.2", "1.1.1.1");
    check("all", "2001:db8::1", "1.1.1.1", "1.1.1.1");
    /* What is no address ends the walk. */
    check(standard, "127.0.0.1", "unknown", "127.0.0.1");
    check(standard, "127.0.0.1", "1.1.1.1, junk, 10.0.0.2", "10.0.0.2");
    check(standard, "127.0.0.1", "1.1.1.1,,10.0.0.2", "10.0.0.2");
    check(standard, "127.0.0.1", "1.1.1.1,", "127.0.0.1");
    check(standard, "127.0.0.1", ",", "127.0.0.1");
    check(standard, "127.0.0.1",
          "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee:ffff:0000:1111",
          "127.0.0.1");
    check(standard, "127.0.0.1", "1.2.3", "127.0.0.1");
    check(standard, "127.0.0.1", "1.2.3.256", "127.0.0.1");
}

static void test_none(void **state) {
    (void)state;
    check("none", "127.0.0.1", "1.1.1.1", "127.0.0.1");
    check("none", "10.0.0.1", "1.1.1.1", "10.0.0.1");
    check("", "127.0.0.1", "1.1.1.1", "127.0.0.1");
    check("none", "", "1.1.1.1", "1.1.1.1"); /* a unix socket is always trusted */
}

static void test_networks(void **state) {
    (void)state;
    check("203.0.113.0/24", "203.0.113.255", "1.1.1.1", "1.1.1.1");
    check("203.0.113.0/24", "203.0.114.0", "1.1.1.1", "203.0.114.0");
    check("203.0.113.64/27", "203.0.113.95", "1.1.1.1", "1.1.1.1");
    check("203.0.113.64/27", "203.0.113.96", "1.1.1.1", "203.0.113.96");
    check("203.0.113.64/27", "203.0.113.63", "1.1.1.1", "203.0.113.63");
    check("203.0.113.5", "203.0.113.5", "1.1.1.1", "1.1.1.1");
    check("203.0.113.5", "203.0.113.4", "1.1.1.1", "203.0.113.4");
    check("203.0.113.5/32", "203.0.113.5", "1.1.1.1", "1.1.1.1");
    check("0.0.0.0/0", "9.9.9.9", "1.1.1.1", "1.1.1.1");
    check("0.0.0.0/0", "2001:db8::1", "1.1.1.1", "2001:db8::1");
    check("2001:db8::/33", "2001:db8:7fff::1", "1.1.1.1", "1.1.1.1");
    check("2001:db8::/33", "2001:db8:8000::1", "1.1.1.1", "2001:db8:8000::1");
    check("2001:db8::1", "2001:db8::1", "1.1.1.1", "1.1.1.1");
    check("2001:db8::1", "2001:db8::2", "1.1.1.1", "2001:db8::2");
    check(" 9.9.9.9 , loopback ", "9.9.9.9", "1.1.1.1", "1.1.1.1");
    check("LOOPBACK", "127.3.4.5", "1.1.1.1", "1.1.1.1");
    check("loopback", "10.0.0.1", "1.1.1.1", "10.0.0.1");
    check("private", "127.0.0.1", "1.1.1.1", "127.0.0.1");
}

static void test_mistakes(void **state) {
    (void)state;
    static const char *const mistakes[] = {
        "nobody",     "1.2.3",        "1.2.3.4/33",  "1.2.3.4/", "1.2.3.4/x",
        "1.2.3.4/-1", "1.2.3.4/+8",   "::1/129",     "::1/1280", "loopback,oops",
        "all none",   "1.2.3.4/8 ,?", "1.2.3.4/8/8", "/8"};
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        char error[256] = "";
        struct proxy_trust *trust = proxy_trust_new(mistakes[i], error, sizeof error);
        if (trust)
            fail_msg("\"%s\" was taken", mistakes[i]);
        assert_non_null(strstr(error, "TRUST_PROXY"));
        assert_null(strchr(error, '\n'));
    }
    char many[65 * 12] = "", error[256] = "";
    for (int i = 0; i < 65; i++)
        sprintf(many + strlen(many), "10.0.0.%d,", i);
    assert_null(proxy_trust_new(many, error, sizeof error));
    assert_true(*error);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rightmost_untrusted),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
