#include "api/fields.h"
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

/* Appends the decoded `text` as UTF-8, by way of `scratch`. */
static void decode(struct buf *out, struct slice text, struct buf *scratch) {
    buf_reset(scratch, SIZE_MAX);
    text_decode_form(scratch, text);
    out->failed |= scratch->failed;
    utf8_append(out, (struct slice){scratch->data, scratch->len});
}

void fields_init(struct fields *fields, struct slice text) {
    *fields = (struct fields){0};
    size_t pairs = count_pairs(text);
    if (!pairs)
        return;
    fields->index_size = 4;
    while (fields->index_size < 2 * pairs)
        fields->index_size *= 2;
    fields->cap = pairs;
    fields->list = calloc(pairs, sizeof *fields->list);
    fields->index = calloc(fields->index_size, sizeof *fields->index);
    fields->failed = !fields->list || !fields->index || !buf_reserve(&fields->text, text.len + 1);
    struct buf scratch = {0};
    for (struct text_pair pair; !fields->failed && text_next_pair(&text, &pair);) {
        struct field field = {.name_at = fields->text.len};
        decode(&fields->text, pair.name, &scratch);
        field.name_len = fields->text.len - field.name_at;
        field.value_at = fields->text.len;
        decode(&fields->text, pair.value, &scratch);
        field.value_len = fields->text.len - field.value_at;
        uint32_t *slot = find_slot(fields, fields_name(fields, &field));
        if (!*slot)
            *slot = (uint32_t)++fields->count;
        fields->list[*slot - 1] = field;
    }
    fields->failed |= fields->text.failed;
    buf_deinit(&scratch);
}

void fields_deinit(struct fields *fields) {
    buf_deinit(&fields->text);
    free(fields->list);
    free(fields->index);
}

size_t fields_size(const struct fields *fields) {
    return fields->text.cap + fields->cap * sizeof *fields->list +
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
        json_write_string(out, fields_value(fields, field));
    }
}
