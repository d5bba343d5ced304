#include "api/multipart.h"
#include "api/content.h"
#include "base/charset.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"

#include <stdlib.h>

/* --- Header values with parameters ------------------------------------------------------------ */

struct param {
    struct slice name, value;
    bool is_quoted; /* `value` stands between quotes, and still has its escapes */
};

/* The length of a quoted string's inside, up to its closing quote; false when there is none. */
static bool quoted_len(struct slice text, size_t *len) {
    for (size_t at = 0; at < text.len; at++) {
        if (text.data[at] == '"') {
            *len = at;
            return true;
        }
        /* Only these are escaped: some senders put a path with backslashes between the quotes. */
        if (text.data[at] == '\\' && at + 1 < text.len &&
            (text.data[at + 1] == '"' || text.data[at + 1] == '\\'))
            at++;
    }
    return false;
}

/* Takes the next `; name=value` off the front of `rest`. False at the end, where `rest` is empty,
 * or at what is no parameter. */
static bool next_param(struct slice *rest, struct param *param) {
    struct slice text = slice_trim(*rest);
    while (text.len && *text.data == ';')
        text = slice_trim(slice_after(text, 1));
    *rest = text;
    const char *equals = text.len ? memchr(text.data, '=', text.len) : NULL;
    if (!equals)
        return false;
    param->name = slice_trim((struct slice){text.data, (size_t)(equals - text.data)});
    if (memchr(param->name.data, ';', param->name.len))
        return false;
    text = slice_trim(slice_after(text, (size_t)(equals - text.data) + 1));
    param->is_quoted = text.len && *text.data == '"';
    if (!param->is_quoted) {
        const char *end = text.len ? memchr(text.data, ';', text.len) : NULL;
        size_t len = end ? (size_t)(end - text.data) : text.len;
        param->value = slice_trim((struct slice){text.data, len});
        *rest = slice_after(text, len);
        return true;
    }
    text = slice_after(text, 1);
    size_t len;
    if (!quoted_len(text, &len))
        return false;
    param->value = (struct slice){text.data, len};
    *rest = slice_after(text, len + 1);
    return true;
}

/* Appends a text that should be UTF-8, and else is taken for windows-1252. */
static void append_text(struct buf *out, struct slice text) {
    struct charset unknown = {.name = SLICE("")};
    if (utf8_is_valid(text))
        buf_append(out, text.data, text.len);
    else
        charset_decode_text(out, text, &unknown);
}

/* Appends the parameter's value as UTF-8. */
static void write_param(struct buf *out, const struct param *param) {
    struct slice text = param->value;
    if (!param->is_quoted || !memchr(text.data, '\\', text.len)) {
        append_text(out, text);
        return;
    }
    struct buf plain = {0};
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '\\' && i + 1 < text.len &&
            (text.data[i + 1] == '"' || text.data[i + 1] == '\\'))
            i++;
        buf_putc(&plain, text.data[i]);
    }
    append_text(out, (struct slice){plain.data, plain.len});
    out->failed |= plain.failed;
    buf_deinit(&plain);
}

/* Appends a value of RFC 8187, `charset'language'percent-encoded`; false when it is none, or in
 * another charset than UTF-8 and ISO-8859-1. */
static bool write_extended(struct buf *out, struct slice value) {
    struct slice charset, language;
    if (!slice_cut(&value, '\'', &charset) || !slice_cut(&value, '\'', &language) || !value.data)
        return false;
    bool is_latin1 = slice_equal_nocase(charset, SLICE("iso-8859-1"));
    if (!is_latin1 && !slice_equal_nocase(charset, SLICE("utf-8")))
        return false;
    struct buf bytes = {0};
    if (!buf_reserve(&bytes, value.len + 1) || !bytes.data) {
        out->failed = true;
        return true;
    }
    long len = text_decode_percent(value, bytes.data);
    for (long i = 0; is_latin1 && i < len; i++)
        utf8_put(out, (unsigned char)bytes.data[i]);
    if (!is_latin1 && len > 0)
        utf8_append(out, (struct slice){bytes.data, (size_t)len});
    buf_deinit(&bytes);
    return len >= 0;
}

