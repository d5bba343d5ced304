/*
 * Fuzzes the JSON checker against the grammar of RFC 8259 written down as plainly as can be:
 * recursive, byte by byte, a function a rule. Both must agree on what a text is, on where its
 * members are and on what their keys mean. And every input must come back whole when it is written
 * as a JSON string.
 */
#include "base/json.h"
#include "base/utf8.h"

#include <assert.h>
#include <stdlib.h>

/* --- The grammar, literally ------------------------------------------------------------------- */

enum { MEMBERS_MAX = 64 };

struct grammar {
    const unsigned char *at, *end;
    int depth;
    bool too_deep;
    struct json_member members[MEMBERS_MAX]; /* of the outermost object, the first of them */
    size_t member_count;
};

static int next(struct grammar *g) {
    return g->at < g->end ? *g->at : -1;
}

static void ws(struct grammar *g) {
    while (next(g) == 0x20 || next(g) == 0x09 || next(g) == 0x0A || next(g) == 0x0D)
        g->at++;
}

static bool literal(struct grammar *g, const char *text) {
    for (; *text; text++, g->at++)
        if (next(g) != *text)
            return false;
    return true;
}

static bool digits(struct grammar *g) {
    if (next(g) < '0' || next(g) > '9')
        return false;
    for (; next(g) >= '0' && next(g) <= '9'; g->at++)
        ;
    return true;
}

static bool number(struct grammar *g) {
    if (next(g) == '-')
        g->at++;
    bool begins_with_zero = next(g) == '0';
    const unsigned char *integer = g->at;
    if (!digits(g) || (begins_with_zero && g->at > integer + 1))
        return false;
    if (next(g) == '.') {
        g->at++;
        if (!digits(g))
            return false;
    }
    if (next(g) == 'e' || next(g) == 'E') {
        g->at++;
        if (next(g) == '+' || next(g) == '-')
            g->at++;
        return digits(g);
    }
    return true;
}

/* The code point of a UTF-8 sequence that is as short as it can be, else -1. */
static long utf8_char(struct grammar *g) {
    int first = next(g), more = 0;
    while (more < 7 && first & (0x80 >> more))
        more++;
    g->at++;
    if (more == 0)
        return first;
    if (more == 1 || more > 4)
        return -1;
    long point = first & (0x7F >> more);
    for (int i = 1; i < more; i++, g->at++) {
        if (next(g) < 0x80 || next(g) > 0xBF)
            return -1;
        point = point * 64 + next(g) % 64;
    }
    static const long smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    bool is_surrogate = point >= 0xD800 && point <= 0xDFFF;
    return point < smallest[more] || point > 0x10FFFF || is_surrogate ? -1 : point;
}

static bool string(struct grammar *g) {
    if (next(g) != '"')
        return false;
    g->at++;
    while (next(g) != '"') {
        if (next(g) < 0x20)
            return false;
        if (next(g) != '\\') {
            if (utf8_char(g) < 0)
                return false;
            continue;
        }
        g->at++;
        bool is_unit = next(g) == 'u';
        if (next(g) <= 0 || !strchr("\"\\/bfnrtu", next(g)))
            return false;
        g->at++;
        for (int i = 0; i < 4 && is_unit; i++, g->at++)
            if (next(g) <= 0 || !strchr("0123456789abcdefABCDEF", next(g)))
                return false;
    }
    g->at++;
    return true;
}

static bool value(struct grammar *g);

static bool member(struct grammar *g) {
    const unsigned char *key = g->at + 1;
    if (!string(g))
        return false;
    size_t key_len = (size_t)(g->at - 1 - key);
    ws(g);
    if (!literal(g, ":"))
        return false;
    ws(g);
    const unsigned char *start = g->at;
    if (!value(g))
        return false;
    if (g->depth == 1 && g->member_count < MEMBERS_MAX)
        g->members[g->member_count++] =
            (struct json_member){.key = {(const char *)key, key_len},
                                 .value = {(const char *)start, (size_t)(g->at - start)}};
    return true;
}

/* `[` or `{`, the items with commas between them, and the bracket that belongs to it. */
static bool items(struct grammar *g, bool (*item)(struct grammar *), int closer) {
    g->at++;
    if (++g->depth > JSON_DEPTH_MAX) {
        g->too_deep = true;
        return false;
    }
    ws(g);
    while (next(g) != closer) {
        if (!item(g))
            return false;
        ws(g);
        if (next(g) == closer)
            break;
        if (!literal(g, ","))
            return false;
        ws(g);
        if (next(g) == closer)
            return false;
    }
    g->at++;
    g->depth--;
    return true;
}

