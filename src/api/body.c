#include "api/body.h"
#include "base/json.h"
#include "base/utf8.h"

/* --- Merging the query into a JSON object ----------------------------------------------------- */

struct merge {
    struct slice body;
    struct fields *fields;
    struct buf *out;
    size_t copied; /* bytes of the body that are in `out` */
    size_t max;    /* of `out`: a member that is repeated would multiply the query's value */
    bool has_members;
};

/* A member whose name is in the query gets the query's value, in its place. */
static void on_member(void *context, struct slice key, struct json_span value) {
    struct merge *merge = context;
    merge->has_members = true;
    struct field *field = fields_find(merge->fields, key);
    if (!field)
        return;
    field->is_placed = true;
    if (merge->out->len > merge->max)
        return;
    buf_append(merge->out, merge->body.data + merge->copied, value.at - merge->copied);
    json_write_string(merge->out, fields_value(merge->fields, field));
    merge->copied = value.at + value.len;
}

/* Writes the rest of the body, with the query's other fields before its closing brace. */
static void finish_merge(struct merge *merge) {
    size_t brace = merge->body.len - 1;
    while (merge->body.data[brace] != '}')
        brace--;
    buf_append(merge->out, merge->body.data + merge->copied, brace - merge->copied);
    fields_write_members(merge->fields, merge->out, !merge->has_members);
    buf_append(merge->out, merge->body.data + brace, merge->body.len - brace);
}

/* --- The kinds of body ------------------------------------------------------------------------ */

enum media { MEDIA_JSON, MEDIA_FORM, MEDIA_OTHER };

static bool ends_with(struct slice text, struct slice end) {
    return text.len >= end.len && slice_equal_nocase(slice_after(text, text.len - end.len), end);
}

static enum media media_of(struct slice content_type) {
    struct slice type;
    slice_cut(&content_type, ';', &type);
    type = slice_trim(type);
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

/* Writes `{"<key>":<value as `write` puts it>, <the query>}`; a field of the query called `key` wins. */
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

/* Writes the JSON object or array `*body`, unless it stays as it is. */
static enum http_error write_json(struct buf *out, struct slice text, enum json_kind *kind,
                                  struct fields *query) {
    struct merge merge = {
        .body = text,
        .fields = query,
        .out = out,
        .max = text.len + 6 * (query->text.len + 64),
    };
    *kind = json_check(text, query->count ? on_member : NULL, &merge);
    if (*kind == JSON_NO_MEMORY)
        return ERROR_BUSY;
    if (*kind == JSON_TOO_DEEP)
        return ERROR_JSON_DEPTH;
    if (*kind == JSON_OBJECT && out->len > merge.max)
        return ERROR_MERGE_SIZE;
    if (*kind == JSON_OBJECT && query->count)
        finish_merge(&merge);
    if (*kind == JSON_ARRAY && query->count)
        write_wrapped(out, SLICE("body"), text, write_verbatim, query);
    return HTTP_NO_ERROR;
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
    if (may_be_json(text)) {
        enum json_kind kind;
        enum http_error error = write_json(out, text, &kind, query);
        if (kind != JSON_INVALID) {
            *body = text;
            return error;
        }
        buf_reset(out, SIZE_MAX); /* members may have been written before the mistake */
        for (size_t i = 0; i < query->count; i++)
            query->list[i].is_placed = false;
    }
    switch (media_of(content_type)) {
    case MEDIA_JSON: return ERROR_JSON;
    case MEDIA_FORM: return write_form(out, *body, query);
    case MEDIA_OTHER: break;
    }
    if (utf8_is_valid(*body))
        write_wrapped(out, SLICE("body"), *body, json_write_string, query);
    else
        write_wrapped(out, SLICE("body_base64"), *body, json_write_base64, query);
    return HTTP_NO_ERROR;
}
