#include "api/body.h"
#include "api/content.h"
#include "api/multipart.h"
#include "base/charset.h"
#include "base/json.h"
#include "base/utf8.h"

bool body_is_json_strict;

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
    fields_write_value(merge->fields, merge->out, field);
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
    size_t max = body.len + 6 * (fields->text.len + 64) + 4 * fields->value_count;
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

static enum http_error write_base64(struct buf *out, struct slice body,
                                    const struct fields *query) {
    write_wrapped(out, SLICE("body_base64"), body, json_write_base64, query);
    return HTTP_NO_ERROR;
}

/* A byte becomes six at most, so what is short is not looked through. */
static bool is_costly(struct slice text) {
    return text.len > JSON_GROWTH_FREE_BYTES / 5 &&
           json_string_is_costly(json_string_growth(text), text.len);
}

/* Writes `text`, which is `body` as UTF-8. */
static enum http_error write_text(struct buf *out, struct slice text, struct slice body,
                                  const struct fields *query) {
    if (is_costly(text))
        return write_base64(out, body, query);
    write_wrapped(out, SLICE("body"), text, json_write_string, query);
    return HTTP_NO_ERROR;
}

/* Writes the fields of a form and those of the query, which win. Very many are kept as `text`,
 * which is `body` as UTF-8. */
static enum http_error write_form(struct buf *out, struct slice text, struct slice body,
                                  struct slice charset, const struct fields *query) {
    struct fields form;
    fields_init(&form, without_bom(body), charset);
    if (form.is_too_many)
        return write_text(out, text, body, query);
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

/* --- JSON ------------------------------------------------------------------------------------- */

/* A JSON text that was looked at. */
struct json {
    struct slice text;
    enum json_kind kind;
    bool has_half; /* of a surrogate pair */
};

static bool may_be_container(struct slice text) {
    text = skip_blank(text);
    return text.len && (*text.data == '{' || *text.data == '[');
}

static struct json look_at(struct slice text) {
    struct json json = {.text = text};
    json.kind = json_inspect(text, BODY_DEPTH_MAX, &json.has_half);
    return json;
}

/* Writes the valid `json`, merged with the query. */
static enum http_error write_merged(struct buf *out, struct json json, struct fields *query) {
    if (json.kind != JSON_OBJECT) {
        write_wrapped(out, SLICE("body"), json.text, write_verbatim, query);
        return HTTP_NO_ERROR;
    }
    if (query->count)
        return merge_fields(out, json.text, query);
    write_verbatim(out, json.text);
    return HTTP_NO_ERROR;
}

/* The same, with its halves of surrogate pairs mended. */
static enum http_error write_json(struct buf *out, struct json json, struct fields *query) {
    if (json.kind == JSON_ARRAY && !query->count) {
        (json.has_half ? json_write_mended : write_verbatim)(out, json.text);
        return HTTP_NO_ERROR;
    }
    if (!json.has_half)
        return write_merged(out, json, query);
    struct buf mended = {0};
    json_write_mended(&mended, json.text);
    json.text = (struct slice){mended.data, mended.len};
    enum http_error error = mended.failed ? ERROR_BUSY : write_merged(out, json, query);
    buf_deinit(&mended);
    return error;
}

/* --- What is neither an object nor an array --------------------------------------------------- */

/* Writes `text`, which is `body` as UTF-8, under a JSON type or none. */
static enum http_error write_not_json(struct buf *out, struct slice text, struct slice body,
                                      struct fields *query) {
    struct json json = look_at(text);
    return json.kind == JSON_SCALAR ? write_json(out, json, query)
                                    : write_text(out, text, body, query);
}

static bool is_too_deep(struct slice text) {
    return may_be_container(text) && look_at(text).kind == JSON_TOO_DEEP;
}

/* Writes `text`, the body as UTF-8. */
static enum http_error write_decoded(struct buf *out, struct slice text, struct slice body,
                                     const struct content *content, struct fields *query) {
    if (text.data != body.data && may_be_container(text)) {
        struct json json = look_at(text);
        if (json.kind == JSON_OBJECT || json.kind == JSON_ARRAY)
            return write_json(out, json, query);
    }
    if (!utf8_is_valid(text))
        return write_base64(out, body, query);
    bool is_form = content->media == MEDIA_FORM && !is_too_deep(text) && !is_costly(body);
    bool is_unlike_ascii = text.data != body.data &&
                           (charset_of_mark(body).len || charset_is_unlike_ascii(content->charset));
    if (is_form && is_unlike_ascii) /* its separators are none of single bytes */
        return write_form(out, text, text, SLICE(""), query);
    if (is_form)
        return write_form(out, text, body, content->charset, query);
    text = without_bom(text);
    bool is_json = content->media == MEDIA_JSON || content->media == MEDIA_NONE;
    return is_json ? write_not_json(out, text, body, query) : write_text(out, text, body, query);
}

static enum http_error write_other(struct buf *out, struct slice body, struct slice content_type,
                                   struct fields *query) {
    if (multipart_is_form(content_type) && multipart_write(out, body, content_type, query))
        return HTTP_NO_ERROR;
    struct content content = content_of(content_type);
    bool is_json = content.media == MEDIA_JSON || content.media == MEDIA_NONE;
    if (is_json && body_is_json_strict)
        return is_too_deep(body) ? ERROR_JSON_DEPTH : ERROR_JSON;
    struct slice text = body;
    struct buf decoded = {0};
    if (content_decode(&decoded, body, &content))
        text = decoded.len ? (struct slice){decoded.data, decoded.len} : SLICE("");
    enum http_error error = ERROR_BUSY;
    if (!decoded.failed)
        error = write_decoded(out, text, body, &content, query);
    buf_deinit(&decoded);
    return error;
}

enum http_error body_write(struct buf *out, struct slice *body, struct slice content_type,
                           struct fields *query) {
    if (!body->len)
        return write_form(out, *body, *body, SLICE(""), query);
    struct json json = {.text = without_bom(*body), .kind = JSON_INVALID};
    if (may_be_container(json.text))
        json = look_at(json.text);
    if (json.kind == JSON_OBJECT || json.kind == JSON_ARRAY) {
        *body = json.text;
        return query->count || json.has_half ? write_json(out, json, query) : HTTP_NO_ERROR;
    }
    return write_other(out, *body, content_type, query);
}

void body_write_bytes(struct buf *out, struct slice body, const struct fields *query) {
    write_base64(out, body, query);
}
