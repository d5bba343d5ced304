#include "inbox/update.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/utf8.h"

#include <stdlib.h>

enum { SCRATCH_KEEP_BYTES = 65536 };

struct update *update_new(const struct update_parts *parts) {
    struct slice raw = parts->has_raw ? parts->raw : (struct slice){"", 0};
    size_t size =
        parts->body.len + raw.len + parts->query.len + parts->headers.len + parts->method.len;
    struct update *update = malloc(sizeof *update + size);
    if (!update)
        return NULL;
    *update = (struct update){
        .refs = 1,
        .body_len = (uint32_t)parts->body.len,
        .raw_len = (uint32_t)raw.len,
        .query_len = (uint32_t)parts->query.len,
        .headers_len = (uint32_t)parts->headers.len,
        .method_len = (uint16_t)parts->method.len,
        .has_raw = parts->has_raw,
    };
    char *at = update->data;
    const struct slice *order[] = {&parts->body, &raw, &parts->query, &parts->headers,
                                   &parts->method};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (order[i]->len)
            at = (char *)memcpy(at, order[i]->data, order[i]->len) + order[i]->len;
    return update;
}

void update_unref(struct update *update) {
    if (--update->refs == 0)
        free(update);
}

/* --- Fields of a query or a form -------------------------------------------------------------- */

/* A decoded field; the texts lie in fields.text. */
struct field {
    size_t name_at, name_len;
    size_t value_at, value_len;
    bool in_body; /* a member of the body has this name, and has got this value */
};

/* The fields of a query or a form, each name once, with its last value, in order of first appearance. */
struct fields {
    struct buf text;
    struct field *list;
    uint32_t
        *index; /* open addressing by name: 1 + position in list, 0 for none; index_size is 2^n */
    size_t count, index_size;
    bool failed;
};

static struct slice field_name(const struct fields *fields, const struct field *field) {
    return (struct slice){fields->text.data + field->name_at, field->name_len};
}

static struct slice field_value(const struct fields *fields, const struct field *field) {
    return (struct slice){fields->text.data + field->value_at, field->value_len};
}

/* The index slot of `name`: taken by the field of that name, or free for it. */
static uint32_t *find_slot(const struct fields *fields, struct slice name) {
    for (size_t at = hash_of(name) & (fields->index_size - 1);;
         at = (at + 1) & (fields->index_size - 1)) {
        uint32_t *slot = &fields->index[at];
        if (!*slot || slice_equal(field_name(fields, &fields->list[*slot - 1]), name))
            return slot;
    }
}

static size_t count_pairs(struct slice text) {
    size_t count = 0;
    for (struct http_pair pair; http_next_pair(&text, &pair);)
        count++;
    return count;
}

/* Appends the decoded `text`, as UTF-8; `scratch` is for its use. */
static void decode(struct buf *out, struct slice text, struct buf *scratch) {
    buf_reset(scratch, SIZE_MAX);
    http_decode_form(scratch, text);
    out->failed |= scratch->failed;
    utf8_append(out, (struct slice){scratch->data, scratch->len});
}

/* Decodes `text`. Check `failed` (memory is out) afterwards. Always fields_deinit() it. */
static void fields_init(struct fields *fields, struct slice text) {
    *fields = (struct fields){0};
    size_t pairs = count_pairs(text);
    if (!pairs)
        return;
    fields->index_size = 4;
    while (fields->index_size < 2 * pairs)
        fields->index_size *= 2;
    fields->list = calloc(pairs, sizeof *fields->list);
    fields->index = calloc(fields->index_size, sizeof *fields->index);
    fields->failed = !fields->list || !fields->index || !buf_reserve(&fields->text, text.len + 1);
    struct buf scratch = {0};
    for (struct http_pair pair; !fields->failed && http_next_pair(&text, &pair);) {
        struct field field = {.name_at = fields->text.len};
        decode(&fields->text, pair.name, &scratch);
        field.name_len = fields->text.len - field.name_at;
        field.value_at = fields->text.len;
        decode(&fields->text, pair.value, &scratch);
        field.value_len = fields->text.len - field.value_at;
        uint32_t *slot = find_slot(fields, field_name(fields, &field));
        if (!*slot)
            *slot = (uint32_t)++fields->count;
        fields->list[*slot - 1] = field;
    }
    fields->failed |= fields->text.failed;
    buf_deinit(&scratch);
}

static void fields_deinit(struct fields *fields) {
    buf_deinit(&fields->text);
    free(fields->list);
    free(fields->index);
}

/* Writes the fields that no member of the body stands for as members, each after a comma but the first
 * of all. */
static void write_members(struct buf *out, const struct fields *fields, bool is_first) {
    for (size_t i = 0; i < fields->count; i++) {
        const struct field *field = &fields->list[i];
        if (field->in_body)
            continue;
        if (!is_first)
            buf_putc(out, ',');
        is_first = false;
        json_write_string(out, field_name(fields, field));
        buf_putc(out, ':');
        json_write_string(out, field_value(fields, field));
    }
}

/* --- Merging the query into a JSON object ----------------------------------------------------- */

