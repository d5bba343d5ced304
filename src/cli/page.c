#include "cli/page.h"
#include "base/json.h"

struct slice page_member(struct slice object, struct slice name) {
    struct slice found = {0};
    struct json_member member;
    for (struct slice rest = object; json_next_member(&rest, &member);)
        if (slice_equal(member.key, name))
            found = member.value;
    return found;
}

bool page_string(struct slice value, struct buf *out) {
    if (value.len < 2 || *value.data != '"')
        return false;
    struct buf scratch = {0};
    struct slice text = json_unescape((struct slice){value.data + 1, value.len - 2}, &scratch);
    buf_append(out, text.data, text.len);
    out->failed |= scratch.failed;
    buf_deinit(&scratch);
    return true;
}

static bool is_epoch(struct slice text) {
    for (size_t i = 0; i < text.len; i++)
        if (!((text.data[i] >= '0' && text.data[i] <= '9') ||
              ((text.data[i] | 0x20) >= 'a' && (text.data[i] | 0x20) <= 'z')))
            return false;
    return true;
}

static void take(struct page *page, const struct json_member *member, bool *is_ok, bool *has_ts) {
    struct slice key = member->key, value = member->value;
    if (slice_equal(key, SLICE("ok")))
        *is_ok = slice_equal(value, SLICE("true"));
    else if (slice_equal(key, SLICE("ts")))
        *has_ts = slice_number(value, INT64_MAX, &page->ts);
    else if (slice_equal(key, SLICE("missed")))
        slice_number(value, INT64_MAX, &page->missed);
    else if (slice_equal(key, SLICE("skipped")))
        slice_number(value, INT64_MAX, &page->skipped);
    else if (slice_equal(key, SLICE("reset")))
        page->is_reset = slice_equal(value, SLICE("true"));
    else if (slice_equal(key, SLICE("updates")))
        page->updates = *value.data == '[' ? value : (struct slice){0};
    else if (slice_equal(key, SLICE("epoch")) && value.len > 2)
        page->epoch = (struct slice){value.data + 1, value.len - 2};
}

bool page_parse(struct slice body, struct page *page) {
    bool is_ok = false, has_ts = false;
    struct json_member member;
    struct slice item;
    *page = (struct page){0};
    if (json_check(body) != JSON_OBJECT)
        return false;
    for (struct slice rest = body; json_next_member(&rest, &member);)
        take(page, &member, &is_ok, &has_ts);
    if (!is_epoch(page->epoch))
        page->epoch = (struct slice){0};
    for (struct slice rest = page->updates; rest.len && json_next_item(&rest, &item);)
        page->count++;
    return is_ok && has_ts && page->updates.len;
}

bool page_parse_error(struct slice body, int status, struct buf *text) {
    uint64_t code = 0;
    if (json_check(body) != JSON_OBJECT ||
        !slice_equal(page_member(body, SLICE("ok")), SLICE("false")) ||
        !slice_number(page_member(body, SLICE("error_code")), 999, &code) || (int)code != status)
        return false;
    page_string(page_member(body, SLICE("error_description")), text);
    return true;
}