/* --- Parts ------------------------------------------------------------------------------------ */

/* A text in form.text. */
struct stretch {
    size_t at, len;
};

struct part {
    struct stretch name, filename;
    bool has_name, has_filename;
    bool is_further; /* not the first of its name */
    uint64_t hash;   /* of the name */
    size_t next;     /* of the same name; 0 for none */
    size_t last;     /* of the same name; kept by the first */
    struct slice type, body;
};

struct form {
    struct part *parts;
    size_t count, cap;
    struct buf text;      /* names, decoded */
    struct slice charset; /* that of fields which name none; may be empty */
    size_t len;           /* of the body */
    size_t growth;        /* of its texts as strings */
    bool failed;          /* memory is out */
};

static struct slice text_of(const struct form *form, struct stretch stretch) {
    return stretch.len ? (struct slice){form->text.data + stretch.at, stretch.len} : SLICE("");
}

/* Reads `name` or `filename`; `name*` and `filename*` win, wherever they stand. */
static void read_disposition_param(struct form *form, const struct param *param, struct slice name,
                                   struct stretch *stretch, bool *has, bool *is_extended) {
    bool extended = param->name.len == name.len + 1 && param->name.data[name.len] == '*';
    struct slice stem = {param->name.data, param->name.len - extended};
    if (!slice_equal_nocase(stem, name) || *is_extended)
        return;
    size_t at = form->text.len;
    if (!extended)
        write_param(&form->text, param);
    else if (!write_extended(&form->text, param->value))
        return;
    *stretch = (struct stretch){at, form->text.len - at};
    *has = true;
    *is_extended = extended;
}

static bool read_disposition(struct form *form, struct part *part, struct slice value) {
    size_t end = 0;
    while (end < value.len && value.data[end] != ';')
        end++;
    if (!slice_equal_nocase(slice_trim((struct slice){value.data, end}), SLICE("form-data")))
        return false;
    struct slice rest = slice_after(value, end);
    bool is_name_extended = false, is_filename_extended = false;
    for (struct param param; next_param(&rest, &param);) {
        read_disposition_param(form, &param, SLICE("name"), &part->name, &part->has_name,
                               &is_name_extended);
        read_disposition_param(form, &param, SLICE("filename"), &part->filename,
                               &part->has_filename, &is_filename_extended);
    }
    return !rest.len && part->has_name;
}

static bool has_control(struct slice line) {
    for (size_t i = 0; i < line.len; i++)
        if (((unsigned char)line.data[i] < ' ' && line.data[i] != '\t') || line.data[i] == 0x7f)
            return true;
    return false;
}

/* Reads the headers of a part, without their empty line. */
static bool read_headers(struct form *form, struct part *part, struct slice headers) {
    while (headers.len) {
        const char *end = memmem(headers.data, headers.len, "\r\n", 2);
        struct slice line = {headers.data, end ? (size_t)(end - headers.data) : headers.len};
        headers = slice_after(headers, line.len + (end ? 2 : 0));
        struct slice name;
        if (has_control(line) || !slice_cut(&line, ':', &name) || !line.data)
            return false;
        struct slice value = slice_trim(line);
        if (slice_equal_nocase(name, SLICE("content-disposition")) &&
            (part->has_name || !read_disposition(form, part, value)))
            return false;
        if (slice_equal_nocase(name, SLICE("content-type")))
            part->type = value;
    }
    return part->has_name;
}

/* Adds the part behind those of its name. Few names share a hash, so this compares numbers. */
static bool add_part(struct form *form, struct part part) {
    if (form->count == form->cap) {
        size_t cap = form->cap ? 2 * form->cap : 16;
        struct part *parts = realloc(form->parts, cap * sizeof *parts);
        form->failed |= !parts;
        if (!parts)
            return false;
        form->parts = parts;
        form->cap = cap;
    }
    struct slice name = text_of(form, part.name);
    part.hash = hash_of(name);
    part.last = form->count;
    for (size_t i = 0; i < form->count && !part.is_further; i++) {
        struct part *first = &form->parts[i];
        if (first->is_further || first->hash != part.hash ||
            !slice_equal(text_of(form, first->name), name))
            continue;
        form->parts[first->last].next = form->count;
        first->last = form->count;
        part.is_further = true;
    }
    form->parts[form->count++] = part;
    return true;
}