struct merge {
    struct slice body; /* an object */
    struct fields *fields;
    struct buf *out;
    struct buf scratch; /* for keys */
    size_t copied;      /* bytes of the body that are in `out` */
};

/* A member whose name is in the query gets its value from there, where it stands. */
static void merge_member(struct merge *merge, const struct json_member *member) {
    struct slice name = json_unescape(member->key, &merge->scratch);
    uint32_t *slot = find_slot(merge->fields, name);
    if (!*slot)
        return;
    struct field *field = &merge->fields->list[*slot - 1];
    field->in_body = true;
    size_t value_at = (size_t)(member->value.data - merge->body.data);
    buf_append(merge->out, merge->body.data + merge->copied, value_at - merge->copied);
    json_write_string(merge->out, field_value(merge->fields, field));
    merge->copied = value_at + member->value.len;
}

/* The rest of the body, with the other fields before its closing brace. */
static void finish_merge(struct merge *merge, bool is_empty) {
    size_t brace = merge->body.len - 1;
    while (merge->body.data[brace] != '}')
        brace--;
    buf_append(merge->out, merge->body.data + merge->copied, brace - merge->copied);
    write_members(merge->out, merge->fields, is_empty);
    buf_append(merge->out, merge->body.data + brace, merge->body.len - brace);
}

/* Writes the object `body` with the fields as members. */
static enum http_error merge_fields(struct buf *out, struct slice body, struct fields *fields) {
    struct merge merge = {.body = body, .fields = fields, .out = out};
    /* Many members of one name would multiply its value. */
    size_t max = body.len + 6 * (fields->text.len + 64);
    struct slice rest = body;
    bool is_empty = true;
    for (struct json_member member; out->len <= max && json_next_member(&rest, &member);) {
        merge_member(&merge, &member);
        is_empty = false;
    }
    out->failed |= merge.scratch.failed;
    buf_deinit(&merge.scratch);
    if (out->len > max)
        return ERROR_MERGE_SIZE;
    finish_merge(&merge, is_empty);
    return HTTP_NO_ERROR;
}

/* --- The kinds of body ------------------------------------------------------------------------ */

enum media { MEDIA_JSON, MEDIA_FORM, MEDIA_OTHER };

static bool ends_with(struct slice text, struct slice end) {
    return text.len >= end.len &&
           slice_equal_nocase((struct slice){text.data + text.len - end.len, end.len}, end);
}

static enum media media_of(struct slice content_type) {
    const char *semicolon = memchr(content_type.data, ';', content_type.len);
    if (semicolon)
        content_type.len = (size_t)(semicolon - content_type.data);
    content_type = slice_trim(content_type);
    if (!content_type.len || ends_with(content_type, SLICE("/json")) ||
        ends_with(content_type, SLICE("+json")))
        return MEDIA_JSON;
    return slice_equal_nocase(content_type, SLICE("application/x-www-form-urlencoded"))
               ? MEDIA_FORM
               : MEDIA_OTHER;
}

static struct slice without_bom(struct slice body) {
    if (body.len >= 3 && memcmp(body.data, "\xEF\xBB\xBF", 3) == 0)
        return (struct slice){body.data + 3, body.len - 3};
    return body;
}

static bool may_be_json(struct slice body) {
    size_t at = 0;
    while (at < body.len && memchr(" \t\r\n", body.data[at], 4))
        at++;
    return at < body.len && (body.data[at] == '{' || body.data[at] == '[');
}

/* `{"<name>":<written by write>, <the query>}`; a field of the query with that name wins. */
static void write_wrapped(struct buf *out, const char *name, struct slice value,
                          void (*write)(struct buf *, struct slice), const struct fields *query) {
    buf_putc(out, '{');
    struct slice key = {name, strlen(name)};
    bool wins = query->count && *find_slot(query, key);
    if (!wins) {
        json_write_string(out, key);
        buf_putc(out, ':');
        write(out, value);
    }
    write_members(out, query, wins);
    buf_putc(out, '}');
}

static void write_verbatim(struct buf *out, struct slice text) {
    buf_append(out, text.data, text.len);
}

/*
 * Writes the update's text to `out`, or leaves `out` empty when it is `*body` as it is (`*body` then lacks
 * a byte-order mark it may have had).
 */
static enum http_error write_body(struct buf *out, struct slice *body, enum media media,
                                  struct fields *query) {
    if (!body->len) {
        buf_putc(out, '{');
        write_members(out, query, true);
        buf_putc(out, '}');
        return HTTP_NO_ERROR;
    }
    struct slice text = without_bom(*body);
    enum json_kind kind = JSON_INVALID;
    if (may_be_json(text)) {
        kind = json_check(text);
        if (kind == JSON_TOO_DEEP)
            return ERROR_JSON_DEPTH;
        if (kind == JSON_OBJECT && query->count)
            return merge_fields(out, text, query);
        if (kind == JSON_ARRAY && query->count)
            write_wrapped(out, "body", text, write_verbatim, query);
        else
            *body = text;
        if (kind != JSON_INVALID)
            return HTTP_NO_ERROR;
    }
    if (media == MEDIA_JSON)
        return ERROR_JSON;
    if (media == MEDIA_OTHER) {
        if (utf8_is_valid(*body))
            write_wrapped(out, "body", *body, json_write_string, query);
        else
            write_wrapped(out, "body_base64", *body, json_write_base64, query);
        return HTTP_NO_ERROR;
    }
    struct fields form;
    fields_init(&form, *body);
    for (size_t i = 0; i < form.count && query->count; i++)
        form.list[i].in_body = *find_slot(query, field_name(&form, &form.list[i])) != 0;
    buf_putc(out, '{');
    size_t before = out->len;
    write_members(out, &form, true);
    write_members(out, query, out->len == before);
    buf_putc(out, '}');
    bool failed = form.failed;
    fields_deinit(&form);
    return failed ? ERROR_BUSY : HTTP_NO_ERROR;
}

