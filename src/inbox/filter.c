#include "inbox/filter.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/json_find.h"
#include "base/list.h"
#include "base/text.h"

#include <stdlib.h>

/* What `*` and `|` have become in a pattern. No condition has control characters. */
enum { ANY_BYTES = '\1', ALTERNATIVE = '\2' };

enum field { FIELD_HEADER, FIELD_QUERY, FIELD_BODY, FIELD_METHOD, FIELD_PATH, FIELDS };

struct condition {
    enum field field;
    bool is_negated;
    struct slice name, pattern;
};

struct filter {
    struct table_node node;
    uint32_t refs;
    uint32_t reads[FIELDS]; /* how often it may have to be read */
    uint32_t count;
    struct condition conditions[FILTER_MAX_CONDITIONS];
    size_t text_len;
    char text[]; /* as it was given; then what the conditions' slices point to, as long */
};

/* --- Parsing ---------------------------------------------------------------------------------- */

static const struct {
    struct slice start; /* with a name behind it, where it ends with a dot */
    enum field field;
} fields[] = {
    {SLICE("header."), FIELD_HEADER}, {SLICE("query."), FIELD_QUERY}, {SLICE("body."), FIELD_BODY},
    {SLICE("method"), FIELD_METHOD},  {SLICE("path"), FIELD_PATH},
};

static bool parse_field(struct slice text, struct condition *condition) {
    condition->is_negated = slice_starts_with(text, SLICE("!"));
    text = slice_after(text, condition->is_negated);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct slice start = fields[i].start;
        bool has_name = start.data[start.len - 1] == '.';
        if (!slice_starts_with(text, start) ||
            (has_name ? text.len == start.len : text.len != start.len))
            continue;
        condition->field = fields[i].field;
        condition->name = slice_after(text, start.len);
        return true;
    }
    return false;
}

/* Writes the pattern of a text to `at`. False for what is none. */
static bool parse_pattern(struct slice text, char *at, struct slice *pattern) {
    *pattern = (struct slice){at, 0};
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if ((unsigned char)c < ' ' || c == 0x7f)
            return false;
        if (c == '\\') {
            i++;
            if (i == text.len || !strchr("\\|*", text.data[i]))
                return false;
            c = text.data[i];
        } else if (c == '*') {
            c = ANY_BYTES;
        } else if (c == '|') {
            c = ALTERNATIVE;
        }
        *at++ = c;
        pattern->len++;
    }
    return true;
}

static void lower_case(char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] |= 0x20;
}

/* Reads a condition; `at` has room for its bytes, which its slices point to. */
static bool parse_condition(struct slice text, char *at, struct condition *condition) {
    struct slice field;
    if (!memchr(text.data, ':', text.len) || !slice_cut(&text, ':', &field) ||
        !parse_field(field, condition))
        return false;
    memcpy(at, condition->name.data, condition->name.len);
    condition->name.data = at;
    if (condition->field == FIELD_HEADER)
        lower_case(at, condition->name.len);
    return parse_pattern(text, at + condition->name.len, &condition->pattern);
}

static uint32_t count(struct slice text, char c) {
    uint32_t found = 0;
    for (size_t i = 0; i < text.len; i++)
        found += text.data[i] == c;
    return found;
}

/* A path is looked for once a name, and texts in the middle of an alternative once for each of
 * these. Too many for a path that is too long to be found. */
static uint32_t reads_of(const struct condition *condition) {
    uint32_t reads = condition->field == FIELD_BODY ? 1 + count(condition->name, '.') : 1;
    if (reads > JSON_FIND_MAX_NAMES)
        return FILTER_MAX_READS + 1;
    struct slice pattern = condition->pattern;
    for (struct slice one; slice_cut(&pattern, ALTERNATIVE, &one);) {
        const char *first = memchr(one.data, ANY_BYTES, one.len);
        reads += first && (const char *)memrchr(one.data, ANY_BYTES, one.len) > first + 1;
    }
    return reads;
}

static bool parse(struct filter *filter) {
    struct slice text = {filter->text, filter->text_len}, one;
    char *at = filter->text + filter->text_len;
    while (text.len && slice_cut(&text, '\0', &one)) {
        filter->count++;
        if (filter->count > FILTER_MAX_CONDITIONS || !one.len)
            return false;
        struct condition *condition = &filter->conditions[filter->count - 1];
        if (!parse_condition(one, at, condition))
            return false;
        filter->reads[condition->field] += reads_of(condition);
        at += one.len;
    }
    return filter->count > 0;
}

/* Without the NULs. */
static bool is_too_large(const struct filter *filter) {
    uint32_t reads = 0;
    for (int field = 0; field < FIELDS; field++)
        reads += filter->reads[field];
    return filter->count > FILTER_MAX_CONDITIONS || reads > FILTER_MAX_READS ||
           filter->text_len - filter->count > FILTER_MAX_BYTES;
}

/* --- All filters ------------------------------------------------------------------------------ */

bool filters_init(struct filters *filters) {
    return table_init(&filters->table);
}

void filters_deinit(struct filters *filters) {
    table_deinit(&filters->table);
}

static bool has_text(const struct table_node *node, const void *text, size_t len) {
    const struct filter *filter = container_of(node, struct filter, node);
    return filter->text_len == len && memcmp(filter->text, text, len) == 0;
}

