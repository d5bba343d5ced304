/* Where a request has the id of its delivery. */
#include "api/delivery.h"
#include "requests.h"

#include <sodium.h>

/* The delivery of update number `number` of a push with these header lines and this query. */
static struct delivery delivery_of(const char *headers, const char *query, const char *body,
                                   int number) {
    struct buf text = {0};
    buf_printf(&text, "POST /c?%s HTTP/1.1\r\nHost: h\r\n%sContent-Length: 0\r\n\r\n", query,
               headers);
    struct parsed parsed;
    parse_request(&parsed, (struct slice){text.data, text.len});
    struct delivery_source source = {0};
    delivery_source_init(&source, &parsed.request, slice_of(query));
    struct delivery delivery = {0};
    for (int i = 0; i <= number; i++)
        delivery = delivery_next(&source, slice_of(body));
    assert_false(source.failed);
    assert_true(source.is_any || !delivery.has_id);
    delivery_source_deinit(&source);
    parsed_deinit(&parsed);
    buf_deinit(&text);
    return delivery;
}

static bool is_same(struct delivery a, struct delivery b) {
    return a.has_id && b.has_id && memcmp(a.id, b.id, sizeof a.id) == 0;
}

static void test_headers(void **state) {
    (void)state;
    struct delivery a = delivery_of("X-GitHub-Delivery: a\r\n", "", "", 0);
    assert_true(is_same(a, delivery_of("x-github-delivery: a\r\n", "x=1", "{}", 0)));
    assert_false(is_same(a, delivery_of("x-github-delivery: b\r\n", "", "", 0)));
    assert_false(delivery_of("x-github-deliverz: a\r\n", "", "", 0).has_id);
    assert_false(delivery_of("ce-id: a\r\n", "", "", 0).has_id);
    assert_false(delivery_of("ce-source: a\r\n", "", "", 0).has_id);
    assert_true(delivery_of("ce-source: a\r\nce-id: b\r\n", "", "", 0).has_id);
    assert_false(is_same(delivery_of("ce-source: ab\r\nce-id: c\r\n", "", "", 0),
                         delivery_of("ce-source: a\r\nce-id: bc\r\n", "", "", 0)));
    /* The first of the list wins, whatever their order. */
    assert_true(is_same(delivery_of("idempotency-key: x\r\nsvix-id: a\r\n", "", "", 0), a));
}

static void test_address(void **state) {
    (void)state;
    const char *headers = "svix-id: a\r\nx-id: b\r\n";
    struct delivery a = delivery_of("svix-id: a\r\n", "", "", 0);
    struct delivery b = delivery_of("svix-id: b\r\n", "", "", 0);
    assert_true(is_same(delivery_of(headers, ".key=header.X-ID", "{}", 0), b));
    assert_true(is_same(delivery_of(headers, "id=%62&.key=query.id", "{}", 0), b));
    assert_true(is_same(delivery_of(headers, ".key=body.id", "{\"id\":\"b\"}", 0), b));
    assert_false(delivery_of(headers, ".key=body.id", "{}", 0).has_id);
    assert_false(delivery_of(headers, ".key=id", "{\"id\":\"b\"}", 0).has_id);
    assert_true(is_same(delivery_of(headers, ".keys=body.id", "{\"id\":\"b\"}", 0), a));
    assert_false(a.is_once);
    assert_true(delivery_of(headers, ".once", "", 0).is_once);
    assert_true(delivery_of(headers, "a=b&.once=1&.key=query.a", "", 0).is_once);
    assert_false(delivery_of(headers, "once&x.once", "", 0).is_once);
}

static void test_length(void **state) {
    (void)state;
    for (int len = DELIVERY_TEXT_MAX_BYTES; len <= DELIVERY_TEXT_MAX_BYTES + 1; len++) {
        char body[DELIVERY_TEXT_MAX_BYTES + 20];
        snprintf(body, sizeof body, "{\"id\":\"%0*d\"}", len, 0);
        assert_int_equal(delivery_of("", ".key=body.id", body, 0).has_id,
                         len == DELIVERY_TEXT_MAX_BYTES);
    }
}

static void test_batches(void **state) {
    (void)state;
    struct delivery first = delivery_of("svix-id: a\r\n", "", "{}", 0);
    struct delivery second = delivery_of("svix-id: a\r\n", "", "{}", 1);
    assert_false(is_same(first, second));
    assert_true(is_same(second, delivery_of("svix-id: a\r\n", "", "{}", 1)));
    assert_false(is_same(second, delivery_of("svix-id: b\r\n", "", "{}", 1)));
    assert_true(is_same(delivery_of("", ".key=body.n", "{\"n\":1}", 0),
                        delivery_of("", ".key=body.n", "{\"n\":1}", 5)));
}

int main(void) {
    if (sodium_init() < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