/* --- The headers ------------------------------------------------------------------------------ */

/* Headers that speak of the connection, or that are nobody else's business, are dropped. */
static bool is_kept(struct slice name) {
    static const struct slice dropped[] = {
        SLICE("connection"),        SLICE("keep-alive"), SLICE("te"),     SLICE("trailer"),
        SLICE("transfer-encoding"), SLICE("upgrade"),    SLICE("cookie"),
    };
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
        if (slice_equal_nocase(name, dropped[i]))
            return false;
    return name.len < 6 || strncasecmp(name.data, "proxy-", 6) != 0;
}

static bool is_named(const struct request *request, uint32_t index, struct slice name) {
    return slice_equal_nocase(request_slice(request, request->headers[index].name), name);
}

static bool is_repeated(const struct request *request, uint32_t index, struct slice name) {
    for (uint32_t i = 0; i < index; i++)
        if (is_named(request, i, name))
            return true;
    return false;
}

/* A header's value as a JSON string: UTF-8, else read as Latin-1. */
static void write_value(struct buf *out, struct buf *joined) {
    struct slice value = {joined->data, joined->len};
    if (utf8_is_valid(value)) {
        json_write_string(out, value);
        return;
    }
    struct buf latin1 = {0};
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i];
        if (c < 0x80) {
            buf_putc(&latin1, (char)c);
        } else {
            buf_putc(&latin1, (char)(0xC0 | c >> 6));
            buf_putc(&latin1, (char)(0x80 | (c & 0x3F)));
        }
    }
    json_write_string(out, (struct slice){latin1.data, latin1.len});
    out->failed |= latin1.failed;
    buf_deinit(&latin1);
}

/* Writes the kept headers as one JSON object; a header that would make it too large is left out. */
static void write_headers(struct buf *out, const struct request *request) {
    struct buf joined = {0};
    buf_putc(out, '{');
    for (uint32_t i = 0; i < request->header_count; i++) {
        struct slice name = request_slice(request, request->headers[i].name);
        if (!is_kept(name) || is_repeated(request, i, name))
            continue;
        size_t before = out->len;
        if (before > 1)
            buf_putc(out, ',');
        size_t name_at = out->len;
        json_write_string(out, name);
        for (size_t at = name_at; at < out->len; at++)
            if (out->data[at] >= 'A' && out->data[at] <= 'Z')
                out->data[at] += 'a' - 'A';
        buf_putc(out, ':');
        buf_reset(&joined, SIZE_MAX);
        for (uint32_t j = i; j < request->header_count; j++) {
            if (!is_named(request, j, name))
                continue;
            struct slice value = request_slice(request, request->headers[j].value);
            if (j > i)
                buf_puts(&joined, ", ");
            buf_append(&joined, value.data, value.len);
        }
        write_value(out, &joined);
        if (out->len >= UPDATE_HEADERS_MAX_BYTES)
            out->len = before;
    }
    buf_putc(out, '}');
    out->failed |= joined.failed;
    buf_deinit(&joined);
}

enum http_error update_build(const struct request *request, struct slice query,
                             bool capture_headers, struct update **update) {
    static struct buf text,
        headers; /* kept between requests: the loop thread builds one at a time */
    buf_reset(&text, SCRATCH_KEEP_BYTES);
    buf_reset(&headers, SCRATCH_KEEP_BYTES);

    struct slice raw = request_slice(request, request->body), body = raw;
    struct fields fields;
    fields_init(&fields, query);
    enum http_error error = ERROR_BUSY;
    if (!fields.failed)
        error = write_body(&text, &body, media_of(request_header(request, HEADER_CONTENT_TYPE)),
                           &fields);
    fields_deinit(&fields);
    if (error)
        return error;
    if (capture_headers)
        write_headers(&headers, request);
    if (text.failed || headers.failed)
        return ERROR_BUSY;
    if (text.len)
        body = (struct slice){text.data, text.len};
    const char *method = llhttp_method_name(request->parser.method);
    struct update_parts parts = {
        .body = body,
        .raw = raw,
        .query = query,
        .headers = {headers.data, headers.len},
        .method = {method, strlen(method)},
        .has_raw = !slice_equal(body, raw),
    };
    struct update *built = update_new(&parts);
    if (!built)
        return ERROR_BUSY;
    *update = built;
    return HTTP_NO_ERROR;
}