enum filter_error filters_get(struct filters *filters, struct slice text, struct filter **filter) {
    if (text.len > FILTER_MAX_BYTES + FILTER_MAX_CONDITIONS)
        return FILTER_TOO_LARGE;
    uint64_t hash = hash_of(text);
    struct table_node *node = table_find(&filters->table, hash, has_text, text.data, text.len);
    if (node) {
        *filter = filter_ref(container_of(node, struct filter, node));
        return FILTER_OK;
    }
    size_t size = sizeof(struct filter) + 2 * text.len;
    struct filter *new = filters->bytes + size <= FILTERS_MAX_BYTES ? malloc(size) : NULL;
    if (!new)
        return FILTER_NO_ROOM;
    *new = (struct filter){.node.hash = hash, .refs = 1, .text_len = text.len};
    memcpy(new->text, text.data, text.len);
    bool is_sound = parse(new);
    if (!is_sound || is_too_large(new)) {
        enum filter_error error = is_too_large(new) ? FILTER_TOO_LARGE : FILTER_MALFORMED;
        free(new);
        return error;
    }
    filters->bytes += size;
    table_insert(&filters->table, &new->node);
    *filter = new;
    return FILTER_OK;
}

struct filter *filter_ref(struct filter *filter) {
    filter->refs++;
    return filter;
}

struct slice filter_text(const struct filter *filter) {
    return (struct slice){filter->text, filter->text_len};
}

void filter_unref(struct filters *filters, struct filter *filter) {
    if (--filter->refs)
        return;
    filters->bytes -= sizeof *filter + 2 * filter->text_len;
    table_remove(&filters->table, &filter->node);
    free(filter);
}

/* --- Matching --------------------------------------------------------------------------------- */

/* Takes everything up to the first `part` off the front. False when there is none. */
static bool skip_past(struct slice *text, struct slice part) {
    if (!part.len)
        return true;
    const char *found = text->data && text->len >= part.len
                            ? memmem(text->data, text->len, part.data, part.len)
                            : NULL;
    if (found)
        *text = slice_after(*text, (size_t)(found - text->data) + part.len);
    return found;
}

/* One alternative: its first part stands at the text's start, its last at the end, and those in
 * between somewhere in their order, each as early as it can. */
static bool matches_one(struct slice pattern, struct slice text) {
    struct slice part;
    slice_cut(&pattern, ANY_BYTES, &part);
    if (!slice_starts_with(text, part))
        return false;
    text = slice_after(text, part.len);
    if (!pattern.data)
        return !text.len;
    while (slice_cut(&pattern, ANY_BYTES, &part) && pattern.data)
        if (!skip_past(&text, part))
            return false;
    return text.len >= part.len && slice_equal(slice_after(text, text.len - part.len), part);
}

static bool matches_text(struct slice pattern, struct slice text) {
    for (struct slice one; slice_cut(&pattern, ALTERNATIVE, &one);)
        if (matches_one(one, text))
            return true;
    return false;
}

static struct slice text_of(const struct buf *buf) {
    return (struct slice){buf->data, buf->len};
}

static bool has_header(const struct condition *condition, struct slice headers, struct buf *room) {
    for (struct json_member member; headers.len && json_next_member(&headers, &member);) {
        if (!slice_equal(member.key, condition->name) || *member.value.data != '"')
            continue;
        struct slice string = {member.value.data + 1, member.value.len - 2};
        return matches_text(condition->pattern, json_unescape(string, room));
    }
    return false;
}

static bool has_parameter(const struct condition *condition, struct slice query, struct buf *room) {
    for (struct text_pair pair; text_next_pair(&query, &pair);) {
        room->len = 0;
        text_decode_form(room, pair.name);
        if (!slice_equal(text_of(room), condition->name))
            continue;
        room->len = 0;
        text_decode_form(room, pair.value);
        if (matches_text(condition->pattern, text_of(room)))
            return true;
    }
    return false;
}

static bool has_member(const struct condition *condition, struct slice body, struct buf *room) {
    room->len = 0;
    return json_find(body, condition->name, room) &&
           matches_text(condition->pattern, text_of(room));
}

static bool holds(const struct condition *condition, const struct update *update,
                  struct buf *room) {
    switch (condition->field) {
    case FIELD_HEADER: return has_header(condition, update_headers(update), room);
    case FIELD_QUERY: return has_parameter(condition, update_query(update), room);
    case FIELD_BODY: return has_member(condition, update_body(update), room);
    case FIELD_METHOD: return matches_text(condition->pattern, update_origin(update).method);
    case FIELD_PATH:
    case FIELDS: break;
    }
    struct slice path = update_origin(update).path;
    return path.len && matches_text(condition->pattern, path);
}

bool filter_matches(const struct filter *filter, const struct update *update) {
    char bytes[512];
    struct buf room = {.data = bytes, .cap = sizeof bytes, .is_borrowed = true};
    bool matches = true;
    for (uint32_t i = 0; matches && i < filter->count; i++)
        matches =
            holds(&filter->conditions[i], update, &room) != filter->conditions[i].is_negated ||
            room.failed;
    buf_deinit(&room);
    return matches;
}

size_t filter_cost(const struct filter *filter, const struct update *update) {
    const size_t lens[FIELDS] = {
        [FIELD_HEADER] = update->headers_len, [FIELD_QUERY] = update->query_len,
        [FIELD_BODY] = update->body_len,      [FIELD_METHOD] = update->method_len,
        [FIELD_PATH] = update->method_len,
    };
    size_t bytes = filter->text_len;
    for (int field = 0; field < FIELDS; field++)
        bytes += filter->reads[field] * lens[field];
    return bytes;
}