static bool value(struct grammar *g) {
    switch (next(g)) {
    case '{': return items(g, member, '}');
    case '[': return items(g, value, ']');
    case '"': return string(g);
    case 't': return literal(g, "true");
    case 'f': return literal(g, "false");
    case 'n': return literal(g, "null");
    default: return number(g);
    }
}

static enum json_kind text(struct grammar *g) {
    ws(g);
    int first = next(g);
    bool is_good = value(g);
    ws(g);
    if (g->too_deep)
        return JSON_TOO_DEEP;
    if (!is_good || g->at < g->end)
        return JSON_INVALID;
    return first == '{' ? JSON_OBJECT : first == '[' ? JSON_ARRAY : JSON_SCALAR;
}

/* --- What a key means: UTF-16 first, as the escapes are, then UTF-8 ----------------------------
 * */

static size_t units_of(struct slice key, uint16_t *units) {
    static const char escapes[] = "b\bf\fn\nr\rt\t\"\"\\\\//";
    struct grammar g = {.at = (const unsigned char *)key.data,
                        .end = (const unsigned char *)key.data + key.len};
    size_t count = 0;
    while (g.at < g.end) {
        if (next(&g) != '\\') {
            long point = utf8_char(&g);
            if (point > 0xFFFF)
                units[count++] = (uint16_t)(0xD800 + (point - 0x10000) / 1024);
            units[count++] = (uint16_t)(point > 0xFFFF ? 0xDC00 + point % 1024 : point);
        } else if (g.at[1] == 'u') {
            char hex[5] = {(char)g.at[2], (char)g.at[3], (char)g.at[4], (char)g.at[5]};
            units[count++] = (uint16_t)strtoul(hex, NULL, 16);
            g.at += 6;
        } else {
            units[count++] = (unsigned char)strchr(escapes, g.at[1])[1];
            g.at += 2;
        }
    }
    return count;
}

static void check_key(struct slice key) {
    uint16_t *units = malloc((key.len + 1) * sizeof *units);
    size_t count = units_of(key, units);
    struct buf wanted = {0}, scratch = {0};
    for (size_t i = 0; i < count; i++) {
        bool is_high = units[i] >= 0xD800 && units[i] <= 0xDBFF;
        bool is_low = units[i] >= 0xDC00 && units[i] <= 0xDFFF;
        bool before_low = i + 1 < count && units[i + 1] >= 0xDC00 && units[i + 1] <= 0xDFFF;
        if (is_high && before_low) {
            utf8_put(&wanted, 0x10000 + (units[i] - 0xD800u) * 1024 + (units[i + 1] - 0xDC00u));
            i++;
        } else
            utf8_put(&wanted, is_high || is_low ? 0xFFFD : units[i]);
    }
    assert(slice_equal(json_unescape(key, &scratch), (struct slice){wanted.data, wanted.len}));
    buf_deinit(&wanted);
    buf_deinit(&scratch);
    free(units);
}

static void check_members(struct slice object, const struct grammar *g) {
    size_t count = 0;
    for (struct json_member member; json_next_member(&object, &member); count++) {
        if (count >= MEMBERS_MAX)
            continue;
        const struct json_member *wanted = &g->members[count];
        assert(member.key.data == wanted->key.data && member.key.len == wanted->key.len);
        assert(member.value.data == wanted->value.data && member.value.len == wanted->value.len);
        check_key(member.key);
    }
    assert(count == g->member_count || count > MEMBERS_MAX);
}

/* Written as a string, the input is JSON; read again, it is itself, as far as it is UTF-8. */
static void check_written(struct slice input) {
    struct buf out = {0}, wanted = {0}, scratch = {0};
    json_write_string(&out, input);
    assert(json_check((struct slice){out.data, out.len}) == JSON_SCALAR);
    utf8_append(&wanted, input);
    struct slice inside = {out.data + 1, out.len - 2};
    assert(slice_equal(json_unescape(inside, &scratch), (struct slice){wanted.data, wanted.len}));
    buf_deinit(&out);
    buf_deinit(&wanted);
    buf_deinit(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice input = {(const char *)data, size};
    static struct grammar grammar;
    grammar = (struct grammar){.at = data, .end = data + size};
    enum json_kind kind = json_check(input);
    assert(kind == text(&grammar));
    if (kind == JSON_OBJECT)
        check_members(input, &grammar);
    check_written(input);
    /* Members of a text that nobody has checked: whatever comes, nothing outside of it is read. */
    for (struct json_member member; json_next_member(&input, &member);)
        check_key(member.key);
    return 0;
}