/* --- Delimiters ------------------------------------------------------------------------------- */

enum delimiter { DELIMITER_NONE, DELIMITER_NEXT, DELIMITER_LAST };

/* What stands behind a boundary: blanks and a line break, or two hyphens. Sets `*len`. */
static enum delimiter delimiter_end(struct slice text, size_t *len) {
    if (slice_starts_with(text, SLICE("--")))
        return DELIMITER_LAST;
    size_t at = 0;
    while (at < text.len && (text.data[at] == ' ' || text.data[at] == '\t'))
        at++;
    *len = at + 2;
    return slice_starts_with(slice_after(text, at), SLICE("\r\n")) ? DELIMITER_NEXT
                                                                   : DELIMITER_NONE;
}

/* Finds the next delimiter: sets `before` to what stands in front of it, `rest` to what is
 * behind. `line` is CRLF, two hyphens and the boundary. */
static enum delimiter find_delimiter(struct slice *rest, struct slice line, struct slice *before) {
    struct slice text = *rest;
    for (const char *at; (at = memmem(text.data, text.len, line.data, line.len));) {
        text = slice_after(text, (size_t)(at - text.data) + line.len);
        size_t len = 0;
        enum delimiter found = delimiter_end(text, &len);
        if (found == DELIMITER_NONE)
            continue;
        *before = (struct slice){rest->data, (size_t)(at - rest->data)};
        *rest = slice_after(text, len);
        return found;
    }
    return DELIMITER_NONE;
}

/* Reads one part, and finds the delimiter behind it. */
static enum delimiter read_part(struct form *form, struct slice *rest, struct slice line) {
    struct part part = {0};
    size_t window =
        rest->len < MULTIPART_HEADERS_MAX_BYTES ? rest->len : (size_t)MULTIPART_HEADERS_MAX_BYTES;
    const char *end = window ? memmem(rest->data, window, "\r\n\r\n", 4) : NULL;
    if (!end || form->count == MULTIPART_PARTS_MAX ||
        !read_headers(form, &part, (struct slice){rest->data, (size_t)(end - rest->data)}))
        return DELIMITER_NONE;
    /* The break of the empty line may be the delimiter's: then the part has no body at all. */
    *rest = slice_after(*rest, (size_t)(end - rest->data) + 2);
    enum delimiter found = find_delimiter(rest, line, &part.body);
    part.body = part.body.len ? slice_after(part.body, 2) : SLICE("");
    return found && add_part(form, part) ? found : DELIMITER_NONE;
}

/* Makes the delimiter's line of the Content-Type's boundary; empty when there is none. */
static struct slice delimiter_line(struct slice content_type,
                                   char line[MULTIPART_BOUNDARY_MAX_BYTES + 4]) {
    struct slice type;
    slice_cut(&content_type, ';', &type);
    for (struct param param; content_type.data && next_param(&content_type, &param);) {
        if (!slice_equal_nocase(param.name, SLICE("boundary")))
            continue;
        if (!param.value.len || param.value.len > MULTIPART_BOUNDARY_MAX_BYTES)
            break;
        memcpy(line, "\r\n--", 4);
        memcpy(line + 4, param.value.data, param.value.len);
        return (struct slice){line, param.value.len + 4};
    }
    return SLICE("");
}

static bool read_form(struct form *form, struct slice body, struct slice content_type) {
    char text[MULTIPART_BOUNDARY_MAX_BYTES + 4];
    struct slice line = delimiter_line(content_type, text), preamble;
    if (!line.len)
        return false;
    enum delimiter found = DELIMITER_NONE;
    size_t len = 0;
    if (slice_starts_with(body, slice_after(line, 2)))
        found = delimiter_end(slice_after(body, line.len - 2), &len);
    if (found)
        body = slice_after(body, line.len - 2 + len);
    else
        found = find_delimiter(&body, line, &preamble);
    while (found == DELIMITER_NEXT)
        found = read_part(form, &body, line);
    return found == DELIMITER_LAST;
}

