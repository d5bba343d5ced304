#include "api/body.h"
#include "api/multipart.h"
#include "base/json.h"
#include "base/utf8.h"

/* --- Merging the query into a JSON object ----------------------------------------------------- */

struct merge {
    struct slice body; /* an object */
    struct fields *fields;
    struct buf *out;
    struct buf scratch; /* for keys */
    size_t copied;      /* bytes of the body that are in `out` */
};

/* A member whose name is in the query gets the query's value, in its place. */
static void merge_member(struct merge *merge, const struct json_member *member) {
    struct field *field = fields_find(merge->fields, json_unescape(member->key, &merge->scratch));
    if (!field)
        return;
    field->is_placed = true;
    size_t value_at = (size_t)(member->value.data - merge->body.data);
    buf_append(merge->out, merge->body.data + merge->copied, value_at - merge->copied);
    json_write_string(merge->out, fields_value(merge->fields, field));
    merge->copied = value_at + member->value.len;
}

/* Writes the rest of the body, with the query's other fields before its closing brace. */
static void finish_merge(struct merge *merge, bool is_empty) {
    size_t brace = merge->body.len - 1;
    while (merge->body.data[brace] != '}')
        brace--;
    buf_append(merge->out, merge->body.data + merge->copied, brace - merge->copied);
    fields_write_members(merge->fields, merge->out, is_empty);
    buf_append(merge->out, merge->body.data + brace, merge->body.len - brace);
}

/* Writes the object `body` with the fields as members. */
static enum http_error merge_fields(struct buf *out, struct slice body, struct fields *fields) {
    struct merge merge = {.body = body, .fields = fields, .out = out};
    /* A member that is repeated would multiply the query's value. */
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
    return text.len >= end.len && slice_equal_nocase(slice_after(text, text.len - end.len), end);
}

static enum media media_of(struct slice content_type) {
    struct slice type;
    type = slice_cut(&content_type, ';', &type) ? slice_trim(type) : SLICE("");
    if (!type.len || ends_with(type, SLICE("/json")) || ends_with(type, SLICE("+json")))
        return MEDIA_JSON;
    return slice_equal_nocase(type, SLICE("application/x-www-form-urlencoded")) ? MEDIA_FORM
                                                                                : MEDIA_OTHER;
}

static struct slice without_bom(struct slice body) {
    struct slice bom = SLICE("\xEF\xBB\xBF");
    return slice_starts_with(body, bom) ? slice_after(body, bom.len) : body;
}

static void write_verbatim(struct buf *out, struct slice text) {
    buf_append(out, text.data, text.len);
}

/* Writes `{"<key>":<value as `write` puts it>, <the query>}`; a field of the query called `key`
 * wins. */
static void write_wrapped(struct buf *out, struct slice key, struct slice value,
                          void (*write)(struct buf *, struct slice), const struct fields *query) {
    buf_putc(out, '{');
    bool is_replaced = fields_find(query, key);
    if (!is_replaced) {
        json_write_string(out, key);
        buf_putc(out, ':');
        write(out, value);
    }
    fields_write_members(query, out, is_replaced);
    buf_putc(out, '}');
}

/* Writes the fields of a form and those of the query, which win. */
static enum http_error write_form(struct buf *out, struct slice body, const struct fields *query) {
    struct fields form;
    fields_init(&form, body);
    for (size_t i = 0; i < form.count; i++)
        form.list[i].is_placed = fields_find(query, fields_name(&form, &form.list[i]));
    buf_putc(out, '{');
    size_t before = out->len;
    fields_write_members(&form, out, true);
    fields_write_members(query, out, out->len == before);
    buf_putc(out, '}');
    bool failed = form.failed;
    fields_deinit(&form);
    return failed ? ERROR_BUSY : HTTP_NO_ERROR;
}

static bool may_be_json(struct slice text) {
    text = skip_blank(text);
    return text.len && (*text.data == '{' || *text.data == '[');
}

enum http_error body_write(struct buf *out, struct slice *body, struct slice content_type,
                           struct fields *query) {
    if (!body->len)
        return write_form(out, *body, query);
    struct slice text = without_bom(*body);
    enum json_kind kind = may_be_json(text) ? json_check(text) : JSON_INVALID;
    if (kind == JSON_TOO_DEEP)
        return ERROR_JSON_DEPTH;
    if (kind != JSON_INVALID) {
        *body = text;
        if (!query->count)
            return HTTP_NO_ERROR;
        if (kind == JSON_OBJECT)
            return merge_fields(out, text, query);
        write_wrapped(out, SLICE("body"), text, write_verbatim, query);
        return HTTP_NO_ERROR;
    }
    switch (media_of(content_type)) {
    case MEDIA_JSON: return ERROR_JSON;
    case MEDIA_FORM: return write_form(out, *body, query);
    case MEDIA_OTHER: break;
    }
    if (multipart_is_form(content_type) && multipart_write(out, *body, content_type, query))
        return HTTP_NO_ERROR;
    if (utf8_is_valid(*body))
        write_wrapped(out, SLICE("body"), *body, json_write_string, query);
    else
        write_wrapped(out, SLICE("body_base64"), *body, json_write_base64, query);
    return HTTP_NO_ERROR;
}
