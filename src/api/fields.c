#include "api/fields.h"
#include "base/charset.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"

#include <stdlib.h>

/* The index slot of `name`: taken by the field of that name, or free for it. */
static uint32_t *find_slot(const struct fields *fields, struct slice name) {
    for (size_t at = hash_of(name) & (fields->index_size - 1);;
         at = (at + 1) & (fields->index_size - 1)) {
        uint32_t *slot = &fields->index[at];
        if (!*slot || slice_equal(fields_name(fields, &fields->list[*slot - 1]), name))
            return slot;
    }
}

static size_t count_pairs(struct slice text) {
    size_t count = 0;
    for (struct text_pair pair; text_next_pair(&text, &pair);)
        count++;
    return count;
}

/* Appends the decoded `text` as UTF-8, by way of `scratch`; returns the length. */
static uint32_t decode(struct buf *out, struct slice text, struct charset *charset,
                       struct buf *scratch) {
    size_t before = out->len;
    buf_reset(scratch, SIZE_MAX);
    text_decode_form(scratch, text);
    out->failed |= scratch->failed;
    struct slice decoded = {scratch->data, scratch->len};
    if (utf8_is_valid(decoded))
        buf_append(out, decoded.data, decoded.len);
    else
        charset_decode_text(out, decoded, charset);
    return (uint32_t)(out->len - before);
}

/* Adds the pair to the field of its name, which may be new. */
static void add_pair(struct fields *fields, const struct text_pair *pair, struct charset *charset,
                     struct buf *scratch) {
    struct field field = {.name_at = (uint32_t)fields->text.len};
    field.name_len = decode(&fields->text, pair->name, charset, scratch);
    struct field_value value = {.at = (uint32_t)fields->text.len};
    value.len = decode(&fields->text, pair->value, charset, scratch);
    if (fields->text.failed)
        return;
    fields->values[fields->value_count++] = value;
    uint32_t number = (uint32_t)fields->value_count;
    uint32_t *slot = find_slot(fields, fields_name(fields, &field));
    if (*slot) {
        struct field *known = &fields->list[*slot - 1];
        fields->values[known->last - 1].next = number;
        known->last = number;
        return;
    }
    field.first = field.last = number;
    fields->list[fields->count] = field;
    *slot = (uint32_t)++fields->count;
}

void fields_init(struct fields *fields, struct slice text, struct slice charset) {
    *fields = (struct fields){0};
    size_t pairs = count_pairs(text);
    fields->is_too_many = pairs > FIELDS_MAX;
    if (!pairs || fields->is_too_many)
        return;
    fields->index_size = 4;
    while (fields->index_size < 2 * pairs)
        fields->index_size *= 2;
    fields->cap = pairs;
    fields->list = calloc(pairs, sizeof *fields->list);
    fields->values = calloc(pairs, sizeof *fields->values);
    fields->index = calloc(fields->index_size, sizeof *fields->index);
    fields->failed = !fields->list || !fields->values || !fields->index ||
                     !buf_reserve(&fields->text, text.len + 1);
    struct buf scratch = {0};
    struct charset reader = {.name = charset};
    for (struct text_pair pair; !fields->failed && text_next_pair(&text, &pair);) {
        add_pair(fields, &pair, &reader, &scratch);
        fields->failed = fields->text.failed;
    }
    charset_deinit(&reader);
    buf_deinit(&scratch);
}

void fields_deinit(struct fields *fields) {
    buf_deinit(&fields->text);
    free(fields->list);
    free(fields->values);
    free(fields->index);
}

size_t fields_size(const struct fields *fields) {
    return fields->text.cap + fields->cap * (sizeof *fields->list + sizeof *fields->values) +
           fields->index_size * sizeof *fields->index;
}

void fields_unplace(struct fields *fields) {
    for (size_t i = 0; i < fields->count; i++)
        fields->list[i].is_placed = false;
}

struct field *fields_find(const struct fields *fields, struct slice name) {
    uint32_t at = fields->count ? *find_slot(fields, name) : 0;
    return at ? &fields->list[at - 1] : NULL;
}

void fields_write_value(const struct fields *fields, struct buf *out, const struct field *field) {
    bool is_array = field->first != field->last;
    if (is_array)
        buf_putc(out, '[');
    for (uint32_t at = field->first; at; at = fields->values[at - 1].next) {
        const struct field_value *value = &fields->values[at - 1];
        if (at != field->first)
            buf_putc(out, ',');
        json_write_string(out, (struct slice){fields->text.data + value->at, value->len});
    }
    if (is_array)
        buf_putc(out, ']');
}

void fields_write_members(const struct fields *fields, struct buf *out, bool is_first) {
    for (size_t i = 0; i < fields->count; i++) {
        const struct field *field = &fields->list[i];
        if (field->is_placed)
            continue;
        if (!is_first)
            buf_putc(out, ',');
        is_first = false;
        json_write_string(out, fields_name(fields, field));
        buf_putc(out, ':');
        fields_write_value(fields, out, field);
    }
}
