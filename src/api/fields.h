/*
 * The fields of a query or a form, decoded: each name once, with its last value, in the order in
 * which the names first appear.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct field {
    size_t name_at, name_len; /* in fields.text, as UTF-8 */
    size_t value_at, value_len;
    bool is_placed; /* a member stands for it already: write_members() leaves it out */
};

struct fields {
    struct buf text;
    struct field *list;
    size_t count, cap;
    uint32_t *index; /* open addressing by name: 1 + position in list, 0 for none */
    size_t index_size;
    bool failed; /* memory is out */
};

/* Decodes `text` (application/x-www-form-urlencoded). Check `failed`; always fields_deinit() it. */
void fields_init(struct fields *fields, struct slice text);
void fields_deinit(struct fields *fields);

/* Memory they take. */
size_t fields_size(const struct fields *fields);

/* The field called `name`, NULL when there is none. */
struct field *fields_find(const struct fields *fields, struct slice name);

static inline struct slice fields_name(const struct fields *fields, const struct field *field) {
    return (struct slice){fields->text.data + field->name_at, field->name_len};
}

static inline struct slice fields_value(const struct fields *fields, const struct field *field) {
    return (struct slice){fields->text.data + field->value_at, field->value_len};
}

/* None is placed any more. */
void fields_unplace(struct fields *fields);

/* Writes those that are not placed as members of a JSON object, with a comma before each; before
 * the first of them only unless `is_first`. */
void fields_write_members(const struct fields *fields, struct buf *out, bool is_first);