/* --- The object ------------------------------------------------------------------------------- */

/* Whether a part may stand as a string. All of them together must not grow much. */
static bool is_text(struct form *form, struct slice text) {
    if (!utf8_is_valid(text))
        return false;
    size_t growth = form->growth + json_string_growth(text);
    if (json_string_is_costly(growth, form->len))
        return false;
    form->growth = growth;
    return true;
}

/* Writes a field that is text as a string; false when it is none. */
static bool write_field(struct buf *out, struct form *form, const struct part *part) {
    struct slice text = part->body;
    struct content content = content_of(part->type);
    if (!content.charset.len && content.media != MEDIA_OTHER)
        content.charset = form->charset;
    struct buf decoded = {0};
    if (content_decode(&decoded, text, &content))
        text = (struct slice){decoded.data, decoded.len};
    bool written = is_text(form, text);
    if (written)
        json_write_string(out, text);
    out->failed |= decoded.failed;
    buf_deinit(&decoded);
    return written;
}

static void write_part(struct buf *out, struct form *form, const struct part *part) {
    if (!part->has_filename && write_field(out, form, part))
        return;
    bool is_string = is_text(form, part->body);
    buf_putc(out, '{');
    if (part->has_filename) {
        buf_puts(out, "\"filename\":");
        json_write_string(out, text_of(form, part->filename));
        buf_putc(out, ',');
    }
    buf_puts(out, "\"content_type\":");
    json_write_string(out, part->type.len ? part->type : SLICE("text/plain"));
    buf_puts(out, ",\"size\":");
    buf_put_number(out, part->body.len);
    buf_puts(out, is_string ? ",\"body\":" : ",\"body_base64\":");
    (is_string ? json_write_string : json_write_base64)(out, part->body);
    buf_putc(out, '}');
}

/* Writes the value of a name: that of its one part, or an array of all of them. */
static void write_values(struct buf *out, struct form *form, const struct part *first) {
    if (!first->next) {
        write_part(out, form, first);
        return;
    }
    char separator = '[';
    for (const struct part *part = first;; part = &form->parts[part->next]) {
        buf_putc(out, separator);
        write_part(out, form, part);
        separator = ',';
        if (!part->next)
            break;
    }
    buf_putc(out, ']');
}

/* Finds the charset of the form (RFC 7578, 4.6). */
static void find_charset(struct form *form) {
    for (size_t i = 0; i < form->count && !form->charset.len; i++)
        if (slice_equal(text_of(form, form->parts[i].name), SLICE("_charset_")))
            form->charset = slice_trim(form->parts[i].body);
}

static void write_object(struct buf *out, struct form *form, const struct fields *query) {
    buf_putc(out, '{');
    bool is_first = true;
    for (size_t i = 0; i < form->count; i++) {
        const struct part *part = &form->parts[i];
        struct slice name = text_of(form, part->name);
        if (part->is_further || fields_find(query, name))
            continue;
        if (!is_first)
            buf_putc(out, ',');
        is_first = false;
        json_write_string(out, name);
        buf_putc(out, ':');
        write_values(out, form, part);
    }
    fields_write_members(query, out, is_first);
    buf_putc(out, '}');
}

bool multipart_is_form(struct slice content_type) {
    struct slice type;
    return slice_cut(&content_type, ';', &type) &&
           slice_equal_nocase(slice_trim(type), SLICE("multipart/form-data"));
}

bool multipart_write(struct buf *out, struct slice body, struct slice content_type,
                     const struct fields *query) {
    struct form form = {.len = body.len};
    bool is_sound = read_form(&form, body, content_type);
    bool failed = form.failed || form.text.failed;
    find_charset(&form);
    if (failed)
        out->failed = true;
    else if (is_sound)
        write_object(out, &form, query);
    free(form.parts);
    buf_deinit(&form.text);
    return is_sound || failed;
}
